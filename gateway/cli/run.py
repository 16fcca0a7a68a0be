"""``gateway run``."""

from __future__ import annotations

import argparse
import os

from .loops import loop_factory


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command."""
    parser = subparsers.add_parser(
        "run",
        help="start the gateway",
        description="Start the gateway and run until SIGTERM or SIGINT.  Settings are environment variables: see "
        "`gateway config show`.",
    )
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Run it."""
    from asyncio import Runner

    from .. import cores
    from ..config import load
    from ..daemon import run as run_daemon
    from ..logs import configure

    cores.forbid()
    settings = load()
    configure(settings.log.level, settings.log.format)
    os.umask(0o027 | os.umask(0o077))  # what devices sent is nobody else's to read
    with Runner(loop_factory=loop_factory()) as runner:
        runner.run(run_daemon(settings))
    return 0
