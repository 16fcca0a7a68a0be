"""The InfluxDB sink against a server that fails as told, and against the real VictoriaMetrics."""

from __future__ import annotations

import asyncio
import contextlib
import email.utils
import random
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from gateway.reading import Mark, Presence
from gateway.sinks import registry
from gateway.sinks.base import Refused, Sink, Stopped, Unavailable
from gateway.sinks.deadletters import DeadLetters
from gateway.sinks.runner import Runner
from tests.servers import Victoria, free_port

from .memory import MemoryCursor, batch, reading
from .store import FakeStore, Request, answer


@contextlib.asynccontextmanager
async def opened(url: str, **more: object) -> AsyncIterator[Sink]:
    options: dict[str, object] = {"token": "secret", "org": "o", "bucket": "b", "timeout_s": 5.0, **more}
    sink = registry.influx_sink(url=url, **options)  # type: ignore[arg-type]
    await sink.open()
    try:
        yield sink
    finally:
        await sink.close()


@contextlib.asynccontextmanager
async def running(sink: Sink, cursor: MemoryCursor, **more: object) -> AsyncIterator[Runner]:
    options: dict[str, object] = {"rng": random.Random(1), "max_delay": 0.01, "retry_least_s": 0.01, **more}
    runner = Runner(sink, cursor, **options)  # type: ignore[arg-type]
    task = asyncio.create_task(runner.run())
    try:
        yield runner
    finally:
        await runner.stop(2.0)
        assert task.done()


async def until(condition: Callable[[], object], seconds: float = 10.0) -> None:
    async with asyncio.timeout(seconds):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0.005)


@pytest.mark.parametrize("gzip", [False, True])
async def test_batch_is_one_request(gzip: bool) -> None:
    """All readings of a batch go in one POST with token, org, bucket and nanoseconds, compressed where asked."""
    async with FakeStore() as store, opened(store.url, gzip=gzip) as sink:
        items = [reading(0), Mark("d", "s", 2), reading(2), Presence("d", "online", 1)]
        assert await sink.write(batch(*items, base=70)) == 74
        (request,) = store.requests
        assert (request.method, request.path) == ("POST", "/api/v2/write")
        assert request.query == {"org": ["o"], "bucket": ["b"], "precision": ["ns"]}
        assert request.headers["authorization"] == "Token secret"
        assert (request.headers.get("content-encoding") == "gzip") is gzip
        assert request.lines == [
            "telemetry,device=d-0 n=0 1764000000000000000",
            "telemetry,device=d-2 n=2 1764000000002000000",
        ]
        assert sink.stats()["bytes"] == len("\n".join(request.lines))


async def test_nothing_to_write_is_no_request() -> None:
    """Batches without readings, or with empty ones only, are safe at once."""
    async with FakeStore() as store, opened(store.url) as sink:
        assert await sink.write(batch(Mark("d", "s", 2), base=5)) == 6
        assert await sink.write(batch(reading(0, values={}))) == 1
        assert store.requests == []


MESSAGE = '{"code":"invalid","message":"partial write: field type conflict: dropped=1"}'


@pytest.mark.parametrize(
    ("data", "kind", "text"),
    [
        (answer(400, MESSAGE), Refused, "HTTP 400: partial write: field type conflict: dropped=1"),
        (answer(413, "too big"), Refused, "HTTP 413: too big"),
        (answer(422, '{"error":"no"}'), Refused, "HTTP 422: no"),
        (answer(401, '{"message":"unauthorized access"}'), Stopped, "HTTP 401: unauthorized access"),
        (answer(403), Stopped, "HTTP 403"),
        (answer(404, '{"message":"bucket not found"}'), Stopped, "HTTP 404: bucket not found"),
        (answer(301, Location="http://127.0.0.1:1/"), Stopped, "HTTP 301"),
        (answer(429), Unavailable, "HTTP 429"),
        (answer(500, "oops"), Unavailable, "HTTP 500: oops"),
        (answer(503), Unavailable, "HTTP 503"),
        (answer(500, '["a list"]'), Unavailable, "HTTP 500"),
        (b"HTTP/1.1 400 Bad\r\nContent-Length: 100\r\n\r\nhalf of" + FakeStore.CUT, Unavailable, ""),
        (b"HTTP/1.1 20" + FakeStore.CUT, Unavailable, ""),
        (FakeStore.CUT, Unavailable, ""),
        (b"SSH-2.0-OpenSSH\r\n" + FakeStore.CUT, Unavailable, ""),
        (answer(500, "\xff\xfe"), Unavailable, ""),
    ],
)
async def test_what_each_answer_means(data: bytes, kind: type[Exception], text: str) -> None:
    """Content is refused, rights and addresses stop, everything else is tried again."""
    async with FakeStore() as store, opened(store.url) as sink:
        store.respond = lambda request: data
        with pytest.raises(kind) as caught:
            await sink.write(batch(reading(0)))
        assert text in str(caught.value)
        assert bool(getattr(caught.value, "hint", "")) == (kind is Stopped)
        if isinstance(caught.value, Unavailable):
            # What answers in HTTP is there; of all else the address is what somebody may want to check.
            assert caught.value.reached == str(caught.value).startswith("HTTP ")
            assert caught.value.reached or str(caught.value).startswith(f"{store.url[7:]}: ")
            assert caught.value.reached or not text
        store.respond = lambda request: answer(204)
        assert await sink.write(batch(reading(0))) == 1


@pytest.mark.parametrize(("value", "least", "most"), [("7", 7, 7), ("", None, None), ("soon", None, None)])
async def test_retry_after_in_seconds(value: str, least: float | None, most: float | None) -> None:
    """Seconds are passed on, nonsense is passed over."""
    async with FakeStore() as store, opened(store.url) as sink:
        store.respond = lambda request: answer(429, Retry_After=value)
        with pytest.raises(Unavailable) as caught:
            await sink.write(batch(reading(0)))
        assert caught.value.retry_after_s == least == most


async def test_retry_after_as_a_date() -> None:
    """A date is turned into seconds from now."""
    async with FakeStore() as store, opened(store.url) as sink:
        store.respond = lambda request: answer(503, Retry_After=email.utils.formatdate(time.time() + 90, usegmt=True))
        with pytest.raises(Unavailable) as caught:
            await sink.write(batch(reading(0)))
        assert caught.value.retry_after_s is not None
        assert 80 < caught.value.retry_after_s <= 91


async def test_hang_is_bounded() -> None:
    """No answer at all is unavailable after the time-out, and the next try works."""
    async with FakeStore() as store, opened(store.url, timeout_s=0.2) as sink:
        store.respond = lambda request: None
        with pytest.raises(Unavailable):
            await asyncio.wait_for(sink.write(batch(reading(0))), 3)
        store.respond = lambda request: answer(204)
        assert await sink.write(batch(reading(0))) == 1


async def test_answer_that_trickles_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """A byte now and then keeps a socket from its time-out, but not the sink; one request at a time all the while."""
    monkeypatch.setattr("gateway.sinks.influx.GRACE_S", 0.1)
    async with FakeStore() as store, opened(store.url, timeout_s=0.3) as sink:
        release = asyncio.Event()

        async def trickle(request: Request) -> bytes:
            writer = store.writers[-1]
            writer.write(b"HTTP/1.1 204 Text\r\nX-Slow: ")
            while not release.is_set():
                writer.write(b".")
                await asyncio.sleep(0.05)
            return b"\r\n\r\n"

        store.respond = trickle
        with pytest.raises(Unavailable, match="no answer within"):
            await asyncio.wait_for(sink.write(batch(reading(0))), 3)
        with pytest.raises(Unavailable, match="has not come back"):
            await sink.write(batch(reading(0)))
        assert len(store.requests) == 1
        release.set()
        store.respond = lambda request: answer(204)
        await until(lambda: sink._hanging.done())  # type: ignore[attr-defined]
        assert await sink.write(batch(reading(0))) == 1


async def test_cancelled_write_leaves_nothing_unasked() -> None:
    """A cancelled write ends at once, and its request's outcome bothers nobody."""
    async with FakeStore() as store, opened(store.url, timeout_s=0.3) as sink:
        store.respond = lambda request: None
        write = asyncio.create_task(sink.write(batch(reading(0))))
        await until(lambda: store.requests)
        write.cancel()
        await asyncio.wait({write}, timeout=0.1)
        assert write.cancelled()


@pytest.mark.parametrize("host", ["127.0.0.1", "no-such-host.invalid"])
async def test_nobody_there(host: str) -> None:
    """A closed port and a name that does not resolve are unavailable, with few words."""
    url = f"http://{host}:{free_port()}"
    async with opened(url.replace("//", "//user:secret@"), timeout_s=1.0) as sink:
        with pytest.raises(Unavailable) as caught:
            await sink.write(batch(reading(0)))
        assert "0x" not in str(caught.value)
        assert str(caught.value).startswith(f"{url[7:]}: ")
        assert str(caught.value).count(host) == 1
        assert "Errno" not in str(caught.value)
        assert not caught.value.reached
        assert 10 < len(str(caught.value)) < 120


async def test_poison_is_found_and_all_others_are_kept(tmp_path: Path) -> None:
    """A store that refuses whole batches for one line, with 400 or 413, ends with all lines but that one."""
    letters = DeadLetters(tmp_path / "letters")
    async with FakeStore() as store:
        kept: set[str] = set()

        def respond(request: Request) -> bytes:
            if len(request.lines) > 200:
                return answer(413, "request too large")
            bad = [line for line in request.lines if "n=321" in line]
            kept.update(line for line in request.lines if line not in bad)  # as InfluxDB: partial write
            return answer(400, MESSAGE) if bad else answer(204)

        store.respond = respond
        sink = registry.influx_sink(url=store.url, token="t", org="o", bucket="b")
        cursor = MemoryCursor(700)
        async with running(sink, cursor, dead_letters=letters) as runner:
            await until(lambda: cursor.pending == 0)
        assert kept == {
            f"telemetry,device=d-{n % 20} n={n} {1_764_000_000_000_000_000 + n * 1_000_000}"
            for n in range(700)
            if n != 321
        }
        assert [(letter.offset, letter.reason) for letter in letters.read()] == [
            (321, "HTTP 400: partial write: field type conflict: dropped=1")
        ]
        stats = runner.stats()
        assert (stats["delivered"], stats["dead_lettered"], stats["pending"]) == (699, 1, 0)


async def test_all_failures_in_turn_lose_nothing(tmp_path: Path) -> None:
    """A store that fails in every other way that it can still gets every line, in order."""
    async with FakeStore() as store:
        taken: list[str] = []
        failures = [
            answer(503),
            answer(429, Retry_After="0"),
            FakeStore.CUT,
            b"HTTP/1.1 20" + FakeStore.CUT,
            None,
            answer(500),
        ]

        def respond(request: Request) -> bytes | None:
            if failures and len(store.requests) % 2:
                return failures.pop()
            taken.extend(request.lines)
            return answer(204)

        store.respond = respond
        sink = registry.influx_sink(url=store.url, token="t", org="o", bucket="b", timeout_s=0.2)
        cursor = MemoryCursor(80)
        async with running(sink, cursor, max_readings=10, retry_most_s=0.02) as runner:
            await until(lambda: cursor.pending == 0)
        assert [line.split(" ")[1] for line in taken] == [f"n={n}" for n in range(80)]
        assert runner.stats()["retries"] == 6


async def test_retry_after_is_kept_and_a_bad_token_stops() -> None:
    """No request goes out before the time that the store asked for; 401 stops the sink with all kept and a hint."""
    async with FakeStore() as store:
        times: list[float] = []
        answers = [answer(429, Retry_After="1"), answer(401, '{"message":"unauthorized access"}')]

        def respond(request: Request) -> bytes:
            times.append(time.monotonic())
            return answers.pop(0) if answers else answer(204)

        store.respond = respond
        sink = registry.influx_sink(url=store.url, token="t", org="o", bucket="b")
        cursor = MemoryCursor(10)
        async with running(sink, cursor, stopped_retry_s=3600.0) as runner:
            await until(lambda: runner.state == "waiting")
            await until(lambda: runner.state == "stopped")
            assert times[1] - times[0] >= 1.0
            assert runner.reason == "HTTP 401: unauthorized access"
            assert runner.hint.startswith("check GATEWAY_INFLUX__TOKEN (")
            assert (cursor.pending, len(times)) == (10, 2)
            runner.retry_now()
            await until(lambda: cursor.pending == 0)


async def test_frozen_store_is_noticed_and_gets_all_when_thawed(victoria: Victoria) -> None:
    """A store under SIGSTOP, whose connections the kernel still takes, makes the sink wait and nothing else."""
    cursor = MemoryCursor(100)
    sink = registry.influx_sink(url=victoria.url, bucket="b", timeout_s=0.3)
    async with running(sink, cursor, retry_most_s=0.1) as runner:
        await until(lambda: cursor.pending == 0)
        victoria.freeze()
        try:
            for _ in range(1000):
                cursor.append(reading(cursor.end))
            await until(lambda: runner.stats()["retries"] >= 2)
            assert (runner.state, runner.reason) == ("waiting", f"{victoria.url[7:]}: no answer within 0.3 s")
            assert cursor.pending >= 1
        finally:
            victoria.thaw()
        await until(lambda: cursor.pending == 0)
    values = {value for series in victoria.export("telemetry_n") for value in series["values"]}  # type: ignore[attr-defined]
    assert values == set(range(1100))


async def test_rows_in_victoriametrics(victoria: Victoria) -> None:
    """Each kind of value stands in the store under its device, at its time."""
    async with opened(victoria.url, integer=lambda device, metric: metric == "count") as sink:
        items = [
            reading(n, device=f"d-{n % 2}", values={"t": 20 + n / 4, "count": n, "door": n % 2 == 0, "env/co2": n})
            for n in range(8)
        ]
        assert await sink.write(batch(*items)) == 8
        text = reading(9, device="d-9", values={"note": 'two\nlines,"quoted" \\', "t": 1.5})
        assert await sink.write(batch(text)) == 1
    rows = {
        (series["metric"]["__name__"], series["metric"]["device"], stamp): value  # type: ignore[index]
        for series in victoria.export()
        for stamp, value in zip(series["timestamps"], series["values"], strict=True)  # type: ignore[call-overload]
    }
    for n in range(8):
        device, stamp = f"d-{n % 2}", 1_764_000_000_000 + n
        assert rows[("telemetry_t", device, stamp)] == 20 + n / 4
        assert rows[("telemetry_count", device, stamp)] == n
        assert rows[("telemetry_door", device, stamp)] == (n % 2 == 0)
        assert rows[("telemetry_env/co2", device, stamp)] == n
    assert rows[("telemetry_t", "d-9", 1_764_000_000_009)] == 1.5
    assert {device for _, device, _ in rows} == {"d-0", "d-1", "d-9"}


async def test_outage_of_victoriametrics_loses_nothing(victoria: Victoria) -> None:
    """A store that is killed and comes back holds every reading."""
    cursor = MemoryCursor(20_000)
    sink = registry.influx_sink(url=victoria.url, bucket="b", gzip=True)
    async with running(sink, cursor, retry_most_s=0.2, max_readings=500) as runner:
        await until(lambda: cursor.position.offset >= 2000)
        await asyncio.to_thread(victoria.stop)
        for _ in range(1000):  # before it is waited for: all the others may have gone out while the store was stopping
            cursor.append(reading(cursor.end))
        await until(lambda: runner.state == "waiting")
        await asyncio.to_thread(victoria.start)
        await until(lambda: cursor.pending == 0)
    values = {value for series in victoria.export("telemetry_n") for value in series["values"]}  # type: ignore[attr-defined]
    assert values == set(range(21_000))


def test_client_library_is_imported_when_enabled_only() -> None:
    """Neither the registry nor another sink imports influxdb_client, which costs memory and start-up time."""
    code = (
        "import sys; from gateway.sinks import registry, runner\n"
        "registry.mqtt_sink(url='mqtt://h', gateway='g')\n"
        "assert not [m for m in sys.modules if m.startswith(('influxdb', 'urllib3'))]\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
