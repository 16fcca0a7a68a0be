"""``tools/bench live``: what dashboards cost, and what those that stop reading cost the others.

The daemon has core 0 for itself, devices and dashboards share core 1.  Two parts, one after the other on one daemon:

- *dashboards*: the same subscription (``latest``, everything, 100 ms) for ever more of them; CPU and encoder calls.
- *stalled*: many dashboards, of which some, in ``every`` and with small receive buffers, ask for history as well and
  read nothing behind their snapshot.  How long until the hub has each on ``latest``, what each costs in memory, and how
  late the others are.  Then they read again: each has to be told ``mode``, and to end with the newest reading of each
  device.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import resource
import statistics
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import msgspec

from .about import load, machine
from .liveprobe import PATH
from .liveviewer import Gallery, Viewer, percentiles
from .load import Device, Meter, Pacer, samples
from .proc import resident_bytes
from .servers import HOST, Daemon, Failed

__all__ = ["QUICK", "Live", "run"]

DAEMON_CORE, OTHER_CORE = 0, 1
LOOK_S = 0.1  # between looks inside
SETTLE_S = 10.0


@dataclass(frozen=True)
class Live:
    """What to run; times in seconds, ``rate`` in readings a second over all devices."""

    rate: int = 5000
    devices: int = 200
    steps: tuple[int, ...] = (5, 50, 200)  # dashboards in the first part
    step_s: float = 6.0
    dashboards: int = 200  # in the second
    stalled: int = 50
    every: int = 10  # of those that read (one at least), in `every`; the others in `latest`
    stall_s: float = 12.0
    warm_up_s: float = 2.0
    again_s: float = 2.0
    receive_buffer: int = 4096
    history_s: float = 300.0  # asked for by those that read nothing
    pad: int = 0  # bytes of text in each reading


QUICK = Live(
    rate=400,
    devices=20,
    steps=(2, 12),
    step_s=1.0,
    dashboards=16,
    stalled=5,
    every=3,
    stall_s=2.5,
    warm_up_s=0.5,
    again_s=0.5,
    pad=1000,
)


def run(live: Live) -> dict[str, Any]:
    """Measure; raises :class:`Failed`."""
    about = machine("websockets", "uvloop")
    with tempfile.TemporaryDirectory(prefix="gateway-bench-") as name:
        settings = {
            "GATEWAY_LIMITS__DEVICE_RATE": "1000000",
            "GATEWAY_LIMITS__DEVICE_BURST": "1000000",
            "GATEWAY_LOG__LEVEL": "warning",
        }
        launcher = ["-m", "tools.toolkit.liveprobe"]
        with Daemon(Path(name), settings, core=DAEMON_CORE, launcher=launcher) as daemon:
            figures = _loop(_measure(live, daemon))
    return {"machine": about, **figures, "load_after": load()}


def _loop(main: Coroutine[Any, Any, dict[str, Any]]) -> dict[str, Any]:
    try:
        import uvloop
    except ImportError:
        return asyncio.run(main)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(main)


class _Probe:
    """Asks the daemon for what stands inside, over one connection."""

    def __init__(self, port: int) -> None:
        self._port = port

    async def look(self) -> dict[str, Any]:
        reader, writer = await asyncio.open_connection(HOST, self._port)
        try:
            request = f"GET {PATH} HTTP/1.1\r\nHost: {HOST}:{self._port}\r\nConnection: close\r\n\r\n"
            writer.write(request.encode())
            head, _, body = (await reader.read(-1)).partition(b"\r\n\r\n")
        finally:
            writer.close()
        if b" 200 " not in head[:20]:
            raise Failed(f"no look inside: {head[:80]!r}")
        found: dict[str, Any] = msgspec.json.decode(body)
        return found


class _Bench:
    """The load: devices that send while the block of :meth:`sending` runs, and the probe."""

    def __init__(self, live: Live, daemon: Daemon) -> None:
        self.live = live
        self.daemon = daemon
        self.probe = _Probe(daemon.port)
        self.meter = Meter()
        self.late_s = 0.0
        pad = b',"text":"%s"' % (b"x" * live.pad) if live.pad else b""
        values = [one + pad for one in samples()]
        host = f"{HOST}:{daemon.port}"
        self.devices = [Device(host, f"load-{n:03}", self.meter, values, n * 37) for n in range(live.devices)]

    async def connect(self) -> None:
        loop = asyncio.get_running_loop()
        for device in self.devices:
            await loop.create_connection(partial(lambda one: one, device), HOST, self.daemon.port)
            await asyncio.wait_for(device.opened, 10)

    @contextlib.asynccontextmanager
    async def sending(self) -> AsyncIterator[None]:
        pacer = Pacer(self.devices, self.live.rate)
        task = asyncio.create_task(pacer.run(3600))
        try:
            yield
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            self.late_s = max(self.late_s, pacer.latest_s)

    async def until(self, done: Callable[[], bool], seconds: float) -> bool:
        deadline = time.monotonic() + seconds
        while not done():
            if time.monotonic() > deadline:
                return False
            await asyncio.sleep(0.05)
        return True


async def _measure(live: Live, daemon: Daemon) -> dict[str, Any]:
    bench = _Bench(live, daemon)
    await bench.connect()
    gc.collect()
    gc.freeze()
    gc.disable()
    costs = await _dashboards(bench)
    stalled = await _stalled(bench)
    meter = bench.meter
    await bench.until(lambda: meter.acked >= meter.sent, SETTLE_S)
    log = daemon.log.read_text(errors="replace").strip().splitlines()[-10:]
    for device in bench.devices:
        device.close()
    if meter.errors or not meter.acked:
        raise Failed(f"{meter.acked} readings were taken; errors: {meter.errors}, closed: {meter.closed}")
    return {
        "rate": live.rate,
        "devices": live.devices,
        "dashboards": costs,
        "stalled": stalled,
        "sent": meter.sent,
        "lost": meter.sent - meter.acked,
        "held": meter.held,
        "errors": meter.errors,
        "closed": meter.closed,
        "generator_late_ms": round(bench.late_s * 1000, 1),
        "log": log,
    }


async def _dashboards(bench: _Bench) -> list[dict[str, Any]]:
    """CPU and encoder calls with ever more dashboards of the same subscription."""
    live, gallery, pid = bench.live, Gallery(), bench.daemon.pid
    viewers: list[Viewer] = []
    rows = []
    async with bench.sending():
        for count in live.steps:
            for _ in range(count - len(viewers)):
                viewers.append(Viewer(bench.daemon.port, gallery, "latest", 100))
                await viewers[-1].open()
            await asyncio.sleep(live.warm_up_s)
            begin, cpu = time.monotonic(), _cpu(pid)
            acked, updates, size, own = bench.meter.acked, gallery.updates, gallery.bytes, _own_cpu()
            encoded = await _encoded(bench, live.step_s)
            took, used, own = time.monotonic() - begin, _cpu(pid) - cpu, _own_cpu() - own
            updates, size = gallery.updates - updates, gallery.bytes - size
            rows.append(
                {
                    "dashboards": count,
                    "cpu_percent": round(used / took * 100, 1),
                    "taken_per_s": round((bench.meter.acked - acked) / took, 1),
                    "encoded_per_s": encoded,
                    "updates_per_s": round(updates / took, 1),
                    "update_bytes": round(size / max(1, updates)),
                    "generator_percent": round(own / took * 100, 1),
                }
            )
    _close(viewers)
    await asyncio.sleep(0.5)
    return rows


async def _encoded(bench: _Bench, seconds: float) -> float:
    """Encoder calls a second, the median of some parts of the time: a dashboard whose process had no core for a moment
    is sent what it lacks alone, which is no matter of how many there are."""
    parts = max(1, round(seconds))
    found, before, begin = [], (await bench.probe.look())["encoded"], time.monotonic()
    for _ in range(parts):
        await asyncio.sleep(seconds / parts)
        encoded, now = (await bench.probe.look())["encoded"], time.monotonic()
        found.append((encoded - before) / (now - begin))
        before, begin = encoded, now
    return float(round(statistics.median(found), 1))


async def _stalled(bench: _Bench) -> dict[str, Any]:
    """Some stop reading; what that costs, and how they come back."""
    live, gallery, port = bench.live, Gallery(), bench.daemon.port
    stalled = [Viewer(port, gallery, "every", 50, "stalled", live.history_s) for _ in range(live.stalled)]
    every = [Viewer(port, gallery, "every", 50) for _ in range(live.every)]
    latest = [Viewer(port, gallery, "latest", 100) for _ in range(live.dashboards - live.stalled - live.every)]
    for viewer in [*every, *latest]:
        await viewer.open()
    sent = bench.meter.sent
    async with bench.sending():
        await asyncio.sleep(live.warm_up_s)
        downgraded = (await bench.probe.look())["downgraded"]
        memory = resident_bytes(bench.daemon.pid)
        await asyncio.gather(*(viewer.open(live.receive_buffer, then_stop=True) for viewer in stalled))
        begin = time.monotonic()
        waited = _waited(bench.daemon.pid), _waited(os.getpid())
        gallery.measuring = True
        own, cpu, size = _own_cpu(), _cpu(bench.daemon.pid), every[0].bytes
        seen = await _watch(bench, stalled, begin, downgraded)
        took = time.monotonic() - begin
        gallery.measuring = False
        own, cpu = _own_cpu() - own, _cpu(bench.daemon.pid) - cpu
        waited = _waited(bench.daemon.pid) - waited[0], _waited(os.getpid()) - waited[1]
        memory, not_read = resident_bytes(bench.daemon.pid) - memory, every[0].bytes - size
        arrivals, gallery.arrivals = gallery.arrivals, {}
        gallery.measuring = True
        for viewer in stalled:
            viewer.read_again()
        await asyncio.sleep(live.again_s)
        gallery.measuring = False
    readings = bench.meter.sent - sent
    whole = await bench.until(lambda: all(viewer.readings >= readings for viewer in every), SETTLE_S)
    newest = every[0].newest
    back = await bench.until(lambda: all(viewer.newest == newest for viewer in stalled), SETTLE_S)
    lost = sum(bool(viewer.meter.closed) for viewer in [*stalled, *every, *latest])
    result = {
        "dashboards": live.dashboards,
        "stalled": live.stalled,
        "seconds": round(took, 1),
        "downgraded": len(seen["slow_s"]),
        "slow_s": seen["slow_s"],
        "bytes_max": seen["bytes_max"],
        "buffered_max": seen["buffered_max"],
        "kernel_max": seen["kernel_max"],
        "resident_growth": memory,
        "not_read_bytes": not_read,
        "latency_ms": {name: percentiles(arrivals.get(name, [])) for name in ("latest", "every")},
        "latency_again_ms": {name: percentiles(gallery.arrivals.get(name, [])) for name in ("latest", "every")},
        "told": sum(viewer.moved > 0 for viewer in stalled),
        "told_others": sum(viewer.moved > 0 for viewer in [*every, *latest]),
        "every_whole": whole and all(viewer.readings == readings for viewer in every),
        "back": back,
        "lost": lost,
        "cpu_percent": round(cpu / took * 100, 1),
        "generator_percent": round(own / took * 100, 1),
        "waited_percent": [round(one / took * 100, 1) for one in waited],
    }
    _close([*stalled, *every, *latest])
    return result


async def _watch(bench: _Bench, stalled: list[Viewer], begin: float, downgraded: int) -> dict[str, Any]:
    """Look inside until the time is over: when each was moved, and the most that one of them cost."""
    ports = [str(viewer.own_port) for viewer in stalled]
    slow_s: list[float] = []
    most, buffered, kernel = 0, 0, 0
    while (now := time.monotonic() - begin) < bench.live.stall_s:
        found = await bench.probe.look()
        slow_s += [round(now, 2)] * (found["downgraded"] - downgraded - len(slow_s))
        for port in ports:
            costs = found["clients"].get(port)
            if costs:
                most = max(most, sum(costs))
                buffered, kernel = max(buffered, costs[0]), max(kernel, costs[1])
        await asyncio.sleep(LOOK_S)
    return {"slow_s": slow_s, "bytes_max": most, "buffered_max": buffered, "kernel_max": kernel}


def _close(viewers: list[Viewer]) -> None:
    for viewer in viewers:
        viewer.close()


def _own_cpu() -> float:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def _waited(pid: int) -> float:
    """Seconds that the process was ready to run and had no core (second field of /proc/PID/schedstat)."""
    try:
        return int(Path(f"/proc/{pid}/schedstat").read_text().split()[1]) / 1e9
    except OSError:
        return 0.0


def _cpu(pid: int) -> float:
    """Seconds of CPU so far, user and system, exactly (clock_getcpuclockid(3): the clock of a process)."""
    return time.clock_gettime((~pid << 3) | 2)
