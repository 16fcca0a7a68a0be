"""The WebSocket layer: routes, handlers, connections and a server, on the ``websockets`` library's sans-I/O core.

It knows nothing of telemetry and can be used from another program::

    from gateway.ws import Message, Router, Server, message_handler

    router = Router()

    @router.websocket("/chat/{user_id}")
    async def chat(ws, user_id):
        async for message in ws:
            if message.kind == "text":
                await ws.send_text(f"{user_id}: {message.data}")

    async with Server(router, port=8765) as server:
        await server.wait_closed()

Modules: ``message`` what is sent and received, ``request`` HTTP as far as needed, ``router`` paths and middleware,
``handlers`` and ``batch`` the kinds of handlers, ``reception`` a connection until its upgrade, ``wire`` and
``connection`` one after it, ``heartbeat`` pings from one timer, ``pool`` broadcasts, ``server`` listeners, limits and
the stop.
"""

from gateway.limit import SlidingWindow, TokenBucket

from .auth import BearerAuth
from .connection import Connection
from .errors import ConnectionClosed, WebSocketError
from .handlers import Endpoint, batch_handler, message_handler, recover, websocket_handler
from .message import Message, Prepared
from .pool import Pool
from .request import Headers, Query, Request, Response
from .router import Middleware, Next, Router
from .server import Server

__all__ = [
    "BearerAuth",
    "Connection",
    "ConnectionClosed",
    "Endpoint",
    "Headers",
    "Message",
    "Middleware",
    "Next",
    "Pool",
    "Prepared",
    "Query",
    "Request",
    "Response",
    "Router",
    "Server",
    "SlidingWindow",
    "TokenBucket",
    "WebSocketError",
    "batch_handler",
    "message_handler",
    "recover",
    "websocket_handler",
]
