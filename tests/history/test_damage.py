"""Files that are damaged, removed, or of an older layout."""

from __future__ import annotations

import asyncio
import random
import shutil
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import apsw
import pytest

from gateway.errors import HistoryError
from gateway.history import History
from gateway.history.collector import Row
from gateway.reading import Batch, Reading

FIXTURE = Path(__file__).parent / "fixtures" / "history-1.db"
EPOCH = "00112233445566778899aabbccddeeff"
START = 1_764_000_000_000_000_000
SECOND = 1_000_000_000


def readings() -> list[Any]:
    """What the fixture holds."""
    items = [
        Reading(
            "pump-1", "s", n + 1, START + n * SECOND, START + n * SECOND, {"temperature": 20 + n / 10, "on": n % 2 == 0}
        )
        for n in range(100)
    ]
    return items + [
        Reading(
            f"door-{n % 4}", "s", n + 1, START + n * SECOND, START + n * SECOND, {"open": n % 2 == 0, "state": f"x{n}"}
        )
        for n in range(12)
    ]


def rows(items: list[Any]) -> set[Row]:
    return {(item.time, item.device, metric, value) for item in items for metric, value in item.values.items()}


TRUTH = rows(readings())


@asynccontextmanager
async def opened(path: Path, epoch: str = EPOCH) -> AsyncIterator[History]:
    history = History(path, retention_days=30, clock=lambda: START / 1e9 + 3600)
    await history.open(epoch)
    try:
        yield history
    finally:
        await history.close()


async def salvaged(history: History) -> None:
    """Whatever is to be taken over, is."""
    for _ in range(5000):
        store = history._store
        if history._suspicion is None and (store is None or not store.salvaging):
            return
        await asyncio.sleep(0.002)
    raise TimeoutError


async def flushed(history: History) -> None:
    """All is in the file; the first tries may find that it is damaged."""
    for _ in range(3):
        try:
            await history.flush()
        except HistoryError:
            await salvaged(history)


async def found(history: History) -> list[Row]:
    answer, _ = await history.query(start=0, end=1 << 62)
    return answer


async def test_layout_1_is_migrated_after_a_copy(tmp_path: Path) -> None:
    """A file of the first layout gives what it held, is written to, and is kept as it was."""
    path = tmp_path / "history.db"
    shutil.copy(FIXTURE, path)
    for start in range(2):
        async with opened(path) as history:
            assert history.position == 1112 + start
            assert set(await found(history)) >= TRUTH
            newest = {(device, metric): value for device, metric, _, _, value in await history.latest()}
            assert newest["door-3", "state"] == "x11"
            await history.write(Batch(1112 + start, [Reading("new", "s", 1, START, START, {"n": start})], 1))
            assert history.problems() == []
    (copy,) = tmp_path.glob("history.db.v1-*")
    connection = apsw.Connection(str(copy), flags=apsw.SQLITE_OPEN_READONLY)
    assert connection.pragma("user_version") == 1
    assert connection.execute("SELECT count(*) FROM chunk").get == 1
    connection.close()


async def test_layout_2_is_read(tmp_path: Path) -> None:
    """A file that was written when the layout was new gives what it held."""
    path = tmp_path / "history.db"
    shutil.copy(FIXTURE.with_name("history-2.db"), path)
    async with opened(path) as history:
        assert (set(await found(history)), history.position, history.problems()) == (TRUTH, 1112, [])
    (copy,) = tmp_path.glob("history.db.v2-*")
    connection = apsw.Connection(str(copy), flags=apsw.SQLITE_OPEN_READONLY)
    assert connection.pragma("user_version") == 2
    connection.close()


async def test_layout_3_is_read(tmp_path: Path) -> None:
    """A file that was written when the layout was new gives what it held, also from its rollups."""
    path = tmp_path / "history.db"
    shutil.copy(FIXTURE.with_name("history-3.db"), path)
    async with opened(path) as history:
        assert (set(await found(history)), history.position, history.problems()) == (TRUTH, 1112, [])
        counts, _ = await history.query(start=0, end=1 << 62, step=3600 * 10**9, agg="count")
        assert sum(row[3] for row in counts) == len(TRUTH)  # type: ignore[misc]
        assert history.problems() == []
    assert [entry.name for entry in tmp_path.iterdir()] == ["history.db"]


async def test_of_a_big_file_all_but_the_chunks_is_copied(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where a copy of the whole would be too big it has the tables that are changed."""
    monkeypatch.setattr("gateway.history.schema.COPIED_WHOLE", 0)
    path = tmp_path / "history.db"
    shutil.copy(FIXTURE, path)
    async with opened(path) as history:
        assert set(await found(history)) == TRUTH
    (copy,) = tmp_path.glob("history.db.v1-*")
    connection = apsw.Connection(str(copy), flags=apsw.SQLITE_OPEN_READONLY)
    assert connection.execute("SELECT position FROM state").get == 1112
    assert [name for (name,) in connection.execute("SELECT name FROM sqlite_schema ORDER BY 1")] == [
        "device", "latest", "shape", "state",
    ]  # fmt: skip
    connection.close()


def batches() -> list[Batch]:
    """What is written to the file, and held by the journal still."""
    return [
        Batch(
            base,
            [
                Reading(item.device, "s", item.seq, item.time + base, item.received + base, item.values)
                for item in items
            ],
            len(items),
        )
        for base, items in ((0, readings()), (200, readings()[100:]), (300, readings()[:100]))
    ]


async def make(path: Path) -> bytes:
    """A file of today's layout, of all kinds of chunks."""
    async with opened(path) as history:
        for batch in batches():
            await history.write(batch)
            await history.flush()
    return path.read_bytes()


def made() -> set[Row]:
    return {row for batch in batches() for row in rows(batch.items)}


CHUNKS = 4  # two of pump-1, and one of each flush that the others share


def may_cost(path: Path) -> dict[int, set[Row]]:
    """What may be lost with each page of the file, which are few: those of the schema and of names cost all."""
    connection = apsw.Connection(str(path), flags=apsw.SQLITE_OPEN_READONLY)
    pages = dict(connection.execute("SELECT rootpage, name FROM sqlite_schema").fetchall())
    count = connection.pragma("page_count")
    assert connection.execute("SELECT (SELECT count(*) FROM chunk) + (SELECT count(*) FROM shared)").get == CHUNKS
    connection.close()
    assert len(pages) == len(set(pages.values()))
    assert set(pages) == set(range(3, count + 1))  # the second is SQLite's map of all others
    own = {row for row in made() if row[1] == "pump-1"}
    lost = {"chunk": own, "shared": made() - own, "device": made(), "shape": made()}
    return {1: made(), 2: set()} | {page: lost.get(name, set()) for page, name in pages.items()}


async def check(path: Path, cost: set[Row]) -> bool:
    """Start, and start again; the journal still holds all.

    All that is answered is true, and there once; new readings are taken; of what was written nothing is lost but what
    is in ``cost``, and that is told.  Returns whether all is there.
    """
    truth, extra = made(), (START, "extra", "n", 7)
    for start in range(2):
        async with opened(path) as history:
            await salvaged(history)
            if start == 0:
                assert history.end in (400, 0)  # where it was left, or all again from the journal
                for batch in batches():
                    await history.write(batch)
                await history.write(Batch(400, [Reading("extra", "s", 1, START, START, {"n": 7})], 1))
                await flushed(history)
            try:
                answer = await found(history)
            except HistoryError:
                await salvaged(history)
                answer = await found(history)
            await salvaged(history)
            assert len(set(answer)) == len(answer)
            assert set(answer) <= truth | {extra}
            assert set(answer) >= truth - cost | {extra}
            for device, metric, time, _, value in await history.latest():
                assert (time, device, metric, value) in truth | {extra}
            stats, problems = history.stats(), history.problems()
            whole = len(answer) == len(truth) + 1
            if start == 0 and not whole:
                assert any("cannot be read" in problem for problem in problems), (
                    problems,
                    stats,
                    len(answer),
                    path.parent.name,
                )
            if stats["chunks_salvaged"]:
                # Of shared chunks no index says how many were on a page that cannot be read.
                uncounted = CHUNKS - stats["chunks_salvaged"] - stats["chunks_left_out"]
                assert uncounted <= (1 if stats["chunks_left_out"] else 0)
            assert stats["rescued"] == sum("made anew" in problem for problem in problems)
    return whole


async def test_no_flipped_bit_gives_a_wrong_value(tmp_path: Path) -> None:
    """Whatever bit is flipped, the file is opened, what it answers was written, and all other pages' rows are there."""
    rng = random.Random(11)
    whole = await make(tmp_path / "whole.db")
    cost = may_cost(tmp_path / "whole.db")
    places = [*range(0, 100, 7), *rng.sample(range(100, len(whole)), 110)]
    left = []
    for number, at in enumerate(places):
        directory = tmp_path / str(number)
        directory.mkdir()
        data = bytearray(whole)
        data[at] ^= 1 << rng.randrange(8)
        (directory / "history.db").write_bytes(data)
        left.append(await check(directory / "history.db", cost[at // 4096 + 1]))
        shutil.rmtree(directory)
    assert sum(left) > len(places) // 2


@pytest.mark.parametrize(
    "change",
    [
        "UPDATE latest SET row = CAST(substr(row, 1, length(row) - 1) || x'7b' AS BLOB)",
        "UPDATE latest SET received = received + 1, time = time + 1",
        "UPDATE latest SET device = device + 64",
        "UPDATE chunk SET device = (SELECT id FROM device WHERE name = 'door-1')",
        "UPDATE chunk SET shape = 3 - shape",
        "UPDATE chunk SET kept = kept + 1",
        "UPDATE shared SET shape = 3 - shape",
        "UPDATE shared SET first = first - 1",
        "UPDATE device SET name = 'pump-9' WHERE name = 'pump-1'",
        "UPDATE shape SET metrics = CAST(substr(metrics, 1, length(metrics) - 1) || 'f' AS BLOB)",
        "UPDATE state SET position = position + 1 WHERE id = 1",
        "UPDATE state SET position = position + 1",
        "UPDATE place SET position = position + 1",
    ],
)
async def test_a_row_that_is_not_what_was_written_is_not_believed(tmp_path: Path, change: str) -> None:
    """A value, a time, a device, a metric or a place that was changed behind our back is never answered."""
    path = tmp_path / "history.db"
    await make(path)
    connection = apsw.Connection(str(path))
    connection.execute(change)
    assert connection.changes()
    connection.close()
    named = "device" in change.split()[1] or "shape" in change.split()[1]
    own = {row for row in made() if row[1] == "pump-1"}
    await check(path, made() if named else own if "chunk" in change else made() - own if "shared" in change else set())


async def test_no_cut_gives_a_wrong_value(tmp_path: Path) -> None:
    """Wherever the file is cut off, and whatever page of it is overwritten, what is answered was written."""
    rng = random.Random(12)
    whole = await make(tmp_path / "whole.db")
    cost = may_cost(tmp_path / "whole.db")
    pages = range(0, len(whole), 4096)
    for number, at in enumerate([*pages, *rng.sample(range(len(whole)), 8)]):
        one = cost[at // 4096 + 1] if at % 4096 == 0 else made()
        for damaged, lost in (
            (whole[:at], made()),
            (whole[:at] + rng.randbytes(4096) + whole[at + 4096 :], one),
        ):
            directory = tmp_path / f"{number}"
            directory.mkdir()
            (directory / "history.db").write_bytes(damaged)
            await check(directory / "history.db", lost)
            shutil.rmtree(directory)


@pytest.mark.parametrize("running", [False, True])
async def test_what_can_be_read_is_taken_over(tmp_path: Path, running: bool) -> None:
    """From a file whose index is destroyed the chunks are taken over, with names and the place in the journal."""
    path = tmp_path / "history.db"
    await make(path)
    connection = apsw.Connection(str(path))
    page = connection.execute("SELECT rootpage FROM sqlite_schema WHERE name = 'chunk_time'").get
    connection.close()

    def destroy() -> None:
        with path.open("r+b") as file:
            file.seek(4096 * (page - 1))
            file.write(bytes(4096))

    if not running:
        destroy()
    async with opened(path) as history:
        position = 400
        assert history.position == position
        if running:
            destroy()
            with pytest.raises(HistoryError):
                await found(history)
        await salvaged(history)
        assert set(await found(history)) == made()
        assert (history.position, history.stats()["rescued"]) == (position, 1)
        assert "made anew" in history.problems()[0]
    (aside,) = tmp_path.glob("history.db.damaged-*Z")
    assert aside.name in history.problems()[0]
    async with opened(path) as history:
        assert set(await found(history)) == made()
        assert (history.position, history.problems()) == (position, [])


async def test_no_damage_to_the_log_gives_a_wrong_value(tmp_path: Path) -> None:
    """A crash leaves SQLite's write-ahead log: flipped, cut or gone it costs what was in it, and nothing else."""
    rng = random.Random(13)
    live = tmp_path / "live"
    live.mkdir()
    async with opened(live / "history.db") as history:
        items = readings()
        for base in range(0, 100, 20):
            await history.write(Batch(base, items[base : base + 20], 20))
            await history.flush()
        crashed = {path.name: path.read_bytes() for path in live.iterdir() if not path.name.endswith("-shm")}
    log = crashed["history.db-wal"]
    assert len(log) > 20_000
    full = 0
    for number in range(40):
        directory = tmp_path / str(number)
        directory.mkdir()
        at = rng.randrange(len(log))
        damaged = log[:at] if number % 2 else log[:at] + bytes([log[at] ^ 1 << number % 8]) + log[at + 1 :]
        (directory / "history.db").write_bytes(crashed["history.db"])
        if number:
            (directory / "history.db-wal").write_bytes(damaged)
        async with opened(directory / "history.db") as history:
            await salvaged(history)
            position = history.position
            answer = await found(history)
            assert set(answer) == rows(items[:position])  # what is behind comes again from the journal
            assert len(set(answer)) == len(answer)
            full += position == 100
        shutil.rmtree(directory)
    assert full < 40


def rubbish(path: Path) -> None:
    path.write_bytes(b"rubbish " * 1000)


def another(path: Path) -> None:
    path.unlink()
    connection = apsw.Connection(str(path))
    connection.execute("CREATE TABLE other (x)")
    connection.close()


def directory(path: Path) -> None:
    path.unlink()
    path.mkdir()


@pytest.mark.parametrize("hurt", [rubbish, another, directory])
async def test_what_is_no_history_is_set_aside(tmp_path: Path, hurt: Callable[[Path], None]) -> None:
    """Whatever has the file's name and is none is kept under another, and a new file begins."""
    path = tmp_path / "history.db"
    await make(path)
    hurt(path)
    async with opened(path) as history:
        await salvaged(history)
        assert (await found(history), history.position) == ([], 0)
        assert len(history.problems()) == 1
    assert len(list(tmp_path.glob("history.db.damaged-*Z"))) == 1


@pytest.mark.parametrize("instead", [None, b"", b"another"])
async def test_a_file_removed_while_it_is_open_is_made_again(tmp_path: Path, instead: bytes | None) -> None:
    """What was written before the file was removed, or replaced, and after, is in the file of its name."""
    path = tmp_path / "history.db"
    items = readings()
    async with opened(path) as history:
        await history.write(Batch(1000, items[:50], 50))
        await history.flush()
        for name in ("history.db", "history.db-wal", "history.db-shm"):
            (tmp_path / name).unlink()
        if instead is not None:
            path.write_bytes(instead)
        await history.write(Batch(1050, items[50:], len(items) - 50))
        with pytest.raises(HistoryError, match="removed or replaced"):
            await history.flush()
        await salvaged(history)
        await history.flush()
        assert set(await found(history)) == TRUTH
    async with opened(path) as history:
        assert set(await found(history)) == TRUTH
        assert history.position == 1112
    assert len(list(tmp_path.glob("history.db.foreign-*Z"))) == (instead is not None)
