"""One segment file: born, appended to and synced.

The writer thread alone writes.  A :class:`Tail` is never used again after a failed write or sync: the kernel may have
dropped the dirty pages and reports the next sync as a success, so its end cannot be trusted and the record goes into a
new file.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import time
from typing import TYPE_CHECKING

from gateway.aside import sync_directory
from gateway.journal import record
from gateway.journal.home import check_named, check_place

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["FULL", "KIND", "Segment", "Tail", "name_of", "parse_name"]

BLOCK = 4096
AHEAD = 32 << 10
AHEAD_OF = BLOCK  # a larger record costs more as zeros than filling ahead saves
FULL = (errno.ENOSPC, errno.EDQUOT)  # no room: what makes some may come
KIND = ".seg"  # how the names of all segments end

_name = re.compile(r"(\d{20})-(\d{4,9})\.seg", re.ASCII).fullmatch


class Segment:
    """A segment as the journal knows it.

    It speaks for the offsets from ``base`` up to the next segment's base and holds items up to ``end``;
    ``before`` and ``end_readings`` are the readings ever stored below these two.  ``size`` is in bytes.
    ``damaged_at`` holds the file positions found unreadable; a segment that has some is set aside, not unlinked.
    """

    __slots__ = ("base", "before", "damaged_at", "end", "end_readings", "generation", "path", "size")

    def __init__(self, path: Path, base: int, generation: int, before: int, size: int) -> None:
        self.path = path
        self.base = base
        self.generation = generation
        self.before = before
        self.end = base
        self.end_readings = before
        self.size = size
        self.damaged_at: set[int] = set()


def name_of(base: int, generation: int) -> str:
    """The file name of a segment."""
    return f"{base:020d}-{generation:04d}.seg"


def parse_name(name: str) -> tuple[int, int] | None:
    """Base and generation out of a file name, or ``None`` for other files."""
    match = _name(name)
    return (int(match[1]), int(match[2])) if match else None


class Tail:
    """The segment being appended to.  Methods raise ``OSError``; after that only :meth:`abandon` may be called.

    Ahead of small records the file is filled with zeros, :data:`AHEAD` bytes at a time: syncing a record written over
    them costs the record's block alone, where growing the file would cost the file system's own journal as well (one
    block on ext4, at every commit).
    """

    def __init__(
        self, directory: Path, epoch: bytes, base: int, generation: int, previous_end: int, before: int
    ) -> None:
        path = directory / name_of(base, generation)
        self.segment = Segment(path, base, generation, before, 0)
        self.used = 0
        """Bytes written, without the zeros ahead."""
        self._directory = directory
        self._born = False  # whether the directory entry is durable
        self._synced = 0
        self._fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o640)
        try:
            header = record.Header(epoch, base, previous_end, before, max(0, time.time_ns()))
            self._write([record.pack_header(header)])
        except OSError:
            self.abandon()
            raise

    def append(self, head: record.Head, parts: list[bytes]) -> None:
        """Append one record and make it durable."""
        size = record.HEAD_SIZE + head.size
        if size <= AHEAD_OF and self.used + size > self.segment.size:
            self._fill_ahead()
        self._write(parts)
        self.sync()
        check_named(self._fd)
        self.segment.end_readings = head.before + head.readings
        self.segment.end = head.end

    def sync(self) -> None:
        """Make what was written durable, the file's name included."""
        os.fdatasync(self._fd)
        if not self._born:
            sync_directory(self._directory)
            self._born = True
        self._synced = self.used

    def check_place(self) -> None:
        """Raises ``OSError`` where the file is no longer where it was born."""
        check_place(self._fd, self.segment.path)

    def close(self) -> None:
        """Cut the zeros and close the file, which holds nothing unsynced."""
        with contextlib.suppress(OSError):
            os.ftruncate(self._fd, self.used)
            self.segment.size = self.used
        os.close(self._fd)

    def abandon(self) -> None:
        """Give the file up after a failure: cut what was not synced, as far as that still works, and close it."""
        segment = self.segment
        with contextlib.suppress(OSError):
            os.ftruncate(self._fd, self._synced)
            segment.size = self._synced
        with contextlib.suppress(OSError):
            os.close(self._fd)
        if not self._born:
            with contextlib.suppress(OSError):
                segment.path.unlink()

    def discard(self) -> None:
        """Give the file up before anything was appended, whether it was synced or not."""
        self._born = False
        self.abandon()

    def _fill_ahead(self) -> None:
        """Block by block: what one call writes may become one folio, all of which counts as written with each byte."""
        at, end = self.used, (self.used + AHEAD) // BLOCK * BLOCK
        try:
            while at < end:
                at += os.pwrite(self._fd, bytes(BLOCK - at % BLOCK), at)
                self.segment.size = max(self.segment.size, at)
        except OSError as error:
            if error.errno not in FULL:
                raise  # without room for the zeros the record itself may still fit

    def _write(self, parts: list[bytes]) -> None:
        left = sum(map(len, parts))
        while left:
            written = os.pwritev(self._fd, parts, self.used)
            self.used += written
            self.segment.size = max(self.segment.size, self.used)
            left -= written
            if left:
                parts = [b"".join(parts)[written:]]
