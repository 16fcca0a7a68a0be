"""Which level answers which part of a question: readings as they came (RAW), or rollups of a minute or an hour.

Pure.  The coarsest level of which buckets are whole multiples answers as far as its buckets lie within the question's
times; the edges are left to finer ones, the last to readings.  So the answer is that of the readings, exactly.

A step of many minutes that is no whole number of them is answered from minutes, too: a minute that lies within one step
is as good as its readings.  Where a step ends within a minute, that minute is left to readings.

What is not kept any more at a level is taken from the next coarser one that has it: there the answer is not exact, and
says so.  Each level has a time before which it may lack something (``gone``); it falls on an hour.
"""

from __future__ import annotations

from typing import Final, NamedTuple

__all__ = ["HOURS", "LENGTH", "MINUTES", "RAW", "Segment", "Span", "fitting", "parted", "plan", "whole_hours"]

RAW: Final = 0
MINUTES: Final = 1
HOURS: Final = 2
LENGTH: Final = {RAW: 1, MINUTES: 60 * 10**9, HOURS: 3600 * 10**9}  # nanoseconds
MANY: Final = 10  # buckets to a step, from which on it does not matter much that they are no whole number
_LAST: Final = (1 << 63) - 1

Span = tuple[int, int]  # from a start to before an end


class Segment(NamedTuple):
    """Readings of ``start`` to ``end``, or the buckets that begin then; ``exact``: nothing of it is missing or more.

    ``step``: what divides some of the buckets, which are left to readings (``parted``); 0: none is.
    """

    level: int
    start: int
    end: int
    exact: bool = True
    step: int = 0


def whole_hours(time: int) -> int:
    """The full hour at or after ``time``."""
    return min(-(-time // LENGTH[HOURS]) * LENGTH[HOURS], _LAST)


def fitting(step: int) -> int:
    """A step that rollups answer, up to a tenth longer; the same where there is none."""
    for level in (HOURS, MINUTES):
        length = LENGTH[level]
        if step >= MANY * length:
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
    if best == RAW and step >= MANY * LENGTH[MINUTES]:
        return [part for segment in found for part in _from_minutes(segment, step, gone[MINUTES])]
    return found


def _from_minutes(segment: Segment, step: int, gone: int) -> list[Segment]:
    """A segment, of readings in so far as minutes do not answer."""
    if segment.level != RAW:
        return [segment]
    start = min(max(segment.start, gone), segment.end)
    parts = [(RAW, segment.start, start)] if segment.start < start else []
    return [
        Segment(level, lo, hi, step=0 if level == RAW else step)
        for level, lo, hi in (*parts, *_cut(start, segment.end, MINUTES))
    ]


def parted(segment: Segment, first: int, last: int) -> tuple[list[Span], list[Span]]:
    """Of a segment with a ``step``, as far as it is from ``first`` to ``last``: the spans of buckets that no step
    divides, and those of the others.  Both ascend; a bucket is within one of them, or the other, as a whole."""
    step, length = segment.step, LENGTH[segment.level]
    begin, end = max(segment.start, first - first % length), min(segment.end, last - last % length + length)
    whole: list[Span] = []
    divided: list[Span] = []
    time = begin - begin % step + step
    while time < end:
        if time % length:
            bucket = time - time % length
            if begin < bucket:
                whole.append((begin, bucket))
            begin = bucket + length
            divided.append((bucket, begin))
        time += step
    if begin < end:
        whole.append((begin, end))
    return whole, divided


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
