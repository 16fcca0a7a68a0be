"""Routes, converters, inclusion and middleware, without a server."""

from __future__ import annotations

import re
from typing import Any
from urllib.parse import quote

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from gateway.ws import Request, Response, Router, message_handler
from gateway.ws.request import BadRequest, Headers, split_path, split_target
from gateway.ws.router import Next, parse_pattern, run_chain


async def handler(ws: Any, **params: Any) -> None:
    """A handler that is never called."""


def matched(router: Router, path: str, *, websocket: bool = True) -> tuple[str, dict[str, Any]] | None:
    """The pattern and the parameters for a raw path."""
    match = router.match(split_path(path), websocket=websocket)
    return None if match is None else (match.route.pattern, match.params)


def routes(*patterns: str) -> Router:
    router = Router()
    for pattern in patterns:
        router.websocket(pattern, handler)
    return router


def test_literal_paths_match_exactly() -> None:
    """A path matches as a whole, slashes at its end and case included."""
    router = routes("/", "/a", "/a/b")
    assert matched(router, "/a") == ("/a", {})
    assert matched(router, "/") == ("/", {})
    for path in ("/A", "/a/", "//a", "/a/b/c", "/b", "/a//b"):
        assert matched(router, path) is None, path


def test_parameters_are_decoded_once() -> None:
    """An escape in a segment is decoded once; what it hides stays a value."""
    router = routes("/chat/{user}/x")
    assert matched(router, "/chat/b%C3%B6b%20%26/x") == ("/chat/{user}/x", {"user": "böb &"})
    assert matched(router, "/chat/%252F/x") == ("/chat/{user}/x", {"user": "%2F"})
    assert matched(router, "/c%68at/a/x") == ("/chat/{user}/x", {"user": "a"})
    assert matched(router, "/chat//x") is None
    assert matched(router, "/chat/../x") == ("/chat/{user}/x", {"user": ".."})


@pytest.mark.parametrize(
    ("path", "status"),
    [("/%2F", 404), ("/a%2fb", 404), ("/%00", 404), ("/%", 400), ("/%4", 400), ("/%zz", 400), ("/%FF", 400)],
)
def test_paths_that_no_segment_can_hold(path: str, status: int) -> None:
    """An encoded slash or NUL matches nothing; a bad escape or bytes that are not UTF-8 are a bad request."""
    with pytest.raises(BadRequest) as refused:
        split_path(path)
    assert refused.value.status == status


def test_converters() -> None:
    """int and float take numbers alone, path takes the rest with its slashes."""
    router = routes("/n/{n:int}", "/f/{f:float}", "/rest/{rest:path}", "/s/{s:str}")
    assert matched(router, "/n/-12") == ("/n/{n:int}", {"n": -12})
    assert matched(router, "/f/1.5") == ("/f/{f:float}", {"f": 1.5})
    assert matched(router, "/rest/a/b%20c/") == ("/rest/{rest:path}", {"rest": "a/b c/"})
    assert matched(router, "/rest/") == ("/rest/{rest:path}", {"rest": ""})
    assert matched(router, "/s/1") == ("/s/{s:str}", {"s": "1"})
    for path in ("/n/x", "/n/1.0", "/n/+1", "/n/1_0", "/n/%D9%A1", "/f/nan", "/f/1e5", "/rest", "/n/" + "9" * 30):
        assert matched(router, path) is None, path


def test_literal_goes_before_parameter_and_first_before_later() -> None:
    """A literal route wins whenever it was added; among patterns the first registered does."""
    router = routes("/{a}/x", "/b/{c}", "/chat/{id}", "/chat/lobby")
    assert matched(router, "/chat/lobby") == ("/chat/lobby", {})
    assert matched(router, "/b/x") == ("/{a}/x", {"a": "b"})
    assert matched(router, "/b/y") == ("/b/{c}", {"c": "y"})


def test_a_path_may_have_a_socket_and_a_page() -> None:
    """Which of the two answers depends on whether an upgrade is asked for."""
    router = routes("/here", "/only-socket")
    router.get("/here", lambda request: Response(200))
    router.get("/page/{n}", lambda request, n: Response(200))
    for websocket in (True, False):
        match = router.match(["here"], websocket=websocket)
        assert match is not None
        assert (match.route.page is None) is websocket
    assert matched(router, "/only-socket", websocket=False) == ("/only-socket", {})
    assert matched(router, "/page/1", websocket=True) == ("/page/{n}", {"n": "1"})


@pytest.mark.parametrize(
    "pattern",
    ["chat", "", "/{}", "/{1a}", "/x{a}", "/{a}x", "/{a", "/{a:uuid}", "/{a}/{a}", "/{a:path}/b", "/{a:path}/{b}"],
)
def test_bad_patterns_are_refused(pattern: str) -> None:
    """A pattern that cannot mean anything is refused where it is registered."""
    with pytest.raises(ValueError, match="path"):
        Router().websocket(pattern, handler)


def test_the_same_paths_cannot_be_routed_twice() -> None:
    """Neither a literal path nor a pattern of the same shape can be taken twice by one router."""
    router = routes("/a", "/x/{b}", "/y/{b:int}")
    for pattern in ("/a", "/x/{other}", "/y/{n:int}"):
        with pytest.raises(ValueError, match="taken"):
            router.websocket(pattern, handler)
    router.websocket("/y/{name}", handler)
    router.get("/a", lambda request: Response(200))


def test_include_mounts_routes_also_later_ones() -> None:
    """An included router's routes stand under the prefix, whenever they were added; prefixes may have parameters."""
    inner, router = Router(), Router()
    router.include("/v1", inner)
    router.include("/tenants/{tenant}", inner)
    inner.websocket("/live", handler)
    assert matched(router, "/v1/live") == ("/live", {})
    assert matched(router, "/tenants/t1/live") == ("/live", {"tenant": "t1"})
    assert matched(router, "/live") is None
    root = Router()
    root.include("/", router)
    assert matched(root, "/v1/live") == ("/live", {})
    for loop in (inner, router, root):
        with pytest.raises(ValueError, match="itself"):
            inner.include("/x", loop)


def named(name: str, trail: list[str]) -> Any:
    async def middleware(request: Request, call_next: Next) -> Response:
        trail.append(f">{name}")
        response = await call_next(request)
        trail.append(f"<{name}")
        return response

    return middleware


async def run(router: Router, path: str) -> Response | None:
    """The middleware of a path's route, with a page inside."""
    match = router.match(split_path(path))
    if match is None:
        return None

    async def page(request: Request) -> Response:
        return Response(200)

    return await run_chain(Request("GET", path, Headers()), match.middleware, page)


async def test_middleware_runs_outermost_first_and_stays_with_its_router() -> None:
    """The including router's comes first, and an included router's covers its own routes alone."""
    trail: list[str] = []
    inner, router = Router(), Router()
    inner.websocket("/in", handler)
    inner.middleware(named("inner", trail))
    router.websocket("/out", handler)
    router.include("/sub", inner)
    router.middleware(named("one", trail))
    router.middleware(named("two", trail))
    await run(router, "/out")
    assert trail == [">one", ">two", "<two", "<one"]
    trail.clear()
    await run(router, "/sub/in")
    assert trail == [">one", ">two", ">inner", "<inner", "<two", "<one"]


async def test_middleware_for_some_paths() -> None:
    """With paths it runs where a glob matches the decoded path, however the path was written."""
    trail: list[str] = []
    router = routes("/secure/a", "/secure/a/b", "/open", "/secure")
    router.middleware(named("auth", trail), paths="/secure/*")
    router.middleware(named("both", trail), paths=["/open", "/secur?"])
    for path, expected in {
        "/secure/a": [">auth"],
        "/%73ecure/a": [">auth"],
        "/secure/a/b": [">auth"],
        "/open": [">both"],
        "/secure": [">both"],
    }.items():
        trail.clear()
        await run(router, path)
        assert trail[:1] == expected, path
        assert len(trail) == 2


async def test_middleware_must_answer() -> None:
    """A middleware that gives back nothing is an error of the program, not an upgrade."""
    router = routes("/a")
    router.middleware(lambda request, call_next: None)  # type: ignore[arg-type,return-value]
    with pytest.raises(TypeError, match="NoneType"):
        await run(router, "/a")


def test_decorators_give_the_function_back() -> None:
    """Registered by decorator, a function can still be called and registered again."""
    router = Router()
    assert router.websocket("/a")(handler) is handler
    page = router.get("/b")(lambda request: Response(204))
    assert page(Request("GET", "/b", Headers())).status == 204
    router.websocket("/c", message_handler(handler))


segment = st.text(st.characters(exclude_categories=("Cs",), exclude_characters="/\0"), min_size=1, max_size=8)


@given(st.lists(segment, min_size=1, max_size=4), st.lists(st.booleans(), min_size=4, max_size=4))
def test_any_segments_come_back_as_parameters(segments: list[str], literal: list[bool]) -> None:
    """Whatever characters a segment has, quoted it matches a literal or comes back as the parameter."""
    parts, params = [], {}
    for index, (text, is_literal) in enumerate(zip(segments, literal, strict=False)):
        if is_literal and not re.search("[{}]|^:", text):
            parts.append(text)
        else:
            parts.append(f"{{p{index}}}")
            params[f"p{index}"] = text
    pattern = "/" + "/".join(parts)
    router = routes(pattern)
    path = "/" + "/".join(quote(text, safe="") for text in segments)
    assert matched(router, path) == (pattern, params)
    assert Request("GET", path, Headers()).path == "/" + "/".join(segments)


@given(st.text(max_size=30), st.text(max_size=10))
def test_any_target_is_read_or_refused(text: str, query: str) -> None:
    """Any text as a target either gives segments and a query or is a bad request; nothing else is raised."""
    try:
        raw, _ = split_target("/" + text + "?" + query)
        segments = split_path(raw)
        Request("GET", "/" + text + "?" + query, Headers())
    except BadRequest:
        return
    assert not any("/" in part for part in segments)


@given(st.text(max_size=20))
def test_any_pattern_is_read_or_refused(text: str) -> None:
    """Any text as a pattern gives segments or a ValueError."""
    try:
        segments = parse_pattern(text)
    except ValueError:
        return
    assume(all(isinstance(part, str) for part in segments))
    assert "/" + "/".join(str(part) for part in segments) == text
