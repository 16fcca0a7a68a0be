"""Messages in batches: by number, by time, and what is left at the end."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from .errors import ConnectionClosed
from .message import MESSAGE_OVERHEAD, Message
from .reader import PAUSED_BY_QUEUE

if TYPE_CHECKING:
    from .connection import Connection

__all__ = ["BatchRun", "Batcher"]

# uvloop's timers fire up to a millisecond or so early: asked again for what is left, it would turn for nothing.
EARLY_S = 0.002


class Batcher:
    """Decides when a batch is to be handed over; pure.

    It is due when it holds ``size`` messages or ``max_bytes`` of data, or ``timeout`` seconds after its first message.
    """

    __slots__ = ("_bytes", "_items", "_max_bytes", "_size", "_timeout", "due")

    def __init__(self, size: int, timeout: float, max_bytes: int) -> None:
        self._size = size
        self._timeout = timeout
        self._max_bytes = max_bytes
        self._items: list[Message] = []
        self._bytes = 0
        self.due: float | None = None  # when the batch is to be handed over at the latest; None while it is empty

    def __len__(self) -> int:
        return len(self._items)

    def add(self, message: Message, clock: Callable[[], float]) -> bool:
        """Add ``message``; whether the batch is now full.  The clock is asked for a first message alone."""
        items = self._items
        items.append(message)
        self._bytes += message.data.__sizeof__() + MESSAGE_OVERHEAD
        if self.due is None:
            self.due = clock() + self._timeout
        return len(items) >= self._size or self._bytes >= self._max_bytes

    @property
    def full(self) -> bool:
        """Whether the batch is due whatever the time."""
        return len(self._items) >= self._size or self._bytes >= self._max_bytes

    def take(self) -> list[Message]:
        """A batch of at most ``size``; what is beyond that, and due as before, stays."""
        items, self._items = self._items, []
        if len(items) > self._size:
            self._items = items[self._size :]
            del items[self._size :]
            self._bytes = sum([message.data.__sizeof__() + MESSAGE_OVERHEAD for message in self._items])
        else:
            self._bytes = 0
            self.due = None
        return items


class BatchRun:
    """The batches of one connection: a task that handles one while the next one fills."""

    __slots__ = ("_batcher", "_clock", "_ended", "_fn", "_ready", "_timer", "_waiter", "_ws")

    def __init__(
        self, ws: Connection, fn: Callable[..., Any], size: int, timeout: float, clock: Callable[[], float]
    ) -> None:
        self._ws = ws
        self._fn = fn
        self._clock = clock
        self._batcher = Batcher(size, timeout, ws._terms.max_queue_bytes)
        self._ready: list[Message] | None = None  # handed over and not yet handled; then the task is not idle
        self._timer: asyncio.TimerHandle | None = None
        self._waiter: asyncio.Future[None] | None = None
        self._ended = False

    def add(self, ws: Connection, message: Message) -> None:
        """Take one message; the connection's handler."""
        if message.kind != "text" and message.kind != "binary":
            return
        batcher = self._batcher
        full = batcher.add(message, self._clock)
        if full:
            if self._waiter is not None:
                self._hand_over()
            else:
                # The task is busy and the next batch is full: the peer waits.
                ws._pause(PAUSED_BY_QUEUE)
        elif self._timer is None:
            self._arm()

    def end(self) -> None:
        """No message will come any more: what is left is due."""
        self._ended = True
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._waiter is not None:
            self._hand_over()

    def _arm(self) -> None:
        due = self._batcher.due
        if due is not None:
            self._timer = self._ws._loop.call_later(max(0.0, due - self._clock()), self._on_time)

    def _on_time(self) -> None:
        self._timer = None
        due = self._batcher.due
        if due is None or self._waiter is None:
            # Empty, or the task is busy and looks at the time itself when it is done.
            return
        if due <= self._clock() + EARLY_S:
            self._hand_over()
        else:
            # The batch this timer was set for went by its size; this is the next one's.
            self._arm()

    def _hand_over(self) -> None:
        """Give the batch to the waiting task."""
        waiter, self._waiter = self._waiter, None
        assert waiter is not None
        self._ready = self._batcher.take()
        if not waiter.done():
            waiter.set_result(None)

    async def _next(self) -> list[Message]:
        """The next batch; empty at the end."""
        batcher = self._batcher
        if len(batcher) and (
            self._ended or batcher.full or (batcher.due is not None and batcher.due <= self._clock() + EARLY_S)
        ):
            batch = batcher.take()
            self._ws._resume(PAUSED_BY_QUEUE)
            return batch
        if self._ended:
            return []
        if self._timer is None:
            self._arm()
        self._waiter = self._ws._loop.create_future()
        await self._waiter
        ready, self._ready = self._ready, None
        return ready or []

    async def serve(self) -> None:
        """Handle batches until the connection has closed and none is left."""
        ws = self._ws
        params = ws.path_params
        while True:
            batch = await self._next()
            if not batch:
                return
            try:
                result = self._fn(ws, batch, **params)
                if inspect.isawaitable(result):
                    result = await result
                if result is not None:
                    await ws.send(result)
            except ConnectionClosed:
                # What the peer sent before it closed is handled all the same; it only gets no answer.
                if not ws.closed:
                    raise
