from __future__ import annotations

import sys
from array import array

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.history import downsample
from gateway.history.column import column, values
from gateway.history.downsample import AGGREGATES, Buckets
from gateway.history.runs import Run
from gateway.reading import Value
from tests.history.model import reduce

VALUES = st.one_of(
    st.floats(-1e6, 1e6).map(lambda value: round(value, 2)),
    st.integers(-100, 100),
    st.booleans(),
    st.sampled_from("ab"),
)


def run_of(rows: list[tuple[int, Value]], order: int = 0) -> Run:
    return Run(array("q", [time for time, _ in rows]), order, column([value for _, value in rows]), 0, len(rows))


def rows_of(buckets: Buckets) -> list[tuple[int, Value]]:
    buckets.seal()
    run = buckets.run()
    return list(zip(run.times, values(run.column), strict=True))


@pytest.mark.parametrize("agg", AGGREGATES)
@given(data=st.data())
def test_same_as_the_model(agg: str, data: st.DataObject) -> None:
    """Runs of one series, which may overlap, give the buckets of all their rows."""
    step = data.draw(st.integers(1, 12))
    parts = data.draw(st.lists(st.lists(st.tuples(st.integers(0, 50), VALUES), min_size=1), min_size=1, max_size=4))
    buckets = Buckets(step, agg)
    rows: list[tuple[int, int, Value]] = []
    for order, part in enumerate(parts):
        part.sort(key=lambda row: row[0])
        buckets.add(run_of(part, order))
        rows += [(time, order, value) for time, value in part]
    rows.sort(key=lambda row: row[:2])
    groups: dict[int, list[Value]] = {}
    for time, _, value in rows:
        groups.setdefault(time - time % step, []).append(value)
    expected = [(time, reduce(group, agg)) for time, group in groups.items()]
    expected = [row for row in expected if row[1] is not None]
    found = rows_of(buckets)
    assert [time for time, _ in found] == [time for time, _ in expected]
    for (_, value), (_, right) in zip(found, expected, strict=True):
        assert value == (pytest.approx(right, rel=1e-9, abs=1e-9) if agg == "mean" else right)


def test_means_of_great_numbers_are_finite() -> None:
    """The mean of floats whose sum is beyond the greatest float is right, within a run and between two."""
    great: list[tuple[int, Value]] = [(0, 1.7e308), (1, 1.6e308)]
    buckets = Buckets(10, "mean")
    buckets.add(run_of(great))
    buckets.add(run_of(great))
    assert rows_of(buckets) == [(0, pytest.approx(1.65e308))]


def test_times_before_the_epoch() -> None:
    """Buckets are aligned downwards on both sides of the epoch."""
    buckets = Buckets(10, "count")
    buckets.add(run_of([(-11, 1), (-10, 1), (-1, 1), (0, 1)]))
    assert rows_of(buckets) == [(-20, 1), (-10, 2), (0, 1)]


def test_strings_alone_have_no_mean() -> None:
    """A bucket of strings has no row of mean, one of last and count."""
    for agg, expected in (("mean", []), ("max", []), ("last", [(0, "b")]), ("count", [(0, 2)])):
        buckets = Buckets(10, agg)
        buckets.add(run_of([(0, "a"), (1, "b")]))
        assert rows_of(buckets) == expected


def test_bad_questions() -> None:
    """A step below one and an unknown aggregate are refused."""
    with pytest.raises(ValueError, match="step"):
        Buckets(0, "mean")
    with pytest.raises(ValueError, match="median"):
        Buckets(1, "median")


@pytest.mark.parametrize("count", [1, 2, 3, 7, 59, 1000])
@pytest.mark.parametrize("value", [sys.float_info.max, -sys.float_info.max])
def test_the_mean_of_the_greatest_numbers(value: float, count: int) -> None:
    """However many there are, their mean is one of them and no overflow; alternating signs meet in the middle."""
    assert downsample.mean_of(column([value] * count), 0, count) == (value, count)
    both = column([value, -value] * count)
    mean, found = downsample.mean_of(both, 0, 2 * count)
    assert (abs(mean) <= sys.float_info.max, found) == (True, 2 * count)
