"""``gateway devices``."""

from __future__ import annotations

import argparse
import contextlib
import json
import sys
import time
from collections.abc import Iterator
from typing import Any

from .daemon import EXIT_STATUSES, Unanswered, add_options, dial, state_dir
from .words import ago, table, width

HEADERS = ("DEVICE", "STATE", "SINCE", "SEEN", "RECEIVED", "STORED", "NOT KEPT", "MISSING", "REASON")
KNOCKS = ("DEVICE", "FIRST", "LAST", "TIMES", "FROM", "FINGERPRINT")
LACKING = {
    "overflowed": "dropped from the full journal (GATEWAY_JOURNAL__MAX_BYTES)",
    "lost": "lost with damaged parts of the journal",
}
EPILOG = f"""\
SINCE     for how long it is in its state; with a question mark where that is
          its state of before the gateway's restart, and it was not seen since
SEEN      for how long nothing was heard of it
NOT KEPT  readings rejected, throttled or dropped; it may have sent some again
MISSING   numbers that its sequence left out
`gateway explain DEVICE` tells why.

--pending lists devices that named themselves and were not let in; --admit NAME
lets one of them in. Where it has presented a secret of its own (FINGERPRINT),
that becomes its token, and it is in at its next try; else a token is printed,
to be put into it. Anybody can knock under any name: see where from.

--forget NAME takes out a device that is offline and gone for good, and what a
broker retains of it (presence, Home Assistant's entities). Its readings stay in
the history. Should it come back, it is a new device: revoke its token first.

{EXIT_STATUSES}"""


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command."""
    parser = subparsers.add_parser(
        "devices",
        help="list the devices, their states and what became of their readings",
        description="List the devices, their states and what became of their readings.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("pattern", nargs="?", default="*", metavar="PATTERN", help="names, such as 'pump-*'")
    one = parser.add_mutually_exclusive_group()
    one.add_argument("--pending", action="store_true", help="those that knocked and were not let in, instead")
    one.add_argument("--admit", metavar="NAME", help="let the one of that name in that knocked")
    one.add_argument("--forget", metavar="NAME", help="forget the one of that name, which is gone for good")
    parser.add_argument(
        "--fingerprint", metavar="DIGITS", help="with --admit: which of several; none: the one without a secret"
    )
    add_options(parser)
    parser.set_defaults(run=run, parser=parser)


def run(options: argparse.Namespace) -> int:
    """Print them."""
    if options.fingerprint is not None and options.admit is None:
        options.parser.error("--fingerprint goes with --admit")
    if options.pending:
        return _pending(options)
    if options.admit is not None:
        return _admit(options)
    if options.forget is not None:
        return _forget(options)
    with dial(state_dir(options)) as gateway:
        rows = gateway.ask("devices", device=options.pattern)
        sinks: list[dict[str, Any]] = []
        with contextlib.suppress(Unanswered):
            sinks = gateway.ask("health")["sinks"]
    if options.json:
        print(json.dumps(rows, indent=2))
    elif rows:
        now = int(time.time() * 1000)
        print(table(HEADERS, [_cells(row, now) for row in rows], width(), right=(2, 3, 4, 5, 6, 7)))
    print(_summary(rows), *_lacking(sinks), sep="\n", file=sys.stderr)
    return 0


def _pending(options: argparse.Namespace) -> int:
    with dial(state_dir(options)) as gateway:
        told = gateway.ask("pending")
    rows = told["knocks"]
    if options.json:
        print(json.dumps(rows, indent=2))
    elif rows:
        now = int(time.time() * 1000)
        cells = [_knock_cells(row, now) for row in rows]
        print(table(KNOCKS, cells, width(), right=(1, 2, 3)))
    if rows:
        print("`gateway devices --admit NAME` lets one in", file=sys.stderr)
    elif told["asked"]:
        print("no unknown device has knocked since the gateway's start", file=sys.stderr)
    else:
        print("no device is unknown here: nobody is asked for a token (GATEWAY_AUTH__MODE)", file=sys.stderr)
    return 0


def _knock_cells(row: dict[str, Any], now: int) -> list[str]:
    times = [ago(row["first"], now), ago(row["last"], now), str(row["count"])]
    return [row["device"], *times, row["address"], row["fingerprint"] or "-"]


def _admit(options: argparse.Namespace) -> int:
    with dial(state_dir(options)) as gateway:
        made = gateway.ask("admit", device=options.admit, fingerprint=options.fingerprint)
    if options.json:
        print(json.dumps({key: made[key] for key in ("id", "token", "scopes", "expires")}))
    elif made["token"]:
        print(made["token"])
    if made["token"]:
        print(
            f"{options.admit} presented no secret that could be its token: put this one into it; it is shown this once",
            file=sys.stderr,
        )
    else:
        print(f"{options.admit} is let in with the secret that it presented (token {made['id']})", file=sys.stderr)
    if made["others"]:
        print(
            f"other tokens let a device in under that name, too: {', '.join(made['others'])}; "
            "`gateway token revoke ID` ends one",
            file=sys.stderr,
        )
    return 0


def _forget(options: argparse.Namespace) -> int:
    with dial(state_dir(options)) as gateway:
        gone = gateway.ask("forget", device=options.forget)
    if options.json:
        print(json.dumps(gone))
    print(f"{options.forget} is forgotten; its readings stay in the history", file=sys.stderr)
    return 0


def _cells(row: dict[str, Any], now: int) -> list[str]:
    ledger = row["ledger"]
    since = ago(row["since"], now) + ("" if row["confirmed"] else "?")
    lost = ledger["rejected"] + ledger["throttled"] + ledger["dropped"]
    counts = [str(count) for count in (ledger["received"], ledger["stored"], lost, ledger["missing"])]
    return [row["device"], row["state"], since, ago(row["last_seen"], now), *counts, row["reason"]]


def _summary(rows: list[dict[str, Any]]) -> str:
    if not rows:
        return "no device of such a name has connected yet"
    states = [row["state"] for row in rows]
    parts = [f"{states.count(state)} {state}" for state in ("online", "stale", "offline") if state in states]
    return f"{len(rows)} device{'' if len(rows) == 1 else 's'}: {', '.join(parts)}"


def _lacking(sinks: list[dict[str, Any]]) -> Iterator[str]:
    """What the sinks will never get of what counts as stored."""
    for sink in sinks:
        for part, why in LACKING.items():
            count = sink["ledger"][part]
            if count:
                which = "1 reading that was" if count == 1 else f"{count:,} readings that were"
                yield f"{sink['title']} never got {which} stored: {why}"
