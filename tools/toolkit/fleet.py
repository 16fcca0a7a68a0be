"""``tools/bench devices``: very many devices that say little, and how soon all are back when the gateway restarts.

The daemon has core 0 for itself, the devices share core 1.  As real ones do they send right after they first connected
and then once a period, answer pings, and come back behind a lost connection with full jitter
(``gateway.client.backoff``, with the client's own ceilings); what was not acked is sent again.  Limits and heartbeats
are the gateway's defaults; the limit of open files is raised to the hard one.
"""

from __future__ import annotations

import asyncio
import gc
import random
import resource
import signal
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import msgspec

from gateway.client.backoff import Backoff

from .about import load, machine, sentence
from .frames import client_frame
from .job import _loop
from .load import READING, SAMPLES, Client, Meter, samples
from .proc import cpu_seconds, resident_bytes
from .servers import HOST, Daemon, Failed

__all__ = ["QUICK", "Devices", "as_json", "run", "table", "targets"]

DAEMON_CORE, OTHER_CORE = 0, 1
SETTLE_S = 1.0
FILES = 200  # that this process needs beside its connections
KIB, CORE_PERCENT, BACK_S = 30.0, 3.0, 30.0  # what is asked


@dataclass(frozen=True)
class Devices:
    """What to run; times in seconds."""

    devices: int = 10_000
    period_s: float = 60.0  # between two readings of a device
    connect_s: float = 60.0  # over which they connect first: as long as a period, their readings come evenly
    measured_s: float = 30.0
    backoff_s: tuple[float, float] = (0.5, 30.0)  # first and greatest ceiling of a wait: what gateway.client has
    back_s: float = 60.0  # waited for them, after a restart too


QUICK = Devices(devices=200, period_s=2.0, connect_s=1.0, measured_s=1.0, backoff_s=(0.1, 0.5), back_s=20.0)


def run(what: Devices) -> dict[str, Any]:
    """Measure; raises :class:`Failed`."""
    about, files = machine(), _open_files(what.devices + FILES)
    with tempfile.TemporaryDirectory(prefix="gateway-bench-") as name:
        daemon = Daemon(Path(name), {"GATEWAY_LOG__LEVEL": "warning"}, core=DAEMON_CORE).start()
        try:
            figures = _loop(_measure(what, daemon))
        finally:
            daemon.stop()
        log = daemon.log.read_text(errors="replace").strip().splitlines()[-10:]
    return {"machine": about, "load_after": load(), **asdict(what), "open_files": files, **figures, "log": log}


def _open_files(needed: int) -> int:
    """Raise the limit of open files, which the daemon inherits; it needs somewhat more than we do."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    if hard != resource.RLIM_INFINITY and hard < needed:
        raise Failed(f"{needed} open files are needed and {hard} allowed: ulimit -Hn, or fewer --devices")
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return hard


class _Crowd:
    """All devices of this process, and what they share."""

    def __init__(self, what: Devices, port: int) -> None:
        self.what = what
        self.port = port
        self.host = f"{HOST}:{port}"
        self.loop = asyncio.get_running_loop()
        self.values = samples()
        self.meter = Meter()
        self.connected = 0
        self.attempts = 0
        rng = random.Random(1)
        self.members = [Member(self, number, rng) for number in range(what.devices)]

    async def until(self, done: Callable[[], bool], seconds: float) -> float:
        """Wait for it; how long that was.  Raises :class:`Failed`."""
        begin = time.monotonic()
        while not done():
            if time.monotonic() - begin > seconds:
                online = f"{self.connected:,} of {len(self.members):,} are connected"
                raise Failed(f"not done in {seconds:.0f} s; {online}; closed: {self.meter.closed}")
            await asyncio.sleep(0.02)
        return time.monotonic() - begin

    def all_in(self) -> bool:
        return self.connected == len(self.members)

    def all_acked(self) -> bool:
        return all(member.acked == member.seq for member in self.members)


class Member:
    """One device over all its connections."""

    __slots__ = ("acked", "backoff", "crowd", "line", "name", "number", "seq")

    def __init__(self, crowd: _Crowd, number: int, rng: random.Random) -> None:
        self.crowd = crowd
        self.number = number
        self.name = f"load-{number:05}"
        self.seq = 0
        self.acked = 0
        self.backoff = Backoff(*crowd.what.backoff_s, rng)
        self.line: _Line | None = None

    def connect(self) -> None:
        """Begin an attempt; what fails is tried again behind a wait."""
        self.crowd.attempts += 1
        asyncio.ensure_future(self._connect(), loop=self.crowd.loop)  # noqa: RUF006  # ends by itself within a moment

    async def _connect(self) -> None:
        try:
            await self.crowd.loop.create_connection(partial(_Line, self), HOST, self.crowd.port)
        except OSError:
            self.again()

    def again(self) -> None:
        """Come back after a wait."""
        self.crowd.loop.call_later(self.backoff.next(), self.connect)

    def begin(self) -> None:
        """Connect for the first time, send, and go on once a period for good."""
        self.connect()
        self.crowd.loop.call_later(self.crowd.what.period_s, self._tick)

    def _tick(self) -> None:
        self.seq += 1
        self.crowd.meter.sent += 1
        if self.line is not None:
            self._send(self.seq)
        self.crowd.loop.call_later(self.crowd.what.period_s, self._tick)

    def welcome(self, line: _Line, last_seq: int) -> None:
        """The gateway has everything up to ``last_seq``: send what is behind it."""
        self.line = line
        self.crowd.connected += 1
        self.backoff.reset()
        self.acked = max(self.acked, last_seq)
        if not self.seq:
            self.seq = 1
            self.crowd.meter.sent += 1
        for seq in range(last_seq + 1, self.seq + 1):
            self._send(seq)

    def _send(self, seq: int) -> None:
        assert self.line is not None
        values = self.crowd.values[(seq + self.number * 37) % SAMPLES]
        self.line.transport.write(client_frame(READING % (time.time_ns() // 1_000_000, seq, values, time.monotonic())))

    def lost(self, line: _Line) -> None:
        """A connection has ended, or came to nothing."""
        if self.line is line:
            self.line = None
            self.crowd.connected -= 1
        self.again()


class _Line(Client):
    """One connection of a device."""

    def __init__(self, member: Member) -> None:
        super().__init__(member.crowd.host, f"/v1/devices/{member.name}?session=load", member.crowd.meter)
        self.member = member

    def message(self, payload: bytes) -> None:
        message = msgspec.json.decode(payload, type=dict[str, Any])
        kind = message["type"]
        if kind == "ack":
            self.member.acked = message["seq"]
        elif kind == "welcome":
            self.member.welcome(self, message["last_seq"])
        else:
            self.meter.errors[kind] = self.meter.errors.get(kind, 0) + 1

    def connection_lost(self, exc: Exception | None) -> None:
        self.opened.cancel()  # nobody waits for one connection
        if not self.closing:
            self._count_close("connection lost")
        self.member.lost(self)


async def _measure(what: Devices, daemon: Daemon) -> dict[str, Any]:
    await asyncio.sleep(SETTLE_S)
    before = resident_bytes(daemon.pid)
    crowd = _Crowd(what, daemon.port)
    for number, member in enumerate(crowd.members):
        crowd.loop.call_later(number * what.connect_s / what.devices, member.begin)
    gc.collect()
    gc.freeze()
    gc.disable()
    await crowd.until(crowd.all_in, what.connect_s + what.back_s)
    await asyncio.sleep(SETTLE_S)
    connected = resident_bytes(daemon.pid)
    sent, begin, cpu = crowd.meter.sent, time.monotonic(), cpu_seconds(daemon.pid)
    await asyncio.sleep(what.measured_s)
    took, used = time.monotonic() - begin, cpu_seconds(daemon.pid) - cpu
    sent, after = crowd.meter.sent - sent, resident_bytes(daemon.pid)
    restarts = [await _restart(crowd, daemon, how) for how in (signal.SIGTERM, signal.SIGKILL)]
    await crowd.until(crowd.all_acked, 20)
    return {
        "resident_before": before,
        "resident_connected": connected,
        "resident_after": after,
        "bytes_a_device": round((max(connected, after) - before) / what.devices),
        "sent_per_s": round(sent / took, 1),
        "cpu_percent": round(used / took * 100, 2),
        "restarts": restarts,
        "sent": crowd.meter.sent,
        "errors": crowd.meter.errors,
    }


async def _restart(crowd: _Crowd, daemon: Daemon, how: signal.Signals) -> dict[str, Any]:
    """End the daemon and start it anew at once; times in seconds from the new one's start."""
    attempts = crowd.attempts
    begin = time.monotonic()
    await asyncio.to_thread(daemon.kill if how == signal.SIGKILL else daemon.stop)
    stopped = time.monotonic()
    await asyncio.to_thread(daemon.start)
    ready = time.monotonic() - stopped
    await crowd.until(crowd.all_in, crowd.what.back_s)
    back, cpu = time.monotonic() - stopped, cpu_seconds(daemon.pid)
    await crowd.until(crowd.all_acked, 20)
    await asyncio.sleep(SETTLE_S)
    return {
        "how": how.name,
        "stop_s": round(stopped - begin, 2),
        "ready_s": round(ready, 2),
        "back_s": round(back, 2),
        "cpu_s": round(cpu, 2),
        "attempts": crowd.attempts - attempts,
        "resident": resident_bytes(daemon.pid),
    }


def targets(result: dict[str, Any]) -> list[tuple[str, str, str, bool]]:
    """What is asked: (of what, measured, target, met)."""
    size, cpu = result["bytes_a_device"] / 1024, result["cpu_percent"]
    rows = [
        ("memory a device", f"{size:.1f} KiB", f"<= {KIB:g} KiB", size <= KIB),
        ("CPU of all", f"{cpu:.1f} % of a core", f"<= {CORE_PERCENT:g} %", cpu <= CORE_PERCENT),
    ]
    for one in result["restarts"]:
        back = one["back_s"]
        rows.append((f"all back after {one['how']}", f"{back:.1f} s", f"<= {BACK_S:g} s", back <= BACK_S))
    return rows


def table(result: dict[str, Any]) -> str:
    """Everything as Markdown."""
    lines = [
        sentence(result["machine"], result["load_after"]),
        "",
        f"{result['devices']:,} devices, a reading of four metrics every {result['period_s']:g} s each"
        f" ({result['sent_per_s']:.0f} a second in all), {result['open_files']:,} open files allowed, all else as it is"
        " by default",
        "",
        "| | measured | target | |",
        "| --- | ---: | ---: | --- |",
    ]
    lines += [f"| {name} | {got} | {want} | {'' if met else 'missed'} |" for name, got, want, met in targets(result)]
    lines += [
        "",
        f"Resident: {result['resident_before'] / 1e6:.0f} MB before, {result['resident_connected'] / 1e6:.0f} MB with"
        f" all connected, {result['resident_after'] / 1e6:.0f} MB {result['measured_s']:g} s later.",
    ]
    lines += [
        f"{one['how']}: ended in {one['stop_s']:.1f} s, ready {one['ready_s']:.1f} s after its start, all back after"
        f" {one['back_s']:.1f} s and {one['attempts']:,} attempts, {one['cpu_s']:.1f} s of CPU until then."
        for one in result["restarts"]
    ]
    lines += ["", "The gateway's log:", *result["log"]] if result["log"] else []
    return "\n".join(lines)


def as_json(result: dict[str, Any]) -> str:
    return msgspec.json.format(msgspec.json.encode(result), indent=2).decode()
