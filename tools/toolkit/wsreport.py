"""What ``tools/bench ws`` says: the targets, tables."""

from __future__ import annotations

from typing import Any

import msgspec

from .about import sentence

__all__ = ["NAMES", "as_json", "table", "targets"]

NAMES = {
    "plain": "websockets, `async for`",
    "basic": "gateway.ws, `async for`",
    "message": "message_handler",
    "inline": "message_handler, inline",
    "batch": "batch_handler, 50",
    "batch-100ms": "batch_handler, 50 or 100 ms",
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
        rows.append(("pending a stalled peer", f"{pending / 1024:.0f} KiB", "<= 1,024 KiB", pending <= 1 << 20))
        framed = one["framed_per_broadcast"]
        rows.append(("frames made a broadcast", f"{framed:g}", "1", framed == 1))
        # The pool looks four times a deadline, and this program ten times a second.
        gone, limit = one["stalled_gone_after_s"], one["deadline_s"] * 1.25 + 0.5
        said = "never" if gone is None else f"{gone:.1f} s"
        met = gone is not None and gone <= limit
        rows.append((f"stalled peers gone, deadline {one['deadline_s']:g} s", said, f"<= {limit:g} s", met))
    return rows


def table(result: dict[str, Any]) -> str:
    """Everything as Markdown."""
    lines = [sentence(result["machine"], result["load_after"])]
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
                f" {one['cpu_us_per_delivery']} µs of CPU a delivery, the longest call {one['call_max_ms']} ms;"
                f" the server waited for its core {one['waited_percent']:.0f} % of the time.",
            ]
    return "\n".join(lines)


def _receive_table(one: dict[str, Any]) -> list[str]:
    used, run = one["rounds"]
    lines = [
        f"{one['connections']} connections, {one['messages_per_s']:,.0f} messages a second of"
        f" {one['message_bytes']:.0f} bytes; median and quartiles of {used} rounds out of {run};"
        f" the server waited for its core {one['waited_percent']:.0f} % of the time",
        "",
        "| receives with | CPU µs a message | of websockets |",
        "| --- | ---: | ---: |",
    ]
    for kind in NAMES:
        cost = one["cpu_us"][kind]
        ratio = one["ratio"].get(kind)
        share = f"{ratio['median']:.2f}" if ratio else "1"
        low, high = cost["quartiles"]
        lines.append(f"| {NAMES[kind]} | {cost['median']:.2f} ({low:.2f} to {high:.2f}) | {share} |")
    return [*lines, ""]


def as_json(result: dict[str, Any]) -> str:
    return msgspec.json.format(msgspec.json.encode(result), indent=2).decode()
