"""Devices that send InfluxDB line protocol."""

from __future__ import annotations

from .corpus import Case

GOOD = "m a=1\n"
TAGS = "".join(f",t{n}=a" for n in range(24))  # a metric's name has room for no more
FIELDS = ",".join(f"{n:x}=" + "1" for n in range(8_000))


def lines(attack: str, name: str, text: str | bytes, *expected: str, check: str = "line") -> Case:
    return Case(attack, name, "device", ("gateway.v1.influx", text), (*expected, "served"), check)


def bad(attack: str, name: str, line: str, code: str, check: str = "line") -> Case:
    """A line that is none, between good ones: these are kept."""
    return lines(attack, name, f"{GOOD}{line}\n{GOOD}", code, check=check)


CASES = [
    *[
        bad("broken encoding", repr(line[:20]), line, "bad_message")
        for line in (
            *(
                "m",
                "m a",
                "m a=",
                "m =1",
                "a=1",
                "m a=1 x",
                'm a="x',
                "m,t a=1",
                "m,t= a=1",
                "m,=x a=1",
                "m a=1,",
                "m  ",
                "\0",
            ),
            *("m a=1 1 2", "m a=1 b=2", "m a=1\tb=2", '"m" ', "m a=1 1.5", "m\\", "m a=1 -"),
        )
    ],
    *[
        bad("numbers", repr(text[:12]), f"m a={text}", "bad_value")
        for text in (
            "NaN",
            "inf",
            "1e",
            "0x10",
            "1_000",
            "9223372036854775808i",
            "18446744073709551615u",
            "truee",
            "'x'",
        )
    ],
    bad("numbers", "1e999", "m a=1e999", "bad_value", "finite"),
    bad("numbers", "5,000 digits", "m a=" + "9" * 5_000 + "i", "bad_value"),
    bad("numbers", "a float of 5,000 digits", "m a=" + "9" * 5_000, "bad_value", "finite"),
    bad("time", "before 1970", "m a=1 -5", "bad_time"),
    bad("time", "of 5,000 digits", "m a=1 " + "9" * 5_000, "bad_time"),
    bad("names", "too long", "m" * 200 + " a=1", "bad_name"),
    bad("names", "much too long", "m" * 30_000 + " a=1", "bad_name"),
    bad("names", "too long when it is written out", "\u20ac" * 40 + " a=1", "bad_name"),
    bad("duplicates", "a tag twice", "m,t=a,t=b a=1", "bad_name"),
    bad("control characters", "NUL in a text", 'm a="\0"', "bad_value", "characters"),
    bad("control characters", "an escape sequence", 'm a="\x1b[2J"', "bad_value", "characters"),
    bad("size", "a text of 2,000 characters", 'm a="' + "x" * 2_000 + '"', "bad_value", "text size"),
    lines("size", "1,001 lines", GOOD * 1_001, "too_many_readings"),
    lines("size", "20,000 lines that are none", "x\n" * 20_000, "too_many_readings"),
    bad("flood", "10,000 fields and 50 tags", f"m{TAGS} " + ",".join(["a=1"] * 10_000), "bad_message", "line fields"),
    bad("flood", "10,000 fields of names of their own", f"m{TAGS} {FIELDS}", "bad_message", "line fields"),
    lines("flood", "60,000 commas", "m" + "," * 60_000, "undecodable"),
    lines("flood", "60,000 backslashes", "m" + "\\" * 60_000, "undecodable"),
    lines("flood", "30,000 fields without values", "m " + "a=," * 20_000, "undecodable"),
    lines("flood", "30,000 tags", "m" + ",t=a" * 15_000 + " a=", "undecodable"),
    lines("flood", "60,000 spaces", "m" + " " * 60_000, "undecodable"),
    lines("flood", "60,000 quotes", "m a=" + '"' * 60_000, "undecodable"),
    lines("utf-8", "a binary frame that is none", b"m a=\xff", "undecodable"),
]
