"""The clients against the gateway itself."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from gateway.client import DeviceClient, History, LiveClient, Presence, Refused, Snapshot, Update
from gateway.client.simulate import Options, run
from tests.running import gateway
from tests.servers import free_port

from .fake import until

FAST = (0.01, 0.05)
WIDE = {"device_rate": 100_000, "device_burst": 100_000}


@pytest.mark.parametrize("format", ["json", "msgpack"])
async def test_readings_are_in_the_history_as_they_were_sent(tmp_path: Path, format: Any) -> None:
    """A backlog and single readings of all kinds of values are stored once, in order, unchanged."""
    async with gateway(tmp_path, limits=WIDE) as running:
        url = f"ws://127.0.0.1:{running.port}"
        async with DeviceClient(url, "pump-1", format=format) as device:
            device.describe(name="Boiler pump", interval_s=1, metrics={"n": {"unit": "1", "integer": True}})
            for n in range(1500):
                await device.send({"n": n})
            assert await device.drain(10)
            await device.send({"f": 22.5, "b": True, "s": "ok", "i": 1 << 53}, 1_764_000_000_000)
        rows = await running.rows("pump-1", "n", 1500)
        assert [row["value"] for row in rows] == list(range(1500))
        kinds = {row["metric"]: row["value"] for row in await running.rows("pump-1") if row["metric"] != "n"}
        assert kinds == {"f": 22.5, "b": True, "s": "ok", "i": str(1 << 53)}
        ledger = await running.ledger("pump-1")
        assert (ledger["stored"], ledger["received"]) == (1501, 1501)
        assert device.stats.acked == 1501
        assert not device.refusals


async def test_a_backlog_at_the_default_limit_is_never_throttled(tmp_path: Path) -> None:
    """A paced client brings 250 readings through a limit of 100 a second without a notice."""
    async with gateway(tmp_path) as running:
        async with DeviceClient(f"ws://127.0.0.1:{running.port}", "pump-1") as device:
            for n in range(250):
                await device.send({"n": n})
        assert (await running.ledger("pump-1"))["throttled"] == 0
        assert len(await running.rows("pump-1", "n", 250)) == 250


async def test_an_unpaced_flood_is_throttled_and_loses_nothing(tmp_path: Path) -> None:
    """A client that ignores the rate is throttled, and still each reading is stored once, in order."""
    async with gateway(tmp_path, limits={"device_rate": 400, "device_burst": 50}) as running:
        async with DeviceClient(f"ws://127.0.0.1:{running.port}", "pump-1", paced=False) as device:
            for n in range(500):
                await device.send({"n": n})
                if n % 20 == 0:
                    await asyncio.sleep(0.001)
        rows = await running.rows("pump-1", "n", 500)
        assert [row["value"] for row in rows] == list(range(500))
        assert device.stats.throttled > 0
        assert device.stats.resent < device.stats.taken


async def test_refusals_are_told(tmp_path: Path) -> None:
    """What the gateway refuses is told by number; the readings around it are kept."""
    told: list[Refused] = []
    async with gateway(tmp_path, limits=WIDE) as running:
        url = f"ws://127.0.0.1:{running.port}"
        async with DeviceClient(url, "pump-1", check=False, on_refused=told.append) as device:
            await device.send({"n": 1})
            await device.send({"bad name": 1})
            await device.send({"n": [2]})  # type: ignore[dict-item]
            await device.send({"n": 3})
        assert [row["value"] for row in await running.rows("pump-1", "n", 2)] == [1, 3]
    assert [(refused.seq, refused.code) for refused in told] == [(2, "bad_name"), (3, "bad_value")]
    assert (device.stats.acked, device.stats.refused) == (2, 2)


async def test_restarts_of_the_gateway_lose_and_repeat_nothing(tmp_path: Path) -> None:
    """While the gateway is stopped and started again, the client keeps, resumes and resends as needed."""
    port = free_port()
    sections: dict[str, Any] = {"limits": WIDE, "listen": {"port": port}, "journal": {"commit_ms": 5}}
    device = DeviceClient(f"ws://127.0.0.1:{port}", "pump-1", backoff=FAST, drain_timeout=10)
    done = asyncio.Event()

    async def produce() -> None:
        n = 0
        while not done.is_set():
            await device.send({"n": n})
            n += 1
            await asyncio.sleep(0.001)

    async with device:
        producing = asyncio.create_task(produce())
        for _ in range(3):
            async with gateway(tmp_path, **sections):
                await device.connected(10)
                acked = device.stats.acked
                await until(lambda: device.stats.acked > acked + 30)  # noqa: B023 - waited for at once
        async with gateway(tmp_path, **sections) as running:
            done.set()
            await producing
            assert await device.drain(10)
            taken = device.stats.taken
            rows = await running.rows("pump-1", "n", taken)
            assert [row["value"] for row in rows] == list(range(taken))
    assert device.stats.reconnects == 3


async def test_the_live_feed_shows_what_a_device_sends(tmp_path: Path) -> None:
    """Mode every brings each value once, also over a cut of the feed; presence tells of the device's end."""
    async with gateway(tmp_path, limits=WIDE) as running:
        url = f"ws://127.0.0.1:{running.port}"
        async with LiveClient(url, backoff=FAST) as live:
            live.subscribe(devices=["pump-*"], mode="every", interval_ms=50)
            assert isinstance(await live.next(), Snapshot)
            seen: list[Any] = []
            gone = False
            async with DeviceClient(url, "pump-1") as device:
                for n in range(100):
                    await device.send({"n": n})
                    if n == 50:
                        await until(lambda: len(live._events))
                        live._uplink.cut()
                assert await device.drain(10)
            async with asyncio.timeout(10):
                while len(seen) < 100 or not gone:
                    event = await live.next()
                    if isinstance(event, Update | History):
                        seen += [value for _, metric, _, value in event.points() if metric == "n"]
                        continue
                    assert isinstance(event, Presence | Snapshot)
                    assert isinstance(event, Presence) or event.recovered
                    gone = gone or event.devices["pump-1"].state == "offline"
            assert seen == list(range(100))


async def test_a_simulation_with_dropouts_is_stored_once(tmp_path: Path) -> None:
    """A fleet whose connections are cut all the time has each reading stored once."""
    async with gateway(tmp_path, limits=WIDE) as running:
        options = Options(
            url=f"http://127.0.0.1:{running.port}", devices=6, rate=50, duration_s=1, dropouts=60, format="msgpack"
        )
        report = await run(options, stop=asyncio.Event(), hurry=asyncio.Event())
        assert report.status == 0
        assert report.reconnects > 0
        stored = sum(row["ledger"]["stored"] for row in await running.json("/api/v1/devices"))
        assert stored == report.taken
