"""Files of the state directory that are put out of the way, or copied before they are changed.

Nothing that could be looked at later is thrown away at once: what is damaged, or another's, is renamed, and what is
migrated to a newer layout is copied first.  Names say why and when, in UTC::

    NAME.damaged-YYYYmmddTHHMMSSZ    what could not be read
    NAME.foreign-YYYYmmddTHHMMSSZ    what belongs to another state directory
    NAME.v1-YYYYmmddTHHMMSSZ         a copy of what was of version 1

A number follows where such a name is taken.  Bound: of one kind of file (segments, say) the newest :data:`KEPT` stay.
Which are the newest is the file system's word (the time of change): names are written by a clock that may be wrong.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import shutil
import time
from collections.abc import Collection
from pathlib import Path

__all__ = ["KEPT", "asides", "dated", "forget", "keep_copy", "read_start", "remove", "set_aside", "sync_directory"]

KEPT = 8

_end = re.compile(r"\.(?:damaged|foreign|v\d+)-(\d{8}T\d{6}Z)(?:-(\d+))?", re.ASCII).fullmatch


def sync_directory(directory: Path) -> None:
    """Make births, deaths and renames in ``directory`` durable.  Raises ``OSError``."""
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def read_start(path: Path, size: int) -> bytes | None:
    """The first ``size`` bytes of a file; ``None`` for a directory, or where the disk cannot read them.

    Raises ``FileNotFoundError``, and other ``OSError``.
    """
    try:
        with path.open("rb") as file:
            return file.read(size)
    except OSError as error:
        if error.errno in (errno.EIO, errno.EISDIR):
            return None
        raise


def remove(path: Path) -> None:
    """Unlink, also what is gone already.  Raises ``OSError``."""
    with contextlib.suppress(FileNotFoundError):
        path.unlink()


def set_aside(path: Path, why: str, *, kind: str = "", kept: int = KEPT) -> Path | None:
    """Rename a file (or whatever has its name) and return its new name; ``None`` if it is gone.  Raises ``OSError``.

    ``kind``: how the names of all files end that share the bound ``kept``; else it is this file's own.
    """
    target = dated(path, why)
    try:
        path.rename(target)
    except FileNotFoundError:
        return None
    forget(path, kind=kind, kept=kept, spare=(target,))
    return target


def keep_copy(path: Path, version: int, *, kept: int = KEPT) -> Path:
    """Copy a file of that version, durably, and return the copy's name.  Raises ``OSError``."""
    target = dated(path, f"v{version}")
    shutil.copy2(path, target)
    with target.open("rb") as file:
        os.fsync(file.fileno())
    sync_directory(path.parent)
    forget(path, kept=kept, spare=(target,))
    return target


def asides(directory: Path, kind: str) -> list[Path]:
    """The files set aside whose name before that ended in ``kind``; that which was set aside last comes last."""
    found: list[tuple[int, str, int, Path]] = []
    for path in directory.iterdir():
        at = path.name.rfind(kind + ".")
        end = _end(path.name[at + len(kind) :]) if at >= 0 else None
        if end is not None:
            found.append((path.lstat().st_ctime_ns, end[1], int(end[2] or 0), path))
    return [path for *_, path in sorted(found)]


def dated(path: Path, why: str) -> Path:
    """A free name for what is put aside now."""
    name = f"{path.name}.{why}-{time.strftime('%Y%m%dT%H%M%SZ', time.gmtime())}"
    target = path.with_name(name)
    number = 1
    while os.path.lexists(target):
        target = path.with_name(f"{name}-{number}")
        number += 1
    return target


def forget(path: Path, *, kind: str = "", kept: int = KEPT, spare: Collection[Path] = ()) -> None:
    """Remove all but the newest files put aside, with what SQLite keeps beside its own.

    Those in ``spare`` count among the newest, and are never removed.
    """
    found = asides(path.parent, kind or path.name)
    others = [old for old in found if old not in spare]
    room = max(0, kept - (len(found) - len(others)))
    for old in others[: max(0, len(others) - room)]:
        for beside in ("", "-wal", "-shm"):
            with contextlib.suppress(IsADirectoryError, PermissionError):
                remove(old.with_name(old.name + beside))
