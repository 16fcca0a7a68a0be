"""What goes over real connections is what the description says, field by field; and all that it says was seen."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from gateway.api.asyncapi import CHANNELS
from gateway.reading import Batch, Reading
from gateway.sinks import registry
from gateway.sinks.sparkplug_b_pb2 import Payload
from tests.api.documents import answers, messages, openapi_document
from tests.api.recorder import Recorder, Wire
from tests.running import TIMEOUT, Running, gateway
from tests.server.visitor import Answer, Gate, another_address, ask, basic, bearer, gate
from tests.servers import Mosquitto, free_port
from tests.sinks.broker import Subscriber

# Fields that come of what takes long to bring about: for these see tests/server.
RARE = {
    "Component.state_topic",  # a topic for each value
    "DeviceError.retry_after_ms",  # a journal that is full
    "DeviceState.confirmed",
    "History.complete",
    "Snapshot.more",
}
LARGE = (1 << 60) + 1
MANY = {"limits": {"device_rate": 10**6, "device_burst": 10**6}}


@asynccontextmanager
async def device(recorder: Recorder, gw: Running, name: str, format: str = "", query: str = "") -> AsyncIterator[Wire]:
    """A device that has been welcomed."""
    subprotocols = {"subprotocols": [f"gateway.v1.{format}"]} if format else {}
    async with gw.device(name, query, **subprotocols) as ws:
        text = {"senml-json": "senml", "influx": "json"}.get(format, format or "json")
        wire = Wire(recorder, "device", ws, text)
        await wire.receive("welcome")
        yield wire


@asynccontextmanager
async def dashboard(recorder: Recorder, gw: Running, format: str = "json", **options: Any) -> AsyncIterator[Wire]:
    """A dashboard that has been greeted."""
    async with gw.live(subprotocols=[f"gateway.v1.{format}"], **options) as ws:
        wire = Wire(recorder, "live", ws, format)
        await wire.receive("hello")
        yield wire


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(TIMEOUT):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0.01)


# -- devices and dashboards -------------------------------------------------------------------------------------------


async def _devices(recorder: Recorder, gw: Running) -> None:
    values = {"t": 22.5, "n": -3, "door": True, "text": "ä"}
    metric = {"unit": "Cel", "class": "temperature", "integer": True}
    describe = {"type": "describe", "name": "Pump", "interval_s": 60.0, "metrics": {"t": metric}}
    for format in ("", "json", "msgpack", "cbor"):
        async with device(recorder, gw, f"d-{format or 'plain'}", format) as wire:
            name = f"d-{format or 'plain'}"
            await wire.send({**values, "absent": None, "ts": time.time(), "device": name})
            await wire.send({"ts": time.time(), "seq": 1, "device": name, "values": values})
            await wire.send([{"seq": 2, "values": {}}, {"seq": 3, "t": LARGE}])
            await wire.send({"type": "heartbeat"})
            await wire.send(describe)
            await wire.receive("ack")
            await wire.ws.send('[{"seq": 4, "t": []}, {"t": 1}]' if format in ("", "json") else b"\xc1\xc1")
            await wire.receive("error")
    pack: list[dict[str, Any]] = [
        {"bver": 10, "bn": "m/", "bt": 1764000000.0, "bu": "Cel", "bv": 20.0, "n": "t", "v": 1.5, "t": 1.0, "ut": 60.0},
        {"n": "x", "vs": "y"},
        {"n": "b", "vb": True, "u": "/"},
    ]
    for format in ("senml-json", "senml-cbor"):
        async with device(recorder, gw, f"d-{format}", format) as wire:
            await wire.send(pack)
            await wire.ws.send("{}" if format == "senml-json" else b"\xff")
            await wire.receive("error")
    async with device(recorder, gw, "d-influx", "influx") as wire:
        await wire.send("m,host=a t=1,n=2i,b=true 1764000000000000000\nm t=2")
        await wire.ws.send("m")
        await wire.receive("error")
    async with device(recorder, gw, "again", query="?session=s") as wire:
        await wire.send({"seq": 5, "values": {}})
        await wire.receive("ack")
    async with device(recorder, gw, "again", query="?session=s&ack=delivered&format=gateway.v1.json") as wire:
        await wire.receive("ack")


async def _dashboards(recorder: Recorder, gw: Running) -> None:
    for number, format in enumerate(("json", "msgpack")):
        async with dashboard(recorder, gw, format) as wire:
            await wire.send({"type": "subscribe", "devices": ["d-*"], "metrics": ["*"], "history_s": 60})
            await wire.receive("snapshot")
            while not (await wire.receive("history"))["last"]:
                pass
            await wire.send(
                {"type": "subscribe", "id": "b", "devices": ["*"], "mode": "every", "epoch": "x", "after": 1}
            )
            async with device(recorder, gw, f"d-new-{number}") as one:
                for n in range(20):
                    await one.send([{"t": n, "large": LARGE}, {"t": -n}])
                await wire.receive("presence")
                while "skipped" not in await wire.receive("update"):
                    pass
            await wire.send({"type": "auth", "token": ""})
            await wire.send({"type": "heartbeat"})
            await wire.receive("heartbeat")
            await wire.send({"type": "unsubscribe", "id": "b"})
            await wire.send({"type": "unsubscribe", "id": "b"})
            await wire.receive("error")
            await wire.ws.send('{"type":"subscribe","id":"c","mode":"x"}' if format == "json" else b"\xc1")
            await wire.receive("error")


async def _commands(recorder: Recorder, gw: Running) -> None:
    async with dashboard(recorder, gw) as wire:
        command = {"type": "command", "device": "worker", "name": "go", "params": {"a": [1, None]}, "ttl_s": 60}
        await wire.send({**command, "ref": "r"})
        async with device(recorder, gw, "worker") as one:
            await one.receive("command")
        async with device(recorder, gw, "worker", "msgpack") as one:
            again = await one.receive("command")
            assert again["again"] is True
            await one.send({"type": "result", "id": again["id"], "ok": True, "value": {"b": 2}})
            while (await wire.receive("command_state"))["state"] != "done":
                pass
            await one.send({"type": "result", "id": "none", "ok": False})
            await one.receive("error")
        async with device(recorder, gw, "hub") as one:
            await one.send({"type": "describe", "device": "arm", "name": "Arm"})
            await one.send({"type": "heartbeat", "device": "arm"})
            await wire.send({**command, "device": "arm"})
            asked = await one.receive("command")
            await one.send({"type": "result", "id": asked["id"], "device": asked["device"], "ok": True})
            while (await wire.receive("command_state"))["state"] != "done":
                pass
            await one.send({"seq": 1, "device": "arm", "values": {"t": LARGE}})
            await one.ws.send('{"seq": 2, "device": "arm", "t": []}')
            await one.receive("error")
        await wire.send({"type": "command", "device": "worker", "name": "go", "ttl_s": 0.01})
        while (await wire.receive("command_state"))["state"] != "expired":
            pass
        await wire.send({"type": "command", "device": "worker", "name": "", "ref": "bad"})
        await wire.receive("error")


async def _slow(recorder: Recorder, gw: Running) -> None:
    async with device(recorder, gw, "fast") as one, dashboard(recorder, gw, max_queue=1) as wire:
        await wire.send({"type": "subscribe", "mode": "every", "interval_ms": 50})
        wire.ws.transport.pause_reading()
        async with asyncio.timeout(4 * TIMEOUT):
            while not any(group.moved for group in gw.app.live.hub._groups.values()):
                for _ in range(20):
                    await one.ws.send('{"s":"' + "x" * 1000 + '"}')
                await asyncio.sleep(0)
        wire.ws.transport.resume_reading()
        await wire.receive("mode")
        wire.ws.transport.abort()  # what it has not read is in the way of a close


async def _throttled(recorder: Recorder, gw: Running) -> None:
    assert gw.app.devices is not None
    gw.app.devices.book.limit(rate=1, burst=5, max_devices=100)
    async with device(recorder, gw, "eager") as one:
        await one.send([{"seq": n, "values": {"t": n}} for n in range(1, 10)])
        await one.receive("throttled")
        await one.send([{"t": n} for n in range(10)])
        await one.receive("throttled")


async def _broker(recorder: Recorder, gw: Running, subscriber: Subscriber) -> None:
    async with device(recorder, gw, "worker") as one:
        subscriber.publish("gateway/worker/command", b'{"ref":"m","name":"go","params":{"x":1},"ttl_s":30}')
        command = await one.receive("command")
        await one.send({"type": "result", "id": command["id"], "ok": False, "value": "no"})
    subscriber.publish("homeassistant/status", b"online")
    subscriber.publish("spBv1.0/STATE/host", b'{"online":true,"timestamp":1764000000000}')
    asked = Payload(timestamp=1764000000000)
    asked.metrics.add(name="Node Control/Rebirth", boolean_value=True)
    subscriber.publish(f"spBv1.0/gateway/NCMD/{gw.app.settings.id}", asked.SerializeToString())
    subscriber.publish("gateway/worker/command", b'{"name":"go","ttl_s":-1}')
    await until(lambda: len(subscriber.payloads("gateway/worker/command/state")) >= 4)
    await until(lambda: any(message.topic.startswith("homeassistant/device/") for message in list(subscriber.messages)))


async def _layouts(broker: Mosquitto) -> None:
    """The layouts that this gateway was not set to."""
    now = time.time_ns()
    values = {"t": 22.5, "n": 3, "door": True, "text": "a b"}
    items = [Reading("d", "s", seq, now, now - seq * 20 * 10**9, values) for seq in (0, 1)]
    for layout, topic in itertools.chain(
        ((layout, "{prefix}/{device}/telemetry") for layout in ("batch", "influx", "thingsboard")),
        [("flat", "{prefix}/{device}/metric/{metric}")],
    ):
        sink = registry.mqtt_sink(url=broker.url, gateway="g", layout=layout, topic=topic, guest=True)
        await sink.ready()
        await sink.write(Batch(0, [*items], 2))
        await sink.state({("presence", "d"): b"online"})
        await sink.state({("presence", "d"): b"offline"})
        await sink.close()


async def test_messages_are_what_is_described(
    tmp_path: Path, mosquitto: Mosquitto, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Devices in all formats, dashboards in both, a broker and who commands by it: none differs, none was not seen."""
    monkeypatch.setattr("gateway.server.live.HEARTBEAT_S", 0.1)
    recorder = Recorder()
    sections = {
        "mqtt": {"url": mosquitto.url},
        "homeassistant": {"enabled": True},
        "sparkplug": {"enabled": True},
        **MANY,
    }
    with Subscriber(mosquitto.port) as subscriber:
        async with gateway(tmp_path / "state", **sections) as gw:
            await _devices(recorder, gw)
            await _dashboards(recorder, gw)
            await _commands(recorder, gw)
            await _broker(recorder, gw, subscriber)
            await _slow(recorder, gw)
            await _throttled(recorder, gw)
        async with gateway(tmp_path / "state") as gw, dashboard(recorder, gw) as wire:
            await wire.send({"type": "subscribe"})
            assert not (await wire.receive("snapshot"))["devices"]["eager"]["confirmed"]
        await _layouts(mosquitto)
        await until(lambda: len(subscriber.payloads("gateway/d/presence")) == 6)
        with Subscriber(mosquitto.port) as later:
            await until(lambda: later.payloads("gateway/status"))
            await until(lambda: any(message.topic.startswith("homeassistant/") for message in list(later.messages)))
        for message in subscriber.messages:
            recorder.relayed(message)
        for message in later.messages:
            recorder.kept(message)
    assert not recorder.faults, "\n".join(recorder.faults[:20])
    described = {f"{name}.{message}" for name, channel in CHANNELS.items() for message in channel.messages}
    assert recorder.seen == described
    assert messages().described() - messages().fields <= RARE


# -- HTTP -------------------------------------------------------------------------------------------------------------


class Asker:
    """Asks a gateway, and has its answers recorded."""

    def __init__(self, recorder: Recorder, gw: Gate, headers: dict[str, str]) -> None:
        self._recorder = recorder
        self._gw = gw
        self._headers = headers

    async def __call__(
        self, path: str, query: str = "", headers: dict[str, str] | None = None, **options: Any
    ) -> Answer:
        """An address as the document has it; without ``headers`` with a token of everything."""
        real = path.replace("{device}", "d") + query
        answer = await ask(self._gw.port, real, self._headers if headers is None else headers, **options)
        method = options.get("method", "GET").lower()
        self._recorder.answered(method, path, answer.status, answer.headers, answer.body)
        return answer


async def _good(get: Asker) -> None:
    async with asyncio.timeout(TIMEOUT):
        while b'"problems":[]' in (await get("/healthz")).body:  # noqa: ASYNC110
            await asyncio.sleep(0.02)
    async with asyncio.timeout(TIMEOUT):
        while (await get("/api/v1/history")).body == b"[]":  # noqa: ASYNC110
            await asyncio.sleep(0.02)
    for path in ("/", "/asyncapi.yaml", "/openapi.yaml"):
        answer = await get(path)
        await get(path, headers={"If-None-Match": answer.headers["etag"]})
    for path in ("/livez", "/readyz", "/healthz", "/metrics", "/api/v1/pending"):
        await get(path)
    await get("/metrics", headers={**get._headers, "Accept": "application/openmetrics-text"})
    for query in ("", "?device=d*"):
        await get("/api/v1/devices", query)
    await get("/api/v1/latest", "?device=d&metric=t")
    for query in ("?device=d*&metric=*&from=-1h&to=now", "?from=-1d&step=1m&agg=max", "?format=csv&from=0"):
        await get("/api/v1/history", query)
    for query in ("", "?device=d*&from=-1h&to=now"):
        await get("/api/v1/presence", query)
    for path in ("/v1/devices/{device}", "/v1/live"):
        await get(path, upgrade=True)
    for path in ("/login", "/logout"):
        await get(path, method="POST")


async def _refusals(get: Asker, gw: Gate, monkeypatch: pytest.MonkeyPatch) -> None:
    little = bearer(gw.token("device:other"))
    for path, item in openapi_document()["paths"].items():
        for method, operation in item.items():
            options = {"method": method.upper(), "upgrade": "101" in operation["responses"]}
            await get(path, host="evil.example", **options)
            if operation["security"]:
                await get(path, headers={**little}, **options)
                await get(path, headers=bearer("no"), **options)
                await get(path, headers={}, **options)
    await get("/v1/devices/{device}", headers=basic("d", "no"), upgrade=True)
    for query in ("?session=", "?ack=never", "?format=xml"):
        await get("/v1/devices/{device}", query, upgrade=True)
    await get("/api/v1/history", "?from=then")
    await get("/api/v1/presence", "?to=then")
    await get("/api/v1/devices", f"?device={'x' * 200}")
    await get("/api/v1/latest", f"?metric={'x' * 200}")
    await get("/login", headers={"Content-Length": "1"}, method="POST")
    source = another_address()
    while (await get("/v1/devices/{device}", headers=bearer("no"), upgrade=True, source=source)).status != 429:
        pass
    monkeypatch.setattr("gateway.server.pages.ROWS_MAX", 1)
    for path in ("/api/v1/latest", "/api/v1/history"):
        assert (await get(path)).headers["x-truncated"] == "true"
    monkeypatch.setattr("gateway.server.pages.LISTS_MAX", 0)
    await get("/api/v1/devices")


async def test_answers_are_what_is_described(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every address, with all that it takes and with what it does not; what is good was seen of each."""
    recorder = Recorder()
    async with gate(tmp_path, mqtt={"url": f"mqtt://127.0.0.1:{free_port()}"}) as gw:
        get = Asker(recorder, gw, bearer(gw.token("device:*", "live:read", "live:command", "metrics")))
        metrics = {"t": {"unit": "Cel", "class": "x", "integer": False}, "n": {"integer": True}}
        described = {"type": "describe", "name": "D", "interval_s": 5, "metrics": metrics}
        async with gw.device("d", additional_headers=get._headers) as ws:
            wire = Wire(recorder, "device", ws)
            await wire.send(described)
            await wire.send({"seq": 1, "values": {"t": 22.5, "n": LARGE, "door": True, "text": "a"}})
            await wire.send({"type": "heartbeat", "device": "d-sub"})
            await wire.receive("ack")
            await get("/api/v1/devices")
        await get("/v1/devices/{device}", headers={}, upgrade=True)
        await _good(get)
        await _refusals(get, gw, monkeypatch)
        assert gw.app.health is not None
        monkeypatch.setattr(gw.app.health, "ready", False)
        await get("/readyz")
        await get("/healthz")
    assert not recorder.faults, "\n".join(recorder.faults[:20])
    good = {
        (method, path, int(status))
        for path, item in openapi_document()["paths"].items()
        for method, operation in item.items()
        for status in operation["responses"]
        if status.isdigit() and int(status) < 400
    }
    assert not good - recorder.answers
    assert not answers().described() - answers().fields
    assert {status for *_, status in recorder.answers} == {101, 200, 204, 304, 400, 401, 403, 413, 429, 503}
