"""``gateway check-config``."""

from __future__ import annotations

import argparse
import json
import sys

from ..errors import ConfigError


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command."""
    parser = subparsers.add_parser(
        "check-config",
        help="check the settings and say what is wrong with them",
        description="Check the settings; every fault is named at once.  Exit status 0 if they are good, 78 if not.",
    )
    parser.add_argument("--json", action="store_true", help='as {"ok": bool, "faults": [..]}')
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Check them."""
    from ..config import load

    try:
        settings = load()
    except ConfigError as error:
        faults = str(error).splitlines()
        if options.json:
            print(json.dumps({"ok": False, "faults": faults}))
        for fault in faults:
            print(f"gateway: {fault}", file=sys.stderr)
        return ConfigError.exit_status
    if options.json:
        print(json.dumps({"ok": True, "faults": []}))
    else:
        scheme = "https" if settings.tls.cert is not None else "http"
        print(
            f"the settings are good: {scheme}://{settings.listen.host}:{settings.listen.port}, "
            f"state in {settings.state_dir}"
        )
    return 0
