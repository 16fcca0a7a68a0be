"""How long what is of each level is kept."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Final

from gateway.history.schema import translated
from gateway.history.store import Store

__all__ = ["DAY_NS", "EXPIRE_S", "Retention"]

log = logging.getLogger(__name__)

DAY_NS: Final = 86_400 * 1_000_000_000
EXPIRE_S: Final = 3600.0  # how often what is too old is looked for, at most


class Retention:
    """``days``: those of readings, minutes and hours; 0: for ever.  Nothing is kept shorter than what is finer.

    ``kept``: the same in nanoseconds.  ``behind``: how far the oldest is beyond that, where it is more than a day;
    nanoseconds.  ``clock`` gives seconds since the epoch.
    """

    def __init__(self, days: tuple[float, float, float], clock: Callable[[], float]) -> None:
        self.behind = 0
        self.kept: list[int] = []
        self._clock = clock
        for level in days:
            length = int(level * DAY_NS)
            if self.kept:
                length = max(length, self.kept[-1]) if length and self.kept[-1] else 0
            self.kept.append(length)

    def limits(self, store: Store, uptime: float) -> list[int]:
        """Before which time what is of each level is to go now, from shared chunks to begin with.

        The clock may be wrong, far ahead above all after a start: more than a day of what there is never goes at once,
        nor in an hour of ``uptime``.  For the writer's thread; raises :class:`~gateway.errors.HistoryError`.
        """
        now = int(self._clock() * 1e9)
        limits, behind = [], 0
        with translated("cannot tidy the history"):
            for level, kept in enumerate(self.kept):
                before = now - kept if kept else -(1 << 62)
                oldest = store.oldest(level)
                if oldest is not None and before - oldest > DAY_NS:
                    behind = max(behind, before - oldest)
                    before = oldest if uptime < EXPIRE_S else oldest + DAY_NS
                limits.append(before)
            store.merger.sort_old(limits[0])
        if behind and not self.behind:
            log.warning("the history is %d days behind its retention: is the clock right?", behind // DAY_NS)
        self.behind = behind
        return limits

    def problem(self) -> str:
        """What is wrong, in words; empty: nothing."""
        if not self.behind:
            return ""
        return (
            f"The history reaches {self.behind // DAY_NS} days further back than it is to be kept, or the clock is"
            " wrong: a day of it is deleted an hour"
        )
