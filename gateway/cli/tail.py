"""``gateway tail [PATTERN]``."""

from __future__ import annotations

import argparse
import json
import sys
from typing import Any

from .arguments import count
from .daemon import EXIT_STATUSES, add_options, dial, state_dir
from .words import clock, plain, value

EPILOG = f"""\
What is printed is on the gateway's disk. Ctrl-C ends it; so does --count.

{EXIT_STATUSES}"""


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command."""
    parser = subparsers.add_parser(
        "tail",
        help="print what becomes stored, as it does",
        description="Print readings, states and descriptions as they become stored, a line each.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("pattern", nargs="?", default="*", metavar="DEVICE", help="a name, or several as 'pump-*'")
    parser.add_argument("--count", type=count, metavar="N", help="end after N lines")
    add_options(parser)
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Print until told to end."""
    left = options.count
    try:
        with dial(state_dir(options)) as gateway:
            for entries in gateway.stream("tail", device=options.pattern):
                for entry in entries if left is None else entries[:left]:
                    if entry["kind"] == "left_out":
                        print(
                            f"{entry['items']:,} were left out: this terminal is slower than they come", file=sys.stderr
                        )
                        continue
                    print(json.dumps(entry) if options.json else line(entry))
                    if left is not None:
                        left -= 1
                sys.stdout.flush()
                if left == 0:
                    break
    except KeyboardInterrupt:
        pass
    return 0


def line(entry: dict[str, Any]) -> str:
    """An entry in a line: when it was received or became so, of which device, and what."""
    device = entry["device"]
    match entry["kind"]:
        case "reading":
            values = " ".join(f"{name}={value(given)}" for name, given in entry["values"].items()) or "(no values)"
            seq = f" #{entry['seq']}" if entry["seq"] else ""
            marks = "".join(f" ({flag})" for flag in entry["flags"] if flag != "assigned")
            return f"{clock(entry['received'])} {device}{seq} {values}{marks}"
        case "presence":
            reason = f": {plain(entry['reason'])}" if entry["reason"] else ""
            return f"{clock(entry['since'])} {device} is {entry['state']}{reason}"
        case "description":
            return f"{clock(entry['received'])} {device} describes itself: {json.dumps(entry['body'])}"
    return f"{'':12} {device} #{entry['seq']} was refused"
