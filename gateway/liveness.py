"""Presence of devices: who is ``online`` or ``offline``, since when and why.

Pure: time is an argument (int64 nanoseconds).  A function decides and returns the transition, or None where nothing
changed; its caller journals and announces it.  Presence belongs to the connection: whoever holds the device's link may
change it, the end of a replaced one may not (the caller asks only for the link that is current).

After a restart states are kept, unconfirmed, until the device is seen or the grace time ends: the gateway's own absence
is never blamed on a device before that.
"""

from __future__ import annotations

import msgspec

__all__ = ["OFFLINE", "ONLINE", "STALE", "Status", "connected", "expire", "lost", "restored"]

ONLINE, STALE, OFFLINE = "online", "stale", "offline"


class Status(msgspec.Struct, frozen=True):
    """The state of a device: ``since`` in nanoseconds, ``reason`` in words (empty where it needs none)."""

    state: str
    since: int
    reason: str = ""
    confirmed: bool = True


def connected(status: Status | None, now: int) -> tuple[Status, bool]:
    """The device has a connection; returns its status and whether that is a change to be told."""
    if status is not None and status.state == ONLINE:
        return Status(ONLINE, status.since, ""), not status.confirmed
    return Status(ONLINE, now, ""), True


def lost(status: Status, reason: str, now: int) -> Status | None:
    """The device's current connection ended for ``reason``."""
    if status.state == OFFLINE:
        return None
    return Status(OFFLINE, now, reason)


def restored(state: str, since: int, reason: str) -> Status:
    """The status found at start, not confirmed yet."""
    return Status(state, since, reason, confirmed=False)


def expire(status: Status, now: int) -> Status | None:
    """The grace time after a restart ended and the device did not come back."""
    if status.confirmed:
        return None
    if status.state == OFFLINE:
        return Status(OFFLINE, status.since, status.reason)
    return Status(OFFLINE, now, "not seen since the gateway started")
