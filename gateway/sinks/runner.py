"""One sink's machinery: from its cursor to its far side, with patience.

Readings are read from the cursor, written, and confirmed, in order, one batch at a time.  What goes wrong
decides what happens (see ``base`` for who raises what):

  Unavailable   state "waiting"; the same again after a delay (``backoff``)
  Stopped       state "stopped"; the same again every ``stopped_retry_s`` and on ``retry_now``
  Rejected      the named items to the dead letters; the others again, unless they are safe
  Refused       halved until one reading is left, which goes to the dead letters
  anything else state "stopped", the traceback logged: a fault of ours must not cost a reading

Should ``refused_in_a_row`` readings be refused with none taken in between, then it is the far side that is
set up wrongly and not the readings: the state is "stopped" until one is taken.

The second door (``set_state``) holds the latest value of each key; what is not yet known on the far side goes
before the next batch, and all of it goes again when the connection is new.

Memory: one batch and the task that reads the next.  Nothing is queued here.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections import deque
from typing import TYPE_CHECKING

from gateway.errors import GatewayError, JournalError
from gateway.reading import Batch, Mark, Reading
from gateway.sinks.backoff import Backoff
from gateway.sinks.base import Cursor, Key, Refused, Rejected, Sink, Stopped, Unavailable
from gateway.sinks.deadletters import DeadLetters, DeadLettersFull

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Runner"]

log = logging.getLogger(__name__)

STATES_AT_ONCE = 1000
LAG_S = 5.0  # how often a sink that makes things safe later is asked again while nothing comes
CLOSE_S = 3.0  # how long a sink may take to part from its far side
BROKEN_HINT = "a fault in the gateway: its log has the details"


class Runner:
    """Drives ``sink`` from ``cursor`` while ``run`` runs.

    ``state`` is ``idle`` (nothing tried yet), ``ok``, ``waiting`` or ``stopped``; for the last two
    ``reason``, ``hint`` and ``next_try`` (on ``clock``, seconds) say why and until when.  ``dead_letters``
    None: what will never be taken stops the sink.
    """

    def __init__(
        self,
        sink: Sink,
        cursor: Cursor,
        *,
        max_readings: int = 1000,
        max_delay: float = 0.25,
        dead_letters: DeadLetters | None = None,
        retry_least_s: float = 0.5,
        retry_most_s: float = 30.0,
        retry_asked_s: float = 3600.0,
        stopped_retry_s: float = 60.0,
        refused_in_a_row: int = 100,
        lag_s: float = LAG_S,
        clock: Callable[[], float] = time.monotonic,
        rng: random.Random | None = None,
        on_taken: Callable[[], None] = lambda: None,
    ) -> None:
        self.sink = sink
        self.taken = cursor.position.offset
        """Readings below this offset were taken by the far side, or put aside."""
        self._on_taken = on_taken
        self.state = "idle"
        self.reason = ""
        self.hint = ""
        self.next_try: float | None = None
        self._cursor = cursor
        self._max_readings, self._max_delay = max_readings, max_delay
        self._dead_letters = dead_letters
        self._stopped_retry_s = stopped_retry_s
        self._refused_in_a_row = refused_in_a_row
        self._lag_s = lag_s
        self._clock = clock
        self._retry_most_s = retry_most_s
        self._backoff = Backoff(retry_least_s, retry_most_s, retry_asked_s, rng or random.Random())
        # Bounded by the number of keys, that is of devices: only the latest value of each is held.
        self._states: dict[Key, bytes | None] = {}
        self._unsent: dict[Key, None] = {}
        # What is left of the batch that is being written, in order.
        self._parts: deque[Batch] = deque()
        self._offset = self._safe = cursor.position.offset
        self._read = cursor.position.readings  # readings below _offset
        self._wake: asyncio.Event = asyncio.Event()
        self._hurry = False
        self._stopping = False
        self._task: asyncio.Task[None] | None = None
        self._next: asyncio.Task[Batch] | None = None
        self._failed_at = clock()
        self._refused = 0
        self._delivered = self._retries = self._batches = self._put_aside = self._states_sent = 0
        self._write_s = self._write_s_sum = 0.0
        sink.lost = self._lost

    # -- what others call, on the loop's thread --

    @property
    def pending(self) -> int:
        """Readings stored and not yet safe on the far side."""
        return self._cursor.pending

    @property
    def behind(self) -> int:
        """Readings stored and not yet taken by the far side: less than ``pending`` where it makes things safe later."""
        stored = self._cursor.position.readings + self._cursor.pending
        return max(0, stored - self._read) + sum(part.readings for part in self._parts)

    def set_state(self, key: Key, value: bytes | None) -> None:
        """Make ``value`` the state of ``key`` on the far side; ``None`` clears it.  Never waits."""
        if key in self._states and self._states[key] == value:
            return
        self._states[key] = value
        self._unsent[key] = None
        self._wake.set()

    def retry_now(self) -> None:
        """Try again at once, whatever is waited for."""
        self._hurry = True
        self._wake.set()

    def health(self) -> dict[str, object]:
        """State in words and numbers, for people."""
        wait = None if self.next_try is None else round(max(0.0, self.next_try - self._clock()), 1)
        return {
            "state": self.state,
            "reason": self.reason,
            "hint": self.hint,
            "next_try_s": wait,
            "pending": self.pending,
            "behind": self.behind,
            "dead_letters": self._dead_letters.count if self._dead_letters else 0,
        }

    def stats(self) -> dict[str, float]:
        """For the metrics.

        ``confirmed``, ``overflowed`` and ``lost`` (readings; the first holds the other two) are cumulative over
        restarts, the others are of this process or of now.
        """
        return {
            "confirmed": self._cursor.position.readings,
            "delivered": self._delivered,
            "pending": self.pending,
            "behind": self.behind,
            "overflowed": self._cursor.overflowed,
            "lost": self._cursor.lost,
            "dead_lettered": self._put_aside,
            "dead_letters": self._dead_letters.count if self._dead_letters else 0,
            "retries": self._retries,
            "batches": self._batches,
            "states_sent": self._states_sent,
            "states_pending": len(self._unsent),
            "write_seconds": self._write_s,
            "write_seconds_sum": self._write_s_sum,
            "up": float(self.state in ("idle", "ok")),
            "stopped": float(self.state == "stopped"),
            **self.sink.stats(),
        }

    async def run(self) -> None:
        """Work until ``stop``, or until cancelled; closes the sink at the end."""
        self._task = asyncio.current_task()
        try:
            while True:
                try:
                    await self._open()
                    await self._work()
                    return
                except JournalError as error:
                    # The journal was closed under us: nothing is left to do, and nothing is lost.
                    self.state, self.reason = "stopped", str(error)
                    log.error("sink %s: %s", self.sink.name, error)
                    return
                except Exception as error:
                    log.exception("sink %s: fault", self.sink.name)
                    if self._stopping:
                        return
                    await self._stand(f"{type(error).__name__}: {error}", BROKEN_HINT)
        finally:
            if self._next is not None:
                self._next.cancel()
            await self._close()

    async def stop(self, timeout: float) -> None:
        """Hand over what is committed, while the far side takes it, then end ``run``.

        Takes at most ``timeout`` seconds and the ``CLOSE_S`` that the sink has for parting.
        """
        self._stopping = True
        self._wake.set()
        task = self._task
        if task is None or task.done():
            return
        await asyncio.wait({task}, timeout=timeout)
        if not task.done():
            task.cancel()
            await asyncio.wait({task})

    # -- the work --

    async def _open(self) -> None:
        if self._dead_letters is not None:
            await asyncio.to_thread(self._dead_letters.open)
        await self.sink.open()

    async def _work(self) -> None:
        while True:
            try:
                if await self.sink.ready():
                    self._set_ok()
                    self._unsent.update(dict.fromkeys(self._states))
                if self._unsent:
                    await self._send_states()
                if self._parts:
                    await self._write()
                elif self._stopping and self._drained():
                    return
                else:
                    await self._fetch()
            except Unavailable as error:
                if self._stopping:
                    return
                await self._back_off(error)
            except (Stopped, DeadLettersFull) as error:
                if self._stopping:
                    return
                await self._stand(str(error), error.hint)

    async def _fetch(self) -> None:
        """Wait for readings, or for anything else to do."""
        if self._next is None:
            self._next = asyncio.ensure_future(
                self._cursor.read(
                    self._offset,
                    max_readings=self._max_readings,
                    max_delay=0.0 if self._stopping else self._max_delay,
                )
            )
        woken = asyncio.ensure_future(self._wake.wait())
        try:
            lag = self._lag_s if self._safe < self._offset else None
            done, _ = await asyncio.wait({self._next, woken}, timeout=lag, return_when=asyncio.FIRST_COMPLETED)
        finally:
            woken.cancel()
        self._wake.clear()
        if not done:
            self._confirm(await self.sink.write(Batch(self._offset, [], 0)))
        if self._next.done():
            task, self._next = self._next, None
            batch = task.result()
            self._offset = batch.end
            self._read += batch.readings
            self._parts.append(batch)

    async def _write(self) -> None:
        part = self._parts[0]
        started = self._clock()
        try:
            safe = await self.sink.write(part)
        except Refused as error:
            if part.readings > 1:
                middle = len(part.items) // 2
                self._parts.popleft()
                self._parts.extendleft((_slice(part, middle, len(part.items)), _slice(part, 0, middle)))
                return
            await self._put_away(part, {i: str(error) for i, item in enumerate(part.items) if _is_reading(item)})
            safe = part.end
        except Rejected as error:
            self._backoff.reset()
            await self._put_away(part, error.reasons)
            if not error.rest_safe:
                # Marks keep the offsets in their places, and every layout skips them.
                self._parts[0] = _without(part, error.reasons)
                return
            safe = part.end
            self._taken(part.readings - len(error.reasons), started)
        else:
            self._taken(part.readings, started)
        self._parts.popleft()
        self._confirm(safe)
        self.taken = part.end
        self._on_taken()

    def _confirm(self, safe: int) -> None:
        if safe > self._safe:
            self._safe = safe
            self._cursor.confirm(safe)

    def _taken(self, readings: int, started: float) -> None:
        self._write_s = self._clock() - started
        self._write_s_sum += self._write_s
        self._batches += 1
        self._delivered += readings
        if readings:
            self._refused = 0
        self._backoff.reset()
        self._set_ok()

    async def _put_away(self, part: Batch, reasons: dict[int, str]) -> None:
        if self._dead_letters is None:
            raise Stopped(f"refused: {next(iter(reasons.values()), '')}", hint="there are no dead letters here")
        self._refused += len(reasons)
        if self._refused > self._refused_in_a_row:
            # Not counted further: the first that is taken proves the far side right again.
            self._refused = self._refused_in_a_row
            raise Stopped(
                f"everything is refused, last: {next(iter(reasons.values()), '')}",
                hint="the far side seems to be set up wrongly; what it refused before is in the dead letters",
            )
        letters = [(part.base + index, reason, part.items[index]) for index, reason in sorted(reasons.items())]
        try:
            new = await asyncio.to_thread(self._dead_letters.append, letters)
        except OSError as error:
            raise Stopped(f"dead letters: {error}", hint="the state directory has to be writable") from error
        self._put_aside += new
        for offset, reason, _ in letters[:3]:
            log.warning("sink %s: offset %d to the dead letters: %s", self.sink.name, offset, reason)

    async def _send_states(self) -> None:
        while self._unsent:
            keys = [key for key, _ in zip(self._unsent, range(STATES_AT_ONCE), strict=False)]
            changes = {key: self._states[key] for key in keys}
            await self.sink.state(changes)
            self._states_sent += len(changes)
            self._backoff.reset()
            self._set_ok()
            for key, value in changes.items():
                # What changed meanwhile is unsent still.
                if self._states[key] == value:
                    del self._unsent[key]
                    if value is None:
                        del self._states[key]

    def _drained(self) -> bool:
        return not self._parts and not self._unsent and self._cursor.is_drained(self._offset)

    # -- waiting --

    async def _back_off(self, error: Unavailable) -> None:
        now = self._clock()
        if now - self._failed_at > 2 * self._retry_most_s:
            self._backoff.reset()
        self._failed_at = now
        delay = self._backoff.next(error.retry_after_s)
        if self.state != "waiting":
            log.warning("sink %s: %s", self.sink.name, error)
        self._retries += 1
        await self._pause("waiting", str(error), error.hint, delay)

    async def _stand(self, reason: str, hint: str) -> None:
        if (self.state, self.reason) != ("stopped", reason):
            log.error("sink %s stopped: %s%s", self.sink.name, reason, f" ({hint})" if hint else "")
        self._retries += 1
        await self._pause("stopped", reason, hint, self._stopped_retry_s)

    async def _pause(self, state: str, reason: str, hint: str, delay: float) -> None:
        self.state, self.reason, self.hint = state, reason, hint
        self.next_try = until = self._clock() + delay
        while not self._stopping and not self._hurry and (left := until - self._clock()) > 0:
            self._wake.clear()
            try:
                async with asyncio.timeout(left):
                    await self._wake.wait()
            except TimeoutError:
                break
        self._hurry = False
        self.next_try = None

    def _set_ok(self) -> None:
        if self.state not in ("ok", "idle"):
            log.info("sink %s works again", self.sink.name)
        self.state, self.reason, self.hint = "ok", "", ""

    def _lost(self) -> None:
        self._wake.set()

    async def _close(self) -> None:
        try:
            async with asyncio.timeout(CLOSE_S):
                await self.sink.close()
        except TimeoutError:
            log.warning("sink %s: did not part within %g s", self.sink.name, CLOSE_S)
        except GatewayError as error:
            log.warning("sink %s: %s", self.sink.name, error)


def _is_reading(item: object) -> bool:
    return type(item) is Reading


def _slice(batch: Batch, start: int, stop: int) -> Batch:
    items = batch.items[start:stop]
    return Batch(batch.base + start, items, sum(map(_is_reading, items)))


def _without(batch: Batch, indices: dict[int, str]) -> Batch:
    items = list(batch.items)
    for index in indices:
        item = items[index]
        items[index] = Mark(item.device, getattr(item, "session", ""), getattr(item, "seq", 0))
    return Batch(batch.base, items, sum(map(_is_reading, items)))
