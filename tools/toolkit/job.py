"""``tools/bench job``: what the main job costs, at several rates, and what it costs peers.

What is measured has core 0 for itself; mosquitto, the devices, the dashboards and the MQTT subscriber share core 1.  A
fresh process, the gateway's with an empty state directory, for each rate and run; the gateway and its peers take turns.
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
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from tests.servers import Missing, Mosquitto

from .about import load, machine
from .jobreport import Figures, middle
from .load import Client, Dashboard, Device, Meter, Pacer, samples
from .mqtt import Subscriber
from .peers import DASHBOARDS, PEERS, TOPICS, Peer, Screen, Silent, found
from .proc import cpu_seconds, resident_bytes
from .servers import HOST, Daemon, Failed

__all__ = ["Job", "measure", "run"]

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
    max_readings: int | None = None
    commit_ms: int | None = None
    mqtt: bool = True
    readings: int = 1  # a message
    senml: bool = False  # as packs, which get no acks; else the JSON model
    peer: str = ""  # in place of the gateway, which the settings above are of
    profile: str = ""  # a file name without ending: py-spy's folded stacks go to NAME-RATE.txt

    @property
    def acks(self) -> bool:
        """Whether devices are told what was taken."""
        return not (self.peer or self.senml)

    @property
    def name(self) -> str:
        """What is measured, in a word or two."""
        return self.peer or f"gateway, {self.layout}"


class _Relayed:
    """Counts the readings that the MQTT subscriber gets, in any layout."""

    _decode = msgspec.json.Decoder(list[msgspec.Raw]).decode

    def __init__(self) -> None:
        self.readings = 0

    def __call__(self, topic: bytes, payload: bytes) -> None:
        self.readings += len(self._decode(payload)) if payload.startswith(b"[") else 1


def run(jobs: list[Job], rates: list[int], runs: int) -> dict[str, Any]:
    """Measure each job at each rate, in turns; a peer that cannot be run here is left out with a sentence."""
    peers = found([job.peer for job in jobs if job.peer], _say)
    names = [peer.name for peer in peers]
    jobs = [job for job in jobs if not job.peer or job.peer in names]
    about = machine("msgspec", "websockets", "uvloop", "paho-mqtt")
    for peer in peers:
        about |= peer.versions()
    results = []
    for rate in rates:
        measured: list[list[Figures]] = [[] for _ in jobs]
        for turn in range(runs):
            for at in range(len(jobs)):
                which = (at + turn) % len(jobs)
                _say(f"{jobs[which].name}: {rate:,} readings a second for {jobs[which].seconds:g} s")
                measured[which].append(measure(jobs[which], rate))
        results += [middle(figures) for figures in measured]
    return {"machine": about, "load_after": load(), "results": results}


def measure(job: Job, rate: int) -> Figures:
    """Run ``job`` at one rate, in readings a second; raises :class:`Failed`."""
    if not (job.acks or job.mqtt):
        raise Failed("without acks readings are counted at the broker: --no-mqtt leaves nothing to count")
    with tempfile.TemporaryDirectory(prefix="gateway-bench-") as name, contextlib.ExitStack() as stack:
        directory = Path(name)
        broker = None
        if job.mqtt:
            try:
                broker = stack.enter_context(Mosquitto(directory / "mosquitto", config=BROKER))
            except Missing as missing:
                raise Failed(str(missing)) from None
        server = _peer(job, directory, broker) if job.peer else _gateway(job, directory, broker)
        server.start()
        written = 0
        try:
            figures, payload_bytes = _loop(_load(job, rate, server, broker.port if broker else 0))
        finally:
            written = _stop(server)
        figures["written_per_byte"] = round(written / payload_bytes, 2)
        log = server.log.read_text(errors="replace").strip()
        if log and not job.peer:
            _say("The gateway's log:\n" + "\n".join(log.splitlines()[-10:]))
        return Figures(**figures)


def _say(words: str) -> None:
    print(words, file=sys.stderr)


def _gateway(job: Job, directory: Path, broker: Mosquitto | None) -> Daemon:
    settings = {
        "GATEWAY_LIMITS__DEVICE_RATE": "1000000",
        "GATEWAY_LIMITS__DEVICE_BURST": "1000000",
        "GATEWAY_LOG__LEVEL": "warning",
        "GATEWAY_MQTT__LAYOUT": job.layout,
    }
    if job.max_delay_ms is not None:
        settings["GATEWAY_BATCH__MAX_DELAY_MS"] = str(job.max_delay_ms)
    if job.max_readings is not None:
        settings["GATEWAY_BATCH__MAX_READINGS"] = str(job.max_readings)
    if job.commit_ms is not None:
        settings["GATEWAY_JOURNAL__COMMIT_MS"] = str(job.commit_ms)
    if broker:
        settings["GATEWAY_MQTT__URL"] = broker.url
    return Daemon(directory, settings, core=DAEMON_CORE)


def _peer(job: Job, directory: Path, broker: Mosquitto | None) -> Peer:
    assert broker is not None
    if job.readings > 1 or job.senml:
        raise Failed("peers take one reading a message, as JSON")
    return PEERS[job.peer](directory, broker.port, core=DAEMON_CORE)


def _loop(main: Coroutine[Any, Any, Result]) -> Result:
    """Run ``main`` on the cheapest loop there is."""
    try:
        import uvloop
    except ImportError:
        return asyncio.run(main)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(main)


def _stop(daemon: Daemon | Peer) -> int:
    """End it with SIGTERM; the bytes that it caused to be written in its life (getrusage(2): blocks of 512)."""
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
            raise Failed("what was measured did not end within 20 s of SIGTERM")
        time.sleep(0.02)


def _clients(job: Job, daemon: Daemon | Peer, meter: Meter) -> tuple[list[Device], list[Client]]:
    """The devices, and the dashboards."""
    host, values = f"{HOST}:{daemon.port}", samples()
    names = [f"load-{n:03}" for n in range(job.devices)]
    if isinstance(daemon, Peer):
        return (
            [Silent(host, name, meter, values, n * 37, target=daemon.device(name)) for n, name in enumerate(names)],
            [Screen(host, DASHBOARDS, meter) for _ in range(job.dashboards)],
        )
    return (
        [
            Device(host, name, meter, values, n * 37, readings=job.readings, senml=job.senml)
            for n, name in enumerate(names)
        ],
        [Dashboard(host, meter) for _ in range(job.dashboards)],
    )


async def _load(job: Job, rate: int, daemon: Daemon | Peer, broker: int) -> tuple[dict[str, Any], int]:
    loop = asyncio.get_running_loop()
    meter, relayed = Meter(), _Relayed()
    devices, dashboards = _clients(job, daemon, meter)
    subscriber = None
    if broker:
        subscriber = Subscriber(TOPICS if job.peer else "gateway/+/telemetry", relayed)
        await loop.create_connection(lambda: subscriber, HOST, broker)
        await asyncio.wait_for(subscriber.subscribed, 10)
    clients: list[Client] = [*devices, *dashboards]

    def done() -> int:
        """Readings that were taken: acked, or, where there are no acks, relayed."""
        return meter.acked if job.acks else relayed.readings

    for client in clients:
        await loop.create_connection(partial(_same, client), HOST, daemon.port)
        await asyncio.wait_for(client.opened, 10)
    await asyncio.sleep(1)

    gc.collect()
    gc.freeze()
    gc.disable()
    pacer, warm_up = Pacer(devices, rate / job.readings), min(WARM_UP_S, job.seconds)
    sending = asyncio.create_task(pacer.run(warm_up + job.seconds))
    memory = asyncio.create_task(_memory(daemon.pid, min(MEMORY_AFTER_S, (warm_up + job.seconds) / 4)))
    await asyncio.sleep(warm_up)
    profiler = _profile(job, rate, daemon.pid)
    meter.measuring = True
    begin, before, cpu, own = time.monotonic(), done(), cpu_seconds(daemon.pid), _own_cpu()
    await sending
    duration, own_used = time.monotonic() - begin, _own_cpu() - own
    busy, in_time = cpu_seconds(daemon.pid) - cpu, done() - before
    meter.measuring = False
    resident_end = resident_bytes(daemon.pid)
    gc.enable()
    if profiler:
        profiler.wait(60)

    deadline = time.monotonic() + DRAIN_S
    await _until(lambda: done() >= meter.sent, deadline)
    if subscriber:
        await _until(lambda: relayed.readings >= done(), deadline)
    # Of all that came: with work put off, or a broker behind its time, what was done in time says little of the cost.
    used, taken = cpu_seconds(daemon.pid) - cpu, done() - before
    for client in clients:
        client.close()
    if subscriber:
        subscriber.close()
    await asyncio.sleep(0.1)

    if not taken:
        raise Failed(f"no reading was taken; closed: {meter.closed}, errors: {meter.errors}")
    ack50, ack99 = _percentiles(meter.ack_latency)
    live50, live99 = _percentiles(meter.live_latency)
    return {
        "who": job.name,
        "rate": rate,
        "achieved_per_s": round(in_time / duration, 1),
        "cpu_us_per_reading": round(used / taken * 1e6, 1),
        "cpu_percent": round(busy / duration * 100, 1),
        "ack_p50_ms": ack50,
        "ack_p99_ms": ack99,
        "live_p50_ms": live50,
        "live_p99_ms": live99,
        "resident_mb": round(await memory / 1e6, 1),
        "resident_end_mb": round(resident_end / 1e6, 1),
        "bytes_per_reading": round(meter.payload_bytes / meter.sent, 1),
        "sent": meter.sent,
        "lost": meter.sent - done(),
        "mqtt_received": relayed.readings,
        "mqtt_missing": max(0, done() - relayed.readings) if broker else 0,
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
