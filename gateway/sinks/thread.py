"""Blocking work in a thread of its own, which nobody has to wait for.

Not the loop's pool: its few threads are shared, so that some that hang keep others from working, and the end of the
process waits for each.  A thread from here ends with the process, whatever it is at.
"""

from __future__ import annotations

import asyncio
import threading
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["start"]

T = TypeVar("T")


def start(work: Callable[[], T], name: str) -> asyncio.Future[T]:
    """Begin ``work``; the future holds what it returns or raises, and may be given up, when it ends unheard."""
    loop = asyncio.get_running_loop()
    future: asyncio.Future[T] = loop.create_future()
    # Its outcome is asked for even where nobody waits any more.
    future.add_done_callback(lambda done: done.cancelled() or done.exception())

    def settle(result: T | None, error: BaseException | None) -> None:
        if future.done():
            return
        if error is not None:
            future.set_exception(error)
        else:
            future.set_result(result)  # type: ignore[arg-type]

    def run() -> None:
        result, error = None, None
        try:
            result = work()
        except Exception as raised:
            error = raised
        try:
            loop.call_soon_threadsafe(settle, result, error)
        except RuntimeError:
            pass  # the loop has ended, and nobody waits

    threading.Thread(target=run, name=name, daemon=True).start()
    return future
