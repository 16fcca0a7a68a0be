"""The event loop that commands run on."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from asyncio import AbstractEventLoop
    from collections.abc import Callable

__all__ = ["loop_factory"]


def loop_factory() -> Callable[[], AbstractEventLoop] | None:
    """uvloop's where it is installed: it has no wheel for every machine."""
    try:
        import uvloop
    except ImportError:
        return None
    factory: Callable[[], AbstractEventLoop] = uvloop.new_event_loop
    return factory
