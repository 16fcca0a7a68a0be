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
                         {name: [offset, readings, overflowed, lost, began, dead_lettered]}]

Version 1 had neither ``began`` nor ``dead_lettered``; it is read, and delivering counts from then on.

``end`` and ``stored`` are the journal's durable end and its readings ever stored when the slot was written: what is
missing below them at the next start was lost by the disk, not by a crash.
"""

from __future__ import annotations

import os
import struct
import zlib
from typing import TYPE_CHECKING

import msgspec

from gateway.journal.segment import sync_directory

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["FILE_NAME", "MAX_NAME", "MAX_PLACES", "NewerVersion", "Place", "Places", "PlacesFile", "load"]

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


class Places(msgspec.Struct, frozen=True, array_like=True):
    """One state of the file."""

    version: int
    epoch: bytes
    end: int
    stored: int
    cursors: dict[str, Place]


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


def unpack_slot(slot: bytes) -> tuple[int, Places] | None:
    """Number and state of a whole slot, or ``None``.  Raises :class:`NewerVersion`."""
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
    return number, places if places.version == VERSION else _migrate(places)


def _migrate(places: Places) -> Places:
    """A state of version 1 in today's form: nobody counted what was delivered, so that counting begins here."""
    cursors = {
        name: msgspec.structs.replace(place, began=max(0, place.readings - place.overflowed - place.lost))
        for name, place in places.cursors.items()
    }
    return msgspec.structs.replace(places, version=VERSION, cursors=cursors)


def load(path: Path) -> tuple[int, Places | None, bool]:
    """Number and state of the newer whole slot, and whether the file is there but holds none.

    Raises ``OSError`` when it cannot be read, :class:`NewerVersion`.
    """
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return 0, None, False
    slots = [found for at in (0, SLOT) if (found := unpack_slot(data[at : at + SLOT])) is not None]
    if not slots:
        return 0, None, any(data)
    number, places = max(slots, key=lambda slot: slot[0])
    return number, places, False


class PlacesFile:
    """The file, opened for writing; made when missing.  Every method raises ``OSError``."""

    def __init__(self, path: Path, number: int) -> None:
        self._number = number
        self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o640)
        try:
            if os.fstat(self._fd).st_size != 2 * SLOT:
                os.ftruncate(self._fd, 0)
                os.pwrite(self._fd, bytes(2 * SLOT), 0)
                os.fsync(self._fd)
                sync_directory(path.parent)
        except OSError:
            os.close(self._fd)
            raise

    def write(self, places: Places) -> None:
        """Make a state durable."""
        number = self._number + 1
        slot = pack_slot(number, places)
        # A failed write may leave this slot torn; the next try takes it again, never the whole one.
        if os.pwrite(self._fd, slot, SLOT * (number % 2)) != SLOT:
            raise OSError(28, "short write to the cursors' file")
        os.fdatasync(self._fd)
        self._number = number

    def close(self) -> None:
        """Close the file."""
        os.close(self._fd)
