"""Which level answers which part of a question: readings as they came (RAW), or rollups of a minute or an hour.

Pure.  The coarsest level of which buckets are whole multiples answers as far as its buckets lie within the question's
times; the edges are left to finer ones, the last to readings.  So the answer is that of the readings, exactly.

What is not kept any more at a level is taken from the next coarser one that has it: there the answer is not exact, and
says so.  Each level has a time before which it may lack something (``gone``); it falls on an hour.
"""

from __future__ import annotations

from typing import Final, NamedTuple

__all__ = ["HOURS", "LENGTH", "MINUTES", "RAW", "Segment", "fitting", "plan", "whole_hours"]

RAW: Final = 0
MINUTES: Final = 1
HOURS: Final = 2
LENGTH: Final = {RAW: 1, MINUTES: 60 * 10**9, HOURS: 3600 * 10**9}  # nanoseconds
_LAST: Final = (1 << 63) - 1


class Segment(NamedTuple):
    """Readings of ``start`` to ``end``, or the buckets that begin then; ``exact``: nothing of it is missing or more."""

    level: int
    start: int
    end: int
    exact: bool = True


def whole_hours(time: int) -> int:
    """The full hour at or after ``time``."""
    return min(-(-time // LENGTH[HOURS]) * LENGTH[HOURS], _LAST)


def fitting(step: int) -> int:
    """A step that rollups answer, up to a tenth longer; the same where there is none."""
    for level in (HOURS, MINUTES):
        length = LENGTH[level]
        if step >= 10 * length:
            return -(-step // length) * length
    return step


def plan(start: int, end: int, step: int | None, gone: tuple[int, int, int]) -> list[Segment]:
    """The parts of a question with this ``step`` (None: for readings as they are), in ascending time.

    ``gone``: of each level, before which time it may lack something.  A segment that is not exact may begin before
    ``start``, with the bucket that holds it.
    """
    if step is None:
        return [Segment(RAW, start, end)] if start < end else []
    best = max(level for level, length in LENGTH.items() if step % length == 0)
    found: list[Segment] = []
    done = start - LENGTH[HOURS]
    for level, lo, hi in _cut(start, end, best):
        while lo < hi:
            there = level
            while there < HOURS and lo < gone[there]:
                there += 1
            # Up to where the finer one begins to have all.
            stop = hi if there == level else min(hi, gone[there - 1])
            length = LENGTH[there]
            begin = max(lo if there == level else lo - lo % length, done)
            if begin < stop:
                found.append(Segment(there, begin, stop, there == level))
                done = stop if there == level else min(-(-stop // length) * length, _LAST)
            lo = stop
    return found


def _cut(start: int, end: int, level: int) -> list[tuple[int, int, int]]:
    if start >= end:
        return []
    if level == RAW:
        return [(RAW, start, end)]
    length = LENGTH[level]
    first, last = -(-start // length) * length, end // length * length
    if first >= last:
        return _cut(start, end, level - 1)
    return [*_cut(start, first, level - 1), (level, first, last), *_cut(last, end, level - 1)]
