"""``gateway top``."""

from __future__ import annotations

import argparse
import contextlib
import json
import shutil
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from .daemon import EXIT_STATUSES, add_options, dial, state_dir
from .words import ago, paragraph, plain, size, table, width

HEADERS = ("DEVICE", "STATE", "PER S", "RECEIVED", "STORED", "NOT KEPT", "SEEN")
EPILOG = f"""\
Ctrl-C ends it. Where output is no terminal it is printed once. With the extra
`top` (pip install 'telemetry-gateway[top]') it has colours and the course of
each rate.

{EXIT_STATUSES}"""


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command."""
    parser = subparsers.add_parser(
        "top",
        help="watch the busiest devices and the sinks",
        description="Watch the gateway: problems, sinks, and the devices that send most.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--interval", type=_interval, default=1.0, metavar="S", help="seconds between pictures (default: %(default)g)"
    )
    parser.add_argument("--once", action="store_true", help="print one picture and end")
    parser.add_argument("--plain", action="store_true", help="without colours, as without the extra")
    add_options(parser)
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Show pictures until told to end."""
    columns = width()
    once = options.once or options.json or columns is None
    rows = 20 if once else 1000
    try:
        colours = None if once or options.plain else _colours()
        with dial(state_dir(options)) as gateway, _screen(not once and colours is None):
            items = gateway.stream("top", limit=rows, interval_s=options.interval)
            if colours is not None:
                colours(items)
            for item in items:
                if options.json:
                    print(json.dumps(item))
                elif once:
                    print("\n".join(picture(item, columns)))
                else:
                    columns, lines = shutil.get_terminal_size()
                    shown = "\n".join(picture(item, columns)).split("\n")[: lines - 1]
                    print("\x1b[H" + "".join(f"{row}\x1b[K\n" for row in shown) + "\x1b[J", end="", flush=True)
                if once:
                    break
    except KeyboardInterrupt:
        pass
    return 0


def _colours() -> Callable[[Iterable[dict[str, Any]]], None] | None:
    """What draws in colours, where rich is installed."""
    try:
        from .colours import show
    except ModuleNotFoundError:
        return None
    return show


@contextlib.contextmanager
def _screen(wanted: bool) -> Iterator[None]:
    """The terminal's other screen, without its cursor; what was there comes back afterwards."""
    if not wanted:
        yield
        return
    print("\x1b[?1049h\x1b[?25l\x1b[2J", end="", flush=True)
    try:
        yield
    finally:
        print("\x1b[?25h\x1b[?1049l", end="", flush=True)


def picture(item: dict[str, Any], columns: int | None) -> Iterator[str]:
    """One picture, for people."""
    health = item["health"]
    devices, ingest, journal = health["devices"], health["ingest"], health["journal"]
    yield paragraph(
        f"{health['id']} is {health['status']}, up {ago(1, int(health['uptime_s'] * 1000) + 1)}: "
        f"{devices['online']} online, {devices['stale']} stale, {devices['offline']} offline; "
        f"{ingest['readings_per_s']:,} readings/s, acks {journal['ack_ms']['p50']:g} ms, "
        f"99 of 100 {journal['ack_ms']['p99']:g} ms; journal {size(journal['bytes'])}",
        columns,
    )
    for problem in health["problems"]:
        yield paragraph(f"{plain(problem['text'])} {plain(problem['hint'])}", columns, "! ", "  ")
    yield ""
    rows = [
        [sink["title"], sink["state"], f"{sink['pending']:,}", f"{sink['dead_lettered']:,}"] for sink in health["sinks"]
    ]
    yield table(("SINK", "STATE", "PENDING", "DEAD LETTERS"), rows, columns, right=(2, 3))
    yield ""
    now = health["time"]
    if item["devices"]:
        yield table(HEADERS, [_cells(row, now) for row in item["devices"]], columns, right=(2, 3, 4, 5, 6))
    else:
        yield "No device has connected yet."


def _cells(row: dict[str, Any], now: int) -> list[str]:
    ledger = row["ledger"]
    lost = ledger["rejected"] + ledger["throttled"] + ledger["dropped"]
    counts = [str(count) for count in (ledger["received"], ledger["stored"], lost)]
    return [row["device"], row["state"], f"{row['per_s']:g}", *counts, ago(row["last_seen"], now)]


def _interval(text: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = 0.0
    if not 0.1 <= number <= 3600:
        raise argparse.ArgumentTypeError(f"seconds from 0.1 to 3600, not {text!r}")
    return number
