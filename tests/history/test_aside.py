from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from gateway import aside


def names(directory: Path) -> set[str]:
    return {path.name for path in directory.iterdir()}


def put(directory: Path, name: str) -> None:
    """A file set aside; its time of change is later than those before."""
    (directory / name).write_bytes(b"")
    time.sleep(0.02)  # the step of the file system's clock


def test_what_is_set_aside_now_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A clock that stands at 1970 does not have the file removed that was set aside last, but the one before."""
    for month in (3, 1, 2):
        put(tmp_path, f"x.damaged-2026{month:02}01T000000Z")
    put(tmp_path, "x")
    stamp = "19700101T000140Z"
    monkeypatch.setattr("gateway.aside.time.strftime", lambda *_: stamp)
    target = aside.set_aside(tmp_path / "x", "damaged", kept=2)
    assert target is not None
    assert names(tmp_path) == {f"x.damaged-{stamp}", "x.damaged-20260201T000000Z"}


def test_the_file_itself_stays_whatever_its_time_of_change(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where the file system's clock says that all others are newer."""
    (tmp_path / "x").write_bytes(b"")
    put(tmp_path, "x.damaged-20260101T000000Z")
    put(tmp_path, "x.damaged-20260201T000000Z")
    real = Path.lstat

    class Early:
        st_ctime_ns = 0

    def lstat(path: Path) -> os.stat_result:
        return Early() if "1970" in path.name else real(path)  # type: ignore[return-value]

    monkeypatch.setattr("gateway.aside.time.strftime", lambda *_: "19700101T000140Z")
    monkeypatch.setattr(Path, "lstat", lstat)
    target = aside.set_aside(tmp_path / "x", "damaged", kept=2)
    assert target is not None
    assert names(tmp_path) == {target.name, "x.damaged-20260201T000000Z"}


def test_what_is_still_needed_is_spared(tmp_path: Path) -> None:
    """What a caller still reads from is not removed, however old it is."""
    for month in range(1, 7):
        put(tmp_path, f"x.damaged-20260{month}01T000000Z")
    aside.forget(tmp_path / "x", kept=2, spare=[tmp_path / "x.damaged-20260101T000000Z"])
    assert names(tmp_path) == {"x.damaged-20260101T000000Z", "x.damaged-20260601T000000Z"}


def test_as_many_as_are_kept_stay(tmp_path: Path) -> None:
    """One more than are kept costs the oldest; fewer cost nothing."""
    for number in range(aside.KEPT + 1):
        (tmp_path / "x").write_bytes(b"")
        assert aside.set_aside(tmp_path / "x", "damaged")
        assert len(names(tmp_path)) == min(number + 1, aside.KEPT)
