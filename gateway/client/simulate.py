"""A fleet of simulated devices against any gateway.

All devices share one schedule and one task: a heap of the times at which readings are due, so that a reading
costs no timer and no task switch.  A reading that is due while its device's buffer is full, or more than
``LATE_S`` behind because this process cannot keep up, is not made and counted as ``skipped``: it was never
handed over, so it is not a loss.
"""

from __future__ import annotations

import asyncio
import random
import time
from heapq import heapify, heapreplace
from typing import TYPE_CHECKING, NamedTuple

from ..reading import is_device
from .device import DeviceClient
from .errors import ClientClosed
from .histogram import Histogram
from .report import Report
from .signals import KINDS, kind_of, metrics_of
from .wire import device_address

if TYPE_CHECKING:
    from collections.abc import Callable

    from ..reading import Value
    from .outbox import Level
    from .signals import Metric, Signal
    from .wire import Format

__all__ = ["Fleet", "Options", "check", "run"]

TICK_S = 0.002  # readings due within so much go together
BURST = 256  # readings made before other work is let in
LATE_S = 1.0
SLACK_S = 0.05
CONNECTING = 64  # attempts to connect at once
PROGRESS_S = 1.0
CLOSE_S = 3.0


class Options(NamedTuple):
    """What to simulate; ``rate`` is readings a second of each device, ``dropouts`` cuts a minute of each
    device.
    """

    url: str = "ws://127.0.0.1:8080"
    devices: int = 5
    rate: float = 1.0
    metrics: int = 4
    format: Format = "json"
    ack: Level = "durable"
    jitter: float = 0.1
    dropouts: float = 0.0
    duration_s: float | None = None
    prefix: str = "sim-"
    token: str | None = None
    seed: int | None = None
    paced: bool = True
    max_unacked: int = 10_000
    connect_s: float = 10.0
    drain_s: float = 5.0

    def __repr__(self) -> str:
        return f"Options({self.url!r}, devices={self.devices}, rate={self.rate:g})"


def check(options: Options) -> None:
    """Raise ``ValueError`` with the fault in words for an address or a prefix that cannot work."""
    # The longest name that will come up.
    kind = max(KINDS, key=lambda kind: len(kind.name))
    name = f"{options.prefix}{kind.name}-{options.devices // len(KINDS) + 1}"
    if not is_device(name):
        raise ValueError(f"prefix: {name!r} would be no device's name")
    device_address(options.url, name, "", options.ack)


class Device:
    """One device of the fleet."""

    __slots__ = ("client", "signals")

    def __init__(self, client: DeviceClient, metrics: list[Metric], rng: random.Random) -> None:
        self.client = client
        self.signals: list[tuple[str, Signal]] = [(metric.name, metric.make(rng)) for metric in metrics]

    def reading(self, t: float) -> dict[str, Value]:
        """The values at time ``t``."""
        values: dict[str, Value] = {}
        for name, signal in self.signals:
            value = signal(t)
            if value is not None:
                values[name] = value
        return values


class Fleet:
    """The devices and their schedule.  Raises ``ValueError`` for options that cannot work."""

    def __init__(self, options: Options) -> None:
        self.options = options
        self.rng = random.Random(options.seed)
        self.latency = Histogram()
        self.skipped = 0
        self.began = time.monotonic()
        self.ended: float | None = None  # when the last reading was made
        self.drained: float | None = None
        self.reason = ""  # why a device was not connected when all were closed
        self._cpu = time.process_time()
        connecting = asyncio.Semaphore(CONNECTING)
        self.devices = [self._device(index, connecting) for index in range(options.devices)]

    def _device(self, index: int, connecting: asyncio.Semaphore) -> Device:
        options = self.options
        kind, number = kind_of(index)
        metrics = metrics_of(kind, options.metrics)
        client = DeviceClient(
            options.url,
            f"{options.prefix}{kind.name}-{number}",
            ack=options.ack,
            format=options.format,
            token=options.token,
            max_unacked=options.max_unacked,
            paced=options.paced,
            check=False,  # names and values are made here
            connecting=connecting,
            latency=self.latency,
            rng=random.Random(self.rng.random()),
        )
        client.describe(
            name=f"{kind.title} {number}",
            interval_s=1 / options.rate,
            metrics={metric.name: metric.description() for metric in metrics},
        )
        return Device(client, metrics, random.Random(self.rng.random()))

    async def connect(self) -> None:
        """Start all devices; wait until each is connected or refused, or ``connect_s`` have passed."""
        for device in self.devices:
            device.client.start()

        async def one(client: DeviceClient) -> None:
            try:
                await client.connected(self.options.connect_s)
            except (TimeoutError, ClientClosed):
                pass

        await asyncio.gather(*(one(device.client) for device in self.devices))
        self.began = time.monotonic()
        self._cpu = time.process_time()

    async def produce(self, stop: asyncio.Event) -> None:
        """Make readings until ``stop``, or ``duration_s``, or no device is left that may connect."""
        options, devices, draw = self.options, self.devices, self.rng.random
        interval, jitter = 1 / options.rate, options.jitter
        clock = time.monotonic
        start = clock()
        end = float("inf") if options.duration_s is None else start + options.duration_s
        heap = [(start + draw() * interval, index) for index in range(len(devices))]
        heapify(heap)
        cuts, cuts_at = 0.0, start
        while not stop.is_set():
            now = clock()
            if now >= end or not heap:
                break
            wall = time.time()
            for _ in range(BURST):
                due, index = heap[0]
                if due > now:
                    break
                device = devices[index]
                if device.client.full:
                    self.skipped += 1
                else:
                    try:
                        device.client.send_nowait(device.reading(wall))
                    except ClientClosed:
                        heap = [entry for entry in heap if entry[1] != index]
                        heapify(heap)
                        if not heap:
                            break
                        continue
                due += interval * (1 + jitter * (2 * draw() - 1))
                if due < now - LATE_S:
                    behind = int((now - due) / interval)
                    self.skipped += behind
                    due += behind * interval
                heapreplace(heap, (due, index))
            if options.dropouts:
                cuts += (now - cuts_at) * len(devices) * options.dropouts / 60 * 2 * draw()
                cuts_at = now
                while cuts >= 1:
                    cuts -= 1
                    self.rng.choice(devices).client.cut()
            ahead = min(heap[0][0], end) - clock() if heap else 0.0
            await asyncio.sleep(max(ahead, TICK_S) if ahead > 0 else 0)
        # What was due and is not made, where this process could not keep up; the last instant is not its fault.
        now = min(clock(), end) - SLACK_S
        self.skipped += sum(int((now - due) / interval) + 1 for due, _ in heap if due < now)

    async def drain(self, hurry: asyncio.Event) -> None:
        """Wait up to ``drain_s`` for the acks, shorter when told to hurry; then close all."""
        self.ended = time.monotonic()
        draining = asyncio.create_task(self._drained())
        hurried = asyncio.create_task(hurry.wait())
        await asyncio.wait({draining, hurried}, return_when=asyncio.FIRST_COMPLETED)
        self.drained = time.monotonic()
        self.reason = next((device.client.reason for device in self.devices if device.client.reason), "")
        draining.cancel()
        hurried.cancel()
        closing = [asyncio.create_task(device.client.close()) for device in self.devices]
        await asyncio.wait([*closing, draining, hurried], timeout=CLOSE_S)

    async def _drained(self) -> bool:
        async def one(client: DeviceClient) -> None:
            # What is unacked at the end, also of a device that was ended for good, is in the report.
            try:
                async with asyncio.timeout(self.options.drain_s):
                    await client.drain()
            except (TimeoutError, ClientClosed):
                pass

        await asyncio.gather(*(one(device.client) for device in self.devices))
        return True

    def report(self) -> Report:
        """The counts of all devices at this moment."""
        total = dict.fromkeys(Report.COUNTS, 0)
        connected = ever = 0
        refusal = ""
        now = time.monotonic()
        for device in self.devices:
            client = device.client
            stats = client.stats
            for name in Report.COUNTS:
                total[name] += getattr(stats, name)
            connected += client.state == "online"
            ever += client.was_online
            if client.final:
                refusal = client.reason
        return Report(
            devices=len(self.devices),
            connected=connected,
            reached=ever,
            refusal=refusal,
            reason=self.reason,
            acks=self.options.ack != "none",
            duration_s=(self.ended or now) - self.began,
            drain_s=(self.drained or now) - self.ended if self.ended else 0.0,
            cpu_s=time.process_time() - self._cpu,
            skipped=self.skipped,
            latency=self.latency,
            **total,
        )


async def run(
    options: Options,
    *,
    stop: asyncio.Event,
    hurry: asyncio.Event,
    progress: Callable[[Report], None] | None = None,
) -> Report:
    """Simulate until ``stop`` is set or the duration is over, then drain; ``hurry`` ends the draining."""
    fleet = Fleet(options)

    async def tell() -> None:
        assert progress is not None
        while True:
            await asyncio.sleep(PROGRESS_S)
            progress(fleet.report())

    telling = None if progress is None else asyncio.create_task(tell())
    try:
        connecting = asyncio.ensure_future(fleet.connect())
        stopped = asyncio.ensure_future(stop.wait())
        await asyncio.wait([connecting, stopped], return_when=asyncio.FIRST_COMPLETED)
        stopped.cancel()
        if connecting.done():
            connecting.result()
            if fleet.report().reached:
                await fleet.produce(stop)
        else:
            connecting.cancel()
        await fleet.drain(hurry)
    finally:
        if telling is not None:
            telling.cancel()
    return fleet.report()
