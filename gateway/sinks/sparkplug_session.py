"""The number of a Sparkplug session, ``bdSeq``: it tells of which birth a death is the end.

One more with each CONNECT, from 0 to 255 and on from 0 again, also over restarts (Sparkplug 3.0.0, 6.4.27).  Kept in a
file, which is replaced whole and synced before the number is used::

    {"bdSeq": 17}
"""

from __future__ import annotations

import logging
import os
from typing import TYPE_CHECKING

import msgspec

from gateway.aside import set_aside, sync_directory

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["Sessions"]

log = logging.getLogger(__name__)


class _File(msgspec.Struct):
    bd_seq: int = msgspec.field(name="bdSeq")


class Sessions:
    """Blocks; one call at a time, from any thread."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._last: int | None = None

    def next(self) -> int:
        """The number of the session that begins now.

        A disk that fails is logged: the number is right for as long as this process lives.
        """
        last = self._read() if self._last is None else self._last
        self._last = number = (last + 1) & 255
        temporary = self._path.with_suffix(".tmp")
        try:
            with temporary.open("wb") as file:
                file.write(msgspec.json.encode(_File(number)))
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(self._path)
            sync_directory(self._path.parent)
        except OSError as error:
            log.warning("the number of the Sparkplug session cannot be kept: %s", error.strerror or error)
        return number

    def _read(self) -> int:
        """The last number; -1 where there was none."""
        try:
            return msgspec.json.decode(self._path.read_bytes(), type=_File).bd_seq & 255
        except FileNotFoundError:
            return -1
        except (OSError, msgspec.MsgspecError) as error:
            log.warning("%s cannot be read, Sparkplug's sessions are numbered from 0 again: %s", self._path, error)
            try:
                set_aside(self._path, "damaged")
            except OSError as fault:
                log.warning("%s cannot be set aside: %s", self._path, fault.strerror or fault)
            return -1
