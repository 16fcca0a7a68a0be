"""Home Assistant's view of a running gateway, through a real broker."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.homeassistant.reader import Entities
from tests.running import Running, acked, gateway, receive, send
from tests.server.test_control_app import ask
from tests.servers import Mosquitto
from tests.sinks.broker import Subscriber

CONFIG = "homeassistant/device/gw_-pump-1_dx/config"
PRESENCE = "gateway/pump-1.x/presence"
FORMS = {
    "flat": {"layout": "flat"},
    "batch": {"layout": "batch"},
    "values": {"topic": "{prefix}/{device}/metric/{metric}"},
}


async def until(condition: Callable[[], object]) -> None:
    """Wait until it is so."""
    async with asyncio.timeout(30):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0.02)


def home(subscriber: Subscriber) -> Entities | None:
    """What Home Assistant has of all that the broker has sent by now; None where nothing was told, or cleared."""
    messages = list(subscriber.messages)
    configs = [message.payload for message in messages if message.topic == CONFIG]
    if not configs or not configs[-1]:
        return None
    entities = Entities(bytes(configs[-1]))
    for message in messages:
        if message.topic.startswith("gateway/"):
            entities.hear(message.topic, message.payload.decode())
    return entities


def start(path: Path, broker: Mosquitto, form: str = "flat") -> Any:
    """A gateway that tells."""
    return gateway(path, id="gw", mqtt={"url": broker.url, **FORMS[form]}, homeassistant={"enabled": True})


async def forget(running: Running, path: Path) -> None:
    """Once the device is known to be gone."""
    async with asyncio.timeout(30):
        while (await running.json("/api/v1/devices"))[0]["state"] != "offline":  # noqa: ASYNC110
            await asyncio.sleep(0.02)
    assert await ask(path, "forget", device="pump-1.x") == {"device": "pump-1.x"}


@pytest.mark.parametrize("form", FORMS)
async def test_a_device_comes_home(tmp_path: Path, mosquitto: Mosquitto, form: str) -> None:
    """Told with its first readings, and retained; values, new metrics and presence arrive; told anew when Home
    Assistant starts; gone when it is forgotten."""
    with Subscriber(mosquitto.port) as subscriber:
        async with start(tmp_path, mosquitto, form) as running:
            async with running.device("pump-1.x") as ws:
                await receive(ws, "welcome")
                await send(ws, {"type": "describe", "name": "Boiler", "metrics": {"t": {"unit": "Cel"}}})
                await send(ws, {"seq": 1, "values": {"t": 22.5, "door": True, "mode": "auto"}})
                await acked(ws, 1)
                await until(lambda: home(subscriber))
                with Subscriber(mosquitto.port, CONFIG) as late:
                    await until(lambda: late.messages)
                    assert late.messages[0].retain
                await send(ws, {"seq": 2, "values": {"t": 23, "door": False}}, {"seq": 3, "values": {"a/b": 7}})
                await until(lambda: len((home(subscriber) or Entities(b'{"components":{}}')).components) == 4)
                entities = home(subscriber)
                assert entities is not None
                assert entities.available
                assert entities.config["device"]["name"] == "Boiler"
                assert entities.components["t"]["device_class"] == "temperature"
                assert entities.states == {"t": "23", "door_b": "off", "mode": "auto", "a_sb": "7"}
                before = len(subscriber.payloads(CONFIG))
                subscriber.publish("homeassistant/status", b"online")
                await until(lambda: len(subscriber.payloads(CONFIG)) > before)
                assert subscriber.payloads(CONFIG)[-1] == subscriber.payloads(CONFIG)[before - 1]
            await until(lambda: not (home(subscriber) or entities).available)
            await forget(running, tmp_path)
            await until(lambda: home(subscriber) is None and subscriber.payloads(PRESENCE)[-1] == b"")


async def test_a_broker_that_was_away_hears_it_later(tmp_path: Path, mosquitto: Mosquitto) -> None:
    """What it retains of a device that was forgotten meanwhile is cleared after a restart of the gateway, too."""
    async with start(tmp_path, mosquitto) as running, running.device("pump-1.x") as ws, asyncio.timeout(30):
        await receive(ws, "welcome")
        await send(ws, {"t": 1})
        with Subscriber(mosquitto.port) as subscriber:
            await until(lambda: home(subscriber) and subscriber.payloads(PRESENCE))
    port = mosquitto.port
    async with gateway(
        tmp_path, id="gw", mqtt={"url": "mqtt://127.0.0.1:1"}, homeassistant={"enabled": True}
    ) as running:
        await forget(running, tmp_path)
    with Subscriber(port, CONFIG) as still:
        await until(lambda: still.messages)
    with Subscriber(port) as subscriber:
        async with start(tmp_path, mosquitto):
            await until(lambda: b"" in subscriber.payloads(CONFIG) and b"" in subscriber.payloads(PRESENCE))
    with Subscriber(port) as after:
        await until(lambda: after.payloads("gateway/status"))
        assert not after.payloads(CONFIG)
        assert not after.payloads(PRESENCE)


async def test_nothing_is_told_unasked(tmp_path: Path, mosquitto: Mosquitto) -> None:
    """The setting's default."""
    with Subscriber(mosquitto.port) as subscriber:
        async with gateway(tmp_path, mqtt={"url": mosquitto.url}) as running:
            assert running.app.announcer is None
            async with running.device("pump-1.x") as ws:
                await send(ws, {"t": 1})
                await until(lambda: subscriber.payloads("gateway/pump-1.x/telemetry"))
        assert not [message for message in subscriber.messages if message.topic.startswith("homeassistant")]
        assert json.loads(subscriber.payloads("gateway/pump-1.x/telemetry")[0])["t"] == 1
