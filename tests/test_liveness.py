"""Who is online, since when and why."""

from gateway import liveness
from gateway.liveness import OFFLINE, ONLINE, Status


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
