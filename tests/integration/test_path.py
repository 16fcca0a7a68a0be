"""The whole way of a reading: from a frame to an MQTT subscriber, to rows in a time-series store, to history."""

from __future__ import annotations

import asyncio
import functools
import json
import socket
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest

from gateway.sinks.runner import Runner
from tests.running import acked, gateway, receive, send
from tests.servers import Mosquitto, Victoria, free_port
from tests.sinks.broker import Subscriber

pytestmark = pytest.mark.asyncio


async def until(ready: Callable[[], object], seconds: float = 15.0) -> None:
    """Wait until ``ready()`` is true."""
    deadline = time.monotonic() + seconds
    while not await asyncio.to_thread(ready):
        assert time.monotonic() < deadline, f"not within {seconds} s"
        await asyncio.sleep(0.02)


@asynccontextmanager
async def forwarder(port: int, target: int) -> AsyncIterator[None]:
    """Connections to ``port`` go to ``target``: a network that can be away while the broker and others go on."""

    async def pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, quick: socket.socket) -> None:
        try:
            while data := await reader.read(1 << 16):
                # mosquitto leaves Nagle's algorithm on: without this each PUBACK waits for a delayed ACK, 40 ms.
                quick.setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 1)
                writer.write(data)
                await writer.drain()
        except ConnectionError:
            pass
        finally:
            writer.close()

    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        far_reader, far_writer = await asyncio.open_connection("127.0.0.1", target)
        near, far = writer.get_extra_info("socket"), far_writer.get_extra_info("socket")
        await asyncio.gather(pump(reader, far_writer, near), pump(far_reader, writer, far))

    server = await asyncio.start_server(accept, "127.0.0.1", port)
    try:
        yield
    finally:
        server.close()


async def test_from_a_frame_to_everywhere(tmp_path: Path, mosquitto: Mosquitto, victoria: Victoria) -> None:
    """One reading arrives on MQTT with its properties, in the store with its time, in history and latest."""
    now = int(time.time() * 1000)
    influx = {"url": victoria.url}
    async with gateway(tmp_path, id="barn", mqtt={"url": mosquitto.url}, influx=influx) as gw:
        with Subscriber(mosquitto.port) as subscriber:
            async with gw.device("pump-1", "?session=boot") as ws:
                await receive(ws, "welcome")
                await send(
                    ws,
                    {"type": "describe", "metrics": {"count": {"integer": True}}},
                    {"ts": now, "seq": 1, "values": {"temperature": 22.5, "door": True, "count": 7}},
                )
                await acked(ws, 1)
                await until(lambda: subscriber.payloads("gateway/pump-1/telemetry"))
                message = next(m for m in subscriber.messages if m.topic == "gateway/pump-1/telemetry")
                assert json.loads(message.payload) == {"ts": now, "temperature": 22.5, "door": True, "count": 7}
                assert (message.qos, message.retain) == (1, False)
                assert message.properties is not None
                assert dict(message.properties.UserProperty) == {"gateway": "barn", "session": "boot", "seq": "1"}
                assert subscriber.payloads("gateway/pump-1/presence") == [b"online"]
            await until(lambda: subscriber.payloads("gateway/pump-1/presence")[-1:] == [b"offline"])
        await until(lambda: len(victoria.export()) >= 3)
        found = {row["metric"]["__name__"]: row for row in victoria.export()}  # type: ignore[index]
        row = found["telemetry_temperature"]
        assert (row["metric"]["device"], row["values"], row["timestamps"]) == ("pump-1", [22.5], [now])  # type: ignore[index]
        assert [r["value"] for r in await gw.rows("pump-1", until=3)] == [7, True, 22.5]
        assert len(await gw.json("/api/v1/latest?device=pump-1")) == 3
    with Subscriber(mosquitto.port) as late:
        await until(lambda: late.payloads("gateway/status") and late.payloads("gateway/pump-1/presence"))
        assert late.payloads("gateway/status") == [b"offline"]
        assert late.payloads("gateway/pump-1/presence") == [b"offline"]


async def test_layout_batch(tmp_path: Path, mosquitto: Mosquitto) -> None:
    """Batches by count and age: one message a device and flush, readings in order."""
    settings = {"mqtt": {"url": mosquitto.url, "layout": "batch"}, "batch": {"max_readings": 10, "max_delay_ms": 200}}
    async with gateway(tmp_path, **settings) as gw:
        with Subscriber(mosquitto.port, "gateway/+/telemetry") as subscriber:
            async with gw.device("a") as a, gw.device("b") as b:
                await receive(a, "welcome")
                await receive(b, "welcome")
                await send(a, [{"ts": 1764000000000 + n, "n": n} for n in range(25)])
                await send(b, {"ts": 1764000000000, "n": 0})
                await until(lambda: subscriber.payloads("gateway/b/telemetry"))
                await until(lambda: sum(len(json.loads(p)) for p in subscriber.payloads("gateway/a/telemetry")) == 25)
        batches = [json.loads(payload) for payload in subscriber.payloads("gateway/a/telemetry")]
        assert max(map(len, batches)) <= 10
        assert [reading["values"]["n"] for batch in batches for reading in batch] == list(range(25))
        assert batches[0][0] == {"ts": 1764000000000, "values": {"n": 0}}


async def test_an_hour_without_a_broker_loses_nothing_and_drains_in_order(
    tmp_path: Path, mosquitto: Mosquitto, monkeypatch: pytest.MonkeyPatch
) -> None:
    """360,000 readings are taken while the broker is away, and arrive in each device's order when it is back."""
    devices, messages, size = 10, 36, 1000
    monkeypatch.setattr("gateway.app.Runner", functools.partial(Runner, retry_most_s=1.0))
    port = free_port()
    limits = {"device_rate": 10**6, "device_burst": 10**6}
    mqtt = {"url": f"mqtt://127.0.0.1:{port}", "layout": "batch"}
    async with gateway(tmp_path, limits=limits, mqtt=mqtt) as gw:

        async def fill(name: str) -> None:
            async with gw.device(name) as ws:
                await receive(ws, "welcome")
                for first in range(1, messages * size, size):
                    readings = [{"n": n, "seq": n} for n in range(first, first + size)]
                    await ws.send(msgspec.json.encode(readings).decode())
                    await acked(ws, first + size - 1)

        names = [f"d{n}" for n in range(devices)]
        await asyncio.gather(*map(fill, names))
        (sink,) = [s for s in (await gw.json("/healthz"))["sinks"] if s["name"] == "mqtt"]
        assert (sink["state"], sink["pending"]) == ("waiting", 360_000)
        assert (await gw.get("/readyz"))[0] == 200
        with Subscriber(mosquitto.port, "gateway/+/telemetry") as subscriber:

            def arrived() -> bool:
                count = sum(message.payload.count(b'"ts"') for message in list(subscriber.messages))
                return count >= devices * messages * size

            async with forwarder(port, mosquitto.port):
                await until(arrived, seconds=60)
        for name in names:
            batches = map(json.loads, subscriber.payloads(f"gateway/{name}/telemetry"))
            values = [reading["values"]["n"] for batch in batches for reading in batch]
            assert values == list(range(1, messages * size + 1))
        assert (await gw.ledger("d0"))["stored"] == messages * size


async def test_broker_that_freezes_slows_nobody(tmp_path: Path, mosquitto: Mosquitto) -> None:
    """While the broker hangs, acks, history and the live feed go on."""
    async with gateway(tmp_path, mqtt={"url": mosquitto.url}) as gw, gw.device("d") as ws, gw.live() as live:
        await receive(ws, "welcome")
        await receive(live, "hello")
        await send(live, {"type": "subscribe"})
        mosquitto.freeze()
        try:
            for seq in range(1, 21):
                await send(ws, {"seq": seq, "n": seq})
                await acked(ws, seq)
            assert len(await gw.rows("d", until=20)) == 20
            while (await receive(live, "update"))["data"]["d"]["n"][-1][1] != 20:
                pass
        finally:
            mosquitto.thaw()


async def test_several_gateways_share_a_broker(tmp_path: Path, mosquitto: Mosquitto) -> None:
    """Each has a prefix of its own: who listens to all gets each reading once, a command finds the one whose device it
    is for, and one that ends is offline alone."""

    def settings(name: str) -> dict[str, Any]:
        return {"id": name, "mqtt": {"url": mosquitto.url, "prefix": f"site/{name}"}, "batch": {"max_delay_ms": 50}}

    with Subscriber(mosquitto.port, "site/#") as heard:
        async with gateway(tmp_path / "b", **settings("b")) as b:
            async with (
                gateway(tmp_path / "a", **settings("a")) as a,
                a.device("pump-1") as first,
                b.device("pump-2") as second,
            ):
                await receive(first, "welcome")
                await receive(second, "welcome")
                readings = [{"seq": number, "n": number} for number in range(1, 21)]
                await send(first, *readings)
                await send(second, *readings)
                topics = ["site/a/pump-1/telemetry", "site/b/pump-2/telemetry"]
                for topic in topics:
                    await until(lambda topic=topic: len(heard.payloads(topic)) >= 20)  # type: ignore[misc]
                    assert [json.loads(payload)["n"] for payload in heard.payloads(topic)] == list(range(1, 21))
                assert {m.topic for m in heard.messages if m.topic.endswith("/telemetry")} == set(topics)
                heard.publish("site/b/pump-2/command", json.dumps({"ref": "x", "name": "blink"}).encode())
                assert (await receive(second, "command"))["name"] == "blink"
            await until(lambda: heard.payloads("site/a/status")[-1:] == [b"offline"])
            assert heard.payloads("site/b/status") == [b"online"]
