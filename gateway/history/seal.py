"""Seals: a checksum over what a row of the file holds, so that no value is believed that was not written there.

Pure.  ``sealed = 0x02 | crc32 u32, little-endian | content``, where the checksum covers the row's numbers, as int64,
and the content.  What layout 1 wrote has no seal and begins with another byte; it is believed as it is.
"""

from __future__ import annotations

import struct
import zlib
from typing import Final

from gateway.history.codec import DamagedChunk

__all__ = ["SIZE", "checksum", "seal", "unseal"]

_MARK: Final = 2
_head: Final = struct.Struct("<BI")
SIZE: Final = _head.size  # bytes of a seal


def checksum(numbers: tuple[int, ...], content: bytes | memoryview) -> int:
    """Of a row's numbers and content."""
    return zlib.crc32(content, zlib.crc32(struct.pack(f"<{len(numbers)}q", *numbers)))


def seal(numbers: tuple[int, ...], content: bytes) -> bytes:
    """The content as it is kept in the row with these numbers."""
    return _head.pack(_MARK, checksum(numbers, content)) + content


def unseal(numbers: tuple[int, ...], sealed: bytes) -> bytes:
    """The content of the row with these numbers.  Raises :class:`DamagedChunk`."""
    if not isinstance(sealed, bytes):
        raise DamagedChunk("it holds no bytes")
    if not sealed or sealed[0] != _MARK:
        return sealed
    content = sealed[SIZE:]
    try:
        if len(sealed) >= SIZE and int.from_bytes(sealed[1:SIZE], "little") == checksum(numbers, content):
            return content
    except struct.error:  # numbers that are none
        pass
    raise DamagedChunk("its checksum does not match")
