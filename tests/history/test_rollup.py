from __future__ import annotations

import math
from array import array
from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.history.codec import DamagedChunk
from gateway.history.column import Column, column, values
from gateway.history.downsample import AGGREGATES, Buckets
from gateway.history.frame import Frame, cut_frame, sort_rows
from gateway.history.rollup import combine, decode_rollup, encode_rollup, roll, rolled_runs
from gateway.reading import Value
from tests.history.model import exact, reduce

GREAT = 1.7976931348623157e308
FLOATS = st.floats(-1e9, 1e9).map(lambda value: round(value, 2))
KINDS: list[st.SearchStrategy[Value]] = [
    FLOATS,
    st.floats(allow_nan=False, allow_infinity=False),
    st.sampled_from([GREAT, -GREAT, 1.0]),
    st.integers(-9, 9),
    st.sampled_from([(1 << 63) - 1, -(1 << 63), (1 << 62), 0]),
    st.booleans(),
    st.sampled_from(["on", "off"]),
    st.one_of(FLOATS, st.booleans(), st.integers(), st.sampled_from(["x", "y"])).filter(
        lambda value: type(value) is not int or -(1 << 63) <= value < 1 << 63
    ),
]


@st.composite
def parts(draw: st.DrawFn) -> list[Frame]:
    """Frames of one shape of two metrics, each sorted by time, in the order in which they came."""
    kinds = [draw(st.sampled_from(KINDS)) for _ in range(2)]
    found = []
    for order in range(draw(st.integers(1, 3))):
        count = draw(st.integers(1, 12))
        times = array("q", draw(st.lists(st.integers(0, 90), min_size=count, max_size=count)))
        columns = [column(draw(st.lists(kind, min_size=count, max_size=count))) for kind in kinds]
        found.append(sort_rows(Frame(times, times, order, columns)))
    return found


def rows_of(frames: list[Frame], metric: int) -> list[tuple[int, Value]]:
    """Times and values by time, then as they came."""
    rows = [row for frame in frames for row in zip(frame.times, values(frame.columns[metric]), strict=True)]
    return sorted(rows, key=lambda row: row[0])


@settings(max_examples=200, deadline=None)
@given(
    parts(), st.sampled_from([10, 20, 50]), st.sampled_from(AGGREGATES), st.tuples(st.integers(0, 9), st.integers(0, 9))
)
def test_a_rollup_answers_as_its_rows_do(
    frames: list[Frame], step: int, aggregate: str, bounds: tuple[int, int]
) -> None:
    """Rolled in parts, combined, kept and read back: each aggregate of each step is that of the rows."""
    start, end = sorted(bound * 10 for bound in bounds)
    whole = combine([roll(frame, 10) for frame in frames])
    if len(frames) > 1:
        assert_alike(whole, combine([combine([roll(frame, 10) for frame in frames[:-1]]), roll(frames[-1], 10)]))
    body = encode_rollup(whole)
    assert_alike(decode_rollup(body), whole)
    for metric, run in rolled_runs(body, [0, 1], aggregate, [(start, end)]):
        buckets = Buckets(step, aggregate)
        buckets.add(run)
        buckets.seal()
        found = buckets.run()
        right: dict[int, list[Value]] = {}
        for time, value in rows_of(frames, metric):
            if start <= time < end:
                right.setdefault(time - time % step, []).append(value)
        expected = {time: reduced for time, each in right.items() if (reduced := right_of(each, aggregate)) is not None}
        assert list(found.times) == sorted(expected)
        for time, value in zip(found.times, values(found.column), strict=True):
            kind, wanted = exact(expected[time])
            if aggregate in ("mean", "min", "max"):
                size = max(abs(float(one)) for one in right[time] if type(one) is not str)
                assert math.isclose(value, wanted, rel_tol=1e-9, abs_tol=size * 1e-12)  # type: ignore[arg-type]
            else:
                assert exact(value) == (kind, wanted)


def right_of(values_of: list[Value], aggregate: str) -> Value | None:
    """As the model's, but for means of numbers whose sum no float holds."""
    numbers = [Fraction(value) for value in values_of if type(value) is not str]
    if aggregate == "mean" and numbers:
        return float(sum(numbers) / len(numbers))
    return reduce(values_of, aggregate)


def assert_alike(one: Frame, other: Frame) -> None:
    assert list(one.times) == list(other.times)
    for a, b in zip(one.columns, other.columns, strict=True):
        for x, y in zip(values(a), values(b), strict=True):
            assert exact(x)[0] == exact(y)[0]
            assert x == y or math.isclose(x, y, rel_tol=1e-9, abs_tol=1e-3) or abs(x) > 1e290  # type: ignore[arg-type]


def test_columns_that_are_alike_are_kept_once() -> None:
    """Where a bucket has one row its least, greatest, sum and last are the same, and cost nothing more."""
    times = array("q", range(0, 3600, 10))
    noise = array("d", [math.sin(time) for time in times])
    one = encode_rollup(roll(Frame(times, times, 0, [Column(0, noise)]), 10))
    both = encode_rollup(roll(Frame(times, times, 0, [Column(0, noise), Column(0, noise)]), 10))
    assert len(one) < 8.5 * len(times)
    assert len(both) < len(one) + 30


def test_single_metrics_are_read_alone() -> None:
    """Of a wide rollup the columns asked for are unpacked, and no orders but for ``last``."""
    times = array("q", range(100))
    frame = Frame(
        times, times, array("q", range(7, 107)), [column([float(n * time) for time in times]) for n in range(30)]
    )
    body = encode_rollup(roll(frame, 10))
    ((_, run),) = rolled_runs(body, [29], "max", [(0, 100)])
    assert (list(run.column.data)[-1], run.orders, run.lags) == (29 * 99, 0, None)
    ((metric, run),) = rolled_runs(body, [3], "last", [(20, 50)])
    assert (metric, run.lo, run.hi, list(run.orders)[:2]) == (3, 2, 5, [16, 26])  # type: ignore[arg-type]


@pytest.mark.parametrize("change", [b"\x00", b"\x05\x00\x91\xc1", b"\xff\xff"])
def test_what_is_no_rollup_is_told(change: bytes) -> None:
    """Bytes that are no rollup, or fewer columns than asked for, are damage and nothing else."""
    times = array("q", range(10))
    body = encode_rollup(roll(Frame(times, times, 0, [column([1] * 10)]), 10))
    for nothing in (b"", change):
        with pytest.raises(DamagedChunk):
            decode_rollup(nothing)
    with pytest.raises(DamagedChunk):
        rolled_runs(change + body, [0], "mean", [(0, 10)])
    with pytest.raises(DamagedChunk):
        rolled_runs(body, [1], "mean", [(0, 10)])
    assert len(cut_frame(decode_rollup(body), 0, 1)) == 1
