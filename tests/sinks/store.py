"""A hand-written HTTP server in place of InfluxDB that fails as told."""

from __future__ import annotations

import asyncio
import gzip
from collections.abc import Awaitable, Callable
from typing import NamedTuple
from urllib.parse import parse_qs, urlsplit


class Request(NamedTuple):
    method: str
    path: str
    query: dict[str, list[str]]
    headers: dict[str, str]
    lines: list[str]


def answer(status: int, body: str = "", **headers: str) -> bytes:
    """An HTTP answer in full."""
    head = "".join(f"{name.replace('_', '-')}: {value}\r\n" for name, value in headers.items())
    return f"HTTP/1.1 {status} Text\r\nContent-Length: {len(body)}\r\n{head}\r\n{body}".encode()


class FakeStore:
    """Listens on 127.0.0.1; ``respond(request)`` gives the answer's bytes, or a coroutine that does.

    ``CUT`` at the end of an answer closes the connection behind it; None answers nothing, for ever.
    """

    CUT = b"\0CUT"

    def __init__(self) -> None:
        self.respond: Callable[[Request], bytes | Awaitable[bytes | None] | None] = lambda request: answer(204)
        self.requests: list[Request] = []
        self.server: asyncio.Server | None = None
        self.writers: list[asyncio.StreamWriter] = []

    @property
    def url(self) -> str:
        assert self.server is not None
        return f"http://127.0.0.1:{self.server.sockets[0].getsockname()[1]}"

    async def __aenter__(self) -> FakeStore:
        self.server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        return self

    async def __aexit__(self, *error: object) -> None:
        assert self.server is not None
        self.server.close()
        for writer in self.writers:
            writer.transport.abort()
        await asyncio.sleep(0.01)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.writers.append(writer)
        try:
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
                method, target, _ = head[0].split(" ")
                headers = {name.lower(): value for name, value in (line.split(": ", 1) for line in head[1:] if line)}
                body = await reader.readexactly(int(headers.get("content-length", "0")))
                if headers.get("content-encoding") == "gzip":
                    body = gzip.decompress(body)
                url = urlsplit(target)
                request = Request(method, url.path, parse_qs(url.query), headers, body.decode().split("\n"))
                self.requests.append(request)
                found = self.respond(request)
                data = await found if isinstance(found, Awaitable) else found
                if data is None:
                    await reader.read()
                    break
                if data.endswith(self.CUT):
                    writer.write(data[: -len(self.CUT)])
                    break
                writer.write(data)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()
