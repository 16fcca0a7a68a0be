"""The states that a device has had: its last :data:`PAST` changes, over restarts of the gateway.  Pure.

A gateway that was away knows nothing of that time: what it found a device in, unless that was offline, has lasted until
the device was last heard, and from there on its state is :data:`UNKNOWN` until the next change is told.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import zip_longest

import msgspec

__all__ = ["EMPTY", "PAST", "UNKNOWN", "Change", "broken_off", "noted", "pack", "stretches", "unpack"]

PAST = 16  # changes of a device that are kept, the oldest out
UNKNOWN = ""
EMPTY = b"\x90"  # no changes, packed


class Change(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """The device was in ``state`` from ``since`` (nanoseconds) on; ``reason`` in words."""

    since: int
    state: str
    reason: str = ""


Changes = tuple[Change, ...]

pack: Callable[[Changes], bytes] = msgspec.msgpack.Encoder().encode
"""MessagePack of the changes, as a device has them: small, and nothing to be done for a snapshot."""
_decode = msgspec.msgpack.Decoder(Changes).decode


def unpack(packed: bytes | msgspec.Raw) -> Changes:
    """The changes; none where it is something else."""
    try:
        return _decode(packed)
    except msgspec.DecodeError:
        return ()


def noted(past: Changes, new: Change, now: int) -> Changes:
    """``past`` and a new change; one that is in it already changes nothing.

    A state from before the gateway was away that holds again does so from ``now`` (nanoseconds) on.
    """
    last = past[-1] if past else None
    if last is not None and new.since <= last.since:
        if last.state != UNKNOWN:
            return past
        new = Change(max(now, last.since), new.state, new.reason)
    return (*past[1 - PAST :], new)


def broken_off(past: Changes, heard: int) -> Changes:
    """``past`` at a start of the gateway, of a device not offline and last ``heard`` then (nanoseconds)."""
    if not past or past[-1].state == UNKNOWN:
        return past
    return (*past[1 - PAST :], Change(max(heard, past[-1].since), UNKNOWN))


def stretches(past: Changes, start: int, end: int) -> Iterator[tuple[Change, int | None]]:
    """The changes whose states held between the two (nanoseconds), each with until when, None for the present one."""
    for change, later in zip_longest(past, past[1:]):
        until = later.since if later is not None else None
        if change.state != UNKNOWN and change.since <= end and (until is None or until > start):
            yield change, until
