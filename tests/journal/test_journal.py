"""Appending, group commit, and the bounds."""

from __future__ import annotations

import asyncio
import errno
import os
import re
import threading
from pathlib import Path
from typing import Any

import pytest

from gateway.errors import JournalError, Overloaded
from gateway.journal import Cursor, Journal, writer
from gateway.journal.recovery import JUMP
from gateway.reading import Item, Mark, Reading

from .support import Ear, copy, failing, fill, held, mixed, opened, reading, segments, size, until

FULL = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
BROKEN = OSError(errno.EIO, os.strerror(errno.EIO))


# -- group commit ------------------------------------------------------------------------------------------------------


async def test_offsets_are_consecutive_and_known_at_once(tmp_path: Path) -> None:
    """Each append gives the next offset; it is durable when the group was committed."""
    async with opened(tmp_path) as journal:
        first = journal.next_offset
        assert [journal.append(mixed(number)) for number in range(5)] == list(range(first, first + 5))
        assert (journal.next_offset, journal.durable_offset, journal.stored) == (first + 5, first, 0)
        await journal.flush()
        assert (journal.durable_offset, journal.stored) == (first + 5, 4)


async def test_a_group_is_one_record_and_one_word_to_each_waiter(tmp_path: Path) -> None:
    """All that was appended in a group's time is one record; each waiter hears its last token, once."""
    ears = [Ear() for _ in range(3)]
    async with opened(tmp_path, commit_ms=1) as journal:
        for number in range(30):
            journal.append(reading(number), ears[number % 3], ("token", number))
        await journal.flush()
        assert [ear.tokens for ear in ears] == [[("token", 27)], [("token", 28)], [("token", 29)]]
        assert journal.stats()["records"] == 1
        journal.append(reading(30), ears[0], "next")
        await journal.flush()
        assert ears[0].tokens[1:] == ["next"]


async def test_commits_come_by_themselves(tmp_path: Path) -> None:
    """Nobody needs to flush: a group is committed ``commit_ms`` after its first append."""
    ear = Ear()
    async with opened(tmp_path, commit_ms=20) as journal:
        journal.append(reading(1), ear, 1)
        await asyncio.sleep(0)
        journal.append(reading(2), ear, 2)
        await until(lambda: ear.tokens)
        assert ear.tokens == [2]
        assert 20 <= journal.stats()["ack_ms_p50"] < 5000


async def test_a_group_gathers_while_the_one_before_is_written(tmp_path: Path) -> None:
    """While the disk is busy appends go on, and what gathered is one group behind it."""
    ear = Ear()
    gate = threading.Event()
    real = os.fdatasync

    def slow(fd: int) -> None:
        gate.wait(10)
        real(fd)

    async with opened(tmp_path) as journal:
        os.fdatasync = slow
        try:
            journal.append(reading(0), ear, 0)
            await asyncio.sleep(0.02)
            for number in range(1, 6):
                journal.append(reading(number), ear, number)
                await asyncio.sleep(0.002)
            assert ear.tokens == []
            assert journal.durable_offset == journal.next_offset - 6
            gate.set()
            await journal.flush()
        finally:
            gate.set()
            os.fdatasync = real
        assert ear.tokens == [0, 5]


async def test_a_waiter_that_fails_harms_no_other(tmp_path: Path) -> None:
    """When a waiter raises, the loop is told and the others hear what is theirs."""

    class Broken:
        def committed(self, token: object) -> None:
            raise ZeroDivisionError

    errors: list[object] = []
    asyncio.get_running_loop().set_exception_handler(lambda loop, context: errors.append(context["exception"]))
    one, two = Ear(), Ear()
    async with opened(tmp_path) as journal:
        journal.append(reading(1), one, 1)
        journal.append(reading(2), Broken(), 2)
        journal.append(reading(3), two, 3)
        await journal.flush()
        await until(lambda: two.tokens)
        assert (one.tokens, two.tokens) == ([1], [3])
        assert [type(error) for error in errors] == [ZeroDivisionError]
        await fill(journal, [reading(4)])


async def test_a_waiter_may_append(tmp_path: Path) -> None:
    """An append out of a commit's word goes into the next group."""
    async with opened(tmp_path) as journal:

        class Answering:
            count = 0

            def committed(self, token: object) -> None:
                self.count += 1
                if self.count < 5:
                    journal.append(reading(self.count), self, 0)

        waiter = Answering()
        journal.append(reading(0), waiter, 0)
        await until(lambda: waiter.count == 5)
        assert journal.stored == 5


async def test_a_large_group_is_several_records(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A group beyond a record's bounds, by items or by bytes, is split; the waiters hear once, at the end."""
    monkeypatch.setattr(writer, "RECORD_ITEMS", 50)
    monkeypatch.setattr(writer, "RECORD_BYTES", 10_000)
    items: list[Item] = [reading(number) for number in range(120)]
    items += [reading(number, text="x" * 1000) for number in range(30)]
    items += [reading(number, **{f"t{n}": "y" * 1000 for n in range(20)}) for number in range(3)]
    ear = Ear()
    async with opened(tmp_path) as journal:
        offsets = [journal.append(item, ear, number) for number, item in enumerate(items)]
        await journal.flush()
        assert ear.tokens == [len(items) - 1]
        stats = journal.stats()
        assert stats["commits"] == 1
        assert stats["records"] >= 3 + 3 + 3
        assert await held(journal) == list(zip(offsets, items, strict=True))
    async with opened(tmp_path) as journal:
        assert await held(journal) == list(zip(offsets, items, strict=True))
        assert journal.stored == len(items)


async def test_an_item_that_cannot_be_encoded_stops_no_other(tmp_path: Path) -> None:
    """A value that slipped through every check is replaced by a mark, at its offset, and counted."""
    bad = [Reading("pump-1", "boot", 7, 1, 1, {"x": value}) for value in (2**70, "\ud800", object())]  # type: ignore[dict-item]
    async with opened(tmp_path) as journal:
        offsets = [journal.append(item) for item in [reading(1), *bad, reading(2)]]
        await journal.flush()
        mark = Mark("pump-1", "boot", 7)
        assert await held(journal) == list(zip(offsets, [reading(1), mark, mark, mark, reading(2)], strict=True))
        assert journal.stored == 2
        assert journal.stats()["unencodable"] == 3


async def test_the_hot_path_is_short(tmp_path: Path) -> None:
    """An append does nothing but remember: a hundred thousand of them need no more than a few microseconds each."""
    import time

    ears = [Ear() for _ in range(200)]
    item = reading(1)
    async with opened(tmp_path, commit_ms=60_000, max_pending=200_000) as journal:
        started = time.process_time()
        for number in range(100_000):
            journal.append(item, ears[number % 200], number)
        assert time.process_time() - started < 0.5
        await journal.flush()
        assert [len(ear.tokens) for ear in ears] == [1] * 200


# -- bounds ------------------------------------------------------------------------------------------------------------


async def test_too_much_pending_is_refused(tmp_path: Path) -> None:
    """At ``max_pending`` items, in flight or not, appends are refused; then there is room again."""
    async with opened(tmp_path, commit_ms=60_000, max_pending=10) as journal:
        offsets = [journal.append(reading(number)) for number in range(10)]
        for _ in range(2):
            with pytest.raises(Overloaded) as caught:
                journal.append(reading(10))
        assert caught.value.retry_after_ms == 250
        assert journal.next_offset == offsets[-1] + 1
        task = asyncio.create_task(journal.flush())
        await asyncio.sleep(0)
        with pytest.raises(Overloaded):
            journal.append(reading(10))
        await task
        assert journal.append(reading(10)) == offsets[-1] + 1
        assert journal.stats()["refused"] == 3
    with pytest.raises(ValueError, match="max_pending"):
        Journal(tmp_path, max_pending=JUMP + 1)


async def test_large_items_lower_the_bound(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is pending is bounded in bytes as well, judged by the size of the items before."""
    monkeypatch.setattr("gateway.journal.journal.PENDING_BYTES", 100_000)
    async with opened(tmp_path, commit_ms=60_000) as journal:
        await fill(journal, [reading(number, text="x" * 1000) for number in range(10)], group=10)
        item = reading(1, text="x" * 1000)
        for _ in range(80):
            journal.append(item)
        with pytest.raises(Overloaded):
            [journal.append(item) for _ in range(21)]


async def test_a_full_journal_refuses_until_cursors_move(tmp_path: Path) -> None:
    """``refuse``: at ``max_bytes`` nothing more is taken, nothing is lost, and room comes back with the cursors."""
    async with opened(tmp_path, max_bytes=1 << 20, segment_bytes=1) as journal:
        cursor = journal.cursor("sink")
        offsets: list[int] = []
        while not journal.reason:
            offsets += await fill(journal, [reading(number, text="x" * 900) for number in range(50)], group=50)
        with pytest.raises(Overloaded) as caught:
            journal.append(reading(0))
        assert caught.value.retry_after_ms == 1000
        assert "bound of 1 MiB (GATEWAY_JOURNAL__MAX_BYTES)" in journal.reason
        assert journal.stats()["failing"] == 1
        assert (1 << 20) <= size(tmp_path) < (1 << 20) + 60_000
        offset = cursor.position.offset
        for _ in range(3):
            batch = await cursor.read(offset, max_readings=100, max_delay=0)
            offset = batch.end
            cursor.confirm(offset)
        await journal._store_last()
        assert journal.reason == ""
        offsets += await fill(journal, [reading(1)])
        count = 0
        while not cursor.is_drained(offset):
            batch = await cursor.read(offset, max_delay=0)
            count += batch.readings
            offset = batch.end
            cursor.confirm(offset)
        assert count + 300 == len(offsets)
        assert (cursor.pending, cursor.overflowed, cursor.lost) == (0, 0, 0)


async def test_a_full_journal_drops_the_oldest(tmp_path: Path) -> None:
    """``drop_oldest``: whole segments go; each cursor counts what it had not confirmed, and the sums stay right."""
    async with opened(tmp_path, max_bytes=1 << 20, segment_bytes=1, on_full="drop_oldest", ring_bytes=1) as journal:
        quick, slow = journal.cursor("quick"), journal.cursor("slow")
        place = 0
        for _ in range(100):
            await fill(journal, [reading(number, text="x" * 900) for number in range(50)], group=50)
            batch = await quick.read(place, max_delay=0)
            place = batch.end
            quick.confirm(place)
            assert size(tmp_path) < (1 << 20) + 200_000
        assert journal.stored == 5000
        assert (quick.overflowed, quick.pending) == (0, 0)
        assert slow.overflowed > 3000
        assert slow.position.offset == journal.oldest_offset
        delivered = 0
        place = slow.position.offset
        while not slow.is_drained(place):
            batch = await slow.read(place, max_delay=0)
            delivered += batch.readings
            place = batch.end
            slow.confirm(place)
        assert delivered + slow.overflowed == 5000
        assert (slow.pending, slow.lost) == (0, 0)
        overflowed = slow.overflowed
    async with opened(tmp_path) as journal:
        assert journal.cursor("slow").overflowed == overflowed


async def test_what_was_under_way_when_dropped_is_not_counted_twice(tmp_path: Path) -> None:
    """Readings that a sink had in hand while they were dropped, and then confirms, count as delivered."""

    async def read(cursor: Cursor, offset: int) -> int:
        return (await cursor.read(offset, max_readings=100, max_delay=0)).end

    async with opened(tmp_path, max_bytes=1 << 20, segment_bytes=1, on_full="drop_oldest") as journal:
        cursor = journal.cursor("sink")
        first = await fill(journal, [reading(number, text="x" * 900) for number in range(100)], group=100)
        middle = await read(cursor, first[0])
        for _ in range(100):
            await fill(journal, [reading(number, text="x" * 900) for number in range(50)], group=50)
        dropped = cursor.overflowed
        assert dropped >= 100
        cursor.confirm(first[60])
        assert cursor.overflowed == dropped - 60
        cursor.confirm(middle)
        assert cursor.overflowed == dropped - 100
        place = cursor.position.offset
        delivered = 100
        while not cursor.is_drained(place):
            batch = await cursor.read(place, max_delay=0)
            place = batch.end
            delivered += batch.readings
            cursor.confirm(place)
        assert (cursor.pending, cursor.lost) == (0, 0)
        assert delivered + cursor.overflowed == journal.stored == 5100


@pytest.mark.parametrize("on_full", ["refuse", "drop_oldest"])
async def test_free_space_is_kept_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, on_full: Any) -> None:
    """With less than ``keep_free_bytes`` free on the disk nothing is taken, and all is well once there is more."""
    monkeypatch.setattr("gateway.journal.journal.PROBE_S", 0.01)
    monkeypatch.setattr("gateway.journal.writer.PROBE_S", 0.0)
    free = 1 << 30
    monkeypatch.setattr("gateway.journal.writer.free_bytes", lambda directory: free)
    async with opened(tmp_path, keep_free_bytes=1 << 20, on_full=on_full) as journal:
        cursor = journal.cursor("sink")
        journal._writer._segment_bytes = 1000
        await fill(journal, [reading(number) for number in range(50)])
        count = len(segments(tmp_path))
        free = (1 << 20) - 3000
        await fill(journal, [reading(50)])
        await until(lambda: journal.reason)
        with pytest.raises(Overloaded, match="MiB free, and GATEWAY_JOURNAL__KEEP_FREE_BYTES"):
            journal.append(reading(51))
        if on_full == "drop_oldest":
            await until(lambda: len(segments(tmp_path)) == 1)  # it has done what it can
            assert cursor.overflowed > 0
        else:
            assert len(segments(tmp_path)) >= count
        free = 1 << 30
        await until(lambda: not journal.reason)
        await fill(journal, [reading(52)])


async def test_no_more_than_needed_is_dropped_for_space(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """``drop_oldest`` on a disk that others fill drops what is short, not everything."""
    monkeypatch.setattr("gateway.journal.writer.PROBE_S", 0.0)
    other = 0
    monkeypatch.setattr(
        "gateway.journal.writer.free_bytes",
        lambda directory: (1 << 20) - other - size(directory),
    )
    async with opened(tmp_path, keep_free_bytes=1 << 19, on_full="drop_oldest") as journal:
        journal._writer._segment_bytes = 40_000
        await fill(journal, [reading(number, text="x" * 900) for number in range(400)], group=20)
        count = len(segments(tmp_path))
        other = (1 << 19) - size(tmp_path) + 60_000
        await fill(journal, [reading(1)])
        await until(lambda: len(segments(tmp_path)) < count)
        await until(lambda: not journal.reason)
        assert count - 3 <= len(segments(tmp_path)) <= count - 2


# -- a disk that fails -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("call", ["pwritev", "fdatasync"])
@pytest.mark.parametrize("error", [FULL, BROKEN], ids=["ENOSPC", "EIO"])
async def test_nothing_is_told_before_it_is_durable(tmp_path: Path, call: str, error: OSError) -> None:
    """While writing or syncing fails nobody is told, nothing is read, appends are refused at once; then all is well."""
    ear = Ear()
    async with opened(tmp_path / "a") as journal:
        cursor = journal.cursor("sink")
        before = await fill(journal, [reading(0), reading(1)])
        with failing(call, error) as calls:
            inside = [journal.append(reading(number), ear, number) for number in range(2, 5)]
            await until(lambda: calls() >= 3)
            assert ear.tokens == []
            assert journal.durable_offset == inside[0]
            assert journal.reason == f"the disk fails: {error.strerror}"
            with pytest.raises(Overloaded, match="the disk fails"):
                journal.append(reading(5))
            assert len((await cursor.read(before[0], max_delay=0)).items) == 2
            assert cursor.is_drained(inside[0])
        await until(lambda: ear.tokens)
        assert ear.tokens == [4]
        assert journal.reason == ""
        after = await fill(journal, [reading(5)])
        crashed = copy(tmp_path / "a", tmp_path / "b")
        expected = list(zip(before + inside + after, map(reading, range(6)), strict=True))
        assert await held(journal) == expected
    for directory in (tmp_path / "a", crashed):
        async with opened(directory) as journal:
            assert await held(journal) == expected
            assert journal.stored == 6
            assert (journal.stats()["damages"], journal.stats()["set_aside"]) == (0, 0)


async def test_a_failed_tail_is_never_written_again(tmp_path: Path) -> None:
    """After a failed sync the same record goes to a new file, though a sync of the old one would succeed now."""
    async with opened(tmp_path) as journal:
        await fill(journal, [reading(0)])
        (old,) = segments(tmp_path)
        before = old.stat().st_size
        with failing("fdatasync", BROKEN, at=1):
            offsets = await fill(journal, [reading(1)])
        await fill(journal, [reading(2)])
        paths = segments(tmp_path)
        assert len(paths) == 2
        assert old.stat().st_size < before  # cut to what was synced
        assert paths[1].name.startswith(f"{offsets[0]:020d}")


async def test_a_tail_that_cannot_be_cut_is_passed_over(tmp_path: Path) -> None:
    """If the abandoned file keeps the record whole, it is not read twice, before or after a restart."""
    async with opened(tmp_path) as journal:
        cursor = journal.cursor("sink")
        offsets = await fill(journal, [reading(0)])
        with failing("fdatasync", BROKEN, at=1), failing("ftruncate", BROKEN):
            offsets += await fill(journal, [reading(1)])
        offsets += await fill(journal, [reading(2)])
        expected = list(zip(offsets, map(reading, range(3)), strict=True))
        assert await held(journal) == expected
        found = []
        offset = 0
        while not cursor.is_drained(offset):
            batch = await cursor.read(offset, max_readings=1, max_delay=0)
            found += enumerate(batch.items, batch.base)
            offset = batch.end
        assert found == expected
    async with opened(tmp_path) as journal:
        assert await held(journal) == expected
        assert journal.stored == 3
        assert journal.stats()["damages"] == 0


async def test_the_first_commit_may_fail(tmp_path: Path) -> None:
    """When the very first record fails, what anchors the offsets of this start stays; a crash then repeats none."""
    directory = tmp_path / "a"
    async with opened(directory) as journal:
        with failing("fdatasync", BROKEN) as calls:
            offset = journal.append(reading(1))
            await until(lambda: calls() >= 4)
            crashed = copy(directory, tmp_path / "b")
        await journal.flush()
        assert await held(journal) == [(offset, reading(1))]
    async with opened(directory) as journal:
        assert await held(journal) == [(offset, reading(1))]
    async with opened(crashed) as journal:
        assert journal.next_offset > offset + JUMP // 2
        assert len(segments(crashed)) == 1


async def test_a_new_file_may_fail_too(tmp_path: Path) -> None:
    """When neither the file nor its directory can be written for a while, tries leave no rubbish behind."""
    async with opened(tmp_path) as journal:
        await fill(journal, [reading(0)])
        with failing("fsync", FULL, where=str(tmp_path)) as directory, failing("fdatasync", FULL, at=1):
            journal.append(reading(1))
            await until(lambda: directory() >= 3)
            await until(lambda: len(segments(tmp_path)) == 1)
        await journal.flush()
        assert len(segments(tmp_path)) == 2
        assert [item.seq for _, item in await held(journal)] == [1, 2]  # type: ignore[union-attr]


async def test_zeros_ahead_that_do_not_fit_do_no_harm(tmp_path: Path) -> None:
    """On a disk with room for a record but not for the zeros ahead of it, records are written all the same."""
    with failing("pwrite", FULL):
        async with opened(tmp_path) as journal:
            offsets = await fill(journal, [reading(0), reading(1)])
            assert journal.stats()["failures"] == 0
            assert [offset for offset, _ in await held(journal)] == offsets


async def test_drop_oldest_makes_room_on_a_full_disk(tmp_path: Path) -> None:
    """``drop_oldest``: when the disk itself is full, segments go until a write succeeds."""
    async with opened(tmp_path, on_full="drop_oldest") as journal:
        cursor = journal.cursor("sink")
        journal._writer._segment_bytes = 1000
        await fill(journal, [reading(number) for number in range(50)])
        count = len(segments(tmp_path))
        with failing("pwritev", FULL):
            journal.append(reading(50))
            await until(lambda: len(segments(tmp_path)) <= count - 2)
        await journal.flush()
        assert cursor.overflowed > 0
        assert journal.stored == 51


async def test_closing_on_a_failing_disk_ends(tmp_path: Path) -> None:
    """Closing while the disk fails ends, with nobody told, and what was durable is there at the next start."""
    ear = Ear()
    journal = Journal(tmp_path, commit_ms=0, keep_free_bytes=0)
    await journal.open()
    offsets = await fill(journal, [reading(0)])
    with failing("fdatasync", BROKEN):
        journal.append(reading(1), ear, 1)
        flush = asyncio.create_task(journal.flush())
        await asyncio.sleep(0.01)
        async with asyncio.timeout(5):
            await journal.close()
    with pytest.raises(JournalError):
        await flush
    assert ear.tokens == []
    async with opened(tmp_path) as journal:
        assert (await held(journal))[:1] == [(offsets[0], reading(0))]


async def test_closing_tries_a_last_time(tmp_path: Path) -> None:
    """What failed before is made durable by closing when the disk works again, and its waiters are told."""
    ear = Ear()
    journal = Journal(tmp_path, commit_ms=0, keep_free_bytes=0)
    await journal.open()
    with failing("fdatasync", BROKEN) as calls:
        offset = journal.append(reading(1), ear, 1)
        await until(calls)
        await until(lambda: journal.reason)
    await journal.close()
    assert ear.tokens == [1]
    with pytest.raises(Overloaded, match="not open"):
        journal.append(reading(2))
    async with opened(tmp_path) as journal:
        assert await held(journal) == [(offset, reading(1))]


async def test_places_that_cannot_be_written_hold_segments(tmp_path: Path) -> None:
    """While the cursors' file cannot be written no segment goes; then they do, and closing in between is no error."""
    async with opened(tmp_path) as journal:
        cursor = journal.cursor("sink")
        journal._writer._segment_bytes = 1000
        await fill(journal, [reading(number) for number in range(30)])
        batch = await cursor.read(0, max_delay=0)
        cursor.confirm(batch.end)
        with failing("pwrite", BROKEN, where="cursors"):
            await journal._store_last()
            assert journal.stats()["places_failures"] == 1
            assert len(segments(tmp_path)) > 2
        await journal._store_last()
        await until(lambda: len(segments(tmp_path)) == 1)


async def test_stats_are_numbers(tmp_path: Path) -> None:
    """Every statistic is a number, from before opening until after closing."""
    journal = Journal(tmp_path)
    assert journal.stats() == {}
    await journal.open()
    await fill(journal, [reading(1)])
    stats = journal.stats()
    assert all(isinstance(value, (int, float)) for value in stats.values())
    assert stats["commits"] == 1
    assert stats["bytes"] == size(tmp_path)
    await journal.close()
    assert journal.stats()["failing"] == 1
    await journal.close()


async def test_who_presses_is_told_before_the_journal_is_full(tmp_path: Path) -> None:
    """A reader that alone holds half of the bound is named, one that waits with others is not, nor one that moved."""
    async with opened(tmp_path, max_bytes=400_000) as journal:
        journal._writer._segment_bytes = 40_000
        own, slow = journal.cursor("history", start=journal.next_offset), journal.cursor("slow")
        names = ("history", "devices")
        offsets: list[int] = []
        while journal.stats()["bytes"] < 280_000:
            assert journal.pressing(names) == []  # the slow one needs all of it too
            offsets += await fill(journal, [reading(number) for number in range(100)], 100)
        slow.confirm(offsets[-1] + 1)
        assert journal.pressing(names) == []  # not durable yet
        await journal._store_last()
        assert journal.pressing(names) == ["history"]
        assert journal.pressing(("devices",)) == []
        own.confirm(offsets[-1] + 1)
        assert journal.pressing(names) == []


async def test_any_reader_presses_when_space_is_short(tmp_path: Path) -> None:
    """Where the disk is short of space, or three quarters of the bound are taken, the least counts."""
    async with opened(tmp_path, max_bytes=1_000_000) as journal:
        journal._writer._segment_bytes = 1000
        journal.cursor("history", start=journal.next_offset)
        await fill(journal, [reading(number) for number in range(30)])
        assert journal.pressing(("history",)) == []
        journal._bounds.max_bytes = int(journal.stats()["bytes"] * 1.3)
        assert journal.pressing(("history",)) == ["history"]
        journal._bounds.max_bytes = 1_000_000
        journal._bounds.free, journal._bounds.keep_free = 5, 6
        assert journal.pressing(("history",)) == ["history"]
        journal._bounds.keep_free = 0


async def test_a_fault_that_is_no_error_of_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Want of memory or a fault of ours in the writer is told as a failure and tried again: nothing is lost."""
    real = writer.record.pack_record
    faults = 3

    def pack(*arguments: Any) -> Any:
        nonlocal faults
        if faults:
            faults -= 1
            raise MemoryError
        return real(*arguments)

    monkeypatch.setattr(writer.record, "pack_record", pack)
    async with opened(tmp_path) as journal:
        for number in range(3):
            journal.append(reading(number))
        await until(lambda: "MemoryError" in journal.reason)
        await until(lambda: journal.stored == 3)
        assert journal.reason == ""
    async with opened(tmp_path) as journal:
        assert journal.stored == 3


async def test_a_read_that_is_cancelled_leaves_no_file_open(tmp_path: Path) -> None:
    """Whoever asks for a stretch and goes away before it was read leaves nothing behind."""
    async with opened(tmp_path, ring_bytes=1000) as journal:
        journal.cursor("keeps")
        for _ in range(10):
            for number in range(500):
                journal.append(reading(number))
            await journal.flush()

        def files() -> int:
            return len(os.listdir("/proc/self/fd"))

        before = files()
        start = journal.oldest_offset
        for number in range(30):
            task = asyncio.create_task(journal.read_from(start + number * 37, 1000))
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
        await until(lambda: files() <= before + 2)


@pytest.mark.parametrize(("readings", "blocks"), [(12, 2), (80, 3)])
async def test_a_commit_writes_few_blocks(tmp_path: Path, readings: int, blocks: int) -> None:
    """A commit of some readings writes the blocks that it touches, as the kernel accounts it, and no more than one."""

    def written() -> int:
        found = re.search(r"^write_bytes: (\d+)", Path("/proc/self/io").read_text(), re.MULTILINE)
        assert found
        return int(found[1])

    async with opened(tmp_path) as journal:
        await fill(journal, [reading(0)])
        before = written()
        for _ in range(64):
            await fill(journal, [reading(number) for number in range(readings)], group=readings)
        assert (written() - before) / 64 / 4096 <= blocks
