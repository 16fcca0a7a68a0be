"""The ceiling: readings a second that a far side is given at most."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.sinks.deadletters import DeadLetters
from gateway.sinks.pace import Pace

from .far import FarSide, make, running, until
from .memory import MemoryCursor, reading


@given(per_s=st.floats(0.1, 1e5), asked=st.integers(1, 5000), idle=st.lists(st.floats(0, 3), max_size=40))
def test_no_second_has_more_than_the_ceiling_and_one_batch(per_s: float, asked: int, idle: list[float]) -> None:
    """In any second at most what the ceiling allows goes, and one batch, whatever pauses lie between."""
    pace = Pace(per_s)
    most = pace.most(asked)
    assert 1 <= most <= max(1, per_s / 4)
    now, gone = 1000.0, []
    for pause in idle:
        now += pause
        now += pace.wait(now)
        pace.take(most, now)
        gone.append(now)
    for start in gone:
        assert sum(most for at in gone if start <= at < start + 1) <= per_s * (1 + 1e-9) + most + 1e-6


@given(per_s=st.floats(10, 1e5), share=st.floats(0.1, 1), batches=st.integers(1, 50))
def test_nothing_below_the_ceiling_waits(per_s: float, share: float, batches: int) -> None:
    """Batches that come at the ceiling's rate or slower go as they come."""
    pace = Pace(per_s)
    most = pace.most(1000)
    now = 0.0
    for _ in range(batches):
        assert pace.wait(now) <= 1e-6
        pace.take(most, now)
        now += most / (per_s * share)


def test_without_a_ceiling_nothing_waits() -> None:
    """None is no ceiling."""
    pace = Pace(None)
    assert pace.most(1000) == 1000
    pace.take(10**9, 5.0)
    assert pace.wait(5.0) == 0


async def test_backlog_goes_at_the_ceiling_in_order() -> None:
    """A backlog of many batches takes the time that the ceiling asks for; states and a stop do not wait for it."""
    sink, cursor = FarSide(), MemoryCursor(100)
    runner = make(sink, cursor, max_per_s=200.0, max_readings=1000)
    loop = asyncio.get_running_loop()
    started = loop.time()
    async with running(runner):
        await until(lambda: sink.batches)
        runner.set_state(("presence", "a"), b"online")
        await until(lambda: sink.states, 0.2)
        assert len(sink.batches) == 1
        await until(lambda: cursor.pending == 0)
    assert sink.batches == [(0, 50), (50, 50)]
    assert 0.24 < loop.time() - started < 2
    assert sink.written == list(range(100))


async def test_letters_tried_again_keep_the_ceiling_too(tmp_path: Path) -> None:
    """What is given away for the second time counts like all else."""
    letters = DeadLetters(tmp_path / "far")
    sink, cursor = FarSide(), MemoryCursor(40)
    letters.open()
    letters.append([(100 + n, "no", reading(n)) for n in range(40)])
    runner = make(sink, cursor, dead_letters=letters, max_per_s=200.0)
    loop = asyncio.get_running_loop()
    started = loop.time()
    async with running(runner):
        await until(lambda: sink.opened)
        assert (await runner.dead_letters_retry())["delivered"] == 40
        await until(lambda: cursor.pending == 0)
    # Eighty at two hundred a second, less the last batch.
    assert loop.time() - started > 0.33


async def test_stop_under_a_ceiling_is_bounded() -> None:
    """A stop hands over what the ceiling lets through, and leaves the rest to the journal."""
    sink, cursor = FarSide(), MemoryCursor(1000)
    runner = make(sink, cursor, max_per_s=1.0)
    task = asyncio.create_task(runner.run())
    await until(lambda: sink.batches)
    started = asyncio.get_running_loop().time()
    await runner.stop(0.05)
    assert task.done()
    assert asyncio.get_running_loop().time() - started < 1
    assert cursor.pending >= 990


@pytest.mark.parametrize(("given", "taken"), [("", None), ("250.5", 250.5)])
def test_setting(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, given: str, taken: float | None) -> None:
    """GATEWAY_BATCH__MAX_PER_S, none by default."""
    from gateway.config import Settings

    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GATEWAY_BATCH__MAX_PER_S", given)
    assert Settings().batch.max_per_s == taken
