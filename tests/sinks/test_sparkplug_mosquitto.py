"""The edge node on the real mosquitto, heard by a host that holds every message against the rules."""

from __future__ import annotations

import asyncio
import contextlib
import random
import signal
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from gateway.reading import Reading
from gateway.sinks.runner import Runner
from gateway.sinks.sparkplug import SparkplugSink
from tests.running import acked, gateway, receive, send
from tests.servers import Mosquitto
from tests.service import Notify, Service

from .broker import Subscriber
from .memory import MemoryCursor
from .sparkplug_host import Host, ask_for_births

COMMAND = "spBv1.0/gateway/NCMD/barn"
STATE = "spBv1.0/STATE/scada"


class Ear:
    """A host on a broker; ``until`` feeds it with what came, and waits for a condition."""

    def __init__(self, broker: Mosquitto, host: Host | None = None) -> None:
        self.host = host or Host("gateway", "barn")
        self._subscriber = Subscriber(broker.port, "spBv1.0/#")
        self._fed = 0

    def __enter__(self) -> Ear:
        self._subscriber.__enter__()
        return self

    def __exit__(self, *error: object) -> None:
        self._subscriber.__exit__(*error)

    def feed(self) -> Host:
        messages = self._subscriber.messages[self._fed :]
        self._fed += len(messages)
        return self.host.feed(messages)

    async def until(self, condition: Callable[[Host], object], seconds: float = 30.0) -> Host:
        async with asyncio.timeout(seconds):
            while not condition(self.feed()):  # noqa: ASYNC110
                await asyncio.sleep(0.005)
        return self.host

    async def publish(self, topic: str, payload: bytes, *, retain: bool = False) -> None:
        await asyncio.to_thread(self._subscriber.publish, topic, payload, retain=retain)


@pytest.fixture
def notify(tmp_path: Path) -> Iterator[Notify]:
    with Notify(tmp_path) as found:
        yield found


@contextlib.asynccontextmanager
async def running(
    broker: Mosquitto, path: Path, cursor: MemoryCursor, *, pace: dict[str, float] | None = None, **more: Any
) -> AsyncIterator[Runner]:
    sink = SparkplugSink(
        url=broker.url,
        client_id="gateway-barn-sparkplug",
        group="gateway",
        node="barn",
        session=path / "sparkplug.json",
        **more,
    )
    pace = {"retry_least_s": 0.05, **(pace or {})}
    runner = Runner(sink, cursor, rng=random.Random(1), max_delay=0.01, max_readings=50, **pace)  # type: ignore[arg-type]
    task = asyncio.create_task(runner.run())
    try:
        yield runner
    finally:
        await runner.stop(10.0)
        assert task.done()


def settings(broker: Mosquitto) -> dict[str, Any]:
    return {"id": "barn", "mqtt": {"url": broker.url}, "sparkplug": {"enabled": True}}


def now(n: int, age_s: float = 0.0, devices: int = 5) -> Reading:
    """Reading ``n``, received just now or some time ago."""
    at = time.time_ns() - int(age_s * 1e9)
    return Reading(f"d-{n % devices}", "s", n + 1, at, at, {"n": n})


def names(host: Host) -> dict[tuple[str, str | None], int]:
    """The alias of each metric."""
    return {(device, metric.name): alias for device, born in host.born.items() for alias, metric in born.items()}


def numbers(host: Host) -> set[int]:
    return {value.value for values in host.data.values() for value in values}


async def test_a_gateway_and_its_devices(tmp_path: Path, mosquitto: Mosquitto) -> None:
    """Births, data and deaths from real devices to the host, over a restart, and nothing is retained."""
    with Ear(mosquitto) as ear:
        async with gateway(tmp_path / "g", **settings(mosquitto)) as gw:
            async with gw.device("pump-1", "?session=boot") as ws:
                await receive(ws, "welcome")
                await ear.until(lambda host: "pump-1" in host.born)
                await send(ws, {"seq": 1, "values": {"t": 22, "a/door": True}}, {"seq": 2, "values": {"t": 22.5}})
                await acked(ws, 2)
                host = await ear.until(lambda host: len(host.data.get("pump-1", ())) == 3)
                assert host.values["pump-1"] == {"t": 22.5, "a/door": True}
                assert not any(value.historical for value in host.data["pump-1"])
                await ear.publish(COMMAND, ask_for_births())
                await ear.until(lambda host: host.verbs.count("NBIRTH") == 2 and "pump-1" in host.born)
            host = await ear.until(lambda host: host.verbs[-1] == "DDEATH pump-1")
            assert not host.born
            _, _, text = await gw.get("/metrics")
            assert b'gateway_sink_rebirths_total{sink="sparkplug"} 1.0' in text
        host = await ear.until(lambda host: host.verbs[-1] == "NDEATH")
        assert not host.online
        async with gateway(tmp_path / "g", **settings(mosquitto)) as gw, gw.device("pump-1", "?session=boot") as ws:
            await receive(ws, "welcome")
            host = await ear.until(lambda host: "pump-1" in host.born)
            assert host.values["pump-1"] == {"t": 22.5, "a/door": True}
            await send(ws, {"seq": 3, "values": {"t": 23}})
            await ear.until(lambda host: host.values["pump-1"]["t"] == 23.0)
        host = await ear.until(lambda host: host.verbs[-1] == "NDEATH")
        assert host.bd_seqs == [0, 0, 1]
        assert host.verbs.count("NDEATH") >= 2
    with Ear(mosquitto) as late:
        await asyncio.sleep(0.1)
        assert late.feed().verbs == []


async def test_a_killed_gateway_is_declared_dead(tmp_path: Path, mosquitto: Mosquitto, notify: Notify) -> None:
    """After SIGKILL the broker says NDEATH with the number of the birth; the next start has the next number."""
    variables = {"ID": "barn", "MQTT__URL": mosquitto.url, "SPARKPLUG__ENABLED": "true"}
    service = Service(tmp_path, notify, {f"GATEWAY_{name}": value for name, value in variables.items()})
    with Ear(mosquitto) as ear:
        service.start()
        await ear.until(lambda host: host.online)
        await asyncio.to_thread(service.stop, signal.SIGKILL)
        host = await ear.until(lambda host: not host.online)
        assert host.verbs == ["NBIRTH", "NDEATH"]
        service.start()
        host = await ear.until(lambda host: host.online)
        await asyncio.to_thread(service.stop)
        assert host.bd_seqs == [0, 1]


async def test_a_connection_that_breaks_is_a_death_and_a_birth(tmp_path: Path, mosquitto: Mosquitto) -> None:
    """The Will comes after a cut, then births with the next number, and the data goes on without a hole."""
    cursor = MemoryCursor()
    with Ear(mosquitto) as ear:
        async with running(mosquitto, tmp_path, cursor) as runner:
            for device in range(5):
                runner.set_state(("presence", f"d-{device}"), b"online")
            for n in range(20):
                cursor.append(now(n))
            await ear.until(lambda host: len(numbers(host)) == 20)
            link = runner.sink._broker.link  # type: ignore[attr-defined]
            for n in range(20, 40):
                cursor.append(now(n))
            link.abort()
            await ear.until(lambda host: host.bd_seqs == [0, 1] and len(numbers(host)) == 40)
    assert "NDEATH" in ear.host.verbs[: ear.host.verbs.index("NBIRTH", 1)]


async def test_a_host_that_asks_in_the_middle_of_data(tmp_path: Path, mosquitto: Mosquitto) -> None:
    """Births on request between data of many devices leave no gap in the sequence, and aliases stay what they were."""
    count = 1000
    cursor = MemoryCursor(count, lambda n: now(n, devices=20))
    with Ear(mosquitto) as ear:
        async with running(mosquitto, tmp_path, cursor, pace={"max_per_s": 1500}) as runner:
            for device in range(20):
                runner.set_state(("presence", f"d-{device}"), b"online")
            await ear.until(lambda host: len(host.data) == 20)
            before = names(ear.host)
            await ear.publish(COMMAND, b"\xff")  # no payload
            await ear.publish(COMMAND, ask_for_births())
            await ear.until(lambda host: host.bd_seqs == [0, 0] and len(numbers(host)) == count)
            assert names(ear.host) == before
    verbs = ear.host.verbs
    second = verbs.index("NBIRTH", 1)
    assert {verb.split()[0] for verb in verbs[second + 1 : second + 21]} == {"DBIRTH"}
    assert "DDATA d-0" in verbs[second:]
    assert 255 in ear.host.seqs


async def test_an_outage_loses_nothing_and_its_backlog_is_historical(tmp_path: Path, mosquitto: Mosquitto) -> None:
    """What was received while the broker was away comes behind new births, marked, and what is fresh is not."""
    cursor = MemoryCursor()
    with Ear(mosquitto) as ear:
        pace = {"retry_least_s": 3600.0, "retry_most_s": 3600.0}
        async with running(mosquitto, tmp_path, cursor, pace=pace) as runner:
            runner.set_state(("presence", "d-0"), b"online")
            cursor.append(now(0, devices=1))
            await ear.until(lambda host: numbers(host) == {0})
            await asyncio.to_thread(mosquitto.stop, True)
            async with asyncio.timeout(30):
                while runner.state != "waiting":  # noqa: ASYNC110
                    await asyncio.sleep(0.005)
            for n in range(1, 101):
                cursor.append(now(n, age_s=60 - n / 10, devices=1))
            cursor.append(now(101, devices=1))
            ear.feed()
            await asyncio.to_thread(mosquitto.start)
            with Ear(mosquitto) as second:
                runner.retry_now()
                await second.until(lambda host: len(numbers(host)) == 101)
    assert second.host.bd_seqs == [1]
    assert {value.value: value.historical for value in second.host.data["d-0"]} == {n: n < 101 for n in range(1, 102)}
    assert second.host.values["d-0"] == {"n": 101}
    assert cursor.delivered == 102


async def test_nothing_is_published_while_the_primary_host_is_away(tmp_path: Path, mosquitto: Mosquitto) -> None:
    """Births wait for its STATE, its leaving is the node's death, and what comes meanwhile waits in the journal."""
    cursor = MemoryCursor()
    with Ear(mosquitto) as ear:
        await ear.publish(STATE, b'{"online":false,"timestamp":1}', retain=True)
        async with running(mosquitto, tmp_path, cursor, primary_host="scada") as runner:
            runner.set_state(("presence", "d-0"), b"online")
            cursor.append(now(0, devices=1))
            async with asyncio.timeout(30):
                while runner.state != "waiting":  # noqa: ASYNC110
                    await asyncio.sleep(0.005)
            assert "scada is offline" in runner.reason
            assert ear.feed().verbs == []
            await ear.publish(STATE, b'{"online":true,"timestamp":2}', retain=True)
            await ear.until(lambda host: numbers(host) == {0})
            await ear.publish(STATE, b'{"online":false,"timestamp":1}')  # of before
            cursor.append(now(1, devices=1))
            await ear.until(lambda host: numbers(host) == {0, 1})
            await ear.publish(STATE, b'{"online":false,"timestamp":2}', retain=True)
            await ear.until(lambda host: not host.online)
            cursor.append(now(2, devices=1))
            await ear.publish(STATE, b'{"online":true,"timestamp":3}', retain=True)
            host = await ear.until(lambda host: numbers(host) == {0, 1, 2})
            assert len(host.bd_seqs) == 2
            assert host.bd_seqs[1] > host.bd_seqs[0]
