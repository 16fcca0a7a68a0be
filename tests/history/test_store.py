from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path

import apsw
import msgspec
import pytest

from gateway.errors import HistoryError
from gateway.history import store as store_module
from gateway.history.chunks import ALONE, MAX_ROWS, MAX_SHARED_ROWS
from gateway.history.codec import decode, decode_shared
from gateway.history.memtable import Memtable
from gateway.history.merge import FAN_IN
from gateway.history.schema import FINAL, DamagedFile
from gateway.history.seal import SIZE
from gateway.history.store import Store
from gateway.reading import Item, Value
from tests.history.model import reading

HOUR = 3600 * 10**9


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "history.db"


@pytest.fixture
def store(path: Path) -> Iterator[Store]:
    opened = Store(path, epoch="", span=24 * HOUR)
    yield opened
    opened.close()


def flush(store: Store, items: list[Item]) -> None:
    table = Memtable(store.position)
    table.add(store.position, items, len(items))
    store.flush(table, store.position + len(items))


def rows_of(device: str, times: range, metric: str = "m") -> list[Item]:
    return [reading(device, time, {metric: time / 10}) for time in times]


def tidy(store: Store) -> int:
    """Do all background work; returns the number of steps."""
    steps = 0
    while store.merger.step():
        steps += 1
    return steps


def expire(store: Store, before: int, *, rollups: int = 0, devices: int = 256) -> None:
    """Delete what is old, and names that nothing has."""
    after: int | None = 0
    while after is not None:
        after = store.expire((before, rollups, rollups), after, devices=devices)
    store.forget()


def query(path: Path, statement: str) -> list[tuple[Value, ...]]:
    connection = apsw.Connection(str(path), flags=apsw.SQLITE_OPEN_READONLY)
    try:
        return connection.execute(statement).fetchall()  # type: ignore[return-value]
    finally:
        connection.close()


def chunks(path: Path) -> list[tuple[int, list[int]]]:
    """Level and times of each chunk of one device, by device and first time."""
    found = query(path, "SELECT level, body FROM chunk ORDER BY device, first, id")
    return [(level, list(decode(body[SIZE:]).times)) for level, body in found]  # type: ignore[misc, arg-type]


def shared(path: Path) -> list[dict[int, list[int]]]:
    """Times by device of each shared chunk."""
    found = []
    for start, stop, body in query(path, "SELECT from_device, to_device, body FROM shared ORDER BY flush, id"):
        frame, devices, starts = decode_shared(body[SIZE:])  # type: ignore[arg-type]
        spans = zip(devices, starts, starts[1:], strict=False)
        found.append({device: list(frame.times[a:b]) for device, a, b in spans if start <= device <= stop})  # type: ignore[operator]
    return found


def test_position_is_in_the_same_transaction(store: Store, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A flush that fails leaves neither rows, nor names, nor a position behind; tried again it leaves each once."""
    flush(store, [reading("a", 1, {"m": 1.0})])
    monkeypatch.setattr(store_module, "_NEWEST", "INSERT INTO nowhere VALUES (?, ?, ?, ?, ?, ?)")
    with pytest.raises(apsw.SQLError):
        flush(store, [reading("b", 2, {"n": 1.0}), *rows_of("c", range(ALONE))])
    assert store.position == 1
    assert list(store.catalogue.devices) == ["a"]
    assert list(store.catalogue.shapes) == [("m",)]
    monkeypatch.undo()
    flush(store, [reading("b", 2, {"n": 1.0}), *rows_of("c", range(ALONE))])
    assert store.position == 2 + ALONE
    assert shared(path) == [{1: [1]}, {2: [2]}]
    assert chunks(path) == [(0, list(range(ALONE)))]
    assert query(path, "SELECT position FROM state") == [(2 + ALONE,)] * 2


def test_few_rows_share_a_chunk(store: Store, path: Path) -> None:
    """Devices of which few rows came share a chunk, one a shape; the others have chunks of their own."""
    flush(
        store,
        rows_of("a", range(3)) + rows_of("b", range(ALONE)) + rows_of("c", range(7, 9)) + rows_of("d", range(1), "n"),
    )
    assert shared(path) == [{1: [0, 1, 2], 3: [7, 8]}, {4: [0]}]
    assert chunks(path) == [(0, list(range(ALONE)))]


def test_shared_chunks_are_bounded(store: Store, path: Path) -> None:
    """Many devices of few rows each fill several shared chunks."""
    flush(store, [reading(f"d{row % 200:03}", row, {"m": 1.0}) for row in range(10_000)])
    sizes = [sum(map(len, devices.values())) for devices in shared(path)]
    assert sum(sizes) == 10_000
    assert max(sizes) <= MAX_SHARED_ROWS
    assert len(sizes) == 10


def test_shared_chunks_are_sorted_out(store: Store, path: Path) -> None:
    """After as many flushes as the fan-in, shared rows are put into chunks of each device, step by step."""
    for number in range(FAN_IN):
        assert not store.merger.ready
        # Of another device more, each time: the chunks do not hold the same devices.
        flush(store, [reading(f"d{row % (190 + number):03}", number, {"m": row * 1.0}) for row in range(9_000)])
    flush(store, [reading("late", 99, {"m": 1.0}), reading("other", 99, {"n": 1.0})])
    assert tidy(store) > 1
    assert not store.merger.ready
    assert [list(found.values()) for found in shared(path)] == [[[99]], [[99]]]
    found = chunks(path)
    assert sum(len(times) for _, times in found) == 9_000 * FAN_IN
    assert len(found) == 190 + FAN_IN - 1
    assert all(times == sorted(times) and set(times) <= set(range(FAN_IN)) for _, times in found)


def test_sorting_out_can_stop_anywhere(store: Store, path: Path) -> None:
    """After each step every row is in the file once, also when the file is opened again in between."""
    for number in range(FAN_IN):
        flush(store, [reading(f"d{row % 250:03}", 250 * number + row % 250, {"m": 1.0}) for row in range(9_000)])
    steps = 0
    while store.merger.step():
        steps += 1
        own = [time for _, times in chunks(path) for time in times]
        rest = [time for devices in shared(path) for times in devices.values() for time in times]
        assert sorted(own + rest) == sorted(
            250 * number + row % 250 for number in range(FAN_IN) for row in range(9_000)
        )
        if steps == 1:
            assert own
            assert rest
            store.close()
            store.__init__(path, epoch="", span=0)  # type: ignore[misc]
    assert steps > 2
    assert shared(path) == []


def test_small_neighbours_are_merged(store: Store, path: Path) -> None:
    """As many small chunks of a device as the fan-in become one; those of other devices stay."""
    for number in range(FAN_IN):
        assert not store.merger.ready
        times = range(number * ALONE, (number + 1) * ALONE)
        flush(store, rows_of("a", times) + rows_of("b", times, "n") + (rows_of("c", times) if number else []))
    assert tidy(store) == 1
    levels = [(level, len(times)) for level, times in chunks(path)]
    assert levels == [(1, FAN_IN * ALONE)] * 2 + [(0, ALONE)] * (FAN_IN - 1)
    assert chunks(path)[0] == (1, list(range(FAN_IN * ALONE)))


def test_merging_goes_on_over_levels(store: Store, path: Path) -> None:
    """Merged chunks are merged again, until they are big; the rows stay the same."""
    for number in range(FAN_IN * FAN_IN):
        flush(store, rows_of("a", range(number * 16, (number + 1) * 16)))
        tidy(store)
    found = chunks(path)
    assert [(level, len(times)) for level, times in found] == [(FINAL, FAN_IN * FAN_IN * 16)]
    assert found[0][1] == list(range(FAN_IN * FAN_IN * 16))
    assert FAN_IN * FAN_IN * 16 >= MAX_ROWS // 2


def test_merging_sorts_by_time(store: Store, path: Path) -> None:
    """Chunks that came with times before those of earlier chunks are merged in order of time."""
    for number in range(FAN_IN):
        flush(store, rows_of("a", range(FAN_IN - number, 10_000, 200)) + rows_of("a", range(0, 3_000, 200)))
    assert store.merger.step()
    ((_, times),) = chunks(path)
    assert times == sorted(times)
    assert len(times) == FAN_IN * 65


def test_a_merged_chunk_spans_a_bounded_time(store: Store, path: Path) -> None:
    """Chunks are not merged beyond the longest span, so that each can go when its time has come."""
    for number in range(2 * FAN_IN):
        flush(store, rows_of("a", range(number * 5 * HOUR, number * 5 * HOUR + ALONE)))
        tidy(store)
    found = chunks(path)
    assert sum(len(times) for _, times in found) == 2 * FAN_IN * ALONE
    assert [len(times) for level, times in found if level == FINAL] == [5 * ALONE] * 4
    assert all(times[-1] - times[0] <= 24 * HOUR for _, times in found)


def test_chunks_that_fit_no_neighbour_are_left_alone(store: Store, path: Path) -> None:
    """A chunk that would be too long with the next one is not looked at again."""
    for number in range(FAN_IN):
        flush(store, rows_of("a", range(number * 30 * HOUR, number * 30 * HOUR + ALONE)))
    assert tidy(store) == 1
    assert sorted(level for level, _ in chunks(path)) == [0] * (FAN_IN - 1) + [FINAL]


def test_big_flushes_are_cut(store: Store, path: Path) -> None:
    """A flush of many rows of one device leaves chunks of a bounded size."""
    flush(store, rows_of("a", range(2 * MAX_ROWS + 10)))
    assert [(level, len(times)) for level, times in chunks(path)] == [(FINAL, MAX_ROWS), (FINAL, MAX_ROWS), (0, 10)]


def test_the_newest_row_of_several_chunks(store: Store, path: Path) -> None:
    """Where one flush leaves several chunks of a device, the newest row is that of the last of them."""
    flush(store, [reading("a", 5, {"m": row}) for row in range(2 * MAX_ROWS + 10)])
    ((time, row),) = query(path, "SELECT time, row FROM latest")
    assert (time, row[SIZE:]) == (5, msgspec.msgpack.encode([2 * MAX_ROWS + 9]))  # type: ignore[index]


def test_old_chunks_are_deleted_whole(store: Store, path: Path) -> None:
    """Chunks whose every row is too old go, with names nobody uses any more; a chunk with a newer row stays."""
    flush(store, rows_of("old", range(ALONE)) + rows_of("both", range(2 * ALONE), "n") + rows_of("few", range(5)))
    flush(store, rows_of("old", range(20, 84)) + rows_of("new", range(200, 300), "n") + rows_of("some", range(5)))
    store.merger.sort_old(100)
    tidy(store)
    expire(store, 100, devices=1)
    assert [times[-1] for _, times in chunks(path)] == [127, 299]
    assert shared(path) == []
    assert query(path, "SELECT name FROM latest JOIN device ON id = device ORDER BY 1") == [("both",), ("new",)]
    assert sorted(store.catalogue.devices) == ["both", "few", "new", "old", "some"]
    expire(store, 100, rollups=100)
    assert sorted(store.catalogue.devices) == ["both", "new"]
    assert list(store.catalogue.shapes) == [("n",)]
    flush(store, rows_of("old", range(500, 501)))
    assert store.catalogue.devices["old"] == 6


def test_deleting_is_bounded(store: Store, path: Path) -> None:
    """A step deletes some chunks only, and the next one goes on with the same device."""
    flush(store, rows_of("a", range(5 * MAX_ROWS)) + rows_of("b", range(2 * MAX_ROWS)))
    after: int | None = 0
    left = []
    while after is not None:
        after = store.expire((1 << 60, 0, 0), after, chunks=2)
        left.append(len(chunks(path)))
    assert left == [5, 3, 1, 0, 0]


def test_old_rows_that_share_a_chunk_with_newer_ones_stay(store: Store, path: Path) -> None:
    """Old rows that share a chunk with newer ones stay with it, with their device's name, and then go into a rollup."""
    for number in range(FAN_IN - 1):
        flush(store, rows_of("old", range(number, number + 1)) + rows_of("new", range(100 + number, 101 + number)))
    store.merger.sort_old(50)
    assert tidy(store) == 0
    expire(store, 50)
    assert sorted(store.catalogue.devices) == ["new", "old"]
    flush(store, rows_of("old", range(20, 21)) + rows_of("new", range(130, 131)))
    tidy(store)
    assert shared(path) == []
    expire(store, 50)
    assert [times for _, times in chunks(path)] == [[*range(100, 99 + FAN_IN), 130]]
    assert query(path, "SELECT level, first, rows FROM rollup ORDER BY 1") == [(1, 0, 1), (2, 0, 1)]
    assert sorted(store.catalogue.devices) == ["new", "old"]
    expire(store, 50, rollups=50)
    assert query(path, "SELECT count(*) FROM rollup") == [(0,)]
    assert list(store.catalogue.devices) == ["new"]


def test_space_is_given_back(store: Store, path: Path) -> None:
    """After much was deleted the file becomes smaller, step by step."""
    text = random.Random(1).randbytes
    flush(store, [reading(f"d{row % 50}", row, {"m": text(200).hex()}) for row in range(20_000)])
    before = store.size
    assert before > 2_000_000
    assert not store.shrink()
    store.merger.sort_old(30_000)
    tidy(store)
    expire(store, 30_000, rollups=30_000)
    steps = 0
    while store.shrink(64):
        steps += 1
    assert steps > 2
    store.close()
    assert path.stat().st_size < before // 2


def test_what_can_be_merged_is_known_again(store: Store, path: Path) -> None:
    """What can be merged is known again after the file was closed and opened."""
    for number in range(FAN_IN):
        flush(store, rows_of("a", range(number * 100, number * 100 + ALONE)) + rows_of("b", range(number, number + 1)))
    store.close()
    again = Store(path, epoch="", span=0)
    assert tidy(again) == 2
    again.close()
    assert [len(times) for _, times in chunks(path)] == [FAN_IN * ALONE, FAN_IN]


def test_damaged_chunks_do_not_stop_the_merge(store: Store, path: Path) -> None:
    """A chunk that cannot be read is left out of the merge and counted."""
    for number in range(FAN_IN):
        flush(store, rows_of("a", range(number * 100, number * 100 + ALONE)) + rows_of("b", range(number, number + 1)))
    other = apsw.Connection(str(path))
    other.execute("UPDATE chunk SET body = x'0100ff' WHERE first = 300")
    other.execute("UPDATE shared SET body = x'0100ff' WHERE first = 5")
    other.close()
    assert tidy(store) == 2
    assert store.counts.damaged == 2
    assert [len(times) for _, times in chunks(path)] == [(FAN_IN - 1) * ALONE, FAN_IN - 1]


def test_a_later_version_is_refused(store: Store, path: Path) -> None:
    """A file of a later layout is refused with a clear word, and not changed."""
    store.close()
    connection = apsw.Connection(str(path))
    connection.pragma("user_version", 9)
    connection.pragma("application_id", 0x67744839)
    connection.close()
    before = path.read_bytes()
    with pytest.raises(HistoryError, match=r"later version.*9") as caught:
        Store(path, epoch="", span=0)
    assert "later version" in caught.value.hint
    assert path.read_bytes() == before


def test_files_of_others_are_told(path: Path) -> None:
    """A database that is not a history is refused, and so is a file that is no database."""
    connection = apsw.Connection(str(path))
    connection.execute("CREATE TABLE other (x)")
    connection.close()
    with pytest.raises(DamagedFile, match="other tables"):
        Store(path, epoch="", span=0)
    path.write_bytes(b"no database at all, but long enough to be one" * 100)
    with pytest.raises(apsw.NotADBError):
        Store(path, epoch="", span=0)


def test_another_journal_starts_at_nothing(store: Store, path: Path) -> None:
    """With the epoch of another journal the position is 0 again, and orders go on growing."""
    store.close()
    first = Store(path, epoch="one", span=0)
    flush(first, rows_of("a", range(10)))
    assert (first.position, first.shift) == (10, 0)
    first.close()
    same = Store(path, epoch="one", span=0)
    assert (same.position, same.shift) == (10, 0)
    same.close()
    other = Store(path, epoch="two", span=0)
    assert (other.position, other.shift) == (0, 10)
    other.close()
    again = Store(path, epoch="two", span=0)
    assert (again.position, again.shift) == (0, 10)
    again.close()
