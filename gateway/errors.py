"""The exceptions that cross a room's door.

Each knows what its catcher needs: a refusal its wire code, an operable failure a hint in words.  The WebSocket layer
(``gateway.ws``) is a product of its own and keeps its own.
"""

from __future__ import annotations

__all__ = [
    "AuthError",
    "ConfigError",
    "GatewayError",
    "HistoryError",
    "JournalError",
    "Overloaded",
    "Refusal",
    "StateLocked",
]


class GatewayError(Exception):
    """Base of all; ``hint`` says what an operator can do about it (may be empty)."""

    hint = ""

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        if hint:
            self.hint = hint


class ConfigError(GatewayError):
    """Settings that cannot be used; the command ends with exit status 78 (EX_CONFIG of sysexits.h)."""

    exit_status = 78


class StateLocked(GatewayError):
    """Another instance holds the state directory."""

    exit_status = 75


class AuthError(GatewayError):
    """A token, a scope or the file of tokens cannot be used as asked."""


class JournalError(GatewayError):
    """The journal cannot be opened or read."""


class HistoryError(GatewayError):
    """The history cannot be opened, or a query cannot be answered."""


class Overloaded(GatewayError):
    """No room now; try again after ``retry_after_ms`` (wire code ``overloaded``, close code 1013)."""

    close_code = 1013

    def __init__(self, message: str, *, retry_after_ms: int = 1000) -> None:
        super().__init__(message)
        self.retry_after_ms = retry_after_ms


class Refusal(GatewayError):
    """A message or reading that is not taken: one ``error`` on the wire.

    ``code`` is the wire's ``code``; ``str(refusal)`` its ``detail``; ``seq`` and ``index`` are set where known, and
    ``device`` where the reading named one.
    """

    def __init__(self, code: str, detail: str, *, seq: int = 0, index: int | None = None, device: str = "") -> None:
        super().__init__(detail)
        self.code = code
        self.seq = seq
        self.index = index
        self.device = device
