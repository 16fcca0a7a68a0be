"""``gateway config show``."""

from __future__ import annotations

import argparse
import json


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command."""
    parser = subparsers.add_parser("config", help="show the settings in force")
    actions = parser.add_subparsers(title="actions", metavar="ACTION", required=True)
    show = actions.add_parser("show", help="print every setting in force, secrets masked, unset ones as comments")
    show.add_argument("--json", action="store_true", help="as a JSON object")
    show.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Print them."""
    from ..config import load, shown

    values = shown(load())
    if options.json:
        print(json.dumps(values, indent=2))
    else:
        for name, value in values.items():
            line = f"{name}={value if isinstance(value, str) else json.dumps(value)}"
            print(f"#{name}=" if value is None else line)
    return 0
