"""Who is online, since when and why."""

from gateway import liveness
from gateway.liveness import OFFLINE, ONLINE, STALE, Lookout, Losses, Rhythm, Status


def test_first_connection_is_a_change():
    """A device seen for the first time comes online."""
    assert liveness.connected(None, 5) == (Status(ONLINE, 5), True)


def test_reconnect_while_online_is_no_change():
    """A replaced connection leaves since as it was."""
    assert liveness.connected(Status(ONLINE, 5), 9) == (Status(ONLINE, 5), False)


def test_lost_once():
    """A lost connection is offline with its reason, once."""
    status = liveness.lost(Status(ONLINE, 5), "ping timeout", 9)
    assert status == Status(OFFLINE, 9, "ping timeout")
    assert liveness.lost(status, "again", 10) is None


def test_restart_keeps_states_until_the_grace_time_ends():
    """The gateway's own absence makes nobody offline before the grace time ends."""
    kept = liveness.restored(ONLINE, 5, "")
    assert not kept.confirmed
    assert liveness.connected(kept, 9) == (Status(ONLINE, 5), True)
    assert liveness.expire(kept, 9) == Status(OFFLINE, 9, "not seen since the gateway started")
    assert liveness.expire(liveness.restored(OFFLINE, 3, "closed"), 9) == Status(OFFLINE, 3, "closed")
    assert liveness.expire(Status(ONLINE, 5), 9) is None


def speaking(rhythm: Rhythm, times: list[float]) -> None:
    rhythm.begin(times[0])
    for at in times:
        rhythm.speak(at)


def test_a_stated_interval_goes_before_what_is_learned():
    """Three intervals of silence, two seconds at the least."""
    rhythm = Rhythm()
    rhythm.stated = 60.0
    speaking(rhythm, [float(at) for at in range(100)])
    assert rhythm.silence(99 + 180) == 0.0
    assert rhythm.silence(99 + 181) == 181
    rhythm.stated = 0.1
    assert rhythm.silence(99 + 1.9) == 0.0
    assert rhythm.silence(99 + 2.5) == 2.5


def test_an_interval_is_learned():
    """A device that reports every ten minutes is not stale after one, one that reports each second after thirty."""
    slow = Rhythm()
    speaking(slow, [0.0])
    assert slow.silence(100_000) == 0.0, "nothing is known of it"
    speaking(slow, [0.0, 600.0, 1200.0])
    assert slow.silence(1200 + 1800) == 0.0
    assert slow.silence(1200 + 1801) == 1801
    quick = Rhythm()
    speaking(quick, [at / 10 for at in range(290)])
    assert quick.silence(29 + 300) == 0.0, "not heard for long enough"
    speaking(quick, [at / 10 for at in range(310)])
    assert quick.silence(31 + 9) == 0.0
    assert quick.silence(31 + 11) > 0


def test_bursts_are_not_the_interval():
    """Hundreds of messages at once every ten minutes: the pause between the bursts counts."""
    rhythm = Rhythm()
    speaking(rhythm, [burst * 600 + message / 100 for burst in range(4) for message in range(300)])
    assert rhythm.silence(1803 + 1700) == 0.0
    assert rhythm.silence(1803 + 1801) > 0


def test_an_interval_that_grows_shorter_is_learned_anew():
    """After sixteen shorter pauses the longer ones are forgotten; time without a connection is no pause."""
    rhythm = Rhythm(learned=600.0)
    assert rhythm.usual == 600.0
    speaking(rhythm, [5.0 * at for at in range(20)])
    assert rhythm.usual == 5.0
    rhythm.begin(10_000.0)
    rhythm.speak(10_005.0)
    assert rhythm.usual == 5.0


def test_stale_says_why():
    """In words that a person would use; only a device that is online becomes stale."""
    status = liveness.silent(Status(ONLINE, 5), 45.4, 10.0, 9)
    assert status == Status(STALE, 9, "nothing for 45 s, expected every 10 s")
    assert liveness.silent(status, 60, 10, 10) is None
    assert liveness.silent(Status(ONLINE, 5), 1830, 600, 9).reason == "nothing for 30 min, expected every 10 min"
    assert liveness.connected(status, 11) == (Status(ONLINE, 11), True)
    assert liveness.lost(status, "ping timeout", 12) == Status(OFFLINE, 12, "ping timeout")


def test_a_storm_is_reported_once():
    """Forty of fifty lost within a second are one event; nine are not, nor are many among very many."""
    losses = Losses()
    assert [losses.note(index / 100, 49 - index, f"d{index}") for index in range(40)].count(True) == 1
    assert losses.words(60.4).startswith("40 of 50 devices were lost within 5 s, 60 s ago")
    assert losses.words(10_000) == ""
    few = Losses()
    assert not any(few.note(index / 100, 0, f"d{index}") for index in range(9))
    assert few.words(1) == ""
    many = Losses()
    assert not any(many.note(index / 100, 10_000, f"d{index}") for index in range(100))


def test_losses_one_by_one_are_no_storm():
    """Ten over a minute."""
    losses = Losses()
    assert not any(losses.note(index * 6.0, 20 - index, f"d{index}") for index in range(10))


def test_one_that_flaps_is_no_storm():
    """Twelve losses of one device are one device lost."""
    losses = Losses()
    assert not any(losses.note(index / 10, 0, "d") for index in range(12))


def test_what_is_usual_becomes_less_when_the_longest_pause_is_forgotten():
    """A device that has become quicker may be silent for too long sooner than was thought: that is said once."""
    rhythm = Rhythm(learned=600.0)
    rhythm.begin(0)
    assert [rhythm.speak(n * 2.0) for n in range(1, 20)] == [*[False] * 15, True, *[False] * 3]
    assert rhythm.silent_from == 38 + 10


def test_each_is_looked_at_in_the_round_after_its_time():
    """Once, in whatever slot it stood before; what has no time yet in the next."""
    lookout = Lookout()
    lookout.soon("a")
    lookout.at("b", 12.4)
    lookout.at("c", 30)
    assert list(lookout.due(11.9)) == ["a"]
    lookout.at("c", 11)
    assert sorted(lookout.due(12.1)) == ["b", "c"]
    lookout.at("b", 12.4)
    assert list(lookout.due(13.2)) == ["b"]
    assert list(lookout.due(100)) == []


def test_nothing_is_left_where_one_stood_before():
    """Whoever says something else each time of how often it speaks takes no memory by it."""
    lookout = Lookout()
    for number in range(1000):
        lookout.at("a", 1e300 / (number + 1))
    assert (len(lookout._slots), len(lookout._slot_of)) == (1, 1)
    lookout.discard("a")
    lookout.discard("a")
    assert lookout._slots == lookout._slot_of == {}
    lookout.soon("a")
    assert list(lookout.due(1)) == ["a"]
