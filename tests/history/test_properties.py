from __future__ import annotations

import asyncio
import tempfile
from contextlib import ExitStack
from pathlib import Path
from unittest.mock import patch

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gateway.history import History
from gateway.history.downsample import AGGREGATES
from gateway.history.levels import HOURS, MINUTES
from gateway.reading import Batch, Item, Mark, Reading
from tests.history.model import Model, crashed, exact, reading, strict

DEVICES = st.sampled_from(["a", "b", "ab"])
TIMES = st.one_of(st.integers(0, 20), st.integers(0, 5000))
NUMBERS = st.one_of(st.floats(-50, 50).map(lambda value: round(value, 1)), st.integers(-5, 5))
VALUES = st.one_of(
    NUMBERS, NUMBERS, st.booleans(), st.sampled_from(["on", "off"]), st.sampled_from([1 << 60, -(1 << 62)])
)
READINGS: st.SearchStrategy[Item] = st.one_of(
    st.builds(reading, DEVICES, TIMES, st.fixed_dictionaries({"m": NUMBERS, "n": NUMBERS})),
    st.builds(reading, DEVICES, TIMES, st.dictionaries(st.sampled_from(["m", "n", "o"]), VALUES, max_size=3)),
    st.just(Mark("a", "s", 1)),
)
QUERIES = st.fixed_dictionaries(
    {
        "devices": st.sampled_from(["*", "a", "a*", "?", ("b", "a"), ("?b", "b")]),
        "metrics": st.sampled_from(["*", "m", "?", "n", ("o", "m")]),
        "start": st.sampled_from([0, 0, 3, 10]),
        "end": st.sampled_from([5000, 5000, 12, 8]),
        "step": st.sampled_from([None, None, 1, 7, 10, 20, 100, 127, 1000]),
        "agg": st.sampled_from(AGGREGATES),
        "limit": st.sampled_from([100_000, 100_000, 10, 1]),
    }
)
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("write"), st.lists(READINGS, min_size=1, max_size=12), st.integers(0, 9)),
        st.tuples(st.just("write"), st.lists(READINGS, min_size=1, max_size=60), st.integers(0, 0)),
        st.tuples(st.just("again"), st.integers(0, 30)),
        st.tuples(st.just("flush")),
        st.tuples(st.just("flush")),
        st.tuples(st.just("flushes"), st.integers(14, 18)),
        st.tuples(st.just("settle")),
        st.tuples(st.just("settle")),
        st.tuples(st.just("crash")),
        st.tuples(st.just("close")),
        st.tuples(st.just("query"), QUERIES),
        st.tuples(st.just("query"), QUERIES),
    ),
    max_size=14,
)


class Journal:
    """All items by offset, to be replayed."""

    def __init__(self) -> None:
        self.items: list[tuple[int, Item]] = []

    def batches(self, start: int) -> list[Batch]:
        return [batch(offset, [item]) for offset, item in self.items if offset >= start]

    @property
    def end(self) -> int:
        return self.items[-1][0] + 1 if self.items else 0


def batch(base: int, items: list[Item]) -> Batch:
    return Batch(base, items, sum(isinstance(item, Reading) for item in items))


def assert_same(found: tuple[list[tuple[object, ...]], bool], right: tuple[list[tuple[object, ...]], bool]) -> None:
    assert found[1] == right[1]
    assert [row[:3] for row in found[0]] == [row[:3] for row in right[0]]
    for one, other in zip(found[0], right[0], strict=True):
        kind, value = exact(other[3])  # type: ignore[arg-type]
        assert exact(one[3]) == (kind, pytest.approx(value, rel=1e-9, abs=1e-9) if kind == "number" else value)  # type: ignore[arg-type]


async def settled(store: History) -> None:
    """Wait until the background work is done."""
    for _ in range(10_000):
        if store._store is None or not store._store.busy:
            break
        await asyncio.sleep(0.001)


async def play(steps: list[tuple[object, ...]], directory: Path) -> None:
    path = directory / "history.db"
    model, journal, crashes = Model(), Journal(), 0
    store = History(path, memtable_bytes=40_000, retention_days=0)
    await store.open()

    async def write(base: int, items: list[Item]) -> None:
        await store.write(batch(base, items))

    try:
        for step in steps:
            match step:
                case ("write", list(items), int(gap)):
                    base = journal.end + gap
                    journal.items += [(base + index, item) for index, item in enumerate(items)]
                    model.write(batch(base, items))
                    await write(base, items)
                case ("again", int(back)):
                    for one in journal.batches(journal.end - back):
                        await store.write(one)
                case ("flush",):
                    await store.flush()
                    assert store.position == store.end
                case ("flushes", int(times)):
                    # Enough small chunks for a merge.
                    for number in range(times):
                        base, items = journal.end, [reading("a", number * 3, {"m": number, "n": 0.5})]
                        journal.items.append((base, items[0]))
                        model.write(batch(base, list(items)))
                        await write(base, list(items))
                        await store.flush()
                    await asyncio.sleep(0.005)
                case ("settle",):
                    await settled(store)
                case ("crash",) | ("close",):
                    if step == ("crash",):
                        crashes += 1
                        path = crashed(path, directory / str(crashes))
                    await store.close()
                    store = History(path, memtable_bytes=40_000, retention_days=0)
                    await store.open()
                    for one in journal.batches(store.position):
                        await store.write(one)
                    assert store.end == journal.end
                case ("query", dict(question)):
                    assert_same(await store.query(**question), model.query(**question))  # type: ignore[arg-type]
        everything = {"start": 0, "end": 1 << 62}
        edges = {"start": 23, "end": 4321, "step": 200}
        for question in (
            everything,
            *(
                span | {"agg": agg}
                for agg in AGGREGATES
                for span in (edges, everything | {"step": 100}, everything | {"step": 133})
            ),
        ):
            assert_same(await store.query(**question), model.query(**question))  # type: ignore[arg-type]
        assert strict(await store.latest()) == strict(model.latest())
    finally:
        await store.close()


# Small enough that chunks of all kinds and merges of all levels happen within few rows.
SMALL = {
    "gateway.history.chunks.MAX_ROWS": 24,
    "gateway.history.chunks.MAX_SHARED_ROWS": 10,
    "gateway.history.merge.MAX_ROWS": 24,
    "gateway.history.store.MAX_ROWS": 24,
    "gateway.history.store.ALONE": 4,
    "gateway.history.merge.FAN_IN": 3,
    "gateway.history.merge.STEP_ROWS": 30,
    "gateway.history.regroup.MANY_SHAPES": 3,
    "gateway.history.regroup.FEW_ROWS": 2,
    "gateway.history.regroup.MAX_COLUMNS": 2,
    "gateway.history.collector._PIECE": 8,
    "gateway.history.memtable._LEAST_ROWS": 3,
    "gateway.history.history.REST": 0,
    "gateway.history.query._WORTH_A_BUCKET": 0,
    "gateway.history.roller.ROOM": 5,
    "gateway.history.roller.STEP_ROWS": 30,
    "gateway.history.roller.CHUNKS": 2,
}


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(STEPS, st.booleans())
def test_same_as_the_model(steps: list[tuple[object, ...]], small: bool) -> None:
    """Whatever is written, given again, flushed, merged, lost in a crash and replayed: answers are those of a list."""
    with tempfile.TemporaryDirectory() as directory, ExitStack() as stack:
        stack.enter_context(patch.dict("gateway.history.levels.LENGTH", {MINUTES: 10, HOURS: 100}))
        for name, value in SMALL.items() if small else ():
            stack.enter_context(patch(name, value))
        asyncio.run(play(steps, Path(directory)))
