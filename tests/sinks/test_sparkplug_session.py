"""The number of a Sparkplug session, over restarts and on disks that fail."""

from __future__ import annotations

from pathlib import Path

import pytest

from gateway.sinks.sparkplug_session import Sessions


def test_numbers_go_on_over_restarts(tmp_path: Path) -> None:
    """They begin at 0, and each is one more than that before, whoever asked for it."""
    path = tmp_path / "sparkplug.json"
    first = Sessions(path)
    assert [first.next() for _ in range(3)] == [0, 1, 2]
    assert Sessions(path).next() == 3
    assert path.read_bytes() == b'{"bdSeq":3}'


def test_after_255_comes_0(tmp_path: Path) -> None:
    """A number has one byte."""
    path = tmp_path / "sparkplug.json"
    path.write_text('{"bdSeq":254}')
    sessions = Sessions(path)
    assert [sessions.next(), sessions.next(), sessions.next()] == [255, 0, 1]


@pytest.mark.parametrize("damage", [b"", b"{", b"\xff\xfe", b'{"bdSeq":"x"}', b"[]"])
def test_a_damaged_file_is_kept_aside(tmp_path: Path, damage: bytes) -> None:
    """What cannot be read is put aside, and the numbers begin anew."""
    path = tmp_path / "sparkplug.json"
    path.write_bytes(damage)
    assert Sessions(path).next() == 0
    assert [found.read_bytes() for found in tmp_path.glob("sparkplug.json.damaged-*")] == [damage]


def test_a_disk_that_fails_stops_nothing(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Without a place to keep it the number still grows, and the log says what is wrong."""
    sessions = Sessions(tmp_path / "gone" / "sparkplug.json")
    assert [sessions.next(), sessions.next()] == [0, 1]
    assert "cannot be kept" in caplog.text
