"""Opening a directory after a clean stop, a crash, and damage."""

from __future__ import annotations

import errno
import os
import shutil
import zlib
from pathlib import Path

import pytest

from gateway.aside import KEPT
from gateway.errors import JournalError, StateLocked
from gateway.journal import Journal, places, record
from gateway.journal.recovery import DAMAGED_JUMP, JUMP
from gateway.journal.segment import AHEAD, BLOCK, name_of
from gateway.reading import Item

from .support import copy, fill, held, mixed, opened, reading, segments, settled

FORMAT_1 = Path(__file__).parent / "fixtures" / "format-1"


async def made(directory: Path, items: list[Item], group: int = 1, **settings: int) -> list[tuple[int, Item]]:
    """A journal of ``items`` in ``directory``, closed; the items with their offsets."""
    async with opened(directory, **settings) as journal:
        offsets = await fill(journal, items, group)
    return list(zip(offsets, items, strict=True))


async def test_a_clean_stop_loses_nothing(tmp_path: Path) -> None:
    """What was stored is there after a restart, with its offsets, its epoch and its count of readings."""
    first = await made(tmp_path, [mixed(number) for number in range(20)], group=3)
    async with opened(tmp_path) as journal:
        epoch = journal.epoch
        assert await held(journal) == first
        assert journal.stored == record.count_readings([item for _, item in first])
        second = [(journal.append(item), item) for item in [mixed(21), mixed(22)]]
        await journal.flush()
        assert await held(journal) == first + second
    async with opened(tmp_path) as journal:
        assert journal.epoch == epoch
        assert journal.stats()["torn_bytes"] == 0
        assert await held(journal) == first + second


async def test_what_was_appended_before_close_is_durable(tmp_path: Path) -> None:
    """Closing commits what is pending, also when the group's time has not come."""
    async with opened(tmp_path, commit_ms=60_000) as journal:
        items = [(journal.append(mixed(number)), mixed(number)) for number in range(5)]
    async with opened(tmp_path) as journal:
        assert await held(journal) == items


async def test_no_offset_is_used_twice_over_a_crash_loop(tmp_path: Path) -> None:
    """Each start goes on beyond all that an earlier one may have shown, though nothing of it was durable."""
    shown = 0
    directory = tmp_path / "0"
    for start in range(5):
        async with opened(directory, max_pending=JUMP, commit_ms=60_000) as journal:
            assert journal.next_offset > shown
            shown = journal.next_offset + JUMP - 1  # the last of as many appends as the bound allows
            directory = copy(directory, tmp_path / str(start + 1))
    assert len(segments(directory)) <= 2


@pytest.mark.parametrize("zeros", [0, 100])
async def test_a_record_torn_at_any_byte_is_cut(memory_path: Path, zeros: int) -> None:
    """A crash in the middle of a write leaves everything before it and nothing of it, wherever it was torn."""
    whole = memory_path / "whole"
    items = await made(whole, [mixed(number) for number in range(4)], group=2)
    (path,) = segments(whole)
    data = path.read_bytes()
    last = data.rindex(record.MARK)
    for cut in range(last, len(data)):
        torn = data[:cut] + bytes(zeros)
        if torn.startswith(data):
            continue  # only zeros were cut off
        target = memory_path / "torn"
        shutil.copytree(whole, target)
        (target / "cursors").unlink()  # written at the clean stop: a crash has none that knows of the last record
        (target / path.name).write_bytes(torn)
        async with opened(target) as journal:
            assert await held(journal) == items[:2]
            assert journal.stored == 1
            stats = journal.stats()
            assert stats["torn_bytes"] == len(data[last:cut].rstrip(b"\0"))
            assert stats["damages"] == 0
            assert (target / path.name).stat().st_size == last
        shutil.rmtree(target)


async def test_a_birth_cut_short_is_forgotten(tmp_path: Path) -> None:
    """The newest file with a header torn at any byte, or none, is removed, and its offsets are passed over."""
    items = await made(tmp_path, [mixed(1)])
    header = record.pack_header(record.Header(bytes(16), 1 << 30, 0, 0, 0))
    for cut in [*range(0, record.HEADER_SIZE, 7), record.HEADER_SIZE - 1]:
        base = 1 << 40
        (tmp_path / name_of(base, 0)).write_bytes(header[:cut])
        async with opened(tmp_path) as journal:
            assert await held(journal) == items
            assert journal.stats()["set_aside"] == 0
            assert journal.next_offset == base + JUMP
            assert len(segments(tmp_path)) == 2
        segments(tmp_path)[-1].unlink()
        (tmp_path / "cursors").unlink()


@pytest.mark.parametrize("at", ["mark", "size", "base", "payload", "all"])
async def test_a_damaged_record_costs_itself_alone(tmp_path: Path, at: str) -> None:
    """The records before and behind a damaged one are read; it is counted once, and its file set aside when passed."""
    items = await made(tmp_path, [reading(number) for number in range(6)])
    (path,) = segments(tmp_path)
    data = bytearray(path.read_bytes())
    starts = [at for at in range(len(data)) if data.startswith(record.MARK, at)]
    third, fourth = starts[2:4]
    match at:
        case "all":
            data[third:fourth] = bytes(fourth - third)
        case "payload":
            data[third + record.HEAD_SIZE + 5] ^= 1
        case _:
            data[third + {"mark": 1, "size": 10, "base": 20}[at]] ^= 16
    path.write_bytes(data)
    async with opened(tmp_path) as journal:
        cursor = journal.cursor("sink")
        assert await held(journal) == items[:2] + items[3:]
        assert journal.stats()["damages"] == 1
        assert journal.stats()["damaged_segments"] == 1
        assert journal.stored == 6
        offset = cursor.position.offset
        for expected in (items[:2], items[3:]):
            batch = await cursor.read(offset, max_delay=0)
            assert list(enumerate(batch.items, batch.base)) == expected
            offset = batch.end
            cursor.confirm(offset)
        assert (cursor.lost, cursor.pending) == (1, 0)
        assert journal.stats()["damages"] == 1
    assert not path.exists()
    (aside,) = tmp_path.glob("*.damaged-*")
    assert aside.read_bytes() == data
    async with opened(tmp_path) as journal:
        cursor = journal.cursor("sink")
        assert (cursor.lost, cursor.pending) == (1, 0)


async def crashed(directory: Path, count: int) -> tuple[list[tuple[int, Item]], list[int]]:
    """A journal of ``count`` readings, a record each, whose places know nothing; and where the records start."""
    items = await made(directory, [reading(number) for number in range(count)])
    (directory / "cursors").unlink()
    (path,) = segments(directory)
    data = path.read_bytes()
    return items, [at for at in range(len(data)) if data.startswith(record.MARK, at)]


async def test_several_damaged_records_at_the_end_are_no_torn_write(tmp_path: Path) -> None:
    """At most one record is torn by a crash: more of them are damage, which is counted, reported and kept."""
    items, starts = await crashed(tmp_path, 8)
    (path,) = segments(tmp_path)
    data = bytearray(path.read_bytes())
    for at in starts[5:]:
        data[at + 60] ^= 1
    path.write_bytes(data)
    for _ in range(2):
        async with opened(tmp_path) as journal:
            assert await held(journal) == items[:5]
            stats = journal.stats()
            assert (stats["damages"], stats["damaged_segments"], stats["torn_bytes"]) == (1, 1, 0)
            assert "damaged" in journal.problems()[0]
            assert journal.stored == 8
            assert journal.next_offset > items[-1][0] + DAMAGED_JUMP
    async with opened(tmp_path) as journal:
        cursor = journal.cursor("sink")
        batch = await cursor.read(0, max_delay=0)
        await fill(journal, [reading(9)])
        cursor.confirm(batch.end)
        cursor.confirm((await cursor.read(batch.end, max_delay=0)).end)
        assert (cursor.delivered, cursor.lost, cursor.pending) == (6, 3, 0)
    assert not path.exists()
    (aside,) = tmp_path.glob("*.seg.damaged-*")
    assert aside.read_bytes() == data


async def test_one_damaged_record_at_the_end_is_torn(tmp_path: Path) -> None:
    """A single record that is not whole cannot be told from a torn one, and is cut."""
    items, starts = await crashed(tmp_path, 4)
    (path,) = segments(tmp_path)
    data = bytearray(path.read_bytes())
    data[starts[-1] + 60] ^= 1
    path.write_bytes(data)
    async with opened(tmp_path) as journal:
        assert await held(journal) == items[:3]
        assert (journal.stats()["damages"], journal.stored, journal.problems()) == (0, 3, [])
        assert journal.stats()["torn_bytes"] == len(data.rstrip(b"\0")) - starts[-1]


async def test_whole_records_behind_damage_in_the_newest_segment_are_read(tmp_path: Path) -> None:
    """After a crash, too, damage in the middle costs itself alone."""
    items, starts = await crashed(tmp_path, 8)
    (path,) = segments(tmp_path)
    data = bytearray(path.read_bytes())
    for at in (*starts[2:5], starts[7]):
        data[at + 60] ^= 1
    path.write_bytes(data)
    async with opened(tmp_path) as journal:
        assert await held(journal) == items[:2] + items[5:7]
        assert (journal.stats()["damages"], journal.stored) == (1, 7)


async def test_every_flipped_bit_never_gives_a_wrong_value(memory_path: Path) -> None:
    """Whatever byte of a segment is damaged, what is read is a part of what was written."""
    whole = memory_path / "whole"
    items = await made(whole, [reading(number) for number in range(3)])
    (path,) = segments(whole)
    data = path.read_bytes()
    for at in range(len(data)):
        target = memory_path / "flipped"
        shutil.copytree(whole, target)
        damaged = bytearray(data)
        damaged[at] ^= 1 << at % 8
        (target / path.name).write_bytes(damaged)
        async with opened(target) as journal:
            found = await held(journal)
            assert [entry for entry in items if entry in found] == found
            assert len(found) == len(items) - (at >= record.HEADER_SIZE)
            assert journal.stats()["damages"] + journal.stats()["damaged_segments"] > 0
            assert journal.stored == 3
        shutil.rmtree(target)


async def test_a_tail_lost_by_the_disk_is_told_from_a_torn_one(tmp_path: Path) -> None:
    """When records are missing that were durable at the clean stop, that is damage, and offsets jump further."""
    items = await made(tmp_path, [reading(number) for number in range(4)])
    (path,) = segments(tmp_path)
    data = path.read_bytes()
    path.write_bytes(data[: data.rindex(record.MARK) + 30])
    async with opened(tmp_path) as journal:
        assert await held(journal) == items[:3]
        assert journal.stats()["damages"] == 1
        assert journal.stored == 4
        assert journal.next_offset == items[-1][0] + 1 + DAMAGED_JUMP
        cursor = journal.cursor("sink")
        batch = await cursor.read(0, max_delay=0)
        (offset,) = await fill(journal, [reading(5)])
        cursor.confirm(batch.end)
        batch = await cursor.read(batch.end, max_delay=0)
        assert batch.base == offset
        cursor.confirm(batch.end)
        assert (cursor.pending, cursor.lost) == (0, 1)


async def test_old_segments_truncated_or_gone_are_passed(tmp_path: Path) -> None:
    """A segment that is empty, short or missing costs what it held; the count of what was lost is exact."""
    items: list[tuple[int, Item]] = []
    for run in range(5):
        items += await made(tmp_path, [reading(run * 10 + number) for number in range(3)])
    paths = segments(tmp_path)
    paths[1].write_bytes(b"")
    data = paths[2].read_bytes()
    paths[2].write_bytes(data[: data.rindex(record.MARK)])
    paths[3].unlink()
    async with opened(tmp_path) as journal:
        kept = items[:3] + items[6:8] + items[12:]
        assert await held(journal) == kept
        assert journal.stored == 15
        cursor = journal.cursor("sink")
        offset, count = cursor.position.offset, 0
        while cursor.pending:
            batch = await cursor.read(offset, max_delay=0)
            count += batch.readings
            offset = batch.end
            cursor.confirm(offset)
        assert (count, cursor.lost) == (8, 7)
        assert journal.stats()["set_aside"] == 1


async def test_a_foreign_segment_is_set_aside(tmp_path: Path) -> None:
    """A segment of another state directory is neither read nor removed."""
    await made(tmp_path / "other", [reading(99)])
    items = await made(tmp_path / "ours", [reading(1)])
    (foreign,) = segments(tmp_path / "other")
    shutil.copy(foreign, tmp_path / "ours" / name_of(1 << 50, 0))
    shutil.copy(foreign, tmp_path / "ours" / name_of(1, 0))
    async with opened(tmp_path / "ours") as journal:
        assert await held(journal) == items
        assert journal.stats()["foreign_segments"] == 2
        assert journal.next_offset > 1 << 50
    assert len(list((tmp_path / "ours").glob("*.seg.foreign-*"))) == 2


async def test_rubbish_is_set_aside(tmp_path: Path) -> None:
    """A file that looks like a segment by name alone is set aside, the newest as well as an older one."""
    items = await made(tmp_path, [reading(1)])
    (tmp_path / name_of(5, 0)).write_bytes(b"rubbish" * 1000)
    (tmp_path / name_of(1 << 40, 0)).write_bytes(b"rubbish" * 1000)
    (tmp_path / "README").write_text("none of ours")
    async with opened(tmp_path) as journal:
        assert await held(journal) == items
        assert journal.stats()["set_aside"] == 2
        assert journal.problems() == ["2 files of the journal could not be read and were set aside"]
        assert journal.next_offset == (1 << 40) + DAMAGED_JUMP
    assert len(list(tmp_path.glob("*.seg.damaged-*"))) == 2


async def test_files_set_aside_are_bounded(tmp_path: Path) -> None:
    """Only the newest of many files set aside are kept."""
    for number in range(KEPT + 5):
        (tmp_path / name_of(number, 0)).write_bytes(b"rubbish" * 1000)
    async with opened(tmp_path):
        pass
    assert len(list(tmp_path.glob("*.seg.damaged-*"))) == KEPT


async def test_a_lost_epoch_is_that_of_the_segments(tmp_path: Path) -> None:
    """Without its file, or with a damaged one, the directory keeps the identity that its segments carry."""
    items = await made(tmp_path, [reading(1)])
    text = (tmp_path / "epoch").read_text()
    for damage in (
        "",
        "not hexadecimal",
        "ff",
        text.replace("4", "5").replace("a", "b"),
        text[:20],
        "GWEPOCH 3\n\n1\n",
    ):
        (tmp_path / "epoch").write_text(damage)
        async with opened(tmp_path) as journal:
            assert journal.epoch == text.split()[2]
            assert journal.stats()["set_aside"] == 1
            assert "epoch could not be read: kept as epoch.damaged-" in journal.problems()[0]
        assert (tmp_path / "epoch").read_text() == text
        async with opened(tmp_path) as journal:
            assert journal.problems() == []
            assert await held(journal) == items


async def test_without_its_segments_offsets_still_grow(tmp_path: Path) -> None:
    """Where all segments were deleted, the cursors' file alone keeps offsets and counts from starting again."""
    items = await made(tmp_path, [reading(number) for number in range(3)])
    for path in segments(tmp_path):
        path.unlink()
    async with opened(tmp_path) as journal:
        assert await held(journal) == []
        assert journal.next_offset > items[-1][0]
        assert journal.stored == 3


async def test_a_newer_version_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An older program names the file it does not understand, touches nothing, and can be followed by the newer."""
    with monkeypatch.context() as patch:
        patch.setattr(record, "VERSION", 2)
        items = await made(tmp_path, [reading(1)])
        before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    with pytest.raises(JournalError, match=r"format 2; this program knows 1"):
        await Journal(tmp_path).open()
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before
    with monkeypatch.context() as patch:
        patch.setattr(record, "VERSION", 2)
        async with opened(tmp_path) as journal:
            assert await held(journal) == items


async def test_one_journal_a_directory(tmp_path: Path) -> None:
    """A second journal on the same directory is refused while the first is open."""
    async with opened(tmp_path):
        with pytest.raises(StateLocked):
            await Journal(tmp_path).open()
    async with opened(tmp_path):
        pass


async def test_a_directory_that_cannot_be_made_is_told(tmp_path: Path) -> None:
    """A path that is no directory gives an error with a hint, and leaves nothing open."""
    (tmp_path / "file").write_text("")
    with pytest.raises(JournalError) as caught:
        await Journal(tmp_path / "file" / "journal").open()
    assert caught.value.hint


async def test_zeros_ahead_are_cut_and_no_damage(tmp_path: Path) -> None:
    """The zeros ahead of small records are gone after a clean stop, and after a crash they count as nothing."""
    directory = tmp_path / "a"
    async with opened(directory) as journal:
        offsets = await fill(journal, [reading(1), reading(2)])
        (path,) = segments(directory)
        assert path.stat().st_size > AHEAD - BLOCK
        crashed = copy(directory, tmp_path / "b")
    assert path.stat().st_size < 1000
    async with opened(crashed) as journal:
        assert [offset for offset, _ in await held(journal)] == offsets
        assert (journal.stats()["torn_bytes"], journal.stats()["damages"]) == (0, 0)
    assert path.read_bytes() == (crashed / path.name).read_bytes()


async def test_a_journal_of_format_1_is_read(tmp_path: Path) -> None:
    """A journal written by the first version of the format is read: segments, epoch, and a cursor in the middle."""
    directory = copy(FORMAT_1, tmp_path / "journal")
    async with opened(directory) as journal:
        assert [item for _, item in await held(journal)] == [mixed(number) for number in range(18)]
        assert journal.epoch == (FORMAT_1 / "epoch").read_text().strip()
        assert journal.stored == 15
        assert [offset for offset, _ in await held(journal)] == [
            *range(JUMP, JUMP + 12),
            *range(2 * JUMP + 12, 2 * JUMP + 18),
        ]
        cursor = journal.cursor("mqtt")
        assert (cursor.position.offset, cursor.position.readings, cursor.pending) == (JUMP + 5, 4, 11)
        assert (journal.stats()["damages"], journal.stats()["torn_bytes"], journal.stats()["set_aside"]) == (0, 0, 0)
        assert (cursor.began, cursor.delivered) == (4, 0)
    for name in ("epoch", "cursors"):
        (kept,) = directory.glob(f"{name}.v1-*")
        assert kept.read_bytes() == (FORMAT_1 / name).read_bytes()
    async with opened(directory) as journal:
        assert journal.cursor("mqtt").began == 4
    assert len(list(directory.glob("*.v1-*"))) == 2


async def test_a_journal_of_format_2_is_read(tmp_path: Path) -> None:
    """A journal with the second version of epoch and cursors is read, with all counts of a cursor."""
    directory = copy(FORMAT_1.with_name("format-2"), tmp_path / "journal")
    async with opened(directory) as journal:
        assert [item for _, item in await held(journal)] == [mixed(number) for number in range(18)]
        assert journal.epoch == (FORMAT_1.with_name("format-2") / "epoch").read_text().split()[2]
        assert (journal.stored, journal.problems()) == (15, [])
        cursor = journal.cursor("mqtt")
        assert (cursor.began, cursor.delivered, cursor.dead_lettered, cursor.pending) == (0, 3, 1, 11)
    assert list(directory.glob("*.v*")) == []


async def test_an_epoch_of_a_newer_version_is_refused(tmp_path: Path) -> None:
    """A sound epoch file of a later version is refused by name, and nothing is touched."""
    await made(tmp_path, [reading(1)])
    start = b"GWEPOCH 3\nwhatever\nmore\n"
    (tmp_path / "epoch").write_bytes(start + f"{zlib.crc32(start):08x}\n".encode())
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    with pytest.raises(JournalError, match=r"epoch has format 3; this program knows version 2"):
        await Journal(tmp_path).open()
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before


async def test_cursors_of_a_newer_version_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A cursors' file of a later version is refused, and nothing is touched, the damaged epoch file neither."""
    with monkeypatch.context() as patch:
        patch.setattr(places, "VERSION", 3)
        await made(tmp_path, [reading(1)])
    (tmp_path / "epoch").write_text("damaged")
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    with pytest.raises(JournalError, match=r"cursors has format 3; this program knows 2"):
        await Journal(tmp_path).open()
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before


async def test_the_epoch_that_the_holdings_bear_is_believed(tmp_path: Path) -> None:
    """An epoch file of another directory is set aside; it makes nothing foreign that all other files agree on."""
    items = await made(tmp_path / "ours", [reading(1)])
    await made(tmp_path / "other", [reading(2)])
    for keep_cursors in (True, False):
        shutil.copy(tmp_path / "other" / "epoch", tmp_path / "ours" / "epoch")
        if not keep_cursors:
            (tmp_path / "ours" / "cursors").unlink()
        async with opened(tmp_path / "ours") as journal:
            assert await held(journal) == items
            assert "epoch came from another state directory" in journal.problems()[0]
            assert journal.stats()["foreign_segments"] == 0


async def test_cursors_of_another_directory_are_set_aside(tmp_path: Path) -> None:
    """Places of another journal are not believed, and are kept."""
    items = await made(tmp_path / "ours", [reading(1)])
    await made(tmp_path / "other", [reading(number) for number in range(9)])
    shutil.copy(tmp_path / "other" / "cursors", tmp_path / "ours" / "cursors")
    async with opened(tmp_path / "ours") as journal:
        assert await held(journal) == items
        assert journal.stored == 1
        assert len(journal.problems()) == 1
    assert len(list((tmp_path / "ours").glob("cursors.foreign-*"))) == 1


async def test_an_epoch_alone_is_not_taken_up(tmp_path: Path) -> None:
    """Where segments and cursors are gone offsets may be used again: so it is another epoch."""
    await made(tmp_path, [reading(1)])
    for path in [*segments(tmp_path), tmp_path / "cursors"]:
        path.unlink()
    before = (tmp_path / "epoch").read_text().split()[2]
    async with opened(tmp_path) as journal:
        assert journal.epoch != before
        assert len(journal.problems()) == 1


async def test_directories_in_the_place_of_files(tmp_path: Path) -> None:
    """A directory that has a file's name is put out of the way like any other damage."""
    items = await made(tmp_path, [reading(1)])
    for name in ("epoch", "cursors"):
        (tmp_path / name).unlink()
        (tmp_path / name).mkdir()
    (tmp_path / name_of(1 << 40, 0)).mkdir()
    async with opened(tmp_path) as journal:
        assert await held(journal) == items
        assert journal.stats()["set_aside"] == 3
    async with opened(tmp_path) as journal:
        assert await held(journal) == items
        assert journal.stats()["set_aside"] == 0


@pytest.mark.parametrize("which", ["all", "oldest"])
async def test_segments_that_vanished_are_lost_and_told(tmp_path: Path, which: str) -> None:
    """Segments deleted between two starts count as lost, not as dropped to make room, and that is reported once."""
    for run in range(3):
        async with opened(tmp_path) as journal:
            cursor = journal.cursor("sink")
            await fill(journal, [reading(run * 10 + number) for number in range(4)])
            if not run:
                cursor.confirm((await cursor.read(0, max_readings=1, max_delay=0)).end)
    paths = segments(tmp_path)
    for path in paths if which == "all" else paths[:1]:
        path.unlink()
    gone = 12 if which == "all" else 4
    async with opened(tmp_path) as journal:
        assert journal.stats()["vanished"] == gone
        assert journal.problems()[0].startswith(f"{gone} stored readings have vanished")
        cursor = journal.cursor("sink")
        assert (cursor.lost, cursor.overflowed, cursor.delivered) == (gone - 1, 0, 1)
        assert cursor.pending == 12 - gone
    async with opened(tmp_path) as journal:
        cursor = journal.cursor("sink")
        assert (cursor.lost, cursor.overflowed) == (gone - 1, 0)
        assert journal.stats()["vanished"] == 0


async def test_what_was_let_go_has_not_vanished(tmp_path: Path) -> None:
    """What went because every open cursor had passed it is not reported, whenever the crash came."""
    async with opened(tmp_path / "a", segment_bytes=1) as journal:
        journal._writer._segment_bytes = 1000
        journal.cursor("closed").close()
        cursor = journal.cursor("sink")
        offsets = await fill(journal, [reading(number) for number in range(50)])
        cursor.confirm(offsets[-1] + 1)
        await journal._store_last()
        await settled(journal)
        directory = copy(tmp_path / "a", tmp_path / "b")
    async with opened(directory) as journal:
        assert len(await held(journal)) < 50
        assert journal.stats()["vanished"] == 0
        closed = journal.cursor("closed")
        assert (closed.lost, closed.overflowed) == (0, 50 - closed.pending)


async def test_the_clock_orders_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Starts in 1970, before it, and a day ahead or back: offsets grow, and everything is read in the order it came."""
    items: list[tuple[int, Item]] = []
    for run, seconds in enumerate([1_764_000_000, 5, -5, 1_764_086_400, 1_763_913_600]):
        monkeypatch.setattr("time.time_ns", lambda seconds=seconds: seconds * 10**9)
        monkeypatch.setattr("time.time", lambda seconds=seconds: float(seconds))
        items += await made(tmp_path, [reading(run * 10 + number) for number in range(3)])
    async with opened(tmp_path) as journal:
        assert await held(journal) == items
        assert [offset for offset, _ in items] == sorted(offset for offset, _ in items)
        assert journal.problems() == []


async def test_offsets_go_on_behind_a_place_that_is_known(tmp_path: Path) -> None:
    """What a reader of its own place knows is passed before anything is given out, and only where it lies ahead."""
    async with opened(tmp_path) as journal:
        before = journal.next_offset
        journal.go_on_behind(before)
        assert journal.next_offset == before
        journal.go_on_behind(1 << 40)
        assert journal.next_offset == (1 << 40) + JUMP
        await fill(journal, [reading(1)])
    async with opened(tmp_path) as journal:
        assert [offset for offset, _ in await held(journal)] == [(1 << 40) + JUMP]


async def test_unreadable_sectors_do_not_stop_a_start(tmp_path: Path) -> None:
    """Where the disk cannot read the start of a file it counts as damaged, like any other."""
    items = await made(tmp_path, [reading(1)])
    for name in ("epoch", "cursors"):
        (tmp_path / name).unlink(missing_ok=True)
        (tmp_path / name).symlink_to("/proc/self/mem")  # the first read of it fails with EIO
    async with opened(tmp_path) as journal:
        assert await held(journal) == items
        assert journal.stats()["set_aside"] == 2


async def test_a_sector_that_cannot_be_read_at_the_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The likeliest place after a power cut: the start goes on with what can be read, and says what was lost."""
    async with opened(tmp_path) as journal:
        journal.cursor("keeps")
        for _ in range(5):
            for number in range(100):
                journal.append(reading(number))
            await journal.flush()
    newest = max((tmp_path / "journal").glob("*.seg") if (tmp_path / "journal").is_dir() else tmp_path.glob("*.seg"))
    size, inode = newest.stat().st_size, newest.stat().st_ino
    bad = (size - 3000) // 4096 * 4096
    real = os.pread

    def pread(fd: int, count: int, at: int) -> bytes:
        if os.fstat(fd).st_ino == inode and at < bad + 4096 and at + count > bad:
            raise OSError(errno.EIO, "Input/output error")
        return real(fd, count, at)

    monkeypatch.setattr(os, "pread", pread)
    async with opened(tmp_path) as journal:
        assert any("damaged" in problem for problem in journal.problems())
        offset = journal.next_offset
        journal.append(reading(1))
        await journal.flush()
        assert journal.durable_offset == offset + 1
