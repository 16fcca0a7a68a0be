"""Peers by the thousand: devices that all come back at once, and connections that say next to nothing."""

from __future__ import annotations

import asyncio
import contextlib
import resource
import time
from collections.abc import AsyncIterator

from . import chaos_faults as faults
from .chaos import Case, Control
from .chaos_device import HOST, Device, Fleet, until
from .chaos_rig import Rig

__all__ = ["CASES"]

DEVICES = 1000
BACK_WITHIN_S = 15.0
SLOW = 2000
SERVED_WITHIN_S = 2.0
DRIP_S = 0.5


def allow_files(count: int) -> None:
    """Let this process, and what it starts, open so many files, as far as that is allowed."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < count:
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(count, hard), hard))


async def storm(rig: Rig) -> None:
    """1,000 devices lose their gateway, by SIGKILL or SIGTERM, and come back all at once."""
    allow_files(4 * DEVICES)
    await rig.broker(layout="batch")
    rig.fleet = Fleet(DEVICES, "storm")
    await rig.start()
    slowest = 0.0
    async with rig.load(2000.0) as fleet:
        for number in range(rig.rounds):
            await asyncio.sleep(rig.seconds)
            if number % 2:
                await rig.terminate(10.0)
            else:
                await rig.kill()
            await rig.start()
            begin = time.monotonic()
            if not await fleet.all_online(BACK_WITHIN_S):
                rig.fault(f"{DEVICES - fleet.online} devices were not back after {BACK_WITHIN_S:.0f} s")
            slowest = max(slowest, time.monotonic() - begin)
        await asyncio.sleep(rig.seconds)
    rig.notes.append(f"all back after {slowest:.1f} s")
    await rig.settle()


class _Slow(asyncio.Protocol):
    """Sends the head of a request line by line, for ever."""

    def __init__(self) -> None:
        self.transport: asyncio.Transport | None = None
        self.ended = asyncio.Event()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        transport.write(b"GET /v1/devices/slow HTTP/1.1\r\n")

    def connection_lost(self, exc: Exception | None) -> None:
        self.ended.set()

    @classmethod
    async def live(cls, port: int, pause: float) -> None:
        """Connect, and again when that is over, until cancelled."""
        await asyncio.sleep(pause)
        loop = asyncio.get_running_loop()
        while True:
            with contextlib.suppress(OSError):
                transport, slow = await loop.create_connection(cls, HOST, port)
                try:
                    while not slow.ended.is_set():
                        await asyncio.sleep(DRIP_S)
                        transport.write(b"X")
                finally:
                    transport.abort()
            await asyncio.sleep(DRIP_S)


@contextlib.asynccontextmanager
async def crowd(port: int, count: int) -> AsyncIterator[None]:
    """Keep ``count`` slow connections while the block runs."""
    tasks = [asyncio.create_task(_Slow.live(port, DRIP_S * n / count)) for n in range(count)]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def slowloris(rig: Rig) -> None:
    """2,000 connections send their requests a byte at a time; a device among them is served within two seconds."""
    allow_files(4 * SLOW)
    rig.fleet = Fleet(5 * rig.rounds, "quick")
    await rig.start()
    slowest = 0.0
    async with crowd(rig.daemon.port, SLOW):
        await asyncio.sleep(2 * DRIP_S)
        for device in rig.fleet.devices:
            slowest = max(slowest, await _served(rig, device))
            if rig.faults:
                return
            await asyncio.sleep(rig.seconds / 5)
    rig.notes.append(f"slowest served in {slowest * 1000:.0f} ms")
    await rig.settle()


async def _served(rig: Rig, device: Device) -> float:
    """Connect, send, wait for the ack; the seconds that took."""
    begin = time.monotonic()
    connection = asyncio.create_task(device.keep_connected(rig.daemon.port))
    try:
        served = await until(lambda: device.online, SERVED_WITHIN_S)
        if served:
            device.send(time.monotonic())
            served = await until(lambda: device.acked, SERVED_WITHIN_S)
        took = time.monotonic() - begin
        if not served or took > SERVED_WITHIN_S:
            rig.fault(f"{device.name} was not served within {SERVED_WITHIN_S:.0f} s")
        return took
    finally:
        connection.cancel()
        await asyncio.gather(connection, return_exceptions=True)


CASES = {
    "storm": Case(
        "storm",
        "1,000 devices come back all at once",
        storm,
        {"book-forgets": Control(faults.BOOK_FORGETS, "remembered up to")},
        rounds=4,
        seconds=1.0,
    ),
    "slowloris": Case(
        "slowloris",
        "2,000 slow connections, and a device among them",
        slowloris,
        {"silent-stay": Control(faults.SILENT_STAY, "was not served within")},
        rounds=2,
        seconds=1.0,
    ),
}
