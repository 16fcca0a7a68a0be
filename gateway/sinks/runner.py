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

The second door (``set_state``, ``tell``; ``seconddoor``) goes before the next batch.

Counts (``ledger``) are the cursor's, kept with its place: of the readings stored since it began, each is delivered, put
aside, dropped by the journal, lost by the disk, or pending.  A reading put aside is counted when its offset is
confirmed; what a crash parts from its letter comes again from the journal, and is then either put aside once more
(the letter stands there already) or taken (the letter goes).  When a dead letter is taken after all, first its
letter goes and then its count: a crash between claims less than is true, never more.

Between two batches one of dead letters goes, while somebody asked for that (``retry``).  A ceiling (``pace``) holds
both back.

Memory: one batch of each kind and the task that reads the next.  Nothing is queued here.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections import deque
from typing import TYPE_CHECKING, Any

from gateway.distribution import Distribution
from gateway.errors import GatewayError, JournalError
from gateway.reading import Batch, Mark, Reading
from gateway.sinks.aftercare import RETRY_S, Aftercare
from gateway.sinks.backoff import Backoff
from gateway.sinks.base import Cursor, Key, Refused, Rejected, Sink, Stopped, Unavailable
from gateway.sinks.deadletters import DeadLetter, DeadLetters, DeadLettersFull
from gateway.sinks.pace import Pace
from gateway.sinks.seconddoor import SecondDoor

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

__all__ = ["Runner"]

log = logging.getLogger(__name__)

LAG_S = 5.0  # how often a sink that makes things safe later is asked again while nothing comes
CLOSE_S = 3.0  # how long a sink may take to part from its far side
BROKEN_HINT = "a fault in the gateway: its log has the details"


class Runner:
    """Drives ``sink`` from ``cursor`` while ``run`` runs.

    ``state`` is ``idle`` (nothing tried yet), ``ok``, ``waiting`` or ``stopped``; for the last two
    ``reason``, ``hint`` and ``next_try`` (on ``clock``, seconds) say why and until when, ``reached`` whether a far side
    that is waited for is there.  ``dead_letters`` None: what will never be taken stops the sink.  ``max_per_s``:
    readings a second that the far side is given at most.
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
        max_per_s: float | None = None,
        clock: Callable[[], float] = time.monotonic,
        rng: random.Random | None = None,
        on_taken: Callable[[], None] = lambda: None,
        now: Callable[[], int] = time.time_ns,
    ) -> None:
        self.sink = sink
        self.taken = cursor.position.offset
        """Readings below this offset were taken by the far side, or put aside."""
        self._on_taken = on_taken
        self.state = "idle"
        self.reason = ""
        self.hint = ""
        self.next_try: float | None = None
        self.reached = False
        self._cursor = cursor
        self._pace = Pace(max_per_s)
        self._max_readings, self._max_delay = self._pace.most(max_readings), max_delay
        self._dead_letters = dead_letters
        self._stopped_retry_s = stopped_retry_s
        self._refused_in_a_row = refused_in_a_row
        self._lag_s = lag_s
        self._clock, self._now = clock, now
        self.latency = Distribution()  # from the receipt of a batch's oldest reading until it was taken
        self._retry_most_s = retry_most_s
        self._backoff = Backoff(retry_least_s, retry_most_s, retry_asked_s, rng or random.Random())
        self._door = SecondDoor()
        # What is left of the batch that is being written, in order.
        self._parts: deque[Batch] = deque()
        self._offset = self._safe = cursor.position.offset
        self._read = cursor.position.readings  # readings below _offset, as far as known
        # Readings put aside behind _safe; bounded: only what is under way.
        self._aside: set[int] = set()
        self._care = Aftercare(dead_letters, most=self._max_readings, hurry=self.retry_now, uncount=self._uncount)
        self._retried_last = False
        self._full = False  # the live stream stands because no more dead letters fit
        self._wake: asyncio.Event = asyncio.Event()
        self._hurry = False
        self._asked = False
        self._stopping = False
        self._task: asyncio.Task[None] | None = None
        self._next: asyncio.Task[Batch] | None = None
        self._failed_at = clock()
        self._refused = 0
        self._doubted = False  # the far side has turned us away: one reading goes alone before the others
        self._disliked = False  # everything is refused: it has stopped until one reading is taken
        self._taken_count = self._retries = self._batches = 0
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
        position, pending = self._cursor.position, self._cursor.pending
        # What was dropped or lost shows in the position alone.
        ahead = max(0, max(self._read, position.readings) - position.readings)
        return max(0, min(pending, pending - ahead + sum(part.readings for part in self._parts)))

    def ledger(self) -> dict[str, int]:
        """``stored``, and what became of it: ``delivered``, ``pending``, ``dead_lettered``, ``overflowed``, ``lost``.

        Readings, over restarts, since the sink's place in the journal began; the five add up to the first.
        """
        cursor = self._cursor
        pending = cursor.pending
        return {
            "stored": cursor.position.readings + pending - cursor.began,
            "delivered": cursor.delivered,
            "pending": pending,
            "dead_lettered": cursor.dead_lettered,
            "overflowed": cursor.overflowed,
            "lost": cursor.lost,
        }

    def set_state(self, key: Key, value: bytes | None) -> None:
        """Make ``value`` the state of ``key`` on the far side; ``None`` clears it.  Never waits."""
        if self.sink.keeps_states and self._door.set(key, value):
            self._wake.set()

    def renew(self, kind: str) -> None:
        """Make the states whose keys begin with ``kind`` known once more.  Never waits."""
        self._door.renew(kind)
        self._wake.set()

    def tell(self, key: Key, value: bytes) -> None:
        """Tell the far side ``value`` once.  Never waits."""
        if self.sink.keeps_states:
            self._door.tell(key, value)
            self._wake.set()

    def retry_now(self) -> None:
        """Try again at once, whatever is waited for."""
        self._hurry = True
        self._wake.set()

    def confirm_now(self) -> None:
        """Ask the sink at once what is safe: it has made safe what it has, ahead of its time."""
        self._asked = True
        self._wake.set()

    def health(self) -> dict[str, object]:
        """State in words and numbers, for people."""
        wait = None if self.next_try is None else round(max(0.0, self.next_try - self._clock()), 1)
        return {
            "state": self.state,
            "reason": self.reason,
            "hint": self.hint,
            "next_try_s": wait,
            "reached": self.reached,
            "pending": self.pending,
            "behind": self.behind,
            "dead_letters": self._care.count,
            "dead_letters_damaged": self._care.damaged,
            "ledger": self.ledger(),
        }

    def stats(self) -> dict[str, float]:
        """For the metrics.

        Those of ``ledger`` are readings, over restarts; the others are of this process or of now.
        """
        return {
            **self.ledger(),
            "behind": self.behind,
            "taken": self._taken_count,
            "dead_letters": self._care.count,
            "dead_letters_damaged": self._care.damaged,
            "retries": self._retries,
            "batches": self._batches,
            "states_sent": self._door.sent,
            "states_pending": len(self._door),
            "events_dropped": self._door.dropped,
            "write_seconds": self._write_s,
            "write_seconds_sum": self._write_s_sum,
            "up": float(self.state in ("idle", "ok")),
            "stopped": float(self.state == "stopped"),
            **self.sink.stats(),
        }

    # -- dead letters, for those who look after them --

    async def dead_letter_summary(self) -> dict[str, Any]:
        """What ``DeadLetters.summary`` says."""
        return self._care.summary()

    async def dead_letters_list(
        self, limit: int | None = None, offsets: set[int] | None = None, device: str = ""
    ) -> list[DeadLetter]:
        """The oldest, at most ``limit`` and never more than 10,000; of these offsets, of this device.

        Raises ``OSError``.
        """
        return await self._care.listed(limit, offsets, device)

    async def dead_letters_purge(self, offsets: set[int] | None = None) -> int:
        """Forget these dead letters, or all; returns how many there were.  They stay counted.

        Raises ``GatewayError`` while some are tried again, ``OSError`` when the file cannot be changed.
        """
        return await self._care.purge(offsets)

    async def dead_letters_retry(
        self, offsets: set[int] | None = None, *, timeout_s: float = RETRY_S
    ) -> dict[str, int | str]:
        """Give these dead letters, or all, to the far side once more, between batches of the live stream.

        Returns ``delivered`` (and no dead letters any more), ``left`` of those asked for, and ``reason``: why the last
        that was not taken was not.  Ends after ``timeout_s``, with what was taken by then.  Raises ``GatewayError``
        while another such request or a purge is under way, ``OSError`` when the file cannot be read or changed.
        """
        return await self._care.try_again(offsets, timeout_s)

    # -- the work --

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
                except Stopped as error:
                    if self._stopping:
                        return
                    await self._stand(str(error), error.hint)
                except Exception as error:
                    log.exception("sink %s: fault", self.sink.name)
                    if self._stopping:
                        return
                    await self._stand(f"{type(error).__name__}: {error}", BROKEN_HINT)
        finally:
            self._care.close("the sink has stopped")
            if self._next is not None:
                self._next.cancel()
            await self._close()

    async def stop(self, timeout: float) -> None:
        """Hand over what is committed, while the far side takes it, then end ``run``.

        Takes at most ``timeout`` seconds and the ``CLOSE_S`` that the sink has for parting.
        """
        self._stopping = True
        self._care.close("the gateway is stopping")
        self._wake.set()
        task = self._task
        if task is None or task.done():
            return
        await asyncio.wait({task}, timeout=timeout)
        if not task.done():
            task.cancel()
            await asyncio.wait({task})

    def _uncount(self, readings: int) -> None:
        # Never more than is counted: the letters may be older than the count.
        self._cursor.confirm(0, dead_lettered=-min(readings, self._cursor.dead_lettered))

    async def _open(self) -> None:
        if (letters := self._dead_letters) is not None:
            try:
                await asyncio.to_thread(letters.open, self._safe)
            except OSError as error:
                if self.sink.refuses:
                    raise _no_letters(letters, error) from error
                log.warning("sink %s: dead letters: %s", self.sink.name, error)
            letters.uncounted -= self._aside
        await self.sink.open()
        if not self._stopping:
            self._care.open()

    async def _work(self) -> None:
        while True:
            try:
                if await self.sink.ready():
                    self._set_ok()
                    self._door.renew()
                while self._door:
                    await self._door.send(self.sink)
                    self._backoff.reset()
                    self._set_ok()
                if (self._parts or self._care.retry is not None) and (wait := self._pace.wait(self._clock())):
                    await self._sleep(wait)
                elif (retry := self._care.retry) is not None and not self._retried_last:
                    self._retried_last = not self._full
                    self._pace.take(await retry.turn(self.sink), self._clock())
                elif self._parts:
                    self._retried_last = False
                    await self._write()
                elif self._stopping and self._drained():
                    return
                else:
                    await self._fetch()
            except Unavailable as error:
                self._care.interrupt(str(error))
                if self._stopping:
                    return
                await self._back_off(error)
            except Stopped as error:
                self._care.interrupt(str(error))
                if self._stopping:
                    return
                await self._stand(str(error), error.hint)
            except DeadLettersFull as error:
                # A retry or a purge may make room.
                self._full = True
                if self._stopping:
                    return
                if self._care.retry is None:
                    await self._stand(str(error), error.hint)

    async def _sleep(self, seconds: float) -> None:
        """Until then, or until something else is to be done."""
        try:
            async with asyncio.timeout(seconds):
                await self._wake.wait()
        except TimeoutError:
            pass
        self._wake.clear()

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
            busy = self._care.retry is not None
            lag = 0 if busy else self._lag_s if self._safe < self._offset else None
            done, _ = await asyncio.wait({self._next, woken}, timeout=lag, return_when=asyncio.FIRST_COMPLETED)
        finally:
            woken.cancel()
        self._wake.clear()
        self._retried_last = False
        asked, self._asked = self._asked, False
        if self._safe < self._offset and (asked if done else not busy):
            self._confirm(await self.sink.write(Batch(self._offset, [], 0)))
        if self._next.done():
            task, self._next = self._next, None
            batch = task.result()
            self._offset = batch.end
            position = self._cursor.position
            self._read = max(self._read, position.readings) + (batch.readings if batch.end > position.offset else 0)
            self._parts.append(batch)

    async def _write(self) -> None:
        part = self._parts[0]
        if self._doubted and part.readings > 1:
            # Were all of it sent, what stands behind might be taken as the far side changes its mind, and come first.
            alone = 1 + next(index for index, item in enumerate(part.items) if _is_reading(item))
            self._parts.popleft()
            self._parts.extendleft((_slice(part, alone, len(part.items)), _slice(part, 0, alone)))
            part = self._parts[0]
        started = self._clock()
        self._pace.take(part.readings, started)
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
            # Marks keep the offsets in their places, and every layout skips them.
            rest = _without(part, error.reasons)
            if error.rest_safe:
                # First, so that nothing of it goes again, should what was refused find no place.
                part = self._parts[0] = _without(part, set(range(len(part.items))) - error.reasons.keys())
                if rest.readings:
                    await self._taken(rest, started)
            await self._put_away(part, error.reasons)
            if not error.rest_safe:
                self._parts[0] = rest
                return
            safe = part.end
        else:
            await self._taken(part, started)
        self._full = False
        self._parts.popleft()
        self._confirm(safe)
        self.taken = part.end
        self._on_taken()

    def _confirm(self, safe: int) -> None:
        if safe > self._safe:
            self._safe = safe
            aside = {offset for offset in self._aside if offset < safe}
            self._aside -= aside
            self._cursor.confirm(safe, dead_lettered=len(aside))
            if safe >= self._offset:
                self._read = self._cursor.position.readings

    async def _taken(self, part: Batch, started: float) -> None:
        self._write_s = self._clock() - started
        self._write_s_sum += self._write_s
        self._batches += 1
        self._taken_count += part.readings
        if part.readings:
            oldest = next(item for item in part.items if type(item) is Reading)
            self.latency.observe((self._now() - oldest.received) / 1e9)
        if part.readings:
            self._refused, self._disliked, self._doubted = 0, False, False
        self._backoff.reset()
        self._set_ok()
        letters = self._dead_letters
        if letters is not None and letters.uncounted:
            offsets = {part.base + index for index, item in enumerate(part.items) if _is_reading(item)}
            again = (letters.uncounted & offsets) - self._aside
            if again:
                await self._forget(letters, again)

    async def _forget(self, letters: DeadLetters, offsets: set[int]) -> None:
        """Put aside before a crash, and taken after it: they are no dead letters."""
        try:
            await asyncio.to_thread(letters.settle, {(letters.ledger, offset) for offset in offsets}, {})
        except OSError as error:
            log.warning("sink %s: dead letters that were taken stay in the file: %s", self.sink.name, error)

    async def _put_away(self, part: Batch, reasons: dict[int, str]) -> None:
        letters = self._dead_letters
        if letters is None:
            raise Stopped(f"refused: {next(iter(reasons.values()), '')}", hint="there are no dead letters here")
        if self._refused >= self._refused_in_a_row:
            # The next try lets as many more go: a far side that dislikes one device alone gets past it.
            self._refused, self._disliked = 0, True
            raise Stopped(
                f"everything is refused, last: {next(iter(reasons.values()), '')}",
                hint="the far side seems to be set up wrongly; what it refused before is in the dead letters",
            )
        some = [(part.base + index, reason, part.items[index]) for index, reason in sorted(reasons.items())]
        try:
            await asyncio.to_thread(letters.append, some)
        except OSError as error:
            raise _no_letters(letters, error) from error
        self._refused += len(some)
        self._aside.update(offset for offset, _, item in some if _is_reading(item))
        letters.uncounted.difference_update(self._aside)
        if not self._disliked:
            self._set_ok()
        for offset, reason, item in some[:3]:
            extra = self._fields("dead_letter", reason, device=item.device, offset=offset, count=len(some))
            log.warning("sink %s: offset %d to the dead letters: %s", self.sink.name, offset, reason, extra=extra)

    def _drained(self) -> bool:
        return not self._parts and not self._door and self._cursor.is_drained(self._offset)

    # -- waiting --

    async def _back_off(self, error: Unavailable) -> None:
        now = self._clock()
        if now - self._failed_at > 2 * self._retry_most_s:
            self._backoff.reset()
        self._failed_at = now
        delay = self._backoff.next(error.retry_after_s)
        if self.state != "waiting":
            log.warning("sink %s: %s", self.sink.name, error, extra=self._fields("sink_unreachable", error))
        self._retries += 1
        self.reached = error.reached
        await self._pause("waiting", str(error), error.hint, delay)

    async def _stand(self, reason: str, hint: str) -> None:
        if (self.state, self.reason) != ("stopped", reason):
            extra = self._fields("sink_stopped", reason, hint=hint)
            log.error("sink %s stopped: %s%s", self.sink.name, reason, f" ({hint})" if hint else "", extra=extra)
        self._retries += 1
        self._doubted = True
        await self._pause("stopped", reason, _and_again(hint, self._stopped_retry_s), self._stopped_retry_s)

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

    def _fields(self, event: str, reason: object = "", **more: object) -> dict[str, object]:
        return {"event": event, "sink": self.sink.name, "reason": reason, **more}

    def _set_ok(self) -> None:
        if self.state not in ("ok", "idle"):
            log.info("sink %s works again", self.sink.name, extra=self._fields("sink_works"))
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


def _and_again(hint: str, seconds: float) -> str:
    # Settings are read at the start alone.
    again = f"tried again every {'minute' if seconds == 60 else f'{seconds:g} s'}"
    if "GATEWAY_" in hint:
        again += "; a changed setting needs a restart"
    return f"{hint} ({again})" if hint else again


def _no_letters(letters: DeadLetters, error: OSError) -> Stopped:
    return Stopped(f"dead letters cannot be kept: {error.strerror or error}", hint=letters.hint(error))


def _is_reading(item: object) -> bool:
    return type(item) is Reading


def _slice(batch: Batch, start: int, stop: int) -> Batch:
    items = batch.items[start:stop]
    return Batch(batch.base + start, items, sum(map(_is_reading, items)))


def _without(batch: Batch, indices: Iterable[int]) -> Batch:
    items = list(batch.items)
    for index in indices:
        item = items[index]
        items[index] = Mark(item.device, getattr(item, "session", ""), getattr(item, "seq", 0))
    return Batch(batch.base, items, sum(map(_is_reading, items)))
