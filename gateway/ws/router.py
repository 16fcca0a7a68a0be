"""Routes, converters and middleware.

A path pattern is literal segments and parameters: ``/chat/{user_id}``, ``/page/{n:int}``, ``/files/{rest:path}``.  A
literal route goes before one with parameters, also one of an included router; otherwise the first registered wins, an
included router standing where it was included.  Matching works on segments that were decoded once
(``request.split_path``).  What ``{rest:path}`` gives may hold ``..`` segments: it is text, not the name of a file.

Middleware belongs to a router and covers every route in it, whenever added, and those of the routers it includes;
outermost first.  An unknown path is a 404 before any middleware runs.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

from . import checks
from .handlers import Endpoint, websocket_handler
from .request import Request, Response

__all__ = ["Match", "Middleware", "Next", "Route", "Router", "WebSocketOptions"]

Next = Callable[[Request], Awaitable[Response]]
Middleware = Callable[[Request, Next], "Awaitable[Response] | Response"]
Page = Callable[..., "Awaitable[Response] | Response"]
F = TypeVar("F", bound="Endpoint | Callable[..., Any]")
P = TypeVar("P", bound=Page)

SOCKET, PAGE, POST = "socket", "page", "post"  # the kinds of routes

_parameter = re.compile(r"\{([A-Za-z_][A-Za-z0-9_]*)(?::([a-z]+))?\}", re.ASCII).fullmatch
_int = re.compile(r"-?[0-9]{1,18}", re.ASCII).fullmatch
_float = re.compile(r"-?[0-9]{1,18}(?:\.[0-9]{1,18})?", re.ASCII).fullmatch


def _to_int(text: str) -> int:
    if not _int(text):
        raise ValueError
    return int(text)


def _to_float(text: str) -> float:
    if not _float(text):
        raise ValueError
    return float(text)


# Each raises ValueError for a segment that is not of its kind: then the route does not match.
CONVERTERS: Mapping[str, Callable[[str], Any]] = {"str": str, "int": _to_int, "float": _to_float, "path": str}


@dataclass(frozen=True, slots=True)
class WebSocketOptions:
    """What one route asks of its connections; ``None`` stands for what the server says.

    ``heartbeat`` is (interval, timeout) in seconds or ``False`` for none.  ``origins`` lists the accepted ``Origin``
    headers: strings, patterns, and ``None`` for a missing one.
    """

    subprotocols: tuple[str, ...] = ()
    max_message_bytes: int | None = None
    heartbeat: tuple[float, float] | bool | None = None
    compression: bool = False
    control: bool = False
    origins: tuple[str | re.Pattern[str] | None, ...] | None = None
    max_queue_bytes: int | None = None


@dataclass(frozen=True, slots=True)
class Route:
    """One path and what answers it: a WebSocket endpoint, a page, or what takes a POST."""

    pattern: str
    segments: tuple[str | tuple[str, str], ...]
    endpoint: Endpoint | None = None
    page: Page | None = None
    options: WebSocketOptions = field(default_factory=WebSocketOptions)
    methods: tuple[str, ...] = ("GET",)


@dataclass(frozen=True, slots=True)
class Match:
    """A route, its parameters, the middleware around it, outermost first, and its pattern from the outermost router."""

    route: Route
    params: dict[str, Any]
    middleware: tuple[Middleware, ...]
    pattern: str


class Router:
    """Paths to handlers; see the module's text for patterns and middleware."""

    def __init__(self) -> None:
        self._tables = {kind: _Table() for kind in (SOCKET, PAGE, POST)}
        self._included: list[Included] = []
        self._middleware: list[tuple[Middleware, tuple[Callable[[str], object], ...]]] = []

    def websocket(
        self,
        path: str,
        handler: Endpoint | Callable[..., Any] | None = None,
        *,
        subprotocols: Sequence[str] = (),
        max_message_bytes: int | None = None,
        heartbeat: tuple[float, float] | bool | None = None,
        compression: bool = False,
        control: bool = False,
        origins: Sequence[str | re.Pattern[str] | None] | None = None,
        max_queue_bytes: int | None = None,
    ) -> Callable[[F], F]:
        """Answer WebSocket handshakes on ``path`` with ``handler``, or with the function that the result decorates.

        A plain function is taken as :func:`websocket_handler` takes it.  ``subprotocols`` in the server's order of
        preference: the first one offered is chosen, none where none fits.  ``compression`` negotiates
        permessage-deflate, without contexts (RFC 7692, 7.1.1); ``control`` gives pings and pongs to ``recv``, too.
        The rest says otherwise than the server does: ``heartbeat`` is (interval, timeout) or ``False`` for none,
        ``origins`` lists accepted ``Origin`` headers, ``None`` among them for a missing one.
        Raises ``ValueError`` for a path that is no pattern or taken, and as :class:`Server` does for the rest.
        """
        checks.at_least_one(max_message_bytes=max_message_bytes, max_queue_bytes=max_queue_bytes)
        options = WebSocketOptions(
            subprotocols=checks.names(subprotocols),
            max_message_bytes=max_message_bytes,
            heartbeat=heartbeat if heartbeat is None or isinstance(heartbeat, bool) else checks.pulse(heartbeat),
            compression=compression,
            control=control,
            origins=checks.origins(origins),
            max_queue_bytes=max_queue_bytes,
        )

        def register(handler: F) -> F:
            endpoint = handler if isinstance(handler, Endpoint) else websocket_handler(handler)
            self._add(Route(path, parse_pattern(path), endpoint=endpoint, options=options))
            return handler

        if handler is not None:
            register(handler)
        return register

    def get(self, path: str, handler: Page | None = None) -> Callable[[P], P]:
        """Answer GET and HEAD on ``path`` with ``handler(request, **path_params)``, plain or async.

        Without ``handler`` it is the function that the result decorates.  Any other method is answered with 405.
        Raises ``ValueError`` as :meth:`websocket` does.
        """

        return self._page(path, handler, ("GET", "HEAD"))

    def post(self, path: str, handler: Page | None = None) -> Callable[[P], P]:
        """Answer POST on ``path`` with ``handler(request, **path_params)``, plain or async: requests without a body.

        One with a body (RFC 9112, 6.3) is answered with 413, unread.  Else as :meth:`get`.
        """
        return self._page(path, handler, ("POST",))

    def _page(self, path: str, handler: Page | None, methods: tuple[str, ...]) -> Callable[[P], P]:
        def register(handler: P) -> P:
            checks.callable_("a page's handler", handler)
            self._add(Route(path, parse_pattern(path), page=handler, methods=methods))
            return handler

        if handler is not None:
            register(handler)
        return register

    def include(self, prefix: str, other: Router) -> None:
        """Mount the routes of ``other``, also those it gets later, under ``prefix``; it keeps its own middleware."""
        if other is self or self in other._all():
            raise ValueError("a router cannot include itself")
        included = (parse_pattern(prefix.rstrip("/")) if prefix.strip("/") else (), other)
        self._included.append(included)
        for table in self._tables.values():
            table.entries.append(included)

    def middleware(self, fn: Middleware, *, paths: str | Sequence[str] | None = None) -> Middleware:
        """Run ``await fn(request, call_next)`` before every route of this router, or before those that match ``paths``.

        ``paths`` are globs (``*`` any characters, ``?`` one that is no slash) over the decoded path below this router.
        The function answers with what ``await call_next(request)`` gave, or refuses with a response of its own before
        any upgrade.  Given back, so that it can be used as a decorator.
        """
        checks.callable_("a middleware", fn)
        globs = (paths,) if isinstance(paths, str) else tuple(paths or ())
        self._middleware.append((fn, tuple(_glob(glob) for glob in globs)))
        return fn

    def match(self, segments: Sequence[str], *, websocket: bool = True, post: bool = False) -> Match | None:
        """The route for decoded ``segments``, or ``None``.

        Where a path has several, ``websocket`` and ``post`` say which is asked for; without that one it is another,
        whose ``methods`` tell.
        """
        path = tuple(segments)
        wanted = [POST] if post else [SOCKET, PAGE] if websocket else [PAGE, SOCKET]
        for kind in dict.fromkeys((*wanted, PAGE, SOCKET, POST)):
            if found := self._find(path, kind):
                return found
        return None

    def _add(self, route: Route) -> None:
        kind = SOCKET if route.endpoint is not None else POST if route.methods == ("POST",) else PAGE
        self._tables[kind].add(route)

    def _find(self, segments: tuple[str, ...], kind: str) -> Match | None:
        return self._find_literal(segments, kind) or self._find_any(segments, kind)

    def _find_literal(self, segments: tuple[str, ...], kind: str) -> Match | None:
        """A route without parameters, here or in an included router."""
        route = self._tables[kind].literal.get(segments)
        if route is not None:
            return Match(route, {}, self._around(segments), route.pattern)
        for prefix, router in self._included:
            if segments[: len(prefix)] == prefix:
                found = router._find_literal(segments[len(prefix) :], kind)
                if found is not None:
                    return Match(
                        found.route, {}, self._around(segments) + found.middleware, _below(prefix, found.pattern)
                    )
        return None

    def _find_any(self, segments: tuple[str, ...], kind: str) -> Match | None:
        """Any route, in the order of registration, included routers standing where they were included."""
        for entry in self._tables[kind].entries:
            if isinstance(entry, Route):
                params = _bind(entry.segments, segments)
                if params is not None:
                    return Match(entry, params, self._around(segments), entry.pattern)
                continue
            prefix, router = entry
            bound = _bind(prefix, segments[: len(prefix)])
            found = router._find(segments[len(prefix) :], kind) if bound is not None else None
            if bound is not None and found is not None:
                around = self._around(segments) + found.middleware
                return Match(found.route, {**bound, **found.params}, around, _below(prefix, found.pattern))
        return None

    def _around(self, segments: tuple[str, ...]) -> tuple[Middleware, ...]:
        path = "/" + "/".join(segments)
        return tuple(fn for fn, globs in self._middleware if not globs or any(glob(path) for glob in globs))

    def _all(self) -> list[Router]:
        routers = [self]
        for _, router in self._included:
            routers += router._all()
        return routers


Included = tuple[tuple[str | tuple[str, str], ...], Router]


class _Table:
    """Routes of one kind."""

    def __init__(self) -> None:
        self.literal: dict[tuple[str, ...], Route] = {}
        self.entries: list[Route | Included] = []  # routes with parameters, and included routers

    def add(self, route: Route) -> None:
        """Add ``route``.  Raises ``ValueError`` where another one matches the very same paths."""
        if all(isinstance(segment, str) for segment in route.segments):
            key = tuple(str(segment) for segment in route.segments)
            if key in self.literal:
                raise ValueError(f"path {route.pattern!r} is taken")
            self.literal[key] = route
            return
        for other in self.entries:
            if isinstance(other, Route) and _shape(other) == _shape(route):
                raise ValueError(f"path {route.pattern!r} is taken by {other.pattern!r}")
        self.entries.append(route)


def _shape(route: Route) -> list[str | tuple[str, ...]]:
    return [segment if isinstance(segment, str) else segment[1:] for segment in route.segments]


def parse_pattern(pattern: str) -> tuple[str | tuple[str, str], ...]:
    """The segments of a pattern: literals, and (name, converter) for parameters.  Raises ``ValueError``."""
    if not pattern.startswith("/"):
        raise ValueError(f"path {pattern!r} does not start with a slash")
    segments: list[str | tuple[str, str]] = []
    names: set[str] = set()
    for part in pattern[1:].split("/"):
        if part.startswith(":"):
            raise ValueError(f"path {pattern!r}: a parameter is written {{{part[1:] or 'name'}}}, not {part}")
        if "{" not in part and "}" not in part:
            segments.append(part)
            continue
        match = _parameter(part)
        if match is None:
            raise ValueError(f"path {pattern!r}: {part!r} is not a parameter such as {{name}} or {{name:int}}")
        name, converter = match[1], match[2] or "str"
        if converter not in CONVERTERS:
            raise ValueError(f"path {pattern!r}: unknown converter {converter!r}")
        if name in names:
            raise ValueError(f"path {pattern!r}: two parameters {name!r}")
        if segments and isinstance(segments[-1], tuple) and segments[-1][1] == "path":
            raise ValueError(f"path {pattern!r}: nothing can follow a path parameter")
        names.add(name)
        segments.append((name, converter))
    for segment in segments[:-1]:
        if isinstance(segment, tuple) and segment[1] == "path":
            raise ValueError(f"path {pattern!r}: nothing can follow a path parameter")
    return tuple(segments)


def _below(prefix: Sequence[str | tuple[str, str]], pattern: str) -> str:
    """A pattern below a router's prefix."""
    parts = [part if isinstance(part, str) else "{" + ":".join(part).removesuffix(":str") + "}" for part in prefix]
    return "".join([f"/{part}" for part in parts]) + pattern


def _bind(pattern: Sequence[str | tuple[str, str]], segments: tuple[str, ...]) -> dict[str, Any] | None:
    """The parameters where ``segments`` fit ``pattern``, else ``None``; only a path parameter may be empty."""
    rest = bool(pattern) and isinstance(pattern[-1], tuple) and pattern[-1][1] == "path"
    if len(segments) < len(pattern) if rest else len(segments) != len(pattern):
        return None
    params: dict[str, Any] = {}
    for index, part in enumerate(pattern):
        segment = segments[index]
        if isinstance(part, str):
            if part != segment:
                return None
            continue
        name, converter = part
        if converter == "path":
            params[name] = "/".join(segments[index:])
            break
        if not segment:
            return None
        try:
            params[name] = CONVERTERS[converter](segment)
        except ValueError:
            return None
    return params


def _glob(glob: str) -> Callable[[str], object]:
    """A predicate for whole paths; its time is bounded by pattern times path."""
    first, *rest = [re.escape(part).replace(r"\?", "[^/]") for part in glob.split("*")]
    if not rest:
        return re.compile(first).fullmatch
    # The first place where a part fits is as good as any later one: atomic groups give up the others.
    middle = "".join([f"(?>.*?{part})" for part in rest[:-1] if part])
    return re.compile(f"{first}{middle}.*{rest[-1]}", re.DOTALL).fullmatch


async def run_chain(
    request: Request, middleware: Sequence[Middleware], innermost: Callable[[Request], Awaitable[Response]]
) -> Response:
    """Run ``request`` through ``middleware``, outermost first, to ``innermost``.

    Raises ``TypeError`` where a middleware gives back anything but a :class:`Response`, and what it raised.
    """
    if not middleware:
        return await innermost(request)
    outermost, *others = middleware

    async def call_next(request: Request) -> Response:
        return await run_chain(request, others, innermost)

    answer = outermost(request, call_next)
    response = await answer if inspect.isawaitable(answer) else answer
    if not isinstance(response, Response):
        raise TypeError(f"middleware {outermost!r} gave back {type(response).__name__}, not a Response")
    return response
