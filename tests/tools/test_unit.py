"""The systemd unit."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

UNIT = Path(__file__).parents[2] / "systemd" / "gateway.service"


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="needs systemd-analyze")
def test_systemd_takes_the_unit(tmp_path: Path) -> None:
    """``systemd-analyze verify`` finds no fault in the unit (its program stands in for the one to be installed)."""
    unit = tmp_path / "gateway.service"
    unit.write_text(UNIT.read_text().replace("/opt/gateway/bin/gateway", "/bin/true"))
    done = subprocess.run(["systemd-analyze", "verify", unit], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout + done.stderr) == (0, "")


def test_the_unit_restarts_but_not_with_bad_settings() -> None:
    """It is told when the gateway is ready, watches it, restarts it, and gives up where settings cannot be used."""
    lines = UNIT.read_text().splitlines()
    for line in [
        "Type=notify",
        "Restart=on-failure",
        "RestartPreventExitStatus=78",
        "StateDirectory=gateway",
        "EnvironmentFile=-/etc/gateway/gateway.env",
        "ExecStart=/opt/gateway/bin/gateway run",
    ]:
        assert line in lines
    assert any(line.startswith("WatchdogSec=") for line in lines)


def test_the_recipe_in_its_comments_works(tmp_path: Path) -> None:
    """The lines that make directories and copy files work from a checkout, and leave the settings to root alone."""
    recipe = [line[4:] for line in UNIT.read_text().splitlines() if re.match(r"#   (mkdir|install) ", line)]
    assert len(recipe) == 3
    (tmp_path / "etc" / "systemd" / "system").mkdir(parents=True)
    script = "\n".join(recipe).replace(" /etc/", f" {tmp_path}/etc/")
    subprocess.run(["sh", "-euc", script], cwd=UNIT.parents[1], check=True)
    settings = tmp_path / "etc" / "gateway" / "gateway.env"
    assert settings.stat().st_mode & 0o777 == 0o600
    assert (tmp_path / "etc" / "systemd" / "system" / UNIT.name).read_bytes() == UNIT.read_bytes()
