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
def alone(directory: Path, *, become: bool = True) -> Iterator[None]:
    """Hold the lock that a gateway holds while it runs; root becomes the directory's owner, whose files they stay.

    Without ``become`` root stays what it is, and has to see itself that its files are the owner's: a service's
    directory may lie where its owner alone does not get to (systemd's ``/var/lib/private``).

    Raises :class:`StateLocked` where somebody holds it, and :class:`GatewayError`.
    """
    try:
        owner = directory.stat()
        foreign = os.geteuid() == 0 and owner.st_uid != 0
        if foreign and become:
            os.setegid(owner.st_gid)
            os.seteuid(owner.st_uid)
        # Never through a link: whoever owns the directory cannot have root make a file elsewhere.
        fd = os.open(directory / "lock", os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o640)
        if foreign and not become:
            os.fchown(fd, owner.st_uid, owner.st_gid)
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
