from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path

import apsw
import pytest

from gateway.errors import HistoryError
from gateway.history.codec import decode
from gateway.history.memtable import Memtable
from gateway.history.schema import FINAL
from gateway.history.store import FAN_IN, MAX_ROWS, Store
from gateway.reading import Item
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


def chunks(path: Path) -> list[tuple[int, int, list[int]]]:
    """Level, rows and times of each chunk, by first time."""
    connection = apsw.Connection(str(path), flags=apsw.SQLITE_OPEN_READONLY)
    found = connection.execute("SELECT level, rows, body FROM chunk ORDER BY first, id").fetchall()
    connection.close()
    return [(level, rows, list(decode(body).times)) for level, rows, body in found]  # type: ignore[misc, arg-type]


def test_position_is_in_the_same_transaction(store: Store, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A flush that fails leaves neither chunks, nor names, nor a position behind; tried again it leaves each once."""
    flush(store, [reading("a", 1, {"m": 1.0})])
    monkeypatch.setattr(store, "_newest", "INSERT INTO nowhere VALUES (?, ?, ?, ?, ?, ?)")
    with pytest.raises(apsw.SQLError):
        flush(store, [reading("b", 2, {"n": 1.0})])
    assert store.position == 1
    assert list(store.catalogue.devices) == ["a"]
    assert list(store.catalogue.shapes) == [("m",)]
    monkeypatch.undo()
    flush(store, [reading("b", 2, {"n": 1.0})])
    assert store.position == 2
    assert [times for _, _, times in chunks(path)] == [[1], [2]]


def test_small_neighbours_are_merged(store: Store, path: Path) -> None:
    """As many small chunks of a series as the fan-in become one; those of other series stay."""
    for number in range(FAN_IN):
        assert store.ready == 0
        flush(store, [reading("a", number, {"m": float(number)}), reading("b", number, {"n": 1.0})])
        flush(store, [reading("c", 0, {"m": 1.0})] if number == 0 else [])
    assert store.ready == 2
    while store.merge():
        pass
    assert sorted((level, rows) for level, rows, _ in chunks(path)) == [(0, 1), (1, FAN_IN), (1, FAN_IN)]
    assert (1, FAN_IN, list(range(FAN_IN))) in chunks(path)
    assert store.ready == 0


def test_merging_goes_on_over_levels(store: Store, path: Path) -> None:
    """Merged chunks are merged again, until they are big; the rows stay the same."""
    rows = MAX_ROWS // FAN_IN // 2
    for number in range(2 * FAN_IN):
        flush(store, [reading("a", number * rows + row, {"m": row / 10}) for row in range(rows)])
        store.merge()
    assert [(level, rows) for level, rows, _ in chunks(path)] == [(FINAL, MAX_ROWS // 2)] * 2
    assert [time for _, _, times in chunks(path) for time in times] == list(range(MAX_ROWS))


def test_merging_sorts_by_time(store: Store, path: Path) -> None:
    """Chunks that came with times before those of earlier chunks are merged in order of time."""
    for number in range(FAN_IN):
        flush(store, [reading("a", 2 * (FAN_IN - number) + row * 3, {"m": number}) for row in range(2)])
    assert store.merge()
    ((_, _, times),) = chunks(path)
    assert times == sorted(times)
    assert len(times) == 2 * FAN_IN


def test_a_merged_chunk_spans_a_bounded_time(store: Store, path: Path) -> None:
    """Chunks are not merged beyond the longest span, so that each can go when its time has come."""
    for number in range(2 * FAN_IN):
        flush(store, [reading("a", number * 5 * HOUR, {"m": 1.0})])
        while store.merge():
            pass
    found = chunks(path)
    assert sum(rows for _, rows, _ in found) == 2 * FAN_IN
    assert [rows for level, rows, _ in found if level == FINAL] == [5, 5, 5, 5]
    assert all(times[-1] - times[0] <= 24 * HOUR for _, _, times in found)


def test_big_flushes_are_cut(store: Store, path: Path) -> None:
    """A flush of many rows of one device leaves chunks of a bounded size."""
    flush(store, [reading("a", row, {"m": row}) for row in range(2 * MAX_ROWS + 10)])
    assert [rows for _, rows, _ in chunks(path)] == [MAX_ROWS, MAX_ROWS, 10]


def test_old_chunks_are_deleted_whole(store: Store, path: Path) -> None:
    """Chunks whose every row is too old go, with names nobody uses any more; a chunk with a newer row stays."""
    flush(store, [reading("old", 10, {"m": 1.0}), reading("both", 10, {"n": 1.0}), reading("both", 30, {"n": 1.0})])
    flush(store, [reading("old", 20, {"m": 1.0}), reading("new", 40, {"n": 1.0})])
    after: int | None = 0
    steps = 0
    while after is not None:
        after = store.expire(before=21, after=after, devices=1)
        steps += 1
    assert steps == 4
    assert [times for _, _, times in chunks(path)] == [[10, 30], [40]]
    store.forget()
    assert sorted(store.catalogue.devices) == ["both", "new"]
    assert list(store.catalogue.shapes) == [("n",)]
    flush(store, [reading("old", 50, {"m": 1.0})])
    assert sorted(store.catalogue.devices) == ["both", "new", "old"]


def test_space_is_given_back(store: Store, path: Path) -> None:
    """After much was deleted the file becomes smaller, step by step."""
    text = random.Random(1).randbytes
    flush(store, [reading(f"d{row % 50}", row, {"m": text(200).hex()}) for row in range(20_000)])
    before = store.size
    assert before > 2_000_000
    assert not store.shrink()
    store.expire(before=30_000, after=0)
    store.forget()
    steps = 0
    while store.shrink(64):
        steps += 1
    assert steps > 2
    store.close()
    assert path.stat().st_size < before // 2


def test_counts_of_small_chunks_survive(store: Store, path: Path) -> None:
    """What can be merged is known again after the file was closed and opened."""
    for number in range(FAN_IN):
        flush(store, [reading("a", number, {"m": 1.0})])
    store.close()
    again = Store(path, epoch="", span=0)
    assert again.ready == 1
    assert again.merge()
    again.close()
    assert [rows for _, rows, _ in chunks(path)] == [FAN_IN]


def test_a_damaged_chunk_does_not_stop_the_merge(store: Store, path: Path) -> None:
    """A chunk that cannot be read is left out of the merge and counted."""
    for number in range(FAN_IN):
        flush(store, [reading("a", number, {"m": 1.0})])
    other = apsw.Connection(str(path))
    other.execute("UPDATE chunk SET body = x'0100ff' WHERE first = 3")
    other.close()
    assert store.merge()
    assert store.damaged == 1
    assert [times for _, _, times in chunks(path)] == [[number for number in range(FAN_IN) if number != 3]]


def test_a_later_version_is_refused(store: Store, path: Path) -> None:
    """A file of a later layout is refused with a clear word, and not changed."""
    store.close()
    connection = apsw.Connection(str(path))
    connection.pragma("user_version", 99)
    connection.close()
    before = path.read_bytes()
    with pytest.raises(HistoryError, match=r"later version.*99") as caught:
        Store(path, epoch="", span=0)
    assert "later version" in caught.value.hint
    assert path.read_bytes() == before


def test_files_of_others_are_refused(path: Path) -> None:
    """A database that is not a history is refused, and so is a file that is no database."""
    connection = apsw.Connection(str(path))
    connection.execute("CREATE TABLE other (x)")
    connection.close()
    with pytest.raises(HistoryError, match="not a history"):
        Store(path, epoch="", span=0)
    path.write_bytes(b"no database at all, but long enough to be one" * 100)
    with pytest.raises(apsw.NotADBError):
        Store(path, epoch="", span=0)


def test_another_journal_starts_at_nothing(store: Store, path: Path) -> None:
    """With the epoch of another journal the position is 0 again, and orders go on growing."""
    store.close()
    first = Store(path, epoch="one", span=0)
    flush(first, [reading("a", 1, {"m": 1.0})] * 10)
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
