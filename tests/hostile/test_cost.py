"""What each case of the corpus costs: memory, and the event loop."""

from __future__ import annotations

import asyncio
import gc
import time
import tracemalloc
from pathlib import Path

import pytest

from tests.hostile.corpus import cases
from tests.hostile.doors import knock
from tests.hostile.test_corpus import LIMITS, SOON
from tests.running import gateway

pytestmark = pytest.mark.alone

# Measured are 32 ms of CPU and 12 MiB at the most, the hostile peer's own part included.  Machines differ: what is
# looked for is a cost that grows out of proportion.
LOOP_S = 0.050
MARGIN = 4
MEMORY_BYTES = 20 << 20
CHEAP = {"names", "encoded address", "control characters", "shape", "sequence", "time", "utf-8", "request"}
LARGE = {"depth", "lengths", "size", "duplicates", "globs", "numbers"}


class Longest:
    """The longest callback of the loop, in seconds of this thread's CPU: the load of the machine is not in it."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.seconds = 0.0
        run = asyncio.Handle._run

        def timed(handle: asyncio.Handle) -> None:
            begin = time.thread_time()
            run(handle)
            self.seconds = max(self.seconds, time.thread_time() - begin)

        patch.setattr(asyncio.Handle, "_run", timed)


async def test_no_case_holds_the_loop_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No step of the loop takes 50 ms."""
    longest = Longest(monkeypatch)
    steps: list[tuple[float, str]] = []
    async with gateway(tmp_path, limits=LIMITS, **SOON) as gw:
        gc.collect()
        gc.freeze()
        for case in cases():
            if case.limits is None and case.attack not in CHEAP:
                longest.seconds = 0.0
                await knock(gw, case.door, case.sent)
                steps.append((longest.seconds, str(case)))
        gc.unfreeze()
    assert max(steps)[0] < LOOP_S * MARGIN, max(steps)


async def test_no_case_takes_much_memory(tmp_path: Path) -> None:
    """At no time 20 MiB more are taken than before the case."""
    memory: list[tuple[int, str]] = []
    async with gateway(tmp_path, limits=LIMITS, **SOON) as gw:
        tracemalloc.start()
        try:
            for case in cases():
                if case.limits is None and case.attack in LARGE:
                    tracemalloc.reset_peak()
                    before = tracemalloc.get_traced_memory()[0]
                    await knock(gw, case.door, case.sent)
                    memory.append((tracemalloc.get_traced_memory()[1] - before, str(case)))
        finally:
            tracemalloc.stop()
    assert max(memory)[0] < MEMORY_BYTES, max(memory)
