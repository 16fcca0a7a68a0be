"""Files of the state directory that come back other than they were written: bits flipped, ends missing.

What was in the damaged place may be gone, and with it what was acked; but it is said, what is left is as it was sent,
and the gateway works.
"""

from __future__ import annotations

import asyncio
import random
import shutil
from pathlib import Path

from . import chaos_faults as faults
from .chaos import Case, Control
from .chaos_check import History, missing, said, shortened
from .chaos_check import number as number_of
from .chaos_device import until
from .chaos_rig import Rig

__all__ = ["CASES"]

START_S = 30.0
FLIPS = 24
ONE_BIT, HEADER = "one bit flipped", 68  # behind a segment's header it is one record's
ON_ITS_WAY_S = 0.1
BACK_WITHIN_S = 4.0  # devices are asked to wait a second
RECORD = 100  # readings in a record, at the most, at the rate of the load
OWN = ("lock", "control.sock")  # nothing in these


async def bitflip(rig: Rig) -> None:
    """Bits of one file are flipped."""
    await _damage(rig, _flip)


async def truncate(rig: Rig) -> None:
    """One file ends earlier than it did."""
    await _damage(rig, _cut)


def _flip(rng: random.Random, path: Path) -> str:
    data = bytearray(path.read_bytes())
    used = len(bytes(data).rstrip(b"\0"))
    places = [rng.randrange(used) for _ in range(rng.choice((1, rng.randrange(2, FLIPS))))]
    for at in places:
        data[at] ^= 1 << rng.randrange(8)
    path.write_bytes(data)
    if len(places) == 1 and places[0] >= HEADER and path.suffix == ".seg":
        return f"{ONE_BIT} at {places[0]} of {path.name}"
    return f"{len(places)} bits flipped in {path.name}"


def _cut(rng: random.Random, path: Path) -> str:
    size = len(path.read_bytes().rstrip(b"\0"))
    left = rng.randrange(size)
    with path.open("r+b") as file:
        file.truncate(left)
    return f"{path.name} cut to {left} of {size} bytes"


async def _damage(rig: Rig, harm: object) -> None:
    assert callable(harm)
    await rig.broker()
    root = rig.state
    lost = 0
    for number in range(rig.rounds):
        before = len(rig.faults)
        rig.state = root / str(number)
        rig.renew()
        # With haste there is something in every file; without, the journal alone holds what was acked.
        for last in (False, True):  # each start begins a segment
            await rig.start(patch=faults.HASTE if number % 2 else "")
            async with rig.load():
                await asyncio.sleep(rig.seconds / 2)
                if last and number % 3 == 2:
                    await rig.terminate(10.0)
                await rig.kill()
        what = harm(rig.rng, _victim(rig, number))
        lost += await _look(rig, what)
        # What comes after it is held to everything.
        rig.renew()
        async with rig.load():
            await asyncio.sleep(rig.seconds / 3)
            await rig.kill()
        await rig.start()
        await rig.settle()
        await rig.kill()
        if len(rig.faults) > before:
            rig.fault(f"after {what}")
        if rig.is_found(rig.faults):
            return
    rig.notes.append(f"{lost} acked readings went with the damage, as was said")


def _victim(rig: Rig, number: int) -> Path:
    """The journal in every second round, else any file that there is."""
    files = [path for path in sorted(rig.state.rglob("*")) if path.is_file() and path.name not in OWN]
    full = [path for path in files if path.read_bytes().strip(b"\0")]
    segments = [path for path in full if path.suffix == ".seg"]
    return rig.rng.choice(segments if number % 2 == 0 else full)


async def _look(rig: Rig, what: str) -> int:
    """Start it; nothing it holds is wrong, and what it lacks is told.  How many acked readings it lacks."""
    if await rig.start() > START_S:
        rig.fault(f"the start took more than {START_S:.0f} s")
    sink = await rig.wait_sink("mqtt", lambda sink: sink["pending"] == 0)
    if sink is None:
        rig.fault("the broker does not get what is left")
    history = History(rig.daemon)
    await rig.ask(history.read, rig.fleet.devices)
    gone = missing(rig.fleet.devices, history.got, "not in history", set())
    rig.faults += shortened(history.faults)
    # One record at the end may have been torn by the crash, and what was cut off leaves no trace: counted at least.
    torn = await rig.ask(number_of, rig.daemon, "gateway_journal_torn_bytes")
    counted = torn > 0 and (len(gone) <= RECORD or " cut to " in what)
    if ONE_BIT in what and len(gone) > RECORD:
        rig.fault(f"one bit took {len(gone)} acked readings with it")
    if gone and not counted and not await rig.ask(said, rig.daemon):
        rig.fault(f"{len(gone)} acked readings are gone, and nothing says so")
    return len(gone)


async def gone(rig: Rig) -> None:
    """The journal's directory is deleted under the daemon, or moved away and back."""
    await rig.broker()
    root = rig.state
    for number in range(rig.rounds):
        rig.state = root / str(number)
        rig.renew()
        await rig.start()
        journal, elsewhere = rig.state / "journal", rig.state / "elsewhere"
        async with rig.load() as fleet:
            await asyncio.sleep(rig.seconds / 2)
            if number % 2:
                await asyncio.to_thread(journal.rename, elsewhere)
                await asyncio.sleep(rig.seconds)
                await asyncio.to_thread(elsewhere.rename, journal)
            else:
                await asyncio.to_thread(shutil.rmtree, journal)
                # What had been acked went with it, and so did acks that were on their way.
                await asyncio.sleep(ON_ITS_WAY_S)
                with_it = {(device.name, n) for device in fleet.devices for n in range(1, device.acked + 1)}
                rig.excused = {"history": with_it, "mqtt": with_it}
            before = fleet.acked
            if not await until(lambda before=before: fleet.acked > before, BACK_WITHIN_S):
                rig.fault(f"nothing is acked {BACK_WITHIN_S:.0f} s after the directory could be used again")
            await asyncio.sleep(rig.seconds / 2)
            await rig.kill()
        await rig.start()
        await rig.settle()
        await rig.kill()
        if rig.faults:
            rig.fault(f"after the directory was {'moved' if number % 2 else 'deleted'}")
            return


CASES = {
    "gone": Case(
        "gone",
        "the journal's directory is deleted under the daemon, or moved away and back",
        gone,
        {"unseen": Control(faults.REMOVAL_UNSEEN, "acked and not in history")},
        rounds=4,
    ),
    "bitflip": Case(
        "bitflip",
        "bits of a file of the state directory are flipped",
        bitflip,
        {"no-checksums": Control(faults.NO_CHECKSUMS, "history holds|mqtt got", rounds=12)},
        rounds=10,
        seconds=0.4,
    ),
    "truncate": Case(
        "truncate",
        "a file of the state directory ends early",
        truncate,
        {"strict": Control(faults.NO_START_AFTER_DAMAGE, "did not start", rounds=3)},
        rounds=10,
        seconds=0.4,
    ),
}
