"""Items that a sink's far side will never take, put aside with the reason: one file a sink.

Design constraints: nothing leaves the journal before it stands here, synced; an operator reads it with any
tool; a torn last line (power cut) costs nothing, since its item is then still in the journal and comes again; a
damaged letter is never delivered, only shown as such; a file that cannot be read is kept under another name, and a new
one begun; what is removed goes by a whole new file, renamed into place.

Layout: JSON lines, the last field the CRC-32 of the line without it::

    {"offset":8420,"time":ns,"reason":"..","item":[0,"pump-1",..],"ledger":"5f..-0","crc":"0011aaff"}

The item is as in the journal (gateway.reading); ``time`` when it was put aside, in nanoseconds; ``ledger`` names the
count it is in (a journal, and a place in it from which on a sink counts), so that offsets and counts of another are
not taken for ours.  Lines from before there were ``ledger`` and ``crc`` are read.
"""

from __future__ import annotations

import errno
import logging
import os
import stat
import threading
import time
import zlib
from typing import TYPE_CHECKING, Any

import msgspec

from gateway.aside import remove, set_aside, sync_directory
from gateway.errors import GatewayError
from gateway.reading import Item

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
    from pathlib import Path

__all__ = ["DeadLetter", "DeadLetters", "DeadLettersFull", "LetterKey"]

log = logging.getLogger(__name__)

REASONS = 256  # different reasons counted; all beyond them together
REASONS_SHOWN = 10
OTHER = "other reasons"

_DAMAGE = {errno.EIO, errno.EISDIR}
_RIGHTS = {errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EISDIR}
_ROOM = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}

LetterKey = tuple[str, int]
"""Ledger and offset: names one letter."""


class DeadLettersFull(GatewayError):
    """The file is at its bound: nothing is put aside, and nothing dropped, until it was emptied."""

    hint = "look at the dead letters, then retry or purge them"


class DeadLetter(msgspec.Struct, frozen=True, omit_defaults=True):
    """One item put aside; see the module's text."""

    offset: int
    time: int
    reason: str
    item: Item
    ledger: str = ""

    @property
    def key(self) -> LetterKey:
        """What names it."""
        return self.ledger, self.offset


_to_json = msgspec.json.Encoder().encode
_from_json = msgspec.json.Decoder(DeadLetter).decode
_CRC = b',"crc":"'
_TAIL = len(_CRC) + len('00000000"}\n')


def _encode(letter: DeadLetter) -> bytes:
    body = _to_json(letter)
    return b'%b%b%08x"}\n' % (body[:-1], _CRC, zlib.crc32(body))


def _decode(line: bytes) -> DeadLetter | None:
    """The letter of a whole line; None where it is damaged."""
    cut = len(line) - _TAIL
    checked = cut > 0 and line[cut : cut + len(_CRC)] == _CRC
    body = line[:cut] + b"}" if checked else line
    try:
        if checked and zlib.crc32(body) != int(line[cut + len(_CRC) : -3], 16):
            return None
        letter = _from_json(body)
    except ValueError:  # msgspec's errors are such, too
        return None
    # A line of ours without its checksum is damaged where that stood.
    return letter if checked or not (letter.ledger or b'"crc' in line) else None


class DeadLetters:
    """The file at ``path``, at most ``max_bytes`` long: beyond, ``append`` raises ``DeadLettersFull``.

    ``ledger`` marks what is put aside now.  Calls block on the disk (but for ``summary``): not for the loop's thread.
    Safe for several threads of one process, not for several processes.
    """

    def __init__(
        self, path: Path, *, ledger: str = "", max_bytes: int = 64 << 20, clock: Callable[[], int] = time.time_ns
    ) -> None:
        self.path = path
        self.ledger = ledger
        self.uncounted: set[int] = set()
        """Offsets of this ledger put aside at or behind the position that ``open`` was given: they come again."""
        self._max_bytes = max_bytes
        self._clock = clock
        self._lock = threading.Lock()
        self._census = _Census()

    @property
    def count(self) -> int:
        """Letters in the file, damaged ones among them; known after ``open``."""
        return self._census.count

    @property
    def damaged(self) -> int:
        """Letters among these that cannot be read."""
        return self._census.damaged

    def open(self, position: int = 0) -> None:
        """Read what is there; a torn last line is not counted, and is written over.  Damage is set aside.

        ``position``: items of this ledger from there on are not counted as put aside yet.  Raises ``OSError``.
        """
        with self._lock:
            self._new_path.unlink(missing_ok=True)
            own = self._take_census()
            self.uncounted = {offset for offset in own if offset >= position}

    def append(self, letters: Iterable[tuple[int, str, Item]]) -> int:
        """Put aside (offset, reason, item) for good: synced on return.  Returns how many were new.

        Raises ``DeadLettersFull`` or ``OSError``; then none of them count as put aside.
        """
        now = self._clock()
        with self._lock:
            self._look()
            new = [
                DeadLetter(offset, now, reason, item, self.ledger)
                for offset, reason, item in letters
                if offset not in self.uncounted
            ]
            lines = [_encode(letter) for letter in new]
            data = b"".join(lines)
            if not data:
                return 0
            at = self._census.bytes
            if at + len(data) > self._max_bytes:
                raise DeadLettersFull(f"{self.path.name} holds {self.count} items and is full")
            born = not self.path.exists()
            if born:
                self.path.parent.mkdir(parents=True, exist_ok=True)
            fd = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                # At the known end, not at the file's: a write that failed half-way is written over.
                _write(fd, data, at)
                os.ftruncate(fd, at + len(data))
                os.fdatasync(fd)
            finally:
                os.close(fd)
            if born:
                sync_directory(self.path.parent)
            for line, letter in zip(lines, new, strict=True):
                self._census.note(len(line), letter)
            return len(new)

    def read(
        self, limit: int | None = None, offsets: Collection[int] | None = None, device: str = ""
    ) -> Iterator[DeadLetter]:
        """Letters in the order in which they were put aside: all, or those of these offsets, of this device.

        Damaged ones are passed over.  Raises ``OSError`` while it is iterated.
        """
        if limit is not None and limit <= 0:
            return
        for line in self._lines():
            letter = _decode(line)
            if (
                letter is None
                or (offsets is not None and letter.offset not in offsets)
                or (device and letter.item.device != device)
            ):
                continue
            yield letter
            if limit is not None and (limit := limit - 1) <= 0:
                return

    def summary(self) -> dict[str, Any]:
        """``count``, ``bytes``, ``oldest`` and ``newest`` (ms since the epoch, or None), ``reasons``, ``damaged``.

        ``reasons`` are the most frequent, each with its number; ``damaged`` letters are among ``count`` and cannot be
        read.  Never blocks.
        """
        census = self._census
        reasons = sorted(census.reasons.copy().items(), key=lambda found: -found[1])[:REASONS_SHOWN]
        oldest, newest = census.oldest, census.newest
        return {
            "count": census.count,
            "bytes": census.bytes,
            "oldest": None if oldest is None else oldest // 1_000_000,
            "newest": None if newest is None else newest // 1_000_000,
            "reasons": dict(reasons),
            "damaged": census.damaged,
        }

    def remove(self, offsets: Collection[int]) -> int:
        """Forget the letters at these offsets; returns how many there were.  Raises ``OSError``: then all stay."""
        removed, _ = self._rewrite(lambda letter: None if letter.offset in offsets else letter)
        return removed

    def settle(self, taken: Collection[LetterKey], refused: Mapping[LetterKey, str]) -> tuple[int, int]:
        """After another try: forget what was taken, and note why the others were refused again.

        Returns how many were forgotten, and how many of them are counted as put aside in this ledger.  Raises
        ``OSError``: then all stay as they were.
        """

        def decide(letter: DeadLetter) -> DeadLetter | None:
            if letter.key in taken:
                return None
            reason = refused.get(letter.key)
            return letter if reason is None else msgspec.structs.replace(letter, reason=reason)

        return self._rewrite(decide) if taken or refused else (0, 0)

    def hint(self, error: OSError) -> str:
        """What would help against an error that one of these calls raised."""
        if error.errno in _RIGHTS:
            return f"the gateway has to be able to read and write {self.path}"
        return f"{'make room on' if error.errno in _ROOM else 'check'} the disk that holds {self.path}"

    def purge(self) -> int:
        """Forget all; returns how many there were.  What was counted as put aside stays so.  Raises ``OSError``."""
        with self._lock:
            count = 0
            if self.path.exists():
                count = self.count
                remove(self.path)
                sync_directory(self.path.parent)
            self._census = _Census()
            self.uncounted = set()
            return count

    # -- inside --

    @property
    def _new_path(self) -> Path:
        return self.path.with_name(self.path.name + ".new")

    def _take_census(self) -> set[int]:
        """Read the file anew, or set it aside; returns the offsets of this ledger in it."""
        census, own = _Census(), set[int]()
        try:
            for line in self._lines():
                letter = _decode(line)
                census.note(len(line), letter)
                if letter is not None and letter.ledger == self.ledger:
                    own.add(letter.offset)
        except OSError as error:
            if error.errno not in _DAMAGE:
                raise
            kept = set_aside(self.path, "damaged")
            sync_directory(self.path.parent)
            extra = {"event": "file_aside", "path": self.path, "reason": error.strerror}
            log.error(
                "%s: the dead letters cannot be read (%s): kept as %s", self.path, error.strerror, kept, extra=extra
            )
            census, own = _Census(), set()
        self._census = census
        return own

    def _look(self) -> None:
        """Whoever removed or cut the file meanwhile took letters with it: what is known of it is what is there."""
        try:
            found = self.path.stat()
        except FileNotFoundError:
            size = 0
        else:
            size = -1 if stat.S_ISDIR(found.st_mode) else found.st_size
        if size < self._census.bytes:
            self.uncounted &= self._take_census()

    def _lines(self) -> Iterator[bytes]:
        try:
            with self.path.open("rb") as file:
                for line in file:
                    if line.endswith(b"\n"):
                        yield line
        except FileNotFoundError:
            return

    def _rewrite(self, decide: Callable[[DeadLetter], DeadLetter | None]) -> tuple[int, int]:
        """Keep what ``decide`` gives for each letter; returns how many went, and how many of them were counted."""
        with self._lock:
            if not self.path.exists():
                self._look()
                return 0, 0
            gone: list[LetterKey] = []
            changed = False
            census = _Census()
            try:
                with open(self._new_path, "wb", opener=_private) as file:
                    for line in self._lines():
                        letter = _decode(line)
                        if letter is not None and (decided := decide(letter)) is not letter:
                            if decided is None:
                                gone.append(letter.key)
                                continue
                            line, letter, changed = _encode(decided), decided, True
                        file.write(line)
                        census.note(len(line), letter)
                    file.flush()
                    if gone or changed:
                        os.fsync(file.fileno())
                if gone and not census.count:
                    self.path.unlink()
                elif gone or changed:
                    self._new_path.replace(self.path)
                else:
                    return 0, 0
                self._census = census
            finally:
                self._new_path.unlink(missing_ok=True)
            sync_directory(self.path.parent)
            own = {offset for ledger, offset in gone if ledger == self.ledger}
            counted = len(own - self.uncounted)
            self.uncounted -= own
            return len(gone), counted


class _Census:
    """What is known of the letters in a file without reading it."""

    __slots__ = ("bytes", "count", "damaged", "newest", "oldest", "reasons")

    def __init__(self) -> None:
        self.count = self.bytes = self.damaged = 0
        self.oldest: int | None = None
        self.newest: int | None = None
        # Bounded: reasons beyond the first REASONS different ones are counted together.
        self.reasons: dict[str, int] = {}

    def note(self, length: int, letter: DeadLetter | None) -> None:
        """One line more."""
        self.count += 1
        self.bytes += length
        if letter is None:
            self.damaged += 1
            return
        reasons = self.reasons
        reason = letter.reason if letter.reason in reasons or len(reasons) < REASONS else OTHER
        reasons[reason] = reasons.get(reason, 0) + 1
        self.oldest = letter.time if self.oldest is None else min(self.oldest, letter.time)
        self.newest = letter.time if self.newest is None else max(self.newest, letter.time)


def _write(fd: int, data: bytes, at: int) -> None:
    view = memoryview(data)
    while view:
        written = os.pwrite(fd, view, at)
        view, at = view[written:], at + written


def _private(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_CLOEXEC, 0o600)
