"""The loss ledger: what became of every reading, and that the counts add up.

``received = stored + rejected + duplicate + throttled + dropped + in_flight`` at all times, where ``in_flight`` is what
was accepted and is not yet synced to disk.  A message that cannot be decoded counts as one received
and one rejected.
"""

from __future__ import annotations

__all__ = ["FIELDS", "Ledger"]

COUNT_MAX = (1 << 63) - 1
FIELDS = ("received", "stored", "rejected", "duplicate", "throttled", "dropped", "in_flight")


class Ledger:
    """Counts of readings of one device (or of all).

    ``received`` is counted at the door and ``accepted`` where a reading is handed to the journal, so that the sum is a
    check and not a definition.
    """

    __slots__ = ("accepted", "dropped", "duplicate", "missing", "received", "rejected", "stored", "throttled")

    def __init__(self, counts: tuple[int, ...] = (0, 0, 0, 0, 0, 0, 0)) -> None:
        (
            self.received,
            self.stored,
            self.rejected,
            self.duplicate,
            self.throttled,
            self.dropped,
            self.missing,  # gaps in the sequence: never received, so not part of the sum
        ) = counts
        self.accepted = self.stored

    def miss(self, count: int) -> None:
        """``count`` numbers of the sequence never came.  The count stops at what a file and a wire can hold."""
        self.missing = min(self.missing + count, COUNT_MAX)

    @property
    def in_flight(self) -> int:
        """Accepted and not yet durable."""
        return self.accepted - self.stored

    def settled(self) -> tuple[int, ...]:
        """The counts for a snapshot that stays true after a crash: what is in flight is not claimed."""
        return (
            self.received - self.in_flight,
            self.stored,
            self.rejected,
            self.duplicate,
            self.throttled,
            self.dropped,
            self.missing,
        )

    def add(self, other: Ledger) -> None:
        """Add the counts of another, for a total."""
        self.received += other.received
        self.accepted += other.accepted
        self.stored += other.stored
        self.rejected += other.rejected
        self.duplicate += other.duplicate
        self.throttled += other.throttled
        self.dropped += other.dropped
        # What a device says alone makes this one grow by more than what came.
        missing = self.missing + other.missing
        self.missing = missing if missing < COUNT_MAX else COUNT_MAX

    def as_dict(self) -> dict[str, int]:
        """The fields of the sum, in its order, and ``missing``."""
        counts = {field: getattr(self, field) for field in FIELDS}
        counts["missing"] = self.missing
        return counts
