"""Real servers for tests: mosquitto and VictoriaMetrics, each on a free port of 127.0.0.1, in a directory given.

A port that is free when it is looked for may be somebody else's when the program gets to it: unless one was asked for,
the first start then goes on with another.

Plain context managers, no test framework: tools use them too.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import time
import urllib.error
import urllib.request
from pathlib import Path
from types import TracebackType

__all__ = ["Missing", "Mosquitto", "Server", "Victoria", "free_port"]

START_S = 15.0
PORTS = 5  # tried at the first start, where none was asked for
LISTENS = "0A"  # the state, as proc(5) has it
IN_USE = "address already in use"
# By default mosquitto drops what a subscriber that lags by more than 1,000 messages has not taken.
OPEN = "allow_anonymous true\nmax_queued_messages 1000000"


class Missing(Exception):
    """The program is not on this machine; the text is one sentence."""


def free_port() -> int:
    """A port of 127.0.0.1 that nobody listens on now."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port: int = sock.getsockname()[1]
        return port


def find(program: str, package: str) -> str:
    """The program's path; raises ``Missing``."""
    found = shutil.which(program, path=":".join(("/usr/local/sbin", "/usr/sbin", "/sbin"))) or shutil.which(program)
    if found is None:
        raise Missing(f"{program} is not on this machine (Debian package {package}).")
    return found


class Server:
    """A program that listens on ``port``; ``with`` starts and stops it, ``stop`` and ``start`` do so in between."""

    program = ""
    package = ""

    def __init__(self, directory: Path, port: int = 0) -> None:
        self.directory = directory
        self.port = port or free_port()
        self._ports = 1 if port else PORTS  # to be tried still
        self.process: subprocess.Popen[bytes] | None = None
        self._path = find(self.program, self.package)

    def arguments(self) -> list[str]:
        """What to start the program with."""
        raise NotImplementedError

    def is_up(self) -> bool:
        """Whether it answers."""
        try:
            socket.create_connection(("127.0.0.1", self.port), 1).close()
        except OSError:
            return False
        return True

    def _listens(self, pid: int) -> bool:
        """Whether it is our program that does, not another test's (proc(5): ``/proc/PID/net/tcp``)."""
        try:
            rows = [line.split() for line in Path(f"/proc/{pid}/net/tcp").read_text().splitlines()[1:]]
            held = {os.readlink(entry) for entry in Path(f"/proc/{pid}/fd").iterdir()}
        except OSError:  # it has ended, or a descriptor has
            return False
        port = f":{self.port:04X}"
        return any(row[1].endswith(port) and row[3] == LISTENS and f"socket:[{row[9]}]" in held for row in rows)

    def start(self) -> None:
        """Start and wait until it answers; raises ``RuntimeError`` with the log's end when it does not."""
        self.directory.mkdir(parents=True, exist_ok=True)
        while True:
            self._ports -= 1
            try:
                self._start()
            except RuntimeError:
                if self._ports <= 0 or IN_USE not in self.log.read_text().lower():
                    raise
                self.log.unlink()
                self.port = free_port()
            else:
                self._ports = 0  # it is known by now
                return

    def _start(self) -> None:
        with self.log.open("ab") as log:
            # A copy of the environment: the process's own may be changed by another thread while it is handed over.
            self.process = subprocess.Popen(
                [self._path, *self.arguments()],
                env=dict(os.environ),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        deadline = time.monotonic() + START_S
        while not (self._listens(self.process.pid) and self.is_up()):
            if self.process.poll() is not None or time.monotonic() > deadline:
                self.stop()
                raise RuntimeError(f"{self.program} did not start:\n{self.log.read_text()[-2000:]}")
            time.sleep(0.02)

    def stop(self, kill: bool = False) -> None:
        """Stop and wait for the end; ``kill`` with SIGKILL."""
        process, self.process = self.process, None
        if process is None:
            return
        process.send_signal(signal.SIGCONT)
        process.kill() if kill else process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    def freeze(self) -> None:
        """SIGSTOP: it keeps its connections and answers nothing."""
        assert self.process is not None
        self.process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """SIGCONT."""
        assert self.process is not None
        self.process.send_signal(signal.SIGCONT)

    @property
    def log(self) -> Path:
        """What it printed."""
        return self.directory / f"{self.program}.log"

    def __enter__(self) -> Server:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()


class Mosquitto(Server):
    """An MQTT broker without persistence; ``config`` are further lines of its configuration."""

    program = "mosquitto"
    package = "mosquitto"

    def __init__(self, directory: Path, port: int = 0, config: str = OPEN, listener: str = "") -> None:
        super().__init__(directory, port)
        self.config = config
        self.listener = listener

    @property
    def url(self) -> str:
        """``mqtt://`` and where it listens."""
        return f"mqtt://127.0.0.1:{self.port}"

    def arguments(self) -> list[str]:
        """Writes the configuration anew, so that a changed ``config`` holds from the next start on."""
        path = self.directory / "mosquitto.conf"
        # As root mosquitto would become a user that may not read the test's directory.
        path.write_text(
            f"user root\nlistener {self.port} 127.0.0.1\n{self.listener}\npersistence false\n{self.config}\n"
        )
        return ["-c", str(path)]


class Victoria(Server):
    """VictoriaMetrics, which takes InfluxDB's line protocol."""

    program = "victoria-metrics"
    package = "victoria-metrics"

    @property
    def url(self) -> str:
        """``http://`` and where it listens."""
        return f"http://127.0.0.1:{self.port}"

    def arguments(self) -> list[str]:
        """Small, and on one address."""
        return [
            f"-httpListenAddr=127.0.0.1:{self.port}",
            f"-storageDataPath={self.directory / 'data'}",
            "-retentionPeriod=100y",
            "-memory.allowedBytes=64MiB",
            "-loggerLevel=WARN",
        ]

    def is_up(self) -> bool:
        """Whether it answers HTTP."""
        try:
            with urllib.request.urlopen(f"{self.url}/health", timeout=1):
                return True
        except (urllib.error.URLError, OSError):
            return False

    def export(self, selector: str = '{__name__!=""}') -> list[dict[str, object]]:
        """All stored series that match, as ``/api/v1/export`` gives them: metric, values, timestamps (ms)."""
        import json
        from urllib.parse import quote

        # What was taken last stands in memory for up to a second: flushed, so that it can be asked for.
        with urllib.request.urlopen(f"{self.url}/internal/force_flush", timeout=10):
            pass
        query = f"match[]={quote(selector)}&start=0&end={int(time.time()) + 86400}"
        with urllib.request.urlopen(f"{self.url}/api/v1/export?{query}", timeout=10) as answer:
            return [json.loads(line) for line in answer.read().splitlines()]
