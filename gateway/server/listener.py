"""The listener: every endpoint behind one router, one access and one set of limits."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterable, Sequence
from ssl import SSLContext
from typing import Protocol

from ..ws import Response, Router, Server
from .access import Access

__all__ = ["Endpoint", "hosts_of", "listener"]


BACKLOG = 4096  # connections that wait to be accepted, as far as the kernel allows (net.core.somaxconn)


class Endpoint(Protocol):
    """Addresses that belong together."""

    def register(self, router: Router) -> None:
        """Add the addresses to a router."""


def hosts_of(sockets: Iterable[socket.socket]) -> list[str]:
    """The addresses that those of TCP among listening sockets have."""
    return [sock.getsockname()[0] for sock in sockets if sock.family != socket.AF_UNIX]


def listener(
    endpoints: Iterable[Endpoint],
    access: Access,
    *,
    host: str,
    port: int,
    heartbeat: tuple[float, float],
    max_connections: int | None = None,
    max_handshakes: int | None = 1024,
    max_per_address: int | None = None,
    stop_timeout: float = 3.0,
    ssl: SSLContext | None = None,
    sockets: Sequence[socket.socket] = (),
    refused: Callable[[object, str, Response], None] | None = None,
) -> Server:
    """A server, not listening yet; ``heartbeat`` is interval and timeout (s), ``refused`` is told of refusals."""
    router = Router()
    router.middleware(access)
    for endpoint in endpoints:
        endpoint.register(router)
    return Server(
        router,
        host=host,
        port=port,
        heartbeat=heartbeat,
        max_connections=max_connections,
        max_handshakes=max_handshakes,
        max_per_address=max_per_address,
        stop_timeout=stop_timeout,
        ssl=ssl,
        sock=sockets,
        shared=bool(sockets),
        backlog=BACKLOG,
        refused=refused,
    )
