"""``gateway doctor``."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import ConfigError, GatewayError
from .loops import loop_factory

if TYPE_CHECKING:
    from ..config import Settings
    from ..doctor import Finding

DESCRIPTION = """\
Look at all that the gateway needs, and try it: settings, disk and the speed of
its syncs, clock, file descriptors, versions, the address, the certificate,
tokens, the broker by a real publish, InfluxDB by a real write (of a device
gateway-doctor), and what the running gateway says. A line
each, with what to do."""
EPILOG = """\
exit status: 0 nothing is wrong (there may be warnings); 1 something is, or with
--strict a warning; 2 wrong usage; 78 bad settings

as the service sees it:
  gateway doctor --env-file /etc/gateway/gateway.env \\
                 --state-dir /var/lib/gateway"""
SELF_TEST_S = 60.0
STATUSES = {"ok": 0, "warning": 0, "error": 1}
MARKS = {"ok": "ok      ", "warning": "WARNING ", "error": "ERROR   "}
COLOURS = {"ok": "32", "warning": "33", "error": "31"}


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command."""
    parser = subparsers.add_parser(
        "doctor",
        help="look at all that the gateway needs, and say what to do",
        description=DESCRIPTION,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--json", action="store_true", help='a line each: {"part", "level", "text", "hint"}')
    add("--strict", action="store_true", help="warnings, too, end with status 1")
    add("--env-file", type=Path, metavar="FILE", help="settings as systemd's EnvironmentFile= has them")
    add("--state-dir", type=Path, metavar="DIR", help="of the gateway (default: GATEWAY_STATE_DIR)")
    add("--self-test", action="store_true", help="a minute of simulated load with an outage in it, on this disk")
    add("--seconds", type=float, default=SELF_TEST_S, metavar="S", help="how long the self-test loads (default: 60)")
    parser.set_defaults(run=run, parser=parser)


def run(options: argparse.Namespace) -> int:
    """Examine; returns the exit status."""
    import asyncio

    if not 1 <= options.seconds <= 86_400:
        options.parser.error("--seconds: a number from 1 to 86400")
    _environment(options)
    from ..config import load

    try:
        settings = load()
    except ConfigError as error:
        from ..doctor import Finding

        for fault in str(error).splitlines():
            variable, _, words = fault.partition(": ")
            _show(Finding("settings", "error", variable, words), options.json)
        return ConfigError.exit_status
    with asyncio.Runner(loop_factory=loop_factory()) as runner:
        return runner.run(_examine(settings, options))


def _environment(options: argparse.Namespace) -> None:
    """Put what the options name where settings are read from."""
    if options.env_file is not None:
        from dotenv import dotenv_values

        if not os.access(options.env_file, os.R_OK):
            options.parser.error(f"--env-file: {options.env_file} cannot be read")
        given = dotenv_values(options.env_file, interpolate=False)
        os.environ.update({name: value for name, value in given.items() if value is not None})
    if options.state_dir is not None:
        os.environ["GATEWAY_STATE_DIR"] = str(options.state_dir)


async def _examine(settings: Settings, options: argparse.Namespace) -> int:
    counts = dict.fromkeys(STATUSES, 0)
    async for finding in _findings(settings, options):
        counts[finding.level] += 1
        _show(finding, options.json)
    if not options.json:
        wrong = [
            f"{counts[level]} {word}"
            for level, word in (("error", "wrong"), ("warning", "to look at"))
            if counts[level]
        ]
        print(", ".join(wrong) or "all is well", file=sys.stderr)
    return 1 if counts["error"] or (options.strict and counts["warning"]) else 0


async def _findings(settings: Settings, options: argparse.Namespace) -> AsyncIterator[Finding]:
    from ..doctor import Finding, examine, self_test

    health: dict[str, Any] | None = None
    yield Finding("settings", "ok", "they can be used")
    try:
        health = _health(settings.state_dir)
    except GatewayError as error:
        yield Finding("gateway", "error", str(error), error.hint)
    async for finding in examine(settings, health):
        yield finding
    if options.self_test:
        async for finding in self_test(settings.state_dir, options.seconds):
            yield finding


def _health(directory: Path) -> dict[str, Any] | None:
    """What the running gateway says of itself; None where none runs."""
    from .daemon import NotRunning, Silent, dial

    try:
        with dial(directory) as daemon:
            answer: dict[str, Any] = daemon.ask("health")
            return answer
    except Silent:
        raise
    except NotRunning:
        return None


def _show(finding: Finding, as_json: bool) -> None:
    if as_json:
        entry = {"part": finding.part, "level": finding.level, "text": finding.text, "hint": finding.hint}
        print(json.dumps(entry), flush=True)
        return
    from .words import plain

    mark = MARKS[finding.level]
    if sys.stdout.isatty() and "NO_COLOR" not in os.environ:
        mark = f"\x1b[{COLOURS[finding.level]}m{mark}\x1b[0m"
    print(f"{mark} {finding.part:<12} {plain(finding.line)}", flush=True)
