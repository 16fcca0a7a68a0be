"""The outbox, case by case."""

from __future__ import annotations

import pytest

from gateway.client.errors import BufferFull
from gateway.client.outbox import MAX_READINGS, PROBE_S, Outbox


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
    """After throttled at 3, nothing goes for the time asked; then 3 goes alone, and the rest once 3 was kept."""
    box = outbox(5)
    box.welcome(0, 0.0)
    box.take(0.0)
    box.held_back(3, 0.25, 1.0)
    box.put(b"r6", 1.0)
    assert box.take(1.2) == []
    assert box.wait(1.2) == pytest.approx(0.05)
    assert box.take(1.25) == names(3, 3)
    assert box.take(1.25) == []
    assert box.ack(3, 1.3) == 3
    assert box.take(1.3) == names(4, 5)
    assert box.ack(5, 1.4) == 2
    assert box.take(1.4) == names(6, 6)
    assert (box.sent, box.resent, box.throttled) == (6, 3, 1)
    assert box.ack(6, 2.0) == 1


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
    assert box.take(0.0) == [b"empty 1"]
    assert box.take(PROBE_S) == [b"r2", b"r3"]
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
    """After throttled only what the rate has given since then goes, whatever the probes would allow."""
    box = outbox(100)
    box.welcome(0, 0.0, per_s=10, burst=200)
    box.take(0.0)
    box.held_back(50, 0.1, 0.0)
    assert box.take(0.1) == names(50, 50)
    box.ack(50, 0.2)
    assert box.take(0.2) == names(51, 51)
    assert box.take(0.2) == []
    assert box.wait(0.2) == pytest.approx(0.1)


def test_probes_grow_without_acks():
    """Where acks take their time, as with level delivered, a probe that brings no notice counts as kept."""
    box = outbox(1000, level="delivered")
    box.welcome(0, 0.0)
    box.take(0.0)
    box.held_back(100, 0.0, 0.0)
    now, went = 0.0, []
    while box.queued:
        wait = box.wait(now)
        assert wait is not None
        now += wait
        went.append(len(box.take(now)))
    assert went == [1, 2, 4, 8, 16, 32, 64, 128, 256, 390]
    assert now == pytest.approx(9 * PROBE_S)
    assert box.wait(now) is None


def test_a_refused_probe_lets_the_rest_go():
    """A reading that is refused for good while it is the probe is decided: what is behind it goes on."""
    box = outbox(3)
    box.welcome(0, 0.0)
    box.take(0.0)
    box.held_back(2, 0.0, 0.0)
    assert box.take(0.0) == names(2, 2)
    assert box.refuse(2)
    assert box.wait(0.0) == 0.0
    assert box.take(0.0) == names(3, 3)


class Far:
    """A gateway ``latency`` seconds away that takes ``rate`` readings a second, ``burst`` at once, in order."""

    def __init__(self, box: Outbox, *, rate: float, burst: float, latency: float = 0.01) -> None:
        self.box, self.rate, self.burst, self.latency = box, rate, burst, latency
        self.tokens, self.filled = burst, 0.0
        self.full = False
        self.next = 1
        self.noticed = False
        self.mail: list[tuple[float, str, int]] = []

    def receive(self, batch: list[bytes], now: float) -> None:
        now += self.latency
        self.tokens = min(self.burst, self.tokens + (now - self.filled) * self.rate)
        self.filled = now
        for name in batch:
            seq = int(name[1:])
            if seq < self.next:
                continue
            if seq > self.next or self.tokens < 1 or self.full:
                if seq == self.next or not self.noticed:
                    self.mail.append((now + self.latency, "held", self.next))
                    self.noticed = True
                continue
            self.next += 1
            self.tokens -= 1
            self.noticed = False
            self.mail.append((now + self.latency + 0.025, "ack", seq))

    def run(self, seconds: float, every: float, now: float = 0.0) -> None:
        """Put a reading each ``every`` seconds and write whatever may go, for ``seconds``."""
        due, end = now, now + seconds
        while now < end:
            while self.mail and min(self.mail)[0] <= now:
                _, kind, seq = min(self.mail)
                self.mail.remove(min(self.mail))
                if kind == "ack":
                    self.box.ack(seq, now)
                else:
                    self.box.held_back(seq, 1.0 if self.full else 0.01, now, overloaded=self.full)
            while due <= now and not self.box.full:
                self.box.put(b"r%d" % self.box.next_seq, now)
                due += every
            while batch := self.box.take(now):
                self.receive(batch, now)
            now += 0.002


@pytest.mark.parametrize("told", [100.0, 0.0], ids=["rate known", "rate unknown"])
def test_a_throttled_flood_is_hardly_resent(told: float):
    """Unpaced at three times the rate, the gateway gets nearly all it takes, and few readings go twice."""
    box = Outbox(empty, paced=False)
    far = Far(box, rate=100, burst=200)
    box.welcome(0, 0.0, per_s=told, burst=200)
    far.run(10.0, 1 / 300)
    assert far.next > 0.85 * (200 + 10 * 100)
    assert box.throttled
    assert box.resent < (20 if told else box.sent)


def test_a_gateway_that_stays_full_gets_a_reading_a_notice():
    """While a gateway is overloaded for a minute the backlog is not sent to it again and again."""
    box = Outbox(empty, max_unacked=1000)
    far = Far(box, rate=100_000, burst=100_000)
    box.welcome(0, 0.0)
    far.full = True
    far.run(60.0, 0.01)
    assert box.full
    assert box.sent < 20
    assert box.resent < 100
    far.full = False
    far.run(4.0, 0.01, now=60.0)
    assert len(box) < 20
    assert box.resent < 100


def test_unpaced_is_unpaced_again_once_the_backlog_is_gone():
    """After a throttle the rate is kept until the queue is empty, not for ever."""
    box = outbox(10, paced=False)
    box.welcome(0, 0.0, per_s=1, burst=1)
    assert len(box.take(0.0)) == 10
    box.held_back(10, 0.5, 0.0)
    assert box.take(0.9) == []
    assert box.take(1.0) == names(10, 10)
    box.ack(10, 1.0)
    box.put(b"r11", 1.0)
    box.put(b"r12", 1.0)
    assert box.take(1.0) == names(11, 12)
