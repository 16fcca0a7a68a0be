"""Every case of the corpus: its answer, nothing but that, and a gateway that serves as before."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from tests.hostile.corpus import Case, cases
from tests.hostile.doors import knock
from tests.running import Running, acked, gateway, receive, send

pytestmark = pytest.mark.asyncio(loop_scope="module")

LIMITS: dict[str, Any] = {"device_rate": 1e6, "device_burst": 1e6, "max_metrics": 120, "max_series": 100_000}
# A short commit and batch: a stop waits for both.
SOON: dict[str, Any] = {"journal": {"commit_ms": 2}, "batch": {"max_delay_ms": 1}}


SERVED = {"served", "200", "101", "closed"}
GOOD_ENDS = {"closed_1000", "closed_1001", "closed_1005", "closed_1006"}


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def gw(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Running]:
    """The gateway of all cases that need none of their own."""
    async with gateway(tmp_path_factory.mktemp("hostile"), limits=LIMITS, **SOON) as running:
        yield running


@pytest.fixture(autouse=True)
def _no_faults(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """Nothing is logged as an error: each of these is a fault of the gateway."""
    yield
    faults = [record for record in caplog.get_records("call") if record.levelno >= logging.ERROR]
    assert not faults, [record.getMessage() for record in faults]


async def newest(gw: Running, device: str) -> dict[str, Any]:
    """The newest values of a device."""
    return {row["metric"]: row["value"] for row in await gw.json(f"/api/v1/latest?device={device}")}


async def counted(gw: Running, case: Case) -> float:
    """All that was ever refused or closed for a fault, by the gateway's own counts."""
    if case.door == "control":
        return await _commands_refused(gw)
    stats = gw.app.server.stats()
    closed = sum(count for name, count in stats.items() if name.startswith("closed_1") and name not in GOOD_ENDS)
    requests = sum(count for name, count in stats.items() if name.startswith("refusals_"))
    return closed + requests + sum(gw.app.devices.refusals.values()) + sum(gw.app.live.refusals.values())  # type: ignore[union-attr]


async def _commands_refused(gw: Running) -> float:
    text = (await gw.get("/metrics"))[2].decode()
    lines = [line for line in text.splitlines() if line.startswith("gateway_control_refused_total")]
    return sum(float(line.rpartition(" ")[2]) for line in lines)


@pytest.mark.parametrize("case", cases(), ids=str)
async def test_each_gets_its_answer(case: Case, gw: Running, tmp_path: Path) -> None:
    """What comes back is what the case says, and counted; what is good is served behind it."""
    if case.limits is not None:
        async with gateway(tmp_path, limits=LIMITS | case.limits, **SOON) as own:
            assert await knock(own, case.door, case.sent) == case.expected
        return
    before = await counted(gw, case)
    assert await knock(gw, case.door, case.sent) == case.expected
    if set(case.expected) - SERVED:
        async with asyncio.timeout(10):  # a close is counted once it is answered, or not
            while await counted(gw, case) <= before:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
    if case.stored is not None:
        assert await newest(gw, gw.victim) == case.stored  # type: ignore[attr-defined]


async def test_a_good_device_is_served_behind_all_of_them(gw: Running) -> None:
    """What a device and a dashboard are told is the same as before."""
    async with gw.device("good") as ws, gw.live() as live:
        await receive(ws, "welcome")
        await send(live, {"type": "subscribe", "devices": ["good"], "interval_ms": 0})
        await receive(live, "snapshot")
        await send(ws, {"seq": 1, "t": 21.5})
        await acked(ws, 1)
        update = await receive(live, "update")
        assert [value for _, value in update["data"]["good"]["t"]] == [21.5]
    assert await newest(gw, "good") == {"t": 21.5}
    await gw.rows("good", until=1)
    # Devices that go without a word are told of as a storm of losses; nothing else is wrong.
    assert {problem["part"] for problem in (await gw.json("/healthz"))["problems"]} <= {"devices"}
    assert gw.app.server.stats()["handler_errors"] == 0
    tasks = [task for task in asyncio.all_tasks() if task.done() and not task.cancelled() and task.exception()]
    assert not tasks
