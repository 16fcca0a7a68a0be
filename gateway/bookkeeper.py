"""Saves the device book, and has the journal keep what a saved one lacks."""

from __future__ import annotations

import logging

from .devices import DeviceBook
from .errors import GatewayError
from .journal import Journal

__all__ = ["BookKeeper"]

log = logging.getLogger(__name__)


class BookKeeper:
    """Saves the device book; its cursor keeps the journal that a saved book does not reflect yet."""

    def __init__(self, journal: Journal, book: DeviceBook) -> None:
        self._journal = journal
        self._book = book
        self._cursor = journal.cursor("devices", book.offset)

    async def save(self) -> None:
        """Write the snapshot; a disk that fails is logged, and tried again with the next."""
        offset = self._journal.durable_offset
        try:
            await self._book.save(self._journal.epoch, offset)
            self._cursor.confirm(offset)
        except (OSError, ValueError, GatewayError) as error:
            log.warning("the device book cannot be saved: %s", error)

    async def close(self) -> None:
        """Save it for the last time."""
        await self.save()
