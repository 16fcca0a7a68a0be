"""The states that a device has had."""

from gateway.past import PAST, UNKNOWN, Change, broken_off, noted, stretches


def many(count):
    """So many changes, at 10, 20, .."""
    past = ()
    for number in range(1, count + 1):
        past = noted(past, Change(10 * number, ("offline", "online")[number % 2]), 0)
    return past


def test_the_last_changes_are_kept():
    """At most so many, the oldest goes."""
    past = many(PAST + 5)
    assert len(past) == PAST
    assert (past[0].since, past[-1].since) == (60, 10 * (PAST + 5))


def test_a_change_that_is_told_again_is_one():
    """A journal that is replayed may tell what the snapshot has."""
    past = many(3)
    for change in past:
        assert noted(past, change, 99) == past


def test_nothing_is_claimed_of_a_gateway_that_was_away():
    """What it found has lasted until the device was heard, and holds again from when that is known."""
    past = broken_off(many(3), 35)
    assert past[-1] == Change(35, UNKNOWN)
    assert broken_off(past, 40) == past
    assert [(change.since, until) for change, until in stretches(past, 0, 99)] == [(10, 20), (20, 30), (30, 35)]
    again = noted(past, Change(30, "online"), 70)
    assert [(change.since, until) for change, until in stretches(again, 40, 99)] == [(70, None)]
    assert noted(past, Change(50, "offline"), 70)[-1] == Change(50, "offline")
    assert broken_off(many(1), 5)[-1].since == 10
    assert broken_off((), 5) == ()


def test_stretches_are_those_that_overlap():
    """Of those that ended before, or began later, there are none."""
    past = many(4)
    assert [change.since for change, _ in stretches(past, 20, 30)] == [20, 30]
    assert [change.since for change, _ in stretches(past, 0, 9)] == []
    assert [change.since for change, _ in stretches(past, 99, 100)] == [40]
