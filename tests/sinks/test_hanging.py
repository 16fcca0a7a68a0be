"""A far side that hangs: bounded for its own sink, and nothing to the others, to acks or to the end of the process."""

from __future__ import annotations

import asyncio
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from gateway.journal import Journal
from gateway.sinks.base import Unavailable
from gateway.sinks.layouts import layout
from gateway.sinks.lookup import Lookup
from gateway.sinks.mqtt import MqttSink

from .broker import FakeBroker
from .far import FarSide, make, running, until
from .memory import batch, reading


async def test_other_sinks_and_commits_go_on(tmp_path: Path) -> None:
    """While one sink's write hangs, another gets everything as it comes, and commits take no longer."""
    journal = Journal(tmp_path / "journal", commit_ms=5)
    await journal.open()
    try:
        stuck, free = FarSide(), FarSide()
        stuck.block = asyncio.Event()
        hanging, other = (make(far, journal.cursor(name)) for far, name in ((stuck, "stuck"), (free, "free")))
        async with running(hanging), running(other):
            longest = 0.0
            for n in range(500):
                journal.append(reading(n))
                if n % 10 == 9:
                    started = time.perf_counter()
                    await journal.flush()
                    longest = max(longest, time.perf_counter() - started)
            await until(lambda: len(free.written) == 500)
            assert (len(stuck.batches), stuck.written) == (1, [])
            assert longest < 1.0
            assert hanging.behind == 500
            stuck.block.set()
            await until(lambda: len(stuck.written) == 500)
            assert stuck.written == free.written
    finally:
        await journal.close()


HANGING_STORE = """
import asyncio, sys
from gateway.sinks import registry
from gateway.sinks.base import Unavailable
from tests.sinks.memory import batch, reading

async def main():
    sink = registry.influx_sink(url=sys.argv[1], token="t", org="o", bucket="b", timeout_s=0.2)
    await sink.open()
    try:
        await sink.write(batch(reading(0)))
    except Unavailable as error:
        print(error, flush=True)
    await sink.close()

import gateway.sinks.influx
gateway.sinks.influx.GRACE_S = 0.1
asyncio.run(main())
"""


async def test_answer_that_trickles_does_not_hold_up_the_end_of_the_process() -> None:
    """A store that sends a byte now and then, for ever, keeps no stopped gateway alive."""
    done = threading.Event()
    server = socket.create_server(("127.0.0.1", 0))

    def trickle() -> None:
        link, _ = server.accept()
        with link:
            link.recv(65536)
            try:
                link.sendall(b"HTTP/1.1 204 Text\r\nX-Slow: ")
                while not done.wait(0.05):
                    link.sendall(b".")
            except OSError:
                pass

    thread = threading.Thread(target=trickle)
    thread.start()
    try:
        url = f"http://127.0.0.1:{server.getsockname()[1]}"
        run = [sys.executable, "-c", HANGING_STORE, url]
        result = await asyncio.to_thread(subprocess.run, run, capture_output=True, text=True, timeout=8)
        assert "no answer within" in result.stdout, result.stderr
        assert result.returncode == 0
    finally:
        done.set()
        server.close()
        thread.join()


async def test_name_server_that_hangs_is_asked_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """A look-up of the broker's name that hangs ends the try in time, takes one thread however often it is tried, and
    none that others need."""
    hang = threading.Event()
    asked: list[str] = []
    real = socket.getaddrinfo

    def getaddrinfo(host: str, *rest: object, **more: object) -> object:
        if host == "broker.example":
            asked.append(host)
            hang.wait(10)
            host = "127.0.0.1"
        return real(host, *rest, **more)  # type: ignore[arg-type]

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    async with FakeBroker() as broker:
        url = broker.url.replace("127.0.0.1", "broker.example")
        sink = MqttSink(url=url, layout=layout("flat", gateway="g"), client_id="g", connect_s=0.1)
        try:
            for _ in range(10):
                with pytest.raises(Unavailable, match=r"broker\.example.*no answer"):
                    await asyncio.wait_for(sink.ready(), 2)
            assert len(asked) == 1
            assert await asyncio.wait_for(asyncio.to_thread(int, "7"), 1) == 7
        finally:
            hang.set()
        await until(lambda: sink._broker.lookup.under_way is None or sink._broker.lookup.under_way.done())
        assert await sink.ready()
        assert await sink.write(batch(reading(0))) == 1
        await sink.close()


async def test_outcome_that_nobody_waited_for_is_used_while_it_is_fresh(monkeypatch: pytest.MonkeyPatch) -> None:
    """A name server slower than we wait is heard at the next try; of an hour ago, or a failure, it is asked anew."""
    answers: list[str | OSError] = []
    go = threading.Event()
    now = 50.0

    def getaddrinfo(*_: object, **__: object) -> object:
        go.wait(5)
        found = answers.pop(0)
        if isinstance(found, OSError):
            raise found
        return [(0, 0, 0, "", (found, 1883))]

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    lookup = Lookup("broker.example", 1883, clock=lambda: now)

    async def give_up() -> None:
        go.clear()
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.01):
                await lookup.addresses()
        go.set()
        await until(lambda: lookup.under_way is not None and lookup.under_way.done())

    answers[:] = ["10.0.0.1", "10.0.0.2"]
    await give_up()
    now += 30.0
    assert await lookup.addresses() == ["10.0.0.1"]
    assert await lookup.addresses() == ["10.0.0.2"]

    answers[:] = ["10.0.0.3", "10.0.0.4"]
    await give_up()
    now += 3600.0
    assert await lookup.addresses() == ["10.0.0.4"]

    answers[:] = [socket.gaierror(-3, "Temporary failure in name resolution"), "10.0.0.5"]
    await give_up()
    assert await lookup.addresses() == ["10.0.0.5"]
    answers[:] = [socket.gaierror(-3, "Temporary failure in name resolution")]
    with pytest.raises(OSError, match="Temporary failure"):
        await lookup.addresses()


async def test_every_address_of_a_broker_is_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    """An address that takes connections and answers nothing, or none, leaves time for the next."""
    real = socket.getaddrinfo

    def getaddrinfo(host: str, port: int, *rest: object, **more: object) -> object:
        hosts = [f"127.0.0.{n}" for n in (2, 3, 1)] if host == "broker.example" else [host]
        return [found for each in hosts for found in real(each, port, *rest, **more)]  # type: ignore[arg-type]

    async with FakeBroker() as broker:
        port = int(broker.url.rsplit(":", 1)[1])
        with socket.create_server(("127.0.0.3", port)):
            monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
            url = f"mqtt://broker.example:{port}"
            sink = MqttSink(url=url, layout=layout("flat", gateway="g"), client_id="g", connect_s=0.6)
            assert await sink.ready()
            await sink.close()
