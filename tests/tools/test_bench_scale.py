"""``tools/bench devices``, ``start`` and ``report`` in their short forms."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from tools.toolkit import curves, fleet, startbench

ROOT = Path(__file__).parents[2]


def bench(*options: str) -> str:
    command = [sys.executable, "tools/bench", *options]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_many_devices_are_measured_and_all_come_back() -> None:
    """Memory and CPU are there, and behind both kinds of restart every device is connected, with all it sent acked."""
    found = json.loads(bench("devices", "--quick", "--devices", "60", "--json"))
    assert found["bytes_a_device"] > 0
    assert found["cpu_percent"] > 0
    assert found["sent"] > 60
    assert found["errors"] == {}
    assert [one["how"] for one in found["restarts"]] == ["SIGTERM", "SIGKILL"]
    assert all(one["back_s"] >= one["ready_s"] > 0 and one["attempts"] >= 60 for one in found["restarts"])
    assert [met for *_, met in fleet.targets(found | {"bytes_a_device": 31 << 10, "cpu_percent": 3.1})[:2]] == [
        False
    ] * 2


def test_starts_are_measured() -> None:
    """Each kind of state directory has its time and its memory; what is over the goal is marked."""
    found = json.loads(bench("start", "--quick", "--json"))
    assert len(found["starts"]) >= 3
    assert all(one["ready_ms"] >= one["cpu_ms"] * 0.5 > 0 and one["resident"] > 10e6 for one in found["starts"])
    found["starts"] = [{"state": "x", "ready_ms": 501.0, "ready_most_ms": 501.0, "cpu_ms": 1.0, "resident": 50_000_000}]
    assert "missed" in startbench.table(found)


def test_curves_are_measured_and_written(tmp_path: Path) -> None:
    """Two short steps give two rows of everything that is drawn; nothing is lost."""
    # Pictures would have this install matplotlib.
    options = ["--quick", "--seconds", "0.3", "--no-pictures", "--out", str(tmp_path)]
    bench("report", *options, "--part", "devices", "--part", "backlog")
    for part in ("devices", "backlog"):
        found = json.loads((tmp_path / f"{part}.json").read_text())
        assert [row["x"] for row in found["rows"]] == list(curves.PARTS[part].quick)
        for row in found["rows"]:
            assert row["lost"] == 0
            assert all(row[name] > 0 for name, _ in curves.PARTS[part].drawn)
        assert len(curves.table(found).splitlines()) == 4
    assert [row["waiting"] >= row["x"] for row in found["rows"]] == [True, True]
