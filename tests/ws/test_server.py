"""The server: how it listens, how it stops, and what it counts."""

from __future__ import annotations

import asyncio
import random
import socket
import ssl
import subprocess
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest
from websockets.asyncio.client import connect, unix_connect

from gateway.ws import Connection, Message, Response, Router, Server, message_handler, websocket_handler

from .support import (
    BINARY,
    CLOSE,
    TEXT,
    Clock,
    Frame,
    close_frame,
    echo,
    eventually,
    frame,
    many_files,
    no_loop_errors,
    open_raw,
    serving,
    swarm,
)


def echoing() -> Router:
    router = Router()
    router.websocket("/", message_handler(echo, inline=True))
    return router


# Listening


async def test_it_listens_on_a_unix_socket(tmp_path: Path) -> None:
    """A path of one's own: served, and removed again at the stop."""
    path = tmp_path / "ws.sock"
    async with Server(echoing(), unix=path) as server:
        assert server.port == 0
        async with unix_connect(str(path), "ws://localhost/") as client:
            await client.send("x")
            assert await client.recv() == "x"
    assert not path.exists()


@pytest.mark.parametrize("family", [socket.AF_INET, socket.AF_UNIX])
async def test_it_takes_a_socket_over(family: socket.AddressFamily, tmp_path: Path) -> None:
    """A listening socket from elsewhere, systemd for one, is served as it is."""
    with socket.socket(family) as sock:
        sock.bind(str(tmp_path / "given.sock") if family == socket.AF_UNIX else ("127.0.0.1", 0))
        sock.listen()
        async with Server(echoing(), sock=sock) as server:
            if family == socket.AF_UNIX:
                client = await unix_connect(str(tmp_path / "given.sock"), "ws://localhost/")
            else:
                assert server.port == sock.getsockname()[1]
                client = await connect(f"ws://127.0.0.1:{server.port}/")
            await client.send("x")
            assert await client.recv() == "x"
            await client.close()


@pytest.fixture
def certificate(tmp_path: Path) -> tuple[Path, Path]:
    """A certificate for localhost that signs itself, and its key."""
    cert, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    command += ["-keyout", str(key), "-out", str(cert), "-days", "2", "-subj", "/CN=localhost"]
    try:
        subprocess.run([*command, "-addext", "subjectAltName=DNS:localhost"], check=True, capture_output=True)
    except FileNotFoundError:
        pytest.skip("openssl is not on this machine.")
    return cert, key


@pytest.mark.parametrize("loop_of", ["asyncio", "uvloop"])
def test_it_speaks_tls(certificate: tuple[Path, Path], loop_of: str) -> None:
    """Through TLS everything is the same: messages of all sizes, both closes, a page, a stop."""
    cert, key = certificate
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(cert, key)
    trust = ssl.create_default_context(cafile=str(cert))
    router = echoing()
    router.get("/page", lambda request: Response(200, f"secure {request.secure}"))
    ends: list[int | None] = []
    router.websocket(
        "/end", message_handler(echo, inline=True, closed=lambda ws: ends.append(ws.close_code)), max_message_bytes=10
    )

    async def scenario() -> None:
        with no_loop_errors():
            async with Server(router, ssl=context, stop_timeout=3) as server:
                base = f"wss://localhost:{server.port}"
                client = await connect(f"{base}/", ssl=trust, host="127.0.0.1")
                for size in (0, 1, 125, 126, 65535, 65536, 300_000):
                    data = random.randbytes(size)
                    await client.send(data)
                    assert await client.recv() == data
                for number in range(2000):
                    await client.send(str(number))
                assert [await client.recv() for _ in range(2000)] == [str(number) for number in range(2000)]
                ended = await connect(f"{base}/end", ssl=trust, host="127.0.0.1")
                await ended.close(4000)
                failed = await connect(f"{base}/end", ssl=trust, host="127.0.0.1")
                await failed.send("x" * 11)
                await failed.wait_closed()
                assert failed.close_code == 1009
                reader, writer = await asyncio.open_connection(
                    "127.0.0.1", server.port, ssl=trust, server_hostname="localhost"
                )
                writer.write(b"GET /page HTTP/1.1\r\nHost: localhost\r\n\r\n")
                assert (await reader.read()).endswith(b"secure True")
                writer.close()
                await writer.wait_closed()
            await client.wait_closed()
            assert client.close_code == 1001
            assert ends == [4000, 1009]

    run(scenario, loop_of)


def run(scenario: Callable[[], Coroutine[Any, Any, None]], loop_of: str) -> None:
    """Run ``scenario`` on a loop of the kind."""
    loop = asyncio.new_event_loop() if loop_of == "asyncio" else pytest.importorskip("uvloop").new_event_loop()
    try:
        loop.run_until_complete(asyncio.wait_for(scenario(), 30))
        loop.run_until_complete(loop.shutdown_asyncgens())
    finally:
        loop.close()


async def test_a_port_that_is_taken_is_an_error() -> None:
    """OSError from start, and nothing is left behind."""
    async with serving() as server:
        with pytest.raises(OSError, match="in use"):
            async with Server(Router(), port=server.port):
                pass


async def test_sockets_are_bounded_and_prompt() -> None:
    """SO_SNDBUF and TCP_NODELAY are set on what is accepted."""
    opened: list[Connection] = []
    handler = message_handler(echo, inline=True, opened=opened.append)
    async with serving(handler, send_buffer_bytes=32768) as server, open_raw(server.port):
        sock = opened[0]._transport.get_extra_info("socket")
        assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF) == 2 * 32768
        assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


# Stopping


async def test_a_stop_with_a_thousand_connections_of_which_a_hundred_stall() -> None:
    """1001 to every peer, all gone within the deadline, the stalled ones aborted and counted."""
    pool: list[Connection] = []
    ends: list[tuple[int | None, str]] = []
    handler = message_handler(
        echo,
        inline=True,
        opened=pool.append,
        closed=lambda ws: ends.append((ws.close_code, ws.reason_lost)),
    )
    loop = asyncio.get_running_loop()
    with many_files(), no_loop_errors():
        async with (
            serving(handler, stop_timeout=2.0, close_timeout=60, heartbeat=None) as server,
            swarm(server.port, 1000, stalled=100) as (readers, stalled),
        ):
            await eventually(lambda: len(pool) == 1000)
            message = Message.binary(b"x" * 400_000).prepare()
            for ws in pool[:100]:
                ws.try_send(message)
            await asyncio.sleep(0.1)
            assert sum(ws.pending_bytes > 0 for ws in pool) == 100
            started = loop.time()
            server.close()
            await server.wait_closed()
            assert loop.time() - started <= 2.2
            await eventually(lambda: all(member.lost for member in readers))
            assert {member.close_code for member in readers} == {1001}
            assert server.stats()["connections"] == server.stats()["transports"] == 0
            assert server.stats()["aborted_at_stop"] == 100
            assert (server.stats()["closed_1001"], server.stats()["closed_1006"]) == (900, 100)
            assert ends.count((1006, "server stopped")) == len(stalled)
            assert ends.count((1001, "")) == 900


async def test_a_stop_waits_for_handlers_and_then_cancels() -> None:
    """A handler may finish its work within the deadline; one that does not is cancelled."""
    trail: list[str] = []

    async def tidy(ws: Connection, how: str) -> None:
        async for _ in ws:
            pass
        try:
            await asyncio.sleep(0.1 if how == "tidy" else 60)
            trail.append(f"{how} done")
        except asyncio.CancelledError:
            trail.append(f"{how} cancelled")
            raise

    async with serving(websocket_handler(tidy), "/{how}", stop_timeout=0.8) as server:
        clients = [await connect(f"ws://127.0.0.1:{server.port}/{how}") for how in ("tidy", "stuck")]
        loop = asyncio.get_running_loop()
        started = loop.time()
        server.close()
        server.close()
        await server.wait_closed()
        assert 0.6 < loop.time() - started <= 0.9
        for client in clients:
            assert client.close_code == 1001
    assert trail == ["tidy done", "stuck cancelled"]
    assert server.stats()["handlers"] == 0


async def test_a_stop_is_quick_where_nothing_holds_it_up() -> None:
    """Without slow peers or handlers a stop takes no longer than it must."""
    loop = asyncio.get_running_loop()
    async with serving(stop_timeout=30) as server:
        client = await connect(f"ws://127.0.0.1:{server.port}/")
        started = loop.time()
    assert loop.time() - started < 1
    await client.wait_closed()
    with pytest.raises(OSError, match=r"refused|Connect call failed"):
        await connect(f"ws://127.0.0.1:{server.port}/")


async def test_wait_closed_waits_until_the_server_is_closed() -> None:
    """A program serves by waiting; whoever closes ends it."""
    server = Server(echoing())
    await server.wait_closed()
    await server.start()
    waiting = asyncio.ensure_future(server.wait_closed())
    await asyncio.sleep(0.02)
    assert not waiting.done()
    server.close()
    await asyncio.wait_for(waiting, 2)
    assert server.stopping


async def test_a_stop_ends_half_open_handshakes() -> None:
    """Connections that asked for nothing yet are dropped at the stop."""
    async with serving(stop_timeout=1) as server, open_raw(server.port, None) as raw:
        await eventually(lambda: server.stats()["handshakes"] == 1)
        server.close()
        await server.wait_closed()
        assert await raw.recv() is None


# Counting


async def test_stats_count_what_happens() -> None:
    """Everything under flat names, numbers alone; what is held goes back to nothing."""
    router = echoing()
    router.get("/page", lambda request: Response(200, "x"))

    def broken(ws: Connection, message: Message) -> None:
        raise RuntimeError

    router.websocket("/broken", message_handler(broken, inline=True))
    async with Server(router, max_message_bytes=1000, heartbeat=None, stop_timeout=2) as server:
        async with open_raw(server.port) as raw:
            raw.send(frame(TEXT, b"abc") + frame(BINARY, b"", fin=False) + frame(0, b"x"))
            assert await raw.recv() == Frame(TEXT, b"abc")
            assert await raw.recv() == Frame(BINARY, b"x")
            assert server.stats()["connections"] == 1
            assert server.connections == 1
            assert [ws.remote[1] for ws in server.connections] == [raw.writer.get_extra_info("sockname")[1]]
            raw.send(close_frame(4000))
            await raw.ended()
        async with open_raw(server.port) as raw:
            raw.send(frame(BINARY, b"x" * 2000))
            await raw.ended()
        async with open_raw(server.port, "/broken") as raw:
            raw.send(frame(TEXT))
            received = await raw.recv()
            assert received is not None
            assert (received.opcode, received.code) == (CLOSE, 1011)
        for target in (b"/page", b"/nowhere"):
            async with open_raw(server.port, None) as raw:
                raw.send(b"GET " + target + b" HTTP/1.1\r\nHost: a\r\n\r\n")
                await raw.ended()
        await eventually(lambda: server.stats()["transports"] == server.stats()["answered"] == 0)
        stats = server.stats()
    assert all(isinstance(value, int | float) for value in stats.values())
    expected = {
        "accepted": 5,
        "opened": 3,
        "messages_in": 3,
        "pages": 1,
        "refused_404": 1,
        "closed_4000": 1,
        "closed_1009": 1,
        "closed_1011": 1,
        "lost_closed_by_peer": 1,
        "lost_protocol_error": 1,
        "handler_errors": 1,
        "connections": 0,
        "handshakes": 0,
    }
    assert {name: stats.get(name) for name in expected} == expected
    assert stats["bytes_in"] > 2000
    assert stats["bytes_out"] > 400


async def test_connections_are_a_set_that_compares_with_a_number() -> None:
    """The open connections can be counted, looped over and looked up."""
    opened: list[Connection] = []
    async with serving(message_handler(echo, inline=True, opened=opened.append)) as server:
        assert not server.connections
        async with open_raw(server.port), open_raw(server.port):
            connections = server.connections
            assert len(connections) == int(connections) == connections == 2
            assert set(connections) == set(opened)
            assert opened[0] in connections
            assert connections != 3
            assert repr(connections) == "<2 connections>"


async def test_an_injected_clock_times_what_is_received() -> None:
    """last_received is by the server's clock."""
    clock = Clock(77.0)
    opened: list[Connection] = []
    handler = message_handler(echo, inline=True, opened=opened.append)
    async with serving(handler, clock=clock, heartbeat=None) as server, open_raw(server.port) as raw:
        clock.now = 78.5
        raw.send(frame(TEXT))
        await raw.recv()
        assert opened[0].last_received == 78.5


def test_everything_works_on_uvloop() -> None:
    """The same server on the other loop: messages, pause, a slow peer, a page, both closes, a stop."""

    async def scenario() -> None:
        router = echoing()
        router.get("/page", lambda request: Response(200, b"x" * 1_000_000))
        opened: list[Connection] = []
        ends: list[tuple[int | None, str]] = []

        def pausing(ws: Connection, message: Message) -> Any:
            ws.pause()
            asyncio.get_running_loop().call_soon(ws.resume)
            return message

        router.websocket(
            "/pausing",
            message_handler(
                pausing,
                inline=True,
                opened=opened.append,
                closed=lambda ws: ends.append((ws.close_code, ws.reason_lost)),
            ),
        )

        async def talk(ws: Connection) -> None:
            await ws.send_bytes(b"x" * 3_000_000)
            async for message in ws:
                if message.kind == "text":
                    await ws.send_text(str(round(await ws.ping())))

        router.websocket("/talk", talk)
        with no_loop_errors():
            async with Server(router, heartbeat=(0.05, 5), stop_timeout=3, close_timeout=1) as server:
                base = f"ws://127.0.0.1:{server.port}"
                async with connect(f"{base}/") as client:
                    for size in (0, 125, 126, 65535, 65536, 300_000):
                        await client.send(b"x" * size)
                        assert await client.recv() == b"x" * size
                async with open_raw(server.port, "/pausing") as raw:
                    raw.send(b"".join(frame(TEXT, b"%d" % n) for n in range(200)))
                    got = [received for _ in range(200) if (received := await raw.recv()) and received.opcode == TEXT]
                    assert [int(received.payload) for received in got] == list(range(len(got)))
                    raw.send(close_frame(4000))
                    await raw.ended()
                async with connect(f"{base}/talk", max_size=None, ping_interval=None) as client:
                    await asyncio.sleep(0.05)
                    assert len(await client.recv()) == 3_000_000
                    await client.send("x")
                    assert await client.recv() == "0"
                async with open_raw(server.port, "/pausing") as raw:
                    raw.writer.transport.abort()
                    await eventually(lambda: len(ends) == 2)
                async with open_raw(server.port, "/pausing", recv_buffer=4096) as raw:
                    raw.writer.transport.pause_reading()
                    ws = opened[-1]
                    for _ in range(50):
                        pending = ws.try_send(b"x" * 40_000)
                    assert pending > 1_000_000
                    await ws.close(4001)
                    assert ws.close_code == 4001
                async with open_raw(server.port, None) as raw:
                    raw.send(b"GET /page HTTP/1.1\r\nHost: a\r\n\r\n")
                    assert (await raw.reader.read(-1)).endswith(b"x" * 1000)
                client = await connect(f"{base}/")
            await client.wait_closed()
            assert client.close_code == 1001
            assert ends[0] == (4000, "closed by peer")
            assert ends[1][0] == 1006

    run(scenario, "uvloop")
