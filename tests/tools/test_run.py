"""The second half of ``./tools/run``, with this Python and the gateway of this tree."""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import time
from pathlib import Path

import pytest

from tests.servers import free_port
from tools.lib import net

from .runs import SECOND_HALF, Run, get, wait_shown


def run(home: Path, devices: int = 0, **settings: str) -> Run:
    """Without a broker, unless ``settings`` name one."""
    return Run(home, SECOND_HALF, str(devices), **{"GATEWAY_MQTT__URL": "", **settings})


def gateway_of(running: Run) -> int:
    """The gateway's process."""
    return next(pid for pid in running.children if net.listeners(pid))


def test_two_at_once_run_side_by_side(tmp_path: Path) -> None:
    """Two that start together, each with a home of its own, get a port each, and each shows its own devices."""
    homes = [tmp_path / "one", tmp_path / "two"]
    for home in homes:
        home.mkdir()
    with run(homes[0], 2) as one, run(homes[1], 3) as two:
        addresses = one.address(), two.address()
        assert addresses[0] != addresses[1]
        for running, address in zip((one, two), addresses, strict=True):
            assert net.listeners(gateway_of(running)) == [("127.0.0.1", int(address.rpartition(":")[2]))]
        for address, count in zip(addresses, (2, 3), strict=True):
            wait_shown(address, count)
            assert {device["device"][:5] for device in get(f"{address}/api/v1/devices")} == {"demo-"}
        assert "ended" not in one.text + two.text
        assert one.stop(signal.SIGINT) == two.stop(signal.SIGTERM) == 0


def test_two_at_once_on_one_directory(tmp_path: Path) -> None:
    """Of two that start together on one state directory one runs; the other names its address in one sentence."""
    both = [run(tmp_path, GATEWAY_LISTEN__PORT="0") for _ in range(2)]
    try:
        deadline = time.monotonic() + 60
        while not (ended := [one for one in both if one.process.poll() is not None]):
            assert time.monotonic() < deadline
            time.sleep(0.05)
        (loser,) = ended
        (winner,) = [one for one in both if one is not loser]
        address = winner.address()
        assert loser.process.returncode == 75
        assert len(loser.text.splitlines()) == 1
        assert f"already: {address}/ (process {gateway_of(winner)})" in loser.text
        third = run(tmp_path)
        assert third.end() == 75
        assert third.text == loser.text
    finally:
        for one in both:
            one.__exit__()


@pytest.mark.skipif(shutil.which("mosquitto") is None, reason="needs mosquitto")
def test_it_relays_to_a_broker(tmp_path: Path) -> None:
    """Without a word about a broker it relays to the one on this machine, or to one of its own, which ends with it."""
    with Run(tmp_path, SECOND_HALF, "1", GATEWAY_LISTEN__PORT="0") as running:
        address = running.address()
        broker = running.wait_for(r"MQTT +mqtt://127\.0\.0\.1:(\d+) ")[1]
        assert net.is_broker(int(broker))
        deadline = time.monotonic() + 60
        while (sink := {sink["name"]: sink for sink in get(f"{address}/healthz")["sinks"]}["mqtt"])["delivered"] < 1:
            assert time.monotonic() < deadline, sink
            time.sleep(0.05)
    assert running.process.returncode == 0
    assert broker == "1883" or not net.is_broker(int(broker))


def test_a_port_that_is_given_and_taken(tmp_path: Path) -> None:
    """A port of somebody else's that was asked for is named in one sentence; nothing is said to run."""
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        running = run(tmp_path, GATEWAY_LISTEN__PORT=str(port))
        assert running.end() == 1
    assert running.text == (
        f"tools/run: port {port} is taken; stop what uses it, or name another with GATEWAY_LISTEN__PORT.\n"
    )


def test_a_port_that_is_none(tmp_path: Path) -> None:
    """A port that is no number ends it with the gateway's sentence and its own, at once."""
    running = run(tmp_path, GATEWAY_LISTEN__PORT="abc")
    assert running.end() == 78
    first, last = running.text.splitlines()
    assert "GATEWAY_LISTEN__PORT" in first
    assert last == "tools/run: the gateway's settings cannot be used; the lines above name each."


def test_settings_are_read_from_env_files_too(tmp_path: Path) -> None:
    """A port, a directory and a log level in .env are used and shown, without the line that says where it listens."""
    port = free_port()
    state = tmp_path / "elsewhere"
    (tmp_path / ".env").write_text(
        f"GATEWAY_LISTEN__PORT={port}\nexport GATEWAY_STATE_DIR={state}\nGATEWAY_LOG__LEVEL=warning\n"
    )
    with run(tmp_path) as running:
        assert running.address() == f"http://127.0.0.1:{port}"
        assert f"  data       {state}\n" in running.text
        assert (state / "lock").exists()
        assert re.search(r"\. \S+/bin/activate, then for example gateway simulate .*--url ws://", running.text)
    assert running.process.returncode == 0


def test_a_gateway_that_is_killed(tmp_path: Path) -> None:
    """When the gateway dies its fate is the last sentence, its log is kept and named, and all else is gone."""
    with run(tmp_path, 2, GATEWAY_LISTEN__PORT="0") as running:
        wait_shown(running.address(), 2)
        told = len(running.text)
        family = running.children
        os.kill(gateway_of(running), signal.SIGKILL)
        assert running.end() == 137
    *lines, last = running.text[told:].splitlines()
    fate = "tools/run: the gateway was killed (SIGKILL); the lines above are the last of its log; all of it is in "
    found = re.fullmatch(rf"{re.escape(fate)}(\S+)\.", last)
    assert found
    log = Path(found[1])
    assert log.read_text().splitlines()[-12:] == lines
    assert not [pid for pid in family if Path(f"/proc/{pid}").exists()]
    log.unlink()
    for rest in log.parent.iterdir():
        rest.unlink()
    log.parent.rmdir()
