"""``tools/bench report``: what a reading costs as one thing grows, and all else stays as it is.

The daemon has core 0 for itself, everything else shares core 1.  Cost should grow with the work and nothing else: for
each part there is a curve of CPU a reading, of what should be a straight line, and of memory.

- *devices*: ever more connections, the same readings a second in all.
- *rate*: the main job (200 devices, mosquitto in layout `batch`, five dashboards) with ever more readings a second.
- *dashboards*: ever more of the same subscription.
- *metrics*: ever more distinct series in all, each known to the gateway before it is measured; five devices, readings
  of two values, one dashboard.
- *backlog*: ever more readings in the journal that wait for an MQTT broker that is away; then a start with them.
"""

from __future__ import annotations

import asyncio
import contextlib
import resource
import tempfile
import time
from collections.abc import Callable, Coroutine, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from tests.servers import Missing, Mosquitto, free_port

from .about import machine
from .job import BROKER, _loop
from .proc import cpu_clock_seconds
from .rig import Rig
from .servers import HOST, Daemon, Failed

__all__ = ["PARTS", "QUICK_S", "SECONDS", "Part", "as_json", "drawn", "run", "table"]

DAEMON_CORE, OTHER_CORE = 0, 1
SECONDS, QUICK_S = 5.0, 0.5
JOB_DEVICES, JOB_RATE, JOB_DASHBOARDS = 200, 5_000, 5
METRIC_DEVICES, IN_A_FILL = 5, 500
BACKLOG_DEVICES, BACKLOG_RATE, AT_ONCE, IN_FLIGHT = 10, 2_000, 500, 50_000
SETTLE_S = 600.0  # for the history to have taken what was filled in
QUIET_SHARE = 0.03  # of a core: the daemon does next to nothing
SETTINGS = {
    "GATEWAY_LIMITS__DEVICE_RATE": "1000000",
    "GATEWAY_LIMITS__DEVICE_BURST": "1000000",
    "GATEWAY_LOG__LEVEL": "warning",
}

Row = dict[str, Any]
Steps = Sequence[int]


@dataclass(frozen=True)
class Part:
    """One curve: ``steps`` of what grows, and the names and titles of what is drawn over it."""

    grows: str
    steps: tuple[int, ...]
    quick: tuple[int, ...]
    drawn: tuple[tuple[str, str], ...]
    measure: Callable[[Steps, float], Iterator[Row]]


def run(name: str, steps: Steps, seconds: float) -> dict[str, Any]:
    """Measure one part at ``steps``, each for ``seconds``; raises :class:`Failed`."""
    about = machine()
    part = PARTS[name]
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    rows = list(part.measure(steps, seconds))
    return {"part": name, "machine": about, "seconds": seconds, "grows": part.grows, "rows": rows}


@contextlib.contextmanager
def _daemon(settings: Mapping[str, str] | None = None, *, broker: bool = False) -> Iterator[Daemon]:
    with tempfile.TemporaryDirectory(prefix="gateway-bench-") as name, contextlib.ExitStack() as stack:
        directory = Path(name)
        asked = {**SETTINGS, **(settings or {})}
        if broker:
            try:
                server = stack.enter_context(Mosquitto(directory / "mosquitto", config=BROKER))
            except Missing as missing:
                raise Failed(str(missing)) from None
            asked |= {"GATEWAY_MQTT__URL": server.url, "GATEWAY_MQTT__LAYOUT": "batch"}
        daemon = Daemon(directory, asked, core=DAEMON_CORE).start()
        try:
            yield daemon
        finally:
            daemon.stop()


def _row(x: int, work: Coroutine[Any, Any, Row]) -> Row:
    return {"x": x, **_loop(work)}


async def _job(daemon: Daemon, devices: int, rate: int, dashboards: int, seconds: float) -> Row:
    rig = Rig(daemon, devices)
    await rig.connect()
    await rig.watch(dashboards)
    try:
        # Each device has sent before anything is measured.
        figures = await rig.measure(rate, seconds, warm_up_s=max(min(seconds, 2.0), devices / rate))
        return figures | {"lost": await rig.drain()}
    finally:
        rig.close()


def _devices(steps: Steps, seconds: float) -> Iterator[Row]:
    for count in steps:
        with _daemon() as daemon:
            yield _row(count, _job(daemon, count, JOB_RATE, 0, seconds))


def _rate(steps: Steps, seconds: float) -> Iterator[Row]:
    for rate in steps:
        with _daemon(broker=True) as daemon:
            yield _row(rate, _job(daemon, JOB_DEVICES, rate, JOB_DASHBOARDS, seconds))


def _dashboards(steps: Steps, seconds: float) -> Iterator[Row]:
    for count in steps:
        with _daemon() as daemon:
            yield _row(count, _job(daemon, JOB_DEVICES, JOB_RATE, count, seconds))


def _metrics(steps: Steps, seconds: float) -> Iterator[Row]:
    limits = {"GATEWAY_LIMITS__MAX_METRICS": "1000000", "GATEWAY_LIMITS__MAX_SERIES": "10000000"}
    for series in steps:
        with _daemon(limits) as daemon:
            yield _row(series, _series(daemon, series, seconds))


async def _series(daemon: Daemon, series: int, seconds: float) -> Row:
    """Readings of one of many metrics, and of ``sent``."""
    names = [b'"metric-%06d":%.2f' % (at, 20 + at % 97 / 10) for at in range(max(1, series // METRIC_DEVICES - 1))]
    rig = Rig(daemon, METRIC_DEVICES, values=names)
    await rig.connect()
    await rig.watch(1)
    try:
        for at in range(0, len(names), IN_A_FILL):
            filling = [b",".join(names[at : at + IN_A_FILL])]
            for device in rig.devices:
                device.values = filling
                device.send(time.monotonic(), time.time_ns() // 1_000_000)
            await asyncio.sleep(0.02)
        if await rig.drain():
            raise Failed(f"the metrics could not be made known: {rig.meter.errors}")
        for device in rig.devices:
            device.values = names
        figures = await rig.measure(JOB_RATE, seconds)
        return figures | {"lost": await rig.drain()}
    finally:
        rig.close()


def _backlog(steps: Steps, seconds: float) -> Iterator[Row]:
    settings = {
        "GATEWAY_MQTT__URL": f"mqtt://{HOST}:{free_port()}",
        "GATEWAY_JOURNAL__MAX_BYTES": str(16 << 30),
    }
    with _daemon(settings) as daemon:
        waiting = 0
        for backlog in steps:
            row = _row(backlog, _wait_behind(daemon, backlog - waiting, f"b{backlog}", seconds))
            waiting = backlog
            daemon.stop()
            began = time.monotonic()
            daemon.start()
            yield row | {"start_s": round(time.monotonic() - began, 2)}


async def _wait_behind(daemon: Daemon, more: int, prefix: str, seconds: float) -> Row:
    """Fill so many readings in, wait until the history has them, and measure with them waiting."""
    filled = await _fill(daemon, more, f"{prefix}-fill") if more else 0
    await _history_has_all(daemon)
    await _quiet(daemon)
    rig = Rig(daemon, BACKLOG_DEVICES, prefix=prefix)
    await rig.connect()
    try:
        waiting = await _waiting(daemon)
        figures = await rig.measure(BACKLOG_RATE, seconds)
        return figures | {"lost": await rig.drain(), "waiting": waiting, "filled_per_s": filled}
    finally:
        rig.close()


async def _fill(daemon: Daemon, count: int, prefix: str) -> int:
    """Send so many small readings as fast as they are acked; how many a second that was."""
    rig = Rig(daemon, BACKLOG_DEVICES, [b'"n":%d' % at for at in range(1000)], prefix, AT_ONCE)
    await rig.connect()
    try:
        began, meter = time.monotonic(), rig.meter
        while meter.sent < count:
            for device in rig.devices[: -(-(count - meter.sent) // AT_ONCE)]:
                device.send(time.monotonic(), time.time_ns() // 1_000_000)
            while meter.sent - meter.acked > IN_FLIGHT:  # noqa: ASYNC110  # counted, not signalled
                await asyncio.sleep(0.005)
            await asyncio.sleep(0)
        if await rig.drain():
            raise Failed(f"the backlog could not be filled in: {meter.errors}")
        return round(count / (time.monotonic() - began))
    finally:
        rig.close()


async def _history_has_all(daemon: Daemon) -> None:
    deadline = time.monotonic() + SETTLE_S
    while (await _health(daemon))["history"]["pending"]:
        if time.monotonic() > deadline:
            raise Failed(f"the history has not taken what was filled in within {SETTLE_S:.0f} s")
        await asyncio.sleep(0.2)


async def _quiet(daemon: Daemon) -> None:
    """Wait until it has done with what the history makes of what it has taken."""
    deadline, before = time.monotonic() + SETTLE_S, cpu_clock_seconds(daemon.pid)
    while True:
        await asyncio.sleep(2.0)
        now = cpu_clock_seconds(daemon.pid)
        if now - before < 2.0 * QUIET_SHARE or time.monotonic() > deadline:
            return
        before = now


async def _waiting(daemon: Daemon) -> int:
    sinks = (await _health(daemon))["sinks"]
    return next(int(sink["pending"]) for sink in sinks if sink["name"] == "mqtt")


async def _health(daemon: Daemon) -> dict[str, Any]:
    found: dict[str, Any] = msgspec.json.decode((await asyncio.to_thread(daemon.get, "/healthz"))[1])
    return found


PARTS = {
    "devices": Part(
        "connected devices",
        (100, 300, 1_000, 3_000, 10_000),
        (10, 50),
        (("cpu_us", "CPU µs a reading"), ("cpu_percent", "% of a core"), ("resident", "MB resident")),
        _devices,
    ),
    "rate": Part(
        "readings a second",
        (100, 300, 1_000, 3_000, 10_000, 20_000, 40_000),
        (100, 500),
        (("cpu_us", "CPU µs a reading"), ("cpu_percent", "% of a core"), ("resident", "MB resident")),
        _rate,
    ),
    "dashboards": Part(
        "dashboards",
        (1, 5, 20, 50, 100, 200),
        (1, 5),
        (("cpu_us", "CPU µs a reading"), ("cpu_percent", "% of a core"), ("resident", "MB resident")),
        _dashboards,
    ),
    "metrics": Part(
        "series",
        (10, 100, 1_000, 10_000, 30_000, 100_000),
        (10, 100),
        (("cpu_us", "CPU µs a reading"), ("cpu_percent", "% of a core"), ("resident", "MB resident")),
        _metrics,
    ),
    "backlog": Part(
        "readings waiting for a sink",
        (0, 10_000, 100_000, 300_000, 1_000_000),
        (0, 5_000),
        (
            ("cpu_us", "CPU µs a reading"),
            ("ack_p99_ms", "ack p99 ms"),
            ("resident", "MB resident"),
            ("start_s", "s to start"),
        ),
        _backlog,
    ),
}


def as_json(result: dict[str, Any]) -> str:
    return msgspec.json.format(msgspec.json.encode(result), indent=2).decode()


def table(result: dict[str, Any]) -> str:
    """One part as Markdown."""
    part = PARTS[result["part"]]
    lines = [
        f"| {' | '.join([part.grows, *(title for _, title in part.drawn), 'lost'])} |",
        f"|{' ---: |' * (len(part.drawn) + 2)}",
    ]
    for row in result["rows"]:
        cells = [f"{row['x']:,}", *(f"{drawn(row, name):.3g}" for name, _ in part.drawn), str(row["lost"])]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def drawn(row: Row, name: str) -> float:
    """A figure as it is shown: memory in MB."""
    return float(row[name]) / 1e6 if name == "resident" else float(row[name])
