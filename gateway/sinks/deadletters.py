"""Items that a sink's far side will never take, put aside with the reason: one file a sink.

Design constraints: nothing leaves the journal before it stands here, synced; an operator reads it with any
tool; a torn last line (power cut) costs nothing, since its item is then still in the journal and comes again.

Layout: JSON lines, ``{"offset":8420,"time":ns,"reason":"..","item":[0,"pump-1",..]}``, the item as in the
journal (gateway.reading), ``time`` when it was put aside, in nanoseconds.
"""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING

import msgspec

from gateway.errors import GatewayError
from gateway.reading import Item

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from pathlib import Path

__all__ = ["DeadLetter", "DeadLetters", "DeadLettersFull"]

RECENT = 4096  # offsets remembered, so that what was put aside just before a crash is not put aside twice


class DeadLettersFull(GatewayError):
    """The file is at its bound: nothing is put aside, and nothing dropped, until it was emptied."""

    hint = "look at the dead letters, then retry or purge them"


class DeadLetter(msgspec.Struct, frozen=True):
    """One item put aside; see the module's text."""

    offset: int
    time: int
    reason: str
    item: Item


_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(DeadLetter).decode


class DeadLetters:
    """The file at ``path``, at most ``max_bytes`` long: beyond, ``append`` raises ``DeadLettersFull``.

    All calls block on the disk: not for the loop's thread.  Not safe for several threads at once.
    """

    def __init__(self, path: Path, *, max_bytes: int = 64 << 20, clock: Callable[[], int] = time.time_ns) -> None:
        self.path = path
        self.count = 0  # letters in the file, known after ``open``
        self._max_bytes = max_bytes
        self._clock = clock
        self._bytes = 0
        self._recent: dict[int, None] = {}

    def open(self) -> None:
        """Read what is there; a torn last line is not counted, and is written over.  Raises ``OSError``."""
        self.count = self._bytes = 0
        self._recent.clear()
        try:
            with self.path.open("rb") as file:
                for line in file:
                    if not line.endswith(b"\n"):
                        break
                    self._bytes += len(line)
                    self.count += 1
                    try:
                        self._remember(_decode(line).offset)
                    except msgspec.MsgspecError:
                        # Damaged: left for the operator, counted as what it was.
                        pass
        except FileNotFoundError:
            pass

    def append(self, letters: Iterable[tuple[int, str, Item]]) -> int:
        """Put aside (offset, reason, item) for good: synced on return.  Returns how many were new.

        Raises ``DeadLettersFull`` or ``OSError``; then none of them count as put aside.
        """
        now = self._clock()
        new = {offset: (reason, item) for offset, reason, item in letters if offset not in self._recent}
        data = b"".join(
            _encode(DeadLetter(offset, now, reason, item)) + b"\n" for offset, (reason, item) in new.items()
        )
        if not data:
            return 0
        if self._bytes + len(data) > self._max_bytes:
            raise DeadLettersFull(f"{self.path.name} holds {self.count} items and is full")
        born = not self.path.exists()
        if born:
            self.path.parent.mkdir(parents=True, exist_ok=True)
        fd = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            # At the known end, not at the file's: a write that failed half-way is written over.
            view, at = memoryview(data), self._bytes
            while view:
                written = os.pwrite(fd, view, at)
                view, at = view[written:], at + written
            os.ftruncate(fd, at)
            os.fdatasync(fd)
        finally:
            os.close(fd)
        if born:
            _sync_directory(self.path.parent)
        self._bytes = at
        self.count += len(new)
        for offset in new:
            self._remember(offset)
        return len(new)

    def read(self) -> Iterator[DeadLetter]:
        """All letters in the order in which they were put aside; damaged lines are passed over."""
        try:
            with self.path.open("rb") as file:
                for line in file:
                    try:
                        yield _decode(line)
                    except msgspec.MsgspecError:
                        continue
        except FileNotFoundError:
            return

    def purge(self) -> int:
        """Forget all; returns how many there were.  What was counted as put aside stays put aside."""
        count = self.count
        self.path.unlink(missing_ok=True)
        self.count = self._bytes = 0
        return count

    def _remember(self, offset: int) -> None:
        self._recent[offset] = None
        if len(self._recent) > RECENT:
            del self._recent[next(iter(self._recent))]


def _sync_directory(path: Path) -> None:
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
