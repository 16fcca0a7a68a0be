"""Arguments that make no sense are refused where they are given."""

from __future__ import annotations

import functools
import time
from typing import Any

import pytest

from gateway.ws import (
    Connection,
    Pool,
    Request,
    Response,
    Router,
    Server,
    batch_handler,
    message_handler,
    recover,
    websocket_handler,
)

from .rig import Rig


async def handler(ws: Connection, **params: Any) -> None: ...


@pytest.mark.parametrize(
    "options",
    [
        {"heartbeat": (0, 5)},
        {"heartbeat": (20,)},
        {"heartbeat": 20},
        {"heartbeat": ("a", "b")},
        {"heartbeat": (20, -1)},
        {"max_message_bytes": 0},
        {"max_message_bytes": -5},
        {"max_queue_bytes": 0},
        {"max_queue_bytes": 1.5},
        {"subprotocols": "chat"},
        {"subprotocols": ["a b"]},
        {"subprotocols": [""]},
        {"origins": "https://a"},
        {"origins": [1]},
    ],
)
def test_options_of_a_route(options: dict[str, Any]) -> None:
    """Bare strings for lists, bounds below 1, heartbeats that are none."""
    with pytest.raises((ValueError, TypeError), match=next(iter(options)).split("_")[0].rstrip("s")):
        Router().websocket("/", handler, **options)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *((name, 0) for name in ("max_message_bytes", "max_queue_bytes", "max_connections", "max_per_address")),
        *((name, -1) for name in ("max_handshakes", "max_answer_bytes", "send_buffer_bytes", "write_buffer_bytes")),
        *((name, 0) for name in ("handshake_timeout", "close_timeout", "send_timeout", "stop_timeout", "backlog")),
        ("stop_timeout", "10"),
        ("heartbeat", (0, 1)),
        ("origins", "https://a"),
    ],
)
def test_arguments_of_a_server(name: str, value: Any) -> None:
    """The message names the argument."""
    with pytest.raises((ValueError, TypeError), match=name):
        Server(Router(), **{name: value})


def test_arguments_of_pools_and_handlers() -> None:
    """Bounds and times of pools, batches and recover; what cannot be called."""

    def plain(ws: Connection) -> None: ...

    for call in (
        lambda: Pool(deadline=0),
        lambda: Pool(max_pending_bytes=-1),
        lambda: batch_handler(handler, size=0),
        lambda: batch_handler(handler, timeout=-1),
        lambda: batch_handler("no function"),  # type: ignore[arg-type]
        lambda: message_handler(None),  # type: ignore[arg-type]
        lambda: message_handler(handler, opened=5),  # type: ignore[arg-type]
        lambda: recover(handler, max_errors=0),
        lambda: recover("no function"),  # type: ignore[arg-type]
        lambda: websocket_handler(plain),  # type: ignore[arg-type]
        lambda: Router().websocket("/", plain),
        lambda: Router().websocket("/", object()),  # type: ignore[arg-type]
        lambda: Router().get("/", "no function"),  # type: ignore[type-var]
        lambda: Router().middleware("no function"),  # type: ignore[arg-type]
    ):
        with pytest.raises((ValueError, TypeError)):
            call()


def test_a_function_around_an_async_one_is_a_handler() -> None:
    """What a decorator made of it hands on its coroutine."""

    @functools.wraps(handler)
    def around(*args: Any, **kwargs: Any) -> Any:
        return handler(*args, **kwargs)

    websocket_handler(around)
    websocket_handler(functools.partial(handler, room="a"))


@pytest.mark.parametrize("path", ["/chat/:user_id", "/:a/b"])
def test_a_colon_is_no_parameter(path: str) -> None:
    """The other way of writing one is refused and corrected, not taken for a literal."""
    with pytest.raises(ValueError, match=r"\{(user_id|a)\}"):
        Router().websocket(path, handler)


async def answer(router: Router, *segments: str) -> list[str]:
    """The middleware around what matches."""
    match = router.match(segments)
    assert match is not None
    return [fn.__name__ for fn in match.middleware]  # type: ignore[attr-defined]


async def test_a_literal_of_an_included_router_goes_before_a_parameter() -> None:
    """And so nothing gets round its middleware by a wider pattern elsewhere."""
    outer, inner = Router(), Router()

    async def guard(request: Request, call_next: Any) -> Response:
        return request.refuse(403)

    inner.middleware(guard)
    inner.websocket("/room", handler)
    outer.include("/chat", inner)
    outer.websocket("/{a}/{b}", handler)
    assert await answer(outer, "chat", "room") == ["guard"]
    assert await answer(outer, "chat", "other") == []


async def test_included_patterns_stand_where_they_were_included() -> None:
    """Of two patterns that fit, the first registered wins, whichever router it is in."""
    for first in (True, False):
        outer, inner = Router(), Router()

        async def guard(request: Request, call_next: Any) -> Response:
            return request.refuse(403)

        inner.middleware(guard)
        inner.websocket("/{b}", handler)
        if first:
            outer.include("/chat", inner)
        outer.websocket("/{a}/{b}", handler)
        if not first:
            outer.include("/chat", inner)
        assert await answer(outer, "chat", "x") == (["guard"] if first else [])


def test_globs_take_no_time() -> None:
    """A path from a stranger against a pattern of many stars."""
    router = Router()

    async def guard(request: Request, call_next: Any) -> Response:
        return request.refuse(403)

    router.middleware(guard, paths="*a*a*a*a*a*b")
    router.websocket("/{x}", handler)
    started = time.process_time()
    match = router.match(["a" * 2000])
    assert time.process_time() - started < 1
    assert match is not None
    assert match.middleware == ()


def test_a_pool_leaves_nothing_with_a_connection() -> None:
    """However often one comes and goes."""
    rig = Rig()
    pool = Pool()
    for _ in range(100):
        pool.add(rig.ws, "a")
        pool.add(rig.ws, "b")
        pool.discard(rig.ws)
    assert not rig.ws._closed_hooks
    assert not rig.ws._writable_hooks
    pool.add(rig.ws)
    rig.end()
    assert len(pool) == 0


def test_hooks_can_be_taken_back() -> None:
    """Once for each time; an unknown one is nothing."""
    rig = Rig()
    told: list[object] = []
    rig.ws.on_closed(told.append)
    rig.ws.on_closed(told.append)
    rig.ws.off_closed(told.append)
    rig.ws.off_closed(print)
    rig.end()
    assert told == [rig.ws]
    assert rig.ws.close_code == 1006
