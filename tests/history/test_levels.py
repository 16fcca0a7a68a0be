from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from gateway.history.levels import HOURS, LENGTH, MINUTES, RAW, Segment, fitting, parted, plan, whole_hours

SECOND, MINUTE, HOUR = 10**9, LENGTH[MINUTES], LENGTH[HOURS]
NEVER = (-(1 << 63),) * 3


def test_without_a_step_rows_are_as_they_are() -> None:
    """A question for rows takes readings alone, and one of no time nothing."""
    assert plan(5, 10 * HOUR, None, (7 * HOUR, 0, 0)) == [Segment(RAW, 5, 10 * HOUR)]
    assert plan(5, 5, None, NEVER) == plan(6, 5, 7, NEVER) == []


def test_the_coarsest_level_answers_between_the_edges() -> None:
    """Hours within minutes within readings, and nothing coarser than what the step is a multiple of."""
    start, end = HOUR - MINUTE - 1, 5 * HOUR + MINUTE + 7
    assert plan(start, end, 2 * HOUR, NEVER) == [
        Segment(RAW, start, HOUR - MINUTE),
        Segment(MINUTES, HOUR - MINUTE, HOUR),
        Segment(HOURS, HOUR, 5 * HOUR),
        Segment(MINUTES, 5 * HOUR, 5 * HOUR + MINUTE),
        Segment(RAW, 5 * HOUR + MINUTE, end),
    ]
    assert plan(0, HOUR, 90 * MINUTE, NEVER) == [Segment(MINUTES, 0, HOUR)]
    assert plan(0, HOUR, MINUTE + 1, NEVER) == [Segment(RAW, 0, HOUR)]
    assert plan(1, MINUTE + 1, MINUTE, NEVER) == [Segment(RAW, 1, MINUTE + 1)]
    assert plan(1, HOUR + 1, HOUR, NEVER) == [
        Segment(RAW, 1, MINUTE),
        Segment(MINUTES, MINUTE, HOUR),
        Segment(RAW, HOUR, HOUR + 1),
    ]


def test_what_is_not_kept_any_more_comes_from_a_coarser_level() -> None:
    """Before the time up to which a level is gone the next one answers, from where its bucket begins, and says so."""
    gone = (4 * HOUR, 2 * HOUR, 0)
    assert plan(HOUR + 5, 5 * HOUR, 7, gone) == [
        Segment(HOURS, HOUR, 2 * HOUR, False),
        Segment(MINUTES, 2 * HOUR, 4 * HOUR, False),
        Segment(RAW, 4 * HOUR, 5 * HOUR),
    ]
    assert plan(HOUR + 5, HOUR + 9, HOUR, gone) == [Segment(HOURS, HOUR, HOUR + 9, False)]
    assert plan(0, 5 * HOUR, HOUR, gone) == [Segment(HOURS, 0, 5 * HOUR)]
    assert plan(3 * HOUR, 4 * HOUR + MINUTE, MINUTE, gone) == [Segment(MINUTES, 3 * HOUR, 4 * HOUR + MINUTE)]


def test_a_step_that_divides_minutes() -> None:
    """One of many minutes is answered from minutes, but where one of its ends lies within a minute."""
    step = 10 * MINUTE + 30 * SECOND
    assert plan(1, HOUR + 1, step, NEVER) == [
        Segment(RAW, 1, MINUTE),
        (minutes := Segment(MINUTES, MINUTE, HOUR, step=step)),
        Segment(RAW, HOUR, HOUR + 1),
    ]
    divided = [(at * MINUTE, (at + 1) * MINUTE) for at in (10, 31, 52)]
    between = [(lo * MINUTE, hi * MINUTE) for lo, hi in ((1, 10), (11, 31), (32, 52), (53, 60))]
    assert parted(minutes, -HOUR, 9 * HOUR) == (between, divided)
    assert parted(minutes, 10 * MINUTE, 11 * MINUTE - 1) == ([], divided[:1])
    assert parted(minutes, 11 * MINUTE, 12 * MINUTE) == ([(11 * MINUTE, 13 * MINUTE)], [])
    # Where readings are gone minutes answer, where minutes are, readings.
    assert plan(0, 2 * HOUR, step, (HOUR, 0, 0)) == [
        Segment(MINUTES, 0, HOUR, False),
        Segment(MINUTES, HOUR, 2 * HOUR, step=step),
    ]
    assert plan(0, 2 * HOUR, step, (0, HOUR, 0)) == [
        Segment(RAW, 0, HOUR),
        Segment(MINUTES, HOUR, 2 * HOUR, step=step),
    ]
    assert plan(0, HOUR, step, (0, 3 * HOUR, 0)) == [Segment(RAW, 0, HOUR)]


@given(
    st.integers(0, 9 * HOUR),
    st.integers(0, 9 * HOUR),
    st.integers(10 * MINUTE, 2 * HOUR),
    st.tuples(st.integers(0, 9 * HOUR), st.integers(0, 9 * HOUR)).map(sorted),
)
def test_parts_of_a_segment(start: int, end: int, step: int, times: list[int]) -> None:
    """All buckets of a segment from the first time to the last are in one part, and a step divides those of one."""
    for segment in plan(start, end, step, NEVER):
        if not segment.step:
            continue
        whole, divided = parted(segment, *times)
        buckets = [
            (time, one is divided) for one in (whole, divided) for lo, hi in one for time in range(lo, hi, MINUTE)
        ]
        first = max(segment.start, times[0] // MINUTE * MINUTE)
        last = min(segment.end - MINUTE, times[1] // MINUTE * MINUTE)
        assert [time for time, _ in sorted(buckets)] == list(range(first, last + 1, MINUTE))
        assert all(is_divided == (time // step != (time + MINUTE - 1) // step) for time, is_divided in buckets)


@given(
    st.integers(0, 9 * HOUR),
    st.integers(0, 9 * HOUR),
    st.sampled_from([1, 7, MINUTE, 3 * MINUTE, HOUR, 2 * HOUR, 90 * MINUTE, 90 * MINUTE + 1]),
    st.tuples(st.integers(0, 9), st.integers(0, 9)).map(lambda hours: sorted(hours, reverse=True)),
)
def test_all_is_asked_for_once(start: int, end: int, step: int, hours: list[int]) -> None:
    """Segments ascend, overlap nowhere, leave nothing out, are aligned, and take nothing from where it is gone."""
    gone = (hours[0] * HOUR, hours[1] * HOUR, 0)
    found = plan(start, end, step, gone)
    done = start
    for segment in found:
        length = LENGTH[segment.level]
        if segment is found[0] and not segment.exact:
            done = start - start % length
        assert segment.start % length == 0
        assert segment.start < segment.end
        assert segment.start == done
        if segment.exact:
            assert step % length == segment.step % length
            assert segment.end % length == 0
        assert segment.level == HOURS or segment.start >= gone[segment.level]
        done = whole(segment.end, length)
    assert done >= end or not found
    assert bool(found) == (start < end)
    assert all(segment.exact for segment in found) or start < gone[0]


def whole(time: int, length: int) -> int:
    return -(-time // length) * length


def test_a_step_that_fits() -> None:
    """From ten minutes on whole minutes, from ten hours on whole hours, none shorter."""
    steps = (1, 10 * MINUTE - 1, 10 * MINUTE, 10 * MINUTE + 1, 9 * HOUR + 1, 10 * HOUR - 1, 10 * HOUR, 10 * HOUR + 1)
    fit = [1, 10 * MINUTE - 1, 10 * MINUTE, 11 * MINUTE, 9 * HOUR + MINUTE, 10 * HOUR, 10 * HOUR, 11 * HOUR]
    assert [fitting(step) for step in steps] == fit


def test_whole_hours() -> None:
    """The full hour at or after a time, within 64 bits."""
    assert [whole_hours(time) for time in (0, 1, HOUR, HOUR + 1)] == [0, HOUR, HOUR, 2 * HOUR]
    assert whole_hours((1 << 63) - 1) == (1 << 63) - 1
