"""Devices and dashboards of this process on one daemon: send at a rate, and measure what that costs the daemon."""

from __future__ import annotations

import asyncio
import gc
import resource
import time
from array import array
from functools import partial
from typing import Any

from .liveviewer import Gallery, Viewer
from .load import Device, Meter, Pacer, samples
from .proc import cpu_clock_seconds, resident_bytes
from .servers import HOST, Daemon, Failed

__all__ = ["Rig"]

OPEN_S, DRAIN_S = 20.0, 20.0


class Rig:
    """``devices``, named from ``prefix`` on, of four metrics each, or with ``values`` as the inside of readings, of
    which ``readings`` make a message."""

    def __init__(
        self,
        daemon: Daemon,
        devices: int,
        values: list[bytes] | None = None,
        prefix: str = "load",
        readings: int = 1,
    ) -> None:
        self.daemon = daemon
        self.meter = Meter()
        host, values = f"{HOST}:{daemon.port}", values or samples()
        self.devices = [
            Device(host, f"{prefix}-{n:05}", self.meter, values, n * 37, readings=readings) for n in range(devices)
        ]
        self.dashboards: list[Viewer] = []
        self._gallery = Gallery()

    async def connect(self) -> None:
        """Open the devices' connections; raises :class:`Failed`."""
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(OPEN_S):
                for device in self.devices:
                    await loop.create_connection(partial(_same, device), HOST, self.daemon.port)
                    await device.opened
        except (OSError, TimeoutError) as error:
            raise Failed(f"a connection could not be opened: {error!r}") from None
        # What was built lives as long as the measurement: no collections of ours beside it.
        gc.collect()
        gc.freeze()
        gc.disable()

    async def watch(self, dashboards: int) -> None:
        """Have so many dashboards, each on everything at 100 ms."""
        while len(self.dashboards) < dashboards:
            self.dashboards.append(Viewer(self.daemon.port, self._gallery, "latest", 100))
            await self.dashboards[-1].open()

    async def send(self, rate: float, seconds: float) -> Pacer:
        """Send at ``rate`` readings a second over all devices."""
        pacer = Pacer(self.devices, rate)
        await pacer.run(seconds)
        return pacer

    async def measure(self, rate: float, seconds: float, warm_up_s: float = 1.0) -> dict[str, Any]:
        """What a reading costs at ``rate``; latencies in milliseconds, memory in bytes."""
        meter, pid = self.meter, self.daemon.pid
        await self.send(rate, warm_up_s)
        meter.ack_latency = array("d")
        meter.measuring = True
        begin, cpu, acked, own = time.monotonic(), cpu_clock_seconds(pid), meter.acked, _own_cpu()
        pacer = await self.send(rate, seconds)
        took, used, own = time.monotonic() - begin, cpu_clock_seconds(pid) - cpu, _own_cpu() - own
        acked = meter.acked - acked
        meter.measuring = False
        if not acked:
            raise Failed(f"no reading was acknowledged; closed: {meter.closed}, errors: {meter.errors}")
        ack50, ack99 = _percentiles(meter.ack_latency)
        return {
            "taken_per_s": round(acked / took, 1),
            "cpu_us": round(used / acked * 1e6, 2),
            "cpu_percent": round(used / took * 100, 2),
            "ack_p50_ms": ack50,
            "ack_p99_ms": ack99,
            "resident": resident_bytes(pid),
            "generator_percent": round(own / took * 100, 1),
            "generator_late_ms": round(pacer.latest_s * 1000, 1),
        }

    async def drain(self) -> int:
        """Wait until all that was sent is acked, for a while; what is not."""
        deadline, meter = time.monotonic() + DRAIN_S, self.meter
        while meter.acked < meter.sent and time.monotonic() < deadline:  # noqa: ASYNC110  # counted, not signalled
            await asyncio.sleep(0.02)
        return meter.sent - meter.acked

    def close(self) -> None:
        """Drop all connections."""
        for client in [*self.devices, *self.dashboards]:
            client.close()
        gc.enable()
        gc.unfreeze()


def _same(device: Device) -> Device:
    return device


def _own_cpu() -> float:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def _percentiles(values: array[float]) -> tuple[float, float]:
    """The median and the 99th percentile of seconds, in milliseconds; zeros of nothing."""
    if not values:
        return 0.0, 0.0
    ordered = sorted(values)
    return round(ordered[len(ordered) // 2] * 1000, 1), round(ordered[int(len(ordered) * 0.99)] * 1000, 1)
