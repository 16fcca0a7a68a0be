"""Making a damaged file anew: nothing is lost that could be read, nothing comes twice, and what was lost is counted."""

from __future__ import annotations

import asyncio
import os
import random
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import apsw
import pytest

from gateway.errors import HistoryError
from gateway.history import History
from gateway.history import history as history_module
from gateway.history.collector import Row
from gateway.history.rescue import rescue
from gateway.history.store import Store
from gateway.reading import Batch, Reading

EPOCH = "00112233445566778899aabbccddeeff"
START = 1_764_000_000_000_000_000
DAY_S = 86_400.0
ROWS = 100
PAGE = 4096


def now() -> float:
    return START / 1e9 + DAY_S


def batch(number: int, devices: int = 1) -> Batch:
    """Those of one flush: of each device a chunk of its own, and two readings of one more, which are shared."""
    rng = random.Random(number)
    readings = [
        Reading(f"d{number:03}-{device}", "s", n + 1, at := START + n * 1000 + number, at, {"m": rng.random()})
        for device in range(devices)
        for n in range(ROWS)
    ]
    readings += [Reading("few", "s", n + 1, at := START + n * 1000 + number, at, {"m": number}) for n in range(2)]
    return Batch(number * 10_000, list(readings), len(readings))


def truth(numbers: int, devices: int = 1) -> list[Row]:
    items: list[Any] = [item for number in range(numbers) for item in batch(number, devices).items]
    return sorted((item.time, item.device, metric, value) for item in items for metric, value in item.values.items())


@asynccontextmanager
async def opened(path: Path, clock: Callable[[], float] = now) -> AsyncIterator[History]:
    history = History(path, retention_days=30, clock=clock)
    await history.open(EPOCH)
    try:
        yield history
    finally:
        await history.close()


async def fill(path: Path, numbers: int, devices: int = 1) -> None:
    async with opened(path) as history:
        for number in range(numbers):
            await history.write(batch(number, devices))
            await history.flush()


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0.001)


async def salvaged(history: History) -> None:
    """Whatever is to be taken over, is."""
    await until(lambda: history._suspicion is None and history._store is not None and not history._store.salvaging)


async def found(history: History) -> list[Row]:
    answer, _ = await history.query(start=0, end=1 << 62, limit=1_000_000)
    return sorted(answer)


def suspect(history: History) -> None:
    history._suspicion = apsw.CorruptError("said by the test")
    history._wake.set()


def roots(path: Path) -> dict[str, int]:
    connection = apsw.Connection(str(path), flags=apsw.SQLITE_OPEN_READONLY)
    try:
        return dict(connection.execute("SELECT name, rootpage FROM sqlite_schema").fetchall())
    finally:
        connection.close()


def destroy(path: Path, page: int) -> None:
    with path.open("r+b") as file:
        file.seek(PAGE * (page - 1))
        file.write(random.Random(page).randbytes(PAGE))


@pytest.fixture
def slowly(monkeypatch: pytest.MonkeyPatch) -> None:
    """Chunks are taken over one at a time."""
    monkeypatch.setattr("gateway.history.salvage.STEP", 1)


async def test_an_earlier_files_errors_are_not_the_new_ones(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A query that ran while the file was made anew, and fails, does not have the new file made anew as well."""
    await fill(tmp_path / "history.db", 2)
    release = threading.Event()
    real = history_module.run_query
    calls: list[apsw.Connection] = []

    def run_query(connection: apsw.Connection, *rest: Any) -> Any:
        calls.append(connection)
        if len(calls) == 1:
            release.wait(10)
            raise apsw.CorruptError("database disk image is malformed")
        return real(connection, *rest)

    monkeypatch.setattr(history_module, "run_query", run_query)
    async with opened(tmp_path / "history.db") as history:
        late = asyncio.create_task(found(history))
        await until(lambda: bool(calls))
        suspect(history)
        await until(lambda: history.stats()["rescued"] == 1)
        await asyncio.sleep(0.2)
        release.set()
        with pytest.raises(HistoryError):
            await late
        await salvaged(history)
        for _ in range(5):
            assert await found(history) == truth(2)
        assert history.stats()["rescued"] == 1
        assert calls[0] not in calls[1:]


@pytest.mark.usefixtures("slowly")
async def test_names_are_kept_for_chunks_to_come(tmp_path: Path) -> None:
    """The retention takes no name that a chunk has which is still to be taken over."""
    path = tmp_path / "history.db"
    await fill(path, 40)
    destroy(path, roots(path)["latest"])
    async with opened(path) as history:
        suspect(history)
        await until(lambda: history._suspicion is None)
        assert history.stats()["chunks_salvaged"] < 40
    async with opened(path) as history:
        await salvaged(history)
        assert await found(history) == truth(40)
        assert history.stats()["chunks_left_out"] == 0


async def test_a_lost_newest_row_costs_no_name(tmp_path: Path) -> None:
    """The retention leaves the name of a device whose newest row was damaged, and that has only shared chunks."""
    path = tmp_path / "history.db"
    await fill(path, 3)
    connection = apsw.Connection(str(path))
    connection.execute("UPDATE latest SET device = device + 64")
    connection.close()
    for _ in range(2):
        async with opened(path) as history:
            await asyncio.sleep(0.1)  # the retention looks at everything once at the start
            assert await found(history) == truth(3)
            assert all(device != "few" or value == 2 for device, _, _, _, value in await history.latest())


@pytest.mark.usefixtures("slowly")
async def test_a_wrong_clock_deletes_nothing_from_a_new_file(tmp_path: Path) -> None:
    """What is taken over is not expired at once by a clock that is far ahead, as it would not be in the old file."""
    path = tmp_path / "history.db"
    await fill(path, 40)
    destroy(path, roots(path)["state"])
    async with opened(path, lambda: now() + 400 * DAY_S) as history:
        await salvaged(history)
        await until(lambda: history._age.behind > 0)
        await asyncio.sleep(0.05)
        assert await found(history) == truth(40)
        assert history.stats()["chunks_expired"] == 0


class Killed(BaseException):
    pass


@pytest.mark.parametrize("at", [1, 2, 3, 4])
async def test_a_kill_while_the_files_are_swapped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at: int) -> None:
    """Before whatever rename the process is killed: the next start finds everything once, also what was in the log."""
    path = tmp_path / "history.db"
    await fill(path, 3)
    async with opened(path) as history:
        await history.write(batch(3))
        await history.flush()
        kept = {each.name: each.read_bytes() for each in tmp_path.iterdir()}
    for name, content in kept.items():
        (tmp_path / name).write_bytes(content)
    store = Store(path, epoch=EPOCH, span=0)
    real, renames = Path.rename, 0

    def rename(source: Path, target: Path) -> Path:
        nonlocal renames
        renames += 1
        if renames == at:
            raise Killed
        return real(source, target)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "rename", rename)
        with pytest.raises(Killed):
            rescue(path, store, span=0)
    async with opened(path) as history:
        await salvaged(history)
        assert history.position == 3 * 10_000 + ROWS + 2
        assert await found(history) == truth(4)
        assert [problem for problem in history.problems() if "kept as history.db.damaged-" in problem] == (
            history.problems() if at > 1 else []
        )
        assert len(history.problems()) == (at > 1)
    assert not list(tmp_path.glob("*.new*"))
    async with opened(path) as history:
        assert await found(history) == truth(4)
        assert history._store is not None
        assert history._store._connection.execute("PRAGMA integrity_check").get == "ok"
    store.close()


@pytest.mark.usefixtures("slowly")
@pytest.mark.parametrize("times", [2, 4])
async def test_a_file_is_made_anew_again_before_all_was_taken_over(tmp_path: Path, times: int) -> None:
    """What the second damaged file still had to take over from the first is taken over by the third, and so on."""
    path = tmp_path / "history.db"
    await fill(path, 40)
    async with opened(path) as history:
        for number in range(times):
            suspect(history)
            await until(lambda number=number: history.stats()["rescued"] == number + 1 and history._suspicion is None)  # type: ignore[misc]
        await salvaged(history)
        assert await found(history) == truth(40)
        assert history.stats()["chunks_left_out"] == 0


async def test_a_full_disk_is_called_that(tmp_path: Path) -> None:
    """A flush that finds the disk full says so, and what can be done about it."""
    async with opened(tmp_path / "history.db") as history:
        assert history._store is not None
        history._store._connection.pragma("max_page_count", 20)
        await history.write(batch(0, 100))
        with pytest.raises(HistoryError, match="full") as caught:
            await history.flush()
        assert "free space" in caught.value.hint
        history._store._connection.pragma("max_page_count", 1 << 30)


@pytest.mark.parametrize("where", ["open", "rename"])
async def test_making_anew_is_tried_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str) -> None:
    """Where the new file cannot be put in its place, or opened there, that is tried again, and nothing is lost."""
    monkeypatch.setattr(history_module, "RETRY_S", (0.01, 0.02))
    path = tmp_path / "history.db"
    await fill(path, 5)
    failures = 0
    make, move = Store.__init__, Path.rename

    def __init__(self: Store, at: Path, **rest: Any) -> None:
        nonlocal failures
        if at == path and failures < 3:
            failures += 1
            raise apsw.FullError("database or disk is full")
        make(self, at, **rest)

    def rename(source: Path, target: Path) -> Path:
        nonlocal failures
        if target == path and failures < 3:
            failures += 1
            raise OSError(28, "No space left on device")
        return move(source, target)

    async with opened(path) as history:
        if where == "open":
            monkeypatch.setattr(Store, "__init__", __init__)
        else:
            monkeypatch.setattr(Path, "rename", rename)
        suspect(history)
        await until(lambda: history._suspicion is None or history._broken)
        assert failures == 3
        await salvaged(history)
        assert history._failure is None
        assert await found(history) == truth(5)
        await history.write(batch(5))
        await history.flush()
        assert await found(history) == truth(6)


class _File(apsw.VFSFile):
    """A file some pages of which the disk cannot read."""

    def __init__(self, name: Any, flags: list[int]) -> None:
        super().__init__("unix", name, flags)
        path = name.filename() if isinstance(name, apsw.URIFilename) else name
        self._inode = os.stat(path).st_ino if path else 0

    def xRead(self, amount: int, offset: int) -> bytes:
        if any((number - 1) * PAGE <= offset < number * PAGE for number in UNREADABLE.get(self._inode, ())):
            error = apsw.IOError("disk I/O error")
            error.extendedresult = apsw.SQLITE_IOERR_READ
            raise error
        return super().xRead(amount, offset)

    def xLock(self, level: int) -> None:
        try:
            super().xLock(level)
        except apsw.IOError as error:  # of a file opened for reading, which SQLite takes as it is
            raise apsw.BusyError("locked") from error


class _Disk(apsw.VFS):
    def __init__(self) -> None:
        super().__init__("sick", "unix")

    def xOpen(self, name: Any, flags: list[int]) -> _File:
        return _File(name, flags)


UNREADABLE: dict[int, set[int]] = {}  # pages by inode


@pytest.fixture
def sick_disk() -> Iterator[dict[int, set[int]]]:
    before = apsw.vfs_names()[0]
    disk = _Disk()
    apsw.set_default_vfs("sick")
    try:
        yield UNREADABLE
    finally:
        apsw.set_default_vfs(before)
        disk.unregister()
        UNREADABLE.clear()


@pytest.mark.parametrize("table", ["state", "device", "chunk_time", "latest", "sqlite_autoindex_device_1"])
async def test_a_page_that_the_disk_cannot_read_is_damage(
    tmp_path: Path, sick_disk: dict[int, set[int]], table: str
) -> None:
    """The history starts and is made anew where the disk cannot read a page of its file."""
    path = tmp_path / "history.db"
    await fill(path, 5)
    sick_disk[path.stat().st_ino] = {roots(path)[table]}
    async with opened(path) as history:
        at_start = history.stats()["rescued"] == 1
        assert at_start == (not table.startswith("sqlite"))
        if not at_start:
            await history.write(batch(5))
            with pytest.raises(HistoryError):
                await history.flush()
        await salvaged(history)
        await history.flush()
        assert history.stats()["rescued"] == 1
        if table != "device":
            assert await found(history) == truth(5 if at_start else 6)


def leaves(path: Path, table: str) -> list[tuple[int, int]]:
    """Number and rows of each leaf of a table, in order (https://sqlite.org/fileformat2.html#b_tree_pages)."""
    data = path.read_bytes()

    def below(page: int) -> list[tuple[int, int]]:
        at = (page - 1) * PAGE
        count = int.from_bytes(data[at + 3 : at + 5], "big")
        if data[at] == 13:
            return [(page, count)]
        cells = [at + int.from_bytes(data[at + 12 + 2 * n : at + 14 + 2 * n], "big") for n in range(count)]
        children = [int.from_bytes(data[cell : cell + 4], "big") for cell in cells]
        return [leaf for child in [*children, int.from_bytes(data[at + 8 : at + 12], "big")] for leaf in below(child)]

    return below(roots(path)[table])


@pytest.mark.parametrize("gone", [slice(-1, None), slice(0, 1), slice(3, 4), slice(3, 12), slice(3, None, 2)])
@pytest.mark.parametrize("index", [True, False])
async def test_pages_cost_the_chunks_on_them_alone(tmp_path: Path, gone: slice, index: bool) -> None:
    """All chunks are taken over but those on damaged pages, and these are counted where an index names them."""
    path = tmp_path / "history.db"
    await fill(path, 12, 20)
    pages = leaves(path, "chunk")
    assert len(pages) > 20
    lost = sum(rows for _, rows in pages[gone])
    for page, _ in pages[gone]:
        destroy(path, page)
    if not index:
        destroy(path, roots(path)["chunk_kept"])
        destroy(path, roots(path)["chunk_time"])
    destroy(path, roots(path)["state"])
    async with opened(path) as history:
        await salvaged(history)
        stats = history.stats()
        answer = await found(history)
        assert len(answer) == 12 * 2 + (12 * 20 - lost) * ROWS
        assert set(answer) <= set(truth(12, 20))
        assert len(set(answer)) == len(answer)
        if index:
            assert stats["chunks_left_out"] == lost
        assert stats["chunks_left_out"] >= (1 if pages[-1] in pages[gone] else lost)
        assert any("cannot be read" in problem for problem in history.problems())


@pytest.mark.parametrize("kind", ["page", "rows"])
async def test_the_place_in_the_journal_is_kept_twice(tmp_path: Path, kind: str) -> None:
    """Where the place in the journal is damaged its copy counts: nothing comes again from the journal."""
    path = tmp_path / "history.db"
    await fill(path, 5)
    if kind == "page":
        destroy(path, roots(path)["state"])
    else:
        connection = apsw.Connection(str(path))
        connection.execute("UPDATE state SET position = position - 1")
        connection.close()
    async with opened(path) as history:
        assert history.position == 4 * 10_000 + ROWS + 2
        for number in range(5):
            await history.write(batch(number))
        await salvaged(history)
        await history.flush()
        assert await found(history) == truth(5)


async def test_an_empty_history_has_lost_nothing(tmp_path: Path) -> None:
    """A history that was started and stopped, and has never held anything, says so: no problem, and its place."""
    path = tmp_path / "history.db"
    for _ in range(3):
        async with opened(path) as history:
            assert (history.position, history.end, history.problems()) == (0, 0, [])
    async with opened(path) as history:
        assert await found(history) == []
        assert history.stats()["rescued"] == 0
