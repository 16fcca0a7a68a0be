"""The device book's file: what of each device survives a restart, in one file that is replaced whole.

Layout of version 2, little-endian::

    file    magic "GWDEVICE" | crc32 of all behind it u32 | version u32 | payload size u64 | payload
    payload MessagePack [epoch, offset, [row, ...]]
    row     an array of :class:`Row`'s fields in their order; fields are only ever added, at the end, with defaults

A later version keeps the first four fields where they are.  Version 1 was a MessagePack array ``[1, epoch, offset,
rows]`` without a checksum.
"""

from __future__ import annotations

import errno
import logging
import os
import struct
import threading
import zlib
from pathlib import Path
from typing import Any

import msgspec

from .aside import keep_copy, set_aside, sync_directory
from .errors import GatewayError
from .past import EMPTY

__all__ = ["GONE", "BookFile", "Row", "pack"]

VERSION = 2
MAGIC = b"GWDEVICE"
GONE = "forgotten"
_start = struct.Struct("<8sIIQ")
_CHECKED_FROM = 12

log = logging.getLogger(__name__)


class Row(msgspec.Struct, array_like=True):
    """What is kept of a device; times in nanoseconds, ``counts`` those of its ledger; of one that was forgotten its
    name, ``state`` being :data:`GONE`.

    ``learned`` is the usual pause between its messages in seconds, ``old`` and ``future`` count times far off;
    ``heard``, ``held`` and ``gaps`` are the session's, above ``seq``; ``via`` is a sub-device's concentrator, ``past``
    the states that it has had.
    """

    name: str
    session: str = ""
    seq: int = 0
    resumable: bool = False
    state: str = ""
    since: int = 0
    reason: str = ""
    last_seen: int = 0
    last_time: int = 0
    counts: tuple[int, ...] = ()
    described: dict[str, Any] | None = None
    learned: float = 0.0
    old: int = 0
    future: int = 0
    heard: int = 0
    held: int = 0
    gaps: list[tuple[int, int]] = []
    via: str = ""
    past: msgspec.Raw = msgspec.Raw(EMPTY)


class _Payload(msgspec.Struct, array_like=True):
    epoch: str
    offset: int
    rows: list[Row]


class _Damaged(ValueError):
    pass


_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(_Payload)
_decoder_1 = msgspec.msgpack.Decoder(tuple[int, str, int, list[Row]])


class BookFile:
    """The file at ``path``.  ``problems``: what was found wrong with it, in words."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.problems: list[str] = []
        self._lock = threading.Lock()  # the periodic save, one ahead of its time and the last may meet
        self._written = -1
        self._read: tuple[int, _Payload] | None = None

    def check(self) -> None:
        """Raises :class:`GatewayError` for a later version; to be called before anything else is changed on disk.

        What else may be wrong with the file is left to :meth:`load`.
        """
        try:
            self._read = _unpack(self._path.read_bytes())
        except (OSError, _Damaged):
            return
        self._check_version(self._read[0])

    def _check_version(self, version: int) -> None:
        if version > VERSION:
            raise GatewayError(
                f"{self._path} is of version {version}, this program reads {VERSION}",
                hint="start the version of the gateway that wrote it, or move the file away",
            )

    def load(self, epoch: str) -> tuple[int, list[Row]] | None:
        """The journal's offset that the file reflects, and its rows; ``None`` where there is nothing to go by.

        A file that cannot be read, or is of another epoch, is set aside; one of an older version is copied first.
        Raises :class:`GatewayError` for a later version and where the disk fails.
        """
        read, self._read = self._read, None
        try:
            data = b"" if read is not None else self._path.read_bytes()
        except FileNotFoundError:
            return None
        except IsADirectoryError:
            self._set_aside("damaged", "it is a directory")
            return None
        except OSError as error:
            if error.errno == errno.EIO:
                self._set_aside("damaged", "the disk cannot read it")
                return None
            raise GatewayError(
                f"{self._path} cannot be read: {error.strerror}", hint="check its owner and the disk"
            ) from error
        try:
            version, payload = read if read is not None else _unpack(data)
        except _Damaged as error:
            self._set_aside("damaged", str(error))
            return None
        self._check_version(version)
        if payload.epoch != epoch:
            self._set_aside("foreign", "it belongs to another journal")
            return None
        if version < VERSION:
            keep_copy(self._path, version)
        return payload.offset, payload.rows

    def _set_aside(self, why: str, words: str) -> None:
        aside = set_aside(self._path, why)
        name = aside.name if aside is not None else "?"
        extra = {"event": "file_aside", "path": self._path, "reason": words}
        log.error("%s cannot be used: %s; kept as %s", self._path, words, name, extra=extra)
        self.problems.append(
            f"The device book could not be used ({words}) and is made anew from the journal: kept as {name}"
        )

    def write(self, data: bytes, offset: int) -> None:
        """Replace the content by what :func:`pack` gave, so that after a crash it is the old or the new one, whole.

        One that reflects less of the journal than what stands there (``offset``) is left out.  Blocks; may be called
        from any thread.  Raises ``OSError``.
        """
        temporary = self._path.with_suffix(".tmp")
        with self._lock:
            if offset < self._written:
                return
            with open(temporary, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, self._path)
            sync_directory(self._path.parent)
            self._written = offset


def pack(epoch: str, offset: int, rows: list[Row]) -> bytes:
    """The file's bytes."""
    try:
        payload = _encoder.encode(_Payload(epoch, offset, rows))
    except (TypeError, ValueError, OverflowError):
        # What nobody can write down (an integer of more than 64 bits, a lone surrogate) must not cost all others.
        payload = _encoder.encode(_Payload(epoch, offset, [_encodable(row) for row in rows]))
    data = _start.pack(MAGIC, 0, VERSION, len(payload)) + payload
    return MAGIC + zlib.crc32(memoryview(data)[_CHECKED_FROM:]).to_bytes(4, "little") + data[_CHECKED_FROM:]


def _encodable(row: Row) -> Row:
    try:
        _encoder.encode(row)
    except (TypeError, ValueError, OverflowError) as error:
        extra = {"event": "fault", "device": row.name, "reason": error}
        log.error("the description of device %r cannot be kept: %s", row.name, error, extra=extra)
        return msgspec.structs.replace(row, described=None)
    return row


def _unpack(data: bytes) -> tuple[int, _Payload]:
    """Version and content (empty where the version is a later one).  Raises :class:`_Damaged`."""
    try:
        if not data.startswith(MAGIC):
            version, epoch, offset, rows = _decoder_1.decode(data)
            if version != 1:
                raise _Damaged("it is none")
            return 1, _Payload(epoch, offset, rows)
        _, crc, version, size = _start.unpack_from(data)
        if crc != zlib.crc32(memoryview(data)[_CHECKED_FROM:]):
            raise _Damaged("its checksum does not match")
        if version > VERSION:
            return version, _Payload("", 0, [])
        return version, _decoder.decode(memoryview(data)[_start.size :][:size])
    except (msgspec.MsgspecError, struct.error) as error:
        raise _Damaged(str(error)) from error
