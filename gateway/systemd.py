"""What the service tells systemd, sd_notify(3), and the sockets that it is handed, sd_listen_fds(3).

States go to ``$NOTIFY_SOCKET`` with systemd-python where it is installed, else by the protocol's few lines: one
datagram, a leading ``@`` meaning an abstract address.  These never wait for a manager that does not read: what it has
not been told, the latest of each variable, goes with the next.  Sockets are descriptors from 3 on, ``$LISTEN_FDS`` of
them, named by ``$LISTEN_FDNAMES``, for the process ``$LISTEN_PID``.
"""

from __future__ import annotations

import importlib
import os
import socket
import stat
import time
from typing import Any

from .errors import ConfigError

__all__ = ["SOCKETS_FROM", "extend", "notify", "reloading", "sockets", "watchdog_interval"]

SOCKETS_FROM = 3  # SD_LISTEN_FDS_START


# What was not told, by the variable: bounded by their number.
_untold: dict[str, str] = {}
_OVER = {"READY": ("RELOADING", "MONOTONIC_USEC"), "RELOADING": ("READY",)}  # what each says is not so any more


def notify(*lines: str) -> bool:
    """Send states such as ``READY=1``; false where nobody listens, or reads."""
    address = os.environ.get("NOTIFY_SOCKET")
    if not address:
        return False
    for line in lines:
        variable = line.partition("=")[0]
        for over in (variable, *_OVER.get(variable, ())):
            _untold.pop(over, None)
        _untold[variable] = line
    told = _tell(address, "\n".join(_untold.values()))
    if told:
        _untold.clear()
    return told


def _tell(address: str, state: str) -> bool:
    try:
        daemon: Any = importlib.import_module("systemd.daemon")
    except ImportError:
        return _send(address, state)
    return bool(daemon.notify(state))


def _send(address: str, state: str) -> bool:
    if address[0] == "@":
        address = "\0" + address[1:]
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as channel:
            channel.setblocking(False)
            channel.connect(address)
            channel.send(state.encode())  # whole, or not at all
    except OSError:
        return False
    return True


def reloading(status: str) -> bool:
    """A reload begins: until the next ``READY=1``."""
    return notify("RELOADING=1", f"MONOTONIC_USEC={time.monotonic_ns() // 1000}", f"STATUS={status}")


def extend(seconds: float, status: str) -> bool:
    """The start, or the stop, needs at least ``seconds`` more from now on."""
    return notify(f"EXTEND_TIMEOUT_USEC={int(seconds * 1e6)}", f"STATUS={status}")


def watchdog_interval() -> float | None:
    """Seconds between ``WATCHDOG=1``, half of what the unit allows; None where it has no watchdog for us."""
    microseconds = os.environ.get("WATCHDOG_USEC", "")
    for_pid = os.environ.get("WATCHDOG_PID")
    if not microseconds.isdigit() or int(microseconds) <= 0 or (for_pid and for_pid != str(os.getpid())):
        return None
    return int(microseconds) / 2_000_000


def sockets() -> list[socket.socket]:
    """The listening sockets that we were started with, ours from now on; empty where there are none for us.

    Children are not handed them.  Raises :class:`ConfigError` for what is no listening stream socket: such a unit
    cannot be served, and is not to be tried again.
    """
    count, for_pid = os.environ.pop("LISTEN_FDS", ""), os.environ.pop("LISTEN_PID", "")
    names = os.environ.pop("LISTEN_FDNAMES", "").split(":")
    if not count.isdigit() or for_pid != str(os.getpid()):
        return []
    found = []
    for at in range(int(count)):
        fd = SOCKETS_FROM + at
        name = names[at] if at < len(names) and names[at] else f"descriptor {fd}"
        found.append(_listening(fd, name))
    return found


def _listening(fd: int, name: str) -> socket.socket:
    try:
        if not stat.S_ISSOCK(os.fstat(fd).st_mode):
            raise ConfigError(f"{name} is not a socket", hint="the unit may have ListenStream= alone")
        sock = socket.socket(fileno=fd)
    except OSError as error:
        raise ConfigError(f"{name} cannot be used: {error.strerror or error}") from None
    listens = (
        sock.type == socket.SOCK_STREAM
        and sock.family in (socket.AF_INET, socket.AF_INET6, socket.AF_UNIX)
        and sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
    )
    if not listens:
        sock.detach()
        raise ConfigError(
            f"{name} is not a listening stream socket", hint="the unit may have ListenStream= alone, and Accept=no"
        )
    sock.setblocking(False)
    sock.set_inheritable(False)
    return sock
