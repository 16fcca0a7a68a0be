"""A small gateway for the client's tests: PROTOCOL section 3 over real sockets, with faults on request."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from http import HTTPStatus
from typing import Any, Self

import msgspec
from websockets.asyncio.server import Server, ServerConnection, serve
from websockets.exceptions import ConnectionClosed
from websockets.http11 import Request, Response
from websockets.typing import Subprotocol

from .model import GatewayModel

SUBPROTOCOLS = [Subprotocol("gateway.v1.json"), Subprotocol("gateway.v1.msgpack")]


async def until(condition: Callable[[], object], timeout: float = 20.0) -> None:
    """Wait for another program's state."""
    async with asyncio.timeout(timeout):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0.002)


class FakeGateway:
    """``async with FakeGateway() as gateway``.  Each device has a :class:`GatewayModel` that outlives connections."""

    def __init__(self, *, commit_ms: float = 5, **model: Any) -> None:
        self.models: dict[str, GatewayModel] = {}
        self.model_options = model
        self.commit_s = commit_ms / 1000
        self.committing = True
        self.connections: dict[str, ServerConnection] = {}
        self.requests: list[Request] = []
        self.messages: list[Any] = []  # as decoded
        self.sizes: list[int] = []
        self.others: list[dict[str, Any]] = []  # describe, heartbeat, result
        self.reject: tuple[int, dict[str, str]] | None = None  # HTTP status and headers for a handshake
        self.before_welcome: Callable[[], Any] | None = None
        self.silent = False
        self.port = 0
        self._server: Server | None = None
        self._committer: asyncio.Task[None] | None = None

    @property
    def url(self) -> str:
        return f"ws://127.0.0.1:{self.port}"

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    async def start(self) -> None:
        self._server = await serve(
            self._connection,
            "127.0.0.1",
            self.port,
            subprotocols=SUBPROTOCOLS,
            compression=None,
            process_request=self._request,
            ping_interval=None,
            close_timeout=0.5,
        )
        self.port = next(iter(self._server.sockets)).getsockname()[1]
        self._committer = asyncio.create_task(self._commit())

    async def stop(self, *, crash: bool = False) -> None:
        """End; ``crash``: without a close frame, losing what was not committed."""
        assert self._server is not None
        assert self._committer is not None
        self._committer.cancel()
        if crash:
            self.cut()
            for model in self.models.values():
                model.crash()
        self._server.close()
        await self._server.wait_closed()

    def model(self, device: str = "pump-1") -> GatewayModel:
        if device not in self.models:
            self.models[device] = GatewayModel(device, **self.model_options)
        return self.models[device]

    def stored(self, device: str = "pump-1") -> list[Any]:
        """The ``n`` of each stored reading, in order."""
        return [reading["values"]["n"] for reading in self.model(device).store]

    def cut(self) -> None:
        """Drop all connections as a network does."""
        for connection in self.connections.values():
            connection.transport.abort()

    async def close(self, code: int, reason: str = "") -> None:
        """Close all connections."""
        await asyncio.gather(*(c.close(code, reason) for c in list(self.connections.values())))

    async def say(self, message: dict[str, Any], device: str = "pump-1") -> None:
        """Send any message to a device."""
        await self._send(self.connections[device], message)

    # The server

    def _request(self, connection: ServerConnection, request: Request) -> Response | None:
        self.requests.append(request)
        if self.reject is None:
            return None
        status, headers = self.reject
        response = connection.respond(HTTPStatus(status), "no\n")
        response.headers.update(headers)
        return response

    async def _send(self, connection: ServerConnection, message: dict[str, Any]) -> None:
        if connection.subprotocol == "gateway.v1.msgpack":
            await connection.send(msgspec.msgpack.encode(message))
        else:
            await connection.send(msgspec.json.encode(message).decode())

    async def _connection(self, connection: ServerConnection) -> None:
        assert connection.request is not None
        path, _, query = connection.request.path.partition("?")
        device = path.removeprefix("/v1/devices/")
        session = dict(part.split("=") for part in query.split("&")).get("session", "")
        model = self.model(device)
        self.connections[device] = connection
        with suppress(ConnectionClosed):
            if self.silent:
                await connection.wait_closed()
                return
            if self.before_welcome is not None:
                await self._send(connection, self.before_welcome())
            await self._send(connection, model.connect(session))
            async for message in connection:
                self.sizes.append(len(message))
                decode = msgspec.json.decode if isinstance(message, str) else msgspec.msgpack.decode
                decoded = decode(message)
                if isinstance(decoded, dict) and "type" in decoded:
                    self.others.append(decoded)
                    continue
                self.messages.append(decoded)
                for reply in model.receive(decoded, asyncio.get_running_loop().time()):
                    await self._send(connection, reply)
        if self.connections.get(device) is connection:
            del self.connections[device]

    async def _commit(self) -> None:
        while True:
            await asyncio.sleep(self.commit_s)
            if not self.committing:
                continue
            for device, model in self.models.items():
                for ack in model.commit():
                    connection = self.connections.get(device)
                    if connection is not None:
                        with suppress(ConnectionClosed):
                            await self._send(connection, ack)
