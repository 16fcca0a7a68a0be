"""``tools/bench job`` against the real daemon and broker, for a second."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.alone

ROOT = Path(__file__).parents[2]


@pytest.mark.skipif(shutil.which("mosquitto") is None, reason="needs mosquitto")
def test_the_main_job_is_measured() -> None:
    """Its figures are there, nothing is lost or missing, and no connection was closed."""
    options = ["--rates", "500", "--seconds", "1", "--devices", "20", "--dashboards", "2", "--json"]
    done = subprocess.run(
        [sys.executable, "tools/bench", "job", *options], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    (figures,) = json.loads(done.stdout)
    assert figures["sent"] > 1000
    assert (figures["lost"], figures["mqtt_missing"], figures["throttled"]) == (0, 0, 0)
    assert (figures["errors"], figures["closed"]) == ({}, {})
    for name in ("cpu_us_per_message", "ack_p50_ms", "live_p50_ms", "resident_mb", "written_per_byte"):
        assert figures[name] > 0, name


def test_a_wrong_option_is_refused() -> None:
    """An option that it does not know ends it with exit status 2 and the usage."""
    command = [sys.executable, "tools/bench", "job", "--speed", "9"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "usage:" in done.stderr
