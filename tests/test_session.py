"""The device protocol's sequence, checked by hand and against a model."""

from hypothesis import given
from hypothesis import strategies as st

from gateway.session import GIVE_UP_S, Session, Verdict

NEW, DUPLICATE, HELD = Verdict.NEW, Verdict.DUPLICATE, Verdict.HELD


def take(session: Session, seq: int, now: float = 0.0) -> int:
    """The number comes and is accepted; returns how many before it never came."""
    assert session.judge(seq, now) is NEW
    return session.accept(seq)


def test_grows_with_legal_gaps():
    """Gaps are legal and counted; the first seq may be any."""
    session = Session("s")
    assert take(session, 5) == 0
    assert take(session, 6) == 0
    assert take(session, 9) == 2
    assert session.judge(9, 0.0) is DUPLICATE
    assert session.judge(8, 0.0) is DUPLICATE
    assert session.judge(10, 0.0) is NEW


def test_nothing_behind_a_hold_is_kept_until_it_comes_again():
    """After a hold at S, S is new, what is behind it is held."""
    session = Session("s")
    session.accept(1)
    session.hold(2, 0.0)
    assert session.judge(3, 1.0) is HELD
    assert session.judge(2, 1.0) is NEW
    session.accept(2)
    assert session.judge(3, 1.0) is NEW


def test_going_past_a_hold_for_ten_seconds_gives_it_up():
    """A device that ignores its mail gets through after ten seconds."""
    session = Session("s")
    session.accept(1)
    session.hold(2, 0.0)
    assert session.judge(3, GIVE_UP_S - 0.01) is HELD
    assert session.judge(3, GIVE_UP_S) is NEW
    session.accept(3)
    assert session.judge(2, GIVE_UP_S) is DUPLICATE


def test_what_came_and_was_not_kept_is_not_missing():
    """Held back, then given up: those numbers came, only the gap between them did not."""
    session = Session("s")
    take(session, 1)
    for seq in (2, 3, 6):
        session.judge(seq, 0.0)
        session.hold(2, 0.0)
    assert take(session, 7, GIVE_UP_S) == 2
    assert take(session, 8, GIVE_UP_S) == 0


def test_a_gap_that_is_filled_late_is_not_counted_twice():
    """What was heard of first and comes later is no gap before the next."""
    session = Session("s")
    take(session, 1)
    session.judge(4, 0.0)
    session.hold(4, 0.0)
    assert take(session, 3) == 1
    assert take(session, 4) == 0
    assert take(session, 6) == 1


def test_a_device_that_keeps_sending_the_held_one_never_loses_it():
    """Each time it comes again in vain the ten seconds begin anew: an ack of what is behind never covers a hole."""
    session = Session("s")
    session.accept(1)
    for second in range(60):
        assert session.judge(2, float(second)) is NEW
        session.hold(2, float(second))
        assert session.judge(3, second + 0.5) is HELD


def test_a_gap_below_the_hold_may_be_filled():
    """What was skipped below a hold is still new, and does not lift it."""
    session = Session("s")
    session.accept(1)
    session.hold(4, 0.0)
    assert session.judge(3, 0.0) is NEW
    session.accept(3)
    assert session.judge(5, 0.0) is HELD


def test_durable_never_goes_back():
    """Late news of an earlier commit changes nothing."""
    session = Session("s")
    session.decided(4)
    session.decided(2)
    assert session.durable == 4


@given(st.lists(st.tuples(st.integers(1, 12), st.booleans(), st.floats(0, 4)), max_size=60))
def test_an_accepted_prefix_never_has_a_held_hole(steps):
    """Whatever comes: accepted numbers grow, and no number above a hold is accepted within ten seconds of it."""
    session, now = Session("s"), 0.0
    accepted: list[int] = []
    hold: tuple[int, float] | None = None
    for seq, room, wait in steps:
        now += wait
        verdict = session.judge(seq, now)
        if verdict is NEW and room:
            if hold and seq > hold[0]:
                assert now - hold[1] >= GIVE_UP_S
            assert not accepted or seq > accepted[-1]
            accepted.append(seq)
            session.accept(seq)
            if hold and seq >= hold[0]:
                hold = None
        elif verdict is NEW:
            session.hold(seq, now)
            hold = (seq, now)
        elif verdict is DUPLICATE:
            assert accepted
            assert seq <= accepted[-1]
