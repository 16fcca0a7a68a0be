"""Clocks that jump, and that begin in 1970."""

from __future__ import annotations

import asyncio
import sys
import time
from pathlib import Path

from . import chaos_faults as faults
from .chaos import Case, Control
from .chaos_check import states
from .chaos_device import FIRST_MS
from .chaos_rig import Rig, preload

__all__ = ["CASES"]

DAY_S = 86_400
IN_1970_S = 7_200 - FIRST_MS // 1000
JUMPS = {"a day ahead": DAY_S, "a day back": -DAY_S, "in 1970": IN_1970_S, "right again": 0}
PINGS = 4  # in a round, so that every connection has to prove itself, and can be found dead


async def clock(rig: Rig) -> None:
    """The wall clock of the running daemon jumps, in each round otherwise; it started in 1970."""
    await rig.broker()
    file = rig.directory / "off"
    shim = await preload(rig, "chaos_clock.c")
    rig.settings |= {"LD_PRELOAD": str(shim), "CHAOS_CLOCK": str(file)}
    beat = str(rig.seconds / PINGS)
    rig.settings |= {"GATEWAY_HEARTBEAT__INTERVAL_S": beat, "GATEWAY_HEARTBEAT__TIMEOUT_S": beat}
    # A rate that the devices keep to, so that it is reckoned with.
    rig.settings |= {"GATEWAY_LIMITS__DEVICE_RATE": "1000", "GATEWAY_LIMITS__DEVICE_BURST": "1000"}
    file.write_bytes(bytes(8))
    _set(file, IN_1970_S)
    await rig.start()
    async with rig.load() as fleet:
        await asyncio.sleep(rig.seconds / 2)
        for number in range(rig.rounds):
            name, off = list(JUMPS.items())[number % len(JUMPS)]
            deaf = await rig.deaf("/v1/devices/deaf")
            _set(file, off)
            await asyncio.sleep(rig.seconds)
            if late := [
                device.name for device in fleet.devices if device.acked_at < time.monotonic() - rig.seconds / 2
            ]:
                rig.fault(f"with the clock {name} nothing is acked to {', '.join(late)}")
            if fleet.online < len(fleet.devices):
                rig.fault(f"with the clock {name} not every device is online")
            # Opened before the jump: two pings later it has to be dead, whatever the clock says.
            if (await rig.ask(states, rig.daemon))["deaf"] != "offline":
                rig.fault(f"with the clock {name} a peer that answers nothing is held for alive")
            deaf.transport.abort()
        if fleet.closed:
            rig.fault(f"connections were ended: {dict(fleet.closed)}")
        repeats = rig.fars[0].repeats
        if repeats:
            rig.fault(f"{repeats} messages came twice, as after a cut")
    await rig.kill()
    # And a start with the clock a day back from what is on disk, then with the right one.
    for off in (-DAY_S, 0):
        _set(file, off)
        await rig.start()
        await rig.settle()
        await rig.kill()


def _set(file: Path, off: int) -> None:
    """Move the daemon's clock, by seconds from the true time; in place, since the file is mapped."""
    with file.open("r+b") as opened:
        opened.write(off.to_bytes(8, sys.byteorder, signed=True))


CASES = {
    "clock": Case(
        "clock",
        "the wall clock starts in 1970, and jumps by a day each way",
        clock,
        {"wall-clock": Control(faults.WALL_CLOCK, "is held for alive", rounds=2)},
        rounds=4,
        seconds=3.0,
    ),
}
