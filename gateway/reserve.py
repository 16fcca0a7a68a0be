"""A little room set aside on the disk, for a start that finds none.

SQLite cannot open a database without some room: its index of the log is a file.  What others have filled would keep the
gateway from starting, and so from saying why.  A file of :data:`BYTES` is given up for that, and made again when the
gateway stops, or when there is room again.
"""

from __future__ import annotations

import errno
import os
from contextlib import suppress
from pathlib import Path

__all__ = ["BYTES", "Reserve"]

BYTES = 1 << 20


class Reserve:
    """The file at ``path``.  Methods block for moments, and raise nothing."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def release(self) -> bool:
        """Give the room up; whether there was any."""
        try:
            size = self._path.stat().st_size
            self._path.unlink()
        except OSError:
            return False
        return size > 0

    def renew(self) -> bool:
        """As :meth:`make`, unless that would leave others short; to be called now and then."""
        try:
            room = os.statvfs(self._path.parent)
        except OSError:
            return False
        return room.f_bavail * room.f_frsize > 3 * BYTES and self.make()

    def make(self) -> bool:
        """Set the room aside, if it is not already; whether it is."""
        try:
            fd = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o640)
        except OSError:
            return False
        try:
            if os.fstat(fd).st_size != BYTES:
                os.ftruncate(fd, 0)
                os.posix_fallocate(fd, 0, BYTES)
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
                with suppress(OSError):
                    os.unlink(self._path)
            return False
        finally:
            os.close(fd)
        return True
