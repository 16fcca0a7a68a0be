"""``gateway explain DEVICE``."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from typing import Any

from .daemon import EXIT_STATUSES, add_options, dial, state_dir
from .words import moment, paragraph, plain, span, width


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command."""
    parser = subparsers.add_parser(
        "explain",
        help="tell where a device's readings went, and why any did not",
        description="Tell where a device's readings went, why any did not, and what to do.",
        epilog=EXIT_STATUSES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("device", metavar="DEVICE", help="its name; `gateway devices` lists them")
    add_options(parser)
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Print it."""
    with dial(state_dir(options)) as gateway:
        told = gateway.ask("explain", device=options.device)
    if options.json:
        print(json.dumps(told, indent=2))
    else:
        print("\n".join(lines(told, width())))
    return 0


def lines(told: dict[str, Any], columns: int | None) -> Iterator[str]:
    """What ``explain`` answered, for people."""
    now = told["time"]
    yield paragraph(_head(told, now), columns)
    if session := _session(told["session"]):
        yield paragraph(session, columns)
    for note in told["notes"]:
        yield paragraph(note, columns)
    yield ""
    yield from _ledger(told, columns)
    if told["refusals"]:
        yield ""
        yield from _refusals(told["refusals"], now, columns)
    yield ""
    yield "What is stored is handed on to:"
    wide = max(len(sink["title"]) for sink in told["sinks"])
    for sink in told["sinks"]:
        yield paragraph(plain(sink["text"]), columns, f"  {sink['title']:<{wide}}  ")
        if sink["hint"]:
            yield _hint(sink["hint"], columns, wide + 4)
        if sink["put_aside"]:
            yield _hint(f"gateway dead-letters show {sink['sink']}", columns, wide + 4)


def _head(told: dict[str, Any], now: int) -> str:
    name = "" if told["name"] == told["device"] else f" ({plain(told['name'])})"
    state = told["state"]
    if told["since"]:
        state += f" since {moment(told['since'], now)} ({span(told['since'], now)})"
    if told["reason"]:
        state += f": {plain(told['reason'])}"
    seen = f"Last heard of {span(told['last_seen'], now)} ago." if told["last_seen"] else "Never heard of."
    return f"{told['device']}{name} is {state}. {seen}"


def _session(session: dict[str, Any]) -> str:
    if not session["id"]:
        return ""
    kind = "can be resumed" if session["resumable"] else "ends with its connection"
    text = f"Session {plain(session['id'])}, which {kind}"
    if not session["taken_seq"]:
        return f"{text}; no seq yet." if not session["held_seq"] else f"{text}; nothing of it is kept yet."
    return f"{text}; everything up to seq {session['last_seq']:,} is decided and on disk."


def _ledger(told: dict[str, Any], columns: int | None) -> Iterator[str]:
    received = told["ledger"]["received"]
    if not told["parts"]:
        yield "No reading of it has been received." if not received else f"{received:,} readings were received."
        return
    parts = [part for part in told["parts"] if part["part"] != "missing"]
    rest = [part for part in told["parts"] if part["part"] == "missing"]
    yield f"Of {received:,} reading{'' if received == 1 else 's'} received:"
    counts = max(len(f"{part['count']:,}") for part in told["parts"])
    names = max(len(part["part"].replace("_", " ")) for part in told["parts"])
    for part in [*parts, *rest]:
        start = f"  {part['count']:>{counts},}  {part['part'].replace('_', ' '):<{names}}  "
        yield paragraph(part["text"], columns, start)
        if part["hint"]:
            yield _hint(part["hint"], columns, len(start))


def _refusals(refusals: dict[str, Any], now: int, columns: int | None) -> Iterator[str]:
    counts = ", ".join(f"{code} {count:,}" for code, count in refusals["counts"].items())
    last = refusals["last"]
    told = f"The last, {span(last['time'], now)} ago: {plain(last['detail'])}"
    yield paragraph(f"Refused since the gateway started: {counts}. {told}", columns)


def _hint(text: str, columns: int | None, indent: int) -> str:
    start = " " * indent + "-> "
    return paragraph(text, columns, start)
