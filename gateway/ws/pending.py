"""What the kernel knows of a peer: how much of what was sent its machine has not taken, and whether it has closed."""

from __future__ import annotations

import asyncio
import fcntl
import select
import struct
import termios

__all__ = ["hung_up", "in_kernel", "unsent"]

_uint32 = struct.Struct("@I").unpack


def in_kernel(transport: asyncio.Transport) -> int:
    """Bytes in the socket's send buffer, acknowledged ones not counted (tcp(7), SIOCOUTQ); 0 where it cannot say."""
    sock = transport.get_extra_info("socket")
    if sock is None:
        return 0
    try:
        (pending,) = _uint32(fcntl.ioctl(sock.fileno(), termios.TIOCOUTQ, b"\0\0\0\0"))
    except (OSError, ValueError):
        return 0
    return int(pending)


def unsent(transport: asyncio.Transport) -> int:
    """Bytes in the transport's buffer and the socket's."""
    return transport.get_write_buffer_size() + in_kernel(transport)


def hung_up(transport: asyncio.Transport) -> bool:
    """Whether the peer has closed its half or reset (poll(2), POLLRDHUP), read or not; false where it cannot say."""
    sock = transport.get_extra_info("socket")
    if sock is None:
        return False
    poll = select.poll()
    try:
        poll.register(sock.fileno(), select.POLLRDHUP)
        events = poll.poll(0)
    except (OSError, ValueError):
        return False
    return any(event & (select.POLLRDHUP | select.POLLHUP | select.POLLERR) for _, event in events)
