"""``gateway version``."""

from __future__ import annotations

import argparse
import json

from .. import __version__


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command."""
    parser = subparsers.add_parser("version", help="print the version")
    parser.add_argument("--json", action="store_true", help="as a JSON object")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Print it."""
    print(json.dumps({"version": __version__}) if options.json else __version__)
    return 0
