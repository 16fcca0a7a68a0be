"""Target ``handshake``: from a request's bytes to its answer.

Byte 0 says how the input is cut (0 not at all, 1 into single bytes, otherwise by this seed), the rest is what a client
sends.  Whatever it is, the answer is one well-formed response or none yet, the same however the input was cut; 101
exactly where RFC 6455, 4.2.1, permits it by a reading of the head that shares nothing with the library's.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import hashlib
import random
import re
from collections.abc import Awaitable, Callable
from functools import cache
from typing import Any, cast
from urllib.parse import quote

from gateway.ws import BearerAuth, Connection, Message, Request, Response, Router, Server, message_handler
from gateway.ws.reception import MAX_HEAD_BYTES, Reception

from .frames import TEXT, client_frame
from .fuzz_rig import Transport, Watch
from .fuzzing import Finding, Target

__all__ = ["TARGETS", "routes"]

GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
ORIGIN = "https://here.example"
TOKEN = "sesame"
CHOICES = ("second", "first")


def routes() -> Router:
    """A router with one route of each kind."""
    router = Router()

    def keep(ws: Connection, message: Message, **params: Any) -> None:
        ws.state["seen"].append(message.data)

    def opened(ws: Connection, **params: Any) -> None:
        ws.state["seen"] = []

    endpoint = message_handler(keep, inline=True, opened=opened)
    router.websocket("/", endpoint)
    router.websocket("/chat/{user}", endpoint, subprotocols=CHOICES)
    router.websocket("/n/{n:int}", endpoint)
    router.websocket("/f/{x:float}", endpoint)
    router.websocket("/zip", endpoint, compression=True)
    router.websocket("/origin", endpoint, origins=[ORIGIN])
    router.websocket("/secure/x", endpoint)
    router.websocket("/both", endpoint)

    async def page(request: Request, **params: Any) -> Response:
        return Response(200, "page", headers={"X-Path": quote(request.path)})

    router.get("/page", page)
    router.get("/files/{rest:path}", page)
    router.get("/both", page)

    async def passing(request: Request, call_next: Callable[[Request], Awaitable[Response]]) -> Response:
        return await call_next(request)

    router.middleware(passing)
    router.middleware(BearerAuth(lambda token: token if token == TOKEN else None), paths="/secure/*")
    other = Router()
    other.websocket("/{room}/x", endpoint)
    router.include("/in/{house}", other)
    return router


# Handshakes


class Rig:
    """A server without a listener; its event loop only runs answers' tasks."""

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        self.server = Server(routes(), heartbeat=None, handshake_timeout=1000)
        self.server.loop = self.loop
        self.server.beats = cast("Any", type("Beats", (), {"add": lambda *_: None, "discard": lambda *_: None})())
        self.server._emptied = cast("Any", type("Event", (), {"set": lambda _: None})())

    def run(self, pieces: list[bytes]) -> tuple[bytes, list[object] | None]:
        """What is answered to ``pieces``, and the messages that a handler got, if there was an upgrade."""
        transport = Transport()
        reception = Reception(self.server)
        transport.set_protocol(reception)
        reception.connection_made(transport)
        for piece in pieces:
            protocol = transport.protocol
            if transport.gone:
                break
            protocol.get_buffer(-1)[: len(piece)] = piece
            protocol.buffer_updated(len(piece))
        for _ in range(20):
            task = reception._task
            if task is None or task.done():
                break
            self.loop.run_until_complete(asyncio.sleep(0))
        answer = transport.written
        protocol = transport.protocol
        seen = None
        if isinstance(protocol, Connection):
            seen = list(protocol.state["seen"])
            answer = answer[: answer.find(b"\r\n\r\n") + 4]
        protocol.connection_lost(None)
        self.loop.run_until_complete(asyncio.sleep(0))
        server = self.server
        holders = (server._waiting, server._lingering, server._held, server._open, server._addresses)
        left = [len(one) for one in holders]
        if any(left):
            for one in holders:
                one.clear()
            raise Finding(f"the server still holds {left} of a connection that is gone")
        return answer, seen


@cache
def _rig() -> Rig:
    return Rig()


def check_handshake(data: bytes) -> None:
    """One request's bytes."""
    if not data:
        return
    cut, data = data[0], data[1:]
    with Watch() as watch:
        answer, seen = _rig().run([data] if data else [])
        if cut:
            pieces = list(_cut(data, cut))
            other, other_seen = _rig().run(pieces)
            if _undated(other) != _undated(answer) or other_seen != seen:
                raise Finding(f"cut otherwise: {other!r:.300} instead of {answer!r:.300}")
    watch.check()
    end = data.find(b"\r\n\r\n")
    if not answer:
        if 0 <= end <= MAX_HEAD_BYTES or len(data) > MAX_HEAD_BYTES + 4:
            raise Finding("no answer to a whole head")
        return
    status, headers = _check_response(answer)
    if status >= 500 and status not in (503, 505):
        raise Finding(f"status {status}")
    head = data[: end + 4] if end >= 0 else b""
    if status == 101:
        _check_upgrade(head, headers)
    elif _must_upgrade(head):
        raise Finding(f"{status} for a request that should be upgraded")


def _cut(data: bytes, seed: int) -> list[bytes]:
    if seed == 1:
        return [data[at : at + 1] for at in range(len(data))]
    rng = random.Random(seed)
    found = []
    at = 0
    while at < len(data):
        size = rng.choice((1, 2, 5, 30, 200, 1000))
        found.append(data[at : at + size])
        at += size
    return found


def _undated(answer: bytes) -> bytes:
    return re.sub(rb"Date: [^\r]*", b"", answer)


def _check_response(answer: bytes) -> tuple[int, dict[str, str]]:
    """Status and headers of a response that is whole and well-formed (RFC 9112)."""
    head, found, body = answer.partition(b"\r\n\r\n")
    lines = head.split(b"\r\n")
    match = re.fullmatch(rb"HTTP/1\.1 ([1-5][0-9]{2}) [ -~]*", lines[0])
    if not found or match is None:
        raise Finding(f"no response: {answer!r:.200}")
    status = int(match[1])
    headers: dict[str, str] = {}
    for line in lines[1:]:
        field = re.fullmatch(rb"([-!#$%&'*+.^_`|~0-9A-Za-z]+): ([\t -~\x80-\xff]*)", line)
        if field is None:
            raise Finding(f"no header field: {line!r:.200}")
        name = field[1].decode().lower()
        if name in headers:
            raise Finding(f"two fields {name}")
        headers[name] = field[2].decode("latin-1")
    if status != 101:
        if headers.get("connection") != "close":
            raise Finding("a last response does not say so")
        # The answer to HEAD has the length of the body that it leaves out.
        if "content-length" not in headers or (body and int(headers["content-length"]) != len(body)):
            raise Finding(f"length {headers.get('content-length')} of a body of {len(body)}")
    return status, headers


def _fields(head: bytes) -> tuple[bytes, list[tuple[str, str]]] | None:
    """Request line and fields of a head, in the plainest form alone; ``None`` for any other."""
    lines = head.removesuffix(b"\r\n\r\n").split(b"\r\n")
    fields = []
    for line in lines[1:]:
        match = re.fullmatch(rb"([-A-Za-z]+):[ \t]*([!-~]?|[!-~][ -~]*[!-~])[ \t]*", line)
        if match is None:
            return None
        fields.append((match[1].decode().lower(), match[2].decode()))
    return lines[0], fields


def _listed(fields: list[tuple[str, str]], name: str) -> list[str]:
    return [part.strip(" \t") for key, value in fields if key == name for part in value.split(",")]


def _check_upgrade(head: bytes, headers: dict[str, str]) -> None:
    """A 101: the request asked for it as RFC 6455, 4.2.1 says, and the answer is what 4.2.2 says."""
    if not re.match(rb"GET [!-~]+ HTTP/1\.1\r\n", head):
        raise Finding("101 for a request line that is none")
    fields = []
    for line in head.removesuffix(b"\r\n\r\n").split(b"\r\n")[1:]:
        name, _, value = line.decode("latin-1").partition(":")
        fields.append((name.lower(), value.strip(" \t")))
    values: dict[str, list[str]] = {}
    for name, value in fields:
        values.setdefault(name, []).append(value)
    key = values.get("sec-websocket-key", [])
    if len(values.get("host", [])) != 1:
        raise Finding("101 without one Host")
    if "websocket" not in [one.lower() for one in _listed(fields, "upgrade")]:
        raise Finding("101 without Upgrade: websocket")
    if "upgrade" not in [one.lower() for one in _listed(fields, "connection")]:
        raise Finding("101 without Connection: Upgrade")
    if values.get("sec-websocket-version") != ["13"]:
        raise Finding("101 for another version")
    if "transfer-encoding" in values or any(one != "0" for one in values.get("content-length", [])):
        raise Finding("101 for a request with a body")
    if len(key) != 1 or not _is_key(key[0]):
        raise Finding("101 without one key of 16 bytes")
    if headers.get("sec-websocket-accept") != base64.b64encode(hashlib.sha1(key[0].encode() + GUID).digest()).decode():
        raise Finding("101 with another key's answer")
    chosen = headers.get("sec-websocket-protocol")
    offered = _listed(fields, "sec-websocket-protocol")
    wanted = next((one for one in CHOICES if one in offered), None)
    if chosen is not None and (chosen != wanted or b"/chat/" not in head):
        raise Finding(f"subprotocol {chosen!r} of {offered}")
    if "sec-websocket-extensions" in headers and b"/zip" not in head:
        raise Finding("an extension where there is none")


def _is_key(key: str) -> bool:
    try:
        return len(base64.b64decode(key.encode("latin-1"), validate=True)) == 16
    except binascii.Error:
        return False


def _must_upgrade(head: bytes) -> bool:
    """Whether nothing whatever speaks against an upgrade; only requests of the plainest form are judged."""
    found = _fields(head)
    if found is None or not head or len(head) > 2000:
        return False
    line, fields = found
    if line not in (b"GET / HTTP/1.1", b"GET /chat/me HTTP/1.1", b"GET /n/7 HTTP/1.1", b"GET /in/a/b/x?c HTTP/1.1"):
        return False
    known = {"host", "upgrade", "connection", "sec-websocket-key", "sec-websocket-version", "user-agent", "origin"}
    names = [name for name, _ in fields]
    if len(set(names)) != len(names) or not set(names) <= known:
        return False
    values = dict(fields)
    return (
        "host" in values
        and values.get("upgrade", "").lower() == "websocket"
        and values.get("connection", "").lower() in ("upgrade", "keep-alive, upgrade")
        and values.get("sec-websocket-version") == "13"
        and re.fullmatch(r"[A-Za-z0-9+/]{21}[AQgw]==", values.get("sec-websocket-key", "")) is not None
    )


# Seeds


def _request(target: str, *more: str, cut: int = 0, behind: bytes = b"", method: str = "GET") -> bytes:
    lines = [
        f"{method} {target} HTTP/1.1",
        "Host: here.example",
        "Upgrade: websocket",
        "Connection: keep-alive, Upgrade",
        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
        "Sec-WebSocket-Version: 13",
        *more,
    ]
    return bytes((cut,)) + "\r\n".join([*lines, "", ""]).encode() + behind


_frame = client_frame(b"early", TEXT)
_HANDSHAKES = (
    _request("/"),
    _request("/", cut=1, behind=_frame + _frame[:4]),
    _request("/chat/me", "Sec-WebSocket-Protocol: third, first", "Sec-WebSocket-Protocol: second", cut=7),
    _request("/n/7", "User-Agent: x"),
    _request("/in/a/b/x?c", behind=_frame, cut=3),
    _request("/zip", "Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits, x; y=1"),
    _request("/origin", f"Origin: {ORIGIN}"),
    _request("/secure/x", f"Authorization: Bearer {TOKEN}"),
    _request("/secure/x", "Authorization: bearer  nothing"),
    _request("http://here.example/chat/%C3%B6?a=1&a=%20"),
    _request("/", "Content-Length: 0", method="POST"),
    _request("/%2f", "Transfer-Encoding: chunked"),
    b"\x00GET /page HTTP/1.1\r\nHost: a\r\n\r\n",
    b"\x05HEAD /files/a/b HTTP/1.1\r\nHost: a\r\n\r\n",
    b"\x00GET /files/a%zz HTTP/1.0\r\n\r\n",
    b"\x09GET /both HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
    b"\x02GET /" + b"a" * 9000 + b" HTTP/1.1\r\n\r\n",
)
_HANDSHAKE_TOKENS = (
    b"\r\n",
    b"\r\n\r\n",
    b"GET ",
    b"HEAD ",
    b"OPTIONS * HTTP/1.1\r\n",
    b" HTTP/1.0",
    b"Host: a\r\n",
    b"Upgrade: WebSocket\r\n",
    b"Upgrade: h2c, websocket\r\n",
    b"Connection: close, upgrade\r\n",
    b"Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n",
    b"Sec-WebSocket-Version: 8\r\n",
    b"Sec-WebSocket-Protocol: first\r\n",
    b"Sec-WebSocket-Extensions: permessage-deflate; server_max_window_bits=9\r\n",
    b"Origin: https://here.example\r\n",
    b"Authorization: Bearer sesame\r\n",
    b"Content-Length: 1\r\n",
    b"/secure/x",
    b"/both",
    b"%2F",
    b"?a=b&a",
    b"\xff",
    b"\x00",
)
TARGETS = {
    "handshake": Target(
        "handshake", "a request's bytes to its answer", check_handshake, _HANDSHAKES, _HANDSHAKE_TOKENS, 20_000
    ),
}
