"""What became of one message's readings."""

from __future__ import annotations

from ..devices import Device

__all__ = ["Outcome"]


class Outcome:
    """What became of one message's readings, to be said once."""

    __slots__ = ("beyond_rate", "blocked", "debt", "duplicate", "from_seq", "held", "overloaded", "stopped", "wait")

    def __init__(self) -> None:
        self.duplicate = False  # some were there already
        self.held = 0  # not kept for the rate, or behind one that was not kept
        self.blocked = False  # one could not be kept; from_seq and wait say which and for how long
        self.overloaded = False  # .. because the journal had no room
        self.beyond_rate = False  # .. because of the rate
        self.from_seq = 0
        self.wait = 0.0
        self.debt = 0.0  # seconds to read nothing (policy delay)
        self.stopped: set[Device] | None = None  # those that are beyond their rate

    def stop(self, device: Device) -> None:
        """The device is beyond its rate: what comes of it behind that, without a seq, is not kept either."""
        if self.stopped is None:
            self.stopped = set()
        self.stopped.add(device)

    @property
    def beyond(self) -> Device | None:
        """One that is beyond its rate."""
        return next(iter(self.stopped)) if self.stopped else None

    def stops(self, device: Device) -> bool:
        """Whether what comes of the device without a seq is not to be kept, where ``blocked``."""
        return self.overloaded or (self.stopped is not None and device in self.stopped)
