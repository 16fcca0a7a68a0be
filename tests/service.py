"""The gateway as systemd runs it: a child with a notify socket, and with sockets that its manager holds."""

from __future__ import annotations

import os
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

__all__ = ["ROOT", "Notify", "Service"]

ROOT = Path(__file__).resolve().parents[1]
WAIT_S = 30.0


class Notify:
    """A notify socket, and what was told."""

    def __init__(self, directory: Path) -> None:
        self.path = directory / "notify"
        self.told: list[str] = []
        self._channel = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._channel.bind(str(self.path))

    def wait(self, words: str, seconds: float = WAIT_S) -> str:
        """The next message with ``words`` in it."""
        deadline = time.monotonic() + seconds
        while True:
            left = deadline - time.monotonic()
            if left <= 0 or not select.select([self._channel], [], [], left)[0]:
                raise AssertionError(f"no {words} within {seconds} s, but {self.told}")
            self.told.append(self._channel.recv(4096).decode())
            if words in self.told[-1]:
                return self.told[-1]

    def rest(self) -> list[str]:
        """What has been told by now, and was not waited for."""
        while select.select([self._channel], [], [], 0)[0]:
            self.told.append(self._channel.recv(4096).decode())
        return self.told

    def __enter__(self) -> Notify:
        return self

    def __exit__(self, *_: object) -> None:
        self._channel.close()


class Service:
    """``gateway run``, ready when it has said so; ``sockets`` are handed to it as systemd does (sd_listen_fds(3))."""

    def __init__(
        self,
        directory: Path,
        notify: Notify,
        settings: dict[str, str],
        *,
        sockets: Sequence[socket.socket] = (),
        names: Sequence[str] = (),
        launcher: Sequence[str] = ("-m", "gateway"),
    ) -> None:
        self.log = directory / "gateway.log"
        self.notify = notify
        self._directory = directory
        environment = {name: value for name, value in os.environ.items() if not name.startswith("GATEWAY_")}
        environment |= {"GATEWAY_STATE_DIR": str(directory / "state"), "GATEWAY_LISTEN__PORT": "0"}
        environment |= {"NOTIFY_SOCKET": str(notify.path), "PYTHONPATH": str(ROOT), **settings}
        command = [sys.executable, *launcher, "run"]
        fds = [sock.fileno() for sock in sockets]
        if sockets:
            environment |= {"LISTEN_FDS": str(len(fds)), "LISTEN_FDNAMES": ":".join(names)}
            # The child's own pid and descriptors from 3 on, as sd_listen_fds(3) has it.
            code = (
                "import os, sys\n"
                f"fds = {fds}\n"
                "held = [os.dup2(fd, 100 + at, inheritable=True) for at, fd in enumerate(fds)]\n"
                "[os.dup2(fd, 3 + at, inheritable=True) for at, fd in enumerate(held)]\n"
                "[os.close(fd) for fd in held]\n"
                "os.environ['LISTEN_PID'] = str(os.getpid())\n"
                f"os.execv(sys.executable, {command!r})\n"
            )
            command = [sys.executable, "-c", code]
        self._command, self._environment, self._fds = command, environment, fds
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> Service:
        with self.log.open("ab") as output:
            self.process = subprocess.Popen(
                self._command,
                cwd=self._directory,
                env=self._environment,
                stdout=output,
                stderr=output,
                stdin=subprocess.DEVNULL,
                pass_fds=self._fds,
            )
        return self

    @property
    def pid(self) -> int:
        assert self.process is not None
        return self.process.pid

    def ready(self) -> str:
        """What it says when it is."""
        try:
            return self.notify.wait("READY=1")
        except AssertionError as error:
            raise AssertionError(f"{error}\n{self.log.read_text()[-3000:]}") from None

    def said(self, words: str) -> str:
        """The newest line of its log with ``words`` in it; it is written by a thread, a moment later."""
        deadline = time.monotonic() + WAIT_S
        while True:
            lines = [line for line in self.log.read_text().splitlines() if words in line]
            if lines:
                return lines[-1]
            assert time.monotonic() < deadline, f"it did not say {words!r}:\n{self.log.read_text()[-3000:]}"
            time.sleep(0.01)

    def port(self) -> int:
        """The port in its log."""
        return int(self.said("listening on http").rpartition(":")[2])

    def stop(self, how: signal.Signals = signal.SIGTERM) -> int:
        """Its exit status."""
        assert self.process is not None
        if self.process.poll() is None:
            self.process.send_signal(how)
        try:
            return self.process.wait(20)
        finally:
            self.process.kill()
            self.process.wait()

    def __enter__(self) -> Service:
        self.start()
        self.ready()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
