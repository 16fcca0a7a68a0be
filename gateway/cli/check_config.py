"""``gateway check-config``."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import ConfigError, GatewayError

if TYPE_CHECKING:
    from ..config import Settings


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command."""
    parser = subparsers.add_parser(
        "check-config",
        help="check the settings and say what is wrong with them",
        description="Check the settings; every fault is named at once.  Where the gateway runs, it says which settings "
        "differ from those in force, and whether a reload (SIGHUP) is enough for each.  Exit status 0 if they are "
        "good, 78 if not.",
    )
    parser.add_argument(
        "--json",
        action="store_true",
        help='as {"ok": bool, "faults": [..], "running": bool, "differences": [{"setting", "reload"}, ..]}',
    )
    parser.add_argument(
        "--state-dir", type=Path, metavar="DIR", help="of the running gateway (default: GATEWAY_STATE_DIR)"
    )
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
    if options.state_dir is not None:
        settings = settings.model_copy(update={"state_dir": options.state_dir})
    answer, why = _ask(settings.state_dir)
    if options.json:
        print(json.dumps({"ok": True, "faults": [], **_differences(settings, answer)}))
        return 0
    scheme = "https" if settings.tls.cert is not None else "http"
    print(
        f"the settings are good: {scheme}://{settings.listen.host}:{settings.listen.port}, "
        f"state in {settings.state_dir}"
    )
    if why:
        print(f"gateway: {why}", file=sys.stderr)
    for line in _lines(settings, answer):
        print(line)
    return 0


def _ask(directory: Path) -> tuple[dict[str, Any] | None, str]:
    """The running gateway's settings; None where it does not run, or cannot be asked: then why, in words."""
    from .daemon import NotRunning, dial

    try:
        with dial(directory) as daemon:
            answer: dict[str, Any] = daemon.ask("settings")
            return answer, ""
    except NotRunning:
        return None, ""
    except GatewayError as error:
        return None, f"the running gateway cannot be asked: {error}"


def _differences(settings: Settings, answer: dict[str, Any] | None) -> dict[str, Any]:
    if answer is None:
        return {"running": False, "differences": []}
    from ..reload import compare

    found = [{"setting": change.variable, "reload": change.live} for change in compare(settings, answer)]
    return {"running": True, "differences": found}


def _lines(settings: Settings, answer: dict[str, Any] | None) -> Iterator[str]:
    if answer is None:
        return
    from ..config import shown
    from ..reload import compare, live

    found = compare(settings, answer)
    if not found:
        yield "the running gateway has the same"
    values = shown(settings)
    for change in found:
        old, new = (_plain(given.get(change.variable)) for given in (answer["shown"], values))
        what = f"{old} -> {new}" if old != new else "another value"  # a secret
        if change.live:
            need = "a reload is enough (systemctl reload gateway, or SIGHUP)"
        elif change.variable in live() and answer["faults"]:
            need = "needs a restart, or a reload once what is said below is put right"
        elif change.variable in live() and answer["read"]:
            need = "needs a restart: a reload would not find it, the gateway's environment says otherwise"
        else:
            need = "needs a restart"
        yield f"{change.variable}: {what}; {need}"
    for fault in answer["faults"]:
        yield f"a reload would be refused: {fault}"


def _plain(value: Any) -> str:
    return "unset" if value is None else value if isinstance(value, str) else json.dumps(value)
