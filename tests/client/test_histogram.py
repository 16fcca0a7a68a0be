"""The histogram of durations, and the back-off."""

from __future__ import annotations

import math
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.client.backoff import Backoff
from gateway.client.histogram import Histogram


@given(st.lists(st.floats(0, 1e6), min_size=1, max_size=200), st.integers(0, 100))
def test_percentiles_are_within_three_percent(durations: list[float], percent: int) -> None:
    """A percentile is never below the true one, and at most a bucket above."""
    histogram = Histogram()
    for duration in durations:
        histogram.record(duration)
    rank = max(1, math.ceil(len(durations) * percent / 100))
    true = sorted(durations)[rank - 1]
    # A microsecond is the narrowest bucket.
    assert true - 1e-6 <= histogram.percentile(percent) <= true * 1.032 + 2e-6
    assert histogram.max == max(durations)
    assert histogram.count == len(durations)


def test_known_durations() -> None:
    """A hundred durations of 1 to 100 ms have the percentiles that one expects."""
    histogram = Histogram()
    for ms in range(1, 101):
        histogram.record(ms / 1000)
    summary = histogram.summary()
    assert summary["count"] == 100
    assert summary["p50"] == pytest.approx(50, rel=0.04)
    assert summary["p99"] == pytest.approx(99, rel=0.04)
    assert summary["max"] == 100
    assert summary["mean"] == pytest.approx(50.5)
    assert Histogram().percentile(99) == 0.0


def test_strange_durations_are_counted() -> None:
    """Negative and endless durations end in the first and last bucket."""
    histogram = Histogram()
    histogram.record(-1.0)
    histogram.record(1e9)
    assert histogram.count == 2
    assert histogram.percentile(1) < 1e-5


def test_histograms_add_up() -> None:
    """Merged counts are those of all."""
    one, two = Histogram(), Histogram()
    one.record(0.001)
    two.record(0.1)
    one.merge(two)
    assert (one.count, one.max) == (2, 0.1)
    assert one.percentile(50) == pytest.approx(0.001, rel=0.04)


def test_the_wait_doubles_up_to_the_cap_with_full_jitter() -> None:
    """Each wait is uniform below a ceiling that doubles; what was asked for is kept below it; reset starts over."""

    class Full(random.Random):
        def random(self) -> float:
            return 1.0

    backoff = Backoff(0.5, 3.0, Full())
    assert [backoff.next() for _ in range(5)] == [0.5, 1.0, 2.0, 3.0, 3.0]
    backoff.reset()
    assert backoff.next(at_least=10) == 10.5
    for _ in range(2000):
        backoff.next()
    assert backoff.next() == 3.0
    waits = [Backoff(1.0, 30.0, random.Random(seed)).next() for seed in range(200)]
    assert min(waits) < 0.1
    assert max(waits) > 0.9
