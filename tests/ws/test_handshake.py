"""The handshake: what is upgraded, what is refused and how, and the limits before it."""

from __future__ import annotations

import asyncio
import re
from contextlib import AsyncExitStack
from typing import Any

import pytest

from gateway.ws import BearerAuth, Connection, Next, Request, Response, Router, Server, message_handler

from .support import ACCEPT, KEY, TEXT, Frame, Raw, echo, eventually, frame, no_loop_errors, open_raw, serving

GOOD = {
    "Host": "localhost",
    "Upgrade": "websocket",
    "Connection": "Upgrade",
    "Sec-WebSocket-Key": KEY,
    "Sec-WebSocket-Version": "13",
}


async def ask(
    port: int, path: str = "/", *, first: str = "", extra: bytes = b"", **changes: str | None
) -> tuple[int, bytes]:
    """The status and the whole answer to a handshake with some headers changed, or left out where ``None``."""
    fields = {name.lower(): (name, value) for name, value in GOOD.items()}
    for name, value in changes.items():
        name = name.replace("_", "-")
        if value is None:
            fields.pop(name.lower())
        else:
            fields[name.lower()] = (name, value)
    lines = [first or f"GET {path} HTTP/1.1", *(f"{name}: {value}" for name, value in fields.values())]
    return await send(port, "\r\n".join(lines).encode() + b"\r\n\r\n")


async def send(port: int, request: bytes) -> tuple[int, bytes]:
    """The status and the whole answer to any bytes; a 101 is cut at its head."""
    async with open_raw(port, None) as raw:
        raw.send(request)
        head = await asyncio.wait_for(raw.reader.readuntil(b"\r\n\r\n"), 5)
        status = int(head.split(b" ")[1])
        return status, head if status == 101 else head + await asyncio.wait_for(raw.reader.read(), 5)


async def test_the_upgrade() -> None:
    """RFC 6455, 4.2.2: 101 with Upgrade, Connection and the key's answer, and nothing that was not asked for."""
    async with serving() as server:
        status, answer = await ask(server.port)
        assert status == 101
        fields = dict(line.split(": ", 1) for line in answer.decode().split("\r\n")[1:-2])
        fields.pop("Date")
        assert fields == {"Upgrade": "websocket", "Connection": "Upgrade", "Sec-WebSocket-Accept": ACCEPT}


@pytest.mark.parametrize(
    ("changes", "status", "says"),
    [
        ({"Host": None}, 400, b"Host"),
        ({"Upgrade": None}, 426, b"Upgrade: websocket"),
        ({"Upgrade": "h2c"}, 426, b"Upgrade: websocket"),
        ({"Upgrade": "WebSocket"}, 101, b""),
        ({"Connection": None}, 426, b""),
        ({"Connection": "close"}, 426, b""),
        ({"Connection": "keep-alive, UPGRADE"}, 101, b""),
        ({"Sec-WebSocket-Key": None}, 400, b""),
        ({"Sec-WebSocket-Key": "c2hvcnQ="}, 400, b""),
        ({"Sec-WebSocket-Key": "not base64 at all!!!===="}, 400, b""),
        ({"Sec-WebSocket-Version": None}, 400, b""),
        ({"Sec-WebSocket-Version": "8"}, 426, b"Sec-WebSocket-Version: 13"),
        ({"Sec-WebSocket-Version": "14"}, 426, b"Sec-WebSocket-Version: 13"),
        ({"Sec-WebSocket-Protocol": "a, b c"}, 400, b""),
        ({"Content-Length": "5"}, 400, b""),
        ({"Transfer-Encoding": "chunked"}, 400, b""),
        ({"Origin": "http://a"}, 101, b""),
        ({"first": "GET / HTTP/1.0"}, 505, b""),
        ({"first": "GET / HTTP/2.0"}, 400, b""),
        ({"first": "POST / HTTP/1.1"}, 405, b"Allow: GET"),
        ({"first": "HEAD / HTTP/1.1"}, 405, b"Allow: GET"),
        ({"first": "GET /nowhere HTTP/1.1"}, 404, b""),
        ({"first": "GET * HTTP/1.1"}, 400, b""),
        ({"first": "GET /%zz HTTP/1.1"}, 400, b""),
        ({"first": "GET /%2F HTTP/1.1"}, 404, b""),
        ({"first": "GET http://localhost/ HTTP/1.1"}, 101, b""),
        ({"first": "GET / HTTP/1.1 x"}, 400, b""),
        ({"first": "NONSENSE"}, 400, b""),
        ({"first": "GET /é HTTP/1.1"}, 400, b""),
        ({"Bad Name": "x"}, 400, b""),
        ({"X-Control": "a\x01b"}, 400, b""),
    ],
    ids=lambda value: ",".join(f"{name}={text}" for name, text in value.items()) if isinstance(value, dict) else None,
)
async def test_faults_of_a_handshake(changes: dict[str, str | None], status: int, says: bytes) -> None:
    """RFC 6455, 4.2.1: a request that is not what it must be is refused with an HTTP status, never upgraded."""
    with no_loop_errors():
        async with serving() as server:
            first = changes.pop("first", "") or ""
            got, answer = await ask(server.port, first=first, **changes)
            assert got == status
            assert says in answer
            if status != 101:
                assert b"\r\nConnection: close\r\n" in answer
                assert server.stats()[f"refused_{status}"] == 1
                assert server.stats()["opened"] == 0


async def test_two_hosts_are_refused() -> None:
    """RFC 9112, 3.2: more than one Host is a bad request."""
    async with serving() as server:
        status, _ = await send(server.port, b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n")
        assert status == 400


@pytest.mark.parametrize(
    "head",
    [
        b"GET /" + b"x" * 20_000 + b" HTTP/1.1\r\n",
        b"GET / HTTP/1.1\r\nX: " + b"x" * 20_000,
        b"GET / HTTP/1.1\r\n" + b"A: b\r\n" * 5000,
        b"GET / HTTP/1.1\r\n" + b"A: b\r\n" * 200 + b"\r\n",
        b"GET / HTTP/1.1\r\nX: " + b"x" * 9000 + b"\r\n\r\n",
    ],
)
async def test_a_head_that_is_too_large(head: bytes) -> None:
    """A request's head is bounded: 431, also before it is complete."""
    async with serving() as server:
        status, _ = await send(server.port, head)
        assert status in (431, 414)


async def test_garbage_is_answered_and_counted() -> None:
    """Bytes that are no HTTP get a 400 once their line ends, or nothing where the client leaves."""
    with no_loop_errors():
        async with serving() as server:
            status, _ = await send(server.port, b"\x16\x03\x01\x02\x00\x01\x00\r\n\r\n")
            assert status == 400
            async with open_raw(server.port, None) as raw:
                raw.send(b"GE")
            await eventually(lambda: server.stats()["handshakes_failed"] == 1)


async def test_frames_behind_the_head_are_read() -> None:
    """A client that does not wait for the answer is understood: early frames are the first messages."""
    async with serving() as server, open_raw(server.port, None) as raw:
        lines = ["GET / HTTP/1.1", *(f"{name}: {value}" for name, value in GOOD.items())]
        raw.send("\r\n".join(lines).encode() + b"\r\n\r\n" + frame(TEXT, b"early") + frame(TEXT, b"bird")[:5])
        await raw.reader.readuntil(b"\r\n\r\n")
        assert await raw.recv() == Frame(TEXT, b"early")
        raw.send(frame(TEXT, b"bird")[5:])
        assert await raw.recv() == Frame(TEXT, b"bird")


async def test_a_head_in_pieces() -> None:
    """A head may come byte by byte."""
    async with serving() as server, open_raw(server.port, None) as raw:
        lines = ["GET / HTTP/1.1", *(f"{name}: {value}" for name, value in GOOD.items())]
        for byte in "\r\n".join(lines).encode() + b"\r\n\r\n":
            raw.send(bytes([byte]))
            await asyncio.sleep(0)
        assert (await raw.reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 101")


# Subprotocols, origins


@pytest.mark.parametrize(
    ("offered", "chosen"),
    [("b, a", "a"), ("b", "b"), ("x, b", "b"), ("x", None), (None, None), ("A", None)],
)
async def test_the_servers_order_picks_the_subprotocol(offered: str | None, chosen: str | None) -> None:
    """The first of the server's list that is offered is chosen; without one the connection has none."""
    seen: list[str | None] = []
    handler = message_handler(echo, inline=True, opened=lambda ws: seen.append(ws.subprotocol))
    async with serving(handler, options={"subprotocols": ["a", "b"]}) as server:
        headers: dict[str, Any] = {} if offered is None else {"Sec-WebSocket-Protocol": offered}
        status, answer = await ask(server.port, **headers)
        assert status == 101
        found = re.search(rb"Sec-WebSocket-Protocol: (\w+)", answer)
        assert (found[1].decode() if found else None) == chosen
        assert seen == [chosen]


async def test_origins_are_an_allowlist() -> None:
    """With a list only its origins pass: strings, patterns, and None for no header; a route may have its own."""
    router = Router()
    router.websocket("/", message_handler(echo, inline=True))
    router.websocket("/any", message_handler(echo, inline=True), origins=[re.compile(".*"), None])
    origins = ["https://here", re.compile(r"https://[a-z]+\.here")]
    async with Server(router, origins=origins) as server:
        assert (await ask(server.port, Origin="https://here"))[0] == 101
        assert (await ask(server.port, Origin="https://sub.here"))[0] == 101
        for origin in ("https://there", "null", "https://here.evil", "https://sub.here.evil", "HTTPS://HERE"):
            assert (await ask(server.port, Origin=origin))[0] == 403, origin
        assert (await ask(server.port))[0] == 403
        assert (await ask(server.port, "/any"))[0] == 101
        assert (await ask(server.port, "/any", Origin="x"))[0] == 101
    async with Server(router, origins=[None]) as server:
        assert (await ask(server.port))[0] == 101
        assert (await ask(server.port, Origin="https://here"))[0] == 403


# Middleware


async def test_middleware_refuses_with_any_status_before_the_upgrade() -> None:
    """What a middleware answers is what the client gets, and no handler ever sees the connection."""
    opened: list[Connection] = []
    router = Router()
    router.websocket("/{code:int}", message_handler(echo, inline=True, opened=lambda ws, code: opened.append(ws)))

    async def gate(request: Request, call_next: Next) -> Response:
        if request.path_params["code"] == 101:
            return await call_next(request)
        return request.refuse(request.path_params["code"], "no", {"X-Why": "because"})

    router.middleware(gate)
    async with Server(router) as server:
        for code in (400, 401, 402, 403, 418, 429, 451, 500, 503):
            status, answer = await ask(server.port, f"/{code}")
            assert status == code
            assert b"X-Why: because\r\n" in answer
            assert answer.endswith(b"\r\n\r\nno\n")
        assert not opened
        assert (await ask(server.port, "/101"))[0] == 101
        assert len(opened) == 1


async def test_middleware_gives_state_and_may_change_the_answer() -> None:
    """Values in request.state are ws.state later; headers of the 101 can be set, and it can still be taken back."""
    states: list[dict[str, Any]] = []
    router = Router()
    router.websocket("/", message_handler(echo, inline=True, opened=lambda ws: states.append(ws.state)))

    async def around(request: Request, call_next: Next) -> Response:
        request.state["friend"] = 1
        response = await call_next(request)
        assert response.status == 101
        response.headers["X-Served-By"] = "me"
        return request.refuse(409) if request.query.get("late") else response

    router.middleware(around)
    async with Server(router) as server:
        status, answer = await ask(server.port)
        assert status == 101
        assert b"\r\nX-Served-By: me\r\n" in answer
        assert states == [{"friend": 1}]
        assert (await ask(server.port, "/?late=1"))[0] == 409
        assert len(states) == 1


async def fails(request: Request, call_next: Next) -> Response:
    raise RuntimeError("broken")


async def lies(request: Request, call_next: Next) -> Response:
    return Response(101)


async def splits(request: Request, call_next: Next) -> Response:
    response = await call_next(request)
    response.headers["X"] = "a\r\nb"
    return response


@pytest.mark.parametrize("middleware", [fails, lies, splits, lambda request, call_next: None])
async def test_a_broken_middleware_is_a_500(middleware: Any) -> None:
    """An exception, a made-up 101, a header that splits and no answer at all are errors of the program."""
    router = Router()
    router.websocket("/", message_handler(echo, inline=True))
    router.middleware(middleware)
    with no_loop_errors():
        async with Server(router) as server:
            status, answer = await ask(server.port)
            assert status == 500
            assert b"broken" not in answer
            assert server.stats()["opened"] == 0
            assert server.stats()["handler_errors"] == 1


async def test_an_unknown_path_is_a_404_before_middleware() -> None:
    """Middleware runs for routes alone."""
    ran: list[str] = []
    router = Router()
    router.websocket("/known", message_handler(echo, inline=True))

    async def note(request: Request, call_next: Next) -> Response:
        ran.append(request.path)
        return await call_next(request)

    router.middleware(note)
    async with Server(router) as server:
        assert (await ask(server.port, "/unknown"))[0] == 404
        assert not ran
        assert (await ask(server.port, "/known"))[0] == 101
        assert ran == ["/known"]


async def verify_later(token: str) -> str | None:
    await asyncio.sleep(0)
    return TOKENS.get(token)


# The second one is what Basic would send, and no bearer's.
TOKENS = {"t1": "user one", "dDE=": "user two"}


@pytest.mark.parametrize("verify", [TOKENS.get, verify_later])
async def test_bearer_auth(verify: Any) -> None:
    """A good token's value is ws.state["auth"]; otherwise 401 and a challenge, which names a bad token as such."""
    seen: list[Any] = []
    router = Router()
    router.websocket("/secure/x", message_handler(echo, inline=True, opened=lambda ws: seen.append(ws.state["auth"])))
    router.websocket("/open", message_handler(echo, inline=True))
    router.middleware(BearerAuth(verify, realm="here"), paths="/secure/*")
    async with Server(router) as server:
        assert (await ask(server.port, "/secure/x", Authorization="Bearer t1"))[0] == 101
        assert (await ask(server.port, "/secure/x", Authorization="bearer t1"))[0] == 101
        assert seen == ["user one"] * 2
        assert (await ask(server.port, "/open"))[0] == 101
        status, answer = await ask(server.port, "/secure/x")
        assert status == 401
        assert b'\r\nWWW-Authenticate: Bearer realm="here"\r\n' in answer
        for value in ("Bearer t2", "Bearer t1 x"):
            status, answer = await ask(server.port, "/secure/x", Authorization=value)
            assert status == 401
            assert b'WWW-Authenticate: Bearer realm="here", error="invalid_token"\r\n' in answer
        for value in ("Basic dDE=", "Bearer", "Bearer ", "t1"):
            assert (await ask(server.port, "/secure/x", Authorization=value))[0] == 401


# Limits


async def test_limit_of_connections() -> None:
    """At max_connections a handshake is refused with 503 and Retry-After; room comes back when one leaves."""
    async with serving(max_connections=2) as server, open_raw(server.port), open_raw(server.port) as second:
        status, answer = await ask(server.port)
        assert status == 503
        assert b"\r\nRetry-After: " in answer
        await second.close()
        await eventually(lambda: len(server.connections) == 1)
        await eventually(lambda: server.stats()["transports"] == 1)
        async with open_raw(server.port):
            assert server.connections == 2


async def test_limit_per_address() -> None:
    """At max_per_address the same address gets 429, another one is served."""
    async with serving(max_per_address=1) as server, open_raw(server.port):
        status, answer = await ask(server.port)
        assert status == 429
        assert b"\r\nRetry-After: " in answer
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port, local_addr=("127.0.0.2", 0))
        raw = Raw(reader, writer)
        assert (await raw.handshake()).startswith("HTTP/1.1 101")
        await raw.close()


async def test_silent_connections_give_way_to_those_that_speak() -> None:
    """At max_handshakes the oldest connection without a request is cut: however many there are, a request is served."""
    with no_loop_errors():
        async with (
            serving(max_handshakes=2, handshake_timeout=30) as server,
            open_raw(server.port, None) as first,
            open_raw(server.port, None) as second,
        ):
            await eventually(lambda: server.stats()["handshakes"] == 2)
            assert (await ask(server.port))[0] == 101
            with pytest.raises((ConnectionResetError, asyncio.IncompleteReadError)):
                await first.reader.readexactly(1)
            assert server.stats()["handshakes_cut"] == 1
            lines = ["GET / HTTP/1.1", *(f"{name}: {value}" for name, value in GOOD.items())]
            second.send("\r\n".join(lines).encode() + b"\r\n\r\n")
            assert (await second.reader.readuntil(b"\r\n")).startswith(b"HTTP/1.1 101")


async def test_limit_of_handshakes_in_work() -> None:
    """Where max_handshakes requests are all being answered, the next connection is told 503 at once."""
    router = Router()
    router.websocket("/", message_handler(echo, inline=True))
    leave = asyncio.Event()

    async def wait(request: Request, call_next: Next) -> Response:
        await leave.wait()
        return await call_next(request)

    router.middleware(wait)
    with no_loop_errors():
        async with Server(router, max_handshakes=2) as server:
            asked = [asyncio.ensure_future(ask(server.port)) for _ in range(2)]
            await eventually(lambda: sum(reception.has_request for reception in server._waiting) == 2)
            async with open_raw(server.port, None) as third:
                assert (await third.reader.readuntil(b"\r\n")).startswith(b"HTTP/1.1 503")
            leave.set()
            assert [status for status, _ in await asyncio.gather(*asked)] == [101, 101]


async def test_a_flood_of_half_open_handshakes_is_bounded() -> None:
    """Neither silent connections nor answered ones that stay are without bound: the oldest are cut."""
    async with serving(max_handshakes=2, handshake_timeout=30) as server:
        writers = []
        for index in range(12):
            _, writer = await asyncio.open_connection("127.0.0.1", server.port)
            if index % 2:
                writer.write(b"nonsense\r\n\r\n")
            writers.append(writer)
        await eventually(lambda: server.stats()["handshakes_cut"] >= 8)
        assert server.stats()["handshakes"] <= 2
        assert server.stats()["answered"] <= 2
        for writer in writers:
            writer.close()


async def test_answers_that_are_not_read_are_bounded_in_bytes() -> None:
    """Beyond max_answer_bytes the oldest answer that nobody reads is cut, and one that is read comes whole."""
    router = Router()
    body = b"x" * (8 << 20)
    router.get("/large", lambda request: Response(200, body))
    async with AsyncExitStack() as stack:
        server = await stack.enter_async_context(Server(router, max_answer_bytes=20 << 20, handshake_timeout=30))
        for _ in range(6):
            raw = await stack.enter_async_context(open_raw(server.port, None, recv_buffer=4096))
            raw.writer.transport.pause_reading()
            raw.send(b"GET /large HTTP/1.1\r\nHost: a\r\n\r\n")
            await eventually(lambda: server.stats()["handshakes"] == 0)
        await eventually(lambda: server.stats()["pages"] == 6)
        assert server.stats()["handshakes_cut"] >= 4
        assert 0 < server.stats()["unread_bytes"] <= 20 << 20
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        writer.write(b"GET /large HTTP/1.1\r\nHost: a\r\n\r\n")
        assert (await reader.read()).endswith(body)
        writer.close()
    assert server.stats()["unread_bytes"] == 0


async def test_a_slow_handshake_times_out() -> None:
    """A head that does not come whole within handshake_timeout gets 408, however steadily it drips."""
    async with serving(handshake_timeout=0.2) as server, open_raw(server.port, None) as raw:
        started = asyncio.get_running_loop().time()
        answer = asyncio.ensure_future(raw.reader.read())
        while not answer.done() and asyncio.get_running_loop().time() < started + 4:
            raw.send(b"G")
            await asyncio.sleep(0.02)
        assert (await answer).startswith(b"HTTP/1.1 408")
        assert asyncio.get_running_loop().time() - started < 3


async def test_a_slow_middleware_times_out() -> None:
    """A middleware that does not answer within handshake_timeout is cancelled, and the client told 504."""
    cancelled = asyncio.Event()
    router = Router()
    router.websocket("/", message_handler(echo, inline=True))

    async def stuck(request: Request, call_next: Next) -> Response:
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            cancelled.set()
            raise
        return await call_next(request)

    router.middleware(stuck)
    with no_loop_errors():
        async with Server(router, handshake_timeout=0.1) as server:
            assert (await ask(server.port))[0] == 504
            assert cancelled.is_set()


async def test_a_client_that_leaves_during_middleware() -> None:
    """A reset while the middleware runs cancels it and opens nothing."""
    started = asyncio.Event()
    cancelled = asyncio.Event()
    router = Router()
    router.websocket("/", message_handler(echo, inline=True))

    async def slow(request: Request, call_next: Next) -> Response:
        started.set()
        try:
            await asyncio.sleep(60)
        finally:
            cancelled.set()
        return await call_next(request)

    router.middleware(slow)
    with no_loop_errors():
        async with Server(router) as server, open_raw(server.port, None) as raw:
            lines = ["GET / HTTP/1.1", *(f"{name}: {value}" for name, value in GOOD.items())]
            raw.send("\r\n".join(lines).encode() + b"\r\n\r\n")
            await started.wait()
            raw.writer.transport.abort()
            await asyncio.wait_for(cancelled.wait(), 5)
            await eventually(lambda: server.stats()["handshakes"] == 0)
            assert server.stats()["opened"] == 0


async def test_what_comes_before_the_answer_is_bounded() -> None:
    """A client that does not wait, and floods: beyond a bound it feels it, and all of it is read later."""
    leave = asyncio.Event()
    router = Router()
    router.websocket("/", message_handler(lambda ws, message: None, inline=True))

    async def wait(request: Request, call_next: Next) -> Response:
        await leave.wait()
        return await call_next(request)

    router.middleware(wait)
    async with Server(router, stop_timeout=1) as server, open_raw(server.port, None) as raw:
        lines = ["GET / HTTP/1.1", *(f"{name}: {value}" for name, value in GOOD.items())]
        raw.send("\r\n".join(lines).encode() + b"\r\n\r\n" + frame(2, b"x" * 20_000) * 500)
        await asyncio.sleep(0.1)
        (reception,) = server._waiting
        assert 64 << 10 < len(reception._buffer) < 256 << 10
        assert raw.writer.transport.get_write_buffer_size() > 0
        leave.set()
        await eventually(lambda: server.stats()["messages_in"] == 500)


async def test_503_while_stopping() -> None:
    """Once a stop has begun a handshake is refused with 503, one in its middleware included."""
    entered, leave = asyncio.Event(), asyncio.Event()
    router = Router()
    router.websocket("/", message_handler(echo, inline=True))
    router.websocket("/slow", message_handler(echo, inline=True))

    async def wait(request: Request, call_next: Next) -> Response:
        entered.set()
        await leave.wait()
        return await call_next(request)

    router.middleware(wait, paths="/slow")
    async with Server(router, stop_timeout=5, close_timeout=5) as server, open_raw(server.port) as stays:
        slow = asyncio.ensure_future(ask(server.port, "/slow"))
        await entered.wait()
        server.close()
        await asyncio.sleep(0)
        status, answer = await ask(server.port)
        assert status == 503
        assert b"\r\nRetry-After: " in answer
        leave.set()
        assert (await slow)[0] == 503
        await stays.close()


async def test_a_page_that_is_not_read_is_bounded() -> None:
    """A client that asks for a large page and does not read it is cut off."""
    router = Router()
    router.get("/large", lambda request: Response(200, b"x" * (8 << 20)))
    async with (
        Server(router, handshake_timeout=0.2) as server,
        open_raw(server.port, None, recv_buffer=4096) as raw,
    ):
        raw.writer.transport.pause_reading()
        raw.send(b"GET /large HTTP/1.1\r\nHost: a\r\n\r\n")
        await eventually(lambda: server.stats()["answered"] == 1)
        await eventually(lambda: server.stats()["answered"] == 0)


async def test_a_page_that_is_read_slowly_is_not_cut_off() -> None:
    """As long as the client takes something, a large page goes on, beyond the timeout."""
    router = Router()
    router.get("/large", lambda request: Response(200, b"x" * (1 << 20)))
    async with Server(router, handshake_timeout=0.15) as server, open_raw(server.port, None, recv_buffer=4096) as raw:
        raw.send(b"GET /large HTTP/1.1\r\nHost: a\r\n\r\n")
        transport = raw.writer.transport
        started = asyncio.get_running_loop().time()
        while asyncio.get_running_loop().time() < started + 0.6:
            transport.pause_reading()
            await asyncio.sleep(0.03)
            transport.resume_reading()
            await asyncio.sleep(0.0005)
        assert len(await asyncio.wait_for(raw.reader.read(), 5)) > 1 << 20


async def test_each_refusal_is_counted_by_its_reason() -> None:
    """What there is no room for is told apart from what cannot be read, whatever status they share."""
    router = Router()
    router.websocket("/", message_handler(echo, inline=True))

    @router.get("/busy")
    def busy(request: Request) -> Response:
        return request.refuse(503, "later", reason="query_load")

    def count(server: Server) -> dict[str, float]:
        found = server.stats()
        return {name: number for name, number in found.items() if name.startswith("refusals_")}

    async with Server(router, max_connections=2, max_per_address=1, handshake_timeout=0.3) as server:
        async with open_raw(server.port):
            assert (await ask(server.port))[0] == 429
            server.max_per_address = 2
            async with open_raw(server.port):
                assert (await ask(server.port))[0] == 503
        assert (await ask(server.port, first="GET /nowhere HTTP/1.1"))[0] == 404
        assert (await ask(server.port, first="GET /busy HTTP/1.1"))[0] == 503
        async with open_raw(server.port, None) as raw:
            assert (await asyncio.wait_for(raw.reader.read(), 5)).startswith(b"HTTP/1.1 408")
        expected = {"per_address": 1, "connections": 1, "not_found": 1, "query_load": 1, "request_timeout": 1}
        assert count(server) == {f"refusals_{reason}": number for reason, number in expected.items()}
