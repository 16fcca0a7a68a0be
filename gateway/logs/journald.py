"""journald's native protocol (https://systemd.io/JOURNAL_NATIVE_PROTOCOL/): an entry is a datagram of fields.

A field is ``NAME=value`` and a newline; a value with a newline in it is ``NAME``, a newline, its length in 64 bits
little-endian, the value, a newline.  What is too large for a datagram goes as a sealed file in memory whose descriptor
is passed.

These lines are used where systemd-python is installed, too: its ``journal.send`` says nothing when no journald is
there, and the entry would be lost.
"""

from __future__ import annotations

import errno
import fcntl
import os
import socket
import sys
from collections.abc import Iterable

__all__ = ["SOCKET", "Journald", "encode", "takes_stderr"]

SOCKET = "/run/systemd/journal/socket"
SEALS = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE | fcntl.F_SEAL_SEAL


def encode(fields: Iterable[tuple[str, str]]) -> bytes:
    """The datagram of an entry."""
    parts = []
    for name, value in fields:
        data = value.encode("utf-8", "backslashreplace")
        if b"\n" in data:
            parts.append(b"%s\n%s%s\n" % (name.encode(), len(data).to_bytes(8, "little"), data))
        else:
            parts.append(b"%s=%s\n" % (name.encode(), data))
    return b"".join(parts)


def takes_stderr(fd: int = 2) -> bool:
    """Whether what is written to ``fd`` goes to journald: ``$JOURNAL_STREAM`` names it (systemd.exec(5))."""
    named = os.environ.get("JOURNAL_STREAM")
    if not named:
        return False
    try:
        status = os.fstat(fd)
    except OSError:
        return False
    return named == f"{status.st_dev}:{status.st_ino}"


class Journald:
    """The way to journald; may wait for it, so not for the loop's thread."""

    def __init__(self, address: str = SOCKET) -> None:
        self._address = address
        self._socket: socket.socket | None = None

    def send(self, fields: Iterable[tuple[str, str]]) -> bool:
        """Hand an entry over; false where nobody takes it."""
        data = encode(fields)
        try:
            if self._socket is None:
                self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)
            try:
                self._socket.sendto(data, self._address)
            except OSError as error:
                if error.errno not in (errno.EMSGSIZE, errno.ENOBUFS):
                    raise
                self._send_file(self._socket, data)
        except OSError:
            return False
        return True

    def _send_file(self, channel: socket.socket, data: bytes) -> None:
        fd = os.memfd_create("gateway-log", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        with open(fd, "wb", buffering=0) as file:
            file.write(data)
            fcntl.fcntl(fd, fcntl.F_ADD_SEALS, SEALS)
            passed = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, fd.to_bytes(4, sys.byteorder))]
            channel.sendmsg([b""], passed, 0, self._address)

    def close(self) -> None:
        """Let go of the socket."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None
