"""``gateway send DEVICE NAME [PARAMS]``."""

from __future__ import annotations

import argparse
import json
import sys
from typing import Any

from ..errors import GatewayError
from .daemon import add_options, dial, state_dir
from .words import plain

EPILOG = """\
The command waits on the gateway's disk until its device has it, and is sent
again where a crash or a cut leaves open whether it arrived. Ctrl-C leaves it
there; so does --no-wait.

exit status: 0 done, or with --no-wait queued; 1 failed, or not taken; 2 wrong
usage; 69 no gateway runs there; 75 its time was over; 77 not allowed; 78 bad
settings

  gateway send pump-1 set_speed '{"rpm": 1200}' --ttl 3600"""
EXPIRED = 75  # EX_TEMPFAIL of sysexits.h
STATUSES = {"done": 0, "failed": 1, "expired": EXPIRED}


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command."""
    parser = subparsers.add_parser(
        "send",
        help="send a command to a device, and say what becomes of it",
        description="Send a command to a device, and say what becomes of it: queued, sent,\ndone, failed or expired.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("device", metavar="DEVICE")
    parser.add_argument("name", metavar="NAME", help="of the command, as the device knows it")
    parser.add_argument("params", nargs="?", type=_object, default={}, metavar="PARAMS", help="a JSON object")
    parser.add_argument(
        "--ttl", type=_seconds, default=60.0, metavar="S", help="seconds that it may wait (default: 60)"
    )
    parser.add_argument("--ref", default="", help="told back with each state")
    parser.add_argument("--no-wait", action="store_true", help="end once it is on the gateway's disk")
    add_options(parser)
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Send it, and follow it."""
    asked = {
        "device": options.device,
        "name": options.name,
        "params": options.params,
        "ttl_s": options.ttl,
        "ref": options.ref,
    }
    state: dict[str, Any] = {}
    try:
        with dial(state_dir(options)) as gateway:
            for state in gateway.stream("send", **asked):
                print(json.dumps(state) if options.json else _line(state), flush=True)
                if options.no_wait:
                    return 0
    except KeyboardInterrupt:
        if state:
            print(f"gateway: {state['id']} goes its way: its states are not shown any more", file=sys.stderr)
        return 130
    if state.get("state") not in STATUSES:
        raise GatewayError("the gateway ended before the command did", hint="the command is on its disk, and goes on")
    return STATUSES[state["state"]]


def _line(state: dict[str, Any]) -> str:
    value = state.get("value")
    said = "" if value is None else f": {plain(value) if isinstance(value, str) else json.dumps(value)}"
    again = f" (the {state['times']}. time)" if state["state"] == "sent" and state.get("times", 1) > 1 else ""
    return f"{state['id']} {state['state']}{again}{said}"


def _object(text: str) -> dict[str, Any]:
    try:
        found = json.loads(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"not JSON: {error}") from None
    if not isinstance(found, dict):
        raise argparse.ArgumentTypeError('not an object such as {"rpm": 1200}')
    return found


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not 0 < seconds <= 30 * 86_400:
        raise argparse.ArgumentTypeError("a number of seconds above 0, thirty days at most")
    return seconds
