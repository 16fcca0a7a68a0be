"""The rows of many series in ascending time, at most so many.

Pure.  Series are kept as sorted runs in arrays until the end.  Where more rows have come than can be given, a
*horizon* is found, a time before which there are enough of them, and what lies behind it is let go and need not be
looked for any more: so memory and work are bound by the limit, not by what the file holds.  The rows are put together
in pieces of some thousands, so that no single call keeps the interpreter for long.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterator
from itertools import accumulate, repeat
from operator import itemgetter
from typing import Final

from gateway.history.column import values
from gateway.history.runs import Run, order_at
from gateway.reading import Value

__all__ = ["Collector", "Row"]

Row = tuple[int, str, str, Value]

# Rows put together at once: a sort of so many takes a millisecond; more of them where there are very many runs, each
# of which is looked at for each piece.
_PIECE: Final = 2048
_MAX_PIECE: Final = 16_384
_first = itemgetter(0)


class Collector:
    """Collects at most ``limit`` rows; each series is added once.

    ``horizon`` is the greatest time that is still of interest, None while all are.
    """

    def __init__(self, limit: int) -> None:
        self.horizon: int | None = None
        self.truncated = False
        self._limit = limit
        self._series: list[tuple[str, str]] = []
        self._runs: list[tuple[int, Run]] = []  # with the index of the series
        self._count = 0
        self._next = 2 * limit + _PIECE

    def add(self, device: str, metric: str, runs: list[Run]) -> None:
        """Take the runs of a series in, those of one order of arrival after the other."""
        self._series.append((device, metric))
        for run in runs:
            if len(run):
                self._runs.append((len(self._series) - 1, run))
                self._count += len(run)
        if self._count > self._next:
            self._shorten()
            self._next = max(self._next, 2 * self._count)

    def _samples(self, stride: int) -> list[tuple[int, int]]:
        """Times, ascending, each with how many rows of its run it stands for: those up to it."""
        samples: list[tuple[int, int]] = []
        for _, run in self._runs:
            picked = run.times[run.lo + stride - 1 : run.hi : stride]
            samples.extend(zip(picked, repeat(stride)))
            rest = len(run) - stride * len(picked)
            if rest:
                samples.append((run.times[run.hi - 1], rest))
        samples.sort()
        return samples

    def _shorten(self) -> None:
        # The rows that a sample does not count yet are fewer than the limit in all.
        samples = self._samples(max(1, min(self._count // _PIECE, self._limit // len(self._runs))))
        counts = list(accumulate(weight for _, weight in samples))
        # Up to this time there are more rows than the limit: at least one more, which says that the answer is cut.
        enough = bisect_right(counts, self._limit)
        if enough >= len(samples):
            return
        self.horizon = horizon = samples[enough][0]
        self._count = 0
        kept = []
        for index, run in self._runs:
            run.hi = bisect_right(run.times, horizon, run.lo, run.hi)
            if len(run):
                kept.append((index, run))
                self._count += len(run)
        self._runs = kept

    def rows(self, pause: Callable[[], None]) -> list[Row]:
        """The rows; sets ``truncated``.  ``pause`` is called between the pieces."""
        if self._count > self._limit:
            self._shorten()
        # From here on a series' index says its place by device and metric.
        places = sorted(range(len(self._series)), key=self._series.__getitem__)
        place_of = dict(zip(places, range(len(places)), strict=True))
        self._series.sort()
        self._runs = [(place_of[index], run) for index, run in self._runs]
        rows: list[Row] = []
        for piece in self._pieces():
            rows += piece
            if len(rows) > self._limit:
                self.truncated = True
                del rows[self._limit :]
                break
            pause()
        return rows

    def _pieces(self) -> Iterator[list[Row]]:
        waiting = sorted(self._runs, key=lambda pair: pair[1].times[pair[1].lo], reverse=True)
        active: list[tuple[int, Run]] = []
        for bound in self._bounds():
            while waiting and waiting[-1][1].times[waiting[-1][1].lo] <= bound:
                active.append(waiting.pop())
            parts: list[tuple[int, Run]] = []
            remaining = []
            for index, run in active:
                stop = bisect_right(run.times, bound, run.lo, run.hi)
                parts.append((index, Run(run.times, run.orders, run.column, run.lo, stop)))
                run.lo = stop
                if run.lo < run.hi:
                    remaining.append((index, run))
            active = remaining
            yield self._merge(parts)

    def _bounds(self) -> list[int]:
        bounds, count = [], 0
        rows = max(_PIECE, min(_MAX_PIECE, len(self._runs)))
        samples = self._samples(max(8, 2 * _PIECE // max(1, len(self._runs))))
        for time, weight in samples:
            count += weight
            if count >= rows:
                bounds.append(time)
                count = 0
        if samples:
            bounds.append(samples[-1][0])
        return bounds

    def _merge(self, parts: list[tuple[int, Run]]) -> list[Row]:
        # By series, so that rows of one time are sorted by device and metric; the sort by time is stable.
        parts.sort(key=lambda pair: (pair[0], order_at(pair[1].orders, pair[1].lo)))
        rows: list[Row] = []
        start = 0
        while start < len(parts):
            index, run = parts[start]
            stop = start + 1
            while stop < len(parts) and parts[stop][0] == index:
                stop += 1
            device, metric = self._series[index]
            if stop - start > 1 and any(not isinstance(run.orders, int) for _, run in parts[start:stop]):
                rows += _by_order([run for _, run in parts[start:stop]], device, metric)
            else:
                for _, run in parts[start:stop]:
                    rows += _rows(run, device, metric)
            start = stop
        rows.sort(key=_first)
        return rows


def _rows(run: Run, device: str, metric: str) -> Iterator[Row]:
    times = run.times[run.lo : run.hi]
    return zip(times, repeat(device), repeat(metric), values(run.column, run.lo, run.hi))


def _by_order(runs: list[Run], device: str, metric: str) -> Iterator[Row]:
    keyed: list[tuple[int, Row]] = []
    for run in runs:
        orders = run.orders
        keys = repeat(orders, len(run)) if isinstance(orders, int) else orders[run.lo : run.hi]
        keyed.extend(zip(keys, _rows(run, device, metric)))  # noqa: B905
    keyed.sort(key=_first)
    return map(itemgetter(1), keyed)
