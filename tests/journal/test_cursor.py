"""Reading through cursors."""

from __future__ import annotations

import asyncio
import tracemalloc
from functools import partial
from pathlib import Path

import pytest

from gateway.errors import JournalError
from gateway.journal import Cursor, Journal, Position, record
from gateway.journal.recovery import JUMP
from gateway.reading import Batch, Item, Mark

from .support import copy, fill, held, mixed, opened, reading, segments, settled, until

SMALL_RING = 1  # holds one batch


def is_done(cursor: Cursor) -> bool:
    """Whether nothing is pending."""
    return cursor.pending == 0


async def drain(cursor: Cursor, most: int = 1000, upto: int | None = None) -> list[tuple[int, Item]]:
    """Read and confirm all that is stored (or below an offset)."""
    found: list[tuple[int, Item]] = []
    offset = cursor.position.offset
    while not cursor.is_drained(offset) and (upto is None or offset < upto):
        batch = await cursor.read(offset, max_readings=most, max_delay=0)
        assert 0 < len(batch.items) <= most
        found += enumerate(batch.items, batch.base)
        offset = batch.end
        cursor.confirm(offset)
    return found


@pytest.mark.parametrize("ring", [SMALL_RING, 1 << 20])
@pytest.mark.parametrize("most", [1, 7, 1000])
async def test_all_is_read_in_order(tmp_path: Path, ring: int, most: int) -> None:
    """From the ring or from disk, in pieces of any size, over many segments: everything once, in order."""
    items = [mixed(number) for number in range(600)]
    async with opened(tmp_path, ring_bytes=ring, segment_bytes=1) as journal:
        cursor = journal.cursor("sink")
        journal._segment_bytes = journal._writer._segment_bytes = 4000
        offsets = await fill(journal, items, group=13)
        assert len(segments(tmp_path)) > 5
        assert await drain(cursor, most) == list(zip(offsets, items, strict=True))
        assert cursor.pending == 0
        assert cursor.position == Position(journal.durable_offset, journal.stored)


async def test_a_caught_up_cursor_gets_the_appended_objects(tmp_path: Path) -> None:
    """What is served from the ring is what was appended, and two cursors share the batch."""
    async with opened(tmp_path) as journal:
        one, two = journal.cursor("one"), journal.cursor("two")
        item = reading(1)
        await fill(journal, [item])
        first = await one.read(0, max_delay=0)
        assert first.items[0] is item
        assert await two.read(0, max_delay=0) is first


async def test_a_batch_waits_until_it_is_full(tmp_path: Path) -> None:
    """A read returns as soon as enough readings are there, however long it might wait."""
    async with opened(tmp_path) as journal:
        cursor = journal.cursor("sink")
        task = asyncio.create_task(cursor.read(0, max_readings=10, max_delay=3600))
        for start in range(0, 12, 4):
            await asyncio.sleep(0)
            assert not task.done()
            await fill(journal, [reading(number) for number in range(start, start + 4)], group=4)
        batch = await task
        assert (len(batch.items), batch.readings) == (10, 10)
        rest = await cursor.read(batch.end, max_delay=0)
        assert len(rest.items) == 2


async def test_a_batch_waits_no_longer_than_asked(tmp_path: Path) -> None:
    """A read that is not full returns ``max_delay`` after its first item was committed, not after it was called."""
    async with opened(tmp_path) as journal:
        loop = asyncio.get_running_loop()
        cursor = journal.cursor("sink")
        await fill(journal, [reading(1)])
        committed = loop.time()
        await asyncio.sleep(0.05)
        batch = await cursor.read(0, max_readings=10, max_delay=0.2)
        assert len(batch.items) == 1
        assert 0.1 < loop.time() - committed < 2
        assert await asyncio.wait_for(cursor.read(0, max_readings=10, max_delay=0.2), 0.1) is batch


async def test_a_read_may_be_cancelled(tmp_path: Path) -> None:
    """A cancelled read, waiting or at the disk, leaves the cursor as it was."""
    async with opened(tmp_path, ring_bytes=SMALL_RING) as journal:
        cursor = journal.cursor("sink")
        for number in range(3):
            task = asyncio.create_task(cursor.read(journal.next_offset))
            await asyncio.sleep(0)
            task.cancel()
            await asyncio.wait([task])
            assert task.cancelled()
            await fill(journal, [reading(number)])
        for _ in range(20):
            task = asyncio.create_task(cursor.read(0))
            await asyncio.sleep(0)
            task.cancel()
            await asyncio.wait([task])
        assert [item.seq for _, item in await drain(cursor)] == [1, 2, 3]  # type: ignore[union-attr]


async def test_one_read_at_a_time(tmp_path: Path) -> None:
    """A second read while one waits is a mistake that is told."""
    async with opened(tmp_path) as journal:
        cursor = journal.cursor("sink")
        task = asyncio.create_task(cursor.read(0, max_delay=0))
        await asyncio.sleep(0)
        with pytest.raises(RuntimeError):
            await cursor.read(0)
        await fill(journal, [reading(1)])
        assert len((await task).items) == 1


async def test_a_batch_never_spans_a_gap(tmp_path: Path) -> None:
    """The offsets of a batch are consecutive, though those of the journal jump at each start."""
    expected: list[tuple[int, Item]] = []
    for run in range(3):
        async with opened(tmp_path) as journal:
            items = [reading(run * 10 + number) for number in range(3)]
            expected += zip(await fill(journal, items), items, strict=True)
    async with opened(tmp_path) as journal:
        cursor = journal.cursor("sink")
        batches: list[Batch] = []
        offset = 0
        while not cursor.is_drained(offset):
            batches.append(await cursor.read(offset, max_delay=0))
            offset = batches[-1].end
        assert [len(batch.items) for batch in batches] == [3, 3, 3]
        assert [entry for batch in batches for entry in enumerate(batch.items, batch.base)] == expected


@pytest.mark.parametrize("ring", [SMALL_RING, 1 << 20])
async def test_a_place_in_the_middle_is_exact(tmp_path: Path, ring: int) -> None:
    """A place inside a batch, a record and a segment counts the readings below it, and is kept over a restart."""
    items = [mixed(number) for number in range(40)]
    async with opened(tmp_path, ring_bytes=ring) as journal:
        cursor = journal.cursor("sink")
        offsets = await fill(journal, items, group=20)
        await cursor.read(0, max_delay=0)
        await cursor.read(offsets[20], max_delay=0)
        for index in (1, 2, 8, 25):
            cursor.confirm(offsets[index])
            below = sum(1 for item in items[:index] if type(item).__name__ == "Reading")
            assert cursor.position == Position(offsets[index], below)
            assert cursor.pending == journal.stored - below
        cursor.confirm(offsets[3])  # never back
        place = cursor.position
        pending = cursor.pending
    async with opened(tmp_path) as journal:
        cursor = journal.cursor("sink")
        assert (cursor.position, cursor.pending) == (place, pending)
        assert await drain(cursor, 4) == list(zip(offsets, items, strict=True))[25:]
        assert journal.cursor("own", start=offsets[8]).position.readings == 6
        assert journal.cursor("end", start=journal.next_offset).position.readings == journal.stored


async def test_nothing_beyond_the_durable_end_is_confirmed(tmp_path: Path) -> None:
    """Confirming what nobody can have read is refused."""
    async with opened(tmp_path, commit_ms=60_000) as journal:
        cursor = journal.cursor("sink")
        offset = journal.append(reading(1))
        with pytest.raises(ValueError, match="handed out"):
            cursor.confirm(offset + 1)


async def test_items_may_be_passed_over_unread(tmp_path: Path) -> None:
    """A cursor that only holds segments moves on without reading."""
    async with opened(tmp_path) as journal:
        keeper = journal.cursor("devices", start=0)
        await fill(journal, [mixed(number) for number in range(20)], group=5)
        keeper.confirm(journal.durable_offset)
        assert (keeper.pending, keeper.lost, keeper.overflowed) == (0, 0, 0)
        offsets = await fill(journal, [reading(number) for number in range(3)])
        keeper.confirm(offsets[1])
        assert keeper.pending == 2


async def test_passed_segments_go_when_every_cursor_has_passed(tmp_path: Path) -> None:
    """Segments are unlinked when the slowest cursor's place is durable, not before, and the newest stays."""
    async with opened(tmp_path) as journal:
        journal._writer._segment_bytes = 2000
        fast, slow = journal.cursor("fast"), journal.cursor("slow")
        await fill(journal, [reading(number) for number in range(100)])
        paths = segments(tmp_path)
        assert len(paths) > 4
        await drain(fast)
        await stored(journal)
        assert segments(tmp_path) == paths
        middle = journal._holdings.segments[2].base
        await drain(slow, most=1, upto=middle)
        assert segments(tmp_path) == paths  # confirmed, and not durable yet
        await stored(journal)
        assert segments(tmp_path) == paths[2:]
        await drain(slow)
        await stored(journal)
        assert segments(tmp_path) == paths[-1:]


async def stored(journal: Journal) -> None:
    """The cursors' places are durable, and what they free is gone."""
    await journal._store_last()
    await settled(journal)


async def test_a_crash_repeats_and_never_skips(tmp_path: Path) -> None:
    """After a crash a cursor stands at its last durable place: what it confirmed since comes again."""
    async with opened(tmp_path / "a") as journal:
        cursor = journal.cursor("sink")
        offsets = await fill(journal, [reading(number) for number in range(6)])
        await drain(cursor, most=1, upto=offsets[2])
        await stored(journal)
        await drain(cursor, most=1, upto=offsets[4])
        copy(tmp_path / "a", tmp_path / "b")
    async with opened(tmp_path / "b") as journal:
        cursor = journal.cursor("sink")
        assert cursor.position == Position(offsets[2], 2)
        assert [offset for offset, _ in await drain(cursor)] == offsets[2:]


async def test_a_reader_with_its_own_place_holds_what_it_needs(tmp_path: Path) -> None:
    """A cursor opened at a given place starts there, whatever the file says, and keeps its counts."""
    async with opened(tmp_path) as journal:
        offsets = await fill(journal, [reading(number) for number in range(6)])
        cursor = journal.cursor("history", start=offsets[4])
        assert cursor.position == Position(offsets[4], 4)
        batch = await cursor.read(offsets[4], max_delay=0)
        cursor.confirm(batch.end)
    async with opened(tmp_path) as journal:
        cursor = journal.cursor("history", start=Position(offsets[2], 2))
        assert [offset for offset, _ in await drain(cursor)] == offsets[2:]


async def test_a_full_journal_lets_go_at_once_what_a_reader_with_its_own_place_held(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where room is wanted, what the last reader confirms makes some, and not only when places are written next."""
    monkeypatch.setattr("gateway.journal.journal.PERSIST_S", 3600.0)
    async with opened(tmp_path, max_bytes=1 << 20, segment_bytes=1) as journal:
        cursor = journal.cursor("history", start=0)
        while not journal.reason:
            offset = (await fill(journal, [reading(1, text="x" * 20_000)]))[-1]
        cursor.confirm(offset + 1)
        assert journal.reason == ""
        await fill(journal, [reading(2)])


async def test_a_reader_ahead_of_the_journal_lifts_it(tmp_path: Path) -> None:
    """Where a reader knows higher offsets than the journal (its directory was replaced), offsets go on beyond them."""
    ahead = 1 << 40
    async with opened(tmp_path) as journal:
        await fill(journal, [reading(1)])
    async with opened(tmp_path) as journal:
        cursor = journal.cursor("history", start=ahead)
        assert journal.next_offset == ahead + JUMP
        offsets = await fill(journal, [reading(2), reading(3)])
        assert offsets[0] == ahead + JUMP
        assert [offset for offset, _ in await drain(cursor)] == offsets
        assert cursor.pending == 0
        journal.append(reading(4))
        with pytest.raises(JournalError, match="before the first append"):
            journal.cursor("late", start=1 << 50)
    async with opened(tmp_path) as journal:
        assert journal.next_offset > ahead + JUMP
        assert len(await drain(journal.cursor("all"))) == 3  # the first was let go, passed by all
        assert journal.stats()["damages"] == 0


def total(cursor: Cursor) -> int:
    """What a cursor's counts add up to."""
    return cursor.began + cursor.delivered + cursor.dead_lettered + cursor.overflowed + cursor.lost + cursor.pending


async def test_a_reader_of_its_own_place_finds_it_after_idle_starts(tmp_path: Path) -> None:
    """However often it is started with nothing new, a reader that has all is not told that it lost something."""
    async with opened(tmp_path) as journal:
        cursor = journal.cursor("history", start=0)
        offset = (await fill(journal, [reading(number) for number in range(5)]))[-1] + 1
        await cursor.read(0, max_delay=0)
        cursor.confirm(offset)
    for _ in range(4):
        async with opened(tmp_path) as journal:
            cursor = journal.cursor("history", start=offset)
            assert (cursor.delivered, cursor.pending, cursor.began) == (5, 0, 0)
            assert journal.problems() == []


async def test_what_was_there_before_a_cursor_is_not_its_own(tmp_path: Path) -> None:
    """What was stored and let go before a cursor began counts neither as delivered nor as dropped, also later on."""
    async with opened(tmp_path, segment_bytes=1) as journal:
        journal._writer._segment_bytes = 1000
        first = journal.cursor("first")
        await fill(journal, [reading(number) for number in range(50)])
        await drain(first)
        await stored(journal)
        late = journal.cursor("late")
        assert late.began == late.position.readings > 10
        assert (late.delivered, late.overflowed) == (0, 0)
        count = len(await drain(late))
        assert (late.delivered, late.pending) == (count, 0)
        assert total(late) == journal.stored
    async with opened(tmp_path) as journal:
        again = journal.cursor("late")
        assert (again.began, again.delivered) == (late.began, count)


async def test_what_is_put_aside_is_counted_with_the_place(tmp_path: Path) -> None:
    """Dead letters are kept with the place, are not delivered, and are taken off when a later try delivers them."""
    async with opened(tmp_path / "a") as journal:
        cursor = journal.cursor("sink")
        offsets = await fill(journal, [reading(number) for number in range(6)])
        batch = await cursor.read(0, max_readings=4, max_delay=0)
        cursor.confirm(batch.end, dead_lettered=3)
        assert (cursor.delivered, cursor.dead_lettered, cursor.pending) == (1, 3, 2)
        await stored(journal)
        cursor.confirm(cursor.position.offset, dead_lettered=-1)
        copy(tmp_path / "a", tmp_path / "b")
        await stored(journal)
        copy(tmp_path / "a", tmp_path / "c")
        with pytest.raises(ValueError, match="nothing at offset"):
            cursor.confirm(offsets[-1] + 2, dead_lettered=1)
        assert cursor.dead_lettered == 2
    for name, aside in (("b", 3), ("c", 2)):
        async with opened(tmp_path / name) as journal:
            cursor = journal.cursor("sink")
            assert (cursor.delivered, cursor.dead_lettered, cursor.pending) == (4 - aside, aside, 2)
            assert cursor.stats()["dead_lettered"] == aside
            assert total(cursor) == journal.stored


async def test_a_reader_that_goes_back_counts_anew(tmp_path: Path) -> None:
    """A reader whose own place is behind its counts (its file was replaced) begins with none; others keep theirs."""
    async with opened(tmp_path) as journal:
        offsets = await fill(journal, [reading(number) for number in range(6)])
        cursor = journal.cursor("history", start=offsets[0])
        await drain(cursor, most=1, upto=offsets[5])
        cursor.confirm(offsets[5], dead_lettered=4)
    async with opened(tmp_path) as journal:
        cursor = journal.cursor("history", start=offsets[5])
        assert (cursor.began, cursor.dead_lettered, cursor.delivered) == (0, 4, 1)
    async with opened(tmp_path) as journal:
        cursor = journal.cursor("history", start=offsets[2])
        assert (cursor.began, cursor.dead_lettered, cursor.delivered) == (2, 0, 0)
        assert total(cursor) == journal.stored


async def test_a_reader_that_lost_what_the_journal_let_go_is_told(tmp_path: Path) -> None:
    """Where a reader's own file has gone back behind what is still held, nothing of that counts as delivered."""
    async with opened(tmp_path) as journal:
        journal._writer._segment_bytes = 1000
        cursor = journal.cursor("history", start=0)
        offsets = await fill(journal, [reading(number) for number in range(50)])
        cursor.confirm(offsets[40])
        await stored(journal)
    async with opened(tmp_path) as journal:
        cursor = journal.cursor("history", start=offsets[5])
        assert journal.oldest_offset > offsets[20]
        assert journal.problems() == ["The history has lost what it once had: part of that is no longer in the journal"]
        assert (cursor.delivered, total(cursor)) == (0, journal.stored)
    async with opened(tmp_path) as journal:
        cursor = journal.cursor("history", start=journal.oldest_offset + 3)
        assert (journal.problems(), cursor.delivered) == ([], 3)


async def test_names_are_checked(tmp_path: Path) -> None:
    """One cursor a name, with a name that fits; too many are refused."""
    async with opened(tmp_path) as journal:
        journal.cursor("sink")
        for bad in ("sink", "", "x" * 65):
            with pytest.raises(ValueError, match="cursor"):
                journal.cursor(bad)
        for number in range(31):
            journal.cursor(f"c{number}")
        with pytest.raises(JournalError, match="more than 32"):
            journal.cursor("one more")


async def test_a_closed_cursor_holds_nothing_and_finds_its_place(tmp_path: Path) -> None:
    """A closed cursor ends its read and holds no segments; opened again, what went meanwhile counts as overflowed."""
    async with opened(tmp_path) as journal:
        journal._writer._segment_bytes = 1000
        cursor, other = journal.cursor("sink"), journal.cursor("other")
        offsets = await fill(journal, [reading(0)])
        await drain(cursor)
        task = asyncio.create_task(cursor.read(journal.next_offset))
        await asyncio.sleep(0)
        cursor.close()
        cursor.close()
        with pytest.raises(JournalError, match="closed"):
            await task
        offsets += await fill(journal, [reading(number) for number in range(50)])
        await drain(other)
        await stored(journal)
        again = journal.cursor("sink")
        oldest = journal.oldest_offset
        assert oldest > offsets[10]
        assert again.position.offset == oldest
        assert again.overflowed == oldest - offsets[1]
        rest = await drain(again)
        assert rest[0][0] == oldest
        assert again.pending == 0
        assert journal.stored == 1 + len(rest) + again.overflowed


async def test_reads_end_when_the_journal_closes(tmp_path: Path) -> None:
    """A read that waits for more ends with an error when the journal is closed."""
    async with opened(tmp_path) as journal:
        cursor = journal.cursor("sink")
        task = asyncio.create_task(cursor.read(0))
        await asyncio.sleep(0)
    with pytest.raises(JournalError):
        await task
    with pytest.raises(JournalError):
        await cursor.read(0)
    with pytest.raises(JournalError):
        await journal.read_from(0)
    with pytest.raises(JournalError):
        await journal.flush()


async def test_a_disk_that_cannot_be_read_is_asked_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """When a segment cannot be opened for a while the cursor waits and then goes on; nothing is skipped."""
    monkeypatch.setattr("gateway.journal.cursor.READ_AGAIN_S", 0.01)
    async with opened(tmp_path, ring_bytes=SMALL_RING) as journal:
        cursor = journal.cursor("sink")
        offsets = await fill(journal, [reading(number) for number in range(4)])
        failures = 0

        def refuse(*arguments: object) -> None:
            nonlocal failures
            failures += 1
            raise OSError(24, "Too many open files")

        with monkeypatch.context() as patch:
            patch.setattr("gateway.journal.reader.RecordFile.__init__", refuse)
            task = asyncio.create_task(cursor.read(0, max_delay=0))
            await until(lambda: failures >= 3)
            assert not task.done()
            with pytest.raises(JournalError, match="Too many open files"):
                await journal.read_from(0)
        batch = await task
        assert batch.base == offsets[0]
        assert cursor.lost == 0


async def test_unreadable_sectors_count_as_damage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A place the disk gives an error for costs the records in it; those around it are read."""
    import os

    items: list[Item] = [reading(number, text="x" * 1000) for number in range(20)]
    async with opened(tmp_path, ring_bytes=SMALL_RING) as journal:
        cursor = journal.cursor("sink")
        offsets = await fill(journal, items)
        real = os.pread

        def failing(fd: int, size: int, at: int) -> bytes:
            if at < 8192 and at + size > 4096 and str(tmp_path) in os.readlink(f"/proc/self/fd/{fd}"):
                raise OSError(5, "Input/output error")
            return real(fd, size, at)

        monkeypatch.setattr(os, "pread", failing)
        found = await drain(cursor)
        assert found == [entry for entry in zip(offsets, items, strict=True) if entry in found]
        assert 3 <= cursor.lost <= 6
        assert len(found) + cursor.lost == 20
        assert cursor.pending == 0


async def test_a_backlog_needs_little_memory_and_no_searching(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Reading a long backlog decodes each record once and holds one record and a buffer, whatever its length."""
    async with opened(tmp_path, ring_bytes=SMALL_RING) as journal:
        journal._writer._segment_bytes = 500_000
        cursor = journal.cursor("sink")
        await fill(journal, [reading(number) for number in range(50_000)], group=500)
        from gateway.journal import record

        decoded = 0
        real = record.decode

        def counting(payload: memoryview) -> list[Item]:
            nonlocal decoded
            decoded += 1
            return real(payload)

        monkeypatch.setattr(record, "decode", counting)
        offset = cursor.position.offset
        count = 0
        batch = await cursor.read(offset, max_readings=300)
        tracemalloc.start()
        try:
            while not cursor.is_drained(offset):
                batch = await cursor.read(offset, max_readings=300, max_delay=0)
                count += batch.readings
                offset = batch.end
                cursor.confirm(offset)
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        assert count == 50_000
        assert decoded < 103
        assert peak < 2_000_000


async def test_replay_and_several_readers_do_not_disturb_each_other(tmp_path: Path) -> None:
    """``read_from`` serves several readers in turns, each in order, without opening a file at every call."""
    async with opened(tmp_path, ring_bytes=SMALL_RING) as journal:
        items = [mixed(number) for number in range(60)]
        offsets = await fill(journal, items, group=7)
        places = [offsets[0], offsets[5], offsets[17]]
        found: list[list[Item]] = [[], [], []]
        while any(places):
            for index, place in enumerate(places):
                if place:
                    batch = await journal.read_from(place, 4)
                    places[index] = batch.end if batch else 0
                    found[index] += batch.items if batch else []
        assert found == [items, items[5:], items[17:]]
        assert len(journal._spare) <= 4
        assert await journal.read_from(journal.next_offset) is None


async def test_marks_and_presence_are_items_too(tmp_path: Path) -> None:
    """``max_readings`` bounds items: a run of items without readings is given in pieces as well."""
    async with opened(tmp_path) as journal:
        cursor = journal.cursor("sink")
        await fill(journal, [Mark("a", "s", number) for number in range(1, 11)], group=10)
        batch = await cursor.read(0, max_readings=4, max_delay=0)
        assert (len(batch.items), batch.readings) == (4, 0)
        assert cursor.pending == 0
        assert not cursor.is_drained(batch.end)


async def damaged(directory: Path, left: int, how: str) -> list[int]:
    """Eight readings in a closed journal of which the last are unreadable; their offsets."""
    async with opened(directory) as journal:
        offsets = await fill(journal, [reading(number) for number in range(8)])
    (path,) = segments(directory)
    data = bytearray(path.read_bytes())
    starts = [at for at in range(len(data)) if data.startswith(record.MARK, at)]
    if how == "cut":
        del data[starts[left] + 10 :]
    else:
        (directory / "cursors").unlink()  # a crash
        for at in starts[left:]:
            data[at + 60] ^= 1
    path.write_bytes(data)
    return offsets


@pytest.mark.parametrize("how", ["cut", "flipped"])
async def test_what_is_lost_at_the_end_does_not_stay_pending(tmp_path: Path, how: str) -> None:
    """A cursor that has read all that can be read counts the rest as lost, though nothing new comes; once."""
    offsets = await damaged(tmp_path, 5, how)
    for start in range(3):
        async with opened(tmp_path) as journal:
            cursor = journal.cursor("sink")
            offset = cursor.position.offset
            if not start:
                for most in (2, 3):
                    batch = await cursor.read(offset, max_readings=most, max_delay=0)
                    cursor.confirm(batch.end)
                    assert (cursor.lost, cursor.pending) == (0, 8 - (batch.end - offsets[0]))
                    offset = batch.end
            elif how == "cut":
                assert (cursor.lost, cursor.pending) == (3, 0)
            task = asyncio.create_task(cursor.read(offset, max_delay=0))
            await until(partial(is_done, cursor))
            assert (cursor.lost, cursor.delivered) == (3, 5)
            assert cursor.is_drained(offset)
            assert not task.done()
            assert "damaged" in "".join(journal.problems()) or start
            task.cancel()
    async with opened(tmp_path) as journal:
        cursor = journal.cursor("sink")
        offset = cursor.position.offset
        task = asyncio.create_task(cursor.read(offset, max_delay=0))
        await asyncio.sleep(0)
        (new,) = await fill(journal, [reading(9)])
        batch = await task
        assert (batch.base, len(batch.items)) == (new, 1)
        cursor.confirm(batch.end)
        assert (cursor.lost, cursor.delivered, cursor.pending) == (3, 6, 0)


@pytest.mark.parametrize("how", ["cut", "flipped"])
async def test_what_is_in_hand_is_not_lost_with_the_rest(tmp_path: Path, how: str) -> None:
    """What is lost behind readings that are not confirmed yet counts when these are, and no sooner."""
    offsets = await damaged(tmp_path, 5, how)
    async with opened(tmp_path) as journal:
        cursor = journal.cursor("history", start=offsets[0])
        batch = await cursor.read(offsets[0], max_delay=0)
        assert batch.end == offsets[5]
        task = asyncio.create_task(cursor.read(batch.end, max_delay=0))
        await asyncio.sleep(0.02)
        cursor.confirm(offsets[2])
        assert (cursor.lost, cursor.delivered, cursor.pending) == (0, 2, 6)
        cursor.confirm(offsets[5])
        assert (cursor.lost, cursor.delivered, cursor.pending) == (3, 5, 0)
        assert cursor.position.offset == offsets[5]
        task.cancel()
    for _ in range(2):
        async with opened(tmp_path) as journal:
            cursor = journal.cursor("history", start=offsets[5])
            task = asyncio.create_task(cursor.read(offsets[5], max_delay=0))
            await until(partial(is_done, cursor))
            assert (cursor.lost, cursor.delivered) == (3, 5)
            assert len(journal.problems()) <= 1
            task.cancel()


@pytest.mark.parametrize("how", ["cut", "flipped"])
@pytest.mark.parametrize("known", [3, 5, 7])
async def test_a_place_of_its_own_in_what_is_lost(tmp_path: Path, how: str, known: int) -> None:
    """A reader that opens where something was lost counts what lies behind its place as lost, as far as is known."""
    offsets = await damaged(tmp_path, 5, how)
    async with opened(tmp_path) as journal:
        cursor = journal.cursor("history", start=offsets[known])
        assert cursor.began == min(known, 5)
        offset = cursor.position.offset
        if known < 5:
            offset = (await cursor.read(offset, max_delay=0)).end
            cursor.confirm(offset)
        task = asyncio.create_task(cursor.read(offset, max_delay=0))
        await until(lambda: cursor.pending == 0)
        assert cursor.lost == 3
        task.cancel()


async def test_damage_at_the_end_of_what_is_written_now(tmp_path: Path) -> None:
    """What a running journal's newest file has lost is passed over, and what is written behind it is read."""
    async with opened(tmp_path, ring_bytes=SMALL_RING) as journal:
        cursor = journal.cursor("sink")
        offsets = await fill(journal, [reading(number) for number in range(6)])
        (path,) = segments(tmp_path)
        data = bytearray(path.read_bytes())
        starts = [at for at in range(len(data)) if data.startswith(record.MARK, at)]
        for at in starts[3:]:
            data[at + 60] ^= 1
        with path.open("r+b") as file:
            file.write(data)
        batch = await cursor.read(0, max_delay=0)
        assert batch.end == offsets[3]
        cursor.confirm(batch.end)
        batch = await cursor.read(batch.end, max_delay=0)
        assert batch.base == offsets[5]  # still in memory
        cursor.confirm(batch.end)
        assert (cursor.lost, cursor.delivered, cursor.pending) == (2, 4, 0)
        assert [offset for offset, _ in await held(journal)] == [*offsets[:3], offsets[5]]


async def test_files_that_are_away_are_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What cannot be found is not lost: files that are moved away and back are read then."""
    monkeypatch.setattr("gateway.journal.cursor.READ_AGAIN_S", 0.01)
    async with opened(tmp_path / "a") as journal:
        await fill(journal, [reading(number) for number in range(4)])
    async with opened(tmp_path / "a") as journal:
        cursor = journal.cursor("sink")
        (tmp_path / "a").rename(tmp_path / "b")
        task = asyncio.create_task(cursor.read(cursor.position.offset, max_delay=0))
        await asyncio.sleep(0.05)
        assert (cursor.lost, cursor.pending) == (0, 4)
        (tmp_path / "b").rename(tmp_path / "a")
        assert (await task).readings == 4
