"""Secrets appear nowhere but where they are kept: the real daemon, told everything and asked everything.

Each secret is a string that is found wherever it stands.  They are given as credentials (files), so that none belongs
into the environment either.
"""

from __future__ import annotations

import asyncio
import http.server
import json
import os
import signal
import ssl
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from websockets.asyncio.client import connect, unix_connect
from websockets.exceptions import WebSocketException

from gateway.auth import Tokens
from tests.certificates import authority, issue, trusting
from tests.running import receive, send
from tests.server.visitor import Answer, ask, basic, bearer, cookie
from tests.servers import free_port
from tools.toolkit.servers import ROOT, Daemon

# A fault in the middle of a login, with the token and the session in its frames.
FAULTY = """
import sys
from gateway.server import doors
sound = doors._cookie
def faulty(request, session, max_age):
    if request.headers.get("x-fault"):
        raise RuntimeError("a fault in the middle of a login")
    return sound(request, session, max_age)
doors._cookie = faulty
from gateway.cli import main
sys.exit(main())
"""


class Guarded(Daemon):
    """A daemon that speaks TLS."""

    tls: ssl.SSLContext

    def is_ready(self) -> bool:
        try:
            return asyncio.run(ask(self.port, "/readyz", tls=self.tls)).status == 200
        except (OSError, asyncio.IncompleteReadError):
            return False


class Store(http.server.BaseHTTPRequestHandler):
    """A store that takes nothing, and says it with what it was sent."""

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.send_response(401)
        said = f"unauthorized access: {self.headers['Authorization']}"
        body = json.dumps({"code": "unauthorized", "message": said}).encode()
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None: ...


@pytest.fixture
def store() -> Iterator[int]:
    """The port of a store."""
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Store)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    yield server.server_port
    server.shutdown()
    thread.join()
    server.server_close()


class Scene:
    """The daemon, its secrets, and all that was seen of it."""

    def __init__(self, directory: Path, store: int) -> None:
        ca = authority(directory)
        server = issue(directory, ca)
        state = directory / "state"
        state.mkdir(mode=0o700)
        tokens = Tokens(state / "tokens.json")
        tokens.load()
        self.everything = tokens.create(["device:*", "live:read", "live:command", "metrics"], name="all")[1]
        self.gone = tokens.create(["live:read"])
        self.secrets = {
            "token": self.everything,
            "token's random part": self.everything.partition(".")[2],
            "token that is revoked": self.gone[1].partition(".")[2],
            "token that nobody knows": "canary-stranger-8f14e45fceea167a",
            "token of a device's own": "canary-own-c9f0f895fb98ab9159f51fd0",
            "MQTT password": "canary-mqtt-45c48cce2e2d7fbd",
            "MQTT password in the URL": "canary-url-d3d9446802a44259",
            "InfluxDB token": "canary-influx-6512bd43d9caa6e0",
            "InfluxDB token in a query": "canary-query-70efdf2ec9b08607",
            "MQTT password in a query": "canary-query-d82c8d1619ad8176",
            **{f"TLS key, line {n}": line for n, line in enumerate(server.key.read_text().splitlines()[1:-1])},
        }
        credentials = directory / "credentials"
        credentials.mkdir()
        secrets = self.secrets
        for name, value in {
            "GATEWAY_MQTT__URL": f"mqtt://gateway:{secrets['MQTT password in the URL']}@127.0.0.1:{free_port()}",
            "GATEWAY_MQTT__PASSWORD": secrets["MQTT password"],
            "GATEWAY_INFLUX__TOKEN": secrets["InfluxDB token"],
        }.items():
            (credentials / name).write_text(value)
        self.settings = {
            "GATEWAY_AUTH__MODE": "token",
            "GATEWAY_TLS__CERT": str(server.cert),
            "GATEWAY_TLS__KEY": str(server.key),
            "GATEWAY_INFLUX__URL": f"http://127.0.0.1:{store}",
            "GATEWAY_LOG__LEVEL": "debug",
            "CREDENTIALS_DIRECTORY": str(credentials),
        }
        self.tls = trusting(ca)
        self.daemon = Guarded(directory, self.settings, launcher=["-X", "dev", "-c", FAULTY])
        self.daemon.tls = self.tls
        self.seen: dict[str, str] = {}

    async def ask(self, path: str, headers: dict[str, str], **options: Any) -> Answer:
        answer = await ask(self.daemon.port, path, headers, tls=self.tls, **options)
        at = f"{options.get('method', 'GET')} {path} {len(self.seen)}"
        self.seen[at] = f"{answer.headers}\n{answer.body.decode()}"
        return answer

    async def live(self) -> None:
        """Everything that fails, and what succeeds."""
        secrets, port = self.secrets, self.daemon.port
        token, stranger = secrets["token"], secrets["token that nobody knows"]
        answer = await ask(port, "/login", bearer(token), method="POST", tls=self.tls)
        session = answer.headers["set-cookie"].partition(";")[0].partition("=")[2]
        secrets["session"] = session
        secrets["signature of the session"] = session.rpartition(".")[2]
        assert (await self.ask("/login", {**bearer(token), "x-fault": "1"}, method="POST")).status == 500
        assert (await self.ask("/logout", cookie(session), method="POST")).status == 204
        for secret in (stranger, self.gone[1], secrets["token of a device's own"], token + "x", token[:-1]):
            for path in ("/v1/devices/pump-9", f"/metrics?token={secret}", "/v1/live", "/healthz", "/nowhere"):
                for headers in (bearer(secret), basic("pump-9", secret), cookie(secret), {"X-Token": secret}):
                    await ask(port, path, headers, tls=self.tls, upgrade="v1" in path)
        for first in ({"type": "auth", "token": stranger}, {"type": stranger}, stranger):
            async with connect(f"wss://localhost:{port}/v1/live", ssl=self.tls, host="127.0.0.1") as ws:
                await receive(ws, "hello")
                await send(ws, first)
                with pytest.raises(WebSocketException):
                    self.seen["feed"] = self.seen.get("feed", "") + str(await ws.recv())
        async with connect(
            f"wss://localhost:{port}/v1/devices/pump-1",
            ssl=self.tls,
            host="127.0.0.1",
            additional_headers=bearer(token),
        ) as ws:
            await receive(ws, "welcome")
            await send(ws, {"t": 1, "seq": 1})
            self.seen["device"] = str(await receive(ws, "ack"))
        for path in ("/healthz", "/metrics", "/api/v1/pending", "/api/v1/devices", "/api/v1/latest", "/api/v1/history"):
            assert (await self.ask(path, bearer(token))).status == 200
        socket = str(self.daemon.state / "control.sock")
        async with unix_connect(socket, "ws://localhost/control") as ws:
            commands: dict[str, dict[str, str]] = {
                "devices": {},
                "explain": {"device": "pump-1"},
                "pending": {},
                "settings": {},
                "token-list": {},
                "token-revoke": {"id": self.gone[1]},  # by mistake
                "nonsense": {},
            }
            for number, (command, params) in enumerate(commands.items()):
                await send(ws, {"id": number, "command": command, "params": params})
                answer, said = "", False
                async with asyncio.timeout(20):
                    while not said:
                        answer += str(line := await ws.recv())
                        said = "ok" in json.loads(line)
                self.seen[f"control {command}"] = answer

    def commands(self) -> None:
        environment = {name: value for name, value in os.environ.items() if not name.startswith("GATEWAY_")}
        environment |= {**self.settings, "GATEWAY_STATE_DIR": str(self.daemon.state)}
        environment["GATEWAY_LISTEN__PORT"] = str(self.daemon.port)
        faulty = {"GATEWAY_MQTT__QOS": "7", "GATEWAY_INFLUX__URL": "influx"}
        queries = {
            "GATEWAY_INFLUX__URL": f"http://127.0.0.1:1/?token={self.secrets['InfluxDB token in a query']}",
            "GATEWAY_MQTT__URL": f"mqtt://127.0.0.1:1?password={self.secrets['MQTT password in a query']}",
        }
        for words, more in (
            ("config show --json", {}),
            ("check-config", faulty),
            ("token list", {}),
            ("config show", queries),
            ("check-config --json", queries),
        ):
            ran = subprocess.run(
                [sys.executable, "-m", "gateway", *words.split()],
                env={**environment, **more},
                cwd=ROOT,
                capture_output=True,
                text=True,
                timeout=60,
            )
            self.seen[f"gateway {words}"] = ran.stdout + ran.stderr

    def process(self) -> None:
        of = Path(f"/proc/{self.daemon.pid}")
        for name in ("cmdline", "environ", "comm", "status"):
            self.seen[f"/proc/{name}"] = (of / name).read_text(errors="replace")
        for path in sorted(self.daemon.state.rglob("*")):
            if path.is_file() and path.name != "session-key":
                self.seen[f"file {path.name}"] = path.read_bytes().decode("latin-1")

    def found(self) -> list[str]:
        return [
            f"{what} in {where}"
            for what, secret in self.secrets.items()
            for where, text in self.seen.items()
            if secret in text
        ]


async def test_secrets_appear_nowhere(tmp_path: Path, store: int) -> None:
    """In no log at debug level, answer, error, setting shown, process list, environment, file or core."""
    scene = Scene(tmp_path, store)
    daemon = scene.daemon
    await asyncio.to_thread(daemon.start)
    try:
        await scene.live()
        await asyncio.to_thread(scene.commands)
        scene.process()
        limits = Path(f"/proc/{daemon.pid}/limits").read_text()
        assert next(line for line in limits.splitlines() if line.startswith("Max core")).split()[4:6] in (
            ["1", "1"],
            ["0", "0"],
        )
        assert int(Path(f"/proc/{daemon.pid}/coredump_filter").read_text(), 16) == 0
        os.kill(daemon.pid, signal.SIGABRT)
        ended = await asyncio.to_thread(os.waitid, os.P_PID, daemon.pid, os.WEXITED | os.WNOWAIT)
        assert ended is not None
        assert ended.si_code == os.CLD_KILLED, "no core was written"
    finally:
        daemon.kill()
    scene.seen["the log"] = daemon.log.read_text()
    assert "a fault in the middle of a login" in scene.seen["the log"]
    assert "Traceback" in scene.seen["the log"]
    assert " DEBUG " in scene.seen["the log"]
    for what in ("MQTT", "InfluxDB"):
        assert what in scene.seen["GET /healthz " + next(key.split()[2] for key in scene.seen if "/healthz " in key)]
    for command in ("config show", "check-config --json"):
        assert "GATEWAY_INFLUX__URL" in scene.seen[f"gateway {command}"]
    assert "GATEWAY_MQTT__QOS" in scene.seen["gateway check-config"]
    assert "pump-9" in scene.seen["control pending"]
    assert not scene.found(), "\n".join(scene.found())


def test_a_secret_that_appears_is_found(tmp_path: Path, store: int) -> None:
    """The search finds what it is to find."""
    scene = Scene(tmp_path, store)
    scene.seen["a line"] = f"connecting with {scene.secrets['MQTT password']}"
    assert scene.found() == ["MQTT password in a line"]
