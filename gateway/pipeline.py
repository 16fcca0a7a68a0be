"""The only fork: limit -> journal -> hub.  No branch on a sink's kind; no state but what damps flapping devices.

Damping: a device's first :data:`CHANGES` changes of state in :data:`CHANGES_WINDOW_S` are journalled and told at once;
further ones take effect and are told :data:`DAMPED_S` later, the last of them only, so that a bad radio floods nobody.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress
from itertools import takewhile
from typing import TYPE_CHECKING, Any

from .clock import ClockRules
from .errors import Overloaded
from .limit import SlidingWindow
from .reading import Description, Mark, Presence, Reading

if TYPE_CHECKING:
    from .codecs import Draft
    from .devices import Device, Relay
    from .hub import Hub
    from .journal import Journal
    from .liveness import Status

__all__ = ["Pipeline"]


CHANGES = 6
CHANGES_WINDOW_S = 60.0
DAMPED_S = 10.0


class Pipeline:
    """Takes what the device endpoint has checked; ``on_presence`` are told of changes, for what is no stream.

    ``clock_rules`` may be replaced.
    """

    def __init__(
        self,
        journal: Journal,
        hub: Hub[Any],
        on_presence: list[Callable[[Device], None]] | None = None,
        *,
        clock_rules: ClockRules | None = None,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._append = journal.append
        self._hub = hub
        self.clock_rules = clock_rules or ClockRules()
        self._monotonic = monotonic
        self._changes: dict[Device, SlidingWindow] = {}  # of devices that changed within the window, the latest last
        self._damped: dict[Device, float] = {}  # changed and not told, until when
        self.on_presence = on_presence if on_presence is not None else []

    def admit(
        self,
        device: Device,
        draft: Draft,
        received: int,
        size: int = 0,
        *,
        delay: bool = False,
        relay: Relay | None = None,
    ) -> float:
        """Keep a reading of ``device``; returns 0.0, or the seconds until its rate allows it (nothing is kept then).

        With ``delay`` it is kept all the same, and the seconds are how long to take nothing more.  ``size`` is its
        share of the message's bytes, ``relay`` that of the concentrator whose sub-device it is, and whose sequence
        moves.  Raises :class:`~gateway.errors.Overloaded` when the journal has no room, and
        :class:`~gateway.errors.Refusal` for a time that the rules refuse; both have cost the rate.
        """
        values = draft.values
        bucket = device.bucket
        session = device.session if relay is None else relay.device.session
        if not values and draft.seq and draft.seq == session.held and bucket.tokens > -bucket.burst:
            # Giving up what was held is not made to wait, up to a burst on credit.
            bucket.borrow(1.0)
            wait = 0.0
        else:
            wait = bucket.borrow(1.0) if delay else bucket.take(1.0)
            if wait and not delay:
                return wait
        time = received + draft.shift if draft.shift else draft.time
        time, flags = device.clock.stamp(time, received, self.clock_rules)
        ledger = device.ledger
        seq = draft.seq
        if relay is None:
            reading = Reading(device.name, session.id, seq, time, received, values, flags)
            offset = self._append(reading, device, (ledger.accepted + 1, seq or session.highest, session))
            ledger.accepted += 1
        else:
            reading = Reading(device.name, session.id, seq, time, received, values, flags, relay.device.name)
            offset = self._append(reading, relay, (relay.given + 1, seq or session.highest, session))
            relay.give(device)
        if seq:
            missing = session.accept(seq)
            if missing:
                (ledger if relay is None else relay.device.ledger).miss(missing)
        if values:
            self._hub.publish(reading, offset, size)
        return wait

    def refuse(self, device: Device, seq: int) -> None:
        """``seq`` was refused for good: the sequence moves on, and an ack may cover it."""
        session = device.session
        self._append(Mark(device.name, session.id, seq), device, (device.ledger.accepted, seq, session))
        device.ledger.miss(session.accept(seq))

    def presence(self, device: Device, status: Status) -> None:
        """The device changed its state: journalled, shown, told, at once or damped."""
        device.status = status
        changes = self._changes.pop(device, None) or SlidingWindow(CHANGES, CHANGES_WINDOW_S, clock=self._monotonic)
        self._changes[device] = changes
        if device in self._damped:
            return
        if changes.allow():
            self._tell(device, status)
        else:
            self._damped[device] = self._monotonic() + DAMPED_S

    def settle(self) -> None:
        """To be called once a second: tell what was damped, forget who has settled."""
        now = self._monotonic()
        for device in [device for device, until in self._damped.items() if now >= until]:
            del self._damped[device]
            if device.status is not None:
                self._tell(device, device.status)
        settled = takewhile(lambda one: one[1].idle(), self._changes.items())
        for device in [device for device, _ in settled if device not in self._damped]:
            del self._changes[device]

    def _tell(self, device: Device, status: Status) -> None:
        device.note(status, time.time_ns())
        session = device.session.id if device.session.resumable else ""
        # A journal without room loses no state: the book's snapshot holds it.
        with suppress(Overloaded):
            self._append(Presence(device.name, status.state, status.since, status.reason, session))
        self.shown(device)
        for told in self.on_presence:
            told(device)

    def forget(self, device: Device) -> None:
        """The device is no longer in the book: nothing is told of it any more."""
        self._changes.pop(device, None)
        self._damped.pop(device, None)
        self.shown(device)

    def shown(self, device: Device) -> None:
        """Something about the device's state is to be shown that is no change of it."""
        self._hub.presence(device)

    def describe(self, device: Device, body: dict[str, object], received: int) -> None:
        """The device said what it is; raises :class:`~gateway.errors.Overloaded` when the journal has no room."""
        if body != device.described:
            self._append(Description(device.name, received, body))
            device.describe(body)
