"""``gateway commands [DEVICE]``."""

from __future__ import annotations

import argparse
import json
import time

from .daemon import EXIT_STATUSES, add_options, dial, state_dir
from .words import span, table, width


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command."""
    parser = subparsers.add_parser(
        "commands",
        help="list the commands that wait for devices, and give them up",
        description="List the commands that wait for devices or for their answer, the oldest first.",
        epilog=EXIT_STATUSES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("pattern", nargs="?", default="*", metavar="DEVICE", help="a name, or several as 'pump-*'")
    parser.add_argument("--cancel", metavar="ID", help="give that one up: it is told as expired")
    add_options(parser)
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """List them, or give one up."""
    with dial(state_dir(options)) as gateway:
        if options.cancel is not None:
            ended = gateway.ask("command-cancel", id=options.cancel)
            print(json.dumps(ended) if options.json else f"{ended['id']} {ended['state']}")
            return 0
        found = gateway.ask("commands", device=options.pattern) or []
    if options.json:
        print(json.dumps(found))
        return 0
    now = time.time_ns() // 1_000_000
    rows = [
        (entry["id"], entry["device"], entry["name"], entry["state"], span(2 * now - entry["expires"], now))
        for entry in found
    ]
    if rows:
        print(table(("id", "device", "command", "state", "expires in"), rows, width()))
    return 0
