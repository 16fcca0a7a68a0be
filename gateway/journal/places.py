"""The places of the cursors on disk: one small file of two slots, written in turn.

Constraints
-----------
- Writing must not need room on the disk (a full disk is emptied by cursors that move on), must cost one block of flash,
  and a torn write must leave the state before it.  So the file has its full size from birth, and each state overwrites
  the older slot; the newer whole one counts.
- A lost state costs repeats, never a loss: cursors start at the oldest item still held.

Layout, little-endian, two slots of 4,096 bytes::

    slot    magic "GWPLACES" | crc32 of all behind it u32 | payload size u32 | number u64 | payload | zeros
    payload MessagePack [version, epoch, end, stored,
                         {name: [offset, readings, overflowed, lost, began, dead_lettered]}, [offset, readings] or nil]

Version 1 had neither ``began`` nor ``dead_lettered`` nor the last pair; it is read, and delivering counts from then on.

``end`` and ``stored`` are the journal's durable end and its readings ever stored when the slot was written: what is
missing below them at the next start was lost by the disk, not by a crash.  The last pair says up to where segments
were let go on purpose: it is durable before they are unlinked, so what else is missing was taken by somebody.
"""

from __future__ import annotations

import errno
import os
import struct
import zlib
from typing import TYPE_CHECKING

import msgspec

from gateway.aside import read_start, sync_directory
from gateway.journal.segment import FULL

if TYPE_CHECKING:
    from pathlib import Path

__all__ = [
    "FILE_NAME",
    "MAX_NAME",
    "MAX_PLACES",
    "VERSION",
    "Gone",
    "Loaded",
    "NewerVersion",
    "Place",
    "Places",
    "PlacesFile",
    "load",
    "moved",
]

FILE_NAME = "cursors"
VERSION = 2
MAGIC = b"GWPLACES"
SLOT = 4096
MAX_PLACES = 32  # names remembered; beyond that a new one takes the place of the oldest that is not open
MAX_NAME = 64  # bytes

_start = struct.Struct("<8sIIQ")


class Place(msgspec.Struct, frozen=True, array_like=True):
    """Where a cursor stands and what became of the readings below ``offset``.

    ``readings``: ever stored below ``offset``.  Of these, ``began`` were there before the cursor was; ``overflowed``
    were dropped to make room; ``lost`` could not be read; ``dead_lettered`` were put aside by its reader; all others
    were delivered.
    """

    offset: int
    readings: int
    overflowed: int = 0
    lost: int = 0
    began: int = 0
    dead_lettered: int = 0


class NewerVersion(ValueError):
    """A whole slot of a version this program does not know; ``version`` is its number."""

    def __init__(self, version: int) -> None:
        super().__init__(f"format {version}; this program knows {VERSION}")
        self.version = version


def moved(kept: Place | None, offset: int, readings: int) -> Place:
    """Where a reader stands that keeps its own place: one that is new, or begins again further back, counts anew.

    ``readings`` below ``offset`` are so many at least: more of them are known where the place kept lies there or below.
    """
    if kept is not None and kept.offset <= offset:
        readings = max(readings, kept.readings)
    if kept is None or readings < kept.began + kept.overflowed + kept.lost + kept.dead_lettered:
        return Place(offset, readings, began=readings)
    return Place(offset, readings, kept.overflowed, kept.lost, kept.began, kept.dead_lettered)


class Gone(msgspec.Struct, frozen=True, array_like=True):
    """Nothing below ``offset`` is held any more, on purpose; ``readings`` were ever stored below it."""

    offset: int
    readings: int


class Places(msgspec.Struct, frozen=True, array_like=True):
    """One state of the file."""

    version: int
    epoch: bytes
    end: int
    stored: int
    cursors: dict[str, Place]
    gone: Gone | None = None


class Loaded(msgspec.Struct, frozen=True):
    """What the file holds: number and state of the newer whole slot, the version it was written in.

    ``damaged``: the file is there and has no whole slot.
    """

    number: int = 0
    places: Places | None = None
    version: int = VERSION
    damaged: bool = False


_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(Places)


def pack_slot(number: int, places: Places) -> bytes:
    """A slot's bytes.  Raises ``ValueError`` when they do not fit (more names, or longer ones, than allowed)."""
    payload = _encoder.encode(places)
    slot = _start.pack(MAGIC, 0, len(payload), number) + payload
    if len(slot) > SLOT:
        raise ValueError("too many cursors")
    slot = slot.ljust(SLOT, b"\0")
    return slot[:8] + zlib.crc32(memoryview(slot)[12:]).to_bytes(4, "little") + slot[12:]


def unpack_slot(slot: bytes) -> Loaded | None:
    """What a whole slot holds, or ``None``.  Raises :class:`NewerVersion`."""
    if len(slot) != SLOT:
        return None
    magic, crc, size, number = _start.unpack_from(slot)
    if magic != MAGIC or crc != zlib.crc32(memoryview(slot)[12:]):
        return None
    payload = memoryview(slot)[_start.size : _start.size + size]
    try:
        match msgspec.msgpack.decode(payload):
            case [int(version), *_] if version > VERSION:
                raise NewerVersion(version)
        places = _decoder.decode(payload)
    except msgspec.MsgspecError:
        return None
    return Loaded(number, places if places.version == VERSION else _migrate(places), places.version)


def _migrate(places: Places) -> Places:
    """A state of version 1 in today's form: nobody counted what was delivered, so that counting begins here."""
    cursors = {
        name: msgspec.structs.replace(place, began=max(0, place.readings - place.overflowed - place.lost))
        for name, place in places.cursors.items()
    }
    return msgspec.structs.replace(places, version=VERSION, cursors=cursors)


def load(path: Path) -> Loaded:
    """What the file holds, in today's form.

    Raises ``OSError`` when it cannot be read, :class:`NewerVersion`.
    """
    try:
        data = read_start(path, 2 * SLOT)
    except FileNotFoundError:
        return Loaded()
    if data is None:
        return Loaded(damaged=True)
    slots = [found for at in (0, SLOT) if (found := unpack_slot(data[at : at + SLOT])) is not None]
    if not slots:
        return Loaded(damaged=any(data))
    return max(slots, key=lambda slot: slot.number)


class PlacesFile:
    """The file, opened for writing; made when missing.  Every method raises ``OSError``."""

    def __init__(self, path: Path, number: int) -> None:
        self._path = path
        self._number = number
        self._fd = -1
        try:
            self._fd = self._open()
        except OSError as error:
            if error.errno not in FULL:
                raise
            # It is made with the first state that there is room for.

    def _open(self) -> int:
        fd = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o640)
        try:
            if os.fstat(fd).st_size != 2 * SLOT:
                os.ftruncate(fd, 0)
                if os.pwrite(fd, bytes(2 * SLOT), 0) != 2 * SLOT:
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
                os.fsync(fd)
                sync_directory(self._path.parent)
        except OSError:
            os.close(fd)
            raise
        return fd

    def write(self, places: Places) -> None:
        """Make a state durable."""
        if self._fd < 0:
            self._fd = self._open()
        elif not os.fstat(self._fd).st_nlink:  # the file was removed
            fd, self._fd = self._fd, self._open()
            os.close(fd)
        number = self._number + 1
        slot = pack_slot(number, places)
        # A failed write may leave this slot torn; the next try takes it again, never the whole one.
        if os.pwrite(self._fd, slot, SLOT * (number % 2)) != SLOT:
            raise OSError(28, "short write to the cursors' file")
        os.fdatasync(self._fd)
        self._number = number

    def close(self) -> None:
        """Close the file."""
        if self._fd >= 0:
            os.close(self._fd)
