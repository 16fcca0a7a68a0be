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
def alone(directory: Path) -> Iterator[None]:
    """Hold the lock that a gateway holds while it runs; root becomes the directory's owner, whose files they stay.

    Raises :class:`StateLocked` where somebody holds it, and :class:`GatewayError`.
    """
    try:
        owner = directory.stat()
        if os.geteuid() == 0 and owner.st_uid:
            os.setegid(owner.st_gid)
            os.seteuid(owner.st_uid)
        fd = os.open(directory / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o640)
    except OSError as error:
        raise GatewayError(
            f"the state directory {directory} cannot be used: {error.strerror}", hint="run this as the gateway's user"
        ) from None
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    except BlockingIOError:
        raise StateLocked(
            f"a gateway that does not answer uses {directory}", hint="try again when it has started or stopped"
        ) from None
    finally:
        os.close(fd)
