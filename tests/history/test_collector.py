from __future__ import annotations

from array import array

from hypothesis import given
from hypothesis import strategies as st

from gateway.history.collector import Collector, Row
from gateway.history.column import column
from gateway.history.runs import Run


def run_of(times: list[int], order: int | list[int], tag: str) -> Run:
    orders = order if isinstance(order, int) else array("q", order)
    return Run(array("q", times), orders, column([f"{tag}{row}" for row in range(len(times))]), 0, len(times))


@given(
    st.lists(st.lists(st.lists(st.integers(0, 30), min_size=1, max_size=8).map(sorted), max_size=4), max_size=5),
    st.integers(1, 60),
)
def test_the_earliest_rows(series: list[list[list[int]]], limit: int) -> None:
    """Of all runs the earliest rows come, sorted by time, series and order of arrival; more than that is told."""
    collector = Collector(limit)
    expected: list[tuple[int, int, int, int, Row]] = []
    for number, runs in enumerate(series):
        device = f"d{number}"
        collector.add(device, "m", [run_of(times, order, f"{order}-") for order, times in enumerate(runs)])
        for order, times in enumerate(runs):
            for row, time in enumerate(times):
                expected.append((time, number, order, row, (time, device, "m", f"{order}-{row}")))
    expected.sort(key=lambda found: found[:4])
    assert collector.rows(lambda: None) == [found[4] for found in expected[:limit]]
    assert collector.truncated == (len(expected) > limit)


def test_rows_of_two_runs_in_order_of_arrival() -> None:
    """Rows of one time from two runs whose rows came in turns are put in that order."""
    collector = Collector(100)
    collector.add("d", "m", [run_of([5, 5, 5], [1, 4, 5], "a"), run_of([5, 5], [2, 3], "b")])
    assert [row[3] for row in collector.rows(lambda: None)] == ["a0", "b0", "b1", "a1", "a2"]


def test_what_is_too_late_is_let_go() -> None:
    """With far more rows than the limit a horizon is set, and what lies behind it is not held."""
    collector = Collector(100)
    for number in range(50):
        collector.add(f"d{number:02}", "m", [run_of(list(range(number, 10_000, 50)), 0, "r")])
    assert collector.horizon is not None
    assert collector.horizon < 9_000
    rows = collector.rows(lambda: None)
    assert [row[0] for row in rows] == list(range(100))
    assert collector.truncated
