"""What every case stands on: one daemon, its devices, a broker with a subscriber, and the look at what is left."""

from __future__ import annotations

import asyncio
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

from tests.servers import OPEN, Missing, Mosquitto

from .chaos_check import Far, History, ledger_faults, missing, overclaimed, shortened, sinks, stored_claims
from .chaos_device import HOST, Fleet, until
from .frames import upgrade_request
from .mqtt import Subscriber
from .servers import Daemon, Failed

__all__ = ["Cannot", "Rig", "execute", "launcher", "mounted", "need", "preload"]

SETTLE_S = 20.0
MANY = 20
READABLE_S = 1.0  # after its ack a row can be read
# As it is by default but for the limit: no device is to be throttled.
SETTINGS = {
    "GATEWAY_LIMITS__DEVICE_RATE": "1000000",
    "GATEWAY_LIMITS__DEVICE_BURST": "1000000",
    "GATEWAY_LOG__LEVEL": "warning",
}


class Cannot(Exception):
    """The case cannot be run on this machine; the text says why."""


def launcher(patch: str) -> list[str]:
    """What to give Python instead of ``-m gateway``, so that ``patch`` runs before the command line."""
    return ["-c", f"import sys\n{patch}\nfrom gateway.cli import main\nsys.exit(main())"]


def need(program: str, package: str) -> str:
    """The program's path; raises :class:`Cannot`."""
    found = shutil.which(program) or shutil.which(program, path="/usr/sbin:/sbin")
    if found is None:
        raise Cannot(f"{program} is not on this machine (Debian package {package})")
    return found


async def execute(*command: str | Path) -> None:
    """Run a command to its end; raises :class:`Cannot` where it fails."""
    done = await asyncio.to_thread(subprocess.run, command, env=dict(os.environ), capture_output=True, check=False)
    if done.returncode:
        words = done.stderr.decode(errors="replace").strip().splitlines()
        raise Cannot(f"{command[0]} failed: {words[-1] if words else done.returncode}")


@asynccontextmanager
async def mounted(target: Path, *options: str | Path) -> AsyncIterator[Path]:
    """Mount something on ``target``; raises :class:`Cannot` where that may not be done."""
    if os.geteuid() != 0:
        raise Cannot("mounting needs root")
    target.mkdir(exist_ok=True)
    await execute("mount", *options, target)
    try:
        yield target
    finally:
        await execute("umount", target)


async def preload(rig: Rig, source: str) -> Path:
    """A library for ``LD_PRELOAD``, compiled from a file beside this one; raises :class:`Cannot`."""
    library = rig.directory / source.replace(".c", ".so")
    path = Path(__file__).with_name(source)
    await execute(need("cc", "gcc"), "-shared", "-fPIC", "-O1", "-o", library, path, "-ldl")
    return library


class Rig:
    """``rounds`` and ``seconds`` (of load, in each) are for the case to use; ``patch`` is Python for the daemon.

    ``faults`` are what is wrong, ``notes`` what was measured.  Leaving the block ends all that was started.
    """

    def __init__(
        self,
        directory: Path,
        *,
        rounds: int = 1,
        seconds: float = 0.5,
        patch: str = "",
        seed: int | None = None,
        patience: float = 10.0,
    ) -> None:
        self.directory = directory
        self.rounds = rounds
        self.seconds = seconds
        self.patch = patch
        self.rng = random.Random(seed)
        self.patience = patience
        self.settings = dict(SETTINGS)
        self.state = directory / "state"
        self.fleet = Fleet(4)
        self.fars: list[Far] = []
        self.faults: list[str] = []
        self.is_found: Callable[[list[str]], bool] = lambda faults: len(faults) > MANY
        """Whether these faults are enough, so that further rounds would tell nothing."""
        self.notes: list[str] = []
        self.lost = 0
        self.stored = 0
        self.excused: dict[str, set[tuple[str, int]]] = {}
        """By a far side's name, or ``history``: what was acked and need not be there."""
        self.mosquitto: Mosquitto | None = None
        self.stack = AsyncExitStack()
        self.past_sent = self.past_acked = self.past_stored = 0
        self._generation = 0
        self._daemon: Daemon | None = None
        self._port: int | None = None

    async def __aenter__(self) -> Rig:
        await self.stack.__aenter__()
        self.stack.push_async_callback(self.kill)
        self.stack.push_async_callback(self.fleet_off)
        return self

    async def __aexit__(self, *error: Any) -> None:
        await self.stack.__aexit__(*error)

    async def fleet_off(self) -> None:
        await self.fleet.disconnect()

    def renew(self) -> None:
        """Devices that have sent nothing yet, under other names; what the far sides got before stays checked."""
        self._generation += 1
        self.past_sent += self.fleet.sent
        self.past_acked += self.fleet.acked
        self.past_stored += self.stored
        self.stored = 0
        self.fleet = Fleet(len(self.fleet.devices), f"pump-{self._generation}")

    def fault(self, text: str) -> None:
        """Something is wrong."""
        self.faults.append(text)

    # -- what is around the daemon --

    async def broker(self, config: str = OPEN, *, layout: str = "flat") -> Mosquitto:
        """Start a broker and a subscriber, and have the daemon relay to it."""
        try:
            self.mosquitto = Mosquitto(self.directory / "mosquitto", config=config)
        except Missing as error:
            raise Cannot(str(error)) from None
        await asyncio.to_thread(self.mosquitto.start)
        self.stack.callback(self.mosquitto.stop)
        self.settings["GATEWAY_MQTT__URL"] = self.mosquitto.url
        self.settings["GATEWAY_MQTT__LAYOUT"] = layout
        await self.subscribe(self.mosquitto.port)
        return self.mosquitto

    async def subscribe(self, port: int) -> Far:
        """Subscribe to the telemetry of all devices."""
        far = Far("mqtt")
        subscriber = Subscriber("gateway/+/telemetry", far.on_message)
        await asyncio.get_running_loop().create_connection(lambda: subscriber, HOST, port)
        await asyncio.wait_for(subscriber.subscribed, 5)
        self.stack.callback(subscriber.close)
        self.fars.append(far)
        return far

    # -- the daemon --

    @property
    def daemon(self) -> Daemon:
        assert self._daemon is not None
        return self._daemon

    @property
    def running(self) -> bool:
        """Whether the daemon's process has not ended."""
        return self._daemon is not None and self._daemon.process is not None and self._daemon.process.poll() is None

    def make(self, *, prefix: list[str] | None = None, patch: str = "", **settings: str) -> Daemon:
        """The daemon of the next start: ``patch`` comes behind the rig's own; it stays on its port."""
        given = {**self.settings, "GATEWAY_STATE_DIR": str(self.state), **settings}
        code = f"{self.patch}\n{patch}".strip()
        daemon = Daemon(
            self.directory, given, port=self._port, prefix=prefix, launcher=launcher(code) if code else None
        )
        daemon.state = self.state
        self._daemon, self._port = daemon, daemon.port
        return daemon

    async def start(self, *, prefix: list[str] | None = None, patch: str = "", **settings: str) -> float:
        """Start it, and wait until it is ready; the seconds that took.  Raises :class:`Failed`."""
        daemon = self.make(prefix=prefix, patch=patch, **settings)
        begin = time.monotonic()
        await asyncio.to_thread(daemon.start)
        return time.monotonic() - begin

    async def kill(self) -> None:
        """SIGKILL, whatever state it is in."""
        if self._daemon is not None:
            await asyncio.to_thread(self._daemon.kill)

    async def terminate(self, within: float) -> float | None:
        """SIGTERM; seconds until it ended, or None (and it is killed) when it had not ``within`` so many."""
        process = self.daemon.process
        assert process is not None
        begin = time.monotonic()
        process.send_signal(signal.SIGTERM)
        try:
            await asyncio.to_thread(process.wait, within)
        except subprocess.TimeoutExpired:
            await self.kill()
            return None
        return time.monotonic() - begin

    async def command(self, *words: str) -> str:
        """What a command of the gateway's prints; raises :class:`Failed`."""
        command = [sys.executable, "-m", "gateway", *words, "--state-dir", str(self.state)]
        done = await asyncio.to_thread(subprocess.run, command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise Failed(f"gateway {' '.join(words)}: {done.stderr.strip()}")
        return done.stdout

    async def ask(self, function: Any, *arguments: Any) -> Any:
        """Call something that asks the daemon over HTTP, in a thread."""
        try:
            return await asyncio.to_thread(function, *arguments)
        except OSError as error:
            raise Failed(f"the gateway does not answer: {error}") from None

    async def deaf(self, target: str) -> asyncio.StreamWriter:
        """A peer at a WebSocket address that answers nothing, and reads nothing but the first bytes."""
        address = f"{HOST}:{self.daemon.port}"
        reader, writer = await asyncio.open_connection(HOST, self.daemon.port, limit=1024)
        writer.write(upgrade_request(address, target))
        if b" 101 " not in await reader.readuntil(b"\r\n"):
            raise Failed(f"the gateway refuses a connection to {target}")
        return writer

    # -- load --

    @asynccontextmanager
    async def load(self, rate: float = 800.0, *, connected: bool = True) -> AsyncIterator[Fleet]:
        """Have the devices send while the block runs, through restarts of the daemon.

        ``connected``: the block begins when all are, and the first ack has come.
        """
        assert self._port is not None
        self.fleet.connect(self._port)
        try:
            if connected and not await self.fleet.all_online():
                raise Failed("the devices could not connect")
            before = self.fleet.acked
            self.fleet.send(rate)
            if connected and not await until(lambda: self.fleet.acked > before, self.patience):
                raise Failed("nothing is acked")
            yield self.fleet
        finally:
            await self.fleet.disconnect()

    # -- what is left --

    async def settle(self, timeout: float = SETTLE_S, *, delivery: bool = True) -> None:
        """With the daemon up: wait until it has handed over what it holds, then note all that is wrong.

        ``delivery``: look at the far sides as well.
        """
        begin = time.monotonic()
        if not self.fleet.online:
            await self._greet()
        history = History(self.daemon)
        # Asked before the history, which grows until it holds what the ledgers claim.
        found = [await self.ask(ledger_faults, self.daemon)]
        claims = await self.ask(stored_claims, self.daemon)
        if delivery:
            for far in self.fars:
                await self._drain(far, begin + timeout)
        while True:
            await self.ask(history.read, self.fleet.devices)
            gone = missing(self.fleet.devices, history.got, "not in history", self.excused.get("history", set()))
            gone += overclaimed(claims, history.got)
            if not gone or time.monotonic() > begin + READABLE_S:
                break
            await asyncio.sleep(0.05)
        found += [gone, history.faults]
        for far in self.fars:
            if delivery:
                found.append(
                    missing(self.fleet.devices, far.got, f"missing on {far.name}", self.excused.get(far.name, set()))
                )
            found.append(far.faults)
            far.faults = []
        found.append([fault for device in self.fleet.devices for fault in device.faults])
        self.lost = len({fault.partition(":")[0] for faults in found for fault in faults if ": acked and " in fault})
        self.stored = history.count
        for faults in found:
            self.faults += shortened(faults)

    async def _greet(self) -> None:
        """Connect every device once: what it is told it sent has to fit."""
        self.fleet.connect(self.daemon.port)
        if not await self.fleet.all_online():
            self.fault("not every device is welcome")
        await self.fleet.disconnect()

    async def _drain(self, far: Far, deadline: float) -> None:
        devices = self.fleet.devices
        excused = self.excused.get(far.name, set())

        def arrived() -> bool:
            return not missing(devices, far.got, "", excused)

        while not arrived() and time.monotonic() < deadline:
            if (await self.sink(far.name))["pending"] == 0:
                # What the far side was given last is on its way.
                await until(arrived, 1.0)
                return
            await asyncio.sleep(0.05)

    async def sink(self, name: str) -> dict[str, Any]:
        """What ``/healthz`` says of a sink."""
        for sink in await self.ask(sinks, self.daemon):
            if sink["name"] == name:
                found: dict[str, Any] = sink
                return found
        raise Failed(f"/healthz names no sink {name}")

    async def wait_sink(self, name: str, condition: Any) -> dict[str, Any] | None:
        """Wait until what ``/healthz`` says of the sink fits; None when that took longer than ``patience``."""
        deadline = time.monotonic() + self.patience
        while time.monotonic() < deadline:
            found = await self.sink(name)
            if condition(found):
                return found
            await asyncio.sleep(0.05)
        return None
