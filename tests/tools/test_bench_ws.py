"""``tools/bench ws`` in its short form, and what it makes of its figures."""

from __future__ import annotations

import copy
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from tools.toolkit import wsbench, wsreport
from tools.toolkit.servers import Failed
from tools.toolkit.wspeers import close_all, connect, frames_to_send, send_paced

ROOT = Path(__file__).parents[2]


def bench(*options: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "tools/bench", "ws", *options]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def result() -> dict[str, Any]:
    done = bench("--quick", "--loop", "asyncio", "--json")
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def test_every_kind_of_handler_is_measured(result: dict[str, Any]) -> None:
    """CPU a message is there for plain websockets and each handler, with its ratio; batches were full."""
    (figures,) = result["loops"]
    receive = figures["receive"]
    for kind in wsbench.COMPARED:
        assert 0.5 < receive["cpu_us"][kind]["median"] < 1000, kind
    assert set(receive["ratio"]) == {*wsbench.COMPARED, "batch/message"} - {"plain"}
    assert receive["mean_batch"] == 50
    assert 100 <= receive["message_bytes"] <= 120


def test_idle_connections_are_measured(result: dict[str, Any]) -> None:
    """Every idle connection was pinged and stayed; their memory and CPU are there."""
    idle = result["loops"][0]["idle"]
    assert idle["pings"] >= idle["connections"] == 500
    assert idle["lost"] == 0
    assert idle["bytes"]["basic"] > 1000
    assert idle["cpu_percent"] > 0


def test_broadcasts_are_measured(result: dict[str, Any]) -> None:
    """Each broadcast is framed once and reaches every peer that reads; those that do not are gone at the end."""
    one = result["loops"][0]["broadcast"]
    assert one["framed_per_broadcast"] == 1
    assert (one["missing"], one["delivered"]) == (0, one["broadcasts"] * 95)
    assert one["stalled_during"] == 5
    assert 100_000 < one["pending_bytes_per_stalled"] <= 1 << 20
    assert one["stalled_gone_after_s"] >= one["deadline_s"]


def test_the_machine_is_described(result: dict[str, Any]) -> None:
    """The table says on what it was measured, and has a row for each target."""
    text = wsreport.table(result)
    assert result["machine"]["cpu"] in text
    assert result["machine"]["python"] in text
    for target in ("<= 1.15", "<= 0.85", "< 1", "<= 20 KiB", "<= 3 %", "<= 250 ms", "<= 1,024 KiB"):
        assert f"| {target} |" in text, target


def test_a_missed_target_is_said(result: dict[str, Any]) -> None:
    """A figure beyond its target is marked, a lost delivery fails the latency whatever its size."""
    figures = copy.deepcopy(result["loops"][0])
    figures["receive"]["ratio"]["basic"]["median"] = 1.16
    figures["receive"]["ratio"]["inline"]["median"] = 0.84
    figures["broadcast"]["missing"] = 1
    met = {what: met for what, _, _, met in wsreport.targets(figures)}
    assert not met["CPU a message, `async for` / websockets"]
    assert met["CPU a message, inline / websockets"]
    assert not met["delivery, p99, 100 peers, 5 stalled"]


def test_noise_asks_for_another_round() -> None:
    """Rounds whose ratios lie apart are noisy, whatever the machine's speed did in all of them alike."""
    even = [
        wsbench.Round({kind: speed * (2 if kind == "plain" else 1) for kind in wsbench.COMPARED}, 0.0)
        for speed in (1, 3, 2, 5)
    ]
    assert not wsbench._noisy(even)
    odd = copy.deepcopy(even)
    odd[0].cpu["inline"] *= 1.3
    odd[1].cpu["inline"] *= 1.2
    assert wsbench._noisy(odd)


def test_the_cpu_of_another_process_is_read() -> None:
    """The clock of the server is the server's: it stands while the server waits and runs with its work."""
    with wsbench.children("asyncio", "inline") as (child,):
        before = child.cpu()
        assert 0.01 < before < 60
        end = time.process_time() + 0.05
        while time.process_time() < end:
            pass
        assert child.cpu() - before < 0.04
        peers = connect(child.port, 10)
        try:
            assert send_paced(peers, frames_to_send(), 2000, 0.2) > 200
            deadline = time.monotonic() + 10
            while child.ask()["messages"] < 200 and time.monotonic() < deadline:
                time.sleep(0.01)
            assert child.cpu() > before
        finally:
            close_all(peers)


def test_a_server_that_does_not_upgrade_is_said() -> None:
    """A refused handshake ends the measurement with the server's answer."""
    with wsbench.children("asyncio", "inline") as (child,), pytest.raises(Failed, match="404"):
        connect(child.port, 1, "/other")


def test_a_server_that_does_not_start_is_said(capfd: pytest.CaptureFixture[str]) -> None:
    """A server that ends at once is told by its kind; its own words are on stderr."""
    with pytest.raises(Failed, match="'nothing' did not start"), wsbench.children("asyncio", "nothing"):
        pass
    assert "invalid choice" in capfd.readouterr().err


def test_parts_and_loops_can_be_chosen() -> None:
    """One part under one loop, with numbers of one's own; a wrong loop is refused."""
    done = bench("--quick", "--loop", "asyncio", "--part", "idle", "--idle", "100", "--json")
    assert done.returncode == 0, done.stderr
    (figures,) = json.loads(done.stdout)["loops"]
    assert set(figures) == {"loop", "idle"}
    assert figures["idle"]["connections"] == 100
    assert bench("--loop", "other").returncode == 2


@pytest.mark.skipif((os.cpu_count() or 1) < 2, reason="needs two cores")
def test_server_and_load_have_cores_of_their_own() -> None:
    """The server is kept to core 0."""
    with wsbench.children("asyncio", "inline") as (child,):
        assert os.sched_getaffinity(child.pid) == {0}
