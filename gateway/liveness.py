"""Presence of devices: who is ``online``, ``stale`` or ``offline``, since when and why.

Pure: time is an argument (int64 nanoseconds where it is shown, monotonic seconds where it is a span).  A function
decides and returns the transition, or None where nothing changed; its caller journals and announces it.  Presence
belongs to the connection: whoever holds the device's link may change it, the end of a replaced one may not (the caller
asks only for the link that is current).

After a restart states are kept, unconfirmed, until the device is seen or the grace time ends: the gateway's own absence
is never blamed on a device before that.

``stale`` is a device whose connection stands and that says nothing for longer than is usual with it: three times the
interval it stated (``describe``), else three times the longest pause among its last ones.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Generic, TypeVar

import msgspec

__all__ = [
    "LEARNED_LEAST_S",
    "OFFLINE",
    "ONLINE",
    "STALE",
    "Lookout",
    "Losses",
    "Rhythm",
    "Status",
    "connected",
    "expire",
    "lost",
    "restored",
    "silent",
]

T = TypeVar("T")

ONLINE, STALE, OFFLINE = "online", "stale", "offline"

PATIENCE = 3.0  # intervals of silence before a device is stale
STATED_LEAST_S = 2.0  # of silence, where the device stated its interval
LEARNED_LEAST_S = 10.0  # .. where it was learned
LEARNED_FROM_S = 30.0  # a device has to be heard over so long before anything is learned
PAUSES = 16  # the last ones that are remembered
PAUSE_S = 1.0  # shorter ones are none: a burst of messages says nothing about the interval between bursts

STORM_S = 5.0  # losses within this time are one event where they are many
STORM_LEAST = 10
STORM_SHARE = 0.3  # of those that were connected
STORM_SHOWN_S = 600.0


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


def silent(status: Status, quiet_s: float, usual_s: float, now: int) -> Status | None:
    """The device, which is connected, said nothing for ``quiet_s``; it usually speaks every ``usual_s``."""
    if status.state != ONLINE:
        return None
    return Status(STALE, now, f"nothing for {span(quiet_s)}, expected every {span(usual_s)}")


def span(seconds: float) -> str:
    """A span in words: ``0.5 s``, ``45 s``, ``10 min``, ``3 h``."""
    if seconds < 10:
        return f"{seconds:.2g} s"
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.0f} h"


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


class Rhythm:
    """How often a device speaks; monotonic seconds.  ``stated`` by itself goes before what is learned."""

    __slots__ = ("_began", "_pauses", "heard", "stated")

    def __init__(self, learned: float = 0.0) -> None:
        self.stated = 0.0
        self.heard = 0.0  # when it last spoke
        self._began: float | None = None
        self._pauses = [learned] if learned else []  # at most PAUSES; the oldest goes

    def begin(self, now: float) -> None:
        """It has a new connection: the time without one was no pause."""
        self.heard = now
        if self._began is None:
            self._began = now

    def speak(self, now: float) -> bool:
        """It said something; returns whether less is known to be usual with it from now on than before."""
        pause = now - self.heard
        self.heard = now
        if pause < PAUSE_S:
            return False
        self._pauses.append(pause)
        if len(self._pauses) <= PAUSES:
            return False
        return self._pauses.pop(0) > max(self._pauses)

    @property
    def learned(self) -> float:
        """The longest of its last pauses, 0.0 where nothing was learned yet."""
        if self._pauses:
            return max(self._pauses)
        return PAUSE_S if self._began is not None and self.heard - self._began >= LEARNED_FROM_S else 0.0

    @property
    def silent_from(self) -> float:
        """When it will have been silent for longer than usual, if it says nothing; ``inf`` where nothing is known."""
        if self.stated:
            return self.heard + max(STATED_LEAST_S, PATIENCE * self.stated)
        learned = self.learned
        return self.heard + max(LEARNED_LEAST_S, PATIENCE * learned) if learned else math.inf

    def silence(self, now: float) -> float:
        """Seconds that it has been silent for, where that is longer than usual; else 0.0."""
        return now - self.heard if now > self.silent_from else 0.0

    @property
    def usual(self) -> float:
        """The interval that is expected of it, in seconds; 0.0 where none is."""
        return self.stated or self.learned


class Lookout(Generic[T]):
    """Who is looked at for silence when; times in monotonic seconds.

    Each stands in the slot of the second from which it may be silent for too long, so that one who speaks each minute
    costs a look in three.  Whoever speaks again after it was found silent, and whoever may be so earlier than was
    thought, has to be put in ``soon``.  One stands in one slot at the most.
    """

    def __init__(self) -> None:
        self._slots: dict[int, set[T]] = {}
        self._slot_of: dict[T, int] = {}
        self._passed = 0

    def soon(self, one: T) -> None:
        """Look at it in the next round."""
        self.at(one, 0.0)

    def at(self, one: T, when: float) -> None:
        """Look at it in the first round after ``when``, which is finite, as things are now."""
        slot = max(int(when), self._passed + 1)
        if self._slot_of.get(one) != slot:
            self.discard(one)
            self._slot_of[one] = slot
            self._slots.setdefault(slot, set()).add(one)

    def discard(self, one: T) -> None:
        """Look at it no more."""
        slot = self._slot_of.pop(one, None)
        if slot is not None:
            others = self._slots[slot]
            others.remove(one)
            if not others:
                del self._slots[slot]

    def due(self, now: float) -> Iterator[T]:
        """Those whose time has come.  Each is taken out as it is given: where a round fails, the next has the rest."""
        self._passed = int(now)
        for slot in [slot for slot in self._slots if slot <= self._passed]:
            while ones := self._slots.get(slot):
                one = ones.pop()
                del self._slot_of[one]
                if not ones:
                    del self._slots[slot]
                yield one


class Losses:
    """Losses that came together: many at once are one event, of the network rather than of the devices."""

    def __init__(self) -> None:
        self._recent: dict[str, float] = {}  # device, when it was lost last
        self._began = 0.0
        self._ended = 0.0
        self._worst = (0, 0)

    def note(self, now: float, connected: int, device: str) -> bool:
        """A device was lost at ``now``, when ``connected`` others still were; whether a storm has just begun."""
        recent = self._recent
        recent.pop(device, None)
        while recent and now - next(iter(recent.values())) > STORM_S:
            del recent[next(iter(recent))]
        recent[device] = now
        count, of = len(recent), len(recent) + connected
        if count < STORM_LEAST or count < STORM_SHARE * of:
            return False
        begins = not self._worst[0] or now - self._ended > STORM_S
        if begins or count > self._worst[0]:
            self._worst = (count, max(of, 0 if begins else self._worst[1]))
        if begins:
            self._began = now
        self._ended = now
        return begins

    def words(self, now: float) -> str:
        """The last storm in words, for a while after it; empty without one."""
        count, of = self._worst
        if not count or now - self._ended > STORM_SHOWN_S:
            return ""
        return f"{count} of {of} devices were lost within {STORM_S:g} s, {span(now - self._ended)} ago"
