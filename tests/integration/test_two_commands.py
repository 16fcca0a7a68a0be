"""``./tools/run`` as a person uses it, in the virtual environment that ``./tools/test`` made."""

from __future__ import annotations

import shutil
import signal
import sys
from pathlib import Path

import pytest

from tests.tools.runs import ROOT, SCRIPT, Run, get, wait_shown

pytestmark = pytest.mark.skipif(
    Path(sys.prefix).resolve() != ROOT / ".venv", reason="needs the virtual environment of ./tools/test"
)


def test_one_command_shows_devices_and_ends_cleanly(tmp_path: Path) -> None:
    """It prints an address that shows its devices, relays to mosquitto, ends cleanly on a signal, and runs again."""
    for attempt, how in enumerate([signal.SIGINT, signal.SIGTERM]):
        with Run(tmp_path, SCRIPT, "--devices", "3") as run:
            address = run.address()
            wait_shown(address, 3)
            sinks = {sink["name"]: sink for sink in get(f"{address}/healthz")["sinks"]}
            if shutil.which("mosquitto"):
                assert sinks["mqtt"]["state"] == "ok"
            if attempt == 0:
                other = Run(tmp_path, SCRIPT)
                assert other.end() == 75
                assert other.text.startswith("tools/run: a gateway runs on ")
                assert f"already: {address}/ " in other.text
            assert run.stop(how) == 0, run.text
        assert run.text.count("Stopping.") == 1


def test_its_devices_leave_the_simulations_alone(tmp_path: Path) -> None:
    """The README's next command, ``gateway simulate``, has other devices than those it started."""
    with Run(tmp_path, SCRIPT, "--devices", "2") as run:
        address = run.address()
        wait_shown(address, 2)
        command = [str(ROOT / ".venv" / "bin" / "gateway"), "simulate", "--url", address, "--duration", "0.5"]
        simulation = Run(tmp_path, command, "--devices", "2", "--rate", "10")
        assert simulation.end() == 0, simulation.text
        states = {device["device"]: device["state"] for device in get(f"{address}/api/v1/devices")}
        assert sorted(states.values()) == ["offline", "offline", "online", "online"]
        assert "ended" not in run.text


def test_a_bad_setting_ends_it_with_a_sentence(tmp_path: Path) -> None:
    """A setting that cannot be used is named, and the exit status is that of the gateway."""
    run = Run(tmp_path, SCRIPT, GATEWAY_JOURNAL__COMMIT_MS="soon")
    assert run.end() == 78
    lines = run.text.splitlines()
    assert any("GATEWAY_JOURNAL__COMMIT_MS" in line for line in lines)
    assert lines[-1] == "tools/run: the gateway's settings cannot be used; the lines above name each."


def test_a_wrong_argument_ends_it_with_a_sentence(tmp_path: Path) -> None:
    """An argument that it does not know, or a number that is none, is said in one line."""
    for arguments in (["--many"], ["--devices", "few"], ["--devices"]):
        run = Run(tmp_path, SCRIPT, *arguments)
        assert run.end() == 2
        assert len(run.text.splitlines()) == 1
