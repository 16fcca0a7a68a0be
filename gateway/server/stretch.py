"""A stretch of the stream that neither the history's answer nor the hub's memory has, read from the journal.

There is one after a crash, until the history has taken in again what it had in memory alone, while the history lags by
more readings than the hub remembers, and where the hub has forgotten what was to follow a long history.  All of it is
in the journal, or will be as soon as it is on disk.

Bounds: :data:`READINGS_MAX` readings are looked at, what lies behind them is left out; :data:`POINTS_MAX` points are
held, beyond it those so far are thinned.  Never more than :data:`PIECE` readings are read, nor :data:`ENTRIES` matched,
between two turns of the loop.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Container, Sequence
from typing import Protocol

from ..errors import JournalError
from ..hub import Names, Selection, Subscription
from ..reading import Batch, Item, Reading
from .joining import Join
from .paging import POINTS_DOWNSAMPLED, Points, in_time_order, thin

__all__ = ["ENTRIES", "Log", "Stretch"]

log = logging.getLogger(__name__)

PIECE = 1_000
ENTRIES = 256  # matched with a subscription's globs between two turns of the loop
READINGS_MAX = 1 << 20
POINTS_MAX = 200_000
DURABLE_S = 10.0  # for what was shown already to be on disk; then the rest is left out
LOOK_S = 0.05


class Log(Protocol):
    """What is asked of a journal (gateway.journal.Journal)."""

    @property
    def durable_offset(self) -> int: ...
    @property
    def oldest_offset(self) -> int: ...
    async def read_from(self, offset: int, max_readings: int = 1000) -> Batch | None: ...


class Stretch:
    """What a join lacks, or of some ``devices`` all that is to follow the store's answer; made in the step of the join.

    ``points`` has those of the covered readings by series, in the order of the stream.
    """

    def __init__(
        self,
        journal: Log,
        subscription: Subscription,
        join: Join,
        devices: Container[str] | None = None,
        names: Names | None = None,
    ) -> None:
        self.points: Points = {}
        self._journal = journal
        self._join = join
        self._offsets = join.lacks if devices is None else join.tail
        self._devices = devices
        self._selection = Selection(subscription, names)
        self._count = 0  # of the points
        self._oldest = journal.oldest_offset  # what had gone by then is in no history either, nor ever will be

    async def read(self) -> bool:
        """Read it; whether all of it was there."""
        try:
            return await self._read(self._offsets.start, self._offsets.stop)
        except JournalError as error:
            log.warning("a history lacks what is in the journal alone: %s", error)
            return False

    async def _read(self, at: int, end: int) -> bool:
        journal = self._journal
        whole, left, waited = True, READINGS_MAX, 0.0
        while at < end:
            if left <= 0 or self._count > POINTS_MAX:
                return False
            batch = await journal.read_from(at, min(PIECE, left))
            if batch is None:
                if journal.durable_offset >= end:
                    return whole and not self._gone(at)
                if waited >= DURABLE_S:
                    return False
                waited += LOOK_S
                await asyncio.sleep(LOOK_S)
                continue
            if batch.base > at and self._gone(at):
                whole = False
            items = batch.items[: max(0, end - batch.base)]
            for start in range(0, len(items), ENTRIES):
                self.take(items[start : start + ENTRIES])
                await asyncio.sleep(0)
            if self._count > POINTS_MAX:
                await self._thin()
            left -= len(items)
            at = batch.end
        return whole

    def _gone(self, at: int) -> bool:
        """Whether the journal has let go of offset ``at`` since the join: the history has that, its answer has not."""
        return self._journal.oldest_offset > max(at, self._oldest)

    def take(self, items: Sequence[Item]) -> None:
        """Take in what follows, from wherever it is."""
        selection, points, join, devices = self._selection, self.points, self._join, self._devices
        for item in items:
            if devices is not None and item.device not in devices:
                continue
            if type(item) is Reading and join.covers(item.time) and selection.device(item.device):
                device, ms, values = item.device, item.time // 1_000_000, item.values
                for metric in selection.metrics(values):
                    series = points.get((device, metric))
                    if series is None:
                        series = points[device, metric] = []
                    series.append((ms, values[metric]))
                    self._count += 1

    async def _thin(self) -> None:
        """Make room for as many points again, where the series are not too many for that."""
        most = min(POINTS_DOWNSAMPLED, POINTS_MAX // 2 // len(self.points) - 1)
        if most < 2:
            return
        for key, series in self.points.items():
            if len(series) > most:
                in_time_order(series)
                before = len(series)
                steps = thin(series, most)
                while True:
                    try:
                        next(steps)
                    except StopIteration as done:
                        self.points[key] = done.value
                        break
                    await asyncio.sleep(0)
                self._count -= before - len(self.points[key])
