"""Reducing the buckets of a rollup to the longer ones of an answer.

Pure.  A sum's ``weights`` say of how many numbers it is; a negative one that the sum is beyond floats, and their mean
stands in its place.  0: the bucket has texts alone.
"""

from __future__ import annotations

import math
from array import array
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final, cast

from gateway.history.column import Column, values
from gateway.history.frame import Orders
from gateway.history.runs import order_at
from gateway.reading import Value

__all__ = ["REDUCE", "Kept", "Number", "RolledRun", "both_means"]

Number = float | int
# What is kept of a bucket, for each aggregate:
#   mean (mean, count); min, max: the number; last (value, time, order); count: the number.
Kept = tuple[float, int] | Number | tuple[Value, int, int]


@dataclass(slots=True)
class RolledRun:
    """Buckets ``lo`` to ``hi`` of a rollup of one series, sorted by time.

    ``column``: sums, least ones, greatest ones, last ones or counts, as the aggregate asks for.  ``weights``: how many
    numbers there are, but for last and count; ``lags``: the last row's time after the bucket's start, for last.
    """

    times: array[int]
    orders: Orders
    column: Column
    weights: Column | None
    lags: Column | None
    lo: int
    hi: int

    def __len__(self) -> int:
        return self.hi - self.lo


def both_means(a: tuple[float, int], b: tuple[float, int]) -> tuple[float, int]:
    """The mean of all, from two means and their counts."""
    count = a[1] + b[1]
    return a[0] * (a[1] / count) + b[0] * (b[1] / count), count


def _weighed(run: RolledRun, start: int, stop: int) -> tuple[Sequence[int], bool]:
    """The weights, and whether each is above 0."""
    assert run.weights is not None
    weights = cast("Sequence[int]", run.weights.data[start:stop])
    return weights, min(weights) > 0


def _mean(run: RolledRun, start: int, stop: int, kept: Any) -> Kept | None:
    weights, plain = _weighed(run, start, stop)
    if plain:
        count = sum(weights)
        try:
            mean = sum(cast("Sequence[Number]", run.column.data[start:stop])) / count
        except OverflowError:
            mean = math.inf
        if math.isfinite(mean):
            found = (mean / run.column.scale if run.column.scale else mean, count)
            return found if kept is None else both_means(kept, found)
    for value, weight in zip(cast("Sequence[Number]", values(run.column, start, stop)), weights, strict=True):
        if weight:
            one = (float(value), -weight) if weight < 0 else (value / weight, weight)
            kept = one if kept is None else both_means(kept, one)
    return cast("Kept | None", kept)


def _extreme(choose: Callable[[Iterator[Number] | Sequence[Number]], Number]) -> Callable[..., Kept | None]:
    def extreme(run: RolledRun, start: int, stop: int, kept: Any) -> Kept | None:
        weights, _ = _weighed(run, start, stop)
        if 0 in weights:
            numbers = cast("Sequence[Number]", values(run.column, start, stop))
            there = [number for number, weight in zip(numbers, weights, strict=True) if weight]
            if not there:
                return cast("Kept | None", kept)
            found = choose(there)
        else:
            found = choose(cast("Sequence[Number]", run.column.data[start:stop]))
            if run.column.scale:
                found = found / run.column.scale
        return found if kept is None else choose([kept, found])

    return extreme


def _last(run: RolledRun, start: int, stop: int, kept: Any) -> Kept | None:
    assert run.lags is not None
    row = stop - 1
    time, order = run.times[row] + cast("int", run.lags.data[row]), order_at(run.orders, row)
    if kept is not None and (time, order) < kept[1:]:
        return cast("Kept", kept)
    return values(run.column, row, stop)[0], time, order


def _count(run: RolledRun, start: int, stop: int, kept: Any) -> Kept | None:
    return sum(cast("Sequence[int]", run.column.data[start:stop])) + (kept or 0)


# Of each aggregate: ``reduce(run, start, stop, kept)``, what is kept of buckets start to stop and of what was before.
REDUCE: Final[dict[str, Callable[[RolledRun, int, int, Any], Kept | None]]] = {
    "mean": _mean,
    "min": _extreme(min),
    "max": _extreme(max),
    "last": _last,
    "count": _count,
}
