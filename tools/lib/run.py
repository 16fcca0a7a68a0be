"""The second half of ./tools/run: the gateway, a broker where there is one to start, simulated devices.

Usage: ``run.py DEVICES``, with the virtual environment's Python.  Runs until a signal or the gateway's end; stops what
it started in the opposite order.  Standard library only.

Everything is tied to the process that was started here: the gateway counts as running when that process listens and
answers, whatever else answers on a port.  Children have process groups of their own, so that Ctrl-C reaches this one
alone and the order of stopping is ours.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import tomllib
from pathlib import Path

import net

ROOT = Path(__file__).resolve().parents[2]
GATEWAY = [sys.executable, "-P", "-m", "gateway"]
PREFIX = "demo-"  # of the devices' names: not that of `gateway simulate`, whose devices would take their places
PORT = 8080
BROKER_PORT = 1883
START_S = 120.0  # as TimeoutStartSec= of systemd/gateway.service: a long journal is read first
PATIENCE_S = 10.0
POLL_S = 0.1
LOG_LINES = 12
LOCKED = 75  # exit statuses of `gateway run`
MISCONFIGURED = 78


def say(text: str = "") -> None:
    print(text, file=sys.stderr, flush=True)


class Failure(Exception):
    """One sentence, and the exit status; ``keep``: the log holds more."""

    def __init__(self, message: str, status: int = 1, *, lines: str = "", keep: bool = False) -> None:
        super().__init__(message)
        self.status = status
        self.lines = lines
        self.keep = keep


class Interrupted(Exception):
    """A signal asked for the end."""


class Settings:
    """The gateway's settings in force, as ``gateway config show`` has them.  Raises :class:`Failure`."""

    def __init__(self) -> None:
        done = subprocess.run([*GATEWAY, "config", "show", "--json"], capture_output=True, text=True, check=False)
        if done.returncode == MISCONFIGURED:
            message = "the gateway's settings cannot be used; the lines above name each."
            raise Failure(message, MISCONFIGURED, lines=done.stderr)
        if done.returncode:
            message = "the gateway's settings cannot be read; the lines above say why."
            raise Failure(message, done.returncode if done.returncode > 0 else 1, lines=done.stderr)
        self._values: dict[str, object] = json.loads(done.stdout)
        self._given = self._names()

    def __getitem__(self, name: str) -> str:
        """The value of ``GATEWAY_<name>`` as text; empty where there is none."""
        value = self._values.get(f"GATEWAY_{name}")
        return "" if value is None else str(value)

    def is_given(self, name: str) -> bool:
        """Whether it was set by anybody, be it to its default or to nothing."""
        return name.casefold() in self._given

    @staticmethod
    def _names() -> set[str]:
        names = {name.removeprefix("GATEWAY_") for name in os.environ if name.startswith("GATEWAY_")}
        try:
            names.update(re.findall(r"(?mi)^\s*(?:export\s+)?GATEWAY_(\w+)\s*=", Path(".env").read_text()))
        except OSError:
            pass
        try:
            for section, entries in tomllib.loads(Path(os.environ["GATEWAY_CONFIG"]).read_text()).items():
                names.add(section)
                names.update(f"{section}__{entry}" for entry in entries if isinstance(entries, dict))
        except (KeyError, OSError):
            pass
        return {name.casefold() for name in names}


class Child:
    """A process that was started here."""

    def __init__(self, command: list[str], **options: object) -> None:
        self._process = subprocess.Popen(command, stdin=subprocess.DEVNULL, process_group=0, **options)  # type: ignore[call-overload]
        self.pid: int = self._process.pid

    @property
    def status(self) -> int | None:
        """The exit status, negative for a signal's number; ``None`` while it runs."""
        status: int | None = self._process.poll()
        return status

    def stop(self, how: signal.Signals, seconds: float) -> None:
        """Ask it to end, wait, end it."""
        if self.status is not None:
            return
        self._process.send_signal(how)
        try:
            self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            say(f"It did not end within {seconds:g} s and was killed.")
            self.kill()

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()


class Run:
    """All of it."""

    def __init__(self, devices: int, settings: Settings) -> None:
        self.devices = devices
        self.settings = settings
        self.interrupted = False
        # The programs' own output; not in the state directory, which is the daemon's alone.
        self.scratch = Path(tempfile.mkdtemp(prefix="gateway-run-"))
        self.log = self.scratch / "gateway.log"
        self.notes: list[str] = []
        self.gateway: Child | None = None
        self.mosquitto: Child | None = None
        self.simulator: Child | None = None
        self.broker = ""
        self.address = ""

    def main(self) -> None:
        """Start, tell, wait.  Raises :class:`Failure` and :class:`Interrupted`."""
        settings = self.settings
        if settings["INFLUX__URL"]:
            self._install("influx")
        self.state = self._state_directory()
        if net.openers(self.state / "lock"):
            raise self._locked()
        self._find_broker()
        self._start_gateway()
        self._start_devices()
        self._tell()
        self._watch()

    def _pause(self) -> None:
        time.sleep(POLL_S)
        if self.interrupted:
            raise Interrupted

    def _install(self, extras: str) -> None:
        script = '. "$1" && install_package "$2"'
        setup = str(ROOT / "tools" / "lib" / "setup.sh")
        if (ROOT / ".venv").resolve() != Path(sys.prefix).resolve():
            return  # somebody else's environment
        done = subprocess.run(["bash", "-euo", "pipefail", "-c", script, "tools/run", setup, extras], check=False)
        if self.interrupted:
            raise Interrupted
        if done.returncode:
            raise Failure(f"the extra {extras!r}, which these settings need, could not be installed.")

    # -- before the gateway

    def _state_directory(self) -> Path:
        """Made; where nobody chose one and the home directory cannot have it, in the checkout."""
        path = Path(self.settings["STATE_DIR"])
        try:
            path.mkdir(parents=True, exist_ok=True)
            if os.access(path, os.W_OK):
                return path
            problem = "cannot be written"
        except OSError as error:
            problem = f"cannot be made: {error.strerror}"
        if self.settings.is_given("STATE_DIR"):
            raise Failure(f"the state directory {path} {problem}; name another with GATEWAY_STATE_DIR.")
        path = ROOT / ".state"
        path.mkdir(exist_ok=True)
        os.environ["GATEWAY_STATE_DIR"] = str(path)
        return path

    def _locked(self) -> Failure:
        """Another gateway has the state directory: who, as far as can be seen."""
        deadline = time.monotonic() + PATIENCE_S
        while time.monotonic() < deadline:
            pids = net.openers(self.state / "lock")
            for pid in pids:
                for host, port in net.listeners(pid):
                    return Failure(
                        f"a gateway runs on {self.state} already: http://{net.address(host, port)}/ (process {pid}); "
                        "open that, or name another directory with GATEWAY_STATE_DIR.",
                        LOCKED,
                    )
            if not pids:
                break
            self._pause()
        message = f"another gateway uses {self.state}; stop it, or name another directory with GATEWAY_STATE_DIR."
        return Failure(message, LOCKED)

    def _find_broker(self) -> None:
        """A setting that is there but empty says: no broker."""
        if self.settings["MQTT__URL"] or self.settings.is_given("MQTT__URL"):
            self.broker = self.settings["MQTT__URL"]
            return
        if net.is_broker(BROKER_PORT):
            self.broker = f"mqtt://127.0.0.1:{BROKER_PORT}"
        elif shutil.which("mosquitto"):
            self.broker = self._start_mosquitto()
        else:
            self.notes.append(
                "No MQTT broker on this machine, so nothing is relayed; to add one: sudo apt install mosquitto, then "
                "run this again."
            )
        if self.broker:
            os.environ["GATEWAY_MQTT__URL"] = self.broker

    def _start_mosquitto(self) -> str:
        """The URL of a broker of our own; empty where it does not start."""
        log = self.scratch / "mosquitto.log"
        config = self.scratch / "mosquitto.conf"
        port = BROKER_PORT
        for _ in range(3):  # another's may take the port between the look and the start
            port = net.free_port(port + 1)
            user = "user root\n" if os.getuid() == 0 else ""
            config.write_text(
                f"listener {port} 127.0.0.1\nallow_anonymous true\npersistence false\n"
                f"log_dest stderr\nlog_type error\nlog_type warning\n{user}"
            )
            with log.open("wb") as output:
                child = self.mosquitto = Child(["mosquitto", "-c", str(config)], stdout=output, stderr=output)
            deadline = time.monotonic() + PATIENCE_S
            while child.status is None and time.monotonic() < deadline:
                if ("127.0.0.1", port) in net.listeners(child.pid) and net.is_broker(port):
                    return f"mqtt://127.0.0.1:{port}"
                self._pause()
            child.stop(signal.SIGTERM, 1)
        self.mosquitto = None
        words = log.read_text(errors="replace").strip().splitlines() or ["it says nothing"]
        self.notes.append(f"mosquitto did not start, so nothing is relayed: {words[-1]}")
        return ""

    # -- the gateway

    def _start_gateway(self) -> None:
        host = self.settings["LISTEN__HOST"]
        if self.settings.is_given("LISTEN__PORT"):
            self._run_gateway(host, self.settings["LISTEN__PORT"])
            return
        port = PORT - 1
        while True:
            try:
                port = net.free_port(port + 1, host)
            except OSError as error:
                raise Failure(f"no port to listen on: {error}; name one with GATEWAY_LISTEN__PORT.") from None
            os.environ["GATEWAY_LISTEN__PORT"] = str(port)
            try:
                self._run_gateway(host, str(port))
            except PortTaken:
                continue  # another took it between the look and the start
            if port != PORT:
                self.notes.append(f"Port {PORT} is taken; this one uses {port}.")
            return

    def _run_gateway(self, host: str, port: str) -> None:
        """Start it and wait until it is ready.  Raises :class:`PortTaken` where that is why it ended."""
        with self.log.open("wb") as output:
            gateway = self.gateway = Child([*GATEWAY, "run"], stdout=output, stderr=output)
        began = time.monotonic()
        told = False
        while True:
            where = self._listens(gateway.pid, host)
            if where and net.is_ready(f"http://{where}/readyz") and gateway.status is None:
                self.address = where
                return
            if gateway.status is not None:
                if gateway.status == 1 and int(port) and not net.is_free(int(port), host):
                    raise PortTaken(
                        f"port {port} is taken; stop what uses it, or name another with GATEWAY_LISTEN__PORT."
                    )
                raise self._ended(gateway.status)
            waited = time.monotonic() - began
            if waited > START_S:
                message = f"the gateway was not ready within {START_S:g} s; the lines above are the last of its log"
                raise Failure(message, lines=self._last_lines(), keep=True)
            if waited > PATIENCE_S and not told:
                told = True
                say("The gateway is still starting: it reads what is stored.")
            self._pause()

    def _listens(self, pid: int, host: str) -> str:
        """Where this process, and no other, listens; empty while it does not."""
        said = re.search(r"listening on http://\S*:(\d+)", self.log.read_text(errors="replace"))
        if said:
            return net.address(host, int(said[1]))
        # With GATEWAY_LOG__LEVEL=warning it does not say so.
        for _, port in net.listeners(pid):
            return net.address(host, port)
        return ""

    def _last_lines(self) -> str:
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-LOG_LINES:])

    def _ended(self, status: int) -> Failure:
        """Why the gateway ended, from its exit status and the end of its log."""
        lines = self._last_lines()
        if status == LOCKED:
            return self._locked()
        if status == MISCONFIGURED:
            message = "the gateway's settings cannot be used; the lines above name each."
            return Failure(message, status, lines=lines)
        how = f"was killed ({signal.Signals(-status).name})" if status < 0 else f"ended with exit status {status}"
        message = f"the gateway {how}; the lines above are the last of its log"
        return Failure(message, 128 - status if status < 0 else status or 1, lines=lines, keep=True)

    # -- once it runs

    def _start_devices(self) -> None:
        if not self.devices:
            return
        if self.settings["AUTH__MODE"] not in ("", "none"):
            self.notes.append("Devices need tokens (GATEWAY_AUTH__MODE), so none are simulated.")
            return
        command = [
            *GATEWAY,
            "simulate",
            "--devices",
            str(self.devices),
            "--prefix",
            PREFIX,
            "--url",
            f"ws://{self.address}",
        ]
        # The progress line is for a person, the table at the end for nobody.
        if sys.stderr.isatty():
            self.simulator = Child(command, stdout=subprocess.DEVNULL)
        else:
            with (self.scratch / "simulate.log").open("wb") as output:
                self.simulator = Child([*command, "--quiet"], stdout=subprocess.DEVNULL, stderr=output)

    def _tell(self) -> None:
        venv = Path(sys.prefix)
        here = venv.relative_to(Path.cwd()) if venv.is_relative_to(Path.cwd()) else venv
        url = "" if self.address == f"127.0.0.1:{PORT}" else f" --url ws://{self.address}"
        rows = [("live page", f"http://{self.address}/")]
        if self.broker:
            rows.append(("MQTT", f"{self.broker} (all of it: topic {self.settings['MQTT__PREFIX']}/#)"))
        rows += [("data", str(self.state)), ("log", str(self.log))]
        notes = "".join(f"\n{note}" for note in self.notes)
        print(
            f"{notes}\n\nThe gateway is running.\n\n"
            + "".join(f"  {name:<11}{value}\n" for name, value in rows)
            + f"\nIn another shell: . {here}/bin/activate, then for example gateway simulate --devices 200{url}\n"
            + f"(or {here}/bin/gateway, without the first).\n\nCtrl-C stops everything.",
            flush=True,
        )

    def _watch(self) -> None:
        assert self.gateway is not None
        clear = "\r\x1b[K" if sys.stderr.isatty() else ""  # the progress line, which the devices write again
        while self.gateway.status is None:
            if self.simulator is not None and self.simulator.status is not None:
                say(f"{clear}The simulated devices ended; the gateway goes on.{self._last_words()}")
                self.simulator = None
            if self.mosquitto is not None and self.mosquitto.status is not None:
                say(f"{clear}mosquitto ended; the gateway goes on and keeps what it could not relay.")
                self.mosquitto = None
            self._pause()
        if self.simulator is not None:
            self.simulator.kill()  # no last acks to wait for
            if clear:
                say(clear)
        raise self._ended(self.gateway.status)

    def _last_words(self) -> str:
        try:
            lines = (self.scratch / "simulate.log").read_text(errors="replace").splitlines()
        except OSError:  # on a terminal they are there already
            return ""
        return f" They said: {lines[-1]}" if lines else ""

    def stop(self) -> None:
        """Everything that was started, the devices first."""
        if self.simulator is not None:
            self.simulator.stop(signal.SIGINT, 5)
        if self.gateway is not None:
            self.gateway.stop(signal.SIGTERM, 12)
        if self.mosquitto is not None:
            self.mosquitto.stop(signal.SIGTERM, 5)


class PortTaken(Failure):
    """Another listens there."""


def main(devices: int) -> int:
    """Run until the end; the exit status."""
    run: Run | None = None
    signalled = False

    def interrupt(*_: object) -> None:
        nonlocal signalled
        signalled = True
        if run is not None:
            run.interrupted = True

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is not signal.SIG_IGN:  # nohup
            signal.signal(number, interrupt)
    try:
        run = Run(devices, Settings())
    except Failure as failure:
        return _tell_failure(failure)
    run.interrupted = signalled
    keep = False
    try:
        run.main()
    except Interrupted:
        say("\nStopping.")
    except Failure as failure:
        run.stop()
        keep = failure.keep
        return _tell_failure(failure, f"; all of it is in {run.log}." if keep else "")
    finally:
        run.stop()
        if not keep:
            shutil.rmtree(run.scratch, ignore_errors=True)
    return 0


def _tell_failure(failure: Failure, more: str = "") -> int:
    if failure.lines:
        say(failure.lines.rstrip())
    say(f"tools/run: {failure}{more}")
    return failure.status


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1])))
