"""The commands' way to the tokens: the running gateway's, or, where none runs, those in its state directory's file."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from ..errors import ConfigError, GatewayError, StateLocked
from .alone import alone
from .daemon import NotRunning, dial, state_dir

__all__ = ["Ask", "asking"]

WAIT_S = 10.0  # for a gateway that starts or stops, or another command
AGAIN_S = 0.1

Ask = Callable[..., Any]


@contextlib.contextmanager
def asking(options: argparse.Namespace, *, make: bool = False) -> Iterator[Ask]:
    """A function that carries out a control command of ``gateway.server.tokendesk`` and gives its result.

    With ``make`` a state directory that is not there is made.  Raises :class:`NotRunning` where there is none,
    :class:`~gateway.cli.daemon.NotAllowed`, and :class:`StateLocked` where the lock stays with a gateway that does
    not answer.
    """
    directory = state_dir(options)
    if not directory.is_dir() and make:
        _make(directory)
    with contextlib.ExitStack() as stack:
        yield _reach(stack, directory)


def _reach(stack: contextlib.ExitStack, directory: Path) -> Ask:
    deadline = time.monotonic() + WAIT_S
    while True:
        try:
            return stack.enter_context(dial(directory)).ask
        except NotRunning:
            if not directory.is_dir():
                raise NotRunning(f"there is no state directory {directory}", hint="name one with --state-dir") from None
        try:
            stack.enter_context(alone(directory, become=False))
        except StateLocked:
            if time.monotonic() > deadline:
                raise
            time.sleep(AGAIN_S)
        else:
            print(f"no gateway runs with {directory}: this is about its file of tokens", file=sys.stderr)
            return _offline(directory)


def _make(directory: Path) -> None:
    try:
        directory.mkdir(parents=True, mode=0o750)
    except OSError as error:
        raise GatewayError(
            f"the state directory {directory} cannot be made: {error.strerror}", hint="name another with --state-dir"
        ) from None
    print(f"made the state directory {directory}: the gateway has to be able to write there", file=sys.stderr)


def _offline(directory: Path) -> Ask:
    import msgspec

    from ..auth import NotKept, Tokens
    from ..reserve import Reserve
    from ..server.tokendesk import TokenDesk

    tokens = Tokens(directory / "tokens.json", reserve=Reserve(directory / "reserve"))
    tokens.load()
    commands = TokenDesk(tokens, _facts).commands

    def ask(command: str, **params: Any) -> Any:
        answer: Any = commands[command]({name: value for name, value in params.items() if value is not None})
        try:
            return asyncio.run(answer)
        except NotKept as error:
            raise GatewayError(
                f"token {error.id} is not revoked: its file could not be written ({error.reason})",
                hint="make room on the disk",
            ) from None
        except msgspec.ValidationError as error:
            raise GatewayError(str(error)) from None
        except OSError as error:
            raise GatewayError(f"the disk: {error.strerror or error}") from None

    return ask


def _facts() -> dict[str, Any]:
    """Where the gateway would listen; nothing where the settings cannot tell."""
    from ..config import load

    try:
        settings = load()
    except ConfigError:
        return {}
    listen = settings.listen
    return {"listen": {"host": listen.host, "port": listen.port, "tls": settings.tls.cert is not None}}
