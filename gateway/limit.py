"""Rate limits: a sliding window, a token bucket, and what is said of events that repeat themselves.

Pure arithmetic on a clock that is passed in (seconds, any origin).  A clock that jumps backwards never grants anything
and never blocks for longer than a fresh start would; one that jumps forwards grants at most a full window or burst.
"""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

__all__ = ["Repeated", "Repeats", "SlidingWindow", "TokenBucket"]

# What float arithmetic may lose between a wait that was named and the take after it.
_SLACK = 1e-9


class SlidingWindow:
    """At most ``max_requests`` in any ``window`` seconds; a request exactly ``window`` old still counts.

    Holds the times of the last ``max_requests`` allowed requests and nothing else.  Raises ``ValueError`` for a limit
    below 1 or a window that is not positive.
    """

    __slots__ = ("_allowed", "_clock", "max_requests", "window")

    def __init__(self, max_requests: int, window: float, *, clock: Callable[[], float] = time.monotonic) -> None:
        if max_requests < 1:
            raise ValueError("max_requests must be at least 1")
        if not 0 < window < math.inf:
            raise ValueError("window must be a positive number of seconds")
        self.max_requests = max_requests
        self.window = window
        self._clock = clock
        self._allowed: deque[float] = deque()

    def allow(self) -> bool:
        """Whether a request may pass now; one that may is counted, one that may not costs nothing."""
        now = self._clock()
        allowed = self._allowed
        if allowed and allowed[-1] > now:
            # The clock went back: what was allowed counts as if it had been allowed just now.
            self._allowed = allowed = deque([min(at, now) for at in allowed])
        while allowed and now - allowed[0] > self.window:
            allowed.popleft()
        if len(allowed) >= self.max_requests:
            return False
        allowed.append(now)
        return True

    def idle(self) -> bool:
        """Whether nothing was allowed within the window."""
        return not self._allowed or self._clock() - self._allowed[-1] > self.window


class TokenBucket:
    """``rate`` tokens a second, at most ``burst`` saved up; starts full.

    Raises ``ValueError`` where ``rate`` or ``burst`` is not a positive number.
    """

    __slots__ = ("_at", "_clock", "_tokens", "burst", "rate")

    def __init__(self, rate: float, burst: float, *, clock: Callable[[], float] = time.monotonic) -> None:
        if not 0 < rate < math.inf:
            raise ValueError("rate must be a positive number of tokens a second")
        if not 0 < burst < math.inf:
            raise ValueError("burst must be a positive number of tokens")
        self.rate = rate
        self.burst = burst
        self._clock = clock
        self._tokens = float(burst)
        self._at = clock()

    def take(self, n: float = 1.0) -> float:
        """Take ``n`` tokens and return 0.0, or take none and return the seconds until ``n`` would be there.

        More than ``burst`` will never be there: ``math.inf``.  Raises ``ValueError`` for a negative ``n``.
        """
        if n < 0:
            raise ValueError("cannot take a negative number of tokens")
        now = self._clock()
        elapsed = now - self._at
        self._at = now
        tokens = self._tokens
        if elapsed > 0:
            tokens = min(self.burst, tokens + elapsed * self.rate)
        if tokens + _SLACK * (1.0 + self.rate) >= n and n <= self.burst:
            self._tokens = tokens - n if tokens > n else 0.0
            return 0.0
        self._tokens = tokens
        return math.inf if n > self.burst else (n - tokens) / self.rate

    def borrow(self, n: float = 1.0) -> float:
        """Take ``n`` tokens whether they are there or not; returns the seconds until the debt is paid, 0.0 without one.

        Raises ``ValueError`` for a negative ``n``.
        """
        if n < 0:
            raise ValueError("cannot take a negative number of tokens")
        now = self._clock()
        elapsed = now - self._at
        self._at = now
        if elapsed > 0:
            self._tokens = min(self.burst, self._tokens + elapsed * self.rate)
        self._tokens -= n
        return max(0.0, -self._tokens / self.rate)

    @property
    def tokens(self) -> float:
        """How many tokens there are now, at most ``burst``; below 0 after :meth:`borrow`."""
        elapsed = self._clock() - self._at
        return min(self.burst, self._tokens + elapsed * self.rate) if elapsed > 0 else self._tokens


@dataclass(frozen=True, slots=True)
class Repeated:
    """``count`` events of a kind that were not said, in ``seconds``; ``who`` is empty for those of several.

    ``words`` are those of the last of them.
    """

    kind: str
    who: str
    count: int
    seconds: float
    words: str


class Repeats:
    """Which of many like events are said: the first few of each ``who``, then a count each ``every`` seconds.

    Bounds: in a period ``first`` events of one ``who``, ``lines`` of a kind, and as many counts; ``keys`` of kind and
    ``who`` are told apart.  What is beyond these is counted for its kind, under no name.  Kinds are the caller's own,
    and few.
    """

    def __init__(
        self,
        *,
        first: int = 3,
        every: float = 10.0,
        lines: int = 20,
        keys: int = 1_000,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._first = first
        self._every = every
        self._lines = lines
        self._most = keys
        self._clock = clock
        self._known: dict[tuple[str, str], _Repeat] = {}
        self._kinds: dict[str, _Repeat] = {}
        self._since = 0.0  # the period's start, while there is anything in it

    def note(self, kind: str, who: str, words: str = "", count: int = 1) -> bool:
        """An event, or ``count`` at once; whether it is to be said now."""
        repeat = self._known.get((kind, who))
        if repeat is None:
            return self._new(kind, who, words, count)
        if repeat.left > 0 and self._room(kind):
            repeat.left -= 1
            return True
        repeat.more += count
        repeat.words = words
        return False

    def _new(self, kind: str, who: str, words: str, count: int) -> bool:
        if not self._kinds:
            self._since = self._clock()
        of_kind = self._kinds.get(kind)
        if of_kind is None:
            of_kind = self._kinds[kind] = _Repeat(self._lines)
        if len(self._known) < self._most and self._room(kind):
            self._known[kind, who] = _Repeat(self._first - 1)
            return True
        of_kind.more += count
        of_kind.words = words
        return False

    def _room(self, kind: str) -> bool:
        of_kind = self._kinds[kind]
        of_kind.left -= 1
        return of_kind.left >= 0

    def due(self, *, early: bool = False) -> list[Repeated]:
        """What was not said, once a period is over, or now if ``early``; to be called more often than that."""
        now = self._clock()
        seconds = now - self._since
        if not self._kinds or (seconds < self._every and not early):
            return []
        self._since = now
        found: dict[str, list[Repeated]] = {kind: [] for kind in self._kinds}
        for (kind, who), repeat in list(self._known.items()):
            if not repeat.more:  # it has become quiet
                del self._known[kind, who]
                continue
            found[kind].append(Repeated(kind, who, repeat.more, seconds, repeat.words))
            repeat.left = repeat.more = 0
        told = []
        for kind, some in found.items():
            of_kind = self._kinds[kind]
            some.sort(key=lambda repeated: -repeated.count)
            told += some[: self._lines]
            more = of_kind.more + sum(repeated.count for repeated in some[self._lines :])
            if more:
                words = of_kind.words or (some[-1].words if some else "")
                told.append(Repeated(kind, "", more, seconds, words))
            if more or some:
                self._kinds[kind] = _Repeat(self._lines)
            else:
                del self._kinds[kind]
        return told


class _Repeat:
    __slots__ = ("left", "more", "words")

    def __init__(self, left: int) -> None:
        self.left = left  # may still be said in this period
        self.more = 0  # were not
        self.words = ""
