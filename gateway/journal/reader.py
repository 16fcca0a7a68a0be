"""Reading segments from disk: in order, whole records at a time, past damage.

A :class:`Reader` keeps its file, its place in it and at most one decoded record, so that reading on where the last call
ended costs no search, and a backlog of any size needs a buffer and one record of memory.  It has no thread of its own:
one call at a time, from any thread.

Damage: where no whole record stands although the segment holds more, the next whole record is searched byte by byte.
What lies between is reported as a :class:`Damage` and never guessed at.
"""

from __future__ import annotations

import contextlib
import errno
import os
from bisect import bisect_right
from typing import TYPE_CHECKING, NamedTuple

import msgspec

from gateway.journal import record
from gateway.reading import Batch, Item

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from gateway.journal.segment import Segment

__all__ = ["Damage", "Reader", "RecordFile", "SpareReaders", "Taken", "pread", "seek_readings"]

BUFFER = 256 << 10
SPARE_READERS = 4
_PAGE = 4096


class Damage(NamedTuple):
    """What could not be read: the file, the place in it, and the offsets that are lost (``end`` excluded)."""

    path: Path
    at: int
    base: int
    end: int


class Taken(NamedTuple):
    """What one call read.

    ``before`` is the readings ever stored below ``batch.base``.  ``batch`` is ``None`` where nothing is left to read;
    then these are the readings below the last item that lies below the offset asked for, and ``barren`` says whether
    all files were looked into: what was stored up to the limit is lost.
    """

    batch: Batch | None
    before: int
    damages: list[Damage]
    barren: bool = False


class RecordFile:
    """Records of one file, in order.  Raises ``OSError`` where the file cannot be opened."""

    def __init__(self, path: Path, seed: int, at: int = record.HEADER_SIZE) -> None:
        self.path = path
        self.at = at
        """Where the next record starts."""
        self.damages: list[Damage] = []
        self._seed = seed
        self._fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        self._data = b""
        self._start = 0  # the file position of _data[0]

    def close(self) -> None:
        """Close the file."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def next(self, expected: int, stop: int | None) -> tuple[record.Head, memoryview] | None:
        """The next whole record with its payload, searching past damage; ``None`` at the end of what is whole.

        ``expected`` is the offset the record should not lie below.  ``stop`` is the offset at which the file's holdings
        end, or ``None`` where only the file knows: then damage without a whole record behind it counts as the end.
        """
        if stop is not None and expected >= stop:
            self._data = b""  # more may be written behind here
            return None
        at = self.at
        found = self._record(at)
        if found is None or found[0].base < expected:
            found = self._search(at + 1)
            while found is not None and found[0].base < expected:
                found = self._search(self.at + 1)
            start = self.at
        else:
            start = at
        if found is None or (stop is not None and found[0].base >= stop):
            # Not read on from here: what the file holds behind ``stop`` is not (or not yet) to be trusted.
            self.at = at
            self._data = b""
            if stop is not None:
                self.damages.append(Damage(self.path, at, expected, stop))
            return None
        if found[0].base > expected:
            self.damages.append(Damage(self.path, at, expected, found[0].base))
        self.at = start + record.HEAD_SIZE + found[0].size
        return found

    def _record(self, at: int) -> tuple[record.Head, memoryview] | None:
        """The record at ``at`` if it is whole."""
        view = self._view(at, record.HEAD_SIZE)
        if len(view) < record.HEAD_SIZE:
            return None
        head = record.unpack_head(view)
        if head is None:
            return None
        size = record.HEAD_SIZE + head.size
        if head.size > BUFFER and at + size > os.fstat(self._fd).st_size:
            return None
        view = self._view(at, size)
        if len(view) < size or not record.is_whole(self._seed, head, view[:size]):
            return None
        return head, view[record.HEAD_SIZE : size]

    def _search(self, at: int) -> tuple[record.Head, memoryview] | None:
        """The first whole record at or behind ``at``; ``self.at`` is where it starts."""
        while True:
            view = self._view(at, record.HEAD_SIZE)
            if len(view) < record.HEAD_SIZE:
                return None
            place = self._data.find(record.MARK, at - self._start)
            if place < 0:
                # The mark may straddle the buffer's end.
                at = max(at + 1, self._start + len(self._data) - len(record.MARK) + 1)
                continue
            at = self._start + place
            found = self._record(at)
            if found is not None:
                self.at = at
                return found
            at += 1

    def _view(self, at: int, size: int) -> memoryview:
        """Bytes from ``at`` on: ``size`` or more, fewer only at the end of the file."""
        index = at - self._start
        if index < 0 or index + size > len(self._data):
            self._data = pread(self._fd, max(size, BUFFER), at)
            self._start = at
            index = 0
        return memoryview(self._data)[index:]


def pread(fd: int, size: int, at: int) -> bytes:
    """As os.pread, with zeros for what the disk cannot read, which no checksum takes for data.  Raises ``OSError``."""
    try:
        return os.pread(fd, size, at)
    except OSError as error:
        if error.errno != errno.EIO:
            raise
    pages = []
    while size > 0:
        step = min(_PAGE - at % _PAGE, size)
        try:
            page = os.pread(fd, step, at)
        except OSError as error:
            if error.errno != errno.EIO:
                raise
            page = bytes(step)
        if not page:
            break
        pages.append(page)
        at += len(page)
        size -= len(page)
    return b"".join(pages)


class Reader:
    """Items at and behind an offset, across segments."""

    def __init__(self, seed: int) -> None:
        self._seed = seed
        self._file: RecordFile | None = None
        self._next = -1  # the offset the file's next record should have
        self._head: record.Head | None = None  # of the record decoded last
        self._since = 0  # nothing can be read from here to its base
        self._barren = (0, 0)  # nothing can be read between these offsets either
        self._passed = 0  # readings below the last item that was passed
        self._missing = False  # whether a file could not be found
        self._items: list[Item] = []

    def close(self) -> None:
        """Close the file."""
        if self._file is not None:
            self._file.close()
            self._file = None
        self._head = None
        self._items = []
        self._next = -1
        self._barren = (0, 0)

    def read(self, segments: Sequence[Segment], offset: int, limit: int, max_items: int) -> Taken:
        """At most ``max_items`` consecutive items, the first at ``offset`` or, past a gap, at the next that is held.

        ``segments`` are in order and not empty; nothing at or behind ``limit`` (an offset) is read.  Raises ``OSError``
        where the disk fails otherwise than by unreadable places.
        """
        damages: list[Damage] = []
        out: list[Item] = []
        base = before = 0
        try:
            while len(out) < max_items:
                head = self._head
                if head is None or not self._since <= offset < head.end:
                    head = self._advance(segments, offset, limit, damages)
                    if head is None:
                        break
                if head.base > offset:
                    if out:
                        break
                    offset = head.base
                skip = offset - head.base
                part = self._items[skip : skip + max_items - len(out)]
                if not out:
                    base = offset
                    before = head.before + record.count_readings(self._items[:skip])
                out += part
                offset += len(part)
        except OSError:
            self.close()
            raise
        if not out:
            return Taken(None, self._passed, damages, not self._missing)
        return Taken(Batch(base, out, record.count_readings(out)), before, damages)

    def _advance(
        self, segments: Sequence[Segment], offset: int, limit: int, damages: list[Damage]
    ) -> record.Head | None:
        """Decode the next record that holds ``offset`` or, past a gap, lies behind it."""
        start = offset
        self._missing = False
        if self._barren[0] <= offset < self._barren[1]:
            offset = self._barren[1]
        for segment, stop in self._from(segments, offset, limit):
            file = self._file
            if file is None or file.path != segment.path or self._next > max(offset, segment.base):
                self.close()
                try:
                    file = self._file = RecordFile(segment.path, self._seed)
                except FileNotFoundError:
                    self._missing = True
                    continue  # dropped meanwhile
                self._next = segment.base
                self._passed = segment.before
            while (found := file.next(self._next, stop)) is not None:
                head, payload = found
                self._next = head.end
                if head.end <= offset:
                    self._passed = head.before + head.readings
                    continue
                try:
                    items = record.decode(payload)
                except msgspec.MsgspecError:
                    items = []
                if len(items) != head.items:
                    damages.append(Damage(segment.path, file.at, head.base, head.end))
                    continue
                damages += file.damages
                file.damages.clear()
                self._head, self._items, self._since = head, items, min(start, head.base)
                return head
            damages += file.damages
            file.damages.clear()
            self._next = max(self._next, stop)
        if not self._missing:
            self._barren = (start, max(start, self._next))
        return None

    def _from(self, segments: Sequence[Segment], offset: int, limit: int) -> Iterator[tuple[Segment, int]]:
        """The segments that hold something at or behind ``offset``, each with the offset to stop at."""
        first = max(0, bisect_right(segments, offset, key=lambda segment: segment.base) - 1)
        for index in range(first, len(segments)):
            segment = segments[index]
            stop = min(segment.end, limit)
            if index + 1 < len(segments):
                stop = min(stop, segments[index + 1].base)
            if max(offset, segment.base) < stop:
                yield segment, stop


class SpareReaders:
    """Readers that stand where somebody may read on, by offset.

    Bound: :data:`SPARE_READERS`; the one put back longest ago goes, and who comes back for it searches its segment.
    """

    def __init__(self) -> None:
        self._readers: dict[int, Reader] = {}

    def __len__(self) -> int:
        return len(self._readers)

    def take(self, offset: int) -> Reader | None:
        """The reader that stands at ``offset``, which is the caller's now."""
        return self._readers.pop(offset, None)

    def put(self, offset: int, reader: Reader) -> None:
        """Keep a reader that stands at ``offset``."""
        if (other := self.take(offset)) is not None:
            other.close()
        self._readers[offset] = reader
        if len(self._readers) > SPARE_READERS:
            self._readers.pop(next(iter(self._readers))).close()

    def close(self) -> None:
        """Close all."""
        for reader in self._readers.values():
            reader.close()


def seek_readings(segments: Sequence[Segment], seed: int, offset: int, limit: int) -> int:
    """How many readings were ever stored below ``offset``, read from disk.  Raises ``OSError``.

    Where nothing at or behind ``offset`` can be read, it is so many at least.
    """
    reader = Reader(seed)
    with contextlib.closing(reader):
        return reader.read(segments, offset, limit, 1).before
