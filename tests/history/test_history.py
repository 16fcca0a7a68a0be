from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import apsw
import pytest

from gateway.errors import HistoryError, Overloaded
from gateway.history import History, history, query
from gateway.history.catalogue import Catalogue, Snapshot
from gateway.history.history import MAX_QUERIES
from gateway.history.merge import FAN_IN
from gateway.history.schema import APPLICATION, VERSION
from gateway.history.store import Store
from gateway.reading import Item, Mark, Reading
from tests.history.model import Model, batch, crashed, reading, strict

ALL = {"start": 0, "end": 1 << 62}
DAY = 86_400 * 10**9


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "history.db"


@pytest.fixture
async def store(path: Path) -> AsyncIterator[History]:
    opened = History(path, retention_days=0)
    await opened.open()
    yield opened
    await opened.close()


def rows_of(count: int, *, device: str = "a", first: int = 0) -> list[Item]:
    return [reading(device, first + row, {"m": (first + row) / 10, "n": row % 2 == 0}) for row in range(count)]


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0.002)


async def test_written_is_readable_before_and_after_the_flush(store: History) -> None:
    """Rows are answered at once from memory, and the same from chunks."""
    items = rows_of(3000)
    assert await store.write(batch(1000, items)) == 0
    assert (store.position, store.end) == (0, 4000)
    before = await store.query(**ALL)
    assert len(before[0]) == 6000
    assert before[0][:2] == [(0, "a", "m", 0.0), (0, "a", "n", True)]
    await store.flush()
    assert store.position == 4000
    assert await store.query(**ALL) == before
    assert await store.write(batch(4000, [Mark("a", "s", 1)])) == 4000


async def test_repeated_offsets_are_skipped(store: History) -> None:
    """A batch given again, whole or in part, leaves nothing twice, whether or not it is on disk already."""
    items = rows_of(10)
    await store.write(batch(5, items))
    await store.write(batch(5, items))
    await store.flush()
    await store.write(batch(5, items))
    await store.write(batch(10, items[5:] + rows_of(3, first=100)))
    await store.write(batch(17, rows_of(2, first=102)))
    rows, _ = await store.query(**ALL, metrics="m")
    assert [row[0] for row in rows] == [*range(10), *range(100, 104)]
    assert store.end == 19


async def test_gaps_between_batches(store: History) -> None:
    """Offsets may jump forward."""
    await store.write(batch(1, rows_of(1)))
    await store.write(batch(1 << 40, rows_of(1, first=5)))
    await store.flush()
    assert store.position == (1 << 40) + 1
    assert len((await store.query(**ALL))[0]) == 4


async def test_after_a_crash(store: History, path: Path, tmp_path: Path) -> None:
    """After a crash everything from position on is to be written again, and then nothing misses or stands twice."""
    await store.write(batch(0, rows_of(10)))
    await store.flush()
    await store.write(batch(10, rows_of(10, first=10)))
    other = History(crashed(path, tmp_path / "crash"), retention_days=0)
    await other.open()
    assert (other.position, other.end) == (10, 10)
    rows, _ = await other.query(**ALL, metrics="m")
    assert [row[0] for row in rows] == list(range(10))
    await other.write(batch(5, rows_of(5, first=5) + rows_of(10, first=10)))
    assert await other.query(**ALL) == await store.query(**ALL)
    await other.close()


async def test_closing_flushes(path: Path) -> None:
    """After a clean close nothing is left to the journal."""
    first = History(path, retention_days=0)
    await first.open()
    await first.write(batch(0, rows_of(10)))
    await first.close()
    await first.close()
    with pytest.raises(HistoryError, match="closed"):
        await first.write(batch(10, rows_of(1)))
    with pytest.raises(HistoryError, match="closed"):
        await first.query(**ALL)
    again = History(path, retention_days=0)
    await again.open()
    assert again.position == 10
    assert len((await again.query(**ALL))[0]) == 20
    await again.close()
    assert [entry.name for entry in path.parent.iterdir()] == [path.name]


async def test_old_readings_are_flushed(path: Path) -> None:
    """What is in memory for too long is flushed, without any further write."""
    store = History(path, retention_days=0, flush_s=0.02)
    await store.open()
    await store.write(batch(0, rows_of(5)))
    await until(lambda: store.position == 5)
    await store.write(batch(5, [Mark("a", "s", 1)]))
    await until(lambda: store.position == 6)
    await store.close()


async def test_memory_is_bounded(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """While a flush is under way, one more memtable is filled; then write waits."""
    go = threading.Event()
    flush = Store.flush
    monkeypatch.setattr(Store, "flush", lambda *given: go.wait(10) and flush(*given))
    store = History(path, retention_days=0, memtable_bytes=65_536)
    await store.open()
    written, waiting = 0, None
    while waiting is None:
        task = asyncio.create_task(store.write(batch(written, rows_of(100, first=written))))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        if task.done():
            written += 100
        else:
            waiting = task
    assert 2 * 65_536 < store.stats()["memtable_bytes"] < 3 * 65_536
    assert store.position == 0
    # Everything is readable meanwhile.
    assert len((await store.query(**ALL))[0]) == 2 * written
    go.set()
    await waiting
    await store.flush()
    assert store.position == written + 100
    assert len((await store.query(**ALL))[0]) == 2 * (written + 100)
    await store.close()


async def test_a_disk_that_refuses(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """While the disk is full, write says so once memory is full; then everything is written, once."""
    full = True
    flush = Store.flush

    def refuse(*given: object) -> None:
        if full:
            raise apsw.FullError("database or disk is full")
        flush(*given)  # type: ignore[arg-type]

    monkeypatch.setattr(Store, "flush", refuse)
    monkeypatch.setattr(history, "RETRY_S", (0.005, 0.01))
    store = History(path, retention_days=0, memtable_bytes=65_536)
    await store.open()
    written = 0
    refusal: HistoryError | None = None
    while refusal is None and written < 100_000:
        try:
            await store.write(batch(written, rows_of(100, first=written)))
            written += 100
        except HistoryError as error:
            refusal = error
    assert "full" in str(refusal)
    assert refusal is not None
    assert "free space" in refusal.hint
    assert store.stats()["flush_failures"] >= 1
    with pytest.raises(HistoryError, match="full"):
        await store.flush()
    assert len((await store.query(**ALL))[0]) == 2 * written
    full = False
    await until(lambda: store.position > 0)
    await store.write(batch(written, rows_of(100, first=written)))
    await store.close()
    again = History(path, retention_days=0)
    await again.open()
    assert again.position == written + 100
    assert len((await again.query(**ALL))[0]) == 2 * (written + 100)
    await again.close()


async def test_closing_with_a_disk_that_refuses(
    path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Closing ends although the disk refuses, and says what is left to the journal."""
    store = History(path, retention_days=0)
    await store.open()
    await store.write(batch(0, rows_of(10)))

    def refuse(*given: object) -> None:
        raise apsw.IOError("disk I/O error")

    monkeypatch.setattr(Store, "flush", refuse)
    await store.close()
    assert "offsets 0 to 10 are left to the journal" in caplog.text


async def test_a_writer_that_fails(
    path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """An error nobody foresaw in the writer ends it with a traceback, and nobody waits for it for ever."""

    def fail(*given: object) -> None:
        raise ZeroDivisionError("of all things")

    monkeypatch.setattr(Store, "flush", fail)
    store = History(path, retention_days=0)
    await store.open()
    await store.write(batch(0, rows_of(10)))
    with pytest.raises(HistoryError, match="of all things"):
        await store.flush()
    with pytest.raises(HistoryError, match="of all things"):
        await store.write(batch(10, rows_of(10)))
    await store.close()
    assert "Traceback" in caplog.text
    assert not any(thread.name.startswith("history-") for thread in threading.enumerate())


async def test_cannot_open(tmp_path: Path) -> None:
    """A directory that is not there, and a file of a later version, are told with a hint, and nothing is touched."""
    with pytest.raises(HistoryError, match="cannot open") as caught:
        await History(tmp_path / "none" / "history.db").open()
    assert caught.value.hint
    path = tmp_path / "later"
    connection = apsw.Connection(str(path))
    connection.execute("CREATE TABLE x (y)")
    connection.pragma("user_version", VERSION + 1)
    connection.pragma("application_id", APPLICATION + VERSION + 1)
    connection.close()
    before = path.read_bytes()
    with pytest.raises(HistoryError, match="later version"):
        await History(path, retention_days=0).open()
    assert path.read_bytes() == before


async def test_bad_questions(store: History) -> None:
    """A step below one, an unknown aggregate and no limit are refused."""
    for wrong in ({"step": 0}, {"agg": "median"}, {"limit": 0}):
        with pytest.raises(ValueError, match=next(iter(wrong))):
            await store.query(**ALL, **wrong)  # type: ignore[arg-type]
    assert await store.query(start=5, end=5) == ([], False)
    assert await store.query(start=-(1 << 70), end=1 << 70) == ([], False)


async def test_globs(store: History) -> None:
    """Stars and question marks choose devices and metrics; other signs are letters."""
    await store.write(
        batch(
            0,
            [
                reading(device, 1, {"t.in": 1, "t.out": 2, "rpm": 3})
                for device in ("pump-1", "pump-2", "pump-10", "fan")
            ],
        )
    )

    async def found(devices: str, metrics: str) -> set[tuple[str, str]]:
        rows, _ = await store.query(**ALL, devices=devices, metrics=metrics)
        return {row[1:3] for row in rows}

    for _ in range(2):
        assert await found("pump-?", "rpm") == {("pump-1", "rpm"), ("pump-2", "rpm")}
        assert await found("pump-*", "t.*n") == {(f"pump-{n}", "t.in") for n in (1, 2, 10)}
        assert await found("fan", "*") == {("fan", "t.in"), ("fan", "t.out"), ("fan", "rpm")}
        assert await found("pump-[12]", "*") == set()
        assert await found("*", "t?in") == {(name, "t.in") for name in ("pump-1", "pump-2", "pump-10", "fan")}
        assert await found("'; DROP TABLE chunk; --", '"') == set()
        assert await found("*", "none") == set()
        await store.flush()


async def test_types_are_kept(store: History) -> None:
    """Booleans, strings, big integers and floats of one series come back as they were, from memory and from chunks."""
    values = [True, 1, 1.5, "x", (1 << 63) - 1, -(1 << 63), False, 0.1, "", (1 << 53) + 1, 2.0]
    await store.write(batch(0, [reading("d", time, {"m": value}) for time, value in enumerate(values)]))
    for _ in range(2):
        rows, _ = await store.query(**ALL)
        assert strict(rows) == strict([(time, "d", "m", value) for time, value in enumerate(values)])
        await store.flush()


@pytest.mark.parametrize("turns", [1, 70])
async def test_rows_of_one_time(store: History, turns: int) -> None:
    """Rows of a series with the same time are all kept, in order of arrival, whatever else their readings held."""
    shapes = [{"m": 0}, {"m": 1, "n": 0}, {"m": 2}, {"o": True, "m": 3}, {"n": 1, "m": 4}, {"m": 5}]
    items: list[Item] = [reading("d", 7, dict(values)) for values in shapes] * turns
    for times in range(3):
        await store.write(batch(1000 * times, items))
        for _ in range(2):
            rows, _ = await store.query(**ALL, metrics="m")
            assert [row[3] for row in rows] == [0, 1, 2, 3, 4, 5] * turns * (times + 1)
            rows, _ = await store.query(**ALL, metrics="m", step=10, agg="last")
            assert rows == [(0, "d", "m", 5)]
            newest = await store.latest()
            assert ("d", "m", 7, 7, 5) in newest
            await store.flush()


async def test_metrics_in_another_sequence(store: History) -> None:
    """Readings whose metrics come in another sequence are rows of the same series, in order of arrival."""
    items = [reading("d", 7, {"m": n, "n": 0} if n % 3 else {"n": 0, "m": n}) for n in range(200)]
    await store.write(batch(0, list(items)))
    for _ in range(2):
        rows, _ = await store.query(**ALL, metrics="m")
        assert [row[3] for row in rows] == list(range(200))
        assert ("d", "m", 7, 7, 199) in await store.latest()
        await store.flush()


async def test_latest(store: History) -> None:
    """The newest value of each series has the greatest time, then the last arrival; memory and chunks count alike."""
    model = Model()
    steps: list[list[Item]] = [
        [reading("a", 10, {"m": 1, "n": "x"}, 11), reading("a", 5, {"m": 2}, 12), reading("b", 1, {"m": True}, 13)],
        [reading("a", 10, {"m": 3}, 14), reading("b", 0, {"m": False}, 15)],
        [reading("a", 9, {"n": "y", "m": 4}, 16), reading("c", 1, {"z": 1.5}, 17), reading("c", 1, {"z": 2.5}, 18)],
    ]
    for number, items in enumerate(steps):
        await store.write(batch(number * 10, items))
        model.write(batch(number * 10, items))
        for _ in range(2):
            assert strict(await store.latest()) == strict(model.latest())
            await store.flush()
    assert model.latest()[0] == ("a", "m", 10, 14, 3)


async def test_latest_during_a_flush(store: History, monkeypatch: pytest.MonkeyPatch) -> None:
    """A flush after the snapshot was taken makes no series disappear."""
    loop = asyncio.get_running_loop()
    await store.write(batch(0, [reading("a", 1, {"m": 1})]))
    await store.flush()
    run = history.latest

    async def flush() -> None:
        await store.write(batch(1, [reading("a", 2, {"m": 2}), reading("b", 2, {"m": 2})]))
        await store.flush()

    def late(*given: Any) -> Any:
        asyncio.run_coroutine_threadsafe(flush(), loop).result(20)
        return run(*given)

    monkeypatch.setattr(history, "latest", late)
    assert ("a", "m", 2, 2, 2) in await store.latest()


async def test_chunks_of_the_same_times(store: History) -> None:
    """Of chunks that overlap in time, a cut answer holds the earliest rows of all."""
    for number in range(5):
        await store.write(batch(100 * number, [reading("a", 5 * row + number, {"m": row}) for row in range(100)]))
        await store.flush()
    rows, truncated = await store.query(**ALL, limit=120)
    assert truncated
    assert [row[0] for row in rows] == list(range(120))


async def test_cut_answers(store: History) -> None:
    """An answer beyond the limit holds the earliest rows, from memory and chunks, and says that it was cut."""
    for first in range(0, 3000, 1000):
        items = [reading(f"d{row % 7}", row, {"m": row, "n": row}) for row in range(first, first + 1000)]
        await store.write(batch(first, list(items)))
        if first < 2000:
            await store.flush()
    rows, truncated = await store.query(**ALL, limit=501)
    assert truncated
    assert [row[0] for row in rows] == sorted([*range(250), *range(250), 250])
    rows, truncated = await store.query(**ALL, metrics="m", limit=3000)
    assert not truncated
    assert [row[0] for row in rows] == list(range(3000))
    rows, truncated = await store.query(**ALL, step=2, agg="count", limit=100)
    assert truncated
    assert [row[0] for row in rows] == [2 * (row // 4) for row in range(100)]
    assert rows == (await store.query(**ALL, step=2, agg="count", limit=10_000))[0][:100]


async def test_too_many_queries(store: History) -> None:
    """Queries beyond the bound are refused, not queued."""
    tasks = [asyncio.ensure_future(store.query(**ALL)) for _ in range(MAX_QUERIES)]
    await asyncio.sleep(0)
    with pytest.raises(Overloaded):
        await store.query(**ALL)
    await asyncio.gather(*tasks)
    await store.query(**ALL)
    assert store.stats()["queries_refused"] == 1


async def test_a_query_nobody_waits_for_ends(store: History, monkeypatch: pytest.MonkeyPatch) -> None:
    """A cancelled query stops at its next piece, and closing stops those that run."""
    started, go = threading.Event(), threading.Event()
    load = query._Reader._load
    loaded: list[object] = []

    def slow(self: query._Reader, piece: query._Piece) -> object:
        started.set()
        go.wait(10)
        loaded.append(piece)
        return load(self, piece)

    for number in range(5):
        await store.write(batch(number, rows_of(1, first=number)))
        await store.flush()
    monkeypatch.setattr(query._Reader, "_load", slow)
    task = asyncio.ensure_future(store.query(**ALL))
    await asyncio.to_thread(started.wait, 10)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    started.clear()
    task = asyncio.ensure_future(store.query(**ALL))
    await asyncio.to_thread(started.wait, 10)
    closing = asyncio.create_task(store.close())
    await asyncio.sleep(0)
    go.set()
    await closing
    with pytest.raises(HistoryError, match="closed"):
        await task
    assert len(loaded) == 2


async def test_a_damaged_chunk(store: History, path: Path) -> None:
    """A chunk that cannot be read is left out of the answer, counted, and the rest is answered."""
    for number in range(0, 400, 100):
        await store.write(batch(number, rows_of(100 if number < 200 else 1, first=number)))
        await store.flush()
    other = apsw.Connection(str(path))
    other.execute("UPDATE chunk SET body = x'0100ff' WHERE first = 0")
    other.execute("UPDATE shared SET body = x'0100ff' WHERE first = 200")
    other.close()
    rows, _ = await store.query(**ALL, metrics="m")
    assert [row[0] for row in rows] == [*range(100, 200), 300]
    assert store.stats()["damaged"] == 2


async def test_retention(path: Path) -> None:
    """Rows older than the retention go by themselves, and their latest values with them."""
    now = 100.0 * 86_400
    store = History(path, retention_days=0)
    await store.open()
    await store.write(batch(0, [reading("old", 70 * DAY - 1, {"m": 1.0})]))
    await store.flush()
    await store.write(batch(1, [reading("new", 80 * DAY, {"m": 2.0})]))
    await store.close()
    store = History(path, retention_days=30, minutes_days=1, hours_days=1, clock=lambda: now)
    await store.open()
    await until(lambda: store.stats()["devices"] == 1)
    assert store.stats()["chunks_expired"] == 3  # and its two rollups
    assert (await store.query(**ALL))[0] == [(80 * DAY, "new", "m", 2.0)]
    assert [row[0] for row in await store.latest()] == ["new"]
    await store.close()


async def test_retention_spares_an_old_log_that_was_received_lately(path: Path) -> None:
    """What is old and was received lately stays, whether its chunk is shared or its own."""
    now = 100.0 * 86_400
    store = History(path, retention_days=30, clock=lambda: now)
    await store.open()
    late = [Reading("one", "s", 0, 10 * DAY, 99 * DAY, {"m": 1.0})]
    late += [Reading("many", "s", 0, 10 * DAY + n, 99 * DAY, {"m": 1.0}) for n in range(200)]
    old = [Reading("gone", "s", 0, 10 * DAY + n, 70 * DAY - 1, {"m": 1.0}) for n in range(200)]
    await store.write(batch(0, [*late, *old]))
    await store.close()
    store = History(path, retention_days=30, minutes_days=30, hours_days=30, clock=lambda: now)
    await store.open()
    await until(lambda: store.stats()["devices"] == 2)
    assert {row[1] for row in (await store.query(**ALL))[0]} == {"one", "many"}
    assert len((await store.query(**ALL))[0]) == 201
    assert {row[0] for row in await store.latest()} == {"one", "many"}
    await store.close()


async def test_a_clock_far_ahead_costs_a_day_an_hour(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A start with a clock that is far ahead deletes nothing, and a day of what is oldest an hour later."""
    now = 100.0 * 86_400
    rows = [reading(f"d{day}", (90 + day) * DAY, {"m": 1.0}) for day in range(5)]
    store = History(path, retention_days=30, clock=lambda: now)
    await store.open()
    for offset, row in enumerate(rows):
        await store.write(batch(offset, [row]))
        await store.flush()
    await store.close()
    assert store.problems() == []
    now += 400 * 86_400
    store = History(path, retention_days=30, clock=lambda: now)
    await store.open()
    await until(lambda: store.problems())
    assert "reaches 380 days further back" in store.problems()[0]
    assert "is the clock right?" in caplog.text
    await store.write(batch(5, [reading("new", 100 * DAY, {"m": 1.0})]))
    await store.flush()
    assert len((await store.query(**ALL))[0]) == 6
    assert store._store is not None
    assert store._age.limits(store._store, 3599)[0] == 90 * DAY
    assert store._age.limits(store._store, 3600)[0] == 91 * DAY
    now = 100.0 * 86_400
    assert store._age.limits(store._store, 3600) == [70 * DAY, -80 * DAY, -3550 * DAY]
    assert store.problems() == []
    await store.close()


async def test_a_clock_of_1970_deletes_nothing(path: Path) -> None:
    """Before its time is set a clock may show 1970: what was stored then and before stays, in order."""
    store = History(path, retention_days=30, clock=lambda: 5.0)
    await store.open()
    times = [100 * DAY, 5_000_000_000, 3 * DAY, 99 * DAY]
    for offset, time in enumerate(times):
        await store.write(batch(offset, [reading("d", time, {"m": offset})]))
        await store.flush()
    assert [row[3] for row in (await store.query(**ALL))[0]] == [1, 2, 3, 0]
    assert store.problems() == []
    await store.close()


async def test_merging_in_the_background(store: History) -> None:
    """Small chunks are merged without being asked for, while the answers stay the same."""
    for number in range(FAN_IN):
        await store.write(batch(number, rows_of(1, first=number)))
        await store.flush()
    await until(lambda: store.stats()["chunks_merged"] == FAN_IN)
    rows, _ = await store.query(**ALL, metrics="m")
    assert [row[0] for row in rows] == list(range(FAN_IN))


async def test_another_journal(path: Path) -> None:
    """Offsets of another journal are all new, and what was written before stays, also for queries during a flush."""
    first = History(path, retention_days=0)
    await first.open("one")
    await first.write(batch(1000, rows_of(10)))
    await first.close()
    again = History(path, retention_days=0)
    await again.open("two")
    assert (again.position, again.end) == (0, 0)
    assert "another journal" in again.problems()[0]
    await again.write(batch(5, rows_of(10, first=10)))
    rows, _ = await again.query(**ALL, metrics="m")
    assert [row[0] for row in rows] == list(range(20))
    await again.flush()
    assert again.position == 15
    assert await again.query(**ALL, metrics="m") == (rows, False)
    await again.close()


@pytest.mark.parametrize("size", [5, 100])
@pytest.mark.parametrize("flushes", [1, FAN_IN + 1])
@pytest.mark.parametrize("rule", ["kept", "broken"])
async def test_a_flush_between_snapshot_and_transaction(
    store: History, monkeypatch: pytest.MonkeyPatch, size: int, flushes: int, rule: str
) -> None:
    """A flush, and a merge, after a query's snapshot and before its transaction leave neither hole nor repeat.

    Without the rule that leaves out rows at or above the snapshot's bound, the same query sees rows twice.
    """
    loop = asyncio.get_running_loop()
    await store.write(batch(0, rows_of(size)))
    run = history.run_query

    async def flush_and_merge() -> None:
        for number in range(flushes):
            await store.write(batch(size * (number + 1), rows_of(size, first=size * (number + 1))))
            await store.flush()
        if flushes > FAN_IN:
            await until(lambda: store.stats()["chunks_merged"] >= FAN_IN)

    def late(connection: apsw.Connection, catalogue: Catalogue, snapshot: Snapshot, *rest: Any) -> Any:
        asyncio.run_coroutine_threadsafe(flush_and_merge(), loop).result(20)
        broken = Snapshot(snapshot.views, 1 << 62)
        return run(connection, catalogue, snapshot if rule == "kept" else broken, *rest)

    monkeypatch.setattr(history, "run_query", late)
    rows, _ = await store.query(**ALL, metrics="m")
    times = [row[0] for row in rows]
    if rule == "kept":
        assert times == list(range(size))
    else:
        assert len(set(times)) < len(times)
    monkeypatch.setattr(history, "run_query", run)
    assert len((await store.query(**ALL, metrics="m"))[0]) == size * (flushes + 1)


async def test_queries_while_writing(path: Path) -> None:
    """Queries beside writes and flushes see what was written before they began, each row once, and nothing else."""
    store = History(path, retention_days=0, memtable_bytes=65_536)
    await store.open()
    written, done = 0, False

    async def write() -> None:
        nonlocal written, done
        while written < 40_000:
            items = [reading(f"d{row % 3}", row, {"m": row}) for row in range(written, written + 200)]
            await store.write(batch(written, list(items)))
            written += 200
            await asyncio.sleep(0)
        done = True

    async def ask() -> int:
        asked = 0
        while not done:
            known, glob = written, ("*", "d?", "d1")[asked % 3]
            rows, _ = await store.query(**ALL, devices=glob)
            expected = [row for row in range(known) if glob != "d1" or row % 3 == 1]
            assert [row[0] for row in rows] == expected
            asked += 1
        return asked

    _, *asked = await asyncio.gather(write(), ask(), ask())
    assert min(asked) > 3
    assert store.stats()["flushes"] > 5
    await store.close()


async def test_stats_are_numbers(store: History) -> None:
    """All stats are numbers, also before the store is open."""
    await store.write(batch(0, rows_of(10)))
    await store.flush()
    stats = store.stats()
    assert all(type(value) in (int, float) for value in stats.values())
    assert stats["rows_written"] == 10
    assert stats["values_written"] == 20
    assert History(Path("nowhere")).stats()["end"] == 0


async def test_extents_and_what_was_at_a_moment(store: History) -> None:
    """How many rows each series has, and when, as a query would find them, at a moment that is held; chunks of one
    device and shared ones, late rows and memory included."""
    items: list[Item] = []
    for first in range(0, 9000, 3000):
        for row in range(3000):
            time = first + row - (2500 if row % 7 == 0 else 0)
            items.append(
                reading("abcd"[row % 3 if row % 500 else 3], time, {"m": row, "n": "x"} if row % 5 else {"m": 1})
            )
    for start in range(0, 9000, 1000):
        await store.write(batch(start, items[start : start + 1000]))
        if start in (2000, 4000, 7000):
            await store.flush()
    at = store.now()
    expected = await store.query(**ALL)
    await store.write(batch(9000, rows_of(500, first=100)))
    await store.flush()
    await store.write(batch(9500, rows_of(500, first=200)))
    assert await store.query(**ALL, at=at) == expected
    for start, end in ((0, 1 << 62), (1234, 7654), (-5000, 3), (8990, 1 << 62)):
        for globs in ({}, {"devices": ["a", "d"]}, {"metrics": "n"}, {"devices": "*", "within": ("b",)}):
            found = await store.extents(at=at, start=start, end=end, **globs)  # type: ignore[arg-type]
            rows, _ = await store.query(at=at, start=start, end=end, **globs)  # type: ignore[arg-type]
            series: dict[tuple[str, str], list[int]] = {}
            for row_time, device, metric, _ in rows:
                series.setdefault((device, metric), []).append(row_time)
            counted = {(one.device, one.metric): (one.rows, one.first, one.last) for one in found}
            assert counted == {key: (len(times), times[0], times[-1]) for key, times in series.items()}
    assert await store.extents(at=at, start=1 << 50, end=1 << 60) == []
