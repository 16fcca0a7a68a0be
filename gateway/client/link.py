"""One WebSocket connection of a client, on the ``websockets`` library, shared by devices and live feeds.

A message is written straight away, without a task of its own: ``websockets``' ``broadcast`` never waits.  The
other half of flow control is here: above ``WRITE_LIMIT`` unsent bytes a link is ``blocked`` until it calls
``on_writable``.  Compression is off: messages are small, and it costs 64 KiB a connection.
"""

from __future__ import annotations

import asyncio
import logging
import os
from contextlib import suppress
from typing import TYPE_CHECKING, Any, NamedTuple

from websockets.asyncio.client import ClientConnection, connect
from websockets.asyncio.server import broadcast
from websockets.exceptions import (
    ConnectionClosed,
    InvalidHandshake,
    InvalidStatus,
    InvalidURI,
    SecurityError,
)

from .wire import is_loopback, retry_after

if TYPE_CHECKING:
    import ssl as ssl_module
    from collections.abc import Callable

__all__ = ["CONNECT_ERRORS", "Ending", "Link", "ending_of", "failure_of", "open_link", "write"]

WRITE_LIMIT = 65_536
CLOSE_TIMEOUT_S = 2.0
KEEPALIVE_S = 20.0

# What an attempt to connect may raise.
CONNECT_ERRORS = (OSError, TimeoutError, InvalidHandshake, InvalidURI, SecurityError, EOFError)


class Ending(NamedTuple):
    """Why there is no connection: in words; what that means for the next one."""

    reason: str
    code: int = 0  # close code, or HTTP status of a refused handshake; 0: the network
    fatal: bool = False  # trying again by itself is not allowed or cannot help
    retry_after_s: float = 0.0
    hint: str = ""


class Link(ClientConnection):
    """A connection that knows whether it takes more bytes now."""

    blocked = False
    on_writable: Callable[[], None] | None = None

    def pause_writing(self) -> None:
        self.blocked = True
        super().pause_writing()

    def resume_writing(self) -> None:
        super().resume_writing()
        self.blocked = False
        if self.on_writable is not None:
            self.on_writable()

    def cut(self) -> None:
        """Drop the connection as a network does: no close frame, unsent bytes lost."""
        self.transport.abort()

    async def end(self, code: int = 1000, reason: str = "") -> None:
        """Close within ``CLOSE_TIMEOUT_S``, or cut: the library's own timeout does not cover a full write
        buffer.
        """
        try:
            async with asyncio.timeout(CLOSE_TIMEOUT_S):
                await self.close(code, reason)
        except TimeoutError:
            self.cut()
            await self.wait_closed()


def write(link: Link, message: bytes, *, text: bool) -> None:
    """Write now, in full, without waiting; on a connection that has ended nothing happens."""
    broadcast((link,), message, text=text)


# At its most talkative the library logs the headers, and with them the token.
_log = logging.getLogger("gateway.client.link")
_log.setLevel(logging.INFO)


async def open_link(
    address: str,
    *,
    subprotocol: str,
    token: str | None,
    open_timeout: float,
    max_bytes: int,
    ssl: ssl_module.SSLContext | None,
) -> Link:
    """Connect; raises one of ``CONNECT_ERRORS``, which :func:`failure_of` puts in words."""
    more: dict[str, Any] = {}
    if ssl is not None:
        more["ssl"] = ssl
    if is_loopback(address):
        more["proxy"] = None
    link = await connect(
        address,
        subprotocols=[subprotocol],  # type: ignore[list-item]
        additional_headers={"Authorization": f"Bearer {token}"} if token else None,
        compression=None,
        open_timeout=open_timeout,
        ping_interval=KEEPALIVE_S,
        ping_timeout=KEEPALIVE_S,
        close_timeout=CLOSE_TIMEOUT_S,
        max_size=max_bytes,
        write_limit=WRITE_LIMIT,
        create_connection=Link,
        logger=_log,
        **more,
    )
    assert isinstance(link, Link)
    return link


def failure_of(error: BaseException) -> Ending:
    """What a failed attempt to connect means."""
    if isinstance(error, InvalidStatus):
        response = error.response
        status = response.status_code
        wait = response.headers.get("Retry-After", "")
        seconds = min(float(wait), 3600.0) if wait.isascii() and wait.isdigit() else 0.0
        words = ""
        with suppress(UnicodeDecodeError):
            words = (response.body or b"")[:200].decode().strip()
        reason = f"the gateway answered {status}" + (f": {words}" if words else "")
        if status == 401:
            return Ending(reason, status, fatal=True, hint="give a token that covers this device or feed")
        if status == 403:
            return Ending(
                reason, status, fatal=True, hint="the token's scope or the address's host name is not allowed"
            )
        if status in (400, 404):
            return Ending(reason, status, fatal=True, hint="is this address a gateway's?")
        return Ending(reason, status, retry_after_s=seconds)
    if isinstance(error, InvalidURI | SecurityError):
        return Ending(str(error), fatal=True)
    if isinstance(error, TimeoutError):
        return Ending("no answer in time")
    if isinstance(error, InvalidHandshake):
        return Ending(f"no WebSocket there: {error}")
    if isinstance(error, OSError):
        # asyncio's own words name the call instead of the cause; resolver errors have negative numbers and good words.
        if error.errno is not None and error.errno > 0:
            return Ending(os.strerror(error.errno))
        return Ending(error.strerror or str(error) or type(error).__name__)
    return Ending(str(error) or type(error).__name__)


def ending_of(link: Link, error: ConnectionClosed) -> Ending:
    """What the end of a connection means (PROTOCOL section 3: 1008 and 4001 are final, 1013 says when)."""
    code = link.close_code or 1006
    said = error.rcvd.reason if error.rcvd is not None else ""
    if error.rcvd is None:
        cause = error.__cause__
        reason = "connection lost" + (f": {cause}" if cause is not None and str(cause) else "")
        return Ending(reason, code)
    reason = f"closed with {code}" + (f": {said}" if said else "")
    if code == 1008:
        return Ending(reason, code, fatal=True)
    if code == 4001:
        return Ending(reason, code, fatal=True, hint="another connection of this device took its place")
    if code == 1013:
        return Ending(reason, code, retry_after_s=retry_after(said))
    return Ending(reason, code)
