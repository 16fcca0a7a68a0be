"""Why readings of a device were refused: counts by code, and the last words, since the gateway started.

Bounds: one entry a device in the book, in it one count a code; the device endpoint's codes are fixed in number.
"""

from __future__ import annotations

from ..errors import Refusal

__all__ = ["Refusals", "Refused"]


class Refused:
    """What one device was refused: ``counts`` by code; the last refusal's time (ns), code and detail."""

    __slots__ = ("code", "counts", "detail", "time")

    def __init__(self) -> None:
        self.counts: dict[str, int] = {}
        self.time = 0
        self.code = ""
        self.detail = ""


class Refusals:
    """All devices that were refused anything, by name."""

    def __init__(self) -> None:
        self._devices: dict[str, Refused] = {}

    def note(self, device: str, refusal: Refusal, now: int) -> None:
        """``refusal`` is being said to ``device``; ``now`` in nanoseconds."""
        refused = self._devices.get(device)
        if refused is None:
            refused = self._devices[device] = Refused()
        code = refusal.code
        refused.counts[code] = refused.counts.get(code, 0) + 1
        refused.time, refused.code, refused.detail = now, code, str(refusal)[:200]

    def of(self, device: str) -> Refused | None:
        """What the device was refused, None where nothing was."""
        return self._devices.get(device)
