"""Sparkplug B payloads on the wire, and the compiled form of their definition."""

from __future__ import annotations

import importlib.resources
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import gateway.sinks
from gateway.reading import Value
from gateway.sinks.sparkplug_payload import (
    BOOLEAN,
    DOUBLE,
    INT64,
    STRING,
    Maker,
    asked,
    datatype,
    death,
    fits,
    most_bytes,
)

from .sparkplug_host import FIELD_OF, REBIRTH, ask_for_births, read

NOW = 1_764_000_000_123_456_789
MS = NOW // 1_000_000
VALUES = st.one_of(
    st.booleans(),
    st.integers(-(1 << 63), (1 << 63) - 1),
    st.floats(allow_nan=False, allow_infinity=False),
    st.text(st.characters(exclude_categories=["Cs"]), max_size=60),
)


def test_a_death_byte_by_byte() -> None:
    """An NDEATH is a time and one metric, bdSeq, an Int64, without a sequence number."""
    time = bytes([0x80 | MS >> shift & 127 for shift in range(0, 35, 7)]) + bytes([MS >> 35])
    metric = b"\x0a\x05bdSeq" + b"\x18" + time + b"\x20\x04" + b"\x58\x07"
    assert death(7, NOW) == b"\x08" + time + b"\x12" + bytes([len(metric)]) + metric


@settings(max_examples=50, deadline=None)
@given(VALUES, st.booleans())
def test_values_come_back(value: Value, historical: bool) -> None:
    """A birth has name, type, time, alias and value of a metric, data alias, time and value alone."""
    kind = datatype(value)
    made = Maker(NOW)
    made.born("a/b", kind, value, NOW, 300)
    made.told(300, kind, value, NOW + 1_000_000, historical)
    data = made.encode(255)
    assert len(data) <= made.size
    payload = read(data)
    assert (payload.timestamp, payload.seq) == (MS, 255)
    born, told = payload.metrics
    assert (born.name, born.alias, born.timestamp, born.datatype) == ("a/b", 300, MS, kind)
    assert (told.name, told.alias, told.timestamp, told.datatype) == (None, 300, MS + 1, None)
    assert (born.historical, told.historical) == (False, historical)
    for metric in (born, told):
        assert metric.field == FIELD_OF[kind]
        assert metric.value == value
        assert type(metric.value) is type(value)


@settings(max_examples=50, deadline=None)
@given(VALUES, st.from_regex(r"[A-Za-z0-9][A-Za-z0-9_.:/-]{0,127}", fullmatch=True))
def test_no_metric_is_larger_than_it_is_taken_for(value: Value, name: str) -> None:
    """What a metric takes at most is never less than what it takes."""
    made = Maker(NOW)
    before = len(made.encode(255))
    made.born(name, datatype(value), value, (1 << 63) - 1, (1 << 32) - 1)
    assert len(made.encode(255)) - before <= most_bytes(value, name)


@pytest.mark.parametrize(
    ("value", "integer", "before", "kind"),
    [
        (22, False, 0, INT64),
        (22.5, False, 0, DOUBLE),
        (22.5, False, INT64, DOUBLE),
        (22, False, DOUBLE, DOUBLE),
        (22.0, True, 0, INT64),
        (22.5, True, INT64, DOUBLE),
        (1e300, True, 0, DOUBLE),
        (22, True, DOUBLE, INT64),
        (True, False, 0, BOOLEAN),
        (1, False, BOOLEAN, INT64),
        ("x", False, DOUBLE, STRING),
        (22, False, STRING, INT64),
    ],
)
def test_types(value: Value, integer: bool, before: int, kind: int) -> None:
    """Whole numbers are Int64 until one of the metric has a fraction, and Double from then on; a declared integer is
    Int64 where its value allows it."""
    assert datatype(value, integer, before) == kind
    assert fits(value, kind) == (not (integer and type(value) is float and kind == INT64))


def test_what_a_host_asks_for_is_read() -> None:
    """Names and values of a command; what is no payload is said to be none."""
    assert asked(ask_for_births()) == [(REBIRTH, True)]
    assert asked(b"\x12\x05\x0a\x01x\x38\x01") == [("x", None)]
    with pytest.raises(ValueError, match="payload"):
        asked(b"\xff\xff")


def test_fields_that_are_not_in_the_definition_are_passed_over() -> None:
    """A metric with properties (field 9) and a data set (field 17) is read for the rest."""
    extra = b"\x4a\x02\x08\x01" + b"\x8a\x01\x02\x08\x01"
    metric = b"\x0a\x01x" + extra
    assert asked(b"\x12" + bytes([len(metric)]) + metric) == [("x", None)]


def test_the_compiled_module_is_that_of_the_definition(tmp_path: Path) -> None:
    """The compiler makes of ``sparkplug_b.proto`` what is in ``sparkplug_b_pb2.py``."""
    pytest.importorskip("grpc_tools", reason="the compiler is not installed")
    source = Path(str(importlib.resources.files(gateway.sinks)))
    command = [sys.executable, "-W", "ignore", "-m", "grpc_tools.protoc", "-I", str(source)]
    subprocess.run([*command, f"--python_out={tmp_path}", "sparkplug_b.proto"], check=True, timeout=60)
    # Not the whole file: another version of the compiler writes another version's number.
    assert _descriptor(tmp_path) == _descriptor(source)


def _descriptor(directory: Path) -> str:
    (line,) = [line for line in (directory / "sparkplug_b_pb2.py").read_text().splitlines() if "AddSerialized" in line]
    return line
