"""The time of a reading: its own, checked against the time of its receipt, or that of its receipt.

Pure: times are arguments, int64 nanoseconds.  Nothing here decides what is alive or within a rate: that runs on the
monotonic clock, so that a jump of the gateway's own clock touches neither.

Skew.  ``received - time`` of a reading is how far the device's clock is behind ours, plus how long the reading was on
its way or waited in the device.  The least of it over the last :data:`WINDOW_NS` to twice that is the skew: one reading
sent at once is enough, whatever backlog comes between.
"""

from __future__ import annotations

from typing import Literal

from .errors import Refusal
from .reading import ASSIGNED, FUTURE, FUTURE_AFTER_S, OLD, OLD_AFTER_S

__all__ = ["CLOCK_OFF_MS", "Action", "Clock", "ClockRules"]

Action = Literal["flag", "correct", "refuse"]

WINDOW_NS = 300 * 1_000_000_000
AHEAD_NS = 86_400 * 1_000_000_000
UNSET_NS = 1_577_836_800 * 1_000_000_000  # 2020: a clock that stands before it was not set since the power came
CLOCK_OFF_MS = 60_000  # a device's clock that differs by more is worth a word
SECOND = 1_000_000_000


class ClockRules:
    """What becomes of a reading whose time is more than ``old_after_s`` before its receipt or ``future_after_s`` after.

    ``flag`` keeps it as it is, ``correct`` gives it the time of receipt, ``refuse`` refuses it; all three count it.
    """

    __slots__ = ("future", "future_ns", "old", "old_ns")

    def __init__(
        self,
        old: Action = "flag",
        future: Action = "flag",
        *,
        old_after_s: float = OLD_AFTER_S,
        future_after_s: float = FUTURE_AFTER_S,
    ) -> None:
        self.old = old
        self.future = future
        self.old_ns = int(old_after_s * SECOND)
        self.future_ns = int(future_after_s * SECOND)


class Clock:
    """What is known of one device's clock; ``old`` and ``future`` count readings beyond the rules' limits."""

    __slots__ = ("_before", "_began", "_least", "future", "last", "old")

    def __init__(self, last: int = 0) -> None:
        self.last = last  # the greatest time assigned: times of receipt strictly increase
        self.old = 0
        self.future = 0
        self._began = 0  # of the window that is filled
        self._least: int | None = None
        self._before: int | None = None  # the least of the window before

    def stamp(self, time: int, received: int, rules: ClockRules) -> tuple[int, int]:
        """The time and the flags of a reading that came with ``time`` (-1: without one) at ``received``.

        Raises :class:`~gateway.errors.Refusal` (``bad_time``) where the rules say so.
        """
        if time < 0:
            time = self._assign(received)
            if time - received > rules.future_ns:
                self.future += 1
                return time, ASSIGNED | FUTURE
            return time, ASSIGNED
        behind = received - time
        least = self._least
        if not 0 <= received - self._began < WINDOW_NS:
            # A window is over, or our own clock has jumped.
            self._before = least if 0 <= received - self._began < 2 * WINDOW_NS else None
            self._began = received
            self._least = behind
        elif least is None or behind < least:
            self._least = behind
        if behind > rules.old_ns:
            self.old += 1
            flag, action, words = OLD, rules.old, "before"
        elif behind < -rules.future_ns:
            self.future += 1
            flag, action, words = FUTURE, rules.future, "after"
        else:
            return time, 0
        if action == "refuse":
            raise Refusal("bad_time", f"ts: {abs(behind) // SECOND} s {words} the gateway's clock")
        if action == "correct":
            return self._assign(received), ASSIGNED | flag
        return time, flag

    def _assign(self, received: int) -> int:
        """The time of receipt, later than the last one assigned.

        Where our clock was far ahead once, the times would stay there: beyond a day it begins anew.  A clock that was
        never set is no reason for it.
        """
        ahead = self.last - received
        if ahead < 0 or (ahead > AHEAD_NS and received > UNSET_NS):
            self.last = received
        else:
            self.last += 1
        return self.last

    @property
    def skew_ms(self) -> int | None:
        """How far the device's clock is ahead of ours (negative: behind), None while it has sent no time."""
        known = [least for least in (self._least, self._before) if least is not None]
        return -(min(known) // 1_000_000) if known else None
