"""``tools/bench ws``: what the WebSocket layer costs, against plain ``websockets`` in the same run.

The server of the moment has core 0, the load core 1.  Other programs on the machine disturb such figures; so all that
is compared runs at the same time of day: the servers stay up together, one after the other gets a short window of load,
round after round, each round in another order, and what is reported of a ratio is the median over the rounds of the
ratio within one round, with the quartiles beside it.  Rounds are added while the quartiles are too far apart.

CPU time is the process's own clock (user and system, in nanoseconds), which any process may read
(clock_getcpuclockid(3)); memory is VmRSS.
"""

from __future__ import annotations

import contextlib
import os
import platform
import resource
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any

import msgspec

from .proc import resident_bytes
from .servers import ROOT, Failed, on_core
from .wspeers import Holder, Listeners, close_all, connect, frames_to_send, send_paced, stagger

__all__ = ["LOOPS", "PARTS", "QUICK", "Ws", "as_json", "run", "table"]

SERVER_CORE, LOAD_CORE = 0, 1
LOOPS = ("asyncio", "uvloop")
PARTS = ("receive", "idle", "broadcast")
COMPARED = ("plain", "basic", "message", "inline", "batch", "batch-100ms")
NAMES = {
    "plain": "websockets, `async for`",
    "basic": "gateway.ws, `async for`",
    "message": "message_handler",
    "inline": "message_handler, inline",
    "batch": "batch_handler, 50",
    "batch-100ms": "batch_handler, 50 or 100 ms",
}
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


def receive(what: Ws, loop: str) -> dict[str, Any]:
    """CPU a message, by kind of handler; see the module's text for how."""
    frames = frames_to_send()
    rounds: list[dict[str, float]] = []
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
            rounds.append({})
            for child in servers[at:] + servers[:at]:
                rounds[-1][child.kind] = _window(what, child, peers[child.kind], frames, what.window)
            if len(rounds) >= what.rounds and not _noisy(rounds):
                break
        batch = next(child for child in servers if child.kind == "batch").ask()
    figures: dict[str, Any] = {
        "connections": what.peers,
        "messages_per_s": what.rate,
        "message_bytes": round(statistics.mean(len(frame) - 6 for frame in frames), 1),
        "rounds": len(rounds),
        "mean_batch": round(batch["messages"] / max(1, batch["batches"]), 1),
        "cpu_us": {},
        "ratio": {},
    }
    for kind in COMPARED:
        low, middle, high = _quartiles([one[kind] * 1e6 for one in rounds])
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


def _ratios(rounds: list[dict[str, float]], kind: str, other: str) -> list[float]:
    return [one[kind] / one[other] for one in rounds]


def _noisy(rounds: list[dict[str, float]]) -> bool:
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
        cpu, filled = child.cpu(), time.monotonic()
        child.begin(seconds=what.pool_seconds, per_s=what.pool_per_s, bytes=what.pool_bytes)
        listeners.listen(what.pool_seconds + 0.3)
        answer = child.result()
        used = child.cpu() - cpu
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
        "cpu_us_per_delivery": round(used / len(latency) * 1e6, 2),
        "framed_per_broadcast": answer["framed"] / answer["broadcasts"],
        "pending_bytes_per_stalled": answer["pending_max"],
        "deadline_s": deadline,
        "stalled_gone_after_s": None if gone is None else round(gone, 1),
    }


# What is said of it


def machine() -> dict[str, Any]:
    """What the figures were measured on."""
    model = platform.machine()
    with contextlib.suppress(OSError), open("/proc/cpuinfo") as lines:
        model = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), model)
    libraries = {}
    for name in ("websockets", "uvloop"):
        with contextlib.suppress(ImportError):
            libraries[name] = version(name)
    return {
        "cpu": model,
        "cores": os.cpu_count(),
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        **libraries,
        "load": [round(one, 2) for one in os.getloadavg()],
    }


def targets(figures: dict[str, Any]) -> list[tuple[str, str, str, bool]]:
    """What is asked of the layer: (of what, measured, target, met)."""
    rows: list[tuple[str, str, str, bool]] = []
    if "receive" in figures:
        ratio = figures["receive"]["ratio"]
        for name, what, target, limit in (
            ("basic", "CPU a message, `async for` / websockets", "<= 1.15", 1.15),
            ("inline", "CPU a message, inline / websockets", "<= 0.85", 0.85),
            ("batch/message", "CPU a message, batch of 50 / message_handler", "< 1", 1.0),
        ):
            one = ratio[name]
            low, high = one["quartiles"]
            rows.append((what, f"{one['median']:.2f} ({low:.2f} to {high:.2f})", target, one["median"] <= limit))
    if "idle" in figures:
        one = figures["idle"]
        size = one["bytes"]["basic"] / 1024
        rows.append((f"memory a connection, {one['connections']:,} idle", f"{size:.1f} KiB", "<= 20 KiB", size <= 20))
        cpu = one["cpu_percent"]
        rows.append(
            (
                f"their heartbeats, every {one['heartbeat_s']:g} s",
                f"{cpu:.1f} % of a core",
                "<= 3 %",
                cpu <= 3 and not one["lost"],
            )
        )
    if "broadcast" in figures:
        one = figures["broadcast"]
        peers = f"{one['peers']:,} peers, {one['stalled']} stalled"
        p99, pending = one["p99_ms"], one["pending_bytes_per_stalled"]
        whole = not one["missing"] and one["stalled_during"] == one["stalled"]
        rows.append((f"delivery, p99, {peers}", f"{p99:.0f} ms", "<= 250 ms", p99 <= 250 and whole))
        rows.append(("pending a stalled peer", f"{pending / 1024:.0f} KiB", "<= 1,024 KiB", pending <= MIB))
        framed = one["framed_per_broadcast"]
        rows.append(("frames made a broadcast", f"{framed:g}", "1", framed == 1))
        gone, deadline = one["stalled_gone_after_s"], one["deadline_s"]
        said = "never" if gone is None else f"{gone:.1f} s"
        rows.append(("stalled peers gone after", said, f"<= {deadline * 1.25:g} s", gone is not None))
    return rows


def table(result: dict[str, Any]) -> str:
    """Everything as Markdown."""
    about = result["machine"]
    libraries = ", ".join(f"{name} {about[name]}" for name in ("websockets", "uvloop") if name in about)
    lines = [
        f"{about['cpu']}, {about['cores']} cores, {about['system']}, Python {about['python']}, {libraries};"
        f" load {about['load'][0]} before, {result['load_after'][0]} after",
    ]
    for figures in result["loops"]:
        lines += ["", f"## {figures['loop']}", ""]
        if "receive" in figures:
            lines += _receive_table(figures["receive"])
        lines += ["| | measured | target | |", "| --- | ---: | ---: | --- |"]
        lines += [
            f"| {name} | {got} | {want} | {'' if met else 'missed'} |" for name, got, want, met in targets(figures)
        ]
        if "idle" in figures:
            sizes = [f"{kind} {size / 1024:.1f} KiB" for kind, size in figures["idle"]["bytes"].items()]
            lines += ["", f"Memory a connection: {', '.join(sizes)}."]
        if "broadcast" in figures:
            one = figures["broadcast"]
            lines += [
                "",
                f"Broadcast of {one['bytes']:,} bytes: {one['broadcasts']} times, {one['delivered']:,} deliveries,"
                f" {one['missing']} missing; p50 {one['p50_ms']} ms, max {one['max_ms']} ms,"
                f" {one['cpu_us_per_delivery']} µs of CPU a delivery, the longest call {one['call_max_ms']} ms.",
            ]
    return "\n".join(lines)


def _receive_table(one: dict[str, Any]) -> list[str]:
    lines = [
        f"{one['connections']} connections, {one['messages_per_s']:,.0f} messages a second of"
        f" {one['message_bytes']:.0f} bytes; {one['rounds']} rounds; median and quartiles",
        "",
        "| receives with | CPU µs a message | of websockets |",
        "| --- | ---: | ---: |",
    ]
    for kind in COMPARED:
        cost = one["cpu_us"][kind]
        ratio = one["ratio"].get(kind)
        share = f"{ratio['median']:.2f}" if ratio else "1"
        low, high = cost["quartiles"]
        lines.append(f"| {NAMES[kind]} | {cost['median']:.2f} ({low:.2f} to {high:.2f}) | {share} |")
    return [*lines, ""]


def as_json(result: dict[str, Any]) -> str:
    return msgspec.json.format(msgspec.json.encode(result), indent=2).decode()


def run(what: Ws, loops: Sequence[str] = LOOPS, parts: Sequence[str] = PARTS) -> dict[str, Any]:
    """All of it; raises :class:`Failed`."""
    about = machine()
    figures = []
    for loop in loops:
        if loop == "uvloop" and "uvloop" not in about:
            print("uvloop is not installed: left out", file=sys.stderr)
            continue
        print(f"measuring under {loop}", file=sys.stderr)
        figures.append(measure(what, loop, parts))
    return {"machine": about, "load_after": [round(one, 2) for one in os.getloadavg()], "loops": figures}
