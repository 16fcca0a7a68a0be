"""Rollups in the file: what is kept of readings when they are not kept any more."""

from __future__ import annotations

import asyncio
import random
import shutil
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any

import apsw
import pytest

from gateway.errors import HistoryError
from gateway.history import History, levels, roller
from gateway.history import query as history_query
from gateway.history.downsample import AGGREGATES
from gateway.history.frame import Frame
from gateway.history.retention import DAY_NS as DAY
from gateway.history.store import Store
from gateway.reading import Reading, Value
from tests.history.model import Model, Row, batch, crashed, reading, reduce

SECOND = 10**9
MINUTE, HOUR = 60 * SECOND, 3600 * SECOND
T0 = 20_000 * DAY
FIXTURES = Path(__file__).parent / "fixtures"


class Clock:
    """Seconds since the epoch."""

    def __init__(self, now: int) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now / SECOND


@asynccontextmanager
async def opened(path: Path, clock: Callable[[], float] | None = None, **options: float) -> AsyncIterator[History]:
    history = History(path, clock=clock or Clock(T0 + DAY), **options)
    await history.open()
    try:
        yield history
    finally:
        await history.close()


def store_of(history: History) -> Store:
    assert history._store is not None
    return history._store


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0.001)


async def rolled(history: History) -> None:
    """All background work is done."""
    await until(lambda: not store_of(history).busy)


def seconds(start: int, count: int, device: str = "pump-1") -> list[Reading]:
    """A reading a second, received at once."""
    return [
        reading(device, start + n * SECOND, {"level": n % 97 / 10, "open": n % 3 == 0, "mode": "ab"[n // 700 % 2]})
        for n in range(count)
    ]


async def write(history: History, *readings: list[Reading]) -> Model:
    model = Model()
    for items in readings:
        for start in range(0, len(items), 1000):
            one = batch(history.end, list(items[start : start + 1000]))
            model.write(one)
            await history.write(one)
        await history.flush()
    return model


def reduced(rows: Iterable[Row], step: int, agg: str) -> list[Row]:
    """What a question with a step is to get of these rows, in ascending time."""
    buckets: dict[tuple[int, str, str], list[Value]] = {}
    for time, device, metric, value in rows:
        buckets.setdefault((time - time % step, device, metric), []).append(value)
    found = [(*key, reduce(values, agg)) for key, values in sorted(buckets.items())]
    return [(time, device, metric, value) for time, device, metric, value in found if value is not None]


def same(found: Iterable[Row], right: Iterable[Row]) -> bool:
    """Whether rows are alike, numbers up to rounding."""
    return all(
        one[:3] == other[:3] and (one[3] == other[3] or one[3] == pytest.approx(other[3], rel=1e-9))
        for one, other in zip(found, right, strict=True)
    )


def ask(path: Path, statement: str) -> list[tuple[Any, ...]]:
    connection = apsw.Connection(str(path))
    try:
        return connection.execute(statement).fetchall()
    finally:
        connection.close()


def count_decoded(monkeypatch: pytest.MonkeyPatch, read: list[int]) -> None:
    """Note the chunks that are read, each by how many rows of it are."""
    decode, decode_within = history_query.decode, history_query.decode_within

    def whole(*given: Any, **named: Any) -> Frame:
        found = decode(*given, **named)
        read.append(len(found))
        return found

    def within(*given: Any, **named: Any) -> list[Frame]:
        found = decode_within(*given, **named)
        read.append(sum(map(len, found)))
        return found

    monkeypatch.setattr(history_query, "decode", whole)
    monkeypatch.setattr(history_query, "decode_within", within)


async def test_what_is_in_rollups_is_not_read_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A question for minutes reads rollups, at its edges readings, and what is not in them yet."""
    async with opened(tmp_path / "history.db") as history:
        model = await write(history, seconds(T0, 3 * 4096), seconds(T0 + 9000 * SECOND + 1, 40))
        await rolled(history)
        assert history.stats()["chunks_rolled"] == 3
        read: list[int] = []
        count_decoded(monkeypatch, read)
        for start, end, chunks in ((T0, T0 + 4 * HOUR, 0), (T0 + 1, T0 + 3 * HOUR, 1), (T0 + 1, T0 + 3 * HOUR + 1, 2)):
            rows, _ = model.query(start=start, end=end)
            for agg in AGGREGATES:
                for step in (MINUTE, 7 * MINUTE, HOUR, 2 * HOUR):
                    read.clear()
                    found, _, whole_from = await history.ask(start=start, end=end, step=step, agg=agg)
                    assert len(read) == chunks
                    assert whole_from is None
                    assert same(found, reduced(rows, step, agg))


async def test_of_minutes_that_a_step_divides_readings_are_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A step of many minutes, and of no whole number of them, reads those readings alone that its ends are amid; where
    a minute has few of them, readings and no rollups."""
    start, end, odd = T0 + 90 * SECOND, T0 + 3 * HOUR + 7, 10 * MINUTE + 7 * SECOND
    rare = [reading("rare", T0 + n * 20 * SECOND, {"level": n % 89 / 10}) for n in range(4096)]
    async with opened(tmp_path / "history.db") as history:
        model = await write(history, seconds(T0, 3 * 4096), rare)
        await rolled(history)
        assert history.stats()["chunks_rolled"] == 4
        read: list[int] = []
        count_decoded(monkeypatch, read)
        for devices, most in (("pump-1", 1_300), ("rare", 540)):
            rows, _ = model.query(devices=devices, start=start, end=end)
            for agg in AGGREGATES:
                read.clear()
                found, _, whole_from = await history.ask(devices=devices, start=start, end=end, step=odd, agg=agg)
                assert same(found, reduced(rows, odd, agg))
                assert whole_from is None
                assert most / 2 < sum(read) <= most


async def test_late_rows_get_into_their_buckets(tmp_path: Path) -> None:
    """What comes late for buckets that are done is in answers at once, and in rollups once; a new last value counts."""
    async with opened(tmp_path / "history.db") as history:
        every = [seconds(T0, 4096), seconds(T0 + 500_000_000, 4096), seconds(T0 + 2 * HOUR, 3000), seconds(T0, 2500)]
        model = Model()
        for readings in every:
            base = history.end
            for start in range(0, len(readings), 1000):
                model.write(batch(base + start, list(readings[start : start + 1000])))
            await write(history, readings)
            rows, _ = model.query(start=T0, end=T0 + DAY)
            for agg in AGGREGATES:
                question: dict[str, Any] = {"start": T0, "end": T0 + DAY, "step": 10 * MINUTE, "agg": agg}
                right = reduced(rows, 10 * MINUTE, agg)
                assert same((await history.query(**question))[0], right)
                await rolled(history)
                assert same((await history.query(**question))[0], right)
        counts = ask(tmp_path / "history.db", "SELECT level, sum(rows) FROM rollup GROUP BY level")
        assert counts == [(1, 69 + 50), (2, 3)]


async def test_no_row_that_a_held_moment_lacks_gets_into_a_rollup(tmp_path: Path) -> None:
    """As long as a moment is held what came after it stays out of rollups, so that it is asked about as it was."""
    async with opened(tmp_path / "history.db") as history:
        model = await write(history, seconds(T0, 4096))
        await rolled(history)
        moment = history.now()
        await write(history, seconds(T0 + 1, 4096))
        await rolled(history)
        assert history.stats()["chunks_rolled"] == 1
        question: dict[str, Any] = {"start": T0, "end": T0 + DAY, "step": HOUR, "agg": "count"}
        assert (await history.query(**question, at=moment))[0] == model.query(**question)[0]
        del moment
        await write(history, seconds(T0 + 2, 1))
        await rolled(history)
        assert history.stats()["chunks_rolled"] == 2


async def test_each_level_is_kept_as_long_as_it_is_to_be(tmp_path: Path) -> None:
    """Readings go, then minutes, then hours; what is asked for comes from what there is, and the answer says so."""
    clock, path = Clock(T0 + DAY), tmp_path / "history.db"
    kept: dict[str, float] = {"retention_days": 10, "minutes_days": 20, "hours_days": 40}
    start, end = T0 + 90 * SECOND, T0 + 5000 * SECOND
    async with opened(path, clock, **kept) as history:
        model = await write(history, seconds(T0, 7200), [reading("rare", T0 + 7 * SECOND, {"level": 5.0})])
        clock.now = T0 + 11 * DAY
    async with opened(path, clock, **kept) as history:
        await until(lambda: ask(path, "SELECT (SELECT count(*) FROM chunk) + (SELECT count(*) FROM shared)") == [(0,)])
        rows, truncated, whole_from = await history.ask(start=start, end=end)
        assert (rows, truncated, whole_from) == ([], False, end)
        assert (await history.ask(start=start, end=end, metrics="none")).whole_from is None
        assert await history.names(at=history.now()) == ["pump-1", "rare"]
        minutes: dict[str, Any] = {"start": T0 + MINUTE, "end": T0 + HOUR, "step": 5 * MINUTE, "agg": "max"}
        found = await history.ask(**minutes)
        assert same(found.rows, model.query(**minutes)[0])
        assert found.whole_from is None
        # Edges within a minute, and a step that is none of minutes: the minutes there are.
        found = await history.ask(start=start, end=end, step=10 * SECOND, agg="count", metrics="level")
        assert [(row[0], row[3]) for row in found.rows] == [(T0 + n * MINUTE, 60) for n in range(1, 84)]
        assert found.whole_from == end
        # Late for what is not kept any more: it adds to it.
        await write(history, [Reading("pump-1", "s", 1, T0 + 600 * SECOND, clock.now, {"level": 500.0})])
        minutes["agg"] = "count"
        more = (await history.query(**minutes, metrics="level"))[0]
        assert [row[3] for row in more] == [240, 300, 301, *[300] * 9]
        clock.now = T0 + 21 * DAY
    async with opened(path, clock, **kept) as history:
        await until(lambda: ask(path, f"SELECT count(*) FROM rollup WHERE level = 1 AND last < {T0 + HOUR}") == [(0,)])
        await rolled(history)
        found = await history.ask(start=T0 + MINUTE, end=T0 + HOUR, step=MINUTE, agg="count", metrics="level")
        counts = [(T0, "pump-1", "level", 3600), (T0, "rare", "level", 1), (T0 + 10 * MINUTE, "pump-1", "level", 1)]
        assert found == (counts, False, T0 + HOUR)
        clock.now = T0 + 60 * DAY
    async with opened(path, clock, **kept) as history:
        await until(lambda: history.problems() != [])  # more than a day behind
        assert (await history.ask(start=T0, end=T0 + DAY, step=HOUR)).rows != []


async def test_a_rollup_is_kept_no_shorter_than_what_is_finer(tmp_path: Path) -> None:
    """Rollups that are to be kept shorter than readings are kept as long as these; and for ever where these are."""
    history = History(tmp_path / "history.db", retention_days=300, minutes_days=180, hours_days=200)
    assert history._age.kept == [300 * DAY] * 3
    assert History(tmp_path / "history.db", retention_days=0)._age.kept == [0, 0, 0]
    assert History(tmp_path / "history.db")._age.kept == [30 * DAY, 180 * DAY, 3650 * DAY]


@pytest.mark.parametrize("name", ["history-1.db", "history-2.db"])
async def test_rollups_of_an_older_file_are_made_in_the_background(tmp_path: Path, name: str) -> None:
    """A file of a layout without rollups gets them step by step, and answers as before all the while."""
    path = tmp_path / "history.db"
    shutil.copy(FIXTURES / name, path)
    connection = apsw.Connection(str(path))
    connection.execute("UPDATE chunk SET level = 9")
    connection.close()
    question: dict[str, Any] = {"start": 0, "end": 1 << 62, "step": HOUR, "agg": "count"}
    async with opened(path, retention_days=0) as history:
        rows, _ = await history.query(start=0, end=1 << 62)
        first = await history.query(**question)
        await rolled(history)
        assert history.stats()["chunks_rolled"] > 0
        assert await history.query(**question) == first
        assert sum(row[3] for row in first[0]) == len(rows)  # type: ignore[misc]
        assert history.problems() == []
    assert ask(path, "SELECT count(*) > 0 FROM rollup") == [(1,)]


async def test_in_place_of_a_rollup_that_is_damaged_readings_are_read(tmp_path: Path) -> None:
    """A rollup that is not what was written is not believed; what comes to it makes it anew, of all that is there."""
    path = tmp_path / "history.db"
    async with opened(path, retention_days=0) as history:
        model = await write(history, seconds(T0, 2 * 4096))
        await rolled(history)
    ask(path, "UPDATE rollup SET kept = kept + 1")
    async with opened(path, retention_days=0) as history:
        question: dict[str, Any] = {"start": T0 + 7, "end": T0 + 2 * HOUR}
        for agg in AGGREGATES:
            for step in (10 * MINUTE, 11 * MINUTE + 13 * SECOND):
                found, _ = await history.query(**question, step=step, agg=agg)
                assert same(found, model.query(**question, step=step, agg=agg)[0])
        question["step"] = 10 * MINUTE
        damaged = history.stats()["damaged"]
        assert damaged
        model.write(batch(history.end, list(more := seconds(T0 + 3000 * SECOND, 2 * 4096))))
        await write(history, more)
        await rolled(history)
        for agg in AGGREGATES:
            assert same((await history.query(**question, agg=agg))[0], model.query(**question, agg=agg)[0])


async def test_no_flipped_bit_gives_a_wrong_answer(tmp_path: Path) -> None:
    """Whatever bit of rollups is flipped, what is answered is right, or told to be in question."""
    path, rng = tmp_path / "history.db", random.Random(5)
    questions: list[dict[str, Any]] = [
        {"start": T0 + 7, "end": T0 + 2 * HOUR, "step": step, "agg": agg, "metrics": "level"}
        for step, agg in ((5 * MINUTE, "mean"), (HOUR, "count"))
    ]
    async with opened(path, retention_days=0) as history:
        await write(history, seconds(T0, 4096))
        await rolled(history)
        right = [(await history.query(**question))[0] for question in questions]
    roots = ask(path, "SELECT rootpage FROM sqlite_schema WHERE name LIKE 'rollup%' OR name = 'gone'")
    whole = path.read_bytes()
    pages = [page for (page,) in roots] + list(range(max(page for (page,) in roots) + 1, len(whole) // 4096 + 1))
    for number in range(40):
        data, at = bytearray(whole), 4096 * (rng.choice(pages) - 1) + rng.randrange(4096)
        data[at] ^= 1 << rng.randrange(8)
        (tmp_path / str(number)).mkdir()
        copy = tmp_path / str(number) / "history.db"
        copy.write_bytes(data)
        async with opened(copy, retention_days=0) as history:
            try:
                found = [(await history.query(**question))[0] for question in questions]
            except HistoryError:
                continue
            alike = all(len(one) == len(other) and same(one, other) for one, other in zip(found, right, strict=True))
            assert alike or history.problems() != [], at


async def test_a_step_is_whole_or_not_done(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What fails between the rollup and the mark on its chunks leaves neither; what was done outlasts a crash."""
    path = tmp_path / "history.db"
    question: dict[str, Any] = {"start": T0, "end": T0 + DAY, "step": HOUR, "agg": "count"}
    async with opened(path, retention_days=0) as history:

        def fail(*given: object) -> None:
            raise apsw.FullError("no room")

        with monkeypatch.context() as patch:
            patch.setattr(roller, "mark_rolled", fail)
            model = await write(history, seconds(T0, 4096))
            with pytest.raises(apsw.FullError):
                await history._in_writer(lambda: store_of(history).roller.step(1 << 62))
            assert ask(path, "SELECT count(*) FROM rollup") == [(0,)]
        await history._in_writer(lambda: store_of(history).roller.step(1 << 62))
        assert ask(path, "SELECT level, sum(rows) FROM rollup GROUP BY 1") == [(1, 69), (2, 2)]
        copy = crashed(path, tmp_path / "copy")
    async with opened(copy, retention_days=0) as again:
        assert await again.query(**question) == model.query(**question)
        await rolled(again)
        assert await again.query(**question) == model.query(**question)


async def test_rollups_are_taken_over_from_a_damaged_file(tmp_path: Path) -> None:
    """From a damaged file rollups come over as chunks do, and what was gone of its readings stays so."""
    clock, path = Clock(T0 + DAY), tmp_path / "history.db"
    async with opened(path, clock, retention_days=10) as history:
        model = await write(history, seconds(T0, 4096))
        clock.now = T0 + 11 * DAY
    async with opened(path, clock, retention_days=10) as history:
        await until(lambda: history.stats()["chunks_expired"] > 0)
        await write(history, seconds(T0 + 10 * DAY, 4096))
        await rolled(history)
    page = ask(path, "SELECT rootpage FROM sqlite_schema WHERE name = 'chunk_kept'")[0][0]
    with path.open("r+b") as file:
        file.seek(4096 * (page - 1))
        file.write(b"\xff" * 4096)
    async with opened(path, clock, retention_days=10) as history:
        await until(lambda: history.stats()["chunks_salvaged"] > 0 and not store_of(history).salvaging)
        print(
            history.stats(),
            ask(path, "select * from salvage"),
            ask(path, "select id,name from device"),
            ask(path, "select id,device,shape,level,first,last from rollup"),
        )
        question: dict[str, Any] = {"start": T0, "end": T0 + DAY, "step": HOUR, "agg": "count"}
        assert (await history.query(**question))[0] == model.query(**question)[0]
        assert (await history.ask(start=T0, end=T0 + HOUR)).whole_from == T0 + HOUR
        question["end"] = T0 + 20 * DAY
        assert sum(row[3] for row in (await history.query(**question, metrics="level"))[0]) == 2 * 4096  # type: ignore[misc]


async def test_sparse_buckets_share_a_row(tmp_path: Path) -> None:
    """A device that seldom sends fills a row of the table with buckets of many days, in whatever order they come."""
    path = tmp_path / "history.db"
    async with opened(path, retention_days=0) as history:
        times = [T0 + n * HOUR for n in range(2500)]
        model = await write(history, [reading("rare", time, {"m": 1}) for time in times[100:] + times[:100]])
        await write(history, [reading("rare", time + MINUTE, {"m": 2}) for time in times[::-1]])
        await rolled(history)
        for level, buckets in ((1, 5000), (2, 2500)):
            rows = ask(path, f"SELECT first, last, rows FROM rollup WHERE level = {level} ORDER BY first")
            assert sum(count for _, _, count in rows) == buckets
            assert all(one[1] < other[0] for one, other in pairwise(rows))
            assert len(rows) <= 2 * buckets / roller.ROOM + 2
        found = await history.query(start=0, end=1 << 62, step=HOUR, agg="count")
        assert [row[3] for row in found[0]] == [2] * 2500
        assert model.end == 2500


@pytest.mark.parametrize("wrong", [5 * SECOND, T0 + 20_000 * DAY])
async def test_a_wrong_clock_makes_no_steps_without_readings(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, wrong: int
) -> None:
    """A reading half a century away does not have a question with a step that no minute divides look at each of its
    steps: that would be millions."""
    spans = 0

    def counted(*arguments: Any) -> Any:
        nonlocal spans
        found = levels.parted(*arguments)
        spans += sum(map(len, found))
        return found

    monkeypatch.setattr(history_query, "parted", counted)
    async with opened(tmp_path / "history.db", retention_days=0) as history:
        times = [wrong, *(T0 + n * SECOND for n in range(2 * 4096))]
        model = await write(history, [reading("pump-1", time, {"level": time % 97}) for time in times])
        await rolled(history)
        question: dict[str, Any] = {"start": 0, "end": 1 << 62, "step": 601 * SECOND, "agg": "mean"}
        found = await history.query(**question)
        assert same(found[0], model.query(**question)[0])
        assert len(found[0]) > 10
        assert spans < 1000
