"""The self-test: a gateway of its own on this disk, a fleet of simulated devices, and a kill -9 in between.

What is found: whether anything acked is missing or anything is there twice, how long acks took, and what a reading
cost.  Nothing of it touches the gateway's own data: the directory is inside the state directory, since it is that disk
which is tried, and gone at the end.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import signal
import sys
import tempfile
import time
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any
from urllib.request import urlopen

from ..client.report import Report
from ..client.simulate import Options
from ..client.simulate import run as simulate
from .finding import Finding, error, fine, warning

__all__ = ["self_test"]

DEVICES, RATE = 50, 10.0  # readings a second of each
READY_S = 60.0
AWAY_S = 2.0
DRAIN_S = 30.0
STOP_S = 20.0
LATENCY_MS = 500.0  # that half of the acks should take at most
_listening = re.compile(rb"listening on (http://127\.0\.0\.1:(\d+))").search


async def self_test(directory: Path, seconds: float) -> AsyncIterator[Finding]:
    """Run for so many seconds, on the disk of ``directory``."""
    directory.mkdir(parents=True, exist_ok=True, mode=0o750)
    with tempfile.TemporaryDirectory(prefix="self-test-", dir=directory) as place:
        trial = _Trial(Path(place))
        try:
            async for finding in trial.run(seconds):
                yield finding
        except _Failed as failed:
            yield error("self-test", str(failed), "its last lines of log are above")
        finally:
            await trial.stop()


class _Failed(Exception):
    """The gateway under test did not come up."""


class _Trial:
    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._process: Process | None = None
        self._reader: asyncio.Task[None] | None = None
        self._url = ""
        self._cpu_s = 0.0
        self._peak_kib = 0

    async def run(self, seconds: float) -> AsyncIterator[Finding]:
        began = time.monotonic()
        await self._start(port=0)
        yield fine("self-test", f"ready in {time.monotonic() - began:.1f} s; {seconds:g} s of load, with a kill -9")
        stop, hurry = asyncio.Event(), asyncio.Event()
        options = Options(
            url=self._url.replace("http", "ws", 1),
            devices=DEVICES,
            rate=RATE,
            duration_s=seconds,
            prefix="self-test-",
            drain_s=DRAIN_S,
        )
        load = asyncio.create_task(simulate(options, stop=stop, hurry=hurry))
        try:
            await asyncio.sleep(seconds / 3)
            await self._end(signal.SIGKILL)
            await asyncio.sleep(min(AWAY_S, seconds / 10))
            began = time.monotonic()
            await self._start(port=int(self._url.rpartition(":")[2]))
            yield fine("self-test", f"killed, started again, and ready in {time.monotonic() - began:.1f} s")
            report = await load
        finally:
            if not load.done():
                hurry.set()
                stop.set()
                await asyncio.wait({load})
        devices: list[Any] = json.loads(await asyncio.to_thread(self._get, "/api/v1/devices"))
        await self._end(signal.SIGTERM)
        ledgers: list[Mapping[str, int]] = [row["ledger"] for row in devices]
        for finding in _judged(report, sum(int(ledger["stored"]) for ledger in ledgers)):
            yield finding
        if report.taken:
            cost = self._cpu_s * 1e6 / report.taken
            yield fine("self-test", f"{cost:,.0f} us of CPU a reading, {self._peak_kib / 1024:.0f} MiB of memory")

    async def stop(self) -> None:
        """Leave no process."""
        if self._process is not None and self._process.returncode is None:
            await self._end(signal.SIGKILL)

    async def _start(self, port: int) -> None:
        environment = {name: value for name, value in os.environ.items() if not name.startswith("GATEWAY_")}
        for name in ("NOTIFY_SOCKET", "WATCHDOG_USEC", "LISTEN_FDS", "CREDENTIALS_DIRECTORY", "STATE_DIRECTORY"):
            environment.pop(name, None)
        environment |= {
            "GATEWAY_STATE_DIR": str(self._directory / "state"),
            "GATEWAY_LISTEN__HOST": "127.0.0.1",
            "GATEWAY_LISTEN__PORT": str(port),
            "GATEWAY_LOG__FORMAT": "console",
            "GATEWAY_ID": "self-test",
        }
        # -P: what is imported is what is installed, not what lies in the working directory, which has no .env.
        self._process = await asyncio.create_subprocess_exec(
            sys.executable, "-P", "-m", "gateway", "run", stderr=PIPE, env=environment, cwd=self._directory
        )
        lines: list[bytes] = []
        errors = self._process.stderr
        assert errors is not None
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(READY_S):
                while line := await errors.readline():
                    lines.append(line)
                    if found := _listening(line):
                        self._url = found[1].decode()
                        self._reader = asyncio.create_task(_drained(errors))
                        return
        sys.stderr.write(b"".join(lines[-20:]).decode(errors="replace"))
        raise _Failed("the gateway did not come up")

    async def _end(self, number: signal.Signals) -> None:
        process = self._process
        assert process is not None
        self._note(process.pid)
        process.send_signal(number)
        try:
            async with asyncio.timeout(STOP_S):
                await process.wait()
        except TimeoutError:
            process.kill()
            await process.wait()
        if self._reader is not None:
            await self._reader

    def _note(self, pid: int) -> None:
        """CPU and memory so far (proc(5)); nothing where the process is gone already."""
        with contextlib.suppress(OSError):
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
            self._cpu_s += (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
            status = Path(f"/proc/{pid}/status").read_text()
            peak = next(line for line in status.splitlines() if line.startswith("VmHWM:"))
            self._peak_kib = max(self._peak_kib, int(peak.split()[1]))

    def _get(self, path: str) -> bytes:
        with urlopen(self._url + path, timeout=10) as answer:
            body: bytes = answer.read()
            return body


async def _drained(stream: asyncio.StreamReader) -> None:
    """Read on, so that the log never fills its pipe."""
    while await stream.readline():
        pass


def _judged(report: Report, stored: int) -> list[Finding]:
    part = "self-test"
    found = []
    if report.unacked or report.refused or report.refusal:
        text = f"of {report.taken:,} readings {report.unacked:,} were not acked and {report.refused:,} refused"
        found.append(error(part, text, report.refusal or report.reason or "see the log above"))
    elif stored != report.taken:
        what = f"{report.taken - stored:,} are missing" if stored < report.taken else f"{stored - report.taken:,} twice"
        found.append(error(part, f"{report.taken:,} readings were acked, and {what}", "please report this"))
    else:
        found.append(
            fine(part, f"{stored:,} readings acked and stored, each once: none lost, {report.resent:,} sent again")
        )
    latency = report.latency
    if latency.count:
        usual = latency.percentile(50) * 1000
        text = f"acks within {usual:,.0f} ms, and within {latency.max:.1f} s over the outage"
        if usual > LATENCY_MS:
            found.append(warning(part, text, "the disk or the CPU is slow for this load"))
        else:
            found.append(fine(part, text))
    return found
