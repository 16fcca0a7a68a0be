"""The exceptions of the WebSocket layer."""

from __future__ import annotations

__all__ = ["ConnectionClosed", "WebSocketError"]


class WebSocketError(Exception):
    """Base of all that this layer raises of its own."""


class ConnectionClosed(WebSocketError):
    """The connection is closing or closed: nothing can be sent any more.

    ``code`` and ``reason`` are those of the connection (RFC 6455, 7.1.5 and 7.1.6) as far as they are known by then.
    """

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(f"connection closed: {code}{' ' if reason else ''}{reason}")
        self.code = code
        self.reason = reason
