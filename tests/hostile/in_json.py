"""Devices that send JSON."""

from __future__ import annotations

import json

from .corpus import Case

WIDE = 60_000  # characters that a message may have and a few to spare


def json_case(attack: str, name: str, sent: object, *expected: str, check: str = "", **more: object) -> Case:
    return Case(attack, name, "device", sent, expected, check, **more)  # type: ignore[arg-type]


def refused(attack: str, name: str, sent: object, code: str, check: str) -> Case:
    """One error, and the next reading is taken."""
    return json_case(attack, name, sent, code, "served", check=check)


def value(attack: str, name: str, literal: str, check: str, code: str = "bad_value") -> Case:
    """A value that is none, in the middle of good readings: these are kept."""
    sent = f'[{{"seq":1,"a":1}},{{"seq":2,"a":2,"b":{literal}}},{{"seq":3,"a":3}}]'
    return json_case(attack, name, sent, code, "served", check=check, stored={"a": 3})


def named(attack: str, name: str, metric: str, check: str = "name") -> Case:
    """A metric of such a name."""
    sent = '[{"a":1},{' + json.dumps(metric) + ':2,"b":2},{"a":3}]'
    return json_case(attack, name, sent, "bad_name", "served", check=check, stored={"a": 3})


def nested(depth: int) -> str:
    return '{"a":' + "[" * depth + "1" + "]" * depth + "}"


def keys(count: int) -> str:
    return "{" + ",".join(f'"k{number}":1' for number in range(count)) + "}"


CASES = [
    # depth
    refused("depth", "a little too deep", nested(32), "too_deep", "depth"),
    refused("depth", "deep, closed", nested(900), "too_deep", "depth"),
    refused("depth", "arrays without end", "[" * WIDE, "too_deep", "recursion"),
    refused("depth", "objects without end", '{"a":' * (WIDE // 5), "too_deep", "recursion"),
    refused("depth", "both in turn", '[{"a":' * (WIDE // 6), "too_deep", "recursion"),
    refused("depth", "a typed message", '{"type":"result","value":' + "[" * 40 + "]" * 40 + "}", "too_deep", "depth"),
    refused(
        "depth", "a description", '{"type":"describe","metrics":' + '{"a":' * 40 + "1" + "}" * 41, "too_deep", "depth"
    ),
    refused("depth", "beside many good ones", "[" + '{"a":1},' * 900 + "[" * 40 + "]" * 41, "too_deep", "depth"),
    # numbers
    value("numbers", "1e999", "1e999", "finite"),
    value("numbers", "-1e999", "-1e999", "finite"),
    value("numbers", "an exponent of thousands of digits", "1e" + "9" * 5_000, "finite"),
    value("numbers", "NaN", "NaN", "finite"),
    value("numbers", "Infinity", "Infinity", "finite"),
    value("numbers", "-Infinity", "-Infinity", "finite"),
    value("numbers", "2**63", str(1 << 63), "int64"),
    value("numbers", "-2**63 - 1", str(-(1 << 63) - 1), "int64"),
    value("numbers", "2**64", str(1 << 64), "int64"),
    value("numbers", "5,000 digits", "9" * 5_000, "int64"),
    value("numbers", "55,000 digits", "-" + "9" * 55_000, "int64"),
    json_case(
        "numbers",
        "the least and the greatest",
        '{"a":-9223372036854775808,"b":9223372036854775807,"c":5e-324,"d":1.7976931348623157e308,"e":1e-400,"f":-0.0}',
        "served",
        stored={
            "a": str(-(1 << 63)),
            "b": str((1 << 63) - 1),
            "c": 5e-324,
            "d": 1.7976931348623157e308,
            "e": 0,
            "f": 0,
        },
    ),
    json_case("numbers", "50,000 decimals", '{"a":0.' + "3" * 50_000 + "}", "served", stored={"a": 1 / 3}),
    refused("numbers", "a leading zero", '{"a":01}', "undecodable", "json"),
    refused("numbers", "hexadecimal", '{"a":0x10}', "undecodable", "json"),
    # control characters
    value("control characters", "NUL", r'"a\u0000b"', "characters"),
    value("control characters", "escape sequence of a terminal", r'"\u001b[2J\u001b]0;owned\u0007"', "characters"),
    value("control characters", "unit separator", r'"\u001f"', "characters"),
    value("control characters", "a high surrogate alone", r'"\ud800"', "characters"),
    value("control characters", "a low surrogate alone", r'"a\udfffb"', "characters"),
    value("control characters", "surrogates in the wrong order", r'"\udc00\ud800"', "characters"),
    refused("control characters", "a control character as it is", '{"a":"\x01"}', "undecodable", "json"),
    json_case(
        "control characters",
        "bidirectional marks are text",
        '{"a":"\\u202egpj.exe\\u2066"}',
        "served",
        stored={"a": "\u202egpj.exe\u2066"},
    ),
    json_case(
        "control characters",
        "lines that look like a log's",
        '{"a":"ok\\r\\nERROR gateway: root logged in"}',
        "served",
        stored={"a": "ok\r\nERROR gateway: root logged in"},
    ),
    named("control characters", "a name with a line", "a\nERROR forged"),
    named("control characters", "a name with NUL", "a\0"),
    named("control characters", "a name with a bidirectional mark", "a\u202eb"),
    named("control characters", "a name with a lone surrogate", "a\ud800"),
    # utf-8
    named("utf-8", "a name that looks like another", "\u0430"),
    named("utf-8", "a name of full-width letters", "\uff41"),
    named("utf-8", "digits of another script", "a\u0661"),
    # names
    *[
        named("names", name, name)
        for name in (
            *("__proto__", "+", "#", "a/#/b+", "$SYS/broker", "../../etc/passwd", "/etc/passwd", "..", "", " "),
            *(
                "'; DROP TABLE chunk; --",
                'a" OR "1"="1',
                "<script>alert(1)</script>",
                "a<b",
                "&lt;",
                "a,b=c d=1",
                "a b",
            ),
            *(
                "a=1",
                "a\\",
                "%2e%2e",
                "a\tb",
                "-a",
                "_a",
                ".a",
                "*",
                "?",
                "a*",
                "{{7*7}}",
                "${jndi:ldap://x}",
                "\ufeffa",
            ),
            *("x" * 129, "x" * 50_000, "seq ", "a|b", "`id`", "$(id)", "a;b", "a\r\nb"),
        )
    ],
    json_case(
        "names",
        "prototypes that the grammar allows",
        '{"constructor":1,"toString":2,"hasOwnProperty":3,"valueOf":4,"a/../b":5,"a//b":6,"prototype":7,"A::":8}',
        "served",
        stored={"constructor": 1, "toString": 2, "hasOwnProperty": 3, "valueOf": 4, "a/../b": 5, "a//b": 6}
        | {"prototype": 7, "A::": 8},
    ),
    json_case(
        "names",
        "texts that mean something elsewhere are texts",
        '{"a":"\'; DROP TABLE chunk; --","b":"<script>alert(1)</script>","c":"../../etc/passwd","d":"x,y=1 z=2"}',
        "served",
        stored={
            "a": "'; DROP TABLE chunk; --",
            "b": "<script>alert(1)</script>",
            "c": "../../etc/passwd",
            "d": "x,y=1 z=2",
        },
    ),
    refused("names", "a device that is no name", '{"device":"a/#","a":1}', "bad_device", "sub-device"),
    refused("names", "a device that is a number", '{"device":7,"a":1}', "bad_device", "device type"),
    refused("names", "a heartbeat of no name", '{"type":"heartbeat","device":[7]}', "bad_device", "sub-device type"),
    # size
    json_case("size", "a message too long", lambda: "[" + " " * 70_000 + "]", "close 1009", check="message size"),
    json_case("size", "a message much too long", lambda: " " * 3_000_000, "close 1009", check="message size"),
    value("size", "a text of 1,025 characters", '"' + "x" * 1_025 + '"', "text size"),
    value("size", "a text of 50,000 characters", '"' + "€" * 18_000 + '"', "text size"),
    refused("size", "1,001 readings", "[" + ",".join(['{"a":1}'] * 1_001) + "]", "too_many_readings", "readings"),
    refused("size", "20,000 empty arrays", "[" + ",".join(["[]"] * 20_000) + "]", "too_many_readings", "readings"),
    refused("size", "30,000 zeros", "[" + ",".join("0" * 30_000) + "]", "too_many_readings", "readings"),
    json_case(
        "size",
        "300 bad readings",
        "[" + ",".join(["[]"] * 300) + "]",
        "bad_message x 300",
        "served",
        check="object",
    ),
    # flood
    refused("flood", "more metrics than a device may have", keys(121), "too_many_metrics", "metrics"),
    refused("flood", "7,000 metrics", keys(6_000), "too_many_metrics", "metrics"),
    json_case(
        "flood",
        "names without end",
        tuple({f"invented-{number}": 1} for number in range(125)),
        "too_many_metrics x 5",
        "served",
        check="metrics",
    ),
    json_case(
        "flood", "messages that are none", ("x",) * 9, "undecodable x 5", "close 1011", check="undecodable in a row"
    ),
    json_case("flood", "3,000 heartbeats", ('{"type":"heartbeat"}',) * 3_000, "served"),
    # duplicates
    json_case("duplicates", "the last of a name counts", '{"a":1,"a":"x","a":3}', "served", stored={"a": 3}),
    json_case(
        "duplicates", "9,000 times the same name", "{" + ",".join(['"a":1'] * 9_000) + "}", "served", stored={"a": 1}
    ),
    refused("duplicates", "a bad value behind a good one", '{"a":1,"a":[]}', "bad_value", "values"),
    refused("duplicates", "values twice", '{"values":{"a":1},"values":7}', "bad_message", "envelope"),
    # time
    refused("time", "before 1970", '{"ts":-1,"a":1}', "bad_time", "time"),
    refused("time", "beyond 2262", '{"ts":9223372036854775808,"a":1}', "bad_time", "time"),
    refused("time", "an infinite time", '{"ts":1e999,"a":1}', "bad_time", "time"),
    refused("time", "no number", '{"ts":"now","a":1}', "bad_time", "time"),
    refused("time", "a time of 5,000 digits", '{"ts":' + "9" * 5_000 + ',"a":1}', "bad_time", "time"),
    refused("time", "true", '{"ts":true,"a":1}', "bad_time", "time"),
    # sequence
    refused("sequence", "zero", '{"seq":0,"a":1}', "bad_seq", "sequence"),
    refused("sequence", "negative", '{"seq":-1,"a":1}', "bad_seq", "sequence"),
    refused("sequence", "2**63", '{"seq":9223372036854775808,"a":1}', "bad_seq", "sequence"),
    refused("sequence", "a fraction", '{"seq":1.5,"a":1}', "bad_seq", "sequence"),
    refused("sequence", "a text", '{"seq":"1","a":1}', "bad_seq", "sequence"),
    refused("sequence", "true", '{"seq":true,"a":1}', "bad_seq", "sequence"),
    # shape
    *[
        refused("shape", f"{sent[:20]} for a message", sent, "bad_message", "shape")
        for sent in ("7", "null", "true", '"text"', "1.5", "-0")
    ],
    refused("shape", "values are a list", '{"values":[1,2]}', "bad_message", "envelope"),
    refused("shape", "beside values", '{"values":{},"a":1}', "bad_message", "beside"),
    refused("shape", "an array in an array", '[["a",1]]', "bad_message", "object"),
    refused("shape", "typed in an array", '[{"type":"heartbeat"}]', "bad_message", "typed"),
    refused("shape", "a type that there is not", '{"type":"shutdown"}', "bad_message", "types"),
    refused("shape", "a welcome of its own", '{"type":"welcome","session":"x"}', "bad_message", "types"),
    refused("shape", "a type that is a list", '{"type":[1]}', "bad_message", "types"),
    refused("shape", "an answer to no command", '{"type":"result","id":"c1","ok":true}', "unknown_command", "results"),
    value("shape", "a value that is an object", "{}", "values"),
    value("shape", "a value that is a list", "[1]", "values"),
    # descriptions
    *[
        refused("requests", f"describe: {name}", '{"type":"describe",' + sent + "}", "bad_description", "description")
        for name, sent in {
            "a name that is a number": '"name":7',
            "a name of 129 characters": '"name":"' + "x" * 129 + '"',
            "a name with a control character": r'"name":"\u001b[31m"',
            "an interval of nothing": '"interval_s":0',
            "an interval of years": '"interval_s":1e12',
            "metrics that are a list": '"metrics":[]',
            "a metric that is no name": '"metrics":{"a b":{}}',
            "a prototype": '"metrics":{"__proto__":{}}',
            "a unit of 33 characters": '"metrics":{"a":{"unit":"' + "x" * 33 + '"}}',
            "a unit with NUL": r'"metrics":{"a":{"unit":"\u0000"}}',
            "1,001 metrics": '"metrics":{' + ",".join(f'"k{n}":{{}}' for n in range(1_001)) + "}",
        }.items()
    ],
    # broken encoding
    *[
        refused("broken encoding", repr(sent[:16]), sent, "undecodable", "json")
        for sent in (
            "",
            "{",
            "}",
            '{"a":1',
            '{"a":1}x',
            "{'a':1}",
            '{"a":1,}',
            "[1,2",
            "<xml/>",
            "a=1",
            "\ufeff{}",
            "\0",
        )
    ],
    refused("broken encoding", "two messages in one", '{"a":1}{"a":2}', "undecodable", "json"),
    refused("broken encoding", "an open text of 60,000 characters", '{"a":"' + "\\\\" * 30_000, "undecodable", "json"),
    json_case("broken encoding", "JSON in a binary frame", b'{"a":1}', "undecodable", "served", check="msgpack"),
    json_case(
        "broken encoding",
        "text where MessagePack was agreed on",
        ("gateway.v1.msgpack", '{"a":1}'),
        "close 1003",
        check="kind",
    ),
    json_case(
        "broken encoding",
        "binary where JSON was agreed on",
        ("gateway.v1.json", b"\x81\xa1a\x01"),
        "close 1003",
        check="kind",
    ),
]
