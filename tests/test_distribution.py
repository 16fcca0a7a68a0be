"""Counts of values by bounds."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, Histogram

from gateway.distribution import LATENCIES_S, Distribution

values = st.one_of(st.sampled_from(LATENCIES_S), st.floats(0, 1e5))


@given(st.lists(values, max_size=50))
def test_it_counts_as_prometheus_does(found: list[float]) -> None:
    """Buckets, count and sum are those of prometheus-client's histogram."""
    histogram = Histogram("x", "x", registry=CollectorRegistry(), buckets=LATENCIES_S)
    ours = Distribution()
    for value in found:
        histogram.observe(value)
        ours.observe(value)
    samples = [sample for family in histogram.collect() for sample in family.samples]
    theirs = [(float(s.labels["le"]), s.value) for s in samples if s.name == "x_bucket"]
    assert ours.buckets() == theirs
    assert ours.count == next(s.value for s in samples if s.name == "x_count")
    assert ours.total == pytest.approx(next(s.value for s in samples if s.name == "x_sum"))


def test_weights_and_clocks_that_were_set() -> None:
    """A value may count several times, and one below 0 counts as 0."""
    found = Distribution((1.0, 2.0))
    found.observe(1.5, 10)
    found.observe(-3.0)
    assert found.buckets() == [(1.0, 1), (2.0, 11), (math.inf, 11)]
    assert (found.count, found.total) == (11, 15.0)
