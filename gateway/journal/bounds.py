"""What stands in the way of appending: the bounds on disk, and a disk that fails.  Pure.

``full``: the segments have reached ``max_bytes``.  ``low``: less than ``keep_free`` bytes are free on the file system.
``failure``: the last write or sync failed, in words.
"""

from __future__ import annotations

__all__ = ["Bounds"]


class Bounds:
    """Judges bytes; sizes in bytes."""

    def __init__(self, max_bytes: int, keep_free: int) -> None:
        self.max_bytes = max_bytes
        self.keep_free = keep_free
        self.free = 0
        """Bytes free on the file system when last looked at."""
        self.full = False
        self.failure = ""

    @property
    def low(self) -> bool:
        """Whether the file system is short of space."""
        return self.free < self.keep_free

    def need(self, held: int, *, look_at_free: bool) -> int:
        """How many bytes must go from a journal of ``held`` bytes to be within the bounds; 0 or less: none."""
        over = held - self.max_bytes + 1
        return max(over, self.keep_free - self.free) if look_at_free else over

    def judge(self, held: int) -> None:
        """Take in that the journal has ``held`` bytes."""
        self.full = held >= self.max_bytes

    def presses(self, alone: int, held: int) -> bool:
        """Whether ``alone`` of the ``held`` bytes, which wait for nobody but ourselves, should go before long."""
        return 2 * alone >= self.max_bytes or 4 * held >= 3 * self.max_bytes or self.low

    @property
    def reason(self) -> str:
        """Why nothing may be appended, in words; empty if it may."""
        if self.failure:
            return f"the disk fails: {self.failure}"
        if self.full:
            return f"the journal has reached its bound of {_mib(self.max_bytes)} (GATEWAY_JOURNAL__MAX_BYTES)"
        if self.low:
            kept = f"GATEWAY_JOURNAL__KEEP_FREE_BYTES keeps {_mib(self.keep_free)}"
            return f"the disk has only {_mib(self.free)} free, and {kept}"
        return ""


def _mib(size: int) -> str:
    return f"{size / (1 << 20):.6g} MiB"
