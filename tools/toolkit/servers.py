"""Starts the gateway of this checkout as a child, waits until it is ready, and ends it."""

from __future__ import annotations

import contextlib
import os
import signal
import ssl
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Mapping
from pathlib import Path

from tests.servers import free_port

__all__ = ["HOST", "ROOT", "Daemon", "Failed"]

HOST = "127.0.0.1"
ROOT = Path(__file__).resolve().parents[2]
START_S = 20.0
STOP_S = 15.0


class Failed(Exception):
    """A server did not start, or a measurement cannot be made; the message is for a person."""


def on_core(core: int | None) -> list[str]:
    """The words before a command that keep it on one core; none where that cannot be."""
    if core is None or core >= (os.cpu_count() or 1):
        return []
    return ["taskset", "-c", str(core)]


def wait_for(what: str, ready: object, process: subprocess.Popen[bytes], log: Path) -> None:
    """Call ``ready()`` until it is true; raises :class:`Failed` with the end of ``log``."""
    assert callable(ready)
    deadline = time.monotonic() + START_S
    while not ready():
        if process.poll() is not None or time.monotonic() > deadline:
            end = "\n".join(log.read_text(errors="replace").splitlines()[-15:])
            raise Failed(f"{what} did not start; the end of its log:\n{end}")
        time.sleep(0.05)


def end(process: subprocess.Popen[bytes], how: signal.Signals = signal.SIGTERM) -> int:
    """Signal the process, wait for it, kill it after :data:`STOP_S`; its exit status."""
    with contextlib.suppress(ProcessLookupError):
        process.send_signal(how)
    try:
        return process.wait(STOP_S)
    except subprocess.TimeoutExpired:
        process.kill()
        return process.wait()


class Daemon:
    """``gateway run`` of this checkout, with its state and its log under ``directory``.

    ``settings`` are environment variables; none of the caller's ``GATEWAY_*`` are handed on.  ``prefix`` goes before
    the command, and ``launcher`` in place of ``-m gateway``.
    """

    def __init__(
        self,
        directory: Path,
        settings: Mapping[str, str],
        *,
        core: int | None = None,
        port: int | None = None,
        launcher: list[str] | None = None,
        prefix: list[str] | None = None,
    ) -> None:
        self.port = port or free_port()
        self.log = directory / "gateway.log"
        self.state = directory / "state"
        environment = {name: value for name, value in os.environ.items() if not name.startswith("GATEWAY_")}
        environment["GATEWAY_STATE_DIR"] = str(self.state)
        environment["GATEWAY_LISTEN__PORT"] = str(self.port)
        self._environment = {**environment, **settings}
        self._command = [*(prefix or []), *on_core(core), sys.executable, *(launcher or ["-m", "gateway"]), "run"]
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        """The process's identifier; only while it runs."""
        assert self.process is not None
        return self.process.pid

    @property
    def address(self) -> str:
        return f"{'https' if 'GATEWAY_TLS__CERT' in self._environment else 'http'}://{HOST}:{self.port}"

    def spawn(self) -> subprocess.Popen[bytes]:
        """Start it and wait for nothing."""
        with self.log.open("ab") as output:
            self.process = subprocess.Popen(
                self._command, cwd=ROOT, env=self._environment, stdout=output, stderr=output, stdin=subprocess.DEVNULL
            )
        return self.process

    def start(self) -> Daemon:
        """Start it and wait for ``/readyz``; raises :class:`Failed`."""
        self.spawn()
        assert self.process is not None
        try:
            wait_for("the gateway", self.is_ready, self.process, self.log)
        except Failed:
            self.kill()
            raise
        return self

    def is_ready(self) -> bool:
        try:
            return bool(self.get("/readyz")[0] == 200)
        except OSError:
            return False

    def get(self, target: str) -> tuple[int, bytes]:
        """Status and body of a GET; raises ``OSError`` when there is no answer."""
        # Who it is is no question here: the certificate is a case's own.
        context = ssl._create_unverified_context() if self.address.startswith("https") else None
        opener = urllib.request.build_opener(
            urllib.request.ProxyHandler({}), urllib.request.HTTPSHandler(context=context)
        )
        try:
            with opener.open(self.address + target, timeout=10) as response:
                return response.status, response.read()
        except urllib.error.HTTPError as error:
            return error.code, error.read()

    def stop(self) -> int:
        """SIGTERM; gives the exit status."""
        assert self.process is not None
        return end(self.process)

    def kill(self) -> None:
        """SIGKILL."""
        if self.process is not None:
            end(self.process, signal.SIGKILL)

    def __enter__(self) -> Daemon:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()
