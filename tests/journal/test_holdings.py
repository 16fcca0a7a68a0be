"""Which segments a journal holds."""

from __future__ import annotations

from pathlib import Path

import pytest

from gateway.journal.bounds import Bounds
from gateway.journal.holdings import Holdings
from gateway.journal.reader import Damage
from gateway.journal.segment import Segment


def segment(base: int, end: int, before: int, size: int = 100) -> Segment:
    made = Segment(Path(f"/nowhere/{base}.seg"), base, 0, before, size)
    made.end, made.end_readings = end, before + end - base
    return made


@pytest.fixture
def holdings() -> Holdings:
    """Two segments of a run, one of a later run, and the one that is written, empty."""
    return Holdings([segment(10, 20, 5), segment(20, 30, 15), segment(100, 110, 25), segment(200, 200, 35)])


def test_offsets_lead_past_gaps(holdings: Holdings) -> None:
    """From any offset to the next that a segment speaks for."""
    expected = {0: 10, 10: 10, 19: 19, 20: 20, 29: 29, 30: 100, 99: 100, 109: 109, 110: None, 200: None}
    assert {offset: holdings.next_held(offset) for offset in expected} == expected


def test_readings_below_an_offset_are_at_least_known(holdings: Holdings) -> None:
    """At the ends of segments and in gaps the count is exact, inside a segment it is that at its base."""
    expected = {0: 5, 10: 5, 15: 5, 20: 15, 30: 25, 50: 25, 105: 25, 110: 35, 300: 35}
    assert {offset: holdings.readings_below(offset) for offset in expected} == expected


def test_the_newest_never_goes(holdings: Holdings) -> None:
    """Neither cursors that have passed nor bounds take the segment that is written."""
    assert [holdings.passed(floor) for floor in (0, 19, 20, 30, 109, 110, 1000)] == [0, 0, 1, 2, 2, 3, 3]
    assert [holdings.covering(need) for need in (0, 1, 100, 101, 10_000)] == [0, 1, 1, 2, 3]
    assert [gone.base for gone in holdings.take_oldest(2)] == [10, 20]
    assert (holdings.oldest.base, len(holdings), holdings.bytes) == (100, 2, 200)


def test_damage_is_noted_once(holdings: Holdings) -> None:
    """The same place counts once, the same file once, and what is gone not at all."""
    path = holdings.oldest.path
    assert holdings.note(Damage(path, 70, 12, 14)) == (True, True)
    assert holdings.note(Damage(path, 70, 12, 14)) == (False, False)
    assert holdings.note(Damage(path, 90, 15, 16)) == (True, False)
    assert holdings.note(Damage(Path("/nowhere/gone.seg"), 70, 1, 2)) == (False, False)


def test_the_bounds_are_told_in_words() -> None:
    """What stands in the way is named, the disk's failure first; how much must go is the larger shortage."""
    bounds = Bounds(1000, 500)
    bounds.free = 600
    bounds.judge(999)
    assert bounds.reason == ""
    assert bounds.need(999, look_at_free=True) <= 0
    bounds.judge(1000)
    assert "GATEWAY_JOURNAL__MAX_BYTES" in bounds.reason
    bounds.free = 100
    assert bounds.need(1000, look_at_free=True) == 400
    assert bounds.need(1000, look_at_free=False) == 1
    bounds.judge(0)
    assert "GATEWAY_JOURNAL__KEEP_FREE_BYTES" in bounds.reason
    bounds.failure = "Input/output error"
    assert bounds.reason == "the disk fails: Input/output error"
