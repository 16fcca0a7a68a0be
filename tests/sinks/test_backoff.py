"""Delays between tries."""

from __future__ import annotations

import random

from hypothesis import given
from hypothesis import strategies as st

from gateway.sinks.backoff import Backoff


@given(seed=st.integers(), asked=st.lists(st.none() | st.floats(-1, 1e6), max_size=30))
def test_delays_stay_within_their_bounds(seed: int, asked: list[float | None]) -> None:
    """Each delay is at least the least, at most the most, and not before what the far side asked for, within reason."""
    backoff = Backoff(0.5, 30, 600, random.Random(seed))
    for wish in asked:
        delay = backoff.next(wish)
        if wish is not None and wish > 0:
            assert max(0.5, min(wish, 600)) <= delay <= max(0.5, min(wish, 600)) + 0.5
        else:
            assert 0.5 <= delay <= 30


def test_delays_grow_and_start_over() -> None:
    """Without a success the delays reach the bound's neighbourhood; a success makes them short again."""
    backoff = Backoff(0.5, 30, 600, random.Random(1))
    delays = [backoff.next() for _ in range(50)]
    assert delays[0] <= 1.5
    assert max(delays) > 20
    backoff.reset()
    assert backoff.next() <= 1.5


def test_two_who_failed_together_do_not_return_together() -> None:
    """The jitter spreads also those who were told the same Retry-After."""
    first, second = (Backoff(0.5, 30, 600, random.Random(seed)) for seed in (1, 2))
    assert first.next(5.0) != second.next(5.0)
