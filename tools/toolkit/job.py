"""``tools/bench job``: what the main job costs, at several rates.

The daemon has core 0 for itself; mosquitto, the devices, the dashboards and the MQTT subscriber share core 1.  A fresh
daemon with an empty state directory for each rate.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from array import array
from collections.abc import Callable, Coroutine
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from tests.servers import Missing, Mosquitto

from .load import Client, Dashboard, Device, Meter, Pacer, samples
from .mqtt import Subscriber
from .proc import cpu_seconds, resident_bytes
from .servers import HOST, Daemon, Failed

__all__ = ["Figures", "Job", "table"]

Result = TypeVar("Result")

DAEMON_CORE, OTHER_CORE = 0, 1
WARM_UP_S = 2.0
DRAIN_S = 20.0
MEMORY_AFTER_S = 15.0
BROKER = "allow_anonymous true\nmax_queued_messages 1000000\nmax_inflight_messages 0"


@dataclass(frozen=True)
class Job:
    """What to run; times in seconds, the rate in readings a second over all devices."""

    seconds: float = 60.0
    devices: int = 200
    dashboards: int = 5
    layout: str = "batch"
    max_delay_ms: int | None = None
    commit_ms: int | None = None
    mqtt: bool = True
    profile: str = ""  # a file name without ending: py-spy's folded stacks go to NAME-RATE.txt


@dataclass(frozen=True)
class Figures:
    """What was measured at one rate."""

    rate: int
    achieved_per_s: float
    cpu_us_per_message: float
    cpu_percent: float
    ack_p50_ms: float
    ack_p99_ms: float
    live_p50_ms: float
    live_p99_ms: float
    resident_mb: float  # after MEMORY_AFTER_S of load
    resident_end_mb: float
    written_per_byte: float  # to the disk, from start to clean stop, a byte of reading
    bytes_per_message: float
    sent: int
    lost: int
    mqtt_received: int
    mqtt_missing: int
    throttled: int
    held: int
    errors: dict[str, int]
    closed: dict[str, int]
    generator_percent: float
    generator_late_ms: float


class _Relayed:
    """Counts the readings that the MQTT subscriber gets, in any layout."""

    _decode = msgspec.json.Decoder(list[msgspec.Raw]).decode

    def __init__(self) -> None:
        self.readings = 0

    def __call__(self, topic: bytes, payload: bytes) -> None:
        self.readings += len(self._decode(payload)) if payload.startswith(b"[") else 1


def measure(job: Job, rate: int) -> Figures:
    """Run ``job`` at one rate; raises :class:`Failed`."""
    with tempfile.TemporaryDirectory(prefix="gateway-bench-") as name, contextlib.ExitStack() as stack:
        directory = Path(name)
        settings = {
            "GATEWAY_LIMITS__DEVICE_RATE": "1000000",
            "GATEWAY_LIMITS__DEVICE_BURST": "1000000",
            "GATEWAY_LOG__LEVEL": "warning",
            "GATEWAY_MQTT__LAYOUT": job.layout,
        }
        if job.max_delay_ms is not None:
            settings["GATEWAY_BATCH__MAX_DELAY_MS"] = str(job.max_delay_ms)
        if job.commit_ms is not None:
            settings["GATEWAY_JOURNAL__COMMIT_MS"] = str(job.commit_ms)
        broker = 0
        if job.mqtt:
            try:
                server = Mosquitto(directory / "mosquitto", config=BROKER)
            except Missing as missing:
                raise Failed(str(missing)) from None
            stack.enter_context(server)
            broker, settings["GATEWAY_MQTT__URL"] = server.port, server.url
        daemon = Daemon(directory, settings, core=DAEMON_CORE).start()
        written = 0
        try:
            figures, payload_bytes = _loop(_load(job, rate, daemon, broker))
        finally:
            written = _stop(daemon)
        figures["written_per_byte"] = round(written / payload_bytes, 2)
        log = daemon.log.read_text(errors="replace").strip()
        if log:
            print("The gateway's log:\n" + "\n".join(log.splitlines()[-10:]), file=sys.stderr)
        return Figures(**figures)


def _loop(main: Coroutine[Any, Any, Result]) -> Result:
    """Run ``main`` on the cheapest loop there is."""
    try:
        import uvloop
    except ImportError:
        return asyncio.run(main)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(main)


def _stop(daemon: Daemon) -> int:
    """End the daemon with SIGTERM; the bytes that it caused to be written in its life (getrusage(2): blocks of 512)."""
    assert daemon.process is not None
    daemon.process.send_signal(signal.SIGTERM)
    deadline = time.monotonic() + 20
    while True:
        pid, status, usage = os.wait4(daemon.pid, os.WNOHANG)
        if pid:
            daemon.process.returncode = os.waitstatus_to_exitcode(status)
            return usage.ru_oublock * 512
        if time.monotonic() > deadline:
            daemon.kill()
            raise Failed("the gateway did not end within 20 s of SIGTERM")
        time.sleep(0.02)


async def _load(job: Job, rate: int, daemon: Daemon, broker: int) -> tuple[dict[str, Any], int]:
    loop = asyncio.get_running_loop()
    meter, relayed = Meter(), _Relayed()
    host = f"{HOST}:{daemon.port}"
    values = samples()
    devices = [Device(host, f"load-{n:03}", meter, values, n * 37) for n in range(job.devices)]
    dashboards = [Dashboard(host, meter) for _ in range(job.dashboards)]
    subscriber = None
    if broker:
        subscriber = Subscriber("gateway/+/telemetry", relayed)
        await loop.create_connection(lambda: subscriber, HOST, broker)
        await asyncio.wait_for(subscriber.subscribed, 10)
    clients: list[Client] = [*devices, *dashboards]
    for client in clients:
        await loop.create_connection(partial(_same, client), HOST, daemon.port)
        await asyncio.wait_for(client.opened, 10)
    await asyncio.sleep(1)

    gc.collect()
    gc.freeze()
    gc.disable()
    pacer = Pacer(devices, rate)
    sending = asyncio.create_task(pacer.run(WARM_UP_S + job.seconds))
    memory = asyncio.create_task(_memory(daemon.pid, min(MEMORY_AFTER_S, (WARM_UP_S + job.seconds) / 4)))
    await asyncio.sleep(WARM_UP_S)
    profiler = _profile(job, rate, daemon.pid)
    meter.measuring = True
    begin, acked, cpu, own = time.monotonic(), meter.acked, cpu_seconds(daemon.pid), _own_cpu()
    await sending
    duration, own_used = time.monotonic() - begin, _own_cpu() - own
    used, taken = cpu_seconds(daemon.pid) - cpu, meter.acked - acked
    meter.measuring = False
    resident_end = resident_bytes(daemon.pid)
    gc.enable()
    if profiler:
        profiler.wait(60)

    deadline = time.monotonic() + DRAIN_S
    await _until(lambda: meter.acked >= meter.sent, deadline)
    if subscriber:
        await _until(lambda: relayed.readings >= meter.acked, deadline)
    for client in clients:
        client.close()
    if subscriber:
        subscriber.close()
    await asyncio.sleep(0.1)

    if not taken:
        raise Failed(f"no reading was acknowledged; closed: {meter.closed}, errors: {meter.errors}")
    ack50, ack99 = _percentiles(meter.ack_latency)
    live50, live99 = _percentiles(meter.live_latency)
    return {
        "rate": rate,
        "achieved_per_s": round(taken / duration, 1),
        "cpu_us_per_message": round(used / taken * 1e6, 1),
        "cpu_percent": round(used / duration * 100, 1),
        "ack_p50_ms": ack50,
        "ack_p99_ms": ack99,
        "live_p50_ms": live50,
        "live_p99_ms": live99,
        "resident_mb": round(await memory / 1e6, 1),
        "resident_end_mb": round(resident_end / 1e6, 1),
        "bytes_per_message": round(meter.payload_bytes / meter.sent, 1),
        "sent": meter.sent,
        "lost": meter.sent - meter.acked,
        "mqtt_received": relayed.readings,
        "mqtt_missing": max(0, meter.acked - relayed.readings) if broker else 0,
        "throttled": meter.throttled,
        "held": meter.held,
        "errors": meter.errors,
        "closed": meter.closed,
        "generator_percent": round(own_used / duration * 100, 1),
        "generator_late_ms": round(pacer.latest_s * 1000, 1),
    }, meter.payload_bytes


def _same(client: Client) -> Client:
    return client


async def _until(done: Callable[[], bool], deadline: float) -> None:
    while not done() and time.monotonic() < deadline:  # noqa: ASYNC110  # what it waits for is counted, not signalled
        await asyncio.sleep(0.05)


async def _memory(pid: int, after: float) -> int:
    await asyncio.sleep(after)
    return resident_bytes(pid)


def _own_cpu() -> float:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def _profile(job: Job, rate: int, pid: int) -> subprocess.Popen[bytes] | None:
    if not job.profile:
        return None
    program = shutil.which("py-spy", path=os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]))
    if program is None:
        raise Failed("--profile needs py-spy: .venv/bin/pip install py-spy")
    command = [program, "record", "--pid", str(pid), "--duration", str(max(1, int(job.seconds) - 1))]
    command += ["--rate", "200", "--format", "raw", "--threads", "--output", f"{job.profile}-{rate}.txt"]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def _percentiles(values: array[float]) -> tuple[float, float]:
    """The median and the 99th percentile, in milliseconds; zeros of nothing."""
    if not values:
        return 0.0, 0.0
    ordered = sorted(values)
    return tuple(round(ordered[int(len(ordered) * part)] * 1000, 1) for part in (0.5, 0.99))  # type: ignore[return-value]


COLUMNS: list[tuple[str, Callable[[Figures], str]]] = [
    ("readings/s", lambda f: f"{f.rate:,}"),
    ("taken/s", lambda f: f"{f.achieved_per_s:,.0f}"),
    ("CPU µs/reading", lambda f: f"{f.cpu_us_per_message:.1f}"),
    ("core busy", lambda f: f"{f.cpu_percent:.0f} %"),
    ("ack p50 / p99 ms", lambda f: f"{f.ack_p50_ms:.0f} / {f.ack_p99_ms:.0f}"),
    ("dashboard p50 / p99 ms", lambda f: f"{f.live_p50_ms:.0f} / {f.live_p99_ms:.0f}"),
    ("memory MB, 15 s / end", lambda f: f"{f.resident_mb:.0f} / {f.resident_end_mb:.0f}"),
    ("disk bytes/byte", lambda f: f"{f.written_per_byte:.1f}"),
    ("lost", lambda f: str(f.lost)),
    ("missing on MQTT", lambda f: str(f.mqtt_missing)),
    ("throttled", lambda f: str(f.throttled)),
]


def table(figures: list[Figures]) -> str:
    """The figures as a Markdown table, a row a rate."""
    rows = [[name for name, _ in COLUMNS], ["---:" for _ in COLUMNS]]
    rows += [[show(one) for _, show in COLUMNS] for one in figures]
    return "\n".join("| " + " | ".join(row) + " |" for row in rows)


def as_json(figures: list[Figures]) -> str:
    return msgspec.json.format(msgspec.json.encode([asdict(one) for one in figures]), indent=2).decode()
