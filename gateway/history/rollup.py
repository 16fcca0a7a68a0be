"""Rollups: rows of a device and shape in buckets of a minute or an hour.

Pure.  A rollup is a frame, too, with one row a bucket, whose time is the bucket's start and whose order is that of its
last row.  Its columns, not those of the shape::

    0   lag: the time of the last row, less the bucket's start
    1   count of rows
    2 + 5 * i .. 6 + 5 * i, of metric i of the shape:
        least, greatest, sum (0 where there is no number), last value, weight
    weight = how many values are numbers (booleans are 0 and 1); negative: the sum is beyond floats, and the mean stands
             in its place

Its body, beside the codec's, says which columns are alike, so that these are kept once::

    body   = length of places, 2 bytes | places | body of a frame of the columns that differ (codec)
    places = MessagePack, an array: for each column its place among those that differ
"""

from __future__ import annotations

import math
from array import array
from bisect import bisect_left
from collections.abc import Iterable, Sequence
from itertools import islice, pairwise
from operator import lt, mul, sub
from typing import Any, Final, cast

import msgspec

from gateway.history.codec import DamagedChunk, decode, encode
from gateway.history.column import BOOL, FLOAT, INT, OBJECT, Column, column, pick, values
from gateway.history.downsample import mean_of, numbers_of
from gateway.history.frame import Frame, concatenate, sort_rows
from gateway.history.levels import LENGTH, Span
from gateway.history.rolled import RolledRun, both_means
from gateway.reading import INT64_MAX, INT64_MIN

__all__ = ["LEVELS", "combine", "decode_rollup", "encode_rollup", "roll", "rolled_runs"]

LEVELS: Final = tuple(LENGTH)[1:]  # those that are rollups: minutes, hours
LAG: Final = 0
COUNT: Final = 1
FIXED: Final = 2  # columns before those of the metrics
LEAST, GREATEST, SUM, LAST, WEIGHT = range(5)
EACH: Final = 5
_OF: Final = {"min": LEAST, "max": GREATEST, "mean": SUM, "last": LAST}

_pack = msgspec.msgpack.Encoder().encode
_unpack_places = msgspec.msgpack.Decoder(list[int]).decode


def roll(frame: Frame, length: int) -> Frame:
    """The rollup of a frame sorted by time, in buckets of ``length`` nanoseconds."""
    times, stop = frame.times, len(frame)
    starts, cuts = array("q"), [0]
    while cuts[-1] < stop:
        time = times[cuts[-1]]
        starts.append(time - time % length)
        cuts.append(bisect_left(times, starts[-1] + length, cuts[-1] + 1, stop))
    ends = [cut - 1 for cut in islice(cuts, 1, None)]
    orders = frame.orders if isinstance(frame.orders, int) else array("q", map(frame.orders.__getitem__, ends))
    counts = Column(INT, array("q", map(sub, islice(cuts, 1, None), cuts)))
    columns = [Column(INT, array("q", map(sub, map(times.__getitem__, ends), starts))), counts]
    for of in frame.columns:
        columns += _roll_column(of, cuts, ends, counts)
    return Frame(starts, starts, orders, columns)


def _roll_column(of: Column, cuts: list[int], ends: list[int], counts: Column) -> list[Column]:
    last = pick(of, ends)
    if of.kind == OBJECT:
        return _roll_mixed(of, cuts, last)
    kind = INT if of.kind == BOOL else of.kind
    if len(ends) == len(of):  # one row a bucket
        same = Column(INT, array("q", cast("array[int]", last.data))) if of.kind == BOOL else last
        return [same, same, same, last, counts]
    code = "d" if kind == FLOAT and not of.scale else "q"
    parts = [cast("Sequence[Any]", of.data[start:stop]) for start, stop in pairwise(cuts)]
    least, greatest = (
        Column(kind, array(code, map(min, parts)), of.scale),
        Column(kind, array(code, map(max, parts)), of.scale),
    )
    sums: list[Any] = list(map(sum, parts))
    if code == "q":
        if min(sums) >= INT64_MIN and max(sums) <= INT64_MAX:
            return [least, greatest, Column(kind, array("q", sums), of.scale), last, counts]
        floats = [total / (of.scale or 1) for total in sums]
        return [least, greatest, Column(FLOAT, array("d", floats)), last, counts]
    weights = counts
    if not all(map(math.isfinite, sums)):
        signs = [1 if math.isfinite(total) else -1 for total in sums]
        sums = [
            _mean(of, start, stop) if sign < 0 else total
            for total, sign, (start, stop) in zip(sums, signs, pairwise(cuts), strict=True)
        ]
        weights = Column(INT, array("q", map(mul, signs, cast("array[int]", counts.data))))
    return [least, greatest, Column(FLOAT, array("d", sums)), last, weights]


def _mean(of: Column, start: int, stop: int) -> float:
    found = mean_of(of, start, stop)
    assert found is not None
    return found[0]


def _roll_mixed(of: Column, cuts: list[int], last: Column) -> list[Column]:
    """Texts, and values of several types."""
    rows: list[tuple[Any, ...]] = []
    for start, stop in pairwise(cuts):
        numbers = numbers_of(of, start, stop)
        if not numbers:
            rows.append((0, 0, 0, 0))
            continue
        weight = len(numbers)
        total = _total(sum, numbers)
        if total is None:
            total, weight = _mean(of, start, stop), -weight
        rows.append((min(numbers), max(numbers), total, weight))
    least, greatest, sums, weights = (column(list(each)) for each in zip(*rows, strict=True))
    return [least, greatest, sums, last, weights]


def _total(add: Any, numbers: Iterable[Any]) -> float | int | None:
    """The sum of numbers, if the file can hold it."""
    try:
        total = add(numbers)
        if type(total) is int and not INT64_MIN <= total <= INT64_MAX:
            total = float(total)
    except OverflowError:
        return None
    return total if math.isfinite(total) else None


def combine(frames: list[Frame]) -> Frame:
    """The rollup of all rows of several, of one shape; where rows came at once, those of a later frame came later."""
    whole = sort_rows(concatenate(frames))
    times = whole.times
    if all(map(lt, times, islice(times, 1, None))):
        return whole
    columns = [list(values(each)) for each in whole.columns]
    orders = [whole.orders] * len(times) if isinstance(whole.orders, int) else whole.orders.tolist()
    keep: list[int] = []
    start = 0
    while start < len(times):
        stop = start + 1
        while stop < len(times) and times[stop] == times[start]:
            stop += 1
        keep.append(start)
        if stop - start > 1:
            _merge(columns, orders, start, stop)
        start = stop
    kept = [column([each[row] for row in keep]) for each in columns]
    starts = array("q", map(times.__getitem__, keep))
    return Frame(starts, starts, array("q", map(orders.__getitem__, keep)), kept)


def _merge(columns: list[list[Any]], orders: list[int], start: int, stop: int) -> None:
    """Put the buckets ``start`` to ``stop``, which are one, into the first of them."""
    lags = columns[LAG]
    newest = start
    for row in range(start + 1, stop):
        if (lags[row], orders[row]) >= (lags[newest], orders[newest]):
            newest = row
    for first in range(FIXED, len(columns), EACH):
        least, greatest, sums, last, weights = columns[first : first + EACH]
        last[start] = last[newest]
        rows = [row for row in range(start, stop) if weights[row]]
        if not rows:
            continue
        least[start] = min(map(least.__getitem__, rows))
        greatest[start] = max(map(greatest.__getitem__, rows))
        total = None
        if all(weights[row] > 0 for row in rows):
            total = _total(sum, map(sums.__getitem__, rows))
        if total is not None:
            sums[start], weights[start] = total, sum(map(weights.__getitem__, rows))
            continue
        mean: tuple[float, int] | None = None
        for row in rows:
            weight = weights[row]
            one = (float(sums[row]), -weight) if weight < 0 else (sums[row] / weight, weight)
            mean = one if mean is None else both_means(mean, one)
        assert mean is not None
        sums[start], weights[start] = mean[0], -mean[1]
    columns[COUNT][start] = sum(columns[COUNT][start:stop])
    lags[start], orders[start] = lags[newest], orders[newest]


def encode_rollup(frame: Frame) -> bytes:
    """The body of a rollup that has at least one bucket."""
    places: list[int] = []
    known: dict[tuple[int, int, bytes], int] = {}
    different: list[Column] = []
    for each in frame.columns:
        content = _pack(each.data) if isinstance(each.data, list) else each.data.tobytes()
        place = known.setdefault((each.kind, each.scale, content), len(known))
        if place == len(different):
            different.append(each)
        places.append(place)
    packed = _pack(places)
    return len(packed).to_bytes(2, "little") + packed + encode(Frame(frame.times, frame.times, frame.orders, different))


def decode_rollup(body: bytes, wanted: Sequence[int] | None = None, *, orders: bool = True) -> Frame:
    """The rollup of a body; only the columns with these indices, in this order (None: all).

    Raises :class:`DamagedChunk`.
    """
    start = 2 + int.from_bytes(body[:2], "little")
    try:
        places = _unpack_places(body[2:start])
        stored = places if wanted is None else [places[index] for index in wanted]
    except (msgspec.MsgspecError, IndexError) as error:
        raise DamagedChunk(str(error)) from error
    different = sorted(set(stored))
    frame = decode(body[start:], different, orders=orders)
    place = {number: at for at, number in enumerate(different)}
    return Frame(frame.times, frame.times, frame.orders, [frame.columns[place[number]] for number in stored])


def rolled_runs(body: bytes, metrics: list[int], aggregate: str, spans: Iterable[Span]) -> list[tuple[int, RolledRun]]:
    """What the aggregate needs of the shape's metrics with these indices, each with its index, of the buckets that
    begin in each of these spans.

    Raises :class:`DamagedChunk`.
    """
    wanted: list[int] = []
    for metric in metrics:
        first = FIXED + EACH * metric
        if aggregate == "count":
            wanted += (COUNT,)
        elif aggregate == "last":
            wanted += (first + LAST, LAG)
        else:
            wanted += (first + _OF[aggregate], first + WEIGHT)
    frame = decode_rollup(body, wanted, orders=aggregate == "last")
    times = frame.times
    cuts = [(bisect_left(times, start), bisect_left(times, end)) for start, end in spans]
    columns = iter(frame.columns)
    runs = []
    for metric in metrics:
        of = next(columns)
        other = None if aggregate == "count" else next(columns)
        weights, lags = (None, other) if aggregate == "last" else (other, None)
        runs += [(metric, RolledRun(times, frame.orders, of, weights, lags, lo, hi)) for lo, hi in cuts]
    return runs
