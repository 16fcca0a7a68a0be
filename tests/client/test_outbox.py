"""The outbox, case by case."""

from __future__ import annotations

import pytest

from gateway.client.errors import BufferFull
from gateway.client.outbox import MAX_READINGS, Outbox


def empty(seq: int) -> bytes:
    return b"empty %d" % seq


def outbox(count: int = 0, **options) -> Outbox:
    box = Outbox(empty, **options)
    for _ in range(count):
        box.put(b"r%d" % box.next_seq, 0.0)
    return box


def names(first: int, last: int) -> list[bytes]:
    return [b"r%d" % seq for seq in range(first, last + 1)]


def test_nothing_is_taken_before_the_welcome():
    """A connection without its welcome carries no reading."""
    box = outbox(3)
    assert box.take(0.0) == []
    assert box.wait(0.0) is None
    assert box.welcome(0, 0.0) == []
    assert box.take(0.0) == names(1, 3)
    assert box.take(0.0) == []


def test_the_bound_is_kept():
    """At max_unacked a further reading is not taken, until an ack makes room."""
    box = outbox(2, max_unacked=2)
    assert box.full
    with pytest.raises(BufferFull):
        box.put(b"x", 0.0)
    box.welcome(0, 0.0)
    box.take(0.0)
    assert box.full
    assert box.ack(1, 0.0) == 1
    assert box.put(b"r3", 0.0) == 3


def test_acks_are_cumulative_and_timed():
    """One ack decides all up to its number, and each counts from its hand-over."""
    box = outbox(5)
    box.welcome(0, 0.0)
    box.take(1.0)
    assert box.ack(4, 2.0) == 4
    assert (box.acked, len(box), box.latency.count) == (4, 1, 4)
    assert box.latency.max == pytest.approx(2.0)
    assert box.ack(4, 2.0) == 0


def test_an_ack_beyond_what_was_written_frees_only_what_was_written():
    """A gateway that acknowledges what it never got makes no reading disappear."""
    box = outbox(2)
    box.welcome(0, 0.0)
    box.take(0.0)
    box.put(b"r3", 0.0)
    assert box.ack(99, 0.0) == 2
    assert box.take(0.0) == [b"r3"]


def test_throttled_goes_back_and_waits():
    """After throttled at 3, nothing goes for the time asked, and then 3 goes first."""
    box = outbox(5)
    box.welcome(0, 0.0)
    box.take(0.0)
    box.held_back(3, 0.25, 1.0)
    box.put(b"r6", 1.0)
    assert box.take(1.2) == []
    assert box.wait(1.2) == pytest.approx(0.05)
    assert box.take(1.25) == names(3, 6)
    assert (box.sent, box.resent, box.throttled) == (6, 3, 1)
    assert box.ack(6, 2.0) == 6


def test_a_late_notice_about_what_is_acked_goes_back_nowhere():
    """A second throttled for a number that was acked meanwhile resends nothing."""
    box = outbox(3)
    box.welcome(0, 0.0)
    box.take(0.0)
    box.ack(3, 0.0)
    box.held_back(2, 0.1, 0.0)
    assert box.take(1.0) == []
    assert len(box) == 0


def test_a_reading_named_in_an_error_is_decided():
    """It is neither resent nor counted as acked by the ack that passes over it."""
    box = outbox(3)
    box.welcome(0, 0.0)
    box.take(0.0)
    assert box.refuse(2)
    assert not box.refuse(2)
    box.lost()
    box.welcome(0, 0.0)
    assert box.take(0.0) == [b"r1", b"r3"]
    box.ack(3, 0.0)
    assert (box.acked, box.refused, len(box)) == (2, 1, 0)


def test_resume_drops_what_arrived_and_resends_the_rest():
    """After a cut the welcome's last_seq decides; the rest goes again, in order, before anything new."""
    box = outbox(4)
    box.welcome(0, 0.0)
    box.take(0.0)
    box.lost()
    box.put(b"r5", 0.0)
    assert box.welcome(2, 1.0) == []
    assert box.take(1.0) == names(3, 5)
    assert (box.acked, box.sent, box.resent) == (2, 5, 2)


def test_what_is_durable_waits_for_delivery_without_being_resent():
    """With level delivered, last_seq says what need not go again; only an ack decides."""
    box = outbox(4, level="delivered")
    box.welcome(0, 0.0)
    box.take(0.0)
    box.lost()
    box.welcome(3, 0.0)
    assert box.take(0.0) == [b"r4"]
    assert len(box) == 4
    assert box.ack(4, 0.0) == 4


def test_level_none_forgets_what_it_wrote():
    """Without acks readings carry no number and are gone once written."""
    box = outbox(0, level="none")
    assert box.put(b"a", 0.0) == 0
    assert box.put(b"b", 0.0) == 0
    assert len(box) == 2
    box.welcome(0, 0.0)
    assert box.take(0.0) == [b"a", b"b"]
    assert (len(box), box.sent) == (0, 2)
    box.held_back(0, 0.5, 0.0)
    box.put(b"c", 0.0)
    assert box.take(0.4) == []
    assert box.take(0.5) == [b"c"]


def test_a_session_that_somebody_else_uses_is_left_alone():
    """A last_seq that was never sent from here is no resume; nothing changes."""
    box = outbox(3)
    assert box.welcome(1, 0.0) is None
    assert box.take(0.0) == []
    box.welcome(0, 0.0)
    assert box.take(0.0) == names(1, 3)


def test_messages_stay_within_bytes_and_readings():
    """A backlog goes in arrays below the gateway's limit of bytes and ours of readings."""
    box = outbox(MAX_READINGS + 1)
    box.welcome(0, 0.0)
    assert len(box.take(0.0)) == MAX_READINGS
    assert len(box.take(0.0)) == 1
    box = outbox(9)
    box.welcome(0, 0.0, max_bytes=12)
    assert box.take(0.0) == names(1, 3)  # 3 + 3 * (2 + 1)


def test_what_the_gateway_cannot_take_is_given_up_with_an_empty_reading():
    """A reading above max_message_bytes is refused here, and its number still goes, so that nothing waits for it."""
    box = Outbox(empty)
    box.put(b"r1", 0.0)
    box.put(b"x" * 50, 0.0)
    box.put(b"r3", 0.0)
    assert box.welcome(0, 0.0, max_bytes=40) == [2]
    assert box.take(0.0) == [b"r1", b"empty 2", b"r3"]
    box.ack(3, 0.0)
    assert (box.acked, box.refused, box.taken, len(box)) == (2, 1, 3, 0)
    with pytest.raises(ValueError, match="41 bytes"):
        box.put(b"x" * 41, 0.0)


def test_a_number_that_is_decided_here_but_missed_there_is_given_up():
    """When the gateway waits for a number whose reading is gone, an empty reading goes in its place."""
    box = outbox(3)
    box.welcome(0, 0.0)
    box.take(0.0)
    box.refuse(1)
    box.held_back(1, 0.0, 0.0)
    assert box.take(0.0) == [b"empty 1", b"r2", b"r3"]
    box.ack(3, 0.0)
    assert (box.acked, box.refused, len(box)) == (2, 1, 0)


def test_a_backlog_keeps_the_gateways_rate():
    """With rate 10 and burst 20 a backlog of 100 goes 18 at once, then ten a second."""
    box = outbox(100)
    box.welcome(0, 0.0, per_s=10, burst=20)
    assert len(box.take(0.0)) == 18
    assert box.take(0.0) == []
    now, went = 0.0, 18
    while went < 100:
        wait = box.wait(now)
        assert wait is not None
        assert wait > 0
        now += wait
        went += len(box.take(now))
    assert now == pytest.approx(8.2, abs=0.2)
    assert box.throttled == 0


def test_unpaced_ignores_the_rate():
    """With pacing off everything goes at once."""
    box = outbox(100, paced=False)
    box.welcome(0, 0.0, per_s=10, burst=20)
    assert len(box.take(0.0)) == 100


def test_throttled_empties_the_bucket():
    """After throttled only what the rate has given since then goes."""
    box = outbox(100)
    box.welcome(0, 0.0, per_s=100, burst=200)
    box.take(0.0)
    box.held_back(50, 0.1, 0.0)
    assert len(box.take(0.1)) == 10
