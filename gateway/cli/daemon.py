"""Commands' way to the running gateway: requests over its control socket (``gateway.server.control``)."""

from __future__ import annotations

import argparse
import contextlib
import json
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import GatewayError

if TYPE_CHECKING:
    from websockets.sync.client import ClientConnection

__all__ = [
    "EXIT_STATUSES",
    "Daemon",
    "NotAllowed",
    "NotRunning",
    "Silent",
    "Unanswered",
    "add_options",
    "add_state_dir",
    "dial",
    "state_dir",
]

OPEN_S = 10.0
ANSWER_S = 90.0  # retrying dead letters takes half a minute at most, anything else moments
EXIT_STATUSES = """\
exit status: 0 done; 1 failed; 2 wrong usage; 69 no gateway runs there;
77 it is another user's; 78 bad settings"""


class NotRunning(GatewayError):
    """No gateway runs on the state directory (exit status 69, EX_UNAVAILABLE of sysexits.h)."""

    exit_status = 69


class Silent(NotRunning):
    """One is there, and does not answer."""


class NotAllowed(GatewayError):
    """It is another user's (exit status 77, EX_NOPERM)."""

    exit_status = 77


class Unanswered(GatewayError):
    """The gateway refused: its words and its hint."""


def add_options(parser: argparse.ArgumentParser) -> None:
    """The options of every command that asks the gateway."""
    parser.add_argument("--json", action="store_true", help="as JSON, for programs")
    add_state_dir(parser)


def add_actions(
    subparsers: argparse._SubParsersAction[argparse.ArgumentParser],
    command: str,
    words: str,
    description: str,
    epilog: str,
    actions: Iterable[tuple[str, Callable[[argparse.Namespace], int], str]],
) -> Iterator[tuple[str, argparse.ArgumentParser]]:
    """Add a command of ``actions``: the name of each, its function and what it does in a line.

    Each is given as it is made, for arguments of its own; the options of :func:`add_options` come behind them.
    """
    formatter = argparse.RawDescriptionHelpFormatter
    parser = subparsers.add_parser(
        command, help=words, description=description, epilog=epilog, formatter_class=formatter
    )
    added = parser.add_subparsers(title="actions", metavar="ACTION", required=True)
    for name, function, line in actions:
        action = added.add_parser(name, help=line, epilog=epilog, formatter_class=formatter)
        yield name, action
        add_options(action)
        action.set_defaults(run=function, parser=action)


def add_state_dir(parser: argparse.ArgumentParser) -> None:
    """Where the gateway is to be found."""
    parser.add_argument(
        "--state-dir", type=Path, metavar="DIR", help="the gateway's state directory (default: GATEWAY_STATE_DIR)"
    )


def state_dir(options: argparse.Namespace) -> Path:
    """The directory that the options name, else the settings; raises :class:`~gateway.errors.ConfigError`."""
    given: Path | None = options.state_dir
    if given is not None:
        return given
    from ..config import load

    return load().state_dir


@contextlib.contextmanager
def dial(directory: Path) -> Iterator[Daemon]:
    """The gateway of a state directory.

    Raises :class:`NotRunning`, also where it ends in between, and :class:`NotAllowed`.
    """
    from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidStatus
    from websockets.sync.client import unix_connect

    from ..server.control import NAME, address

    path = directory / NAME
    try:
        with address(directory) as where:
            # No pings: while output stands still, neither end of a stream reads.
            ws = unix_connect(
                where,
                "ws://gateway/control",
                compression=None,
                max_size=None,
                open_timeout=OPEN_S,
                close_timeout=1,
                ping_interval=None,
            )
    except (FileNotFoundError, NotADirectoryError, ConnectionRefusedError):
        raise NotRunning(
            f"no gateway runs with the state directory {directory}",
            hint="start it with `gateway run`, or name another with --state-dir (the service: /var/lib/gateway)",
        ) from None
    except PermissionError:
        raise NotAllowed(f"{path} is another user's", hint="run this as the gateway's user, or as root") from None
    except InvalidStatus as error:
        text = error.response.body.decode(errors="replace").strip() if error.response.body else ""
        raise Silent(f"the gateway refuses further commands: {text or error}", hint="try again soon") from None
    except (OSError, InvalidHandshake, TimeoutError) as error:
        raise Silent(
            f"the gateway of {directory} does not answer: {error}", hint="look at its log: is it stuck?"
        ) from None
    try:
        with ws:
            yield Daemon(ws)
    except ConnectionClosed as closed:
        if closed.rcvd is not None and closed.rcvd.code == 1001:
            raise NotRunning("the gateway has stopped") from None
        raise NotRunning(
            "the connection to the gateway was cut",
            hint="was it killed, or has output stood still for a minute? its log may say why",
        ) from None


class Daemon:
    """One connection; commands go over it one after the other."""

    def __init__(self, ws: ClientConnection) -> None:
        self._ws = ws
        self._id = 0

    def ask(self, command: str, **params: Any) -> Any:
        """The result of a command, or the joined lists of a stream that ends.

        Raises :class:`Unanswered`, and :class:`NotRunning` where nothing comes for :data:`ANSWER_S`.
        """
        items: list[Any] = []
        result = None
        for kind, value in self._exchange(command, params, ANSWER_S):
            if kind == "item":
                items += value
            else:
                result = value
        return items if result is None else result

    def stream(self, command: str, **params: Any) -> Iterator[Any]:
        """The items of a stream as they come; raises :class:`Unanswered`."""
        for kind, value in self._exchange(command, params, None):
            if kind == "item":
                yield value

    def _exchange(self, command: str, params: dict[str, Any], timeout: float | None) -> Iterator[tuple[str, Any]]:
        self._id += 1
        given = {name: value for name, value in params.items() if value is not None}
        self._ws.send(json.dumps({"id": self._id, "command": command, "params": given}))
        while True:
            try:
                answer = json.loads(self._ws.recv(timeout))
            except TimeoutError:
                raise NotRunning(
                    f"the gateway has not answered within {timeout:g} s", hint="look at its log: is it stuck?"
                ) from None
            if answer["id"] not in (self._id, None):
                continue  # the rest of a stream that was left
            if "item" in answer:
                yield "item", answer["item"]
            elif answer["ok"]:
                yield "result", answer["result"]
                return
            else:
                raise Unanswered(answer["error"], hint=answer["hint"])
