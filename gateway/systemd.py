"""What the service tells systemd: sd_notify(3).

With systemd-python where it is installed, else by the protocol's few lines: one datagram to ``$NOTIFY_SOCKET``, a
leading ``@`` meaning an abstract address.
"""

from __future__ import annotations

import importlib
import os
import socket
from typing import Any

__all__ = ["notify", "watchdog_interval"]


def notify(*lines: str) -> bool:
    """Send states such as ``READY=1``; false where nobody listens."""
    address = os.environ.get("NOTIFY_SOCKET")
    if not address:
        return False
    state = "\n".join(lines)
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
            channel.connect(address)
            channel.sendall(state.encode())
    except OSError:
        return False
    return True


def watchdog_interval() -> float | None:
    """Seconds between ``WATCHDOG=1``, half of what the unit allows; None where it has no watchdog for us."""
    microseconds = os.environ.get("WATCHDOG_USEC", "")
    for_pid = os.environ.get("WATCHDOG_PID")
    if not microseconds.isdigit() or int(microseconds) <= 0 or (for_pid and for_pid != str(os.getpid())):
        return None
    return int(microseconds) / 2_000_000
