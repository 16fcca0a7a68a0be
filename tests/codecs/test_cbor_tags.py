"""Of the tags of CBOR one alone is taken, whatever cbor2 knows of the others."""

from __future__ import annotations

import struct

import cbor2

from gateway.codecs import cborcodec
from gateway.errors import Refusal

SEEN = 66_000  # beyond the last that cbor2 decodes itself
# What tags are put around: numbers, a date, octets as many as an address or a UUID has, arrays, a map, nothing.
PAIR = cbor2.dumps([1, 2])
ITEMS = [
    PAIR,
    *map(cbor2.dumps, (0, 1.5, "2026-01-01", "2026-01-01T00:00:00Z", bytes(4), bytes(16), [], {"a": 1}, None)),
]


def tagged(tag: int, item: bytes) -> bytes:
    """The item with the tag's head before it (RFC 8949, 3), in its shortest form."""
    if tag < 24:
        return bytes([0xC0 | tag]) + item
    if tag < 1 << 8:
        return bytes([0xD8, tag]) + item
    return (b"\xd9" + struct.pack(">H", tag) if tag < 1 << 16 else b"\xda" + struct.pack(">I", tag)) + item


def taken(data: bytes) -> bool:
    try:
        cborcodec.decode(data)
    except Refusal:
        return False
    return True


def test_decimal_fractions_alone() -> None:
    """Within a message each tag is refused around every kind of item; but for 4, around two integers."""
    found = [(tag, item) for item in ITEMS for tag in range(SEEN) if taken(b"\x81" + tagged(tag, item))]
    assert found == [(4, PAIR)]


def test_around_the_whole() -> None:
    """There 55799 says nothing; all others are as they are within."""
    assert [tag for tag in range(SEEN) if taken(tagged(tag, PAIR))] == [4, 55799]
