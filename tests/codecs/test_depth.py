"""How deep a message may be."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest

from gateway.codecs import CODECS, Control
from gateway.codecs.depth import MAX_DEPTH, is_deep
from gateway.errors import Refusal

FORMATS = {name: CODECS[f"gateway.v1.{name}"] for name in ("json", "msgpack")}

# A message around something deep, and how many levels it is itself.
AROUND = {
    "type": (lambda deep: {"type": deep}, 1),
    "typed": (lambda deep: {"type": "result", "value": deep}, 1),
    "value": (lambda deep: {"a": deep, "b": 1}, 1),
    "value in an envelope": (lambda deep: {"seq": 1, "values": {"a": 1, "b": deep}}, 2),
    "values": (lambda deep: {"seq": 1, "values": [deep]}, 2),
    "beside values": (lambda deep: {"values": {}, "a": deep}, 1),
    "behind a bad name": (lambda deep: {"a b": 1, "c": deep}, 1),
    "ts": (lambda deep: {"ts": deep, "a": 1}, 1),
    "seq": (lambda deep: {"seq": deep, "a": 1}, 1),
    "device": (lambda deep: {"device": deep, "a": 1}, 1),
    "in an array": (lambda deep: [{"a": 1}, {"values": {"b": deep}}], 3),
    "an element": (lambda deep: [{"a": 1}, deep], 1),
    "a typed element": (lambda deep: [{"type": "x", "a": deep}], 2),
    "by itself": (lambda deep: deep, 0),
}


def nested(depth: int, kind: str) -> Any:
    """Something of so many levels."""
    value: Any = 1
    for _ in range(depth):
        value = [value] if kind == "arrays" else {"a": value}
    return value


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("kind", ["arrays", "objects"])
@pytest.mark.parametrize("place", AROUND)
def test_the_bound(place: str, kind: str, format: str) -> None:
    """One level more than there may be refuses the message as a whole, wherever it stands; the last one does not."""
    around, levels = AROUND[place]
    encode = (lambda message: json.dumps(message)) if format == "json" else msgspec.msgpack.encode
    (*_, last) = FORMATS[format].decode(encode(around(nested(MAX_DEPTH - levels, kind))))
    assert isinstance(last, Control) or last.code.startswith("bad_")  # type: ignore[union-attr]
    with pytest.raises(Refusal) as info:
        FORMATS[format].decode(encode(around(nested(MAX_DEPTH - levels + 1, kind))))
    assert (info.value.code, str(info.value)) == ("too_deep", "nested more than 32 deep")


@pytest.mark.parametrize("depth", [33, 500, 900, 985, 990, 995, 5_000, 60_000])
@pytest.mark.parametrize("format", FORMATS)
def test_the_same_words_at_every_depth(format: str, depth: int) -> None:
    """What the decoder itself cannot follow is refused in the same words as what it can."""
    message: dict[str, str | bytes] = {
        "json": '{"a":' + "[" * depth + "1" + "]" * depth + "}",
        "msgpack": b"\x81\xa1a" + b"\x91" * depth + b"\x01",
    }
    with pytest.raises(Refusal) as info:
        FORMATS[format].decode(message[format])
    assert (info.value.code, str(info.value)) == ("too_deep", "nested more than 32 deep")


def test_many_are_not_deep() -> None:
    """Width is no depth."""
    assert not is_deep([{"a": [1] * 100, "b": {}} for _ in range(5_000)])
