"""How an entry is written, and that nothing in it forges another."""

from __future__ import annotations

import json
import logging

import pytest

from gateway.logs import EVENTS
from gateway.logs.entry import MESSAGE_MAX, TRACEBACK_MAX, console, fields, json_line

from .records import entry, raised

FORGED = "\n2026-01-01T00:00:00.000Z ERROR   gateway.app: forged"
NASTY = [
    "a\nb",
    "a\rb",
    "a\x1b[2Kb",
    "a\x00b",
    "a\x85b",
    "a\u2028b",
    "a\u202eb",
    "a\x9bb",
    "a\ud800b",
    "a\x0bb",
    "a\u200fb",
]


def test_a_line_for_people() -> None:
    """Time in UTC with milliseconds, level, logger, words; a traceback's lines are indented below."""
    assert console(entry("sink %s stopped", "mqtt")) == (
        b"2025-11-24T16:00:00.250Z WARNING gateway.test: sink mqtt stopped\n"
    )
    first, *rest = console(entry("fault", level=logging.ERROR, error=raised(ValueError("no")))).decode().splitlines()
    assert first.endswith("ERROR   gateway.test: fault")
    assert rest[0] == "    Traceback (most recent call last):"
    assert rest[-1] == "    ValueError: no"


def test_a_json_object_in_a_line() -> None:
    """The kind and its id, and each field under its name; numbers stay numbers."""
    said = entry("%s is offline", "pump-1", event="device_offline", device="pump-1", reason="ping timeout", count=3)
    assert json.loads(json_line(said)) == {
        "time": 1764000000250,
        "level": "warning",
        "logger": "gateway.test",
        "message": "pump-1 is offline",
        "event": "device_offline",
        "message_id": EVENTS["device_offline"].id,
        "device": "pump-1",
        "reason": "ping timeout",
        "count": 3,
    }


def test_fields_of_journald() -> None:
    """MESSAGE, PRIORITY, MESSAGE_ID and the place in the code, then what the entry is about."""
    said = dict(fields(entry("gone", event="device_offline", device="pump-1", reason="closed", level=logging.INFO)))
    assert said == {
        "MESSAGE": "gone",
        "PRIORITY": "6",
        "LOGGER": "gateway.test",
        "CODE_FILE": "/gateway/test.py",
        "CODE_LINE": "17",
        "CODE_FUNC": "act",
        "EVENT": "device_offline",
        "MESSAGE_ID": EVENTS["device_offline"].id,
        "DEVICE_ID": "pump-1",
        "REASON": "closed",
    }
    levels = [logging.DEBUG, logging.INFO, logging.WARNING, logging.ERROR, logging.CRITICAL]
    assert [entry("x", level=level).priority for level in levels] == [7, 6, 4, 3, 2]


def test_a_fault_is_a_kind_of_its_own() -> None:
    """An error with a traceback and no kind is a fault; a warning with one is not."""
    assert entry("x", level=logging.ERROR, error=raised(KeyError("k"))).event == "fault"
    assert entry("x", level=logging.WARNING, error=raised(KeyError("k"))).event == ""
    assert "KeyError: 'k'" in dict(fields(entry("x", error=raised(KeyError("k")))))["TRACEBACK"]


@pytest.mark.parametrize("value", NASTY)
def test_a_value_forges_no_line(value: str) -> None:
    """A control character, line separator, mark or surrogate in a value is escaped, on the console and in JSON."""
    for said in (entry("got %s", value), entry("got it", device=value), entry(value)):
        line = console(said).decode()
        assert len(line.splitlines()) == 1
        assert line[:-1].isprintable()
        text = json_line(said).decode()
        assert len(text.splitlines()) == 1
        assert text[:-1].isprintable()
        assert value in json.loads(text).values() or f"got {value}" in json.loads(text).values()


def test_a_traceback_forges_no_entry() -> None:
    """An exception's text with a newline in it cannot begin a line as an entry does."""
    lines = console(entry("fault", error=raised(ValueError(FORGED)))).decode().splitlines()
    assert any("forged" in line for line in lines)
    assert all(line.startswith("    ") for line in lines[1:])
    said = json_line(entry("fault", error=raised(ValueError(FORGED)))).decode()
    assert len(said.splitlines()) == 1


def test_words_and_values_that_do_not_fit_are_said_all_the_same() -> None:
    """A call with too few or wrong values raises nothing, and its words are there."""
    assert "two %s %d" in entry("two %s %d", "one").message
    assert "'x'" in entry("%d", "x").message


def test_long_ones_are_cut() -> None:
    """A message and a value have a greatest length, and of a traceback the end is kept."""
    assert len(entry("x" * 100_000).message) == MESSAGE_MAX
    assert len(str(entry("x", reason="y" * 100_000).values["reason"])) == MESSAGE_MAX
    trace = entry("x", error=raised(ValueError("z" * 100_000 + "end"))).traceback
    assert len(trace) == TRACEBACK_MAX
    assert trace.endswith("end")
