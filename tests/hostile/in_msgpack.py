"""Devices that send MessagePack."""

from __future__ import annotations

import struct

import msgspec

from tests.collisions import in_msgpack

from .corpus import Case

pack = msgspec.msgpack.encode
HUGE = 0xFFFFFFFF


def refused(attack: str, name: str, sent: bytes, code: str, check: str) -> Case:
    return Case(attack, name, "device", sent, (code, "served"), check)


def value(attack: str, name: str, raw: bytes, check: str) -> Case:
    """A value that is none, in the middle of good readings: these are kept."""
    sent = b"\x93" + pack({"a": 1}) + b"\x82\xa1a\x02\xa1b" + raw + pack({"a": 3})
    return Case(attack, name, "device", sent, ("bad_value", "served"), check, stored={"a": 3})


def keyed(attack: str, name: str, raw: bytes) -> Case:
    return refused(attack, name, b"\x81" + raw + b"\x01", "bad_name", "name")


def head(code: int, size: int, form: str = "I") -> bytes:
    return bytes((code,)) + struct.pack(f">{form}", size)


CASES = [
    # lengths
    *[
        refused("lengths", f"{name} of {size:,}", raw, "undecodable", "msgpack")
        for size in (HUGE, 0x7FFFFFFF, 0x00FFFFFF)
        for name, raw in {
            "an array": head(0xDD, size),
            "an array of good readings": head(0xDD, size) + pack({"a": 1}) * 5_000,
            "a map": head(0xDF, size),
            "a map of good values": head(0xDF, size) + b"\xa1a\x01" * 10_000,
            "a map as values": b"\x81\xa6values" + head(0xDF, size),
            "a text": head(0xDB, size) + b"x" * 100,
            "a name": b"\x81" + head(0xDB, size) + b"x" * 100,
            "bytes": b"\x81\xa1a" + head(0xC6, size) + b"x" * 100,
            "an extension": b"\x81\xa1a" + head(0xC9, size) + b"\x05" + b"x" * 100,
            "a timestamp": b"\x81\xa1a" + head(0xC9, size) + b"\xff" + b"x" * 100,
        }.items()
    ],
    refused("lengths", "arrays of 16 million in one another", head(0xDD, 1 << 24) * 20, "undecodable", "msgpack"),
    refused(
        "lengths", "maps of 16 million in one another", (head(0xDF, 1 << 24) + b"\xa1a") * 20, "undecodable", "msgpack"
    ),
    refused("lengths", "an array of 65,535", head(0xDC, 0xFFFF, "H"), "undecodable", "msgpack"),
    # depth
    refused("depth", "a little too deep", b"\x81\xa1a" + b"\x91" * 32 + b"\x01", "too_deep", "depth"),
    refused("depth", "deep, closed", b"\x81\xa1a" + b"\x91" * 900 + b"\x01", "too_deep", "depth"),
    refused("depth", "arrays without end", b"\x91" * 60_000, "too_deep", "recursion"),
    refused("depth", "maps without end", b"\x81\xa1a" * 20_000, "too_deep", "recursion"),
    refused("depth", "large arrays without end", head(0xDD, 1) * 12_000, "too_deep", "recursion"),
    refused("depth", "maps as names", b"\x81" * 60_000, "too_deep", "recursion"),
    refused("depth", "arrays as names", b"\x81\x91" * 30_000, "too_deep", "recursion"),
    # numbers
    value("numbers", "NaN", b"\xcb\x7f\xf8\0\0\0\0\0\0", "finite"),
    value("numbers", "a signalling NaN", b"\xcb\x7f\xf0\0\0\0\0\0\1", "finite"),
    value("numbers", "infinity", b"\xcb\x7f\xf0\0\0\0\0\0\0", "finite"),
    value("numbers", "minus infinity in 32 bits", b"\xca\xff\x80\0\0", "finite"),
    value("numbers", "2**63", head(0xCF, 1 << 63, "Q"), "int64"),
    value("numbers", "2**64 - 1", head(0xCF, (1 << 64) - 1, "Q"), "int64"),
    # shape
    value("shape", "bytes", b"\xc4\x03abc", "values"),
    value("shape", "an extension", b"\xd4\x05x", "values"),
    value("shape", "a timestamp of 32 bits", b"\xd6\xff\0\0\0\1", "values"),
    value("shape", "a timestamp of 64 bits", b"\xd7\xff\0\0\0\0\0\0\0\1", "values"),
    value("shape", "a timestamp of 96 bits", b"\xc7\x0c\xff" + b"\0" * 12, "values"),
    value("shape", "a list", b"\x91\x01", "values"),
    value("shape", "a map", b"\x81\xa1a\x01", "values"),
    refused("time", "a timestamp for ts", b"\x82\xa2ts\xd6\xff\0\0\0\1\xa1a\x01", "bad_time", "time"),
    refused("time", "a timestamp that is none", b"\x81\xa1a\xd7\xff" + b"\xff" * 8, "undecodable", "msgpack"),
    refused("time", "a timestamp of five bytes", b"\x81\xa1a\xc7\x05\xff" + b"\0" * 5, "undecodable", "msgpack"),
    # names
    keyed("names", "a number", b"\x05"),
    keyed("names", "nil", b"\xc0"),
    keyed("names", "false", b"\xc2"),
    keyed("names", "a fraction", b"\xcb" + struct.pack(">d", 1.5)),
    keyed("names", "bytes", b"\xc4\x01a"),
    keyed("names", "an array", b"\x92\x01\x02"),
    keyed("names", "NaN", b"\xcb\x7f\xf8\0\0\0\0\0\0"),
    keyed("names", "__proto__", pack("__proto__")),
    keyed("names", "a topic", pack("a/+/#")),
    refused("names", "a map", b"\x81\x81\x01\x02\x03", "undecodable", "msgpack"),
    # utf-8
    *[
        refused("utf-8", f"a text: {name}", b"\x81\xa1a" + bytes((0xA0 | len(raw),)) + raw, "undecodable", "msgpack")
        for name, raw in {
            "not UTF-8": b"\xff\xfe",
            "cut off": b"a\xe2\x82",
            "overlong": b"\xc0\xaf",
            "a surrogate": b"\xed\xa0\x80",
            "beyond Unicode": b"\xf4\x90\x80\x80",
        }.items()
    ],
    refused("utf-8", "a name that is not UTF-8", b"\x81\xa2a\xff\x01", "undecodable", "msgpack"),
    value("control characters", "NUL", pack("a\0b"), "characters"),
    value("control characters", "an escape sequence", pack("\x1b[2J"), "characters"),
    # duplicates
    Case("duplicates", "the last of a name counts", "device", b"\x82\xa1a\x01\xa1a\x02", ("served",), stored={"a": 2}),
    Case(
        "duplicates",
        "20,000 times the same name",
        "device",
        head(0xDE, 20_000, "H") + b"\xa1a\x01" * 20_000,
        ("served",),
    ),
    refused("duplicates", "4,000 names of one hash", in_msgpack(4_000), "undecodable", "keys"),
    refused("duplicates", "values of one hash", b"\x81\xa6values" + in_msgpack(4_000), "undecodable", "keys"),
    # flood, size
    refused("flood", "6,000 metrics", pack({f"k{n}": 1 for n in range(6_000)}), "too_many_metrics", "metrics"),
    refused("size", "60,000 zeros", head(0xDD, 60_000) + b"\0" * 60_000, "too_many_readings", "readings"),
    refused("size", "30,000 empty maps", head(0xDD, 30_000) + b"\x80" * 30_000, "too_many_readings", "readings"),
    Case("size", "a message too long", "device", lambda: b"\xc6" + b"\0" * 70_000, ("close 1009",), "message size"),
    value("size", "a text of 50,000 characters", pack("x" * 50_000), "text size"),
    # broken encoding
    *[
        refused("broken encoding", raw.hex(), raw, "undecodable", "msgpack")
        for raw in (b"", b"\xc1", b"\x81", b"\x81\xa1a", b"\x80\x80", b"\x81\xa1a\xc1", b"\x81\xa1a\xcb\0")
    ],
    refused("shape", "a number for a message", b"\x07", "bad_message", "shape"),
    refused("shape", "bytes for a message", b"\xc4\x02{}", "bad_message", "shape"),
    refused("shape", "a text of JSON for a message", pack('{"a":1}'), "bad_message", "shape"),
]
