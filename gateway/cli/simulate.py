"""``gateway simulate``: devices with plausible signals, against any gateway."""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING

from .arguments import token_in
from .loops import loop_factory

if TYPE_CHECKING:
    from ..client.report import Report
    from ..client.simulate import Options

__all__ = ["add_parser"]

EPILOG = """\
exit status: 0 every reading was acked; 1 some were not, or were refused;
2 wrong usage; 69 the gateway could not be reached;
77 it let no device in (token, address)"""


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command's arguments."""
    parser = subparsers.add_parser(
        "simulate",
        help="send plausible readings of any number of devices",
        description="Send plausible readings of any number of devices to a gateway, until\nCtrl-C or --duration.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--url", default="ws://127.0.0.1:8080", metavar="ws://HOST:PORT", help="the gateway (default: %(default)s)")
    add("--devices", type=_count, default=5, metavar="N", help="how many (default: %(default)s)")
    add("--rate", type=_positive, default=1.0, metavar="R", help="readings a second of each (default: 1)")
    add("--metrics", type=_count, default=4, metavar="M", help="values a reading (default: %(default)s)")
    add("--format", choices=("json", "msgpack"), default="json", help="default: %(default)s")
    add("--ack", choices=("durable", "delivered", "none"), default="durable", help="default: %(default)s")
    add("--jitter", type=_part, default=0.1, metavar="0..1", help="of the interval (default: %(default)s)")
    add("--dropouts", type=_amount, default=0.0, metavar="PER_MINUTE", help="cuts of each device's connection")
    add("--duration", type=_positive, metavar="S", help="seconds (default: until Ctrl-C)")
    add("--prefix", default="sim-", help="of the devices' names (default: %(default)s)")
    add("--token-file", type=token_in, metavar="FILE", help="holds a token that covers the devices; -: stdin")
    add("--seed", type=int, metavar="N", help="the same signals and cuts each time")
    add("--unpaced", action="store_true", help="ignore the rate that the gateway allows, until it throttles")
    add("--max-unacked", type=_count, default=10_000, metavar="N", help="kept by each device (default: 10000)")
    add("--connect-timeout", type=_amount, default=10.0, metavar="S", help="default: %(default)s")
    add("--drain", type=_amount, default=5.0, metavar="S", help="how long to wait for the last acks (default: 5)")
    add("--quiet", action="store_true", help="no progress on stderr")
    add("--json", action="store_true", help="the result as one JSON object")
    parser.set_defaults(run=run, parser=parser)


def run(args: argparse.Namespace) -> int:
    """Run the simulation; its exit status."""
    import asyncio
    import gc
    import json

    from ..client.simulate import Options, check

    options = Options(
        url=args.url,
        devices=args.devices,
        rate=args.rate,
        metrics=args.metrics,
        format=args.format,
        ack=args.ack,
        jitter=args.jitter,
        dropouts=args.dropouts,
        duration_s=args.duration,
        prefix=args.prefix,
        token=args.token_file,
        seed=args.seed,
        paced=not args.unpaced,
        max_unacked=args.max_unacked,
        connect_s=args.connect_timeout,
        drain_s=args.drain,
    )
    try:
        check(options)
    except ValueError as error:
        args.parser.error(str(error))
    # What start-up built lives on; what a reading makes is freed by counting references.
    gc.collect()
    gc.freeze()
    gc.set_threshold(100_000, 50, 50)
    with asyncio.Runner(loop_factory=loop_factory()) as runner:
        report = runner.run(_simulate(options, quiet=args.quiet))
    if args.json:
        print(json.dumps(report.plain()))
    elif report.reached:
        print(report.table())
    if not report.reached:
        reason = report.refusal or f"the gateway could not be reached: {report.reason or 'no answer'}"
        print(f"gateway simulate: {args.url}: {reason}", file=sys.stderr)
    return report.status


async def _simulate(options: Options, *, quiet: bool) -> Report:
    import asyncio
    import signal

    from ..client.simulate import run as simulate

    stop, hurry = asyncio.Event(), asyncio.Event()

    def interrupted() -> None:
        # The second time it is meant at once.
        (hurry if stop.is_set() else stop).set()

    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, interrupted)
    terminal = sys.stderr.isatty()

    def progress(report: Report) -> None:
        if terminal:
            print(f"\r\x1b[K{report.line()}", end="", file=sys.stderr, flush=True)
        else:
            print(report.line(), file=sys.stderr, flush=True)

    try:
        return await simulate(options, stop=stop, hurry=hurry, progress=None if quiet else progress)
    finally:
        if terminal and not quiet:
            print(file=sys.stderr)


def _count(text: str) -> int:
    try:
        value = int(text)
    except ValueError:
        value = 0
    if value < 1:
        raise argparse.ArgumentTypeError(f"a whole number from 1 on, not {text!r}")
    return value


def _number(text: str) -> float:
    """The number, or NaN, which is in no range."""
    try:
        return float(text)
    except ValueError:
        return float("nan")


def _amount(text: str) -> float:
    value = _number(text)
    if not 0 <= value < float("inf"):
        raise argparse.ArgumentTypeError(f"a number from 0 on, not {text!r}")
    return value


def _positive(text: str) -> float:
    value = _number(text)
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"a number above 0, not {text!r}")
    return value


def _part(text: str) -> float:
    value = _number(text)
    if not 0 <= value <= 1:
        raise argparse.ArgumentTypeError(f"a number from 0 to 1, not {text!r}")
    return value
