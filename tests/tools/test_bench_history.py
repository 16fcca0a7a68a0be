"""``tools/bench history`` in its short form, and what it makes of its figures."""

from __future__ import annotations

import copy
import json
import subprocess
import sys
from pathlib import Path

from tools.toolkit import historybench

ROOT = Path(__file__).parents[2]


def test_the_history_is_measured() -> None:
    """All of a backlog comes to the disk, nothing of the devices is lost, answers have their points, and each figure
    beyond its target is marked in the table."""
    command = [sys.executable, "tools/bench", "history", "--quick", "--json"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert result["drain"]["beside"]["lost"] == 0
    assert all(one["values_per_s"] > 0 for one in result["drain"].values())
    assert all(0 < one["bytes_per_value"] < 12 for one in result["disk"].values())
    points = [one["points"] for found in result["query"].values() for one in found.values()]
    assert len(points) == 4
    assert all(1000 <= count <= 1002 for count in points)

    good = copy.deepcopy(result)
    for one in good["drain"].values():
        one["values_per_s"] = historybench.VALUES_PER_S
    good["drain"]["beside"] |= {"ack_ms": [26.0, 60.0], "ack_after_ms": [25.0, 50.0]}
    for found in good["query"].values():
        for one in found.values():
            one["ms"] = historybench.DAY_MS
    assert "missed" not in historybench.table(good)
    for part, name, change in (
        ("drain", "alone", {"values_per_s": 499_999}),
        ("drain", "beside", {"ack_ms": [26.0, 60.5]}),
        ("drain", "beside", {"lost": 1}),
        ("disk", "counter", {"bytes_per_value": 12.1}),
        ("query", "irregular", {"1 days": {"points": 1000, "ms": 20.5}}),
        ("query", "regular", {"2 days": {"points": 1000, "ms": 200.5}}),
        ("query", "regular", {"2 days": {"points": 999, "ms": 20}}),
    ):
        bad = copy.deepcopy(good)
        bad[part][name].update(change)
        assert historybench.table(bad).count("missed") == 1, change
