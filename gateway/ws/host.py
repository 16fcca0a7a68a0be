"""What a connection needs of its server, and the terms it is held to."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    import asyncio

    from .counters import Counters
    from .heartbeat import Heartbeat
    from .wire import Wire

__all__ = ["Host", "Terms"]


@dataclass(frozen=True, slots=True)
class Terms:
    """The terms of one route's connections.  Sizes in bytes, times in seconds.

    ``max_queue_bytes`` bounds what waits for ``recv``, each message counted with ``MESSAGE_OVERHEAD``: at the bound
    reading pauses and the peer feels it.  ``heartbeat`` is (interval, timeout) or ``None``.
    """

    max_message_bytes: int = 1 << 20
    max_queue_bytes: int = 1 << 20
    write_buffer_bytes: int = 64 << 10
    heartbeat: tuple[float, float] | None = (20.0, 20.0)
    close_timeout: float = 5.0
    send_timeout: float = 20.0
    control: bool = False


class Host(Protocol):
    """The server as a connection sees it."""

    loop: asyncio.AbstractEventLoop
    clock: Callable[[], float]
    counters: Counters
    beats: Heartbeat
    # What every connection reads into; nothing in it outlives the callback.  The loops get it as a view: asyncio's TLS
    # slices what it is given, and a slice of a bytearray would be a copy.
    buffer: bytearray
    view: memoryview

    def spawn(self, coroutine: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Run a handler in a task that the server's stop waits for, and cancels at its deadline."""

    def finished(self, ws: Wire) -> None:
        """The connection's code and reason are known."""

    def lost(self, ws: Wire) -> None:
        """The connection's transport is gone."""
