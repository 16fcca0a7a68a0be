"""``tools/bench ws``: what the WebSocket layer costs, against plain ``websockets`` in the same run.

The server of the moment has core 0, the load core 1.  Other programs on the machine disturb such figures; so all that
is compared runs at the same time of day: the servers stay up together, one after the other gets a short window of load,
round after round, each round in another order, and what is reported of a ratio is the median over the rounds of the
ratio within one round, with the quartiles beside it.  While the quartiles are too far apart rounds are added, and those
count in which the servers waited least for their core, which is said as well: a server that other programs keep from
its core finds several messages at once, and seems cheaper.

CPU time is the process's own clock (user and system, in nanoseconds), which any process may read
(clock_getcpuclockid(3)); memory is VmRSS; waiting is the second field of /proc/PID/schedstat.
"""

from __future__ import annotations

import contextlib
import resource
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from .about import load, machine
from .proc import resident_bytes
from .servers import ROOT, Failed, on_core
from .wspeers import Holder, Listeners, close_all, connect, frames_to_send, send_paced, stagger
from .wsreport import NAMES, as_json, table

__all__ = ["COMPARED", "LOOPS", "PARTS", "QUICK", "Ws", "as_json", "run", "table"]

SERVER_CORE, LOAD_CORE = 0, 1
LOOPS = ("asyncio", "uvloop")
PARTS = ("receive", "idle", "broadcast")
COMPARED = tuple(NAMES)  # plain websockets, and the kinds of handlers
BATCH = 50
QUARTILES_APART = 0.05  # of the median: more than that asks for another round
MIB = 1 << 20


@dataclass(frozen=True)
class Ws:
    """What to run: seconds, messages a second, numbers of connections."""

    peers: int = 500
    rate: float = 10_000
    window: float = 0.6
    rounds: int = 4
    more_rounds: int = 2
    idle: int = 10_000
    heartbeat: float = 10.0
    plain_idle: int = 1_000
    pool: int = 1_000
    stalled: int = 50
    pool_seconds: float = 3.0
    pool_per_s: float = 10.0
    pool_bytes: int = 1_024
    pool_deadline: float = 4.0


QUICK = Ws(
    peers=100,
    rate=4_000,
    window=0.1,
    rounds=2,
    more_rounds=0,
    idle=500,
    heartbeat=1.0,
    plain_idle=0,
    pool=100,
    stalled=5,
    pool_seconds=0.8,
    pool_deadline=1.2,
)


class Child:
    """One server in a process of its own on core 0."""

    def __init__(self, kind: str, loop: str, *options: str) -> None:
        command = [*on_core(SERVER_CORE), sys.executable, "-m", "tools.toolkit.wsserver", kind, "--loop", loop]
        self.kind = kind
        self._process = subprocess.Popen(
            [*command, *options], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1
        )
        # clock_getcpuclockid(3) of another process, as glibc makes it.
        self._clock = ~self._process.pid << 3 | 2
        self.port = 0

    def wait(self) -> None:
        """Wait until it listens."""
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise Failed(f"the server {self.kind!r} did not start; its words are above")
        self.port = int(line)

    def cpu(self) -> float:
        """Seconds of CPU so far, user and system."""
        return time.clock_gettime(self._clock)

    def waited(self) -> float:
        """Seconds so far in which it was ready to run and something else had its core."""
        try:
            return int(Path(f"/proc/{self.pid}/schedstat").read_text().split()[1]) / 1e9
        except (OSError, IndexError):
            return 0.0

    @property
    def pid(self) -> int:
        return self._process.pid

    def resident(self) -> int:
        """Bytes of memory."""
        return resident_bytes(self._process.pid)

    def begin(self, **request: Any) -> None:
        """Ask for something; :meth:`result` gives the answer."""
        assert self._process.stdin is not None
        self._process.stdin.write(msgspec.json.encode(request).decode() + "\n")
        self._process.stdin.flush()

    def result(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise Failed(f"the server {self.kind!r} ended; its words are above")
        return msgspec.json.decode(line, type=dict[str, Any])

    def ask(self, **request: Any) -> dict[str, Any]:
        self.begin(**request)
        return self.result()

    def end(self) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        with contextlib.suppress(OSError):
            self._process.stdin.close()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process.stdout.close()


@contextlib.contextmanager
def children(loop: str, *kinds: str, options: tuple[str, ...] = ()) -> Iterator[list[Child]]:
    """Servers of these kinds, all of them listening; ended at the end."""
    found: list[Child] = []
    try:
        found += [Child(kind, loop, *options) for kind in kinds]
        for child in found:
            child.wait()
        yield found
    finally:
        for child in found:
            child.end()


def measure(what: Ws, loop: str, parts: Sequence[str] = PARTS) -> dict[str, Any]:
    """All parts under one event loop; raises :class:`Failed`."""
    limit = _raise_files()
    figures: dict[str, Any] = {"loop": loop}
    try:
        if "receive" in parts:
            figures["receive"] = receive(what, loop)
        if "idle" in parts:
            figures["idle"] = idle(what, loop, limit)
        if "broadcast" in parts:
            figures["broadcast"] = broadcast(what, loop)
    except OSError as error:
        raise Failed(f"{error}") from error
    return figures


def _raise_files() -> int:
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return hard


# Receiving


@dataclass(frozen=True)
class Round:
    """Seconds of CPU a message, by kind; the share of the time in which the servers waited for their core."""

    cpu: dict[str, float]
    waited: float


def receive(what: Ws, loop: str) -> dict[str, Any]:
    """CPU a message, by kind of handler; see the module's text for how."""
    frames = frames_to_send()
    rounds: list[Round] = []
    with contextlib.ExitStack() as stack:
        peers: dict[str, list[socket.socket]] = {}
        # Unwound last to first: the servers end before their peers, and thus see no thousand broken connections.
        stack.callback(lambda: close_all(one for group in peers.values() for one in group))
        servers = stack.enter_context(children(loop, *COMPARED))
        peers.update({child.kind: connect(child.port, what.peers) for child in servers})
        # The connections' batches are to be full one after the other, as they are in the long run.
        stagger(peers["batch"], frames, BATCH)
        for child in servers:
            _window(what, child, peers[child.kind], frames, min(0.3, what.window))
        while len(rounds) < what.rounds + what.more_rounds:
            at = len(rounds) % len(servers)
            before = sum(child.waited() for child in servers)
            cpu = {}
            for child in servers[at:] + servers[:at]:
                cpu[child.kind] = _window(what, child, peers[child.kind], frames, what.window)
            waited = sum(child.waited() for child in servers) - before
            rounds.append(Round(cpu, waited / (what.window * len(servers))))
            if len(rounds) >= what.rounds and not _noisy(rounds):
                break
        batch = next(child for child in servers if child.kind == "batch").ask()
    run = len(rounds)
    rounds = sorted(rounds, key=lambda one: one.waited)[: what.rounds]
    figures: dict[str, Any] = {
        "connections": what.peers,
        "messages_per_s": what.rate,
        "message_bytes": round(statistics.mean(len(frame) - 6 for frame in frames), 1),
        "rounds": [len(rounds), run],
        "waited_percent": round(statistics.mean(one.waited for one in rounds) * 100, 1),
        "mean_batch": round(batch["messages"] / max(1, batch["batches"]), 1),
        "cpu_us": {},
        "ratio": {},
    }
    for kind in COMPARED:
        low, middle, high = _quartiles([one.cpu[kind] * 1e6 for one in rounds])
        figures["cpu_us"][kind] = {"median": round(middle, 2), "quartiles": [round(low, 2), round(high, 2)]}
        for name, other in ((kind, "plain"), (f"{kind}/message", "message")):
            if other == kind or (other == "message" and kind != "batch"):
                continue
            low, middle, high = _quartiles(_ratios(rounds, kind, other))
            figures["ratio"][name] = {"median": round(middle, 3), "quartiles": [round(low, 3), round(high, 3)]}
    return figures


def _window(what: Ws, child: Child, peers: list[Any], frames: list[bytes], seconds: float) -> float:
    """Seconds of CPU that a message cost ``child`` in one window of load."""
    # What an unfinished batch holds has been received, and not been handled yet.
    counted = "received" if child.kind.startswith("batch") else "messages"
    before = child.ask()[counted]
    cpu = child.cpu()
    sent = send_paced(peers, frames, what.rate, seconds)
    deadline = time.monotonic() + 5
    while True:
        time.sleep(0.03)
        used = child.cpu() - cpu
        arrived = child.ask()[counted] - before
        if arrived >= sent:
            return used / sent
        if time.monotonic() > deadline:
            raise Failed(f"{child.kind}: {arrived} of {sent} messages arrived")


def _ratios(rounds: list[Round], kind: str, other: str) -> list[float]:
    return [one.cpu[kind] / one.cpu[other] for one in rounds]


def _noisy(rounds: list[Round]) -> bool:
    for kind in COMPARED[1:]:
        low, middle, high = _quartiles(_ratios(rounds, kind, "plain"))
        if high - low > QUARTILES_APART * middle:
            return True
    return False


def _quartiles(values: list[float]) -> tuple[float, float, float]:
    if len(values) < 2:
        return values[0], values[0], values[0]
    low, middle, high = statistics.quantiles(values, n=4, method="inclusive")
    return low, middle, high


# Idle


def idle(what: Ws, loop: str, limit: int) -> dict[str, Any]:
    """Memory of idle connections, and the CPU that their heartbeats cost over one interval."""
    count = min(what.idle, limit - 500)
    kinds = {"plain-idle": min(what.plain_idle, count), "inline-idle": min(what.plain_idle, count), "basic-idle": count}
    figures: dict[str, Any] = {"connections": count, "heartbeat_s": what.heartbeat, "bytes": {}}
    for kind, number in kinds.items():
        if not number:
            continue
        with contextlib.ExitStack() as stack:
            holder = stack.enter_context(contextlib.closing(Holder()))
            (child,) = stack.enter_context(children(loop, kind, options=("--heartbeat", str(what.heartbeat))))
            # What the first connections make the process load, and keep, is not the others' cost.
            holder.add(connect(child.port, 20))
            before = child.resident()
            holder.add(connect(child.port, number))
            if kind == "basic-idle":
                holder.hold(what.heartbeat / 4)
                cpu, begin, pings = child.cpu(), time.monotonic(), holder.pings
                holder.hold(what.heartbeat)
                used, duration = child.cpu() - cpu, time.monotonic() - begin
                figures["cpu_percent"] = round(used / duration * 100, 2)
                figures["pings"] = holder.pings - pings
                figures["lost"] = holder.lost
            else:
                holder.hold(0.2)
            figures["bytes"][kind.removesuffix("-idle")] = round((child.resident() - before) / number)
    return figures


# Broadcast


def broadcast(what: Ws, loop: str) -> dict[str, Any]:
    """Delivery to the peers that read while others do not, and what those cost."""
    deadline = what.pool_deadline
    with contextlib.ExitStack() as stack:
        listeners = stack.enter_context(contextlib.closing(Listeners()))
        stalled: list[socket.socket] = []
        stack.callback(close_all, stalled)
        (child,) = stack.enter_context(children(loop, "pool", options=("--deadline", str(deadline))))
        stalled += connect(child.port, what.stalled, "/stalled", receive_buffer=4096)
        listeners.add(connect(child.port, what.pool - what.stalled, "/reading"))
        child.ask(fill=2 * MIB)
        cpu, waited, filled = child.cpu(), child.waited(), time.monotonic()
        child.begin(seconds=what.pool_seconds, per_s=what.pool_per_s, bytes=what.pool_bytes)
        listeners.listen(what.pool_seconds + 0.3)
        answer = child.result()
        used, waited = child.cpu() - cpu, child.waited() - waited
        gone = None
        while time.monotonic() < filled + 2 * deadline:
            if not child.ask()["stalled"]:
                gone = time.monotonic() - filled
                break
            time.sleep(0.1)
    latency = sorted(listeners.latency)
    if not latency:
        raise Failed("no broadcast was delivered")
    expected = int(answer["broadcasts"]) * (what.pool - what.stalled)
    return {
        "peers": what.pool,
        "stalled": what.stalled,
        "stalled_during": answer["stalled"],
        "broadcasts": answer["broadcasts"],
        "bytes": what.pool_bytes,
        "delivered": len(latency),
        "missing": expected - len(latency),
        "p50_ms": round(latency[len(latency) // 2] * 1000, 1),
        "p99_ms": round(latency[int(len(latency) * 0.99)] * 1000, 1),
        "max_ms": round(latency[-1] * 1000, 1),
        "call_max_ms": round(answer["call_max_ms"], 1),
        "waited_percent": round(waited / what.pool_seconds * 100, 1),
        "cpu_us_per_delivery": round(used / len(latency) * 1e6, 2),
        "framed_per_broadcast": answer["framed"] / answer["broadcasts"],
        "pending_bytes_per_stalled": answer["pending_max"],
        "deadline_s": deadline,
        "stalled_gone_after_s": None if gone is None else round(gone, 1),
    }


def run(what: Ws, loops: Sequence[str] = LOOPS, parts: Sequence[str] = PARTS) -> dict[str, Any]:
    """All of it; raises :class:`Failed`."""
    about = machine("websockets", "uvloop")
    figures = []
    for loop in loops:
        if loop == "uvloop" and "uvloop" not in about:
            print("uvloop is not installed: left out", file=sys.stderr)
            continue
        print(f"measuring under {loop}", file=sys.stderr)
        figures.append(measure(what, loop, parts))
    return {"machine": about, "load_after": load(), "loops": figures}
