"""What ``tools/bench job`` sets beside the gateway: what people would use instead, made of public packages.

A peer takes each reading from a WebSocket, decodes it, publishes it and sends it to each dashboard, and does no more:
no journal, history, acks, checks or limits.  Those for Node.js come from npm, into ``.bench/node`` of the checkout,
once: ``tools/peers/package.json``.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

import msgspec

from tests.servers import Missing, free_port

from .frames import upgrade_request
from .load import Client, Device
from .servers import HOST, ROOT, Failed, end, on_core, wait_for

__all__ = ["DASHBOARDS", "PEERS", "TOPICS", "Peer", "Screen", "Silent", "found", "node_red"]

FILES = ROOT / "tools" / "peers"
NODE = ROOT / ".bench" / "node"
PROGRAM = NODE / "node_modules" / ".bin" / "node"
INSTALL_S = 600
DASHBOARDS, TOPICS = "/dashboards", "bench/+/telemetry"  # of all of them
NODE_RED_SETTINGS = """module.exports = {
    flowFile: "flows.json",
    uiHost: "127.0.0.1",
    telemetry: {enabled: false, updateNotification: false},
};
"""
LOOKED_AT = 16  # a dashboard looks into one frame in so many: else the load would cost more than the peer


class Silent(Device):
    """A device that is answered nothing; ``opened`` is done after the handshake."""

    def upgraded(self) -> None:
        self.opened.set_result(None)


class Screen(Client):
    """A dashboard that gets each reading as a frame of its own; ``opened`` is done after the handshake."""

    _seen = 0

    def upgraded(self) -> None:
        self.opened.set_result(None)

    def message(self, payload: bytes) -> None:
        self._seen += 1
        if self.meter.measuring and not self._seen % LOOKED_AT:
            sent = payload.partition(b'"sent":')[2].partition(b"}")[0]
            self.meter.updates += 1
            self.meter.live_latency.append(time.monotonic() - float(sent))


class Peer(ABC):
    """One of them: ``start`` runs its command with its files under ``directory``, and ends at :meth:`kill`."""

    name = ""
    is_node = False

    def __init__(self, directory: Path, broker: int, *, core: int | None = None) -> None:
        self.directory = directory
        self.port = free_port()
        self.log = directory / f"{self.name}.log"
        self._broker = broker
        self._core = core
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        assert self.process is not None
        return self.process.pid

    def device(self, name: str) -> str:
        """Where that device connects."""
        return f"/devices/{name}"

    @abstractmethod
    def command(self) -> list[str]:
        """What to run; raises :class:`Missing`."""

    @classmethod
    @abstractmethod
    def versions(cls) -> dict[str, str]:
        """Of what it is made of."""

    def start(self) -> Peer:
        """Start it and wait until it takes dashboards; raises :class:`Failed`."""
        environment = {
            **os.environ,
            "BROKER_PORT": str(self._broker),
            "HOME": str(self.directory),
            "NODE_PATH": str(NODE / "node_modules"),
        }
        command = [*on_core(self._core), *self.command()]
        with self.log.open("ab") as output:
            self.process = subprocess.Popen(
                command, cwd=self.directory, env=environment, stdout=output, stderr=output, stdin=subprocess.DEVNULL
            )
        try:
            wait_for(self.name, self._is_ready, self.process, self.log)
        except Failed:
            self.kill()
            raise
        return self

    def _is_ready(self) -> bool:
        try:
            with socket.create_connection((HOST, self.port), 5) as sock:
                sock.sendall(upgrade_request(f"{HOST}:{self.port}", DASHBOARDS))
                return sock.recv(1024).startswith(b"HTTP/1.1 101")
        except OSError:
            return False

    def kill(self) -> None:
        if self.process is not None:
            end(self.process, signal.SIGKILL)


class NodeRed(Peer):
    """Node-RED and ``tools/peers/flow.json``, all devices on one address and one topic; QoS 1."""

    name = "node-red"
    is_node = True

    def device(self, name: str) -> str:
        return "/devices"

    def command(self) -> list[str]:
        shutil.copy(FILES / "flow.json", self.directory / "flows.json")
        return node_red(self.directory, self.port)

    @classmethod
    def versions(cls) -> dict[str, str]:
        return _node_versions("node", "node-red")


class PlainNode(Peer):
    """``tools/peers/plain.js``, with ``ws`` and ``mqtt``; QoS 1."""

    name = "node"
    is_node = True

    def command(self) -> list[str]:
        return [str(PROGRAM), str(FILES / "plain.js"), str(self.port), str(self._broker)]

    @classmethod
    def versions(cls) -> dict[str, str]:
        return _node_versions("node", "ws", "mqtt")


class PlainPython(Peer):
    """``tools/peers/plain.py``, with ``websockets`` and paho; QoS 0."""

    name = "python"

    def command(self) -> list[str]:
        return [sys.executable, str(FILES / "plain.py"), str(self.port), str(self._broker)]

    @classmethod
    def versions(cls) -> dict[str, str]:
        return {name: version(name) for name in ("websockets", "paho-mqtt")}


PEERS: dict[str, type[Peer]] = {peer.name: peer for peer in (NodeRed, PlainNode, PlainPython)}


def found(names: list[str], say: Callable[[str], None]) -> list[type[Peer]]:
    """Those of ``names`` that can be run here, once what they need is installed; the others are told why not."""
    peers = [PEERS[name] for name in names]
    try:
        if any(peer.is_node for peer in peers):
            _install(say)
    except Missing as missing:
        for peer in peers:
            if peer.is_node:
                say(f"{peer.name} is left out: {missing}")
        peers = [peer for peer in peers if not peer.is_node]
    return peers


def node_red(directory: Path, port: int) -> list[str]:
    """The command for Node-RED with the flows in ``flows.json`` of ``directory``, which is its home; our own, else the
    one that is on the PATH.  Raises :class:`Missing`."""
    program = shutil.which("node-red")
    if PROGRAM.exists():
        words = [str(PROGRAM), str(NODE / "node_modules" / "node-red" / "red.js")]
    elif program:
        words = [program]
    else:
        raise Missing("node-red is not on this machine (tools/bench job --peers node-red, or npm install -g node-red).")
    settings = directory / "settings.js"
    settings.write_text(NODE_RED_SETTINGS)
    return [*words, "--userDir", str(directory), "--settings", str(settings), "--port", str(port)]


def _install(say: Callable[[str], None]) -> None:
    """What ``tools/peers/package.json`` names, from npm, unless it is there; raises :class:`Missing`."""
    wanted, done = (FILES / "package.json").read_text(), NODE / "installed.json"
    if done.exists() and done.read_text() == wanted:
        return
    npm = shutil.which("npm")
    if npm is None:
        raise Missing("npm is not on this machine (Debian package npm).")
    say(f"installing what peers for Node.js need from npm, once, in {NODE}")
    NODE.mkdir(parents=True, exist_ok=True)
    (NODE / "package.json").write_text(wanted)
    words = [npm, "install", "--no-audit", "--no-fund", "--loglevel", "error", "--prefix", str(NODE)]
    try:
        run = subprocess.run(words, cwd=NODE, capture_output=True, text=True, timeout=INSTALL_S, check=False)
    except subprocess.TimeoutExpired:
        raise Missing(f"npm did not install it within {INSTALL_S} s.") from None
    if run.returncode != 0 or not PROGRAM.exists():
        raise Missing(f"npm could not install it: {' '.join((run.stderr or run.stdout).split())[:200]}")
    done.write_text(wanted)


def _node_versions(*names: str) -> dict[str, str]:
    found = {}
    for name in names:
        about = msgspec.json.decode(
            (NODE / "node_modules" / name / "package.json").read_bytes(), type=dict[str, object]
        )
        found[name] = str(about["version"])
    return found
