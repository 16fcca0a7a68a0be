"""``tools/bench live`` in its short form, and what it makes of its figures."""

from __future__ import annotations

import copy
import json
import subprocess
import sys
from array import array
from pathlib import Path
from typing import Any

import msgspec
import pytest

from tools.toolkit import livereport
from tools.toolkit.liveviewer import Frame, Gallery, percentiles

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def result() -> dict[str, Any]:
    command = [sys.executable, "tools/bench", "live", "--quick", "--json"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def test_more_dashboards_cost_no_encoding(result: dict[str, Any]) -> None:
    """The encoder is called about as often for six times as many dashboards, each of which gets its updates."""
    few, many = result["dashboards"]
    assert (few["dashboards"], many["dashboards"]) == (2, 12)
    assert 0 < many["encoded_per_s"] <= few["encoded_per_s"] * 1.5 + 3
    assert many["updates_per_s"] > 3 * few["updates_per_s"]
    assert many["cpu_percent"] > 0
    assert many["update_bytes"] > 1000


def test_those_that_stop_reading_are_bounded_and_told(result: dict[str, Any]) -> None:
    """Each is moved to latest in time, within the bound of memory, told so, and up to date when it reads again."""
    one = result["stalled"]
    assert len(one["slow_s"]) == one["downgraded"] == one["told"] == one["stalled"] == 5
    assert max(one["slow_s"]) < livereport.SLOW_S
    assert 128 * 1024 < one["bytes_max"] <= livereport.MEMORY
    assert one["kernel_max"] > 0
    assert one["not_read_bytes"] > 512 * 1024
    assert one["back"]


def test_the_others_lack_nothing(result: dict[str, Any]) -> None:
    """Those that read are moved nowhere, lose neither connection nor reading, and are served meanwhile."""
    one = result["stalled"]
    assert (one["told_others"], one["lost"], one["every_whole"]) == (0, 0, True)
    for mode in ("latest", "every"):
        p50, p99 = one["latency_ms"][mode]
        assert 0 < p50 <= p99 < 5000, mode
    assert (result["lost"], result["errors"], result["closed"]) == (0, {}, {})


def test_what_is_missed_is_said(result: dict[str, Any]) -> None:
    """A figure beyond its target, and one that is not there, are marked in the table; the others are not."""
    good = copy.deepcopy(result)
    good["stalled"]["latency_ms"] = {"latest": [30.0, 120.0], "every": [30.0, 120.0]}
    for row in good["dashboards"]:
        row |= {"encoded_per_s": 10.0, "cpu_percent": 20.0, "taken_per_s": 400.0}
    assert all(met for *_, met in livereport.targets(good))
    assert "missed" not in livereport.table(good)
    for change in (
        {"slow_s": [1.0] * 4},
        {"slow_s": [1.0] * 4 + [10.1]},
        {"told": 4},
        {"back": False},
        {"bytes_max": (1 << 20) + 1},
        {"bytes_max": 0},
        {"latency_ms": {"latest": [30.0, 120.0], "every": [30.0, 251.0]}},
        {"latency_ms": {"latest": [0.0, 0.0], "every": [30.0, 120.0]}},
        {"told_others": 1},
        {"every_whole": False},
        {"lost": 1},
    ):
        bad = copy.deepcopy(good)
        bad["stalled"].update(change)
        assert "missed" in livereport.table(bad), change
    for change, missed in (
        ({"encoded_per_s": 60.0}, "encoder calls a second with 2 / 12 dashboards"),
        ({"cpu_percent": 20.1}, "each further dashboard of the same subscription, CPU a reading"),
        ({"taken_per_s": 390.0}, "12 dashboards on all devices at 400 readings a second: core busy, taken"),
    ):
        bad = copy.deepcopy(good)
        bad["dashboards"][1].update(change)
        assert [name for name, *_, met in livereport.targets(bad) if not met] == [missed]


def test_cost_of_a_further_dashboard() -> None:
    """It is the difference between the most and the fewest, a dashboard and an update or a reading."""
    rows = [
        {"dashboards": 10, "cpu_percent": 20.0, "updates_per_s": 100.0, "taken_per_s": 5000.0},
        {"dashboards": 110, "cpu_percent": 30.0, "updates_per_s": 1100.0, "taken_per_s": 5000.0},
    ]
    assert livereport.further(rows) == (0.1, 100.0, 0.2)


def test_latency_is_of_every_reading_at_every_dashboard() -> None:
    """Frames are decoded once, and each arrival counts all readings of its frame."""
    gallery = Gallery()
    update = {"type": "update", "data": {"a": {"sent": [[1, 10.0], [2, 10.5]], "t": [[1, 5]]}, "b": {"t": [[1, 5]]}}}
    payload = msgspec.json.encode(update)
    frame = gallery.look(payload)
    assert isinstance(frame, Frame)
    assert gallery.look(bytes(bytearray(payload))) is frame
    assert frame.sent == {"a": array("d", [10.0, 10.5]), "b": array("d")}
    assert percentiles([(10.6, frame), (11.0, frame)], (0.25, 0.5, 0.99)) == pytest.approx([100, 500, 1000], abs=0.2)
    assert percentiles([]) == [0.0, 0.0]
