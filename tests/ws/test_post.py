"""POST without a body, beside pages and sockets; and the certificate that a peer has shown."""

from __future__ import annotations

import asyncio
import ssl
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import WebSocketException

from gateway.ws import Connection, Next, Request, Response, Router, Server

from .support import no_loop_errors

BOTH_LOOPS = True


def posting() -> Router:
    """A router with a page, a socket and a POST at one path, and a POST alone at another."""
    router = Router()
    router.get("/form", lambda request: Response(200, "page"))
    router.post("/form", lambda request: Response(200, f"posted {request.method} {request.route}"))

    @router.post("/sign/{name}")
    async def sign(request: Request, name: str) -> Response:
        return Response(204, headers={"Set-Cookie": f"name={name}"})

    @router.websocket("/socket")
    async def socket(ws: Connection) -> None: ...

    inner = Router()
    inner.post("/deep", lambda request, **params: Response(200, f"deep {request.route}"))
    router.include("/in", inner)
    router.include("/of/{name}/{n:int}", inner)
    return router


@asynccontextmanager
async def serving(router: Router, **options: Any) -> AsyncIterator[Server]:
    with no_loop_errors():
        async with Server(router, stop_timeout=2.0, **options) as server:
            yield server


async def ask(server: Server, first: str, *headers: str, body: bytes = b"") -> tuple[int, bytes]:
    """Status and the whole answer; the connection has to end by itself."""
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    writer.write("\r\n".join([f"{first} HTTP/1.1", "Host: here", *headers, "", ""]).encode() + body)
    async with asyncio.timeout(10):
        answer = await reader.read()
    writer.close()
    return int(answer.split(b" ")[1]), answer


async def test_a_post_is_answered_by_its_own_handler() -> None:
    """POST and GET of one path are two routes, parameters and included routers work as for pages."""
    async with serving(posting()) as server:
        assert (await ask(server, "POST /form"))[1].endswith(b"posted POST /form")
        assert (await ask(server, "POST /form", "Content-Length: 0"))[1].endswith(b"posted POST /form")
        assert (await ask(server, "GET /form"))[1].endswith(b"page")
        status, answer = await ask(server, "POST /sign/ada")
        assert status == 204
        assert b"\r\nSet-Cookie: name=ada\r\n" in answer
        assert (await ask(server, "POST /in/deep"))[1].endswith(b"deep /in/deep")
        assert (await ask(server, "POST /of/ada/7"))[0] == 404
        assert (await ask(server, "POST /of/ada/7/deep"))[1].endswith(b"deep /of/{name}/{n:int}/deep")


@pytest.mark.parametrize(
    ("first", "status", "allow"),
    [
        ("GET /sign/ada", 405, b"Allow: POST"),
        ("HEAD /sign/ada", 405, b"Allow: POST"),
        ("PUT /form", 405, b"Allow: GET, HEAD"),
        ("DELETE /sign/ada", 405, b"Allow: POST"),
        ("POST /socket", 405, b"Allow: GET"),
        ("POST /nowhere", 404, b""),
        ("OPTIONS /form", 405, b"Allow: GET, HEAD"),
    ],
)
async def test_other_methods_are_refused(first: str, status: int, allow: bytes) -> None:
    """What no route of the path takes is answered with 405 and what it does take."""
    async with serving(posting()) as server:
        got, answer = await ask(server, first)
        assert got == status
        assert allow in answer


@pytest.mark.parametrize(
    ("headers", "body"),
    [
        (["Content-Length: 5"], b"hello"),
        (["Content-Length: 5"], b""),
        (["content-length : 5"], b"hello"),
        (["Content-Length: 99999999999999999999"], b""),
        (["Transfer-Encoding: chunked"], b"5\r\nhello\r\n0\r\n\r\n"),
        (["TRANSFER-ENCODING: gzip, chunked"], b""),
        (["Content-Length: 0", "Content-Length: 5"], b"hello"),
        (["Content-Length: 0", "Transfer-Encoding: chunked"], b"0\r\n\r\n"),
    ],
)
async def test_a_body_is_refused_unread(headers: list[str], body: bytes) -> None:
    """A POST with a body, of a stated length or in chunks, gets 413 at once and the connection ends."""
    async with serving(posting()) as server:
        status, answer = await ask(server, "POST /form", *headers, body=body)
        assert status == 413
        assert b"\r\nConnection: close\r\n" in answer
        assert (await ask(server, "POST /socket", *headers, body=body))[0] == 405


async def test_what_follows_a_post_is_no_second_request() -> None:
    """Bytes behind a bodiless POST are never taken for another request."""
    asked = []
    router = Router()
    router.post("/form", lambda request: asked.append(request.path) or Response(200, "once"))
    async with serving(router) as server:
        _, answer = await ask(server, "POST /form", body=b"POST /form HTTP/1.1\r\nHost: here\r\n\r\n")
        assert answer.count(b"HTTP/1.1") == 1
    assert asked == ["/form"]


async def test_middleware_stands_before_a_post() -> None:
    """A middleware can refuse a POST, and knows the route that it stands before."""
    router = posting()
    seen = []

    async def refuse(request: Request, call_next: Next) -> Response:
        seen.append(request.route)
        return request.refuse(403, "no")

    router.middleware(refuse)
    async with serving(router) as server:
        assert (await ask(server, "POST /sign/ada"))[0] == 403
        assert (await ask(server, "POST /form"))[0] == 403
    assert seen == ["/sign/{name}", "/form"]


def test_a_post_cannot_be_routed_twice() -> None:
    """One path has one POST."""
    router = posting()
    with pytest.raises(ValueError, match="taken"):
        router.post("/form", lambda request: Response(200))


def openssl(directory: Path, *words: str) -> None:
    try:
        subprocess.run(["openssl", *words], check=True, capture_output=True, cwd=directory)
    except FileNotFoundError:
        pytest.skip("openssl is not on this machine.")


@pytest.fixture(scope="module")
def pki(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An authority, a server's certificate and a client's, both of it; and one that signed itself."""
    directory = tmp_path_factory.mktemp("pki")
    new = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2"]
    for name in ("ca", "stranger"):
        openssl(
            directory, "req", "-x509", *new, "-keyout", f"{name}.key", "-out", f"{name}.pem", "-subj", f"/CN={name}"
        )
    for name in ("localhost", "pump-1"):
        openssl(directory, "req", *new[:-2], "-keyout", f"{name}.key", "-out", f"{name}.csr", "-subj", f"/CN={name}")
        (directory / "ext").write_text(f"subjectAltName=DNS:{name}\n")
        sign = ["x509", "-req", "-in", f"{name}.csr", "-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial"]
        openssl(directory, *sign, "-days", "2", "-extfile", "ext", "-out", f"{name}.pem")
    return directory


async def test_the_certificate_that_the_peer_has_shown(pki: Path) -> None:
    """It is in the request where TLS has verified one, and None where there is none or no TLS."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pki / "localhost.pem", pki / "localhost.key")
    context.load_verify_locations(pki / "ca.pem")
    context.verify_mode = ssl.CERT_OPTIONAL
    router = Router()
    seen: list[Any] = []

    async def look(request: Request, call_next: Next) -> Response:
        seen.append((request.secure, request.peer_certificate))
        return await call_next(request)

    router.middleware(look)

    @router.websocket("/")
    async def socket(ws: Connection) -> None: ...

    async with serving(router, ssl=context) as server, serving(router) as plain:
        for name in ("pump-1", "", "stranger"):
            client = ssl.create_default_context(cafile=str(pki / "ca.pem"))
            if name:
                client.load_cert_chain(pki / f"{name}.pem", pki / f"{name}.key")
            address = f"wss://localhost:{server.port}/"
            if name == "stranger":
                with pytest.raises((OSError, EOFError, WebSocketException)):
                    await connect(address, ssl=client, host="127.0.0.1")
            else:
                async with connect(address, ssl=client, host="127.0.0.1"):
                    pass
        async with connect(f"ws://127.0.0.1:{plain.port}/"):
            pass
    assert [secure for secure, _ in seen] == [True, True, False]
    assert seen[0][1]["subject"] == ((("commonName", "pump-1"),),)
    assert seen[1][1] is seen[2][1] is None
