"""Devices that send CBOR (RFC 8949)."""

from __future__ import annotations

import struct

import cbor2

from .corpus import Case

pack = cbor2.dumps


def sends(attack: str, name: str, raw: bytes, *expected: str, check: str = "", **more: object) -> Case:
    return Case(attack, name, "device", ("gateway.v1.cbor", raw), expected, check, **more)  # type: ignore[arg-type]


def refused(attack: str, name: str, raw: bytes, code: str, check: str) -> Case:
    return sends(attack, name, raw, code, "served", check=check)


def value(attack: str, name: str, raw: bytes, check: str) -> Case:
    """A value that is none, in the middle of good readings: these are kept."""
    sent = b"\x83" + pack({"a": 1}) + b"\xa2\x61a\x02\x61b" + raw + pack({"a": 3})
    return sends(attack, name, sent, "bad_value", "served", check=check, stored={"a": 3})


def long(major: int, size: int) -> bytes:
    """A head with a length of eight bytes."""
    return bytes((major << 5 | 27,)) + struct.pack(">Q", size)


CASES = [
    *[
        refused("lengths", f"{name} of {size:,}", raw, "undecodable", "cbor")
        for size in ((1 << 64) - 1, 1 << 62, 1 << 32)
        for name, raw in {
            "an array": long(4, size),
            "an array of good readings": long(4, size) + pack({"a": 1}) * 3_000,
            "a map": long(5, size),
            "a text": long(3, size) + b"x" * 100,
            "bytes": b"\xa1\x61a" + long(2, size) + b"x" * 100,
            "values": b"\xa1\x66values" + long(5, size),
        }.items()
    ],
    refused("lengths", "arrays of 16 million in one another", b"\x9a\x01\0\0\0" * 20, "undecodable", "cbor"),
    refused("lengths", "a text of pieces without end", b"\xa1\x61a\x7f" + b"\x61x" * 20_000, "undecodable", "cbor"),
    refused("lengths", "an array without end", b"\x9f" + b"\xa0" * 20_000, "undecodable", "cbor"),
    refused("depth", "a little too deep", b"\xa1\x61a" + b"\x81" * 32 + b"\x01", "too_deep", "depth"),
    refused("depth", "arrays without end", b"\x81" * 60_000, "too_deep", "cbor depth"),
    refused("depth", "maps without end", b"\xa1\x61a" * 20_000, "too_deep", "cbor depth"),
    refused("depth", "arrays of unknown length without end", b"\x9f" * 60_000, "too_deep", "cbor depth"),
    refused("depth", "tags without end", b"\xd9\xd9\xf7" * 20_000, "too_deep", "cbor depth"),
    value("numbers", "NaN", b"\xf9\x7e\0", "finite"),
    value("numbers", "infinity", b"\xfb\x7f\xf0\0\0\0\0\0\0", "finite"),
    value("numbers", "2**64 - 1", b"\x1b" + b"\xff" * 8, "int64"),
    value("numbers", "-2**64", b"\x3b" + b"\xff" * 8, "int64"),
    value("numbers", "a decimal fraction beyond a float", b"\xc4\x82\x1a\x7f\xff\xff\xff\x01", "finite"),
    refused("numbers", "a large integer", b"\xa1\x61a\xc2\x49\x01" + b"\0" * 8, "undecodable", "cbor"),
    refused(
        "numbers",
        "a large integer of 50,000 bytes",
        b"\xa1\x61a\xc2\x59\xc3\x50" + b"\xff" * 50_000,
        "undecodable",
        "cbor",
    ),
    refused("numbers", "a fraction of nothing", b"\xa1\x61a\xc4\x80", "undecodable", "cbor"),
    refused("numbers", "a rational number with zero", b"\xa1\x61a\xd8\x1e\x82\x01\x00", "undecodable", "cbor"),
    refused("shape", "a reference to itself", b"\xd8\x1c\x81\xd8\x1d\x00", "undecodable", "cbor"),
    refused("shape", "a regular expression", b"\xa1\x61a\xd8\x23\x66(a+)+$", "undecodable", "cbor"),
    refused("shape", "a date", b"\xa1\x61a\xc0\x6a2024-01-01", "undecodable", "cbor"),
    refused("shape", "two messages in one", pack({"a": 1}) * 2, "undecodable", "cbor"),
    refused("shape", "a break alone", b"\xff", "undecodable", "cbor"),
    value("shape", "bytes", b"\x43abc", "values"),
    value("shape", "undefined", b"\xf7", "values"),
    value("shape", "a simple value", b"\xf8\xff", "values"),
    refused("utf-8", "a text that is none", b"\xa1\x61a\x62\xff\xfe", "undecodable", "cbor"),
    refused("names", "a number", b"\xa1\x05\x01", "undecodable", "cbor"),
    refused("names", "__proto__", pack({"__proto__": 1}), "bad_name", "name"),
    refused("duplicates", "bytes for the name of a text", b"\xa2\x61a\x01\x41a\x02", "bad_name", "name"),
    value("control characters", "NUL", pack("a\0b"), "characters"),
    refused("size", "30,000 empty maps", b"\x99\x75\x30" + b"\xa0" * 30_000, "too_many_readings", "readings"),
    refused("broken encoding", "nothing", b"", "undecodable", "cbor"),
    refused("broken encoding", "JSON", b'{"a":1}', "undecodable", "cbor"),
]
