"""``tools/bench job`` against the real daemon and broker, for a second."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from dataclasses import fields
from itertools import chain
from pathlib import Path
from typing import Any

import pytest

from tools.toolkit import about, jobreport, peers

ROOT = Path(__file__).parents[2]
needs_mosquitto = pytest.mark.skipif(shutil.which("mosquitto") is None, reason="needs mosquitto")


QUICK = ["--rates", "500", "--seconds", "1", "--devices", "20", "--dashboards", "2", "--json"]


def job(*options: str) -> dict[str, Any]:
    """The result of ``tools/bench job`` for a second."""
    command = [sys.executable, "tools/bench", "job", *QUICK, *options]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


@needs_mosquitto
def test_the_main_job_is_measured() -> None:
    """Its figures are there, nothing is lost or missing, and no connection was closed; beside it are a peer's of the
    same load, which sends no acks."""
    result = job("--peers", "python")
    ours, theirs = result["results"]
    for figures in (ours, theirs):
        assert figures["sent"] > 500
        assert figures["sent"] == figures["mqtt_received"]
        assert (figures["lost"], figures["mqtt_missing"], figures["throttled"]) == (0, 0, 0)
        assert (figures["errors"], figures["closed"]) == ({}, {})
        for name in ("cpu_us_per_reading", "live_p50_ms", "resident_mb"):
            assert figures[name] > 0, name
    assert ours["ack_p50_ms"] > 0 < ours["written_per_byte"]
    assert (theirs["who"], theirs["ack_p99_ms"]) == ("python", 0)
    assert {"cpu", "cores", "system", "python", "uvloop", "paho-mqtt", "load"} <= result["machine"].keys()


@needs_mosquitto
def test_packs_of_readings_are_measured_by_the_reading() -> None:
    """Of SenML, which has no acks, what came to MQTT counts, ten readings a message."""
    (figures,) = job("--readings", "10", "--format", "senml", "--rates", "2000")["results"]
    assert figures["sent"] % 10 == 0
    assert 2000 < figures["sent"] == figures["mqtt_received"]
    assert (figures["lost"], figures["errors"], figures["ack_p99_ms"]) == (0, {}, 0)


def test_a_peer_that_cannot_be_run_is_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where npm is not there or fails, those for Node.js are left out with a sentence each, and no other."""
    said: list[str] = []
    monkeypatch.setattr(peers, "NODE", tmp_path / "node")
    monkeypatch.setenv("PATH", str(tmp_path))
    assert [peer.name for peer in peers.found(["node-red", "python"], said.append)] == ["python"]
    assert said == ["node-red is left out: npm is not on this machine (Debian package npm)."]
    said.clear()
    npm = tmp_path / "npm"
    npm.write_text("#!/bin/sh\necho no such registry >&2\nexit 1\n")
    npm.chmod(0o755)
    assert peers.found(["node"], said.append) == []
    assert said[-1] == "node is left out: npm could not install it: no such registry"


def test_the_peers_for_node_are_whole() -> None:
    """What is installed is what the files take, and the flow names only nodes that are in it."""
    installed = set(json.loads((peers.FILES / "package.json").read_text())["dependencies"])
    taken = set(re.findall(r'require\("(.*?)"\)', (peers.FILES / "plain.js").read_text()))
    assert installed == taken | {"node", "node-red"}
    nodes = json.loads((peers.FILES / "flow.json").read_text())
    ids = {node["id"] for node in nodes}
    for node in nodes:
        named = [node.get(key, "bench") for key in ("z", "broker", "server") if node["type"] != "mqtt-broker"]
        assert {*named, *chain(*node.get("wires", []))} <= ids, node["id"]


def test_the_middle_of_runs() -> None:
    """Figures are medians, what is counted is added up; the table tells how far the runs lie apart, and ratios."""

    def one(who: str, cost: float, lost: int) -> jobreport.Figures:
        zeros = {field.name: 0 if field.type == "int" else 0.0 for field in fields(jobreport.Figures)}
        return jobreport.Figures(
            **{**zeros, "who": who, "rate": 500, "cpu_us_per_reading": cost, "lost": lost, "errors": {"bad": lost}},
        )

    ours = jobreport.middle([one("gateway", cost, 1) for cost in (30.0, 10.0, 20.0)])
    assert (ours.cpu_us_per_reading, ours.lost, ours.errors, ours.runs) == (20.0, 3, {"bad": 3}, 3)
    theirs = jobreport.middle([one("node", 50.0, 0)] * 3)
    text = jobreport.table({"machine": about.machine("pytest"), "load_after": [1.0], "results": [ours, theirs]})
    assert f"pytest {pytest.__version__}; load" in text
    assert "median of 3 runs" in text
    assert "| 500 | gateway | 0 | 20.0 | 10.0 to 30.0 | 1.00 |" in text
    assert "| 500 | node | 0 | 50.0 | 50.0 to 50.0 | 2.50 |" in text


def test_a_wrong_option_is_refused() -> None:
    """An option that it does not know ends it with exit status 2 and the usage."""
    command = [sys.executable, "tools/bench", "job", "--speed", "9"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "usage:" in done.stderr


def test_an_unknown_peer_is_refused() -> None:
    """A peer that there is not ends it with the names of those that there are."""
    command = [sys.executable, "tools/bench", "job", "--peers", "node,perl"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "perl: none of node-red, node, python" in done.stderr
