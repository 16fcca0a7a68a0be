"""The kinds of handlers.

An endpoint attaches a connection to a function of the user's.  What each kind costs a message: ``inline`` a call from
the protocol's own callback; the others a place in a bounded queue and, when their task sleeps, its waking up.
"""

from __future__ import annotations

import asyncio
import inspect
import logging
import time
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable
from functools import partial
from typing import TYPE_CHECKING, Any

from .batch import BatchRun
from .checks import at_least_one, callable_, coroutine_function, is_async
from .errors import ConnectionClosed
from .message import Message
from .reader import HANDLER_ERRORS

if TYPE_CHECKING:
    from .connection import Connection

__all__ = ["Endpoint", "batch_handler", "message_handler", "recover", "websocket_handler"]

logger = logging.getLogger("gateway.ws")

Handler = Callable[..., Any]


class Endpoint(ABC):
    """Attaches connections to a handler; one object serves any number of routes and connections."""

    @abstractmethod
    def start(self, ws: Connection) -> None:
        """Called once for each connection, after the upgrade and before its first message."""


class _Loop(Endpoint):
    def __init__(self, fn: Handler) -> None:
        self._fn = fn

    def start(self, ws: Connection) -> None:
        ws._use_queue()
        ws._host.spawn(_run(ws, self._serve))

    async def _serve(self, ws: Connection) -> None:
        await self._fn(ws, **ws.path_params)


class _Messages(Endpoint):
    def __init__(self, fn: Handler, opened: Handler | None, closed: Handler | None) -> None:
        self._fn = fn
        self._opened = opened
        self._closed = closed

    def start(self, ws: Connection) -> None:
        ws._use_queue()
        _open(ws, self._opened, None)
        task = ws._host.spawn(_run(ws, self._serve))
        if self._closed is not None:
            # Behind the last message, and also where the task ends otherwise or was never begun.
            task.add_done_callback(partial(_closed_behind, ws, self._closed))

    async def _serve(self, ws: Connection) -> None:
        params = ws.path_params
        fn = partial(self._fn, **params) if params else self._fn
        queue = ws._queue
        while True:
            message = ws._pop(queue) if queue else await ws.recv()
            if message is None or message.kind == "close":
                return
            if message.kind in ("ping", "pong"):
                continue
            try:
                result = fn(ws, message)
                if inspect.isawaitable(result):
                    result = await result
                if result is not None:
                    await ws.send(result)
            except ConnectionClosed:
                # What the peer sent before it closed is handled all the same; it only gets no answer.
                if not ws.closed:
                    raise


class _Inline(Endpoint):
    def __init__(self, fn: Handler, opened: Handler | None, closed: Handler | None) -> None:
        self._fn = fn
        self._opened = opened
        self._closed = closed

    def start(self, ws: Connection) -> None:
        params = ws.path_params
        fn = partial(self._fn, **params) if params else self._fn
        ws._handler = partial(_data_only, fn) if ws._terms.control else fn
        _open(ws, self._opened, self._closed)


class _Batches(Endpoint):
    def __init__(self, fn: Handler, size: int, timeout: float, clock: Callable[[], float]) -> None:
        self._fn = fn
        self._size = size
        self._timeout = timeout
        self._clock = clock

    def start(self, ws: Connection) -> None:
        run = BatchRun(ws, self._fn, self._size, self._timeout, self._clock)
        ws._handler = run.add
        ws._input_hook = run.end
        ws._host.spawn(_run(ws, lambda _: run.serve()))


def websocket_handler(fn: Callable[..., Awaitable[Any]]) -> Endpoint:
    """``await fn(ws, **path_params)`` owns the connection: it receives and sends as it likes.

    When it returns the connection is closed with 1000, when it raises with 1011.  Raises ``TypeError`` for a plain
    function.
    """
    coroutine_function("a WebSocket handler", fn)
    return _Loop(fn)


def message_handler(
    fn: Handler,
    inline: bool = False,
    opened: Callable[..., object] | None = None,
    closed: Callable[..., object] | None = None,
) -> Endpoint:
    """``fn(ws, message, **path_params)`` for each data message, in order.

    A result other than ``None`` is sent: a ``Message``, ``Prepared``, ``str``, ``bytes``, or any object as JSON text.
    ``fn`` may be async, unless ``inline``: then it is called straight from the protocol's callback, without a task, and
    where the peer does not read its answers, further messages are not read (and ``send_timeout`` ends it).
    ``opened(ws, **path_params)`` is called after the upgrade and before the first message, ``closed(ws)`` exactly once,
    when ``ws.close_code`` is known and the last message has been handled; neither is async.  An exception of ``fn`` or
    ``opened`` closes with 1011.
    Raises ``TypeError`` for an async function where none can be.
    """
    callable_("a message handler", fn)
    for name, function in (("opened", opened), ("closed", closed), ("an inline handler", fn if inline else None)):
        if function is not None:
            callable_(name, function)
        if function is not None and is_async(function):
            raise TypeError(f"{name} cannot be an async function")
    return _Inline(fn, opened, closed) if inline else _Messages(fn, opened, closed)


def batch_handler(
    fn: Handler, size: int = 50, timeout: float = 0.1, *, clock: Callable[[], float] = time.monotonic
) -> Endpoint:
    """``fn(ws, messages, **path_params)``, plain or async, for lists of 1 to ``size`` data messages, in order.

    A batch is handed over when it has ``size`` messages, or ``timeout`` seconds after its first one; what is left at
    the close is handed over then.  While one is handled the next one fills; when that is full, reading pauses: never
    more than two batches are held.  A result other than ``None`` is sent.  An exception closes with 1011, and what was
    received behind that batch is not handled any more.
    Raises ``ValueError`` for a size below 1 or a negative timeout.
    """
    callable_("a batch handler", fn)
    at_least_one(size=size)
    if not timeout >= 0:
        raise ValueError("timeout must be a number of seconds, 0 or more")
    return _Batches(fn, size, timeout, clock)


def recover(
    fn: Handler,
    max_errors: int = 5,
    *,
    reply: Callable[[Exception], object] = lambda error: f"Error: {error}",
) -> Handler:
    """Wrap a message or batch handler: an exception is answered with ``reply(error)`` and the connection goes on.

    After ``max_errors`` in a row on one connection it is closed with 1011; a success resets the count.  Whatever
    ``fn`` returns that can be awaited is awaited under the same guard; a handler that is not async stays so.
    """
    callable_("what recovers", fn)
    at_least_one(max_errors=max_errors)
    key = object()

    def failed(ws: Connection, error: BaseException) -> object:
        if cancelled_from_outside(error) or (isinstance(error, ConnectionClosed) and ws.closed):
            raise error
        errors = ws._errors
        if errors is None:
            errors = ws._errors = {}
        errors[key] = count = errors.get(key, 0) + 1
        ws._host.counters.handler_errors += 1
        logger.warning(
            "websocket %s at %r from %s: handler failed (%d in a row)",
            *(ws.id, ws.path, ws.remote, count),
            exc_info=error,
        )
        answer = reply(error) if isinstance(error, Exception) else reply(RuntimeError("cancelled"))
        if count >= max_errors:
            if answer is not None:
                ws.try_send(answer)
            ws.close_soon(1011, "too many errors")
            return None
        return answer

    def succeeded(ws: Connection) -> None:
        if ws._errors:
            ws._errors.pop(key, None)

    async def awaited(ws: Connection, pending: Awaitable[Any]) -> Any:
        try:
            result = await pending
        except HANDLER_ERRORS as error:
            return failed(ws, error)
        succeeded(ws)
        return result

    def recovering(ws: Connection, message: Any, /, **params: Any) -> Any:
        try:
            result = fn(ws, message, **params)
        except HANDLER_ERRORS as error:
            return failed(ws, error)
        # An async function, an object whose call is async, a plain function that hands on a coroutine: all are awaited.
        if inspect.isawaitable(result):
            return awaited(ws, result)
        succeeded(ws)
        return result

    async def recovering_async(ws: Connection, message: Any, /, **params: Any) -> Any:
        pending = recovering(ws, message, **params)
        return await pending if inspect.isawaitable(pending) else pending

    # What is async is seen to be so where a handler is registered.
    return recovering_async if is_async(fn) else recovering


def cancelled_from_outside(error: BaseException) -> bool:
    """Whether ``error`` is the cancellation of this task, and not that of something it had awaited."""
    task = asyncio.current_task()
    return isinstance(error, asyncio.CancelledError) and task is not None and task.cancelling() > 0


def _open(ws: Connection, opened: Handler | None, closed: Handler | None) -> None:
    if closed is not None:
        ws._closed_hooks.append(closed)
    if opened is not None:
        try:
            opened(ws, **ws.path_params)
        except HANDLER_ERRORS as error:
            ws._handler_failed(error)


def _closed_behind(ws: Connection, closed: Handler, task: asyncio.Task[None]) -> None:
    if ws.close_code is None:
        ws._closed_hooks.append(closed)
    else:
        ws._guard(closed, ws)


def _data_only(fn: Handler, ws: Connection, message: Message) -> object:
    return fn(ws, message) if message.kind in ("text", "binary") else None


async def _run(ws: Connection, serve: Callable[[Connection], Awaitable[Any]]) -> None:
    """A handler's whole life; the outermost edge of its task."""
    try:
        await serve(ws)
    except HANDLER_ERRORS as error:
        if cancelled_from_outside(error):
            ws.abort("cancelled")
            raise
        ws._handler_failed(error)
    else:
        ws.close_soon(1000)
