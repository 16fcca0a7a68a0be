"""``./tools/run`` as a person uses it, in the virtual environment that ``./tools/test`` made."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
import urllib.request
from collections import Counter
from pathlib import Path

import pytest

from tools.toolkit.proc import tree

ROOT = Path(__file__).parents[2]

pytestmark = pytest.mark.skipif(
    Path(sys.prefix).resolve() != ROOT / ".venv", reason="needs the virtual environment of ./tools/test"
)


class Run:
    """One ``./tools/run`` with an empty home directory."""

    def __init__(self, home: Path, *arguments: str, **settings: str) -> None:
        environment = {name: value for name, value in os.environ.items() if not name.startswith(("GATEWAY_", "XDG_"))}
        self.output = home / f"output-{time.monotonic_ns()}"
        with self.output.open("wb") as output:
            self.process = subprocess.Popen(
                [ROOT / "tools" / "run", *arguments],
                cwd=home,
                env={**environment, "HOME": str(home), **settings},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
            )

    @property
    def text(self) -> str:
        return self.output.read_text()

    def wait_for(self, pattern: str) -> re.Match[str]:
        """The first match in the output; fails when the command ends or 30 s pass before."""
        deadline = time.monotonic() + 30
        while not (match := re.search(pattern, self.text)):
            assert self.process.poll() is None, self.text
            assert time.monotonic() < deadline, self.text
            time.sleep(0.05)
        return match

    def stop(self, how: signal.Signals) -> int:
        """Signal it, as Ctrl-C or a service manager does; its exit status, once all its children are gone."""
        family = tree(self.process.pid)
        self.process.send_signal(how)
        status = self.process.wait(30)
        assert not [pid for pid in family if Path(f"/proc/{pid}").exists()]
        return status


def get(address: str) -> object:
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(address, timeout=5) as response:
        return json.load(response)


def shown(address: str) -> Counter[str]:
    """How many devices that have sent a value are in each state."""
    devices: list[dict[str, str]] = get(f"{address}/api/v1/devices")  # type: ignore[assignment]
    rows: list[dict[str, str]] = get(f"{address}/api/v1/latest")  # type: ignore[assignment]
    speaking = {row["device"] for row in rows}
    return Counter(device["state"] for device in devices if device["device"] in speaking)


def test_one_command_shows_devices_and_ends_cleanly(tmp_path: Path) -> None:
    """It prints an address that shows its devices, relays to mosquitto, ends cleanly on a signal, and runs again."""
    for attempt, how in enumerate([signal.SIGINT, signal.SIGTERM]):
        run = Run(tmp_path, "--devices", "3")
        try:
            address = run.wait_for(r"live page +(http://127\.0\.0\.1:\d+)/")[1]
            deadline = time.monotonic() + 15
            while shown(address) != {"online": 3}:
                assert time.monotonic() < deadline, shown(address)
                time.sleep(0.05)
            sinks = {sink["name"]: sink for sink in get(f"{address}/healthz")["sinks"]}  # type: ignore[index]
            if shutil.which("mosquitto"):
                assert sinks["mqtt"]["state"] in ("ok", "idle")
            if attempt == 0:
                other = Run(tmp_path)
                assert other.process.wait(30) == 75
                assert "is taken; using" in other.text or "8080" not in address
                assert other.text.splitlines()[-1].startswith("tools/run: another gateway uses ")
        finally:
            status = run.stop(how)
        assert status == 0, run.text
        assert run.text.count("Stopping.") == 1


def test_a_bad_setting_ends_it_with_a_sentence(tmp_path: Path) -> None:
    """A setting that cannot be used is named, and the exit status is that of the gateway."""
    run = Run(tmp_path, GATEWAY_JOURNAL__COMMIT_MS="soon")
    assert run.process.wait(30) == 78
    lines = run.text.splitlines()
    assert any("GATEWAY_JOURNAL__COMMIT_MS" in line for line in lines)
    assert lines[-1] == "tools/run: the gateway's settings cannot be used; the lines above name each."


def test_a_wrong_argument_ends_it_with_a_sentence(tmp_path: Path) -> None:
    """An argument that it does not know, or a number that is none, is said in one line."""
    for arguments in (["--many"], ["--devices", "few"], ["--devices"]):
        run = Run(tmp_path, *arguments)
        assert run.process.wait(30) == 2
        assert len(run.text.splitlines()) == 1
