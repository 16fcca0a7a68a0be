"""What commands do to the files of a state directory while no gateway runs there."""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path

from ..errors import GatewayError, StateLocked

__all__ = ["alone"]


@contextlib.contextmanager
def alone(directory: Path, *, become: bool = True) -> Iterator[Path]:
    """Hold the lock that a gateway holds while it runs; gives the directory, to be used from then on.

    Root becomes the directory's owner, whose files they stay; without ``become`` it stays what it is, and its caller
    sees to that.  Raises :class:`StateLocked` where somebody holds the lock, and :class:`GatewayError`.
    """
    opened = []
    try:
        owner = directory.stat()
        foreign = os.geteuid() == 0 and owner.st_uid != 0
        place = directory
        if foreign and become:
            # It may lie where its owner alone does not get to (systemd's /var/lib/private).
            opened.append(os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC))
            place = Path(f"/proc/self/fd/{opened[0]}")
            os.setegid(owner.st_gid)
            os.seteuid(owner.st_uid)
        # Never through a link: whoever owns the directory cannot have root make a file elsewhere.
        lock = os.open(place / "lock", os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o640)
        opened.append(lock)
        if foreign and not become:
            os.fchown(lock, owner.st_uid, owner.st_gid)
    except OSError as error:
        for fd in opened:
            os.close(fd)
        raise GatewayError(
            f"the state directory {directory} cannot be used: {error.strerror}", hint="run this as the gateway's user"
        ) from None
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield place
    except BlockingIOError:
        raise StateLocked(
            f"a gateway that does not answer uses {directory}", hint="try again when it has started or stopped"
        ) from None
    finally:
        for fd in opened:
            os.close(fd)
