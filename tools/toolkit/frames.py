"""WebSocket frames, as little of RFC 6455 as a load generator needs: whole messages both ways, no extensions.

A client's frame: ``81 | 80+n | mask*4 | payload`` below 126 bytes, ``81 | fe | n*2 | mask*4 | payload`` below 65,536.
A server's frame: the same without the mask, and ``ff``'s eight bytes of length above that (5.2).
"""

from __future__ import annotations

import base64
import os

try:
    from websockets.speedups import apply_mask
except ImportError:  # no compiled wheel for this machine: the library's own slower form
    from websockets.utils import apply_mask

__all__ = ["BINARY", "CLOSE", "PING", "PONG", "TEXT", "FrameReader", "client_frame", "upgrade_request"]

TEXT, BINARY, CLOSE, PING, PONG = 1, 2, 8, 9, 10

# One mask for all: it hides nothing from a server, and the server has to unmask it all the same.
MASK = os.urandom(4)
MASKED = 0x80


def client_frame(payload: bytes, opcode: int = TEXT) -> bytes:
    """One unfragmented, masked frame around ``payload`` (below 65,536 bytes)."""
    size = len(payload)
    if size < 126:
        head = bytes((0x80 | opcode, MASKED | size))
    else:
        head = bytes((0x80 | opcode, MASKED | 126)) + size.to_bytes(2, "big")
    return head + MASK + apply_mask(payload, MASK)


def upgrade_request(host: str, target: str, subprotocol: str = "") -> bytes:
    """The opening handshake (4.1) for ``target``, a path with its query."""
    lines = [
        f"GET {target} HTTP/1.1",
        f"Host: {host}",
        "Upgrade: websocket",
        "Connection: Upgrade",
        f"Sec-WebSocket-Key: {base64.b64encode(os.urandom(16)).decode()}",
        "Sec-WebSocket-Version: 13",
    ]
    if subprotocol:
        lines.append(f"Sec-WebSocket-Protocol: {subprotocol}")
    return "\r\n".join([*lines, "", ""]).encode()


class FrameReader:
    """Splits what a server sends into ``(opcode, payload)``; keeps an incomplete tail, which a server bounds."""

    def __init__(self) -> None:
        self._tail = b""

    def feed(self, data: bytes) -> list[tuple[int, bytes]]:
        """The frames that ``data`` completes; raises ``ValueError`` for a fragmented one."""
        if self._tail:
            data = self._tail + data
        frames = []
        at, end = 0, len(data)
        while end - at >= 2:
            first, size = data[at], data[at + 1]
            start = at + 2
            if size == 126:
                start += 2
                size = int.from_bytes(data[at + 2 : start], "big")
            elif size == 127:
                start += 8
                size = int.from_bytes(data[at + 2 : start], "big")
            if end < start or end - start < size:
                break
            if not first & 0x80:
                raise ValueError("a fragmented message")
            at = start + size
            frames.append((first & 0x0F, data[start:at]))
        self._tail = data[at:]
        return frames
