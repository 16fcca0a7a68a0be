"""TLS of a running gateway: who gets through, what is said of the certificate, and its renewal."""

from __future__ import annotations

import asyncio
import shutil
import ssl
import subprocess
import time
import warnings
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families
from websockets.asyncio.client import connect

from gateway.errors import ConfigError
from gateway.server.tls import Tls, make_context, read_files
from gateway.ws import Request, Router, Server
from tests.certificates import Pair, authority, issue, trusting
from tests.running import Running, acked, gateway, receive, send

DAY = 86_400


def paths(pair: Pair, client_ca: Pair | None = None) -> dict[str, Any]:
    """The section of settings."""
    return {"cert": pair.cert, "key": pair.key, "client_ca": client_ca.cert if client_ca else None}


async def get(running: Running, path: str, ca: Pair) -> tuple[int, bytes]:
    """Status and body of a GET over TLS."""
    reader, writer = await asyncio.open_connection(
        "127.0.0.1", running.port, ssl=trusting(ca), server_hostname="localhost"
    )
    writer.write(f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
    head, _, body = (await asyncio.wait_for(reader.read(), 20)).partition(b"\r\n\r\n")
    writer.close()
    return int(head.split()[1]), body


def device(running: Running, context: ssl.SSLContext, name: str = "pump-1") -> Any:
    return connect(
        f"wss://localhost:{running.port}/v1/devices/{name}?session=a", host="127.0.0.1", ssl=context, compression=None
    )


async def test_devices_and_pages_over_tls(tmp_path: Path, ca: Pair, server: Pair) -> None:
    """Readings are acked, pages answered; plain HTTP is not; the metrics say when the certificate ends."""
    async with gateway(tmp_path, tls=paths(server)) as running:
        async with device(running, trusting(ca)) as ws:
            await receive(ws, "welcome")
            await send(ws, {"seq": 1, "t": 1})
            await acked(ws, 1)
        status, body = await get(running, "/metrics", ca)
        assert status == 200
        found = {
            sample.name: sample.value
            for family in text_string_to_metric_families(body.decode())
            for sample in family.samples
        }
        assert found["gateway_tls_certificate_remaining_seconds"] == pytest.approx(90 * DAY, abs=1000)
        with pytest.raises(OSError, match=r".*"):
            await running.get("/livez")


@pytest.mark.parametrize(
    ("version", "welcome"),
    [(ssl.TLSVersion.TLSv1_1, False), (ssl.TLSVersion.TLSv1_2, True), (ssl.TLSVersion.TLSv1_3, True)],
)
async def test_versions(ca: Pair, server: Pair, version: ssl.TLSVersion, welcome: bool) -> None:
    """1.2 and newer, with forward secrecy and authenticated encryption alone; no compression."""
    router = Router()
    router.get("/", lambda request: request.refuse(200, "here"))
    async with Server(router, ssl=make_context(*server, None)) as running:
        context = trusting(ca)
        context.set_ciphers("DEFAULT@SECLEVEL=0")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            context.minimum_version = context.maximum_version = version
        opening = asyncio.open_connection("127.0.0.1", running.port, ssl=context, server_hostname="localhost")
        if not welcome:
            with pytest.raises(OSError, match=r".*"):
                await opening
            return
        _, writer = await opening
        tls = writer.get_extra_info("ssl_object")
        assert "ECDHE" in tls.cipher()[0] or tls.version() == "TLSv1.3"
        assert "GCM" in tls.cipher()[0] or "CHACHA20" in tls.cipher()[0]
        assert tls.compression() is None
        writer.close()


@pytest.mark.parametrize("cipher", ["AES128-GCM-SHA256", "ECDHE-ECDSA-AES128-SHA256"])
async def test_weak_suites_are_refused(ca: Pair, server: Pair, cipher: str) -> None:
    """No suite without forward secrecy, none without authenticated encryption."""
    async with Server(Router(), ssl=make_context(*server, None)) as running:
        context = trusting(ca)
        context.maximum_version = ssl.TLSVersion.TLSv1_2
        context.set_ciphers(cipher)
        with pytest.raises(OSError, match=r".*"):  # SSLError, or an end without words
            await asyncio.open_connection("127.0.0.1", running.port, ssl=context, server_hostname="localhost")


async def test_client_certificates(directory: Path, ca: Pair, server: Pair) -> None:
    """One that the authority signed stands with the request; none is let through, a stranger's is not."""
    clients = authority(directory, "clients")
    stranger = issue(directory, ca, "pump-9", client=True)  # the server's authority is not that of the clients
    seen: list[Any] = []

    def page(request: Request) -> Any:
        seen.append(request.peer_certificate)
        return request.refuse(200, "here")

    router = Router()
    router.get("/", page)
    async with Server(router, ssl=make_context(*server, clients.cert)) as running:
        for pair in (issue(directory, clients, "pump-1", client=True), None, stranger):
            try:
                reader, writer = await asyncio.open_connection(
                    "127.0.0.1", running.port, ssl=trusting(ca, pair), server_hostname="localhost"
                )
                writer.write(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
                answer = await asyncio.wait_for(reader.read(), 20)
            except OSError:
                answer = b""
            else:
                writer.close()
            assert answer.startswith(b"HTTP/1.1 200") == (pair is not stranger)
    assert len(seen) == 2
    assert (("commonName", "pump-1"),) in seen[0]["subject"]
    assert seen[1] is None


def test_files_that_cannot_be_used(directory: Path, ca: Pair, server: Pair) -> None:
    """They are named by their settings."""
    other = issue(directory, ca, "other")
    with pytest.raises(ConfigError, match=r"GATEWAY_TLS__KEY: .*not the key of the certificate"):
        Tls(server.cert, other.key)
    with pytest.raises(ConfigError, match=r"GATEWAY_TLS__CLIENT_CA: .*No such file"):
        Tls(server.cert, server.key, directory / "none")


def test_what_is_said_of_the_end(directory: Path, ca: Pair, server: Pair, caplog: pytest.LogCaptureFixture) -> None:
    """A month before it, and after it, in words with what to do; expired is a warning, not a fault."""
    now = time.time()
    tls = Tls(*server, now=lambda: now)
    assert list(tls.problems()) == []
    assert caplog.text == ""
    for days, words in ((59.9, ""), (61, "expires in 28 days"), (89.9, "expires in 2 hours"), (92, "has expired")):
        at = now + days * DAY
        said = list(Tls(*server, now=lambda at=at: at).problems())
        assert [words in text for text, _ in said] == ([True] if words else []), said
    text, hint = said[0]
    assert text.startswith("The TLS certificate has expired")
    assert "SIGHUP" in hint
    assert "has expired" in caplog.text
    early = Tls(*server, now=lambda: now - DAY)
    assert "clock" in next(early.problems())[0]
    Tls(*issue(directory, ca, "expired", days=-1))


async def test_a_certificate_about_to_expire_is_a_problem_of_health(tmp_path: Path, directory: Path, ca: Pair) -> None:
    """It stands in /healthz."""
    short = issue(directory, ca, file="short", days=7)
    async with gateway(tmp_path, tls=paths(short)) as running:
        _, body = await get(running, "/healthz", ca)
    assert b"The TLS certificate expires in 6 days." in body


def copy(pair: Pair, to: Pair) -> None:
    for source, target in zip(pair, to, strict=True):
        shutil.copy(source, target)


def test_renewal(tmp_path: Path, directory: Path, ca: Pair, server: Pair) -> None:
    """Reload takes what the files hold by then; a bad one keeps the context."""
    used = Pair(tmp_path / "cert.pem", tmp_path / "key.pem")
    copy(server, used)
    tls = Tls(*used)
    first = tls.context
    copy(issue(directory, ca, file="longer", days=200), used)
    tls.use(read_files(*used))
    second = tls.context
    assert second is not first
    assert tls.expires_in_s == pytest.approx(200 * DAY, abs=1000)
    used.key.write_text("rubbish")
    with pytest.raises(ConfigError):
        tls.use(read_files(*used))
    assert tls.context is second
    assert tls.expires_in_s == pytest.approx(200 * DAY, abs=1000)
    copy(server, used)
    tls.use(read_files(*used))
    assert tls.expires_in_s == pytest.approx(90 * DAY, abs=1000)


def test_no_passphrase_is_asked_for(tmp_path: Path, server: Pair) -> None:
    """A key that needs one is a fault in words."""
    locked = tmp_path / "locked.key"
    command = ["openssl", "pkey", "-in", str(server.key), "-aes256", "-passout", "pass:canary", "-out", str(locked)]
    subprocess.run(command, check=True, capture_output=True)
    with pytest.raises(ConfigError, match="needs a passphrase"):
        Tls(server.cert, locked)
