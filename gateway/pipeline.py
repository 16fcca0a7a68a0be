"""The only fork: limit -> journal -> hub.  No state of its own, no branch on a sink's kind."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from .clock import ClockRules
from .errors import Overloaded
from .reading import Description, Mark, Presence, Reading

if TYPE_CHECKING:
    from .codecs import Draft
    from .devices import Device
    from .hub import Hub
    from .journal import Journal
    from .liveness import Status

__all__ = ["Pipeline"]


class Pipeline:
    """Takes what the device endpoint has checked; ``on_presence`` are told of changes, for what is no stream."""

    def __init__(
        self,
        journal: Journal,
        hub: Hub[Any],
        on_presence: list[Callable[[Device], None]] | None = None,
        *,
        clock_rules: ClockRules | None = None,
    ) -> None:
        self._append = journal.append
        self._hub = hub
        self._clock_rules = clock_rules or ClockRules()
        self.on_presence = on_presence if on_presence is not None else []

    def admit(self, device: Device, draft: Draft, received: int, size: int = 0, *, delay: bool = False) -> float:
        """Keep a reading of ``device``; returns 0.0, or the seconds until its rate allows it (nothing is kept then).

        With ``delay`` it is kept all the same, and the seconds are how long to take nothing more.  ``size`` is its
        share of the message's bytes.  Raises :class:`~gateway.errors.Overloaded` when the journal has no room, and
        :class:`~gateway.errors.Refusal` for a time that the rules refuse; both have cost the rate.
        """
        values = draft.values
        bucket = device.bucket
        if not values and draft.seq and draft.seq == device.session.held and bucket.tokens > -bucket.burst:
            # Giving up what was held is not made to wait, up to a burst on credit.
            bucket.borrow(1.0)
            wait = 0.0
        else:
            wait = bucket.borrow(1.0) if delay else bucket.take(1.0)
            if wait and not delay:
                return wait
        time, flags = device.clock.stamp(draft.time, received, self._clock_rules)
        session = device.session
        ledger = device.ledger
        seq = draft.seq
        reading = Reading(device.name, session.id, seq, time, received, values, flags)
        offset = self._append(reading, device, (ledger.accepted + 1, seq or session.highest, session))
        ledger.accepted += 1
        if seq:
            missing = session.accept(seq)
            if missing:
                ledger.miss(missing)
        if values:
            self._hub.publish(reading, offset, size)
        return wait

    def refuse(self, device: Device, seq: int) -> None:
        """``seq`` was refused for good: the sequence moves on, and an ack may cover it."""
        session = device.session
        self._append(Mark(device.name, session.id, seq), device, (device.ledger.accepted, seq, session))
        device.ledger.miss(session.accept(seq))

    def presence(self, device: Device, status: Status) -> None:
        """The device changed its state: journalled, shown, told."""
        device.status = status
        session = device.session.id if device.session.resumable else ""
        # A journal without room loses no state: the book's snapshot holds it.
        with suppress(Overloaded):
            self._append(Presence(device.name, status.state, status.since, status.reason, session))
        self.shown(device)
        for told in self.on_presence:
            told(device)

    def shown(self, device: Device) -> None:
        """Something about the device's state is to be shown that is no change of it."""
        self._hub.presence(device)

    def describe(self, device: Device, body: dict[str, object], received: int) -> None:
        """The device said what it is; raises :class:`~gateway.errors.Overloaded` when the journal has no room."""
        if body != device.described:
            self._append(Description(device.name, received, body))
            device.described = body
