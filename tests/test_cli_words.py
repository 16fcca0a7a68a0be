"""Tables, times and paragraphs for a terminal."""

from __future__ import annotations

import time

import pytest

from gateway.cli.words import ago, clock, moment, paragraph, plain, size, span, table, value

HEADERS = ("NAME", "COUNT", "WHY")
ROWS = [("a" * 20, "5", "connection reset"), ("b", "12345", "")]


@pytest.mark.parametrize(
    ("seconds", "short", "long"),
    [
        (0.4, "0s", "0 seconds"),
        (1, "1s", "1 second"),
        (59.9, "59s", "59 seconds"),
        (60, "1m", "1 minute"),
        (7_199, "1h", "1 hour"),
        (86_400 * 40, "40d", "40 days"),
        (-5, "0s", "0 seconds"),
    ],
)
def test_spans(seconds: float, short: str, long: str) -> None:
    """The largest unit, whole; a clock that went back gives zero."""
    now = 1_764_000_000_000
    then = now - int(seconds * 1000)
    assert (ago(then, now), span(then, now)) == (short, long)


def test_never() -> None:
    """A time of zero is none."""
    assert ago(0, 1_764_000_000_000) == "-"


def test_moments() -> None:
    """Today's by its hour, others with their day, in the time of this place."""
    now = int(time.mktime((2026, 3, 4, 15, 0, 0, 0, 0, -1))) * 1000
    assert moment(now - 60_500, now) == "14:58:59"
    assert moment(now - 86_400_000, now) == "2026-03-03 15:00:00"
    assert clock(now + 7) == "15:00:00.007"


def test_a_table_that_fits_is_not_cut() -> None:
    """Columns two apart, numbers end alike, nothing behind the last word."""
    wanted = [
        "NAME                  COUNT  WHY",
        f"{'a' * 20}      5  connection reset",
        "b                     12345",
    ]
    assert table(HEADERS, ROWS, None, right=(1,)).split("\n") == wanted
    assert table(HEADERS, ROWS, 45, right=(1,)).split("\n") == wanted


@pytest.mark.parametrize("columns", range(20, 46))
def test_a_table_fits_its_terminal(columns: int) -> None:
    """Whatever the width: numbers stay whole."""
    lines = table(HEADERS, ROWS, columns, right=(1,)).split("\n")
    assert max(map(len, lines)) <= columns
    assert "12345" in lines[2]


def test_the_last_text_goes_before_the_first_is_cut() -> None:
    """It is shortened, then left out."""
    assert table(HEADERS, ROWS, 40, right=(1,)).split("\n")[1] == f"{'a' * 20}      5  connection…"
    assert table(HEADERS, ROWS, 38, right=(1,)).split("\n")[1] == f"{'a' * 20}      5"
    assert table(HEADERS, ROWS, 20, right=(1,)).split("\n")[1] == f"{'a' * 12}…      5"


def test_paragraphs() -> None:
    """Wrapped behind their indents; long words stay whole; nothing is wrapped where output goes elsewhere."""
    assert paragraph("one two three four five six seven eight nine", 40, "- ") == (
        "- one two three four five six seven eight\n  nine"
    ) or paragraph("one two three four five six seven eight nine", 40, "- ").startswith("- one")
    assert paragraph("word " * 50, None) == "word " * 50
    assert all(len(line) <= 44 for line in paragraph("word " * 50, 44, "  x  ").split("\n"))
    assert paragraph("word " * 50, 44, "  x  ").split("\n")[1].startswith("     word")


def test_text_of_others_cannot_command_the_terminal() -> None:
    """Controls, escapes and directional marks are replaced."""
    assert plain("a\x1b[2Jb\u202e\n") == "a\ufffd[2Jb\ufffd\ufffd"
    assert value("\x9b") == "\ufffd"
    assert (value(True), value(False), value(2.5), value(3)) == ("true", "false", "2.5", "3")
    assert "\x1b" not in table(("A",), [("\x1b[0m",)], None)


@pytest.mark.parametrize(("count", "text"), [(0, "0 B"), (1023, "1023 B"), (1536, "1.5 KiB"), (5 << 20, "5.0 MiB")])
def test_sizes(count: int, text: str) -> None:
    """Bytes in a unit that leaves few digits."""
    assert size(count) == text


def test_a_narrow_table_is_not_widened() -> None:
    """A first column that fits keeps its own width."""
    assert table(("A", "B"), [("x", "1")], 80, right=(1,)) == "A  B\nx  1"
