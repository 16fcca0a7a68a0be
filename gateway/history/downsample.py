"""Rows into buckets of equal length.

Pure.  Buckets are aligned to multiples of ``step`` since the epoch; the time of a bucket's row is its start.  ``mean``,
``min`` and ``max`` skip strings and take booleans as 0 and 1; a bucket with strings alone has no row of them.  ``last``
and ``count`` work for all values.
"""

from __future__ import annotations

import math
from array import array
from bisect import bisect_left
from collections.abc import Callable, Sequence
from itertools import repeat
from operator import truediv
from typing import Any, Final, cast

from gateway.history.column import OBJECT, Column, values
from gateway.history.rolled import REDUCE, Kept, Number, RolledRun, both_means
from gateway.history.runs import Run, order_at
from gateway.reading import Value

__all__ = ["AGGREGATES", "Buckets", "mean_of", "numbers_of"]


def numbers_of(column: Column, start: int, stop: int) -> Sequence[Number]:
    """The values that count as numbers, as they are kept: decimals not yet divided by their scale."""
    data = column.data[start:stop]
    if column.kind == OBJECT:
        return [int(value) if type(value) is bool else value for value in data if type(value) is not str]  # type: ignore[misc]
    return cast("Sequence[Number]", data)


def mean_of(column: Column, start: int, stop: int) -> tuple[float, int] | None:
    """The mean of those rows that are numbers, and how many these are."""
    numbers = numbers_of(column, start, stop)
    count = len(numbers)
    if not count:
        return None
    try:
        mean = sum(numbers) / count
    except OverflowError:
        mean = math.inf
    if not math.isfinite(mean):
        # The sum of numbers near the greatest float is beyond it, their mean is not; rounding must not lift it there.
        half = math.fsum(map(truediv, numbers, repeat(2.0 * count)))
        mean = min(max(2.0 * half, float(min(numbers))), float(max(numbers)))
    return (mean / column.scale if column.scale else mean), count


def _extreme(choose: Callable[[Sequence[Number]], Number]) -> Callable[[Column, int, int], Number | None]:
    def extreme(column: Column, start: int, stop: int) -> Number | None:
        numbers = numbers_of(column, start, stop)
        if not numbers:
            return None
        return choose(numbers) / column.scale if column.scale else choose(numbers)

    return extreme


_least = _extreme(min)
_greatest = _extreme(max)

AGGREGATES: Final = ("mean", "min", "max", "last", "count")


class Buckets:
    """Takes the runs of one series, in any order, and gives its buckets."""

    def __init__(self, step: int, aggregate: str) -> None:
        """Raises ``ValueError`` for a step below 1 or an unknown aggregate."""
        if step < 1:
            raise ValueError(f"step of {step} ns")
        if aggregate not in AGGREGATES:
            raise ValueError(f"unknown aggregate {aggregate!r}: one of {', '.join(AGGREGATES)}")
        self._step = step
        self._aggregate = aggregate
        self._kept: dict[int, Kept] = {}
        self._times = array("q")
        self._values: list[Value] = []

    def __len__(self) -> int:
        """Buckets that are done."""
        return len(self._times)

    def add(self, run: Run | RolledRun) -> None:
        """Take the rows of ``run`` in, or the buckets of a rollup; of a bucket longer than ours its start counts."""
        times, step, kept = run.times, self._step, self._kept
        reduce: Any = REDUCE[self._aggregate] if isinstance(run, RolledRun) else getattr(self, f"_{self._aggregate}")
        start, stop = run.lo, run.hi
        while start < stop:
            time = times[start]
            bucket = time - time % step
            end = bisect_left(times, bucket + step, start, stop) if start + 1 < stop else stop
            value = reduce(run, start, end, kept.get(bucket))
            if value is not None:
                kept[bucket] = value
            start = end

    def seal(self, before: int | None = None) -> None:
        """No rows before ``before`` will come any more (None: no rows at all): those buckets are done."""
        done = sorted(self._kept if before is None else [time for time in self._kept if time + self._step <= before])
        self._times.extend(done)
        first = self._aggregate in ("mean", "last")
        for bucket in done:
            value = self._kept.pop(bucket)
            self._values.append(value[0] if first else value)  # type: ignore[index, arg-type]

    def run(self) -> Run:
        """The buckets that are done, one row each."""
        return Run(self._times, 0, Column(OBJECT, self._values), 0, len(self._times))

    @staticmethod
    def _mean(run: Run, start: int, stop: int, kept: tuple[float, int] | None) -> tuple[float, int] | None:
        mean = mean_of(run.column, start, stop)
        return kept if mean is None else mean if kept is None else both_means(kept, mean)

    @staticmethod
    def _min(run: Run, start: int, stop: int, kept: Number | None) -> Number | None:
        least = _least(run.column, start, stop)
        return kept if least is None else least if kept is None else min(kept, least)

    @staticmethod
    def _max(run: Run, start: int, stop: int, kept: Number | None) -> Number | None:
        greatest = _greatest(run.column, start, stop)
        return kept if greatest is None else greatest if kept is None else max(kept, greatest)

    @staticmethod
    def _last(run: Run, start: int, stop: int, kept: tuple[Value, int, int] | None) -> tuple[Value, int, int]:
        time, order = run.times[stop - 1], order_at(run.orders, stop - 1)
        if kept is not None and (time, order) < kept[1:]:
            return kept
        return values(run.column, stop - 1, stop)[0], time, order

    @staticmethod
    def _count(run: Run, start: int, stop: int, kept: int | None) -> int:
        return stop - start + (kept or 0)
