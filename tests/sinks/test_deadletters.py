"""Dead letters: put aside for good, with the reason."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from gateway.reading import Mark, Presence, Reading
from gateway.sinks.deadletters import DeadLetters, DeadLettersFull

from .memory import reading


def letters(path: Path, **more: int) -> DeadLetters:
    made = DeadLetters(path, clock=lambda: 42, **more)
    made.open()
    return made


def test_items_come_back_as_they_were(tmp_path: Path) -> None:
    """Every kind of item and value survives, numbers and their types exactly."""
    items = [
        Reading("d", "s", 1, 5, 6, {"i": 2**63 - 1, "f": 22.0, "t": 0.1, "b": True, "s": 'é"\n'}),
        Mark("d", "s", 2),
        Presence("d", "offline", 7, "ping timeout"),
    ]
    dead = letters(tmp_path / "deep" / "mqtt.jsonl")
    assert dead.append([(10 + n, f"because {n}", item) for n, item in enumerate(items)]) == 3
    found = list(dead.read())
    assert [letter.item for letter in found] == items
    assert [type(value) for value in found[0].item.values.values()] == [int, float, float, bool, str]  # type: ignore[union-attr]
    assert [(letter.offset, letter.time, letter.reason) for letter in found] == [
        (10, 42, "because 0"),
        (11, 42, "because 1"),
        (12, 42, "because 2"),
    ]
    assert all(json.loads(line) for line in dead.path.read_bytes().splitlines())


def test_count_survives_a_restart_and_no_offset_is_put_aside_twice(tmp_path: Path) -> None:
    """What was put aside before a crash and comes again after it stands there once."""
    first = letters(tmp_path / "a")
    first.append([(n, "no", reading(n)) for n in range(5)])
    second = letters(tmp_path / "a")
    assert second.count == 5
    assert second.append([(4, "no", reading(4)), (5, "no", reading(5))]) == 1
    assert [letter.offset for letter in second.read()] == [0, 1, 2, 3, 4, 5]


def test_torn_last_line_is_written_over(tmp_path: Path) -> None:
    """Half a line at the end, as a power cut leaves it, disappears; damage in the middle costs its own line only."""
    dead = letters(tmp_path / "a")
    dead.append([(n, "no", reading(n)) for n in range(3)])
    lines = dead.path.read_bytes().splitlines(keepends=True)
    dead.path.write_bytes(lines[0] + b"\x00\xff{]\n" + lines[1] + lines[2][:-5])
    again = letters(tmp_path / "a")
    assert again.count == 3
    again.append([(7, "no", reading(7))])
    assert [letter.offset for letter in again.read()] == [0, 1, 7]


def test_full_file_refuses_and_keeps_what_it_has(tmp_path: Path) -> None:
    """At the bound nothing is put aside; after a purge there is room again."""
    dead = letters(tmp_path / "a", max_bytes=400)
    dead.append([(0, "no", reading(0))])
    with pytest.raises(DeadLettersFull):
        dead.append([(n, "no", reading(n)) for n in range(1, 9)])
    assert dead.count == 1
    assert dead.purge() == 1
    assert dead.append([(1, "no", reading(1))]) == 1


def test_append_is_synced_before_it_returns(tmp_path: Path) -> None:
    """The file is synced after its last write, and its directory when it is born."""
    code = (
        "import sys; from pathlib import Path; from gateway.sinks.deadletters import DeadLetters\n"
        "from tests.sinks.memory import reading\n"
        "dead = DeadLetters(Path(sys.argv[1])); dead.open(); dead.append([(0, 'no', reading(0))])\n"
        "print('DONE', flush=True)\n"
    )
    trace = tmp_path / "trace"
    run = ["strace", "-f", "-y", "-e", "trace=pwrite64,fdatasync,fsync,write", "-o", str(trace)]
    try:
        subprocess.run([*run, sys.executable, "-c", code, str(tmp_path / "letters")], check=True, capture_output=True)
    except FileNotFoundError:
        pytest.skip("strace is not on this machine (Debian package strace).")
    calls = [line for line in trace.read_text().splitlines() if str(tmp_path) in line or "DONE" in line]
    kinds = [next(k for k in ("pwrite64", "fdatasync", "fsync", "write") if k in line) for line in calls]
    assert kinds == ["pwrite64", "fdatasync", "fsync", "write"]
