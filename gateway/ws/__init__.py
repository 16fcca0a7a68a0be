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

**Options.**  Those of all connections stand with :class:`Server`, those of one route with :meth:`Router.websocket`.
Times and sizes that make no sense are refused where they are given.

**Sending.**  ``await ws.send(..)`` and its sisters wait while the peer is behind and raise :class:`ConnectionClosed`
once it is over.  ``ws.try_send(message)`` never waits, drops on a closed connection, and gives ``ws.pending_bytes``:
what the peer's machine has not taken, as far as our own buffer is not empty.  Whoever uses it keeps the bound.
``Message.prepare()`` frames once for any number of peers; :class:`Pool` keeps a bound for each of them.

**Receiving.**  ``ws.recv()`` or ``async for``, or a handler that is called.  What waits for ``recv`` is bounded by
``max_queue_bytes``, what an inline handler answers by ``write_buffer_bytes``: at the bound the peer is not read.
``ws.pause()`` and ``ws.resume()`` do the same at will; ``ws.peer_gone`` asks meanwhile whether it has left.

**Ending.**  ``await ws.close(code, reason)`` waits for the end, ``ws.close_soon(code, reason)`` only begins it,
``ws.abort(reason)`` waits for nothing.  ``ws.on_closed(hook)`` is called as soon as ``ws.close_code`` and
``ws.close_reason`` are known; ``ws.reason_lost`` says in words why, where the end was not ours.  ``server.close()``
refuses handshakes, sends 1001 to all, lets handlers and pages finish, and ends what is left after ``stop_timeout``.

**Counters.**  ``server.stats()`` and ``pool.stats()`` give numbers under flat names: ``connections``, ``messages_in``,
``refused_429``, ``closed_1009``, ``lost_ping_timeout``, ``handshakes_cut``, ``handler_errors`` and so on.  Every
failure of a handler is logged by ``gateway.ws`` with its traceback, path and peer; every refusal with its status.

Modules: ``message`` what is sent and received, ``request`` HTTP as far as needed, ``router`` paths and middleware,
``handlers`` and ``batch`` the kinds of handlers, ``checks`` arguments, ``secure`` a connection during TLS,
``reception`` until its upgrade, ``wire``, ``reader`` and ``connection`` after it, ``heartbeat`` pings from one timer,
``pool`` broadcasts, ``server`` listeners, limits and the stop.
"""

from gateway.limit import SlidingWindow, TokenBucket

from .auth import BearerAuth
from .connection import Connection
from .errors import ConnectionClosed, WebSocketError
from .handlers import batch_handler, message_handler, recover, websocket_handler
from .message import Message, Prepared
from .pool import Pool
from .request import Headers, Query, Request, Response
from .router import Middleware, Next, Router
from .server import Server

__all__ = [
    "BearerAuth",
    "Connection",
    "ConnectionClosed",
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
