"""The history behind a runner, with the real journal and the real store."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from pathlib import Path

from gateway.errors import HistoryError
from gateway.history import History
from gateway.journal import Journal
from gateway.reading import Batch
from gateway.sinks import registry
from gateway.sinks.runner import Runner

from .memory import MemoryCursor, reading

START, END = 1_764_000_000_000_000_000, 1_765_000_000_000_000_000


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(10):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0.002)


async def test_readings_stand_in_the_history_once_over_restarts(tmp_path: Path) -> None:
    """Over restarts each reading is in the store once; while idle the cursor follows what the store flushed."""
    for run in range(2):
        journal = Journal(tmp_path / "journal", commit_ms=5)
        await journal.open()
        history = History(tmp_path / "history.db", retention_days=0)
        await history.open(journal.epoch)
        cursor = journal.cursor("history", history.position)
        runner = Runner(registry.history_sink(history), cursor, max_delay=0.01, lag_s=0.02)
        task = asyncio.create_task(runner.run())
        try:
            for n in range(run * 500, (run + 1) * 500):
                journal.append(reading(n))
            await journal.flush()
            await until(lambda: history.end == journal.durable_offset)  # noqa: B023
            rows, _ = await history.query(start=START, end=END)
            assert sorted(row[3] for row in rows) == list(range((run + 1) * 500))
            if run == 0:
                assert cursor.pending == 500
                await history.flush()
                await until(lambda: cursor.pending == 0)  # noqa: B023
        finally:
            await runner.stop(2.0)
            await history.close()
            await journal.close()
        assert task.done()


async def test_disk_that_refuses_makes_the_sink_wait() -> None:
    """An error of the store is an outage like any other: nothing is lost, and the reason is shown."""

    class Full:
        position = 0
        errors = 3
        taken: list[int] = []

        async def write(self, batch: Batch) -> int:
            if self.errors:
                self.errors -= 1
                raise HistoryError("disk full", hint="make room")
            self.taken.append(batch.base)
            return batch.end

        async def flush(self) -> None:
            raise HistoryError("closed")

    store = Full()
    cursor = MemoryCursor(5)
    runner = Runner(registry.history_sink(store), cursor, retry_least_s=0.05, rng=random.Random(1))
    task = asyncio.create_task(runner.run())
    await until(lambda: runner.state == "waiting")
    assert (runner.reason, runner.hint) == ("disk full", "make room")
    await until(lambda: cursor.pending == 0)
    await runner.stop(2.0)
    assert task.done()
    assert store.taken == [0]
