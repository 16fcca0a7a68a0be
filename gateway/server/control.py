"""The control socket: what commands on this machine ask of the running gateway.

A Unix socket ``control.sock`` in the state directory, of its owner alone (mode 0600): whoever may write there may ask
anything.  On it one WebSocket address, ``/control``; JSON text, one request at a time::

    {"id": 1, "command": "explain", "params": {"device": "pump-1"}}
    {"id": 1, "ok": true, "result": ..}
    {"id": 1, "ok": false, "error": "..", "hint": ".."}
    {"id": 1, "item": ..}       any number of them before the ``ok``, where a command streams

Bounds: :data:`CONNECTIONS` (then 503), :data:`REQUEST_BYTES` a request (then 1009), further requests wait in the
socket; what a client does not read (a terminal may stand still) holds up its own command alone, and ends it after
:data:`UNREAD_S`.  There is no heartbeat: the kernel tells of a client's end.

Without the socket the gateway works all the same: what keeps it from being made is logged.
"""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import logging
import os
import socket
import stat
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

import msgspec

from .. import __version__
from ..errors import GatewayError
from ..ws import Connection, ConnectionClosed, Message, Router, Server

__all__ = ["CONNECTIONS", "NAME", "Command", "Control", "Params", "address"]

log = logging.getLogger(__name__)

NAME = "control.sock"
CONNECTIONS = 16
REQUEST_BYTES = 256 * 1024
UNREAD_S = 60.0
BROKEN = (1002, 1007, 1009)  # close codes of a client that is at fault
ADDRESS_BYTES = 107  # unix(7): sun_path, without its last zero

Params = dict[str, Any]
Command = Callable[[Params], Awaitable[object] | AsyncIterator[object]]
"""Answers with a result, or streams items; raises :class:`~gateway.errors.GatewayError` for what cannot be done,
``OSError`` for what the disk fails, and ``msgspec.ValidationError`` for parameters that are none."""


class _Request(msgspec.Struct, frozen=True):
    id: int | str
    command: str
    params: Params = {}


_decode = msgspec.json.Decoder(_Request).decode
_encode = msgspec.json.Encoder().encode


@contextlib.contextmanager
def address(directory: Path) -> Iterator[str]:
    """The socket's address, to bind or connect to while the context lasts, however long the directory's path is.

    Raises ``OSError`` where there is no such directory.
    """
    path = os.fspath(directory / NAME)
    if len(os.fsencode(path)) <= ADDRESS_BYTES:
        yield path
        return
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{fd}/{NAME}"
    finally:
        os.close(fd)


class Control:
    """The socket in ``directory`` and its commands; an async context manager, of whoever holds the directory's lock."""

    def __init__(self, directory: Path, commands: Mapping[str, Command], *, stop_timeout: float = 1.0) -> None:
        self._path = directory / NAME
        self._directory = directory
        self._commands = commands
        self._stop_timeout = stop_timeout
        self._server: Server | None = None
        self._inode = 0
        self._refused: dict[str, int] = {}  # requests, by reason

    async def __aenter__(self) -> Control:
        router = Router()
        router.websocket("/control", self._serve, max_message_bytes=REQUEST_BYTES, max_queue_bytes=REQUEST_BYTES)
        try:
            listener = self._bind()
        except OSError as error:
            log.warning("no control socket: %s: %s", self._path, error.strerror or error)
            return self
        self._server = Server(
            router,
            sock=listener,
            heartbeat=None,
            max_connections=CONNECTIONS,
            send_timeout=UNREAD_S,
            stop_timeout=self._stop_timeout,
        )
        await self._server.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._server is None:
            return
        self.close()
        await self._server.wait_closed()
        with contextlib.suppress(OSError):
            if self._path.lstat().st_ino == self._inode:
                self._path.unlink()

    def close(self) -> None:
        """Begin to stop."""
        if self._server is not None:
            self._server.close()

    def _bind(self) -> socket.socket:
        with contextlib.suppress(FileNotFoundError):
            # Under the directory's lock a socket that is there is one that a crash left.
            if not stat.S_ISSOCK(self._path.lstat().st_mode):
                raise FileExistsError(0, "there is a file of that name")
            self._path.unlink()
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            # Linux gives the file the mode of the socket, less the umask: it is never wider than this.
            os.fchmod(listener.fileno(), 0o600)
            with address(self._directory) as path:
                listener.bind(path)
            self._inode = self._path.lstat().st_ino
        except OSError:
            listener.close()
            raise
        return listener

    async def _serve(self, ws: Connection) -> None:
        task: asyncio.Task[None] | None = None

        def left(_: Connection) -> None:
            if task is not None:
                task.cancel()

        ws.on_closed(left)
        async for message in ws:
            if message.kind == "close":
                return
            task = asyncio.create_task(self._answer(ws, message))
            try:
                await asyncio.wait({task})
            finally:
                task.cancel()

    async def _answer(self, ws: Connection, message: Message) -> None:
        """One request; the outermost edge of its task."""
        id: int | str | None = None
        try:
            request = _request(message)
            id = request.id
            result = await self._run(ws, request)
            answer = _encode({"id": id, "ok": True, "result": result})
        except ConnectionClosed:
            return
        except GatewayError as error:
            self._count("impossible")
            answer = _refusal(id, str(error), error.hint)
        except OSError as error:
            self._count("disk")
            log.warning("a command failed: %s", error)
            answer = _refusal(id, f"the disk: {error.strerror or error}", "see that the state directory can be written")
        except msgspec.DecodeError as error:  # the request or its parameters
            self._count("bad_request")
            answer = _refusal(id, f"not a request: {error}")
        except Exception:
            self._count("internal_error")
            log.exception("a command failed")
            answer = _refusal(id, "the command failed: a fault in the gateway", "its log has the details")
        with contextlib.suppress(ConnectionClosed):
            await ws.send(answer.decode())

    @property
    def refusals(self) -> dict[str, int]:
        """Requests by the reason for which they were refused, and connections: by close code, or before the upgrade."""
        if self._server is None:
            return self._refused
        counters = self._server.counters
        broken = {f"closed_{code}": count for code, count in counters.closed.items() if code in BROKEN}
        return {**self._refused, **counters.reasons, **broken}

    def _count(self, reason: str) -> None:
        self._refused[reason] = self._refused.get(reason, 0) + 1

    async def _run(self, ws: Connection, request: _Request) -> object:
        command = self._commands.get(request.command)
        if command is None:
            raise GatewayError(
                f"the running gateway has no command {request.command!r}",
                hint=f"it is version {__version__} and has {', '.join(sorted(self._commands))}",
            )
        answer = command(request.params)
        if not inspect.isasyncgen(answer):
            return await answer  # type: ignore[misc]
        async with contextlib.aclosing(answer):
            async for item in answer:
                await ws.send(_encode({"id": request.id, "item": item}).decode())
        return None


def _request(message: Message) -> _Request:
    """Raises ``msgspec.DecodeError``."""
    try:
        return _decode(message.data)
    except RecursionError:
        raise msgspec.DecodeError("nested too deeply") from None
    except UnicodeDecodeError:  # of a binary frame
        raise msgspec.DecodeError("not UTF-8") from None


def _refusal(id: int | str | None, error: str, hint: str = "") -> bytes:
    return _encode({"id": id, "ok": False, "error": error, "hint": hint})
