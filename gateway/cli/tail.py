"""``gateway tail [PATTERN]``."""

from __future__ import annotations

import argparse
import csv
import json
import sys
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from ..globs import matcher
from .arguments import count
from .daemon import EXIT_STATUSES, add_options, dial, state_dir
from .words import cell, clock, plain, value

EPILOG = f"""\
What is printed is on the gateway's disk. With --metric it is readings alone, of
those metrics; a reading is left out whole where it has none of them. csv is a
row a value, as of `gateway export`: time in ms, device, metric, value. Lines of
json are what --json prints, each an object. Ctrl-C ends it, and so do -n and a
reader that has enough, such as `head`.

{EXIT_STATUSES}

  gateway tail 'pump-*' --metric 'temp*' --format csv -n 100 > pumps.csv
  gateway tail --json | jq -r 'select(.kind == "presence") | .device'"""

Entry = dict[str, Any]


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
    parser.add_argument("--metric", metavar="GLOB", help="of readings, these values alone")
    parser.add_argument("-n", "--count", type=count, metavar="N", help="end after N lines")
    parser.add_argument("--format", choices=tuple(FORMATS), help="default: line")
    add_options(parser)
    parser.set_defaults(run=run, usage=parser.error)


def run(options: argparse.Namespace) -> int:
    """Print until told to end."""
    if options.json and options.format not in (None, "json"):
        options.usage("--json is --format json")
    chosen = "json" if options.json else options.format or "line"
    written = FORMATS[chosen]
    wanted = None if options.metric is None else matcher(options.metric)
    left = options.count
    try:
        with dial(state_dir(options)) as gateway:
            if chosen == "csv":
                print("time,device,metric,value", flush=True)
            for entries in gateway.stream("tail", device=options.pattern):
                for text in _lines(_chosen(entries, wanted), written):
                    print(text)
                    if left is not None:
                        left -= 1
                        if left == 0:
                            return 0
                sys.stdout.flush()
    except KeyboardInterrupt:
        pass
    return 0


def _lines(entries: Iterable[Entry], written: Callable[[Entry], Iterator[str]]) -> Iterator[str]:
    for entry in entries:
        yield from written(entry)


def _chosen(entries: Iterable[Entry], wanted: Callable[[str], bool] | None) -> Iterator[Entry]:
    """The entries to be printed, of readings the metrics that are wanted; says what was left out."""
    for entry in entries:
        if entry["kind"] == "left_out":
            print(f"{entry['items']:,} were left out: this terminal is slower than they come", file=sys.stderr)
        elif wanted is None:
            yield entry
        elif entry["kind"] == "reading":
            values = {name: given for name, given in entry["values"].items() if wanted(name)}
            if values:
                yield {**entry, "values": values}


def line(entry: Entry) -> str:
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


def _line(entry: Entry) -> Iterator[str]:
    yield line(entry)


def _json(entry: Entry) -> Iterator[str]:
    yield json.dumps(entry)


def _csv(entry: Entry) -> Iterator[str]:
    """A row for each value of a reading; the rest has none."""
    if entry["kind"] != "reading":
        return
    rows: list[str] = []
    writer = csv.writer(_Rows(rows), lineterminator="")
    for name, given in entry["values"].items():
        writer.writerow((entry["time"], entry["device"], name, cell(given)))
    yield from rows


class _Rows:
    """What ``csv`` writes rows to."""

    def __init__(self, rows: list[str]) -> None:
        self.write = rows.append


FORMATS: dict[str, Callable[[Entry], Iterator[str]]] = {"line": _line, "json": _json, "csv": _csv}
