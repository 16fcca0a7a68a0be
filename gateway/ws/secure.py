"""A TCP connection until its TLS handshake is done.

asyncio's and uvloop's servers keep a connection to themselves during its TLS handshake: nobody could count it, cut it,
or end it at a stop.  So the listener is a plain one, and each connection's descriptor is taken from it before anything
is read, to be given to a transport with TLS.  (``loop.start_tls`` would need a transport that reads nothing until
then, which uvloop has not: it goes on reading whatever its protocol says when the connection is made.)
"""

from __future__ import annotations

import asyncio
import logging
import os
import socket
from functools import partial
from typing import TYPE_CHECKING, cast

from .reception import Reception

if TYPE_CHECKING:
    import ssl

    from .server import Server

__all__ = ["Hello"]

logger = logging.getLogger("gateway.ws")


class Hello(asyncio.Protocol):
    """One connection before it can send its request; a :class:`Reception` follows."""

    has_request = False

    def __init__(self, server: Server, tls: ssl.SSLContext, close_timeout: float) -> None:
        self._server = server
        self._tls = tls
        self._close_timeout = close_timeout
        self._deadline = 0.0
        self._task: asyncio.Task[None] | None = None
        self._settled = False  # handed on, failed, or cut: no longer to be counted

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        server = self._server
        server.counters.accepted += 1
        self._deadline = server.loop.time() + server.handshake_timeout
        if server.receive(self):
            try:
                sock = socket.socket(fileno=os.dup(transport.get_extra_info("socket").fileno()))
            except OSError as error:  # no descriptor left: this connection ends, and is not counted any longer
                logger.warning("a connection cannot be taken: %s", error.strerror or error)
                server.counters.handshakes_failed += 1
                self._settle()
            else:
                sock.setblocking(False)
                self._task = server.loop.create_task(self._secure(sock))
        else:
            server.counters.handshakes_cut += 1
        # The duplicate, if there is one, keeps the connection open.
        cast("asyncio.Transport", transport).abort()

    async def _secure(self, sock: socket.socket) -> None:
        server = self._server
        try:
            await server.loop.connect_accepted_socket(
                partial(Reception, server, self),
                sock,
                ssl=self._tls,
                ssl_handshake_timeout=server.handshake_timeout,
                ssl_shutdown_timeout=self._close_timeout,
            )
        except OSError as error:
            # No TLS, no certificate in common, an early end, or none of it in time.  Its traceback has frames of
            # asyncio's that hold it in turn, and the TLS state: all that would wait for the cyclic collector.
            fault: BaseException | None = error
            while fault is not None:
                fault.__traceback__ = None
                fault = fault.__context__
        finally:
            if not self._settled:
                server.counters.handshakes_failed += 1
                self._settle()

    def _settle(self) -> None:
        self._settled = True
        self._server.left(self)

    def done(self) -> float:
        """The handshake is done, the :class:`Reception` takes this one's place; the seconds that it has left."""
        self._settle()
        return max(0.0, self._deadline - self._server.loop.time())

    def cut(self) -> None:
        """End at once, to make room."""
        self._settled = True
        self.abort()

    def abort(self) -> None:
        """End at once; the server's stop waits until it is done."""
        if self._task is not None:
            self._task.cancel()
            self._server.track(self._task)
