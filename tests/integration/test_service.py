"""The daemon as a service: signals, systemd's notify protocol, one instance a state directory."""

from __future__ import annotations

import asyncio
import json
import os
import select
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed

from tools.toolkit.servers import Daemon

STOP_S = 10.0
FIRST_MS = int(time.time() * 1000) - 3_600_000


async def load(port: int, stop: asyncio.Event) -> tuple[int, int | None]:
    """Send without pause until the connection ends; the highest seq acked, and the close code."""
    acked, seq = 0, 0
    async with connect(f"ws://127.0.0.1:{port}/v1/devices/pump-1?session=s", compression=None, proxy=None) as ws:

        async def sending() -> None:
            nonlocal seq
            while True:
                seq += 1
                await ws.send(json.dumps({"seq": seq, "n": seq, "ts": FIRST_MS + seq}))
                await asyncio.sleep(0)
                if seq >= 5000 and acked:
                    stop.set()

        task = asyncio.create_task(sending())
        try:
            while True:
                message = json.loads(await ws.recv())
                if message["type"] == "ack":
                    acked = message["seq"]
        except ConnectionClosed:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            return acked, ws.close_code


@pytest.mark.alone
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_signal_under_load_ends_in_time_with_everything_committed(tmp_path: Path, number: signal.Signals) -> None:
    """It ends with status 0 within 10 s, tells peers 1001, and what was acked is there at the next start."""
    daemon = Daemon(tmp_path, {"GATEWAY_LIMITS__DEVICE_RATE": "1e6", "GATEWAY_LIMITS__DEVICE_BURST": "1e6"})
    await asyncio.to_thread(daemon.start)
    ready = asyncio.Event()
    loading = asyncio.create_task(load(daemon.port, ready))
    await asyncio.wait_for(ready.wait(), 10)
    assert daemon.process is not None
    started = time.monotonic()
    os.kill(daemon.pid, number)
    assert await asyncio.to_thread(daemon.process.wait, STOP_S) == 0
    assert time.monotonic() - started < STOP_S
    acked, code = await loading
    assert code == 1001
    with daemon:
        status, body = await asyncio.to_thread(daemon.get, "/api/v1/history?device=pump-1&metric=n&from=0")
        assert status == 200
        values = [row["value"] for row in json.loads(body)]
        assert values == list(range(1, len(values) + 1))
        assert len(values) >= acked > 0


async def test_systemd_is_told(tmp_path: Path) -> None:
    """READY=1 when it listens, WATCHDOG=1 in half the unit's time, STOPPING=1 before it stops."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as channel:
        channel.bind(str(tmp_path / "notify"))
        channel.settimeout(10)
        settings = {"NOTIFY_SOCKET": str(tmp_path / "notify"), "WATCHDOG_USEC": "400000"}
        with Daemon(tmp_path, settings):
            told = [channel.recv(4096).decode()]
            while "WATCHDOG=1" not in told[-1]:
                told.append(channel.recv(4096).decode())
        while "STOPPING=1" not in told[-1]:
            told.append(channel.recv(4096).decode())
    assert told[0].startswith("READY=1\nSTATUS=")
    assert "STATUS=" in told[1]


@pytest.mark.alone
async def test_watchdog_is_not_told_while_the_writer_is_stuck(tmp_path: Path) -> None:
    """A writer that does not turn stops WATCHDOG=1, and /livez says why."""
    patch = (
        "import os, sys, time\nfrom gateway.cli import main\n"
        "import gateway.journal.segment, gateway.server.health as h\nh.STUCK_S = 0.3\n"
        "sync = os.fdatasync\n"
        f"os.fdatasync = lambda fd: time.sleep(3600) if os.path.exists({str(tmp_path / 'stick')!r}) else sync(fd)\n"
        "sys.exit(main())"
    )
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as channel:
        channel.bind(str(tmp_path / "notify"))
        channel.settimeout(1.5)
        settings = {"NOTIFY_SOCKET": str(tmp_path / "notify"), "WATCHDOG_USEC": "400000"}
        daemon = Daemon(tmp_path, settings, launcher=["-c", patch])
        await asyncio.to_thread(daemon.start)
        try:
            async with connect(f"ws://127.0.0.1:{daemon.port}/v1/devices/d", compression=None, proxy=None) as ws:
                (tmp_path / "stick").touch()
                await ws.send('{"a":1}')
                deadline = time.monotonic() + 10
                while (await asyncio.to_thread(daemon.get, "/livez"))[0] == 200:
                    assert time.monotonic() < deadline
                    await asyncio.sleep(0.05)
                status, body = await asyncio.to_thread(daemon.get, "/livez")
                assert status == 503
                assert b"writer" in body
                while select.select([channel], [], [], 0)[0]:
                    channel.recv(4096)
                assert not select.select([channel], [], [], 1.0)[0]
        finally:
            await asyncio.to_thread(daemon.kill)


def run(directory: Path, **settings: str) -> subprocess.CompletedProcess[str]:
    """Run `gateway run` to its end."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("GATEWAY_")}
    environment |= {"GATEWAY_STATE_DIR": str(directory), "GATEWAY_LISTEN__PORT": "0", **settings}
    command = [sys.executable, "-m", "gateway", "run"]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=20, check=False)


def test_one_instance_a_state_directory(tmp_path: Path) -> None:
    """A second one ends with status 75 and says what to do, and the first goes on."""
    with Daemon(tmp_path, {}) as daemon:
        second = run(daemon.state)
        assert second.returncode == 75
        assert "another gateway uses" in second.stderr
        assert "GATEWAY_STATE_DIR" in second.stderr
        assert daemon.get("/readyz")[0] == 200


def test_address_in_use(tmp_path: Path) -> None:
    """A port that is taken is a clear sentence and status 1, not a traceback."""
    with Daemon(tmp_path, {}) as daemon:
        second = run(tmp_path / "other", GATEWAY_LISTEN__PORT=str(daemon.port))
    assert second.returncode == 1
    assert str(daemon.port) in second.stderr
    assert "Traceback" not in second.stderr


def test_bad_settings_open_nothing(tmp_path: Path) -> None:
    """Bad settings end with 78 before anything is made."""
    ended = run(tmp_path / "state", GATEWAY_MQTT__LAYOUT="heavy", GATEWAY_LISTEN__PORT="-1")
    assert ended.returncode == 78
    assert "GATEWAY_MQTT__LAYOUT" in ended.stderr
    assert "GATEWAY_LISTEN__PORT" in ended.stderr
    assert not (tmp_path / "state").exists()


def test_state_directory_that_cannot_be_used(tmp_path: Path) -> None:
    """A state directory that is a file is a clear sentence."""
    (tmp_path / "state").write_text("")
    ended = run(tmp_path / "state")
    assert ended.returncode == 1
    assert "Traceback" not in ended.stderr
