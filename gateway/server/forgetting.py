"""Forgets devices that are gone for good: a control command of the running gateway.

A device that is offline is taken out of the device book, and what was retained of it elsewhere is cleared: its
presence, and what Home Assistant was told.  Its readings stay in the history.  It may come back, as a new device: who
shall not, loses its token first.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress

import msgspec

from ..devices import DeviceBook
from ..errors import GatewayError, JournalError
from ..liveness import OFFLINE
from ..pipeline import Pipeline
from .control import Command, Params
from .device import DeviceEndpoint

__all__ = ["Forgetting"]

log = logging.getLogger(__name__)

FLUSH_S = 5.0


class _Forget(msgspec.Struct, forbid_unknown_fields=True):
    device: str


class Forgetting:
    """``cleared`` are told the name of each; ``flush`` makes the journal durable, ``save`` the book after it."""

    def __init__(
        self,
        book: DeviceBook,
        pipeline: Pipeline,
        endpoint: DeviceEndpoint,
        *,
        cleared: Sequence[Callable[[str], None]],
        flush: Callable[[], Awaitable[None]],
        save: Callable[[], Awaitable[None]],
    ) -> None:
        self._book = book
        self._pipeline = pipeline
        self._endpoint = endpoint
        self._cleared = cleared
        self._flush = flush
        self._save = save
        self.commands: dict[str, Command] = {"forget": self.forget}

    async def forget(self, params: Params) -> object:
        """Forget one; raises :class:`GatewayError` for one that is not known or not offline."""
        name = msgspec.convert(params, _Forget).device
        device = self._book.get(name)
        if device is None:
            words = f"no device called {name[:64]!r} is known"
            raise GatewayError(words, hint="`gateway devices` lists those that are")
        state = device.status.state if device.status is not None else OFFLINE
        if device.link is not None or state != OFFLINE:
            raise GatewayError(
                f"{name} is {state}: only a device that is offline can be forgotten",
                hint="switch it off first, or end its token (`gateway token revoke ID`)",
            )
        self._book.forget(name)
        self._pipeline.forget(device)
        self._endpoint.forget(device)
        for clear in self._cleared:
            clear(name)
        log.info("device %s was forgotten", name, extra={"event": "device_forgotten", "device": name})
        # The journal has what it did until now: where the book is not saved as it is from here on, replaying it would
        # bring the device back.
        with suppress(TimeoutError, JournalError):  # a disk that fails: it may come back then
            async with asyncio.timeout(FLUSH_S):
                await self._flush()
        await self._save()
        return {"device": name}
