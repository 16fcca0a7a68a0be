"""The newest committed batches in memory, for cursors that are caught up.

Bounded by an estimate of the memory: the oldest batches make room, and who still needs them reads from disk.  The
batches are the appended objects themselves, shared by all readers.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import deque
from typing import TYPE_CHECKING, NamedTuple

from gateway.journal import record
from gateway.reading import Batch, Item

if TYPE_CHECKING:
    from gateway.journal.writer import Written

__all__ = ["Entry", "Ring"]

# A reading takes six to eight times its encoded bytes as objects (struct, dict, numbers, strings).
MEMORY_PER_BYTE = 8


class Entry(NamedTuple):
    """A batch, the readings ever stored below it, the loop's time of its commit, its estimated bytes."""

    batch: Batch
    before: int
    at: float
    cost: int


class Ring:
    """Consecutive batches; ``cost`` is the estimated memory, bytes, at most ``limit`` (or one batch)."""

    def __init__(self, limit: int) -> None:
        self.cost = 0
        self._limit = limit
        self._entries: deque[Entry] = deque()

    def __len__(self) -> int:
        return len(self._entries)

    def add(self, written: Written, at: float) -> None:
        """Add the batch that follows the last one."""
        cost = written.size * MEMORY_PER_BYTE
        self._entries.append(Entry(written.batch, written.before, at, cost))
        self.cost += cost
        while self.cost > self._limit and len(self._entries) > 1:
            self.cost -= self._entries.popleft().cost

    def start_behind(self, offset: int, default: int) -> int:
        """The first offset that is held, if it lies behind ``offset``; else ``default``."""
        entries = self._entries
        return entries[0].batch.base if entries and entries[0].batch.base > offset else default

    def find(self, offset: int) -> Entry | None:
        """The entry that holds ``offset``."""
        entries = self._entries
        if not entries or offset < entries[0].batch.base or offset >= entries[-1].batch.end:
            return None
        last = entries[-1]
        if last.batch.base <= offset:
            return last
        return entries[self._index(offset)]

    def take(self, offset: int, max_items: int) -> tuple[Batch, int]:
        """At most ``max_items`` items from ``offset`` on, which :meth:`find` found, and the readings below them."""
        entries = self._entries
        index = self._index(offset)
        entry = entries[index]
        batch = entry.batch
        if batch.base == offset and (
            len(batch.items) == max_items or (len(batch.items) < max_items and index == len(entries) - 1)
        ):
            return batch, entry.before
        skip = offset - batch.base
        before = entry.before
        if skip:
            before += skip if batch.readings == len(batch.items) else record.count_readings(batch.items[:skip])
        items: list[Item] = batch.items[skip : skip + max_items]
        pure = batch.readings == len(batch.items)
        while len(items) < max_items and index + 1 < len(entries):
            index += 1
            batch = entries[index].batch
            pure = pure and batch.readings == len(batch.items)
            items += batch.items[: max_items - len(items)]
        return Batch(offset, items, len(items) if pure else record.count_readings(items)), before

    def _index(self, offset: int) -> int:
        return bisect_right(self._entries, offset, key=lambda entry: entry.batch.base) - 1
