"""``gateway token create|list|revoke|rotate``."""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path
from typing import Any

from ..errors import GatewayError
from .arguments import lifetime
from .daemon import EXIT_STATUSES, add_actions
from .keys import Ask, asking
from .sketch import LANGUAGES, Target, authority, render, target_of
from .words import ago, plain, span, table, width

HEADERS = ("ID", "NAME", "SCOPES", "MADE", "EXPIRES", "USED")
CONTRACT = ("id", "token", "scopes", "expires")
DESCRIPTION = """\
A token lets a device, a dashboard or a scraper in. The gateway keeps no more
than its hash: it is shown once, when it is made. What is made, revoked or
rotated is in force at once, also for connections that are open."""
EPILOG = f"""\
scopes: device:GLOB          connect as a device of such a name
        live:read[:GLOB]     read states and readings, of all devices or such
        live:command[:GLOB]  send commands to all devices or such
        metrics              read /metrics

These work without a running gateway, too: on the file in its state directory.

{EXIT_STATUSES}; 75 a gateway that does not
answer holds the state directory"""
PLACEHOLDER = "0" * 12 + "." + "x" * 43


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command."""
    actions = (
        ("create", run_create, "make one, and print it"),
        ("list", run_list, "those that there are"),
        ("revoke", run_revoke, "end one, and every connection that it let in"),
        ("rotate", run_rotate, "end one, and make another in its place"),
    )
    words = "let devices, dashboards and scrapers in, and out"
    for name, action in add_actions(subparsers, "token", words, DESCRIPTION, EPILOG, actions):
        if name == "create":
            _create_options(action)
        elif name != "list":
            action.add_argument("id", metavar="ID", help="the first 12 digits of the token, as `list` prints them")


def _create_options(action: argparse.ArgumentParser) -> None:
    action.add_argument("device", nargs="?", metavar="NAME", help="a device's name: it may connect as that device")
    action.add_argument(
        "--scope", action="append", metavar="SCOPE", help="what it is good for instead; may be given again"
    )
    action.add_argument("--name", metavar="TEXT", help="what `list` calls it (default: NAME)")
    action.add_argument(
        "--expires", type=lifetime, metavar="TIME", help="after which it ends, such as 90d (default: never)"
    )
    action.add_argument(
        "--sketch", choices=LANGUAGES, metavar="LANG", help=f"print a program with it: {', '.join(LANGUAGES)}"
    )
    action.add_argument("--url", metavar="URL", help="the gateway's address for that program, such as ws://HOST:8080")
    action.add_argument(
        "--ca", type=Path, metavar="FILE", help="the authority that signed the gateway's certificate (PEM), for wss"
    )


def run_create(options: argparse.Namespace) -> int:
    """``create``."""
    scopes = options.scope or ([f"device:{_device(options.device)}"] if options.device is not None else [])
    if not scopes:
        options.parser.error("say a device's name, or what it is good for with --scope")
    if options.sketch is None and (options.url is not None or options.ca is not None):
        options.parser.error("--url and --ca go with --sketch")
    name = options.name if options.name is not None else options.device or ""
    device = _sketched(options, scopes) if options.sketch is not None else ""
    ca = authority(options.ca) if options.ca is not None else ""
    with asking(options, make=True) as ask:
        target = _target(options, ask, device, ca) if options.sketch is not None else None
        made = ask("token-create", scopes=scopes, name=name, expires_s=options.expires)
    sketch = render(options.sketch, target, device, made["token"], ca) if target is not None else None
    if options.json:
        shown = {key: made[key] for key in CONTRACT}
        print(json.dumps(shown if sketch is None else {**shown, "sketch": sketch}))
    else:
        print(made["token"] if sketch is None else sketch, end="\n" if sketch is None else "")
    _say_made(made)
    if target is not None:
        _say_where(target)
    return 0


def _device(name: str) -> str:
    from ..reading import is_device

    if not is_device(name):
        raise GatewayError(
            f"{name[:80]!r} is no device's name",
            hint="letters, digits and _ . : - only, 64 at most; for several devices say --scope 'device:pump-*'",
        )
    return name


def _sketched(options: argparse.Namespace, scopes: list[str]) -> str:
    """The device that the program is for."""
    from ..auth import Grant, check_scopes

    named = options.device
    if named is None:
        first, *others = [scope.removeprefix("device:") for scope in scopes if scope.startswith("device:")] or [""]
        named = "" if others or "*" in first or "?" in first else first
        if not named:
            options.parser.error("say the device's name that the program is for")
    if not Grant("", check_scopes(scopes)).may_device(_device(named)):
        raise GatewayError(
            f"these scopes do not let anybody connect as {named!r}",
            hint=f"add --scope device:{named}, or leave --scope",
        )
    return str(named)


def _target(options: argparse.Namespace, ask: Ask, device: str, ca: str) -> Target:
    """Where the program connects; all that could be wrong with it is found before a token is made."""
    listen = None if options.url is not None else ask("pending").get("listen")
    target = target_of(options.url, listen)
    render(options.sketch, target, device, PLACEHOLDER, ca)
    return target


def _say_made(made: dict[str, Any]) -> None:
    """On stderr, after the result."""
    ends = f"in {span(made['created'], made['expires'])}" if made["expires"] is not None else "never"
    what = f"token {made['id']}: {', '.join(made['scopes'])}; expires {ends}"
    print(f"{what}\nit is shown this once: keep it where nobody else can read it", file=sys.stderr)
    if made.get("asked") is False:
        print("the gateway asks nobody for a token yet: GATEWAY_AUTH__MODE=token makes it", file=sys.stderr)


def _say_where(target: Target) -> None:
    print(f"the program connects to {target.url}", file=sys.stderr)
    if target.here_only:
        print(
            "no other machine reaches that: for a device elsewhere have the gateway listen on its network "
            "(GATEWAY_LISTEN__HOST), or name its address with --url",
            file=sys.stderr,
        )


def run_list(options: argparse.Namespace) -> int:
    """``list``."""
    with asking(options) as ask:
        rows = ask("token-list")["tokens"]
    if options.json:
        print(json.dumps(rows, indent=2))
    elif rows:
        now = int(time.time() * 1000)
        print(table(HEADERS, [_cells(row, now) for row in rows], width(), right=(3, 4, 5)))
    if not rows:
        print("there are no tokens: `gateway token create NAME` makes one", file=sys.stderr)
    return 0


def _cells(row: dict[str, Any], now: int) -> list[str]:
    expires = row["expires"]
    ends = "never" if expires is None else "expired" if expires <= now else f"in {ago(now, expires)}"
    used = ago(row["last_used"], now) if row["last_used"] else "never"
    return [row["id"], plain(row["name"]), " ".join(row["scopes"]), ago(row["created"], now), ends, used]


def run_revoke(options: argparse.Namespace) -> int:
    """``revoke``."""
    with asking(options) as ask:
        row = ask("token-revoke", id=options.id)
    if options.json:
        print(json.dumps(row))
    else:
        print(f"revoked {row['id']}" + (f" ({plain(row['name'])})" if row["name"] else ""))
    return 0


def run_rotate(options: argparse.Namespace) -> int:
    """``rotate``."""
    with asking(options) as ask:
        made = ask("token-rotate", id=options.id)
    print(json.dumps({key: made[key] for key in CONTRACT}) if options.json else made["token"])
    print(f"{options.id.partition('.')[0]} has ended", file=sys.stderr)
    _say_made(made)
    return 0
