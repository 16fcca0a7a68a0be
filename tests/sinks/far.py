"""A sink whose far side does as it is told, and the runner around it."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import AsyncIterator, Callable, Container, Mapping

from gateway.reading import Batch, Reading
from gateway.sinks.base import Cursor, Key, Rejected
from gateway.sinks.runner import Runner

Outcome = Exception | int | Callable[[Batch], Exception | None] | None


class FarSide:
    """Does what ``script`` says, one entry a write, and is well afterwards (or as ``always`` says)."""

    name = "far"
    refuses = True
    keeps_states = True

    def __init__(self, *script: Outcome) -> None:
        self.lost: Callable[[], None] | None = None
        self.script = list(script)
        self.written: list[int] = []  # offsets of the readings taken
        self.items: list[Reading] = []  # and these themselves
        self.batches: list[tuple[int, int]] = []  # what was asked: base, items
        self.states: dict[Key, bytes | None] = {}
        self.state_calls: list[dict[Key, bytes | None]] = []
        self.readies: list[Exception] = []
        self.new = True
        self.opened = self.closed = 0
        self.always: Callable[[Batch], Exception | None] | None = None
        self.block: asyncio.Event | None = None

    async def open(self) -> None:
        self.opened += 1

    async def ready(self) -> bool:
        if self.readies:
            raise self.readies.pop(0)
        new, self.new = self.new, False
        return new

    async def write(self, batch: Batch) -> int:
        self.batches.append((batch.base, len(batch.items)))
        if self.block is not None:
            await self.block.wait()
        await asyncio.sleep(0)
        outcome = self.script.pop(0) if self.script else self.always
        if callable(outcome):
            outcome = outcome(batch)
        if isinstance(outcome, Rejected) and outcome.rest_safe:
            self._take(batch, outcome.reasons)
        if isinstance(outcome, Exception):
            raise outcome
        self._take(batch, ())
        return batch.end if outcome is None else outcome

    def _take(self, batch: Batch, but: Container[int]) -> None:
        for n, item in enumerate(batch.items):
            if type(item) is Reading and n not in but:
                self.written.append(batch.base + n)
                self.items.append(item)

    async def state(self, changes: Mapping[Key, bytes | None]) -> None:
        self.state_calls.append(dict(changes))
        await asyncio.sleep(0)
        outcome = self.script.pop(0) if self.script else None
        if isinstance(outcome, Exception):
            raise outcome
        self.states.update(changes)

    async def close(self) -> None:
        self.closed += 1

    def stats(self) -> dict[str, float]:
        return {"own": 1.0}


async def until(condition: Callable[[], object], seconds: float = 5.0) -> None:
    """Wait until ``condition`` holds."""
    async with asyncio.timeout(seconds):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0.001)


def make(sink: FarSide, cursor: Cursor, **more: object) -> Runner:
    options: dict[str, object] = {
        "max_readings": 10,
        "max_delay": 0.01,
        "retry_least_s": 0.001,
        "retry_most_s": 0.01,
        "stopped_retry_s": 3600.0,
        "rng": random.Random(1),
        **more,
    }
    return Runner(sink, cursor, **options)  # type: ignore[arg-type]


@contextlib.asynccontextmanager
async def running(runner: Runner) -> AsyncIterator[asyncio.Task[None]]:
    task = asyncio.create_task(runner.run())
    try:
        yield task
    finally:
        await runner.stop(1.0)
        assert task.done()
