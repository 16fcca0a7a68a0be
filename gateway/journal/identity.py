"""The epoch: the identity of a state directory, made at its first start and kept in a file of its own.

Layout of version 2, three lines of ASCII text: ``GWEPOCH 2``, the epoch's 16 bytes in hexadecimal digits, and crc32 of
these two lines in hexadecimal digits.  Version 1 was the second line alone.
"""

from __future__ import annotations

import os
import zlib
from typing import TYPE_CHECKING

import msgspec

from gateway.aside import read_start, sync_directory

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["FILE_NAME", "SIZE", "VERSION", "Kept", "read", "write"]

FILE_NAME = "epoch"
VERSION = 2
SIZE = 16  # bytes
_MARK = "GWEPOCH "
_MOST = 4096  # bytes of the file that are looked at


class Kept(msgspec.Struct, frozen=True):
    """What the file holds: ``epoch`` is ``None`` where it cannot be made out; version 0: there is no file."""

    version: int = 0
    epoch: bytes | None = None


def read(path: Path) -> Kept:
    """Read the file.  One of a newer version gives its number and no epoch.  Raises ``OSError`` when it cannot be."""
    try:
        data = read_start(path, _MOST)
    except FileNotFoundError:
        return Kept()
    if data is None:
        return Kept(VERSION)
    try:
        lines = data.decode("ascii").splitlines()
        if len(lines) == 1 and len(data) == 2 * SIZE + 1:
            return Kept(1, bytes.fromhex(lines[0]))
        first, *_, last = lines
        if first.startswith(_MARK) and int(last, 16) == zlib.crc32(data[: data.rstrip().rfind(b"\n") + 1]):
            version = int(first[len(_MARK) :])
            if version > VERSION:
                return Kept(version)
            epoch = bytes.fromhex(lines[1])
            return Kept(version, epoch if len(epoch) == SIZE else None)
    except ValueError:
        pass
    return Kept(VERSION)


def write(path: Path, epoch: bytes) -> None:
    """Replace the file durably.  Raises ``OSError``."""
    text = f"{_MARK}{VERSION}\n{epoch.hex()}\n"
    temporary = path.with_suffix(".new")
    with temporary.open("w", encoding="ascii") as file:
        file.write(f"{text}{zlib.crc32(text.encode()):08x}\n")
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)
    sync_directory(path.parent)
