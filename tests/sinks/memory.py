"""A cursor in memory, and readings to fill it with, for tests of what reads from one."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import NamedTuple

from gateway.reading import Batch, Item, Reading, Value


class Place(NamedTuple):
    offset: int
    readings: int


class MemoryCursor:
    """The journal's cursor over ``count`` items that ``make(offset)`` makes; ``append`` adds more.

    All items are readings, except at the offsets in ``others``.
    """

    def __init__(
        self,
        count: int = 0,
        make: Callable[[int], Item] | None = None,
        base: int = 0,
        others: frozenset[int] = frozenset(),
    ) -> None:
        self.name = "memory"
        self.base = base
        self.others = others
        self.end = base + count
        self.position = Place(base, 0)
        self.overflowed = self.lost = self.began = self.dead_lettered = 0
        self.confirmed: list[int] = []
        self.reads = 0
        self.fail: Exception | None = None
        self._make = make or reading
        self._items: dict[int, Item] = {}
        self._more = asyncio.Event()

    @property
    def pending(self) -> int:
        return self._readings(self.position.offset, self.end)

    @property
    def delivered(self) -> int:
        return self.position.readings - self.began - self.dead_lettered - self.overflowed - self.lost

    @property
    def place(self) -> tuple[Place, int]:
        """What would be kept on disk."""
        return self.position, self.dead_lettered

    def go_back(self, place: tuple[Place, int]) -> None:
        """As after a crash: what was kept last is what there is."""
        self.position, self.dead_lettered = place

    def _readings(self, start: int, stop: int) -> int:
        return stop - start - sum(start <= other < stop for other in self.others)

    def is_drained(self, offset: int) -> bool:
        return offset >= self.end

    def append(self, item: Item) -> int:
        offset = self.end
        self._items[offset] = item
        self.end += 1
        self._more.set()
        return offset

    async def read(self, offset: int, *, max_readings: int = 1000, max_delay: float = 0.25) -> Batch:
        self.reads += 1
        while offset >= self.end:
            self._more.clear()
            await self._more.wait()
        if self.fail is not None:
            raise self.fail
        stop = min(self.end, offset + max_readings)
        items = [self._items.get(at) or self._make(at) for at in range(offset, stop)]
        return Batch(offset, items, sum(type(item) is Reading for item in items))

    def confirm(self, offset: int, *, dead_lettered: int = 0) -> None:
        self.dead_lettered += dead_lettered
        if offset > self.position.offset:
            self.confirmed.append(offset)
            self.position = Place(offset, self._readings(self.base, offset))

    def close(self) -> None:
        pass


def reading(offset: int, device: str = "", devices: int = 20, values: dict[str, Value] | None = None) -> Reading:
    """Reading ``offset``: of device ``offset % devices``, its value its own number."""
    return Reading(
        device or f"d-{offset % devices}",
        "s1",
        offset + 1,
        1_764_000_000_000_000_000 + offset * 1_000_000,
        1_764_000_000_500_000_000 + offset * 1_000_000,
        {"n": offset} if values is None else values,
    )


def batch(*items: Item, base: int = 0) -> Batch:
    """A batch of these."""
    return Batch(base, list(items), sum(type(item) is Reading for item in items))
