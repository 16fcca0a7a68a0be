"""``gateway dead-letters list|show|retry|purge``."""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .alone import alone
from .arguments import count, offset
from .daemon import EXIT_STATUSES, NotRunning, add_actions, dial, state_dir
from .words import ago, moment, paragraph, plain, size, span, table, value, width

if TYPE_CHECKING:
    from ..sinks.deadletters import DeadLetters

HEADERS = ("SINK", "LETTERS", "SIZE", "OLDEST", "NEWEST")
LIMIT = 100
SHOWN_MAX = 10_000  # at once
DESCRIPTION = """\
A dead letter is a reading that a sink's far side has refused for good: it was
put aside with the reason, so that what came after it could go on. It stays
until it is retried with success, or purged."""
EPILOG = f"""\
list, show and purge work without a running gateway, too: on the files in its
state directory. retry fails (1) where letters are left.

{EXIT_STATUSES}; 75 a gateway that does not
answer holds the state directory"""


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command."""
    actions = (
        ("list", run_list, "how many there are of each sink, and why"),
        ("show", run_show, "what they hold"),
        ("retry", run_retry, "give them to their sink again"),
        ("purge", run_purge, "forget them for good"),
    )
    words = "look at, retry or forget what sinks have refused"
    for name, action in add_actions(subparsers, "dead-letters", words, DESCRIPTION, EPILOG, actions):
        action.add_argument("sink", nargs="?", metavar="SINK", help="such as mqtt (default: all)")
        if name != "list":
            action.add_argument(
                "--offset", type=offset, action="append", metavar="N", help="only this letter; may be given again"
            )
        if name == "show":
            action.add_argument(
                "--limit", type=count, default=LIMIT, metavar="N", help="the oldest N (default: %(default)s)"
            )
        if name == "purge":
            action.add_argument("--yes", action="store_true", help="do not ask")


def run_list(options: argparse.Namespace) -> int:
    """``list``."""
    sinks = _summaries(options)
    if options.json:
        print(json.dumps(sinks, indent=2))
        return 0
    now = _now()
    rows = [
        [
            sink["sink"],
            f"{sink['count']:,}",
            size(sink["bytes"]),
            *(_ago(sink[key], now) for key in ("oldest", "newest")),
        ]
        for sink in sinks
    ]
    if rows:
        print(table(HEADERS, rows, width(), right=(1, 2, 3, 4)))
    for sink in sinks:
        if sink["reasons"] or sink.get("damaged"):
            print(f"\n{sink['sink']}:")
            for reason, count in sink["reasons"].items():
                print(paragraph(plain(reason), width(), f"{count:>9,}  "))
            if sink.get("damaged"):
                print(paragraph("damaged, and never delivered", width(), f"{sink['damaged']:>9,}  "))
    if not any(sink["count"] for sink in sinks):
        print("there are no dead letters", file=sys.stderr)
    return 0


def run_show(options: argparse.Namespace) -> int:
    """``show``."""
    try:
        with dial(state_dir(options)) as gateway:
            letters = gateway.ask(
                "dead-letters show", sink=options.sink, offsets=options.offset, limit=min(options.limit, SHOWN_MAX)
            )
    except NotRunning:
        letters = list(_read(options))
    if options.json:
        print(json.dumps(letters, indent=2))
    else:
        for letter in letters:
            for line in _letter_lines(letter, _now(), width()):
                print(line)
    if not letters:
        print("there are no dead letters" + (" at these offsets" if options.offset else ""), file=sys.stderr)
        return 1 if options.offset else 0
    if len(letters) >= min(options.limit, SHOWN_MAX):
        more = "retry or purge some to see" if options.limit >= SHOWN_MAX else "--limit N shows"
        print(f"these are the oldest {len(letters):,}; {more} more", file=sys.stderr)
    return 0


def run_retry(options: argparse.Namespace) -> int:
    """``retry``."""
    with dial(state_dir(options)) as gateway:
        results = gateway.ask("dead-letters retry", sink=options.sink, offsets=options.offset)
    if options.json:
        print(json.dumps(results, indent=2))
    else:
        for result in results:
            if result["delivered"] or result["left"]:
                print(paragraph(_retried(result), width()))
    if not any(result["delivered"] or result["left"] for result in results):
        print("there are no dead letters" + (" at these offsets" if options.offset else ""), file=sys.stderr)
        return 1 if options.offset else 0
    return 1 if any(result["left"] for result in results) else 0


def run_purge(options: argparse.Namespace) -> int:
    """``purge``."""
    if not options.yes:
        if not sys.stdin.isatty():
            options.parser.error("what is purged is gone for good: say --yes")
        which = f"{len(options.offset)} dead letters" if options.offset else "all dead letters"
        print(f"Purge {which} of {options.sink or 'all sinks'} for good? [y/N] ", end="", file=sys.stderr, flush=True)
        if sys.stdin.readline().strip().lower() not in ("y", "yes"):
            print("nothing was purged", file=sys.stderr)
            return 1
    try:
        with dial(state_dir(options)) as gateway:
            results = gateway.ask("dead-letters purge", sink=options.sink, offsets=options.offset)
    except NotRunning:
        results = _purge(options)
    if options.json:
        print(json.dumps(results, indent=2))
    else:
        for result in results:
            print(f"{result['sink']}: {result['purged']:,} purged")
    if options.offset and not any(result["purged"] for result in results):
        print("there are no dead letters at these offsets", file=sys.stderr)
        return 1
    return 0


# -- without a running gateway -----------------------------------------------------------------------------------------


def _summaries(options: argparse.Namespace) -> list[dict[str, Any]]:
    try:
        with dial(state_dir(options)) as gateway:
            sinks: list[dict[str, Any]] = gateway.ask("dead-letters", sink=options.sink)
            return sinks
    except NotRunning:
        return [{"sink": name, "title": name, **letters.summary()} for name, letters in _files(options)]


def _files(options: argparse.Namespace) -> Iterator[tuple[str, DeadLetters]]:
    """The sinks' files, opened, while no gateway can start; says that none was asked."""
    directory = state_dir(options)
    if not directory.is_dir():
        raise NotRunning(f"there is no state directory {directory}", hint="name one with --state-dir")
    with alone(directory) as place:
        print(f"no gateway runs with {directory}: these are its files", file=sys.stderr)
        yield from _opened(place / "dead-letters", options)


def _opened(folder: Path, options: argparse.Namespace) -> Iterator[tuple[str, DeadLetters]]:
    from ..sinks.deadletters import DeadLetters

    try:
        names = sorted(entry.name for entry in folder.iterdir() if entry.is_file() and not entry.suffix)
    except FileNotFoundError:
        names = []
    if options.sink is not None and options.sink not in names:
        names = []
    elif options.sink is not None:
        names = [options.sink]
    for name in names:
        letters = DeadLetters(folder / name)
        letters.open()
        yield name, letters


def _read(options: argparse.Namespace) -> Iterator[dict[str, Any]]:
    from ..server.desk import letter_row

    left = min(options.limit, SHOWN_MAX)
    for name, letters in _files(options):
        for letter in letters.read(limit=left, offsets=options.offset):
            left -= 1
            yield letter_row(name, letter)


def _purge(options: argparse.Namespace) -> list[dict[str, Any]]:
    return [
        {
            "sink": name,
            "title": name,
            "purged": letters.remove(set(options.offset)) if options.offset else letters.purge(),
        }
        for name, letters in _files(options)
    ]


# -- words -------------------------------------------------------------------------------------------------------------


def _letter_lines(letter: dict[str, Any], now: int, columns: int | None) -> Iterator[str]:
    item = letter["item"]
    seq = f" seq {item['seq']}" if item.get("seq") else ""
    head = f"{letter['sink']} {letter['offset']}: {item['device']}{seq}"
    yield paragraph(f"{head}, {_content(item, now)}", columns, rest="    ")
    yield paragraph(f"put aside {span(letter['put_aside'], now)} ago: {plain(letter['reason'])}", columns, "    ")


def _content(item: dict[str, Any], now: int) -> str:
    if item["kind"] == "reading":
        return f"{moment(item['time'], now)}: {_values(item['values'].items())}"
    if item["kind"] == "presence":
        return f"{item['state']} since {moment(item['since'], now)}"
    return str(item["kind"])


def _values(pairs: Iterable[tuple[str, object]]) -> str:
    return ", ".join(f"{name}={value(given)}" for name, given in pairs) or "no values"


def _retried(result: dict[str, Any]) -> str:
    text = f"{result['sink']}: {result['delivered']:,} delivered"
    if result["left"]:
        text += f", {result['left']:,} left; the last: {plain(str(result['reason']))}"
    return text


def _now() -> int:
    return int(time.time() * 1000)


def _ago(ms: int | None, now: int) -> str:
    return ago(ms or 0, now)
