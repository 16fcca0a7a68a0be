"""The device's side of delivery: what is unacked, what may go now, where to go back to.

Pure: no clock, no I/O, no encoding; time (monotonic seconds) is an argument.  PROTOCOL section 3, "Delivery".

Every reading gets the next number of one sequence and stays here until it is decided.  Two queues, in order,
hold them::

    acked ... | in flight: written on this connection | queued: to be written |
              ^ the oldest undecided                   ^ ``take`` goes on here

- ``ack N`` decides everything up to N.
- ``throttled`` at S: nothing from S on was kept.  What is in flight from S on goes back to the front of the
  queue, and nothing is taken until ``retry_after``.  Then S goes alone, as a probe; once it is decided, or
  ``PROBE_S`` have passed without another notice, two more, then four, and so on: what a gateway that stays
  full drops is a reading a notice, not the whole backlog.
- A lost connection puts all in flight back; the next ``welcome`` says by ``last_seq`` what arrived all the
  same.

So the gateway sees the sequence in order, with repeats and without holes, whatever the link does.  The
queue's front is always sent before anything behind it: that is what lets the gateway acknowledge
cumulatively.

Pacing: the gateway tells its rate in ``welcome``; a backlog is sent at that rate instead of being thrown at
the limit again and again.  The bucket here is a tenth smaller than the gateway's, since the network bunches
messages.  An unpaced outbox ignores the rate until it is throttled, and then keeps to it until its backlog is
gone.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Literal

from .errors import BufferFull
from .histogram import Histogram

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Level", "Outbox"]

Level = Literal["durable", "delivered", "none"]
Entry = tuple[int, bytes, float]  # sequence number, encoded reading, when it was handed over (GIVEN_UP: no reading)

MAX_READINGS = 500  # a message; gateways take 1,000 by default
MAX_BYTES = 65_536  # a message, whatever more the gateway takes: larger ones only delay the ping behind them
HEAD = 3  # bytes around an array: the larger of [] and MessagePack's array 16
PACE_S = 0.05  # a paced backlog goes in messages of so much time
PROBE_S = 0.25
GIVEN_UP = -1.0


class Outbox:
    """Unacked readings of one session, at most ``max_unacked``; at the bound :meth:`put` raises
    :class:`BufferFull`.

    ``empty(seq)`` encodes a reading without values: it gives ``seq`` up at the gateway.  With level ``none``
    readings carry no number, and one that was written is forgotten.
    """

    def __init__(
        self,
        empty: Callable[[int], bytes],
        *,
        max_unacked: int = 10_000,
        level: Level = "durable",
        paced: bool = True,
        latency: Histogram | None = None,
    ) -> None:
        if max_unacked < 1:
            raise ValueError("max_unacked: at least 1")
        self.max_unacked = max_unacked
        self.level = level
        self.latency = Histogram() if latency is None else latency
        self._empty = empty
        self._paced = paced
        self._flight: deque[Entry] = deque()
        self._queue: deque[Entry] = deque()
        self._open = False
        self._pause_until = 0.0
        self._told = 0.0  # tokens a second that the gateway allows; 0: it did not say
        self._rate = 0.0  # tokens a second that are kept to; 0: not paced
        self._room = 1.0  # tokens the bucket holds
        self._tokens = -1.0  # below 0: never filled
        self._filled = 0.0
        # After a notice: only numbers up to here go, the last `_probe` of them as probes.  0: as many as there are.
        self._gate = 0
        self._probe = 0
        self._probed = 0.0  # when the last of them was written
        self.max_bytes = MAX_BYTES
        self.next_seq = 1
        self.highest = 0  # the greatest number ever written
        self.decided = 0  # everything up to here is decided
        self.taken = 0  # readings put in
        self.sent = 0  # readings written, each once
        self.resent = 0  # readings written again
        self.acked = 0
        self.refused = 0
        self.throttled = 0  # notices
        self.overloaded = 0  # notices

    def __len__(self) -> int:
        """Readings that are not decided yet (level ``none``: not written yet)."""
        return len(self._flight) + len(self._queue)

    @property
    def queued(self) -> int:
        """Those of them that are not on the wire."""
        return len(self._queue)

    @property
    def probing(self) -> bool:
        """Whether an ack or a refusal may let more go."""
        return self._gate > 0

    @property
    def full(self) -> bool:
        """Whether :meth:`put` would raise."""
        return len(self._flight) + len(self._queue) >= self.max_unacked

    def put(self, payload: bytes, now: float) -> int:
        """Take the encoded reading of number ``next_seq``; that number is returned (0 with level ``none``).

        Raises :class:`BufferFull`, and ``ValueError`` for what no message could carry.
        """
        if len(payload) > self.max_bytes:
            raise ValueError(f"a reading of {len(payload)} bytes; the gateway takes {self.max_bytes}")
        if len(self._flight) + len(self._queue) >= self.max_unacked:
            raise BufferFull(f"{self.max_unacked} readings wait for their ack")
        self.taken += 1
        seq = 0
        if self.level != "none":
            seq = self.next_seq
            self.next_seq = seq + 1
        self._queue.append((seq, payload, now))
        return seq

    # What the link says

    def welcome(
        self, last_seq: int, now: float, *, per_s: float = 0.0, burst: float = 0.0, max_bytes: int = MAX_BYTES
    ) -> list[int] | None:
        """A connection is ready.  The numbers of readings that grew too big for it, now given up, are
        returned.

        ``None``: the session is not ours alone, since its ``last_seq`` was never sent from here.  Nothing was
        changed; the caller takes a session of another name, in which the numbers simply go on.
        """
        if last_seq > self.highest:
            return None
        self.max_bytes = max(1, min(max_bytes, MAX_BYTES))
        self._told = max(0.0, per_s)
        self._rate = self._told if self._paced or self._gate else 0.0
        self._room = max(1.0, burst * 0.9)
        if self._tokens < 0:
            self._tokens = self._room
            self._filled = now
        self._open = True
        if self.level == "delivered":
            # These are safe at the gateway and need not be sent again; their ack is still to come.
            while self._queue and self._queue[0][0] <= last_seq:
                self._flight.append(self._queue.popleft())
        else:
            self.ack(last_seq, now)
        return self._give_up_big()

    def _give_up_big(self) -> list[int]:
        big = [entry[0] for entry in self._queue if len(entry[1]) > self.max_bytes]
        if big:
            self._queue = deque(
                entry if len(entry[1]) <= self.max_bytes else (entry[0], self._empty(entry[0]), GIVEN_UP)
                for entry in self._queue
                if len(entry[1]) <= self.max_bytes or entry[0]
            )
            self.refused += len(big)
        return big

    def lost(self) -> None:
        """The connection is gone: what was in flight is to be sent again, unless the next welcome says
        otherwise.
        """
        self._open = False
        self._queue.extendleft(reversed(self._flight))
        self._flight.clear()

    def ack(self, seq: int, now: float) -> int:
        """Everything up to ``seq`` is decided.  How many readings that frees is returned."""
        # Never beyond what was written: no ack can speak of it.
        seq = min(seq, self.highest)
        if seq <= self.decided:
            return 0
        freed = self._drop(self._flight, seq, now)
        if not self._flight:
            # After a go-back the ack of an earlier copy may still arrive.
            freed += self._drop(self._queue, seq, now)
        self.decided = seq
        self._settle()
        return freed

    def _drop(self, entries: deque[Entry], seq: int, now: float) -> int:
        freed = 0
        record = self.latency.record
        while entries and entries[0][0] <= seq:
            since = entries.popleft()[2]
            freed += 1
            if since != GIVEN_UP:
                self.acked += 1
                record(now - since)
        return freed

    def held_back(self, seq: int, retry_after_s: float, now: float, *, overloaded: bool = False) -> None:
        """``throttled``, or the error ``overloaded``, at ``seq`` (0: a reading without a number was
        dropped).
        """
        if overloaded:
            self.overloaded += 1
        else:
            self.throttled += 1
        self._pause_until = max(self._pause_until, now + retry_after_s)
        self._rate = self._told
        self._tokens = 0.0
        self._filled = now
        if seq <= self.decided:
            return
        while self._flight and self._flight[-1][0] >= seq:
            self._queue.appendleft(self._flight.pop())
        front = self._queue[0][0] if self._queue else self.next_seq
        if front > seq and seq <= self.highest:
            # The gateway waits for a number that is decided here: give it up, or all behind it is dropped.
            self._queue.appendleft((seq, self._empty(seq), GIVEN_UP))
        if self._queue:
            self._gate, self._probe = self._queue[0][0], 1

    def refuse(self, seq: int) -> bool:
        """An ``error`` names ``seq``: decided, not to be sent again.  Whether it was still undecided is
        returned.
        """
        for entries in (self._flight, self._queue):
            for index, entry in enumerate(entries):
                if entry[0] == seq:
                    del entries[index]
                    self._settle()
                    if entry[2] != GIVEN_UP:
                        self.refused += 1
                        return True
                    return False
        return False

    # What may go

    def take(self, now: float) -> list[bytes]:
        """The readings of the next message, in order; they count as written.  Empty: nothing may go now."""
        queue = self._queue
        if not queue or not self._open or now < self._pause_until:
            return []
        allowed = len(queue)
        if self._gate:
            allowed = self._passing(now)
        if self._rate:
            self._fill(now)
            # A sum of fractions may miss a whole token by rounding.
            allowed = min(allowed, int(self._tokens + 1e-6))
        if allowed > MAX_READINGS:
            allowed = MAX_READINGS
        batch: list[bytes] = []
        left = self.max_bytes - HEAD
        while allowed > 0:
            entry = queue[0]
            size = len(entry[1]) + 1
            if size > left and batch:
                break
            left -= size
            allowed -= 1
            batch.append(entry[1])
            queue.popleft()
            if entry[0] > self.highest:
                self.highest = entry[0]
                self.sent += 1
            elif entry[0]:
                self.resent += entry[2] != GIVEN_UP
            else:
                self.sent += 1
            if entry[0]:
                self._flight.append(entry)
        if self._rate:
            self._tokens -= len(batch)
        if self._gate:
            self._probed = now
        self._settle()
        return batch

    def _passing(self, now: float) -> int:
        """How many of the queue the gate lets through; it opens further where what went through was kept."""
        queue, flight = self._queue, self._flight
        if queue[0][0] > self._gate:
            undecided = flight and flight[-1][0] > self._gate - self._probe
            if undecided and now < self._probed + PROBE_S:
                return 0
            self._probe *= 2
            if self._probe > MAX_READINGS:
                self._gate = 0
                return len(queue)
            self._gate = queue[0][0] + self._probe - 1
        return min(len(queue), self._gate + 1 - queue[0][0])

    def wait(self, now: float) -> float | None:
        """Seconds until :meth:`take` has something worth a message; ``None``: only an event can change
        that.
        """
        if not self._queue or not self._open:
            return None
        wait = self._pause_until - now
        most = len(self._queue)
        if self._gate:
            most = self._passing(now)
            if not most:
                wait = max(wait, self._probed + PROBE_S - now)
        if self._rate:
            self._fill(now)
            worth = max(1.0, min(most, self._rate * PACE_S, self._room))
            wait = max(wait, (worth - self._tokens) / self._rate)
        return max(0.0, wait)

    def _settle(self) -> None:
        """End what a notice began, once its backlog is gone."""
        if not self._queue:
            if not self._flight:
                self._gate = 0
            if not self._paced and not self._gate:
                self._rate = 0.0

    def _fill(self, now: float) -> None:
        self._tokens = min(self._room, self._tokens + (now - self._filled) * self._rate)
        self._filled = now
