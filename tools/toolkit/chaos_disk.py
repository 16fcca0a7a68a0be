"""Disks that lose power, fail and fill up."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import time
from pathlib import Path

from . import chaos_faults as faults
from .chaos import Case, Control
from .chaos_check import number as number_of
from .chaos_device import until
from .chaos_rig import Rig, execute, mounted, need, preload

__all__ = ["CASES"]

IMAGE_BYTES = 160 << 20
SMALL_BYTES = 96 << 20
REFUSED_WITHIN_S = 1.0
WHAT_FAILS = ("sync", "write", "sync write")
RECOVERED_WITHIN_S = 3.0  # the devices are asked to wait a second


async def powercut(rig: Rig) -> None:
    """The state directory is an ext4 image; what is in the image when the power goes is what the next start finds."""
    mkfs = need("mkfs.ext4", "e2fsprogs")
    await rig.broker()
    image, disk = rig.directory / "image", rig.directory / "disk"
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


async def _recovers(rig: Rig) -> float:
    """Wait until every device's readings of now are acked; notes it when that takes too long."""
    devices = rig.fleet.devices
    begin = time.monotonic()
    if not await until(lambda: all(device.acked_at > begin + 0.1 for device in devices), RECOVERED_WITHIN_S):
        rig.fault(f"nothing is acked {RECOVERED_WITHIN_S:.0f} s after the disk came back")
    return time.monotonic() - begin


async def enospc(rig: Rig) -> None:
    """The disk is full, then has room again: refusals within a second, and all goes on without a restart."""
    await rig.broker()
    small = rig.directory / "small"
    rig.state = small / "state"
    async with mounted(small, "-t", "tmpfs", "-o", f"size={SMALL_BYTES}", "tmpfs"):
        try:
            await _fill_and_free(rig, small / "ballast")
            await rig.kill()
            await rig.start(patch=faults.LITTLE_KEPT_FREE)
            await rig.settle()
        finally:
            await rig.kill()


async def _fill_and_free(rig: Rig, ballast: Path) -> None:
    await rig.start(patch=faults.HASTE + faults.LITTLE_KEPT_FREE)
    slowest = 0.0
    async with rig.load() as fleet:
        for _ in range(rig.rounds):
            await asyncio.sleep(rig.seconds / 2)
            await asyncio.to_thread(_take_all, ballast)
            full, before = time.monotonic(), sum(device.refusals for device in fleet.devices)
            refused = lambda before=before: sum(device.refusals for device in fleet.devices) > before  # noqa: E731
            if not await until(refused, REFUSED_WITHIN_S + 0.5):
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
    "enospc": Case(
        "enospc",
        "the disk is full, then has room again",
        enospc,
        {"deaf": Control(faults.WRITE_ERRORS_UNHEARD, "acked and not in history")},
        rounds=4,
    ),
}
