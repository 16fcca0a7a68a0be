"""``tools/bench start``: from exec to ready, and what the gateway takes when nothing is asked of it.

Ready is what systemd is told (``READY=1``: recovered, and listening).  Everything is warm, bytecode included, as behind
an install: a first start of each kind is not counted.  Each start gets a fresh copy of the same state directory.
"""

from __future__ import annotations

import contextlib
import shutil
import socket
import statistics
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from tests.servers import Missing, Mosquitto

from .about import load, machine, sentence
from .job import _loop
from .proc import cpu_clock_seconds, resident_bytes
from .rig import Rig
from .servers import START_S, Daemon, Failed

__all__ = ["QUICK", "Start", "as_json", "run", "table", "targets"]

SEND_S = 0.5
OTHER_CORE = 1
READY_MS, RESIDENT_MB = 500.0, 60.0  # what is asked


@dataclass(frozen=True)
class Start:
    """What to run."""

    rounds: int = 7  # of each kind
    idle_s: float = 3.0  # before memory is looked at
    devices: int = 200  # in the journal
    readings: int = 50  # of each


QUICK = Start(rounds=1, idle_s=0.5, devices=20, readings=10)


def run(what: Start) -> dict[str, Any]:
    """Measure; raises :class:`Failed`."""
    about = machine()
    with tempfile.TemporaryDirectory(prefix="gateway-bench-") as name, contextlib.ExitStack() as stack:
        directory = Path(name)
        settings = {
            "GATEWAY_LOG__LEVEL": "warning",
            # The environment of who measures may forbid what an install has.
            "PYTHONDONTWRITEBYTECODE": "",
            "PYTHONPYCACHEPREFIX": str(directory / "bytecode"),
        }
        empty, stopped, killed = (directory / one for one in ("empty", "stopped", "killed"))
        empty.mkdir()
        _fill(what, directory, settings, stopped, killed)
        known = f"{what.devices:,} devices, {what.devices * what.readings:,} readings in the journal"
        kinds = [("empty", empty, {}), (known, stopped, {}), (f"{known}, killed", killed, {})]
        with contextlib.suppress(Missing):
            broker = stack.enter_context(Mosquitto(directory / "mosquitto"))
            kinds.append(("empty, with an MQTT broker", empty, {"GATEWAY_MQTT__URL": broker.url}))
        rows = [_kind(what, directory, kind, state, settings | more) for kind, state, more in kinds]
    return {"machine": about, "load_after": load(), "rounds": what.rounds, "starts": rows}


def _fill(what: Start, directory: Path, settings: dict[str, str], stopped: Path, killed: Path) -> None:
    """Make the state directories of a gateway that has had devices, and was stopped, or killed."""
    daemon = Daemon(directory, settings).start()
    try:
        _loop(_send(what, daemon))
    finally:
        daemon.kill()
    shutil.copytree(daemon.state, killed, ignore=_no_sockets)
    daemon.start().stop()
    daemon.state.rename(stopped)


async def _send(what: Start, daemon: Daemon) -> None:
    rig = Rig(daemon, what.devices)
    await rig.connect()
    await rig.send(what.devices * what.readings / SEND_S, SEND_S)
    lost = await rig.drain()
    rig.close()
    if lost:
        raise Failed(f"{lost} readings were not taken: {rig.meter.errors}")


def _no_sockets(directory: str, names: list[str]) -> list[str]:
    return [name for name in names if (Path(directory) / name).is_socket()]


def _kind(what: Start, directory: Path, kind: str, state: Path, settings: dict[str, str]) -> dict[str, Any]:
    ready, cpu, resident = [], [], 0
    for number in range(what.rounds + 1):
        with _manager(directory) as manager:
            daemon = Daemon(directory, {**settings, "NOTIFY_SOCKET": str(manager.getsockname())}, core=0)
            shutil.rmtree(daemon.state, ignore_errors=True)
            shutil.copytree(state, daemon.state)
            begin = time.monotonic()
            daemon.spawn()
            try:
                _until_ready(daemon, manager)
                took, used = time.monotonic() - begin, cpu_clock_seconds(daemon.pid)
                if number:
                    ready.append(took * 1000)
                    cpu.append(used * 1000)
                if number == what.rounds:
                    time.sleep(what.idle_s)
                    resident = resident_bytes(daemon.pid)
            finally:
                daemon.kill()
    return {
        "state": kind,
        "ready_ms": round(statistics.median(ready), 1),
        "ready_most_ms": round(max(ready), 1),
        "cpu_ms": round(statistics.median(cpu), 1),
        "resident": resident,
    }


@contextlib.contextmanager
def _manager(directory: Path) -> Iterator[socket.socket]:
    """Where systemd would listen, sd_notify(3)."""
    path = directory / "notify.sock"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(path))
        manager.settimeout(START_S)
        try:
            yield manager
        finally:
            path.unlink()


def _until_ready(daemon: Daemon, manager: socket.socket) -> None:
    try:
        while b"READY=1" not in manager.recv(4096).split(b"\n"):
            pass
    except TimeoutError:
        raise Failed(f"the gateway did not start; its log:\n{daemon.log.read_text(errors='replace')[-1000:]}") from None


def targets(result: dict[str, Any]) -> list[tuple[str, str, str, bool]]:
    """What is asked: (of what, measured, target, met)."""
    rows = []
    for one in result["starts"]:
        ready, size = one["ready_ms"], one["resident"] / 1e6
        rows.append((f"ready, {one['state']}", f"{ready:.0f} ms", f"<= {READY_MS:g} ms", ready <= READY_MS))
        rows.append((f"resident, {one['state']}", f"{size:.1f} MB", f"<= {RESIDENT_MB:g} MB", size <= RESIDENT_MB))
    return rows


def table(result: dict[str, Any]) -> str:
    """Everything as Markdown."""
    lines = [
        sentence(result["machine"], result["load_after"]),
        "",
        f"The median of {result['rounds']} starts; at most {READY_MS:g} ms and {RESIDENT_MB:g} MB are asked.",
        "",
        "| state directory | ready ms | worst | CPU ms | resident MB, idle | |",
        "| --- | ---: | ---: | ---: | ---: | --- |",
    ]
    for at, one in enumerate(result["starts"]):
        met = all(met for *_, met in targets({"starts": result["starts"][at : at + 1]}))
        lines.append(
            f"| {one['state']} | {one['ready_ms']:.0f} | {one['ready_most_ms']:.0f} | {one['cpu_ms']:.0f}"
            f" | {one['resident'] / 1e6:.1f} | {'' if met else 'missed'} |"
        )
    return "\n".join(lines)


def as_json(result: dict[str, Any]) -> str:
    return msgspec.json.format(msgspec.json.encode(result), indent=2).decode()
