"""Line protocol: its grammar, names that never collide, and what is refused line by line."""

from __future__ import annotations

import contextlib
import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.codecs import codec_for, influxline
from gateway.codecs.influxline import TEXT, metric
from gateway.codecs.model import Draft
from gateway.errors import Refusal
from gateway.reading import is_metric

# Line, values by metric, time in nanoseconds (-1: none).
LINES: list[tuple[str, dict[str, Any], int]] = [
    ("m f=1", {"m/f": 1.0}, -1),
    (
        "cpu,host=pi,cpu=cpu0 usage_idle=98.2 1764000000000000000",
        {"cpu/cpu.cpu0/host.pi/usage_idle": 98.2},
        1764 * 10**15,
    ),
    (
        r"disk,path=/,label=a\ b used=1i,free=2u",
        {"disk/label.a:20b/path.:2F/used": 1, "disk/label.a:20b/path.:2F/free": 2},
        -1,
    ),
    (
        "m a=1,b=-1.5e3,c=.5,d=+2.,e=-9223372036854775808i",
        {"m/a": 1.0, "m/b": -1500.0, "m/c": 0.5, "m/d": 2.0, "m/e": -(2**63)},
        -1,
    ),
    ("m a=t,b=T,c=true,d=True,e=TRUE", dict.fromkeys(["m/a", "m/b", "m/c", "m/d", "m/e"], True), -1),
    ("m a=f,b=F,c=false,d=False,e=FALSE", dict.fromkeys(["m/a", "m/b", "m/c", "m/d", "m/e"], False), -1),
    (r'm s="a, b=c \"d\" \\ e"', {"m/s": 'a, b=c "d" \\ e'}, -1),
    ('m s="two\nlines",n=1i', {"m/s": "two\nlines", "m/n": 1}, -1),
    ('m s=""', {"m/s": ""}, -1),
    (r"my\ m\,x,a\=b=c\,d f\ g=1", {"my:20m:2Cx/a:3Db.c:2Cd/f:20g": 1.0}, -1),
    (r"m\n f=1", {"m:5Cn/f": 1.0}, -1),
    ("a=b f=1", {"a:3Db/f": 1.0}, -1),
    ("m,k.x=v.y f.z=1", {"m/k:2Ex.v.y/f.z": 1.0}, -1),
    ("_internal f=1", {"0::_internal/f": 1.0}, -1),
    ("größe f=1", {"gr:C3:B6:C3:9Fe/f": 1.0}, -1),
    ("m f=1 1764000000", {"m/f": 1.0}, 1764 * 10**15),
    ("m f=1 1764000000000", {"m/f": 1.0}, 1764 * 10**15),
    ("m f=1 1764000000000000", {"m/f": 1.0}, 1764 * 10**15),
    ("m  f=1  0", {"m/f": 1.0}, 0),
    ("m f=1 \r", {"m/f": 1.0}, -1),
    ("m f=1,f=2", {"m/f": 2.0}, -1),
]


@pytest.mark.parametrize(("line", "values", "at"), LINES, ids=range(len(LINES)))
def test_lines(line: str, values: dict[str, Any], at: int) -> None:
    """Each is one reading, as text and as octets, with and without a newline behind it."""
    for data in (line, f"{line}\n", line.encode()):
        (part,) = TEXT.decode(data)
        assert isinstance(part, Draft), part
        assert (part.values, part.time, part.seq) == (values, at, 0)
        assert [type(value) for value in part.values.values()] == [type(value) for value in values.values()]


def test_many_lines() -> None:
    """In order; empty lines and comments are none."""
    parts = TEXT.decode('# Telegraf\n\nm f=1 1\n  \nm f="a\nb" 2\r\n#m f=9\nm f=3 3')
    assert [(part.values["m/f"], part.time // 10**9) for part in parts if isinstance(part, Draft)] == [
        (1.0, 1), ("a\nb", 2), (3.0, 3)]  # fmt: skip


REFUSED: list[tuple[str, str, str]] = [
    ("m", "bad_message", "not line protocol"),
    ("m f", "bad_message", "not line protocol"),
    ("m f=", "bad_message", "not line protocol"),
    ("m =1", "bad_message", "not line protocol"),
    (",a=b f=1", "bad_message", "not line protocol"),
    ("m,a f=1", "bad_message", "not line protocol"),
    ("m,a= f=1", "bad_message", "not line protocol"),
    ("m, f=1", "bad_message", "not line protocol"),
    ("m f=1 x", "bad_message", "not line protocol"),
    ("m f=1 1 1", "bad_message", "not line protocol"),
    ("m f=1,", "bad_message", "not line protocol"),
    ('m f="open', "bad_message", "not line protocol"),
    ('m f="a"b', "bad_message", "not line protocol"),
    ("m f=yes", "bad_value", "not a value of line protocol"),
    ("m f=NaN", "bad_value", "not a value of line protocol"),
    ("m f=0x1", "bad_value", "not a value of line protocol"),
    ("m f=1_0", "bad_value", "not a value of line protocol"),
    ("m f=-1u", "bad_value", "not a value of line protocol"),
    ("m f=1e999", "bad_value", "not a finite number"),
    ("m f=9223372036854775808i", "bad_value", "beyond 64 bits"),
    ("m f=18446744073709551615u", "bad_value", "beyond 64 bits"),
    ('m f="a\x01"', "bad_value", "control characters"),
    (f'm f="{"a" * 1025}"', "bad_value", "longer than"),
    ("m f=1 -1", "bad_time", "negative"),
    (f"m f=1 {'9' * 30}", "bad_time", "timestamp"),
    ("m,a=1,a=2 f=1", "bad_name", "a tag comes twice"),
    (f"m,a={'x' * 130} f=1", "bad_name", "at most 128"),
    (f"{'m' * 300} f=1", "bad_name", "too long"),
]


@pytest.mark.parametrize(("line", "code", "words"), REFUSED, ids=range(len(REFUSED)))
def test_a_line_is_refused(line: str, code: str, words: str) -> None:
    """With its index, and the lines around it are kept."""
    parts = TEXT.decode(f"a f=1\n{line}\nb f=2\n")
    (refusal,) = [part for part in parts if isinstance(part, Refusal)]
    assert (refusal.code, refusal.index) == (code, 1)
    assert words in str(refusal)
    kept = [name for part in parts if isinstance(part, Draft) for name in part.values]
    assert kept == ["a/f", "b/f"]


def test_nothing_that_is_line_protocol() -> None:
    """A message without one good line is undecodable, and so is what is no UTF-8."""
    for data in ("{}", '{"temperature": 1}\n', b"\xff f=1", "a\nb\n"):
        with pytest.raises(Refusal) as refused:
            TEXT.decode(data)
        assert refused.value.code == "undecodable"
    assert TEXT.decode("") == TEXT.decode("\n# nothing\n") == []


def test_limits() -> None:
    """A thousand lines are taken, one more none."""
    assert len(TEXT.decode("m f=1\n" * 1000)) == 1000
    with pytest.raises(Refusal) as refused:
        TEXT.decode("m f=1\n" * 1001)
    assert refused.value.code == "too_many_readings"


def test_either_kind_of_frame() -> None:
    """Telegraf sends binary frames unless told otherwise."""
    assert codec_for("gateway.v1.influx", True) is codec_for("gateway.v1.influx", False) is TEXT


def test_every_byte_costs_alike() -> None:
    """No line is read in more than a few passes: what could be matched in many ways is refused at once."""
    bombs = [
        "\\" * 60_000,
        "a," * 30_000,
        "m f=" + "1," * 30_000,
        'm f="' + '\\"' * 30_000,
        "m" + ",a=b" * 16_000,
        "m f=1" + " " * 60_000 + "x",
        "m,a=" + "\\ " * 30_000,
    ]
    begin = time.process_time()
    for bomb in bombs:
        with contextlib.suppress(Refusal):
            TEXT.decode(bomb)
    assert time.process_time() - begin < 2  # measured: 0.03


def test_tags_are_read_once_a_line(monkeypatch: pytest.MonkeyPatch) -> None:
    """And not once a field: many fields with many tags would cost their product."""
    read: list[str] = []
    tags = influxline._tags
    monkeypatch.setattr(influxline, "_tags", lambda text: read.append(text) or tags(text))
    (draft,) = TEXT.decode("once,a=1,b=2 " + ",".join(f"f{number}=1" for number in range(100)))
    assert isinstance(draft, Draft)
    assert list(draft.values)[::99] == ["once/a.1/b.2/f0", "once/a.1/b.2/f99"]
    assert read == [",a=1,b=2"] * 2  # are there two alike, and the series


word = st.text(st.characters(exclude_categories=("Cs",), exclude_characters="\n"), min_size=1, max_size=6)


def escaped(text: str, special: str) -> str:
    for character in special:
        text = text.replace(character, f"\\{character}")
    return text


@given(word, st.dictionaries(word, word, max_size=3), word)
def test_names_are_metrics_and_tell_their_series(measurement: str, tags: dict[str, str], field: str) -> None:
    """A series' name is a metric's name, and gives measurement, tags and field back: so no two share one."""
    if any(text.endswith("\\") for text in (measurement, field, *tags, *tags.values())):
        return  # the protocol has no way to say it
    if any(f"\\{character}" in text for character in ",= " for text in (measurement, field, *tags, *tags.values())):
        return
    written = "".join(f",{escaped(key, ',= ')}={escaped(value, ',= ')}" for key, value in tags.items())
    name = metric(escaped(measurement, ", "), written, escaped(field, ",= "))
    if len(name) <= 128:
        assert is_metric(name)
    first, *middle, last = name.removeprefix("0::").split("/")

    def back(part: str) -> str:
        data = bytearray()
        while part:
            if part[0] == ":":
                data.append(int(part[1:3], 16))
                part = part[3:]
            else:
                data += part[0].encode()
                part = part[1:]
        return data.decode()

    pairs = [part.split(".", 1) for part in middle]
    assert (back(first), {back(key): back(value) for key, value in pairs}, back(last)) == (measurement, tags, field)


@given(st.text(max_size=60) | st.binary(max_size=60))
def test_any_text_is_read_or_refused(data: str | bytes) -> None:
    """Whatever comes, nothing but a refusal is raised."""
    with contextlib.suppress(Refusal):
        TEXT.decode(data)
