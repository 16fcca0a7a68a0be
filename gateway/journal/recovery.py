"""Opening a journal's directory: what is held, what is set aside, where offsets go on.  Blocking; no thread of its own.

Everything is looked at before anything is changed, so that a file of a newer version is refused and all is left as it
was.  Only the newest segment is read through: its end is torn after a crash and is cut.  What stands there and cannot
be one torn record is damage, and is left where it is: nothing is written behind it, and its file is set aside when all
cursors have passed.  Older ones are checked record by record when a cursor reads them.  Nothing that can be read is
thrown away; what cannot is renamed, not removed.

The epoch is the one that the epoch file names, if a segment or the cursors' file bears it too; else the newest
segment's, else that of the cursors' file.  Where neither is left there is nothing that offsets could be compared with,
and a new epoch begins.

Offsets shown to anybody before a crash are never used again in their epoch: at most :data:`JUMP` offsets are given out
before they are durable, and each start goes on that far behind everything known, in a new segment that is durable
before the first offset is given out.  Where the newest holdings are damaged, their true end is unknown and the jump is
larger.
"""

from __future__ import annotations

import contextlib
import os
import secrets
from typing import TYPE_CHECKING

import msgspec

from gateway.aside import keep_copy, read_start, remove, set_aside
from gateway.errors import JournalError
from gateway.journal import identity, places, record
from gateway.journal.counters import counted
from gateway.journal.places import Gone
from gateway.journal.reader import Damage, RecordFile, pread
from gateway.journal.segment import KIND, Segment, parse_name
from gateway.journal.torn import judge

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["JUMP", "Recovered", "recover"]

JUMP = 1 << 20
DAMAGED_JUMP = 1 << 32


class Recovered(msgspec.Struct):
    """What a directory holds.

    ``epoch_due``: the epoch is to be written once a segment that bears it is durable: an epoch file without any means
    that others were removed.

    ``end`` is the offset behind the last item, ``stored`` the readings ever stored, ``base`` where offsets go on,
    ``gone`` up to where segments were let go on purpose, ``vanished`` the readings that should be held and of which no
    file is left.
    """

    epoch: bytes
    segments: list[Segment]
    places: dict[str, places.Place]
    places_number: int
    epoch_due: bool = False
    end: int = 0
    stored: int = 0
    base: int = 0
    gone: Gone = Gone(0, 0)
    vanished: int = 0
    torn_bytes: int = 0
    foreign: int = 0
    set_aside: int = 0
    damages: list[Damage] = []
    problems: list[str] = []


class _Found(msgspec.Struct):
    base: int
    generation: int
    path: Path
    header: record.Header | None


def recover(directory: Path) -> Recovered:
    """Read ``directory``, which exists and is ours alone; cut the torn end; set aside what is none of ours or damaged.

    Raises :class:`JournalError` for files of a newer version, ``OSError`` when the disk fails.
    """
    found = _list(directory)
    kept_epoch = identity.read(directory / identity.FILE_NAME)
    if kept_epoch.version > identity.VERSION:
        raise _newer(directory / identity.FILE_NAME, f"format {kept_epoch.version}; this program knows version 2")
    cursors = _load(directory / places.FILE_NAME)
    state = cursors.places

    # Up to here nothing was changed.
    epoch = _choose_epoch(kept_epoch, found, state)
    result = Recovered(epoch, [], {}, cursors.number)
    _keep_epoch(directory / identity.FILE_NAME, kept_epoch, result)
    state = _keep_places(directory / places.FILE_NAME, cursors, result)
    damaged = cursors.damaged
    damaged |= _keep_segments(found, result)
    kept = result.segments
    for segment in kept:
        if segment.end > segment.base:
            result.end = max(result.end, segment.end)
        result.stored = max(result.stored, segment.end_readings)
    if state is not None:
        result.places = dict(state.cursors)
        if state.end > max([result.end, *(segment.base for segment in kept)]):
            damaged = True
            if kept:
                newest = kept[-1]
                result.damages.append(Damage(newest.path, newest.size, newest.end, state.end))
                newest.damaged_at.add(newest.size)
            result.end = state.end
        result.stored = max(result.stored, state.stored)
    damaged = damaged or bool(result.damages)
    known = [entry.base for entry in found] + [place.offset for place in result.places.values()]
    result.base = max([result.end, *known]) + (DAMAGED_JUMP if damaged else JUMP)
    _judge_gone(state, result)
    return result


def _list(directory: Path) -> list[_Found]:
    """The segments by offset.  Raises :class:`JournalError` for one of a newer version."""
    found = []
    for path in directory.iterdir():
        named = parse_name(path.name)
        if named is not None:
            found.append(_Found(*named, path, _header(path) if path.is_file() else None))
    return sorted(found, key=lambda entry: (entry.base, entry.generation))


def _header(path: Path) -> record.Header | None:
    data = read_start(path, 4096)
    if data is None:
        return None
    try:
        return record.unpack_header(data)
    except record.NewerVersion as error:
        raise _newer(path, str(error)) from error
    except record.BadHeader:
        return None


def _load(path: Path) -> places.Loaded:
    try:
        return places.load(path)
    except places.NewerVersion as error:
        raise _newer(path, str(error)) from error


def _newer(path: Path, what: str) -> JournalError:
    return JournalError(f"{path} has {what}", hint="run the newer version again, or move the journal away")


def _choose_epoch(kept: identity.Kept, found: list[_Found], state: places.Places | None) -> bytes:
    borne = [entry.header.epoch for entry in found if entry.header is not None]
    if state is not None:
        borne.insert(0, state.epoch)
    if kept.epoch in borne:
        return kept.epoch
    return borne[-1] if borne else secrets.token_bytes(identity.SIZE)


def _keep_epoch(path: Path, kept: identity.Kept, result: Recovered) -> None:
    """Put an epoch's file out of the way that does not say what was chosen, in today's form."""
    if kept.epoch == result.epoch:
        if kept.version == identity.VERSION:
            return
        keep_copy(path, kept.version)
    elif kept.version:
        why = "damaged" if kept.epoch is None else "foreign"
        aside = set_aside(path, why)
        result.set_aside += aside is not None
        result.problems.append(_said("The journal's epoch", why, aside))
    result.epoch_due = True


def _keep_places(path: Path, cursors: places.Loaded, result: Recovered) -> places.Places | None:
    """The cursors' state, if it is this journal's; what cannot be used is set aside, what is old is copied."""
    state = cursors.places
    if state is not None and state.epoch == result.epoch:
        if cursors.version < places.VERSION:
            keep_copy(path, cursors.version)
        return state
    if state is not None or cursors.damaged:
        why = "foreign" if state is not None else "damaged"
        aside = set_aside(path, why)
        result.set_aside += aside is not None
        result.problems.append(_said("The sinks' places in the journal", why, aside))
        result.places_number = 0
    return None


def _said(what: str, why: str, aside: Path | None) -> str:
    cause = "could not be read" if why == "damaged" else "came from another state directory"
    return f"{what} {cause}: kept as {aside.name if aside else '?'}"


def _keep_segments(found: list[_Found], result: Recovered) -> bool:
    """Take in the segments that are ours, with what they hold; set aside the others.  Whether there was damage."""
    seed = record.seed_of(result.epoch)
    damaged, aside = False, 0
    kept: list[tuple[Segment, record.Header | None]] = []
    for entry in found:
        path, header = entry.path, entry.header
        if header is not None and header.epoch != result.epoch:
            set_aside(path, "foreign", kind=KIND)
            result.foreign += 1
            continue
        segment = Segment(path, entry.base, entry.generation, 0, path.stat().st_size)
        if header is not None and header.base == entry.base:
            segment.before = header.before
            kept.append((segment, header))
        elif path.is_file() and _find_before(segment, seed):
            segment.damaged_at.add(0)
            kept.append((segment, None))
            damaged = True
        elif path.is_file() and segment.size <= record.HEADER_SIZE and entry.base == found[-1].base:
            remove(path)  # a birth that a crash cut short
        else:
            set_aside(path, "damaged", kind=KIND)
            aside += 1
            damaged = True
    if aside:
        result.set_aside += aside
        were = "was" if aside == 1 else "were"
        result.problems.append(f"{counted(aside, 'file')} of the journal could not be read and {were} set aside")
    for index, (segment, _) in enumerate(kept):
        successor = kept[index + 1] if index + 1 < len(kept) else None
        if successor is not None and successor[1] is not None:
            segment.end = max(segment.base, min(successor[1].previous_end, successor[0].base))
            segment.end_readings = max(segment.before, successor[1].before)
        else:
            _scan(segment, seed, result, newest=successor is None)
    result.segments = [segment for segment, _ in kept]
    return damaged


def _judge_gone(state: places.Places | None, result: Recovered) -> None:
    """What lies below the first item held and was not let go has vanished."""
    kept = result.segments
    first = Gone(kept[0].base, kept[0].before) if kept else Gone(result.base, result.stored)
    if state is None or state.gone is None or state.gone.offset >= first.offset:
        result.gone = first
        return
    result.gone = state.gone
    result.vanished = max(0, first.readings - state.gone.readings)
    if result.vanished:
        result.problems.append(
            f"{result.vanished:,} stored readings have vanished from the journal: files of it were removed"
        )


def _find_before(segment: Segment, seed: int) -> bool:
    """Take ``before`` from the first whole record of a segment whose header is damaged; whether there is one."""
    with contextlib.closing(RecordFile(segment.path, seed)) as file:
        found = file.next(segment.base, None)
    if found is None:
        return False
    segment.before = found[0].before
    return True


def _scan(segment: Segment, seed: int, result: Recovered, *, newest: bool) -> None:
    """Find the segment's end by reading it; of the newest, cut the torn end and make the rest durable.

    What is lost at the newest's end goes to ``result``: the segment itself ends behind what can be read.
    """
    with contextlib.closing(RecordFile(segment.path, seed)) as file:
        last = record.HEADER_SIZE
        segment.end, segment.end_readings = segment.base, segment.before
        while (found := file.next(segment.end, None)) is not None:
            head, payload = found
            last = file.at - record.HEAD_SIZE - len(payload)
            segment.end = head.end
            segment.end_readings = head.before + head.readings
        end = file.at
        for damage in file.damages:
            segment.damaged_at.add(damage.at)
        result.damages += file.damages
    if not newest:
        return
    fd = os.open(segment.path, os.O_RDWR | os.O_CLOEXEC)
    try:
        if segment.size > end:
            rest = pread(fd, segment.size - end, end)
            lost = judge(rest, segment.end, segment.end_readings)
            if lost is None:
                result.torn_bytes += len(rest.rstrip(b"\0"))  # zeros were written ahead of the records
                os.ftruncate(fd, end)
                segment.size = end
            else:
                result.damages.append(Damage(segment.path, end, segment.end, lost.end))
                segment.damaged_at.add(end)
                result.end, result.stored = lost
        # The last record may never have been synced, or its sync may have failed and been forgotten by the kernel:
        # writing it again makes its pages dirty, so that this sync is a real one.
        # (What cannot be read a second time is left as it is: zeros in its place would be a loss.)
        with contextlib.suppress(OSError):
            os.pwrite(fd, os.pread(fd, end - last, last), last)
        os.fsync(fd)
    finally:
        os.close(fd)
