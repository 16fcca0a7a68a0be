"""Devices that send SenML (RFC 8428), in JSON and in CBOR."""

from __future__ import annotations

import json

import cbor2

from tests.collisions import in_cbor

from .corpus import Case


def refused(attack: str, name: str, pack: object, code: str, check: str, format: str = "json") -> Case:
    """One error, and the next pack is taken."""
    sent = pack if isinstance(pack, str | bytes) else json.dumps(pack) if format == "json" else cbor2.dumps(pack)
    return Case(attack, f"{format}: {name}", "device", (f"gateway.v1.senml-{format}", sent), (code, "served"), check)


def record(attack: str, name: str, code: str, check: str, **fields: object) -> Case:
    """A record that is none, between good ones."""
    pack = [{"n": "a", "v": 1}, fields, {"n": "a", "v": 3}]
    return refused(attack, name, pack, code, check)


CASES = [
    *[
        refused("shape", name, pack, "bad_message", "pack")
        for name, pack in {
            "an object": {"n": "a", "v": 1},
            "a number": 7,
            "a record that is a list": [[]],
            "a version of the future": [{"bver": 11, "n": "a", "v": 1}],
            "a version that is a text": [{"bver": "10", "n": "a", "v": 1}],
            "two versions": [{"bver": 9, "n": "a", "v": 1}, {"bver": 10, "n": "a", "v": 1}],
            "a base name that is a number": [{"bn": 7, "n": "a", "v": 1}],
            "a base time that is a text": [{"bt": "now", "n": "a", "v": 1}],
            "what has to be understood": [{"n": "a", "v": 1, "danger_": True}],
        }.items()
    ],
    record("shape", "no value", "bad_value", "record", n="b"),
    record("shape", "two values", "bad_value", "record", n="b", v=1, vs="x"),
    record("shape", "a value of another type", "bad_value", "record", n="b", v="1"),
    record("shape", "a boolean that is a number", "bad_value", "record", n="b", vb=1),
    record("shape", "a sum", "bad_value", "record", n="b", v=1, s=3),
    record("shape", "a data value", "bad_value", "record", n="b", vd="aGk"),
    record("shape", "a time that is a text", "bad_value", "record", n="b", v=1, t="now"),
    record("time", "a time of ages", "bad_time", "record", n="b", v=1, t=1e300),
    record("time", "before there was anything", "bad_time", "record", n="b", v=1, t=-1e12),
    record("numbers", "a value beyond 64 bits", "bad_value", "int64", n="b", v=1 << 64),
    record("names", "no name", "bad_name", "record", v=1),
    record("names", "a topic", "bad_name", "record", n="+/#", v=1),
    record("names", "a prototype", "bad_name", "record", n="__proto__", v=1),
    record("names", "too long together", "bad_name", "record", n="x" * 129, v=1),
    refused("numbers", "a base that overflows", '[{"bv":1e308,"n":"a","v":1e308}]', "bad_value", "finite"),
    refused("numbers", "1e999", '[{"n":"a","v":1e999}]', "bad_value", "finite"),
    refused("numbers", "a base of 5,000 digits", '[{"bv":' + "9" * 5_000 + ',"n":"a","v":1.5}]', "bad_value", "finite"),
    refused("depth", "arrays without end", "[" * 60_000, "too_deep", "recursion"),
    refused("broken encoding", "no JSON", "[{", "undecodable", "json"),
    refused("size", "1,001 records", [{"n": "a", "v": 1}] * 1_001, "too_many_readings", "pack"),
    refused("duplicates", "a label twice", b"\x81\xa3\x00\x61a\x61n\x61b\x02\x01", "bad_message", "pack", "cbor"),
    refused("duplicates", "4,000 labels of one hash", in_cbor(4_000), "undecodable", "keys", "cbor"),
    Case(
        "flood",
        "a unit that is another with each record",
        "device",
        ("gateway.v1.senml-json", *(json.dumps([{"n": "a", "u": f"u{n}", "v": n}]) for n in range(1_000))),
        ("served",),
        stored={"a": 999},
    ),
    Case(
        "flood",
        "a unit that is another within each pack",
        "device",
        (
            "gateway.v1.senml-json",
            *[json.dumps([{"n": "a", "u": "VA"[n % 2], "v": n, "t": n} for n in range(900)])] * 3,
        ),
        ("served",),
    ),
    refused("lengths", "an array of 2**64 - 1", b"\x9b" + b"\xff" * 8, "undecodable", "cbor", "cbor"),
    refused("depth", "maps without end", b"\xa1\x00" * 30_000, "too_deep", "cbor depth", "cbor"),
]
