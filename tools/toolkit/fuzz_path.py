"""Target ``path``: from a request's target to a route.

Byte 0 says what the rest is: a request target (also checked against decoding by hand), a route's pattern, or a glob and
a path with a NUL between them.
"""

from __future__ import annotations

import contextlib
import re
from functools import cache
from typing import Any
from urllib.parse import quote

from gateway.ws import Request, Router
from gateway.ws.request import BadRequest, Headers, split_path, split_target
from gateway.ws.router import _glob, parse_pattern

from .fuzz_http import routes
from .fuzzing import Finding, Target

__all__ = ["TARGETS"]


def check_path(data: bytes) -> None:
    """A target, a pattern, or a glob with a path."""
    if not data:
        return
    text = data[1:].decode("latin-1")
    kind = data[0] % 4
    if kind == 0:
        with contextlib.suppress(ValueError):
            _check_pattern(text)
    elif kind == 1:
        glob, _, path = text.partition("\0")
        if len(glob) <= 12 and len(path) <= 60 and bool(_glob(glob)(path)) != _globbed(glob, path):
            raise Finding(f"glob {glob!r} and {path!r}")
    else:
        _check_target(text)


def _check_pattern(text: str) -> None:
    segments = parse_pattern(text)
    again = "/" + "/".join(
        one if isinstance(one, str) else "{%s}" % (one[0] if one[1] == "str" else ":".join(one)) for one in segments
    )
    if again != text.replace(":str}", "}"):
        raise Finding(f"pattern {text!r} was read as {again!r}")


def _globbed(glob: str, path: str) -> bool:
    """Whether ``path`` matches, by the definition: ``*`` any characters, ``?`` one that is no slash."""
    ends = {0}
    for char in glob:
        if char == "*":
            ends = set(range(min(ends), len(path) + 1)) if ends else ends
        elif char == "?":
            ends = {end + 1 for end in ends if end < len(path) and path[end] != "/"}
        else:
            ends = {end + 1 for end in ends if end < len(path) and path[end] == char}
    return len(path) in ends


@cache
def _router() -> Router:
    return routes()


def _check_target(text: str) -> None:
    try:
        request = Request("GET", text, Headers())
        raw = split_target(text)[0]
        segments = split_path(raw)
    except BadRequest as error:
        if error.status not in (400, 404):
            raise Finding(f"status {error.status}") from error
        return
    by_hand = [_decoded(segment) for segment in raw[1:].split("/")]
    if segments != by_hand:
        raise Finding(f"{segments} instead of {by_hand}")
    if any("/" in segment or "\0" in segment for segment in segments):
        raise Finding(f"a segment holds a slash or NUL: {segments}")
    if request.path != "/" + "/".join(segments):
        raise Finding(f"path {request.path!r} of {segments}")
    if split_path("/" + "/".join(quote(segment, safe="") for segment in segments)) != segments:
        raise Finding(f"{segments} do not survive being encoded and decoded")
    for name in request.query:
        if request.query[name] != request.query.getlist(name)[-1]:
            raise Finding(f"the last {name!r} does not win")
    for websocket in (True, False):
        match = _router().match(segments, websocket=websocket)
        found = None if match is None else (match.route.pattern, match.params)
        if found != _matched(segments, websocket):
            raise Finding(f"{segments}: {found} instead of {_matched(segments, websocket)}")


def _decoded(segment: str) -> str:
    """One pass over a segment, by hand."""
    made = bytearray()
    at = 0
    while at < len(segment):
        if segment[at] == "%":
            made.append(int(segment[at + 1 : at + 3], 16))
            at += 3
        else:
            made += segment[at].encode()
            at += 1
    return made.decode()


def _matched(segments: list[str], websocket: bool) -> tuple[str, dict[str, Any]] | None:
    """The route of :func:`routes` and its parameters, written out."""
    page, socket = _page(segments), _socket(segments)
    return (socket or page) if websocket else (page or socket)


def _page(segments: list[str]) -> tuple[str, dict[str, Any]] | None:
    if segments == ["page"]:
        return "/page", {}
    if segments == ["both"]:
        return "/both", {}
    if segments[0] == "files" and len(segments) > 1:
        return "/files/{rest:path}", {"rest": "/".join(segments[1:])}
    return None


def _socket(segments: list[str]) -> tuple[str, dict[str, Any]] | None:
    path = "/".join(segments)
    if path in ("", "zip", "origin", "secure/x", "both"):
        return f"/{path}", {}
    if len(segments) == 2 and segments[0] == "chat" and segments[1]:
        return "/chat/{user}", {"user": segments[1]}
    if len(segments) == 2 and segments[0] == "n" and re.fullmatch("-?[0-9]{1,18}", segments[1], re.ASCII):
        return "/n/{n:int}", {"n": int(segments[1])}
    if len(segments) == 2 and segments[0] == "f":
        if re.fullmatch(r"-?[0-9]{1,18}(\.[0-9]{1,18})?", segments[1], re.ASCII):
            return "/f/{x:float}", {"x": float(segments[1])}
        return None
    if len(segments) == 4 and segments[0] == "in" and segments[3] == "x" and segments[1] and segments[2]:
        return "/{room}/x", {"house": segments[1], "room": segments[2]}
    return None


_PATHS = (
    b"\x02/",
    b"\x02/chat/%C3%B6%20x?a=1&a=2&b",
    b"\x02/chat/..%2f..",
    b"\x02http://host:1/n/-12#f",
    b"\x02/f/1.5",
    b"\x02/f/1e5",
    b"\x02/files/a//%25%32%46/b",
    b"\x02/in/a/%2525/x",
    b"\x02//",
    b"\x02/n/%31%32?%zz=%",
    b"\x00/chat/{user_id}/{n:int}/{rest:path}",
    b"\x00/{a}/b/",
    b"\x01/secure/*\x00/secure/a/b",
    b"\x01*a?b*\x00xa/b\n",
)
_PATH_TOKENS = (
    b"%2f",
    b"%00",
    b"%25",
    b"%C3%B6",
    b"%ff",
    b"/",
    b"//",
    b"..",
    b"?",
    b"#",
    b"{a:int}",
    b"{b:path}",
    b"*",
)

TARGETS = {
    "path": Target("path", "targets, patterns and globs", check_path, _PATHS, _PATH_TOKENS, 600),
}
