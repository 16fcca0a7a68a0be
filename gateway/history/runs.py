"""Runs: rows of one series in the order of time, as a query finds them, many to a series.

Pure.
"""

from __future__ import annotations

from array import array
from dataclasses import dataclass
from itertools import islice
from typing import Final

from gateway.history.column import Column, cut, join
from gateway.history.frame import Orders

__all__ = ["Run", "join_runs", "order_at"]

_SMALL: Final = 4096


@dataclass(slots=True)
class Run:
    """Rows ``lo`` to ``hi`` of a column, sorted by time, rows of one time in order of arrival."""

    times: array[int]
    orders: Orders
    column: Column
    lo: int
    hi: int

    def __len__(self) -> int:
        return self.hi - self.lo


def order_at(orders: Orders, row: int) -> int:
    """The order of one row."""
    return orders if isinstance(orders, int) else orders[row]


def join_runs(runs: list[Run]) -> list[Run]:
    """One run, where the runs of a series are short and follow each other; else the same, in order of arrival.

    None of the runs is empty.
    """
    if len(runs) > 1 and sum(map(len, runs)) <= _SMALL:
        ordered = sorted(runs, key=lambda run: run.times[run.lo])
        if all(
            run.times[run.hi - 1] < after.times[after.lo]
            for run, after in zip(ordered, islice(ordered, 1, None), strict=False)
        ):
            times = array("q")
            for run in ordered:
                times.extend(run.times[run.lo : run.hi])
            column = join([cut(run.column, run.lo, run.hi) for run in ordered])
            return [Run(times, 0, column, 0, len(times))]
    return sorted(runs, key=lambda run: order_at(run.orders, run.lo))
