"""The journal's directory: locked for as long as it is ours, and looked after, since it can be removed under us.

A file that has lost its name takes writes and syncs as before, and is gone with the process.  So every commit looks
whether its file still has a name, and every second whether the name still leads to it.  A directory that was deleted
is made again; one that was moved away, or has another in its place, is a failed disk until it is back.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import logging
import os
from typing import TYPE_CHECKING

from gateway.aside import sync_directory
from gateway.journal import identity

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["Home", "check_named", "check_place", "lock"]

log = logging.getLogger(__name__)


def lock(directory: Path) -> int:
    """Open and lock a directory; the descriptor holds the lock.  Raises ``BlockingIOError`` and ``OSError``."""
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(fd)
        raise
    return fd


def check_named(fd: int) -> None:
    """Raises ``OSError`` where the file has no name any more."""
    if not os.fstat(fd).st_nlink:
        raise OSError(errno.ENOENT, "a file of the journal was removed while it was in use")


def check_place(fd: int, path: Path) -> None:
    """Raises ``OSError`` where ``path`` does not lead to the file."""
    if not _leads(path, fd):
        raise OSError(errno.ENOENT, "the journal's files were moved or replaced while they were in use")


def _leads(path: Path, fd: int) -> bool:
    try:
        return os.path.samestat(os.stat(path), os.fstat(fd))
    except FileNotFoundError:
        return False


class Home:
    """The locked ``directory``; ``fd`` holds the lock.  In one thread at a time."""

    def __init__(self, directory: Path, fd: int) -> None:
        self._directory = directory
        self._fd = fd

    def enter(self, epoch: bytes) -> None:
        """See to it that files can be born in the directory; raises ``OSError`` where it is not ours."""
        if _leads(self._directory, self._fd):
            return
        if os.fstat(self._fd).st_nlink:
            raise OSError(errno.ENOENT, "the journal's directory was moved away")
        self._directory.mkdir(parents=True, exist_ok=True)
        if any(self._directory.iterdir()):
            raise OSError(errno.EEXIST, "the journal's directory was replaced by another")
        fd = lock(self._directory)
        os.close(self._fd)
        self._fd = fd
        identity.write(self._directory / identity.FILE_NAME, epoch)
        with contextlib.suppress(OSError):
            sync_directory(self._directory.parent)
        extra = {"event": "journal_damaged", "path": self._directory, "reason": "removed"}
        log.error("%s was removed while it was in use; it is made again", self._directory, extra=extra)

    def close(self) -> None:
        """Give up the lock."""
        os.close(self._fd)
