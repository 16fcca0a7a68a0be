"""Times of readings: assigned, flagged, corrected, refused; and what they tell of a device's clock."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.clock import Clock, ClockRules
from gateway.errors import Refusal
from gateway.reading import ASSIGNED, FUTURE, OLD

S = 1_000_000_000
NOW = 1_764_000_000 * S
DAY = 86_400 * S
RULES = ClockRules()


def test_a_time_near_ours_is_kept():
    """Within the limits nothing is changed, flagged or counted."""
    clock = Clock()
    assert clock.stamp(NOW - DAY + S, NOW, RULES) == (NOW - DAY + S, 0)
    assert clock.stamp(NOW + 59 * S, NOW, RULES) == (NOW + 59 * S, 0)
    assert (clock.old, clock.future) == (0, 0)


def test_old_and_future_are_flagged_and_counted():
    """By default a time beyond the limits is kept, with its flag."""
    clock = Clock()
    assert clock.stamp(NOW - DAY - S, NOW, RULES) == (NOW - DAY - S, OLD)
    assert clock.stamp(NOW + 61 * S, NOW, RULES) == (NOW + 61 * S, FUTURE)
    assert clock.stamp(0, NOW, RULES) == (0, OLD)
    assert (clock.old, clock.future) == (2, 1)


def test_corrected_to_the_receipt():
    """A corrected time is that of receipt, and says so beside what was wrong."""
    clock = Clock()
    rules = ClockRules(old="correct", future="correct", old_after_s=10, future_after_s=1)
    assert clock.stamp(NOW - 11 * S, NOW, rules) == (NOW, ASSIGNED | OLD)
    assert clock.stamp(NOW + 2 * S, NOW, rules) == (NOW + 1, ASSIGNED | FUTURE)
    assert clock.stamp(NOW - 9 * S, NOW, rules) == (NOW - 9 * S, 0)


def test_refused_in_words():
    """A refused time says by how much, and is counted."""
    clock = Clock()
    rules = ClockRules(old="refuse", future="refuse")
    with pytest.raises(Refusal, match="86401 s before") as old:
        clock.stamp(NOW - DAY - S, NOW, rules)
    assert old.value.code == "bad_time"
    with pytest.raises(Refusal, match="3600 s after"):
        clock.stamp(NOW + 3600 * S, NOW, rules)
    assert (clock.old, clock.future) == (1, 1)


@given(st.lists(st.one_of(st.integers(-DAY // 2, DAY // 2), st.integers(-NOW, -NOW + DAY)), max_size=20))
def test_assigned_times_strictly_increase_whatever_our_clock_does(jumps):
    """No two readings without a time share one, also when the gateway's clock jumps by hours or was not set."""
    clock = Clock()
    times = [clock.stamp(-1, NOW + jump, RULES)[0] for jump in jumps]
    assert times == sorted(set(times))


def test_our_clock_was_ahead():
    """Times of receipt that would lie in the future are flagged and counted; beyond a day they begin anew."""
    clock = Clock(last=NOW + DAY // 2)
    assert clock.stamp(-1, NOW, RULES) == (NOW + DAY // 2 + 1, ASSIGNED | FUTURE)
    assert clock.future == 1
    clock = Clock(last=NOW + 3650 * DAY)
    assert clock.stamp(-1, NOW, RULES) == (NOW, ASSIGNED)
    assert clock.stamp(-1, NOW, RULES) == (NOW + 1, ASSIGNED)
    assert clock.future == 0


def test_our_clock_was_not_set():
    """A start in 1970 goes on behind the last time: nothing is reordered, and the flag says that it is not now."""
    clock = Clock(last=NOW)
    assert clock.stamp(-1, 5 * S, RULES) == (NOW + 1, ASSIGNED | FUTURE)
    assert clock.stamp(-1, NOW + DAY, RULES) == (NOW + DAY, ASSIGNED)


def test_skew_is_the_least_delay():
    """A backlog does not hide what one reading sent at once tells; without a time nothing is known."""
    clock = Clock()
    assert clock.skew_ms is None
    clock.stamp(-1, NOW, RULES)
    assert clock.skew_ms is None
    for age in (3600, 1800, 30):
        clock.stamp(NOW - (age + 5) * S, NOW, RULES)
    clock.stamp(NOW - 5 * S, NOW, RULES)
    assert clock.skew_ms == -5000
    ahead = Clock()
    ahead.stamp(NOW + 7200 * S, NOW, RULES)
    assert ahead.skew_ms == 7_200_000


def test_skew_forgets():
    """A clock that was set right is seen as right ten minutes later; so is one after a jump of ours."""
    clock = Clock()
    clock.stamp(NOW + 3600 * S, NOW, RULES)
    for minute in range(1, 12):
        now = NOW + minute * 60 * S
        clock.stamp(now - S, now, RULES)
    assert clock.skew_ms == -1000
    clock.stamp(NOW - 30 * DAY, NOW - 30 * DAY, RULES)
    assert clock.skew_ms == 0
