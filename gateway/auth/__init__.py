"""Who may do what: tokens and their scopes, browser sessions, and devices that knock without being known.

A token is an opaque random string; the gateway keeps its SHA-256 alone, so that whoever reads the file has none.  No
asyncio, no server: the file is read at start, everything asked on the way of a connection is answered from memory.
"""

from __future__ import annotations

from .knocks import Knock, Knocks
from .scopes import ALL_SCOPES, ANYBODY, CERTIFICATE, Grant, certificate_grant, check_scopes
from .tokens import MAX_TOKENS, SESSION_S, NotKept, Record, Tokens

__all__ = [
    "ALL_SCOPES",
    "ANYBODY",
    "CERTIFICATE",
    "MAX_TOKENS",
    "SESSION_S",
    "Grant",
    "Knock",
    "Knocks",
    "NotKept",
    "Record",
    "Tokens",
    "certificate_grant",
    "check_scopes",
]
