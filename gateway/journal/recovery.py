"""Opening a journal's directory: what is held, what is set aside, where offsets go on.  Blocking; no thread of its own.

Only the newest segment is read through: its end is torn after a crash and is cut.  Older ones are checked record by
record when a cursor reads them.  Nothing that can be read is thrown away; what cannot is renamed, not removed.

Offsets shown to anybody before a crash are never used again: at most :data:`JUMP` offsets are given out before they are
durable, and each start goes on that far behind everything known, in a new segment that is durable before the first
offset is given out.  Where the newest holdings are damaged, their true end is unknown and the jump is larger.
"""

from __future__ import annotations

import contextlib
import os
import secrets
from typing import TYPE_CHECKING

import msgspec

from gateway.errors import JournalError
from gateway.journal import places, record
from gateway.journal.reader import Damage, RecordFile
from gateway.journal.segment import Segment, parse_name, remove, set_aside, sync_directory

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["EPOCH_NAME", "JUMP", "Recovered", "recover"]

EPOCH_NAME = "epoch"
JUMP = 1 << 20
DAMAGED_JUMP = 1 << 32


class Recovered(msgspec.Struct):
    """What a directory holds.

    ``end`` is the offset behind the last item, ``stored`` the readings ever stored, ``base`` where offsets go on.
    """

    epoch: bytes
    segments: list[Segment]
    places: dict[str, places.Place]
    places_number: int
    end: int = 0
    stored: int = 0
    base: int = 0
    torn_bytes: int = 0
    foreign: int = 0
    set_aside: int = 0
    damages: list[Damage] = []


def recover(directory: Path) -> Recovered:
    """Read ``directory``, which exists and is ours alone; cut the torn end; set aside what is none of ours or damaged.

    Raises :class:`JournalError` for files of a newer version, ``OSError`` when the disk fails.
    """
    found: list[tuple[int, int, Path, record.Header | None]] = []
    for path in directory.iterdir():
        named = parse_name(path.name)
        if named is not None:
            found.append((*named, path, _header(path)))
    found.sort(key=lambda entry: entry[:2])

    epoch = _epoch(directory, [header.epoch for *_, header in found if header is not None])
    try:
        number, state, damaged_places = places.load(directory / places.FILE_NAME)
    except places.NewerVersion as error:
        raise JournalError(
            f"{directory / places.FILE_NAME} has {error}", hint="run the newer version again, or move the journal away"
        ) from error
    if state is not None and state.epoch != epoch:
        state = None
    if damaged_places:
        set_aside_places(directory)
    result = Recovered(epoch, [], dict(state.cursors) if state else {}, number)
    result.set_aside += damaged_places
    damaged = damaged_places

    kept: list[tuple[Segment, record.Header | None]] = []
    for base, generation, path, header in found:
        if header is not None and header.epoch != epoch:
            set_aside(path, "foreign")
            result.foreign += 1
            continue
        segment = Segment(path, base, generation, 0, path.stat().st_size)
        if header is not None and header.base == base:
            segment.before = header.before
            kept.append((segment, header))
        elif _find_before(segment, epoch):
            segment.damaged_at.add(0)
            kept.append((segment, None))
            damaged = True
        elif segment.size <= record.HEADER_SIZE and base == found[-1][0]:
            remove(path)  # a birth that a crash cut short
        else:
            set_aside(path, "damaged")
            result.set_aside += 1
            damaged = True

    seed = record.seed_of(epoch)
    for index, (segment, _) in enumerate(kept):
        successor = kept[index + 1] if index + 1 < len(kept) else None
        if successor is not None and successor[1] is not None:
            segment.end = max(segment.base, min(successor[1].previous_end, successor[0].base))
            segment.end_readings = max(segment.before, successor[1].before)
        else:
            _scan(segment, seed, result, newest=successor is None)
    known = [base for base, *_ in found] + [place.offset for place in result.places.values()]
    for segment, _ in kept:
        if segment.end > segment.base:
            result.end = segment.end
        result.stored = max(result.stored, segment.end_readings)
    if state is not None:
        if state.end > max([result.end, *(segment.base for segment, _ in kept)]):
            damaged = True
            if kept:
                newest = kept[-1][0]
                result.damages.append(Damage(newest.path, newest.size, newest.end, state.end))
                newest.damaged_at.add(newest.size)
            result.end = state.end
        result.stored = max(result.stored, state.stored)
    damaged = damaged or bool(result.damages)
    result.base = max([result.end, *known]) + (DAMAGED_JUMP if damaged else JUMP)
    result.segments = [segment for segment, _ in kept]
    return result


def set_aside_places(directory: Path) -> None:
    """Rename the cursors' file, of which nothing can be read.  Raises ``OSError``."""
    path = directory / places.FILE_NAME
    path.replace(path.with_name(f"{places.FILE_NAME}.damaged"))


def _header(path: Path) -> record.Header | None:
    with path.open("rb") as file:
        data = file.read(4096)
    try:
        return record.unpack_header(data)
    except record.NewerVersion as error:
        raise JournalError(
            f"{path} has {error}", hint="run the newer version again, or move the journal away"
        ) from error
    except record.BadHeader:
        return None


def _epoch(directory: Path, of_segments: list[bytes]) -> bytes:
    """The directory's epoch: from its file, else that of the newest segment, else a new one, written durably."""
    path = directory / EPOCH_NAME
    with contextlib.suppress(FileNotFoundError, ValueError):
        epoch = bytes.fromhex(path.read_text("ascii").strip())
        if len(epoch) == 16:
            return epoch
    epoch = of_segments[-1] if of_segments else secrets.token_bytes(16)
    temporary = path.with_suffix(".new")
    with temporary.open("w", encoding="ascii") as file:
        file.write(epoch.hex() + "\n")
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)
    sync_directory(directory)
    return epoch


def _find_before(segment: Segment, epoch: bytes) -> bool:
    """Take ``before`` from the first whole record of a segment whose header is damaged; whether there is one."""
    with contextlib.closing(RecordFile(segment.path, record.seed_of(epoch))) as file:
        found = file.next(segment.base, None)
    if found is None:
        return False
    segment.before = found[0].before
    return True


def _scan(segment: Segment, seed: int, result: Recovered, *, newest: bool) -> None:
    """Find the segment's end by reading it; of the newest, cut the torn end and make the rest durable."""
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
            torn = os.pread(fd, segment.size - end, end)
            result.torn_bytes += len(torn.rstrip(b"\0"))  # zeros were written ahead of the records
            os.ftruncate(fd, end)
            segment.size = end
        # The last record may never have been synced, or its sync may have failed and been forgotten by the kernel:
        # writing it again makes its pages dirty, so that this sync is a real one.
        os.pwrite(fd, os.pread(fd, end - last, last), last)
        os.fsync(fd)
    finally:
        os.close(fd)
