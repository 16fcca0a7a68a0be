"""Ends: SIGKILL at random moments and at each step of the write path, SIGTERM under load."""

from __future__ import annotations

import asyncio
import signal
from typing import NamedTuple

from . import chaos_faults as faults
from .chaos import Case, Control
from .chaos_device import until
from .chaos_rig import Rig, need
from .frames import client_frame
from .servers import Failed

__all__ = ["CASES"]

SETTLE_EVERY = 10
STOP_S = 10.0
STEP_S = 15.0
FIRST_STEP, STRIDE = 5, 7  # a record; prime to their number


async def kill9(rig: Rig) -> None:
    """SIGKILL at a random moment of each round; in every third the broker answers nothing meanwhile."""
    broker = await rig.broker()
    for number in range(rig.rounds):
        # In every second round history, cursors and device book go to disk all the time, so that kills fall into that.
        await rig.start(patch=faults.HASTE if number % 2 else "")
        frozen = number % 3 == 1
        if frozen:
            broker.freeze()
        async with rig.load():
            await asyncio.sleep(rig.rng.uniform(0.8 * rig.seconds if frozen else 0.1, rig.seconds))
            await rig.kill()
        if frozen:
            broker.thaw()
        if number % SETTLE_EVERY == SETTLE_EVERY - 1 or number == rig.rounds - 1:
            await rig.start()
            await rig.settle()
            await rig.kill()
            if rig.faults:
                return


class Step(NamedTuple):
    """A system call of the write path: the ``number``-th ``call`` of a run, on ``path`` under the state directory only
    where one is given; ``second``: of the start after a kill."""

    name: str
    call: str
    number: int
    path: str = ""
    second: bool = False


FIRST = "journal/00000000000001048576-0000.seg"
STEPS = (
    Step("the epoch's name", "rename", 1),
    Step("the first segment's header", "pwritev2", 1, FIRST),
    Step("the first segment's sync", "fdatasync", 1, FIRST),
    Step("the file of cursors", "pwrite64", 1, "journal/cursors"),
    Step("zeros ahead of records", "pwrite64", 1, FIRST),
    Step("a record", "pwritev2", 3, FIRST),
    Step("a record's sync", "fdatasync", 3, FIRST),
    Step("a place of the cursors", "pwrite64", 2, "journal/cursors"),
    Step("a place's sync", "fdatasync", 1, "journal/cursors"),
    Step("a chunk into the history", "pwrite64", 4, "history.db-wal"),
    Step("the history's commit", "fdatasync", 3, "history.db-wal"),
    Step("the tail's end, at recovery", "ftruncate", 1, "", True),
    Step("the next segment's header", "pwritev2", 1, "", True),
    Step("the next segment's sync", "fdatasync", 1, "", True),
    Step("the device book's sync", "fsync", 1, "devices.tmp"),
    Step("the device book's name", "rename", 1, "devices.tmp"),
    Step("a segment's end", "unlink", 1, "", True),
)


async def killstep(rig: Rig) -> None:
    """SIGKILL at the entry of one named system call of the write path after the other."""
    strace = need("strace", "strace")
    await rig.broker()
    root = rig.state
    unreached: list[str] = []
    for number in range(rig.rounds):
        # Fewer rounds than steps: those spread over all of them.
        step = STEPS[(FIRST_STEP + STRIDE * number) % len(STEPS)]
        # A device's readings go on, and with them what MQTT got: each step in a state directory of its own.
        rig.state = root / str(number)
        rig.renew()
        if step.second:
            await rig.start(patch=faults.HASTE)
            async with rig.load():
                await asyncio.sleep(rig.seconds)
                await rig.kill()
        if not await _killed_at(rig, strace, step):
            unreached.append(step.name)
        await rig.start()
        await rig.settle()
        await rig.kill()
        if rig.faults:
            rig.fault(f"at the step: {step.name}")
            return
    rig.notes.append(f"{rig.rounds - len(unreached)} of {rig.rounds} steps reached")
    # A step that is never come to would be a check of nothing.
    if unreached:
        rig.fault(f"not come to: {', '.join(unreached)}")


async def _killed_at(rig: Rig, strace: str, step: Step) -> bool:
    """Load the daemon until the step kills it; false when it came to nothing within :data:`STEP_S`."""
    where = ["-P", str(rig.state / step.path)] if step.path else []
    inject = f"inject={step.call}:signal=KILL:when={step.number}"
    trace = ["-e", f"trace={step.call}", "-e", inject, "-e", "signal=none", *where]
    # -D: the daemon is our child, strace its sibling.
    prefix = [strace, "-D", "-f", "-qq", "--seccomp-bpf", "-o", "/dev/null", *trace]
    if where:
        prefix.remove("--seccomp-bpf")
    daemon = rig.make(prefix=prefix, patch=faults.HASTE)
    starting = asyncio.create_task(asyncio.to_thread(daemon.start))
    async with rig.load(connected=False):
        await until(lambda: starting.done() and not rig.running, STEP_S)
    killed = daemon.process is not None and daemon.process.poll() == -signal.SIGKILL
    await rig.kill()
    try:
        await starting
    except Failed:
        pass
    return killed


async def shutdown(rig: Rig) -> None:
    """SIGTERM under load, broker and some peers standing still: over in 10 s, status 0, all on disk."""
    broker = await rig.broker()
    slowest = 0.0
    for _ in range(rig.rounds):
        await rig.start()
        live = await rig.deaf("/v1/live")
        live.write(client_frame(b'{"type":"subscribe","id":"main","mode":"every","history_s":3600}'))
        stalled = [live, *[await rig.deaf(f"/v1/devices/stalled-{n}") for n in range(2)]]
        async with rig.load() as fleet:
            await asyncio.sleep(rig.seconds / 2)
            broker.freeze()
            await asyncio.sleep(rig.seconds / 2)
            took = await rig.terminate(STOP_S + 1)
            status = rig.daemon.process.returncode if rig.daemon.process else None
            if took is None or took > STOP_S:
                rig.fault(f"SIGTERM was not over after {STOP_S:.0f} s")
            elif status != 0:
                rig.fault(f"exit status {status} after SIGTERM")
            # An ack that was on its way counts.
            await asyncio.sleep(0.05)
            assert fleet.acked
        for writer in stalled:
            writer.transport.abort()
        broker.thaw()
        slowest = max(slowest, took or STOP_S)
        if rig.faults:
            break
    await rig.start()
    await rig.settle()
    rig.notes.append(f"slowest stop {slowest:.1f} s")


CASES = {
    "kill9": Case(
        "kill9",
        "SIGKILL at random moments under load",
        kill9,
        {
            "early-ack": Control(faults.ACK_BEFORE_SYNC, "acked and not in history"),
            "early-cursor": Control(faults.CURSOR_BEFORE_FAR_SIDE, "acked and missing on mqtt", rounds=2),
            "history-twice": Control(faults.HASTE + faults.HISTORY_FORGETS_ITS_PLACE, "twice", rounds=2),
            "book-forgets": Control(faults.BOOK_FORGETS, "remembered up to"),
        },
        rounds=20,
        seconds=0.5,
    ),
    "killstep": Case(
        "killstep",
        "SIGKILL at each named step of the write path",
        killstep,
        {"early-ack": Control(faults.ACK_BEFORE_SYNC, "acked and not in history")},
        rounds=len(STEPS),
        seconds=0.3,
    ),
    "shutdown": Case(
        "shutdown",
        "SIGTERM under load with stalled sinks and peers",
        shutdown,
        {
            "no-commit": Control(faults.STOP_WITHOUT_COMMIT, "acked and not in history"),
            "patient": Control(faults.PATIENT_STOP, "was not over after 10 s", slow=True),
        },
        rounds=5,
        seconds=1.0,
    ),
}
