"""What the client library raises, beside ``ValueError`` for what can never be sent."""

from __future__ import annotations

from ..errors import GatewayError

__all__ = ["BufferFull", "ClientClosed", "ClientError", "LimitExceeded", "Undelivered"]


class ClientError(GatewayError):
    """Base of the client library's own."""


class BufferFull(ClientError):
    """``max_unacked`` readings are waiting for their ack; nothing was taken."""


class LimitExceeded(ClientError):
    """More than the gateway takes, as it has said itself; nothing was sent."""


class ClientClosed(ClientError):
    """The client was closed, or the gateway ended it for good.

    ``code`` is the WebSocket close code (1008, 4001), the HTTP status of a refused handshake (401, 403, 404),
    or 0 where this side closed.
    """

    def __init__(self, message: str, *, code: int = 0, hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.code = code


class Undelivered(ClientError):
    """The client was left while ``count`` readings had no ack yet; whether the gateway holds them is not
    known.
    """

    def __init__(self, count: int, message: str) -> None:
        super().__init__(message)
        self.count = count
