"""SIGHUP: the certificate and the settings of a running daemon, which drops no connection for it."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import ssl
import subprocess
import sys
import time
import urllib.request
from pathlib import Path
from typing import Any

from websockets.asyncio.client import connect

from tests.certificates import Pair, authority, issue, trusting
from tests.running import acked, receive, send
from tests.service import ROOT, Notify, Service


def put(pair: Pair, to: Path) -> None:
    """Renew the certificate, the way certbot does."""
    for source, name in zip(pair, ("cert.pem", "key.pem"), strict=True):
        shutil.copy(source, to / f"{name}.new")
        os.replace(to / f"{name}.new", to / name)


def serial(port: int, context: ssl.SSLContext) -> object:
    """The serial number of the certificate that a new connection is shown."""
    import socket

    with (
        socket.create_connection(("127.0.0.1", port), 10) as plain,
        context.wrap_socket(plain, server_hostname="localhost") as secure,
    ):
        certificate = secure.getpeercert()
        assert certificate is not None
        return certificate["serialNumber"]


def health(port: int, context: ssl.SSLContext) -> Any:
    """The body of ``/healthz``."""
    with urllib.request.urlopen(f"https://127.0.0.1:{port}/healthz", timeout=20, context=context) as answer:
        return json.load(answer)


async def test_a_reload_keeps_connections_and_takes_what_is_new(tmp_path: Path) -> None:
    """New handshakes get the new certificate, open connections go on; systemd is told, bad files change nothing."""
    ca = authority(tmp_path)
    context = trusting(ca)
    put(issue(tmp_path, ca, file="first"), tmp_path)
    toml = tmp_path / "gateway.toml"
    tls = f'[tls]\ncert = "{tmp_path}/cert.pem"\nkey = "{tmp_path}/key.pem"\n'
    toml.write_text(tls)
    settings = {"GATEWAY_CONFIG": str(toml), "GATEWAY_JOURNAL__COMMIT_MS": "7"}
    with Notify(tmp_path) as notify, Service(tmp_path, notify, settings) as service:
        service.said("listening on https://127.0.0.1:")
        port = service.port()

        def hangup(*words: str) -> None:
            before = time.monotonic_ns() // 1000
            os.kill(service.pid, signal.SIGHUP)
            reloading = dict(line.split("=", 1) for line in notify.wait("RELOADING=1").splitlines())
            assert before <= int(reloading["MONOTONIC_USEC"]) <= time.monotonic_ns() // 1000
            notify.wait("READY=1")
            for each in words:
                service.said(each)

        async with connect(
            f"wss://localhost:{port}/v1/devices/a?session=s", host="127.0.0.1", ssl=context, compression=None
        ) as ws:
            await receive(ws, "welcome")
            first = await asyncio.to_thread(serial, port, context)
            put(issue(tmp_path, ca, file="second"), tmp_path)
            await asyncio.to_thread(
                hangup, "the settings were read anew: none was changed; the file of GATEWAY_TLS__CERT is another"
            )
            second = await asyncio.to_thread(serial, port, context)
            assert second != first

            (tmp_path / "key.pem").write_text("rubbish")
            toml.write_text(f'{tls}[limits]\ndevice_burst = 0\n[log]\nlevel = "debug"\n')
            kept = "the settings stay as they were: GATEWAY_"
            await asyncio.to_thread(hangup, f"{kept}TLS__KEY: ", f"{kept}LIMITS__DEVICE_BURST: ")
            assert await asyncio.to_thread(serial, port, context) == second
            (problem,) = (await asyncio.to_thread(health, port, context))["problems"]
            assert problem["part"] == "settings"
            assert "GATEWAY_TLS__KEY" in problem["text"]

            put(issue(tmp_path, ca, file="third"), tmp_path)
            toml.write_text(f'{tls}[limits]\nmax_metrics = 1\n[listen]\nhost = "::1"\n[journal]\ncommit_ms = 9\n')
            command = [sys.executable, "-m", "gateway", "check-config", "--state-dir", str(tmp_path / "state")]
            environment = {**os.environ, "GATEWAY_CONFIG": str(toml), "PYTHONPATH": str(ROOT)}
            run = asyncio.to_thread(
                subprocess.run, command, env=environment, cwd=tmp_path, capture_output=True, text=True, timeout=60
            )
            checked = await run
            assert checked.returncode == 0, checked.stderr
            _, *lines = checked.stdout.splitlines()
            needs = {line.partition(":")[0]: line.partition("; ")[2] for line in lines}
            assert needs.pop("GATEWAY_LIMITS__MAX_METRICS").startswith("a reload is enough")
            assert needs.pop("GATEWAY_LISTEN__HOST") == "needs a restart"
            # Its environment says so, at the start and at each reload; here it does not.
            assert needs.pop("GATEWAY_JOURNAL__COMMIT_MS") == "needs a restart"
            assert set(needs) == {"GATEWAY_LISTEN__PORT"}

            await asyncio.to_thread(
                hangup, "GATEWAY_LIMITS__MAX_METRICS changed", "GATEWAY_LISTEN__HOST has changed and needs a restart"
            )
            assert await asyncio.to_thread(serial, port, context) not in (first, second)
            await send(ws, {"seq": 1, "t": 1}, {"seq": 2, "t": 1, "u": 1})
            assert "more than 1 metrics" in (await receive(ws, "error"))["detail"]
            await acked(ws, 2)
