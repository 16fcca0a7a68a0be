"""Keeps one connection to the gateway: connects, comes back by itself, and knows when it must not.

Shared by devices and live feeds.  One task; full-jitter back-off between attempts; what the gateway asked for
(1013, 429 and 503 with Retry-After) is kept.  After an ending that is final (1008, 4001, a refused handshake)
there is no further attempt.
"""

from __future__ import annotations

import asyncio
import logging
from contextlib import nullcontext
from typing import TYPE_CHECKING, Literal

from websockets.exceptions import ConnectionClosed

from .errors import ClientClosed
from .link import CONNECT_ERRORS, Ending, Link, ending_of, failure_of, open_link

if TYPE_CHECKING:
    import ssl as ssl_module
    from collections.abc import Awaitable, Callable

    from .backoff import Backoff

__all__ = ["State", "Uplink"]

State = Literal["connecting", "online", "waiting", "closed"]

GREETING_TIMEOUT_S = 10.0
STEADY_S = 10.0  # a connection that held so long was a good one
MAX_INCOMING = 1 << 21  # bytes a message

logger = logging.getLogger(__name__)


class Uplink:
    """``greet(link)`` does what comes before the connection is usable, within ten seconds; an :class:`Ending`
    refuses it.  ``receive(message)`` takes every message after that, also an :class:`Ending` to leave;
    ``lost()`` is called at each connection's end, also where ``greet`` did not succeed.
    """

    def __init__(
        self,
        address: str,
        *,
        name: str,
        subprotocol: str,
        token: str | None,
        greet: Callable[[Link], Awaitable[Ending | None]],
        receive: Callable[[str | bytes], Awaitable[Ending | None] | Ending | None],
        lost: Callable[[], None],
        on_state: Callable[[State, str], object] | None,
        open_timeout: float,
        backoff: Backoff,
        ssl: ssl_module.SSLContext | None,
        connecting: asyncio.Semaphore | None = None,
    ) -> None:
        self.address = address
        self.name = name
        self.state: State = "closed"
        self.reason = "not started"
        self.link: Link | None = None  # greeted and not ended
        self.connections = 0
        self.ended: Ending | None = None  # set once there will be no further connection
        self.backoff = backoff
        self._subprotocol = subprotocol
        self._token = token
        self._greet = greet
        self._receive = receive
        self._lost = lost
        self._on_state = on_state
        self._open_timeout = open_timeout
        self._ssl = ssl
        self._connecting = nullcontext() if connecting is None else connecting
        self._task: asyncio.Task[None] | None = None
        self._waiting: set[asyncio.Future[None]] = set()  # as many as there are callers

    def start(self) -> None:
        """Begin to connect."""
        if self._task is not None:
            raise RuntimeError("a client is started once")
        self._set_state("connecting", "")
        self._task = asyncio.create_task(self._run(), name=self.name)

    async def close(self) -> None:
        """Close the connection within two seconds; harmless when closed already."""
        self.finish(Ending("closed by this side"))
        task, self._task = self._task, None
        if task is not None:
            link = self.link
            if link is not None:
                await link.end()
            task.cancel()
            await asyncio.wait([task])

    def cut(self) -> None:
        """Drop the connection as a network does; the task comes back by itself."""
        if self.link is not None:
            self.link.cut()

    async def connected(self, timeout: float | None) -> None:
        """Wait until there is a connection; raises ``TimeoutError`` and :class:`ClientClosed`."""
        try:
            async with asyncio.timeout(timeout):
                while self.link is None:
                    self.raise_if_ended()
                    await self.change()
        except TimeoutError:
            why = f": {self.reason}" if self.reason else ""
            raise TimeoutError(f"{self.name}: no connection to {self.address} within {timeout:g} s{why}") from None

    async def change(self) -> None:
        """Wait for the next change of state or :meth:`wake`."""
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.add(waiter)
        try:
            await waiter
        finally:
            self._waiting.discard(waiter)

    def wake(self) -> None:
        """Let all who wait in :meth:`change` look again."""
        for waiter in self._waiting:
            if not waiter.done():
                waiter.set_result(None)

    def finish(self, ending: Ending) -> None:
        """There will be no further connection."""
        if self.ended is None:
            self.ended = ending
            self._set_state("closed", ending.reason)

    def raise_if_ended(self) -> None:
        """Raise :class:`ClientClosed` once there will be no further connection."""
        ended = self.ended
        if ended is not None:
            raise ClientClosed(ended.reason, code=ended.code, hint=ended.hint)

    async def _run(self) -> None:
        try:
            while self.ended is None:
                ending = await self._connection()
                if ending.fatal:
                    self.finish(ending)
                elif self.ended is None:
                    wait = self.backoff.next(ending.retry_after_s)
                    self._set_state("waiting", ending.reason)
                    await asyncio.sleep(wait)
        except Exception as error:
            # The task's outermost edge: callers must not wait for a task that is gone.
            logger.exception("%s: the client failed", self.name)
            self.finish(Ending(f"failed: {error!r}"))

    async def _connection(self) -> Ending:
        """One connection, from the attempt to its end."""
        loop = asyncio.get_running_loop()
        if self.state != "connecting":
            self._set_state("connecting", self.reason)
        link: Link | None = None
        started = loop.time()
        try:
            async with self._connecting:
                link = await open_link(
                    self.address,
                    subprotocol=self._subprotocol,
                    token=self._token,
                    open_timeout=self._open_timeout,
                    max_bytes=MAX_INCOMING,
                    ssl=self._ssl,
                )
            try:
                async with asyncio.timeout(GREETING_TIMEOUT_S):
                    ending = await self._greet(link)
            except TimeoutError:
                return Ending("no greeting in time")
            if ending is not None:
                return ending
            started = loop.time()
            self.connections += 1
            self.link = link
            self._set_state("online", "")
            while True:
                left = self._receive(await link.recv())
                if left is not None:
                    ending = left if isinstance(left, Ending) else await left
                    if ending is not None:
                        return ending
        except ConnectionClosed as error:
            assert link is not None
            return ending_of(link, error)
        except CONNECT_ERRORS as error:
            return failure_of(error)
        finally:
            self.link = None
            self._lost()
            if link is not None:
                # What is closed already is not touched by this.
                link.cut()
                if loop.time() - started > STEADY_S:
                    self.backoff.reset()

    def _set_state(self, state: State, reason: str) -> None:
        if (state, reason) == (self.state, self.reason):
            return
        self.state, self.reason = state, reason
        self.wake()
        if self._on_state is not None:
            asyncio.get_running_loop().call_soon(self._on_state, state, reason)
