"""The limiters against models, with clocks that jump."""

from __future__ import annotations

import math
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.limit import Repeated, Repeats, SlidingWindow, TokenBucket


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


# Eighths of seconds are exact in floats: the model is exact, too.
steps = st.integers(0, 400).map(lambda n: n / 8)
jumps = st.one_of(steps, steps, steps, st.integers(-80_000, 80_000).map(lambda n: n / 8))


@given(st.integers(1, 6), st.integers(1, 200).map(lambda n: n / 8), st.lists(steps, max_size=60))
def test_sliding_window_allows_what_the_model_allows(most: int, window: float, waits: list[float]) -> None:
    """A request passes exactly where fewer than the limit passed in the window before it, its far edge included."""
    clock = Clock()
    limiter = SlidingWindow(most, window, clock=clock)
    allowed: list[float] = []
    for wait in waits:
        clock.now += wait
        expected = sum(clock.now - at <= window for at in allowed) < most
        assert limiter.allow() is expected
        if expected:
            allowed.append(clock.now)


@given(st.integers(1, 4), st.integers(1, 100).map(lambda n: n / 8), st.lists(jumps, max_size=60))
def test_sliding_window_survives_any_clock(most: int, window: float, waits: list[float]) -> None:
    """A clock that goes back grants nothing more than the limit, and blocks for no longer than one window."""
    clock = Clock()
    limiter = SlidingWindow(most, window, clock=clock)
    passed: list[float] = []  # by a clock that never goes back
    steady = 0.0
    for wait in waits:
        clock.now += wait
        steady += max(0.0, wait)
        if limiter.allow():
            passed.append(steady)
            assert sum(steady - at <= window for at in passed) <= most
    clock.now += window + 0.125
    assert limiter.allow()


def test_sliding_window_of_the_guide() -> None:
    """Ten requests a minute: the eleventh fails, and passes once the first is more than a minute old."""
    clock = Clock()
    limiter = SlidingWindow(10, 60.0, clock=clock)
    assert [limiter.allow() for _ in range(11)] == [True] * 10 + [False]
    clock.now += 60.0
    assert not limiter.allow()
    clock.now += 0.001
    assert limiter.allow()


class Model:
    """A token bucket in exact arithmetic."""

    def __init__(self, rate: int, burst: int, now: float) -> None:
        self.rate, self.burst = Fraction(rate), Fraction(burst)
        self.tokens = self.burst
        self.at = Fraction(now)

    def take(self, n: int, now: float) -> Fraction | float:
        elapsed = Fraction(now) - self.at
        self.at = Fraction(now)
        if elapsed > 0:
            self.tokens = min(self.burst, self.tokens + elapsed * self.rate)
        if n > self.burst:
            return math.inf
        if self.tokens >= n:
            self.tokens -= n
            return 0.0
        return (n - self.tokens) / self.rate


@given(st.integers(1, 50), st.integers(1, 20), st.lists(st.tuples(jumps, st.integers(0, 25)), max_size=60))
def test_token_bucket_does_as_the_model_does(rate: int, burst: int, takes: list[tuple[float, int]]) -> None:
    """Every take and every wait is the model's, whichever way the clock jumps."""
    clock = Clock()
    bucket = TokenBucket(rate, burst, clock=clock)
    model = Model(rate, burst, clock.now)
    for wait, n in takes:
        clock.now += wait
        assert bucket.take(n) == pytest.approx(float(model.take(n, clock.now)), abs=1e-6)
        assert 0.0 <= bucket.tokens <= burst


@given(st.floats(0.01, 1e4), st.floats(1.0, 1e3), st.lists(st.floats(0.0, 2.0), max_size=20), st.floats(0.001, 1.0))
def test_the_wait_that_is_named_is_enough(rate: float, burst: float, waits: list[float], share: float) -> None:
    """A refused take costs nothing, and passes after exactly the seconds it was told."""
    clock = Clock()
    bucket = TokenBucket(rate, burst, clock=clock)
    for wait in waits:
        clock.now += wait
        bucket.take(burst * share)
    n = burst * share
    needed = bucket.take(n)
    if needed:
        assert bucket.take(n) == pytest.approx(needed)
        clock.now += needed
        assert bucket.take(n) == 0.0


def test_token_bucket_starts_full_and_never_holds_more() -> None:
    """A new bucket gives its burst at once, and after a long time no more than that."""
    clock = Clock()
    bucket = TokenBucket(10, 3, clock=clock)
    assert [bucket.take() for _ in range(4)] == [0.0, 0.0, 0.0, pytest.approx(0.1)]
    clock.now += 3600
    assert bucket.tokens == 3
    assert bucket.take(3) == 0.0
    assert bucket.take(4) == math.inf


@pytest.mark.parametrize(("rate", "burst"), [(0, 1), (-1, 1), (1, 0), (math.inf, 1), (1, math.nan)])
def test_token_bucket_needs_positive_numbers(rate: float, burst: float) -> None:
    """A rate or burst that is no positive number is refused."""
    with pytest.raises(ValueError, match="positive"):
        TokenBucket(rate, burst)


def test_bad_arguments_are_refused() -> None:
    """So are a window without room or length, and a negative take."""
    with pytest.raises(ValueError, match="at least 1"):
        SlidingWindow(0, 1.0)
    with pytest.raises(ValueError, match="positive"):
        SlidingWindow(1, 0.0)
    with pytest.raises(ValueError, match="negative"):
        TokenBucket(1, 1).take(-1)


def test_the_first_are_said_and_then_a_count() -> None:
    """Of a thousand events a second three are said at once and the others as one count a period, the last's words."""
    clock = Clock()
    repeats = Repeats(clock=clock)
    said = 0
    counts: list[Repeated] = []
    for second in range(30):
        said += sum(repeats.note("refused", "pump-1", f"bad {n}") for n in range(1_000))
        clock.now = 1001.0 + second
        counts += repeats.due()
    assert said == 3
    assert counts == [
        Repeated("refused", "pump-1", 9_997, 10.0, "bad 999"),
        Repeated("refused", "pump-1", 10_000, 10.0, "bad 999"),
        Repeated("refused", "pump-1", 10_000, 10.0, "bad 999"),
    ]


def test_one_that_was_quiet_for_a_period_is_heard_again() -> None:
    """After a period without an event the next ones are said at once; others are said meanwhile."""
    clock = Clock()
    repeats = Repeats(clock=clock)
    assert [repeats.note("refused", "a") for _ in range(5)] == [True] * 3 + [False] * 2
    assert repeats.note("refused", "b")
    assert repeats.note("closed", "a")
    clock.now = 1009.0
    assert repeats.due() == []
    clock.now = 1011.0
    assert repeats.due() == [Repeated("refused", "a", 2, 11.0, "")]
    assert not repeats.note("refused", "a", count=7)
    assert repeats.note("refused", "b")
    clock.now = 1021.0
    assert repeats.due() == [Repeated("refused", "a", 7, 10.0, "")]
    clock.now = 1031.0
    assert repeats.due() == []
    assert repeats.note("refused", "a")
    clock.now = 1041.0
    assert repeats.due() == []


@given(
    st.lists(
        st.lists(st.tuples(st.sampled_from("xyz"), st.integers(0, 30), st.integers(1, 3)), max_size=200), max_size=6
    )
)
def test_every_event_is_said_or_counted(periods: list[list[tuple[str, int, int]]]) -> None:
    """Whatever comes, each event is said or part of one count, and a period has a bounded number of lines a kind."""
    clock = Clock()
    repeats = Repeats(first=2, lines=5, keys=8, clock=clock)
    noted = dict.fromkeys("xyz", 0)
    shown = dict.fromkeys("xyz", 0)
    for period in [*periods, [], []]:
        lines = dict.fromkeys("xyz", 0)
        for kind, who, count in period:
            noted[kind] += count
            if repeats.note(kind, f"d{who}", "w", count):
                shown[kind] += count
                lines[kind] += 1
        clock.now += 10.0
        for repeated in repeats.due():
            assert repeated.count > 0
            assert repeated.words == "w"
            shown[repeated.kind] += repeated.count
            lines[repeated.kind] += 1
        assert all(count <= 11 for count in lines.values())
    assert shown == noted
    assert repeats._known == {}
    assert repeats._kinds == {}


def test_many_events_without_words() -> None:
    """What nobody has words for is counted as well, however many say it."""
    now = 0.0
    repeats = Repeats(lines=2, clock=lambda: now)
    assert [repeats.note("online", f"device-{number}") for number in range(5)] == [True, True, False, False, False]
    now = 10.0
    assert [(told.who, told.count, told.words) for told in repeats.due()] == [("", 3, "")]
