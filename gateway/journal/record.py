"""The journal's format on disk: segment headers and records.  Pure: bytes in, bytes out.

Constraints
-----------
- A record is one group commit: it is whole or it is nothing.  Nobody is told of a reading before the record that holds
  it was synced, so an incomplete record at the end of the newest segment never held anything promised.
- Every record can be judged by itself.  It carries its offset, how many readings lie before it, and a checksum that is
  seeded with the epoch, so that a reader finds the next whole record behind a damaged place, and a record of another
  state directory is never taken for one of ours.
- Zeros where a record would start mean the end of what was written: the writer leaves them ahead of small records,
  file systems after a power cut.

Layout, little-endian
---------------------
Segment file ``<base:020d>-<generation:04d>.seg``: a header, then records without padding::

    header  magic "GWJOURN\\n" | version u16 | header size u16 | flags u32 | epoch 16 bytes | base u64 |
            previous end u64 | readings before u64 | created, ns since the epoch u64 | crc32 of all before it u32
    record  mark "GWR\\x01" | crc32 u32 | payload size u32 | flags u32 | base u64 | readings before u64 |
            items u32 | readings u32 | payload
    payload MessagePack of list[Item] (see gateway.reading)

The record's checksum covers all behind it, payload included.  ``base`` is the offset of the first item, ``previous
end`` the offset behind the last item of the segment before.  A segment speaks for the offsets from its base up to the
base of the next segment: what it holds beyond that was written again there, after a failed write.  A later version
keeps magic, version, size and the place of the checksum (the header's last four bytes), so that every program can tell
a newer file from a damaged one.
"""

from __future__ import annotations

import struct
import zlib
from typing import TYPE_CHECKING

import msgspec

from gateway.reading import Item, Reading

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = [
    "HEADER_SIZE",
    "HEAD_SIZE",
    "MARK",
    "VERSION",
    "BadHeader",
    "Head",
    "Header",
    "NewerVersion",
    "count_readings",
    "decode",
    "encode",
    "is_whole",
    "pack_header",
    "pack_record",
    "seed_of",
    "unpack_head",
    "unpack_header",
]

VERSION = 1
MAGIC = b"GWJOURN\n"
MARK = b"GWR\x01"

_header = struct.Struct("<8sHHI16sQQQQI")
_header_start = struct.Struct("<8sHH")
_head = struct.Struct("<4sIIIQQII")
_head_tail = struct.Struct("<IIQQII")
_crc = struct.Struct("<I")
HEADER_SIZE = _header.size
HEAD_SIZE = _head.size
_CHECKED_FROM = 8  # a record's checksum covers what lies behind mark and checksum

Buffer = bytes | bytearray | memoryview

_encoder = msgspec.msgpack.Encoder()
_decoder: msgspec.msgpack.Decoder[list[Item]] = msgspec.msgpack.Decoder(list[Item])
encode = _encoder.encode


class BadHeader(ValueError):
    """Not a segment header, or a damaged one."""


class NewerVersion(ValueError):
    """A sound header of a version this program does not know; ``version`` is its number."""

    def __init__(self, version: int) -> None:
        super().__init__(f"format {version}; this program knows {VERSION}")
        self.version = version


class Header(msgspec.Struct, frozen=True):
    """What a segment says of itself; ``epoch`` is 16 bytes, ``created`` nanoseconds since the epoch."""

    epoch: bytes
    base: int
    previous_end: int
    before: int
    created: int


class Head(msgspec.Struct, frozen=True, gc=False):
    """A record without its payload; ``size`` is the payload's in bytes, ``before`` the readings below ``base``."""

    crc: int
    size: int
    base: int
    before: int
    items: int
    readings: int

    @property
    def end(self) -> int:
        """The offset behind the last item."""
        return self.base + self.items


def seed_of(epoch: bytes) -> int:
    """The start value of every checksum of this epoch."""
    return zlib.crc32(epoch)


def pack_header(header: Header) -> bytes:
    """The header's bytes."""
    start = _header.pack(
        MAGIC,
        VERSION,
        HEADER_SIZE,
        0,
        header.epoch,
        header.base,
        header.previous_end,
        header.before,
        header.created,
        0,
    )[:-4]
    return start + _crc.pack(zlib.crc32(start))


def unpack_header(data: Buffer) -> Header:
    """Read a header at the start of ``data``.  Raises :class:`BadHeader` or :class:`NewerVersion`."""
    if len(data) < _header_start.size:
        raise BadHeader("shorter than a header")
    magic, version, size = _header_start.unpack_from(data)
    if magic != MAGIC:
        raise BadHeader("no segment header")
    if size < _header_start.size + 4 or len(data) < size:
        raise BadHeader("shorter than its header")
    if _crc.unpack_from(data, size - 4)[0] != zlib.crc32(memoryview(data)[: size - 4]):
        raise BadHeader("the header's checksum does not match")
    if version != VERSION:
        raise NewerVersion(version)
    _, _, _, _, epoch, base, previous_end, before, created, _ = _header.unpack_from(data)
    return Header(epoch, base, previous_end, before, created)


def count_readings(items: Sequence[Item]) -> int:
    """How many of ``items`` are readings."""
    return list(map(type, items)).count(Reading)


def pack_record(seed: int, base: int, before: int, items: int, readings: int, payload: bytes) -> tuple[bytes, Head]:
    """The bytes that go in front of ``payload`` (:func:`encode` of the items), and what they say."""
    tail = _head_tail.pack(len(payload), 0, base, before, items, readings)
    crc = zlib.crc32(payload, zlib.crc32(tail, seed))
    return MARK + _crc.pack(crc) + tail, Head(crc, len(payload), base, before, items, readings)


def unpack_head(data: Buffer, at: int = 0) -> Head | None:
    """Read a record's head at ``at`` without checking it; ``None`` where no record starts.

    ``data`` holds at least :data:`HEAD_SIZE` bytes from ``at``.
    """
    mark, crc, size, _, base, before, items, readings = _head.unpack_from(data, at)
    return Head(crc, size, base, before, items, readings) if mark == MARK else None


def is_whole(seed: int, head: Head, record: Buffer) -> bool:
    """Whether ``record`` (head and payload, exactly) is what was written under ``head`` in this epoch."""
    return zlib.crc32(memoryview(record)[_CHECKED_FROM:], seed) == head.crc and head.readings <= head.items


def decode(payload: Buffer) -> list[Item]:
    """The items of a payload.  Raises ``msgspec.MsgspecError`` for bytes that are none."""
    return _decoder.decode(payload)
