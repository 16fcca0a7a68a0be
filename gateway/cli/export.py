"""``gateway export``."""

from __future__ import annotations

import argparse
import contextlib
import csv
import json
import os
import re
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TextIO

from ..errors import GatewayError
from .daemon import EXIT_STATUSES, add_state_dir, dial, state_dir
from .words import cell

EPILOG = f"""\
Devices come one after the other, the rows of each in the order of time. csv and
jsonl have times in milliseconds, influx (line protocol) in nanoseconds; in it
the measurement is that of GATEWAY_INFLUX__MEASUREMENT.

T is milliseconds, ISO 8601 (UTC), or relative such as -1h; S as 10s, 1m, 1h.
With --step each row is what so much time amounts to. FILE is there only when it
is complete.

{EXIT_STATUSES}

  gateway export --device 'pump-*' --from -7d --step 1h -o pumps.csv
  gateway export --format influx --from 2026-01-01 | gzip > all.lp.gz"""
AGGREGATES = ("mean", "min", "max", "last", "count")
PROGRESS_S = 0.5

Piece = dict[str, Any]


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command."""
    parser = subparsers.add_parser(
        "export",
        help="write what the history holds as CSV, JSON or line protocol",
        description="Write what the history holds, or a part of it.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser._negative_number_matcher = re.compile(r"-\d")  # `--from -7d` is a time and no option
    parser.add_argument("--device", default="*", metavar="GLOB", help="a name, or several as 'pump-*'")
    parser.add_argument("--metric", default="*", metavar="GLOB", help="likewise")
    parser.add_argument("--from", dest="start", type=_time, metavar="T", help="default: all that is kept")
    parser.add_argument("--to", dest="end", type=_time, metavar="T", help="the last time (default: all there is)")
    parser.add_argument("--step", type=_step, metavar="S", help="downsample to a row in each S")
    parser.add_argument("--agg", choices=AGGREGATES, help="of each step (default: mean)")
    parser.add_argument("--format", choices=tuple(WRITERS), default="csv")
    parser.add_argument("--json", dest="format", action="store_const", const="jsonl", help="the same as --format jsonl")
    parser.add_argument("-o", dest="file", type=Path, metavar="FILE", help="write to FILE (default: standard output)")
    add_state_dir(parser)
    parser.set_defaults(run=run, usage=parser.error)


def run(options: argparse.Namespace) -> int:
    """Write all; an error that leaves it incomplete is raised."""
    if options.agg and options.step is None:
        options.usage("--agg is of --step")
    if options.start is not None and options.end is not None and options.start > options.end:
        options.usage("--from is later than --to")
    asked = {
        "device": options.device,
        "metric": options.metric,
        "from": options.start,
        "to": options.end and options.end + 1_000_000,  # it names a millisecond, whole
        "step": options.step,
        "agg": options.agg,
    }
    directory = state_dir(options)
    with dial(directory) as gateway, _output(options.file) as out:
        rows = _Rows(_Progress(sys.stderr).watch(gateway.stream("export", **asked)))
        WRITERS[options.format](rows, out)
    if rows.end["whole_from"] is not None:
        moment = datetime.fromtimestamp(rows.end["whole_from"] // 10**9, UTC).strftime("%Y-%m-%d %H:%M")
        what = "rows are of a minute or an hour there" if options.step else "`--step 1h` tells what they amount to"
        print(f"readings of before {moment} UTC are not kept any more: {what}", file=sys.stderr)
    return 0


class _Rows:
    """The pieces of an answer, and what its last item says: iterate to the end.

    Raises :class:`GatewayError` where it is not complete.
    """

    def __init__(self, items: Iterable[Piece]) -> None:
        self._items = items
        self.end: Piece = {}

    def __iter__(self) -> Iterator[Piece]:
        count = 0
        for item in self._items:
            if "device" in item:
                count += len(item["rows"])
                yield item
            elif "rows" in item:
                self.end = item
        if self.end.get("rows") != count:
            raise GatewayError("the export is not complete: the gateway ended it early", hint="try it again")


def _csv(rows: _Rows, out: TextIO) -> None:
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(("time", "device", "metric", "value"))
    for piece in rows:
        device = piece["device"]
        writer.writerows([(_ms(at), device, metric, cell(value)) for at, metric, value in piece["rows"]])


def _jsonl(rows: _Rows, out: TextIO) -> None:
    text = json.JSONEncoder(ensure_ascii=False).encode
    for piece in rows:
        device = text(piece["device"])
        out.writelines(
            f'{{"time": {_ms(at)}, "device": {device}, "metric": {text(metric)}, "value": {text(value)}}}\n'
            for at, metric, value in piece["rows"]
        )


def _influx(rows: _Rows, out: TextIO) -> None:
    """A line for the values of one time; one more where a metric comes twice."""
    from ..config import load
    from ..reading import Reading
    from ..sinks.layouts.influx import Influx

    integers: dict[str, set[str]] = {}

    def integer(device: str, metric: str) -> bool:
        return metric in integers.get(device, ())

    layout = Influx(load().influx.measurement, integer)
    device, at, values = "", 0, dict[str, Any]()

    def flush() -> None:
        if values:
            out.write(layout.line(Reading(device, "", 0, at, at, values)) + "\n")
            values.clear()

    for piece in rows:
        if piece["device"] != device:
            flush()
            device = piece["device"]
            integers.clear()
        integers.setdefault(device, set()).update(piece["integers"])
        for time_ns, metric, value in piece["rows"]:
            if time_ns != at or metric in values:
                flush()
                at = time_ns
            values[metric] = value
    flush()


WRITERS: dict[str, Callable[[_Rows, TextIO], None]] = {"csv": _csv, "influx": _influx, "jsonl": _jsonl}


@contextlib.contextmanager
def _output(path: Path | None) -> Iterator[TextIO]:
    """Standard output; or the file, which gets its name when it is complete and on disk.

    Raises :class:`GatewayError` for what the disk fails.
    """
    if path is None:
        try:
            with open(sys.stdout.fileno(), "w", encoding="utf-8", newline="", closefd=False) as out:
                yield out
        except BrokenPipeError:
            raise
        except OSError as error:
            raise GatewayError(f"standard output: {error.strerror or error}") from None
        return
    part = path.with_name(f"{path.name}.part")
    try:
        with part.open("w", encoding="utf-8", newline="") as out:
            yield out
            out.flush()
            os.fsync(out.fileno())
        part.replace(path)
    except OSError as error:
        raise GatewayError(f"{part}: {error.strerror or error}") from None
    finally:
        with contextlib.suppress(OSError):
            part.unlink()


class _Progress:
    """Tells at a terminal how far it is."""

    def __init__(self, terminal: TextIO) -> None:
        self._terminal = terminal if terminal.isatty() else None
        self._next = time.monotonic() + PROGRESS_S

    def watch(self, items: Iterable[Piece]) -> Iterator[Piece]:
        """The items, as they come."""
        devices, rows, shown = 0, 0, False
        try:
            for item in items:
                devices = item.get("devices", devices)
                if "device" in item:
                    rows += len(item["rows"])
                    if self._terminal is not None and time.monotonic() >= self._next:
                        self._show(f"{rows:,} rows, {item['done']:,} of {devices:,} devices done")
                        shown = True
                yield item
        finally:
            if self._terminal is not None and shown:
                self._show(f"{rows:,} rows")
                print(file=self._terminal)

    def _show(self, text: str) -> None:
        print(f"\r{text}\x1b[K", end="", file=self._terminal, flush=True)
        self._next = time.monotonic() + PROGRESS_S


def _ms(at: int) -> str:
    """Milliseconds of nanoseconds, with as many digits behind the point as it takes."""
    ms, rest = divmod(at, 1_000_000)
    return f"{ms}.{rest:06}".rstrip("0") if rest else str(ms)


def _time(text: str) -> int:
    from ..server.times import parse_time

    try:
        return parse_time(text, time.time_ns())
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text!r} is {error}") from None


def _step(text: str) -> int:
    from ..server.times import parse_duration

    try:
        return parse_duration(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text!r} is {error}") from None
