"""A small live feed for the client's tests: PROTOCOL section 5, as far as the client can tell."""

from __future__ import annotations

from contextlib import suppress
from typing import Any, Self

import msgspec
from websockets.asyncio.server import Server, ServerConnection, serve
from websockets.exceptions import ConnectionClosed
from websockets.typing import Subprotocol

SUBPROTOCOLS = [Subprotocol("gateway.v1.json"), Subprotocol("gateway.v1.msgpack")]


class FakeLive:
    """Answers a subscribe by a snapshot at ``offset``; everything else is said by the test."""

    def __init__(self) -> None:
        self.offset = 100
        self.epoch = "e1"
        self.auth = "ok"
        self.limits: dict[str, Any] = {
            "subscriptions": 16,
            "globs": 1000,
            "max_message_bytes": 65_536,
            "later": "field",
        }
        self.received: list[dict[str, Any]] = []
        self.tokens: list[str | None] = []
        self.connection: ServerConnection | None = None
        self.port = 0
        self._server: Server | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    async def __aenter__(self) -> Self:
        self._server = await serve(
            self._handle, "127.0.0.1", self.port, subprotocols=SUBPROTOCOLS, compression=None, ping_interval=None
        )
        self.port = next(iter(self._server.sockets)).getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._server is not None
        self._server.close()
        await self._server.wait_closed()

    async def say(self, message: dict[str, Any]) -> None:
        assert self.connection is not None
        if self.connection.subprotocol == "gateway.v1.msgpack":
            await self.connection.send(msgspec.msgpack.encode(message))
        else:
            await self.connection.send(msgspec.json.encode(message).decode())

    async def update(self, n: int, id: str = "main") -> None:
        self.offset += 1
        data = {"pump-1": {"n": [[1764000000000 + n, n]]}}
        await self.say({"type": "update", "id": id, "offset": self.offset, "data": data, "skipped": 0})

    def cut(self) -> None:
        assert self.connection is not None
        self.connection.transport.abort()

    async def _handle(self, connection: ServerConnection) -> None:
        assert connection.request is not None
        assert connection.request.path == "/v1/live"
        self.tokens.append(connection.request.headers.get("Authorization"))
        self.connection = connection
        with suppress(ConnectionClosed):
            hello = {"type": "hello", "epoch": self.epoch, "offset": self.offset, "heartbeat_s": 5, "auth": self.auth}
            hello["limits"] = self.limits
            await self.say(hello)
            async for message in connection:
                decode = msgspec.json.decode if isinstance(message, str) else msgspec.msgpack.decode
                request = decode(message)
                self.received.append(request)
                if request["type"] == "subscribe":
                    recovered = request.get("epoch") == self.epoch
                    values = {"n": [1764000000000, 1 << 60], "s": [1764000000000, "ok"]}
                    device = {"state": "online", "since": 1764000000000, "last_seen": 1764000000000, "values": values}
                    await self.say(
                        {
                            "type": "snapshot",
                            "id": request["id"],
                            "offset": self.offset,
                            "recovered": recovered,
                            "devices": {"pump-1": device},
                            "later": "field",
                        }
                    )
