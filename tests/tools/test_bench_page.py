"""``tools/bench page`` in its short form, and what it makes of its figures."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def bench(*options: str, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "tools/bench", "page", *options]
    return subprocess.run(
        command, cwd=ROOT, env={**os.environ, **environment}, capture_output=True, text=True, check=False
    )


@pytest.mark.skipif(shutil.which("chromedriver") is None, reason="needs chromedriver")
def test_what_a_tab_holds_is_looked_at() -> None:
    """Each look has its figures, of a page that shows all devices; nothing is lost."""
    done = bench("--quick", "--json")
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert len(result["looks"]) == 3
    for look in result["looks"]:
        assert 1e6 < look["heap"] < 20e6
        assert 1e5 < look["arrays"] < 20e6
        assert look["nodes"] > 300
        assert look["listeners"] > 30
    assert result["unacked"] == 0 < result["readings"]


def test_without_a_browser_it_says_so(tmp_path: Path) -> None:
    """The program that is missing is named, with its package."""
    done = bench("--quick", PATH=str(tmp_path))
    assert done.returncode == 1
    assert done.stderr == "tools/bench: chromium is not on this machine (Debian package chromium).\n"


def test_growth_is_that_of_the_last_half() -> None:
    """What was steep before does not count; in the table it stands by its size a second."""
    from tools.toolkit import pagebench

    sizes = [1_000_000, 2_000_000, 2_500_000, 2_500_300, 2_500_600, 2_500_900]
    looks = [
        {"at_s": 20.0 * n, "heap": size, "arrays": 300_000, "nodes": 1300 + n // 3, "listeners": 100, "load": 0.5}
        for n, size in enumerate(sizes)
    ]
    assert pagebench.growth(looks, "heap") == 15
    assert pagebench.growth(looks, "nodes") == 0
