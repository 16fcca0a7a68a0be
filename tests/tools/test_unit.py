"""The systemd units: that systemd takes them, how little they allow, and what they promise."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

SYSTEMD = Path(__file__).parents[2] / "systemd"
UNIT = SYSTEMD / "gateway.service"
SOCKET = SYSTEMD / "gateway.socket"
DROPINS = SYSTEMD / "gateway.service.d"
MAX_EXPOSURE = 1.2

needs_analyze = pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="needs systemd-analyze")


class Unit:
    """The assignments of a unit, in order, as (section, name, value)."""

    def __init__(self, path: Path) -> None:
        self.lines: list[tuple[str, str, str]] = []
        section = ""
        for line in path.read_text().splitlines():
            if match := re.fullmatch(r"\[(\w+)\]", line):
                section = match[1]
            elif line and line[0] not in "#;":
                name, equals, value = line.partition("=")
                assert section, line
                assert equals, line
                self.lines.append((section, name, value))

    def values(self, name: str) -> list[str]:
        return [value for _, given, value in self.lines if given == name]


@needs_analyze
def test_systemd_takes_the_units(tmp_path: Path) -> None:
    """``systemd-analyze verify`` finds no fault in the units (a program stands in for the one to be installed)."""
    for unit in [UNIT, SOCKET]:
        text = unit.read_text().replace("/opt/gateway/current/bin/gateway", "/bin/true")
        (tmp_path / unit.name).write_text(re.sub("(?m)^Documentation=.*\n", "", text))
    dropins = tmp_path / "gateway.service.d"
    dropins.mkdir()
    shutil.copy(DROPINS / "credentials.conf.example", dropins / "credentials.conf")
    done = subprocess.run(
        ["systemd-analyze", "verify", tmp_path / UNIT.name, tmp_path / SOCKET.name],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout + done.stderr) == (0, "")


@needs_analyze
def test_the_service_may_do_little() -> None:
    """systemd counts an exposure of at most 1.2 of 10."""
    done = subprocess.run(
        ["systemd-analyze", "security", "--offline=yes", "--no-pager", f"--threshold={MAX_EXPOSURE * 10:.0f}", UNIT],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    said = re.search(r"Overall exposure level for gateway\.service: ([\d.]+)", done.stdout)
    assert said is not None, done.stdout
    assert float(said[1]) <= MAX_EXPOSURE


def test_the_unit_restarts_but_not_with_bad_settings() -> None:
    """It is told when the gateway is ready, watches it, restarts it, and gives up where settings cannot be used."""
    unit = Unit(UNIT)
    for name, value in {
        "Type": "notify",
        "Restart": "on-failure",
        "RestartPreventExitStatus": "78",
        "DynamicUser": "yes",
        "StateDirectory": "gateway",
        "EnvironmentFile": "-/etc/gateway/gateway.env",
        "ExecStart": "/opt/gateway/current/bin/gateway run",
        "LimitCORE": "0",
    }.items():
        assert unit.values(name) == [value], name
    for name in ["WatchdogSec", "MemoryMax", "MemoryHigh", "TasksMax", "LimitNOFILE"]:
        assert re.match(r"\d+", unit.values(name)[0]), name


def test_the_socket_listens_where_the_gateway_does() -> None:
    """Without settings the socket stands at the address that the gateway itself takes."""
    settings = (SYSTEMD.parent / "config" / "gateway.env").read_text()
    host, port = (re.search(rf"(?m)^#GATEWAY_LISTEN__{name}=(.*)$", settings) for name in ("HOST", "PORT"))
    assert host is not None
    assert port is not None
    assert Unit(SOCKET).values("ListenStream") == [f"{host[1]}:{port[1]}"]


def test_the_drop_ins_name_settings_that_there_are() -> None:
    """Each setting in the example of credentials is one, and each credential that a setting points at is loaded."""
    settings = (SYSTEMD.parent / "config" / "gateway.env").read_text()
    example = Unit(DROPINS / "credentials.conf.example")
    loaded = [value.partition(":")[0] for value in example.values("LoadCredential")]
    for setting in re.findall(r"GATEWAY_\w+", "\n".join([*loaded, *example.values("Environment")])):
        assert f"#{setting}=" in settings, setting
    for value in example.values("Environment"):
        assert value.partition("=%d/")[2] in loaded


def test_reload_by_notify_takes_the_place_of_a_command() -> None:
    """The drop-in for newer systemd has it send the signal and wait, and no command beside it."""
    dropin = Unit(DROPINS / "notify-reload.conf")
    assert dropin.values("Type") == ["notify-reload"]
    assert dropin.values("ReloadSignal") == ["SIGHUP"]
    assert dropin.values("ExecReload") == [""]
    assert Unit(UNIT).values("ExecReload") == ["/bin/kill -HUP $MAINPID"]
