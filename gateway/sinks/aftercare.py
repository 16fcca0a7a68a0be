"""Dead letters looked after: shown, forgotten, and on their way to the far side once more.

Letters go in the order in which they were put aside, some at a time; where a batch of them is refused as a whole it is
halved, as in the live stream.  Nothing is removed from the file here: whoever asked settles it at the end, in one
go, since each time the whole file is written anew.  A crash before that costs repeats.  First what was taken leaves the
file, then the count: a crash between claims less than is true, never more.
"""

from __future__ import annotations

import asyncio
from collections import deque
from itertools import islice
from typing import TYPE_CHECKING, Any

from gateway.errors import GatewayError
from gateway.reading import Batch, Reading
from gateway.sinks.base import Refused, Rejected, Stopped, Unavailable

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator

    from gateway.sinks.base import Sink
    from gateway.sinks.deadletters import DeadLetter, DeadLetters, LetterKey

__all__ = ["Aftercare", "Retry"]

RETRY_S = 30.0  # how long a request to try dead letters again may take
SETTLE_S = 1.0  # how long a stop waits for what came of it to be noted
LISTED = 10_000  # dead letters held in memory for one that asks


class Retry:
    """One request to try the letters at ``offsets`` again (None: all), at most ``most`` at once."""

    def __init__(self, letters: DeadLetters, offsets: Collection[int] | None, most: int) -> None:
        self._letters = letters
        self._offsets = offsets
        self._most = most
        self._source: Iterator[DeadLetter] = iter(())
        self._parts: deque[list[DeadLetter]] = deque()
        self._ended = asyncio.Event()
        self._counted = False
        self.taken: set[LetterKey] = set()
        self.refused: dict[LetterKey, str] = {}
        self.reason = ""
        """Why the last that was not taken was not, or why it ended early."""

    @property
    def waits(self) -> bool:
        """Whether there is something to try now."""
        return self._counted and not self.ended

    @property
    def ended(self) -> bool:
        """Whether nothing more will be tried."""
        return self._ended.is_set()

    def end(self, reason: str = "") -> None:
        """Try no more, for this reason."""
        if not self.ended:
            self.reason = reason or self.reason
            self._ended.set()

    async def count(self) -> int:
        """How many letters there are to be tried; those that are put aside later are not.  Raises ``OSError``."""
        total = await asyncio.to_thread(lambda: sum(1 for _ in self._letters.read(None, self._offsets)))
        self._source = self._letters.read(total, self._offsets)
        self._counted = True
        return total

    async def wait(self) -> None:
        """Until nothing more will be tried."""
        await self._ended.wait()

    async def turn(self, sink: Sink) -> int:
        """Write once; returns how many readings the far side was given (0: nothing was left, it ends).

        Raises ``Unavailable``, ``Stopped`` as ``sink`` does; then it has ended with that reason.
        """
        if not self._parts:
            try:
                some = await asyncio.to_thread(lambda: list(islice(self._source, self._most)))
            except OSError as error:
                self.end(f"dead letters: {error}")
                return 0
            if not some:
                self.end()
                return 0
            self._parts.append(some)
        part = self._parts[0]
        items = [letter.item for letter in part]
        batch = Batch(part[0].offset, items, sum(type(item) is Reading for item in items))
        try:
            safe = await sink.write(batch)
        except Refused as error:
            self._parts.popleft()
            if len(part) == 1:
                self._refuse(part[0], str(error))
            else:
                middle = len(part) // 2
                self._parts.extendleft((part[middle:], part[:middle]))
        except Rejected as error:
            self._parts.popleft()
            for index, reason in sorted(error.reasons.items()):
                self._refuse(part[index], reason)
            rest = [letter for index, letter in enumerate(part) if index not in error.reasons]
            if error.rest_safe:
                self.taken.update(letter.key for letter in rest)
            elif rest:
                self._parts.appendleft(rest)
        except (Unavailable, Stopped) as error:
            self.end(str(error))
            raise
        else:
            self._parts.popleft()
            if safe < batch.end:
                # What becomes safe later cannot be told apart here from what is not.
                self.end("this far side says only later what is safe")
            else:
                self.taken.update(letter.key for letter in part)
        return batch.readings

    def _refuse(self, letter: DeadLetter, reason: str) -> None:
        self.refused[letter.key] = self.reason = reason


class Aftercare:
    """One sink's dead letters, for the people who look after them; all calls on the loop's thread.

    ``hurry`` makes the runner look at ``retry``, and try what it waits with; ``uncount`` takes so many off what is
    counted as put aside; ``most`` letters go at once.
    """

    def __init__(
        self,
        letters: DeadLetters | None,
        *,
        most: int,
        hurry: Callable[[], None],
        uncount: Callable[[int], None],
    ) -> None:
        self._letters = letters
        self._most = most
        self._hurry = hurry
        self._uncount = uncount
        self._retry: Retry | None = None
        self._task: asyncio.Task[dict[str, int | str]] | None = None
        self._purges = 0
        self._closed = "the sink does not run"

    @property
    def count(self) -> int:
        """Letters kept."""
        return self._letters.count if self._letters is not None else 0

    @property
    def damaged(self) -> int:
        """Letters among them that cannot be read."""
        return self._letters.damaged if self._letters is not None else 0

    @property
    def retry(self) -> Retry | None:
        """What is to be tried again now, between batches."""
        return self._retry if self._retry is not None and self._retry.waits else None

    def open(self) -> None:
        """From now on retries are carried out."""
        self._closed = ""

    def close(self, reason: str) -> None:
        """No more."""
        self._closed = reason
        self.interrupt(reason)

    async def closed(self) -> None:
        """What was tried is noted, as far as that is done soon."""
        if self._task is not None and not self._task.done():
            await asyncio.wait({self._task}, timeout=SETTLE_S)

    def interrupt(self, reason: str) -> None:
        """Nothing can be tried now."""
        if self._retry is not None:
            self._retry.end(reason)

    def summary(self) -> dict[str, Any]:
        """What ``DeadLetters.summary`` says."""
        return self._kept().summary()

    async def listed(self, limit: int | None, offsets: Collection[int] | None, device: str) -> list[DeadLetter]:
        """The oldest, at most ``limit`` and never more than ``LISTED``.  Raises ``OSError``."""
        letters = self._kept()
        most = LISTED if limit is None else min(limit, LISTED)
        return await asyncio.to_thread(lambda: list(letters.read(most, offsets, device)))

    async def purge(self, offsets: Collection[int] | None) -> int:
        """Forget these or all; returns how many there were.

        Raises ``GatewayError`` while some are tried again: what is taken could not be told from what is purged.
        Raises ``OSError``.
        """
        letters = self._kept()
        if self._retry is not None:
            raise GatewayError(
                "dead letters of this sink are being tried again right now", hint="purge them when that is done"
            )
        self._purges += 1
        try:
            purged = await asyncio.to_thread(letters.purge if offsets is None else lambda: letters.remove(offsets))
        finally:
            self._purges -= 1
        if purged:
            self._hurry()  # there is room again
        return purged

    async def try_again(self, offsets: Collection[int] | None, timeout_s: float) -> dict[str, int | str]:
        """See ``Runner.dead_letters_retry``."""
        letters = self._kept()
        if self._retry is not None:
            raise GatewayError("dead letters of this sink are being tried already", hint="wait until that is done")
        if self._purges:
            raise GatewayError("dead letters of this sink are being purged right now", hint="try those left after that")
        self._retry = retry = Retry(letters, offsets, self._most)
        self._task = asyncio.create_task(self._carry_out(retry, letters, timeout_s))
        try:
            return await asyncio.shield(self._task)
        except asyncio.CancelledError:
            # Whoever asked is gone; what was taken is settled all the same.
            retry.end("cancelled")
            raise

    async def _carry_out(self, retry: Retry, letters: DeadLetters, timeout_s: float) -> dict[str, int | str]:
        try:
            if self._closed:
                retry.end(self._closed)
            total = await retry.count()
            self._hurry()
            try:
                async with asyncio.timeout(timeout_s):
                    await retry.wait()
            except TimeoutError:
                retry.end(f"not done within {timeout_s:g} s")
            delivered, counted = await asyncio.to_thread(letters.settle, retry.taken, retry.refused)
            if counted:
                self._uncount(counted)
        finally:
            retry.end()
            self._retry = None
        if delivered:
            self._hurry()  # there is room again
        left = max(0, total - delivered)
        return {"delivered": delivered, "left": left, "reason": retry.reason if left else ""}

    def _kept(self) -> DeadLetters:
        if self._letters is None:
            raise GatewayError("this sink keeps no dead letters")
        return self._letters
