"""The gateway with a look inside it, for ``tools/bench live``: ``python -m tools.toolkit.liveprobe run``.

``GET /bench/live`` answers, in JSON::

    {"encoded": calls of the feed's encoder so far, "downgraded": subscriptions moved to latest so far,
     "clients": {"PORT OF THE PEER": [bytes in our buffers or ready for them, bytes that the kernel holds,
                                     bytes that the hub holds]}}

What the kernel holds is its own account of the memory, overhead included (SK_MEMINFO_WMEM_QUEUED, SO_MEMINFO of
socket(7)); what the hub holds is what it counts itself.
"""

from __future__ import annotations

import os
import socket
import struct
import sys
from typing import Any

import msgspec

import gateway.server.access as access
import gateway.server.live as live
from gateway.ws import Request, Response, Router

__all__ = ["PATH", "install", "main"]

PATH = "/bench/live"
SO_MEMINFO, WMEM_QUEUED = 55, 5


def install() -> None:
    """Count what is encoded, and add the address; before the gateway's composition is imported."""
    encode = live.encode_frame
    encoded = 0

    def counted(format: str, message: dict[str, object]) -> Any:
        nonlocal encoded
        encoded += 1
        return encode(format, message)

    live.encode_frame = counted
    access.NEEDS = {**access.NEEDS, PATH: access.Need.NOTHING}
    register = live.LiveEndpoint.register

    def with_probe(endpoint: live.LiveEndpoint, router: Router) -> None:
        register(endpoint, router)

        def answer(request: Request) -> Response:
            held: dict[Any, int] = {}
            for group in endpoint.hub._groups.values():
                for member, subscriber in group.subscribers.items():
                    if subscriber.own is not None:
                        held[member] = held.get(member, 0) + subscriber.own.size
            clients = {str(client._ws.remote[1]): _costs(client, held.get(client, 0)) for client in endpoint.clients}
            body = {"encoded": encoded, "downgraded": endpoint.hub.downgraded, "clients": clients}
            return Response(200, msgspec.json.encode(body), content_type="application/json")

        router.get(PATH, answer)

    live.LiveEndpoint.register = with_probe  # type: ignore[method-assign,assignment]


def _costs(client: live.Client, held: int) -> list[int]:
    transport = client._ws._transport
    buffered = client._ws._out_bytes + transport.get_write_buffer_size() + client._held
    return [buffered, _kernel_memory(transport.get_extra_info("socket")), held]


def _kernel_memory(sock: Any) -> int:
    """What the kernel has put aside for what the peer has not taken, in bytes."""
    try:
        with socket.socket(fileno=os.dup(sock.fileno())) as own:
            account = own.getsockopt(socket.SOL_SOCKET, SO_MEMINFO, 64)
    except (OSError, ValueError):
        return 0
    return int(struct.unpack_from("=I", account, 4 * WMEM_QUEUED)[0])


def main() -> int:
    """The gateway's command line."""
    install()
    from gateway.cli import main as command

    return command()


if __name__ == "__main__":
    sys.exit(main())
