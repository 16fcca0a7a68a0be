"""Disks that lose power, fail and fill up."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import time
from pathlib import Path

from tests.servers import Mosquitto

from . import chaos_faults as faults
from .chaos import Case, Control
from .chaos_check import number as number_of
from .chaos_device import until
from .chaos_rig import Rig, execute, mounted, need, preload

__all__ = ["CASES"]

IMAGE_BYTES = 48 << 20
SMALL_BYTES = 96 << 20
REFUSED_WITHIN_S = 1.0
# The journal has 32 KiB of its tail written ahead: a quarter of a second at this rate, in which all is well.
FILLING_PER_S, AHEAD_S = 2000.0, 0.3
WHAT_FAILS = ("sync", "write", "sync write")
LEAST_BYTES = 16 << 20
WIDE_PER_S = 1000.0  # readings of four kilobytes
FULL_WITHIN_S = 20.0
ROOM_WITHIN_S = 8.0  # the history looks every few seconds how far it is on disk
OVERFLOWED = 'gateway_sink_overflowed_total{sink="mqtt"}'
RECOVERED_WITHIN_S = 3.0  # the devices are asked to wait a second


async def powercut(rig: Rig) -> None:
    """The state directory is an ext4 image; what is in the image when the power goes is what the next start finds."""
    mkfs = need("mkfs.ext4", "e2fsprogs")
    await rig.broker()
    image, disk = rig.directory / "image", rig.directory / "disk"
    rig.settings["GATEWAY_JOURNAL__KEEP_FREE_BYTES"] = "0"
    rig.state = disk / "state"
    with image.open("wb") as file:
        file.truncate(IMAGE_BYTES)
    await execute(mkfs, "-q", image)
    for number in range(rig.rounds):
        cut = rig.directory / "cut"
        async with mounted(disk, "-o", "loop", image):
            try:
                await rig.start(patch=faults.HASTE if number % 2 else "")
                async with rig.load():
                    await asyncio.sleep(rig.rng.uniform(0.2, rig.seconds))
                    os.kill(rig.daemon.pid, signal.SIGSTOP)
                    await asyncio.to_thread(os.waitid, os.P_PID, rig.daemon.pid, os.WSTOPPED | os.WNOWAIT)
                    # What the kernel holds and was not told to sync is not in the image.
                    await execute("cp", "--sparse=always", image, cut)
                    await rig.kill()
            finally:
                await rig.kill()
        cut.replace(image)
    async with mounted(disk, "-o", "loop", image):
        try:
            await rig.start()
            await rig.settle()
        finally:
            await rig.kill()


async def eio(rig: Rig) -> None:
    """Writes or syncs fail with EIO for a while, and what was not synced is gone: refused meanwhile, never acked."""
    shim = await preload(rig, "chaos_disk.c")
    await rig.broker()
    for number in range(0, rig.rounds, len(WHAT_FAILS)):
        # With haste the history fails as well; without, the journal alone holds what was acked.
        hasty = number // len(WHAT_FAILS) % 2
        await rig.start(
            patch=faults.HASTE if hasty else "",
            LD_PRELOAD=str(shim),
            CHAOS_ROOT=str(rig.state),
            CHAOS_TRIGGER=str(rig.directory / "trigger"),
        )
        await _fail(rig, min(len(WHAT_FAILS), rig.rounds - number))
        await rig.kill()
    await rig.start()
    await rig.settle()


async def _fail(rig: Rig, rounds: int) -> None:
    trigger, fresh = rig.directory / "trigger", rig.directory / "trigger.new"
    async with rig.load() as fleet:
        for what in WHAT_FAILS[:rounds]:
            await asyncio.sleep(rig.rng.uniform(0.1, rig.seconds))
            fresh.write_text(what)
            fresh.replace(trigger)
            await asyncio.sleep(rig.rng.uniform(0.1, rig.seconds))
            trigger.unlink()
            await _recovers(rig)
        await fleet.quiet()
        if not await fleet.all_acked():
            rig.fault("not all that was refused was taken again")
        failures = await rig.ask(number_of, rig.daemon, "gateway_journal_failures_total")
    rig.notes.append(f"{failures} failures")
    if failures < rounds:
        rig.fault(f"only {failures} failures in {rounds} rounds")


async def _recovers(rig: Rig, within: float = RECOVERED_WITHIN_S) -> None:
    """Wait until every device's readings of now are acked; notes it when that takes too long."""
    devices = rig.fleet.devices
    begin = time.monotonic()
    if not await until(lambda: all(device.acked_at > begin + 0.1 for device in devices), within):
        rig.fault(f"nothing is acked {within:.0f} s after it could be")


async def enospc(rig: Rig) -> None:
    """The disk is full, then has room again: refusals within a second, and all goes on without a restart."""
    await rig.broker()
    small = rig.directory / "small"
    rig.settings["GATEWAY_JOURNAL__KEEP_FREE_BYTES"] = "0"
    rig.state = small / "state"
    async with mounted(small, "-t", "tmpfs", "-o", f"size={SMALL_BYTES}", "tmpfs"):
        try:
            await _fill_and_free(rig, small / "ballast")
            await rig.kill()
            await rig.start()
            await rig.settle()
        finally:
            await rig.kill()


async def _fill_and_free(rig: Rig, ballast: Path) -> None:
    await rig.start(patch=faults.HASTE)
    slowest = 0.0
    async with rig.load(FILLING_PER_S) as fleet:
        for _ in range(rig.rounds):
            await asyncio.sleep(rig.seconds / 2)
            await asyncio.to_thread(_take_all, ballast)
            full, before = time.monotonic(), fleet.refusals
            refused = lambda before=before: fleet.refusals > before  # noqa: E731
            if not await until(refused, REFUSED_WITHIN_S + AHEAD_S):
                rig.fault(f"nothing was refused {REFUSED_WITHIN_S:.0f} s after the disk was full")
            slowest = max(slowest, time.monotonic() - full)
            # Readings that were refused come again and again meanwhile.
            await asyncio.sleep(rig.seconds / 2)
            ballast.unlink()
            await _recovers(rig)
    rig.notes.append(f"slowest refusal {slowest * 1000:.0f} ms after the disk was full")


def _take_all(path: Path) -> None:
    """Fill the file system to the last byte."""
    with path.open("ab", buffering=0) as file:
        for size in (1 << 20, 65536, 4096, 512, 1):
            with contextlib.suppress(OSError):
                while file.write(bytes(size)) == size:
                    pass


async def full(rig: Rig) -> None:
    """The journal is at its bound while the broker takes nothing: ``refuse`` and ``drop_oldest`` in turn."""
    broker = await rig.broker()
    rig.settings["GATEWAY_JOURNAL__MAX_BYTES"] = str(LEAST_BYTES)
    root = rig.state
    for number in range(rig.rounds):
        rig.state = root / str(number)
        rig.renew()
        rig.fleet.widen()
        drops = number % 2
        await rig.start(GATEWAY_JOURNAL__ON_FULL="drop_oldest" if drops else "refuse")
        broker.freeze()
        await (_overflow(rig, broker) if drops else _refuse(rig, broker))
        await rig.kill()
        if rig.faults:
            return


async def _refuse(rig: Rig, broker: Mosquitto) -> None:
    async with rig.load(WIDE_PER_S) as fleet:
        if not await until(lambda: fleet.refusals, FULL_WITHIN_S):
            rig.fault("the journal did not fill, or nothing was refused")
        await asyncio.sleep(rig.seconds)
        broker.thaw()
        await _recovers(rig, ROOM_WITHIN_S)
    await rig.settle()
    rig.notes.append(f"{fleet.refusals} refusals")


async def _overflow(rig: Rig, broker: Mosquitto) -> None:
    far = rig.fars[0]
    async with rig.load(WIDE_PER_S) as fleet:
        begin = time.monotonic()
        while not (overflowed := await rig.ask(number_of, rig.daemon, OVERFLOWED)):
            if time.monotonic() - begin > FULL_WITHIN_S:
                rig.fault("the journal did not fill, or nothing was dropped")
                break
            await asyncio.sleep(0.1)
        await asyncio.sleep(rig.seconds)
        broker.thaw()
        await _recovers(rig, ROOM_WITHIN_S)
    await rig.wait_sink("mqtt", lambda sink: sink["pending"] == 0)
    await asyncio.sleep(0.3)
    overflowed = await rig.ask(number_of, rig.daemon, OVERFLOWED)
    dropped = {
        (device.name, n)
        for device in fleet.devices
        for n in set(range(1, device.acked + 1)) - far.got.get(device.name, set())
    }
    if len(dropped) != overflowed:
        rig.fault(f"{overflowed} readings are said to be dropped, {len(dropped)} are missing on {far.name}")
    rig.excused[far.name] = dropped
    await rig.settle()
    rig.notes.append(f"{overflowed} dropped, as was said")


CASES = {
    "powercut": Case(
        "powercut",
        "the power goes: what was not synced is gone",
        powercut,
        {"no-sync": Control(faults.NO_SYNC, "acked and not in history")},
        rounds=6,
    ),
    "eio": Case(
        "eio",
        "the disk fails for a while, and forgets what it was not able to write",
        eio,
        {"sync-again": Control(faults.SYNC_AGAIN, "acked and not in history")},
        rounds=9,
        seconds=0.5,
    ),
    "full": Case(
        "full",
        "the journal is at its bound while a broker takes nothing: refuse, and drop the oldest",
        full,
        {
            "unrelieved": Control(faults.NO_RELIEF, "nothing is acked"),
            "uncounted": Control(faults.OVERFLOW_UNCOUNTED, "are said to be dropped", rounds=2, slow=True),
        },
        rounds=2,
    ),
    "enospc": Case(
        "enospc",
        "the disk is full, then has room again",
        enospc,
        {"deaf": Control(faults.WRITE_ERRORS_UNHEARD, "acked and not in history")},
        rounds=4,
    ),
}
