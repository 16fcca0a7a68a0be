"""HTTP requests and responses, as far as a handshake and a GET page need them (RFC 9110, 9112).

The path is split at its slashes first and percent-decoded segment by segment, once: no parameter can smuggle a slash.
"""

from __future__ import annotations

import email.utils
import http
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl, unquote_to_bytes

if TYPE_CHECKING:
    import ssl

__all__ = ["BadRequest", "Headers", "Query", "Request", "Response", "split_path", "split_target"]

_token = re.compile(r"[-!#$%&'*+.^_`|~0-9A-Za-z]+", re.ASCII).fullmatch
_field = re.compile(r"[\t\x20-\x7e\x80-\xff]*").fullmatch
_bad_path = re.compile(r"%(?![0-9A-Fa-f]{2})|[^\x21-\x7e]").search
_unprintable = re.compile(r"[^\x21-\x7e]").search
_absolute = re.compile(r"https?://[^/?#]*", re.IGNORECASE).match

MAX_QUERY_FIELDS = 256


class BadRequest(ValueError):
    """A request that cannot be read or never match; answered with ``status``."""

    def __init__(self, text: str, status: int = 400) -> None:
        super().__init__(text)
        self.status = status


class Headers(Mapping[str, str]):
    """Header fields, names without regard to case; several fields of one name read as one, joined by a comma."""

    __slots__ = ("_fields",)

    def __init__(self, fields: Iterable[tuple[str, str]] = ()) -> None:
        self._fields: dict[str, str] = {}
        for name, value in fields:
            name = name.lower()
            old = self._fields.get(name)
            self._fields[name] = value if old is None else f"{old}, {value}"

    def __getitem__(self, name: str) -> str:
        return self._fields[name.lower()]

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and name.lower() in self._fields

    def __iter__(self) -> Iterator[str]:
        return iter(self._fields)

    def __len__(self) -> int:
        return len(self._fields)

    def __repr__(self) -> str:
        return f"Headers({self._fields!r})"


class Query(Mapping[str, str]):
    """The fields of a query string; the last one of a name wins, :meth:`getlist` gives them all."""

    __slots__ = ("_fields",)

    def __init__(self, text: str = "") -> None:
        self._fields: dict[str, list[str]] = {}
        if text:
            for name, value in parse_qsl(text, keep_blank_values=True, max_num_fields=MAX_QUERY_FIELDS):
                self._fields.setdefault(name, []).append(value)

    def __getitem__(self, name: str) -> str:
        return self._fields[name][-1]

    def __iter__(self) -> Iterator[str]:
        return iter(self._fields)

    def __len__(self) -> int:
        return len(self._fields)

    def getlist(self, name: str) -> list[str]:
        """Every value of ``name``, in order; empty where there is none."""
        return list(self._fields.get(name, ()))

    def __repr__(self) -> str:
        return f"Query({self._fields!r})"


class Response:
    """An HTTP response: status, body and headers.

    ``headers`` may be changed until it is sent, also those of a 101.  Raises ``ValueError`` for a status that is
    neither 101 nor 200 to 599 and, when sent, for header fields that HTTP does not allow.  ``reason`` is what one that
    refuses is counted as, ``refusals_REASON``: a word of a fixed set, never the peer's.
    """

    __slots__ = ("body", "headers", "reason", "status")

    def __init__(
        self,
        status: int,
        body: bytes | str = b"",
        *,
        content_type: str = "text/plain; charset=utf-8",
        headers: Mapping[str, str] | None = None,
        reason: str = "",
    ) -> None:
        if status != 101 and not 200 <= status < 600:
            raise ValueError(f"{status} is not a status")
        self.status = status
        self.reason = reason
        self.body = body.encode() if isinstance(body, str) else body
        self.headers: dict[str, str] = {"Content-Type": content_type} if self.body or status != 101 else {}
        if headers:
            self.headers.update(headers)

    def __repr__(self) -> str:
        return f"<Response {self.status}, {len(self.body)} bytes>"

    def serialize(self, *, head: bool = False) -> bytes:
        """The response as bytes; ``head`` leaves the body out and its length in (RFC 9110, 9.3.2).

        Every response but a 101 closes the connection and says so.
        """
        try:
            phrase = http.HTTPStatus(self.status).phrase
        except ValueError:
            phrase = "Unknown"
        lines = [f"HTTP/1.1 {self.status} {phrase}"]
        given = {name.lower() for name in self.headers}
        if "date" not in given:
            lines.append(f"Date: {email.utils.formatdate(usegmt=True)}")
        for name, value in self.headers.items():
            if not _token(name) or not _field(value):
                raise ValueError(f"header field {name!r} cannot be sent")
            if name.lower() not in ("connection", "content-length") or self.status == 101:
                lines.append(f"{name}: {value}")
        if self.status != 101:
            lines.append("Connection: close")
            if self.status not in (204, 304):
                lines.append(f"Content-Length: {len(self.body)}")
        head_bytes = ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")
        return head_bytes if head or self.status in (101, 204, 304) else head_bytes + self.body


class Request:
    """A request before it is answered.

    ``path`` is decoded; ``route`` is the pattern that matched, ``path_params`` its parameters, converted; ``remote`` is
    the peer's address as asyncio gives it; ``state`` becomes ``ws.state`` of the connection.  ``secure``: it came over
    TLS; ``peer_certificate`` is then what the client showed and the context has verified, as ``SSLSocket.getpeercert``
    gives it, or ``None``, and ``tls_context`` the server's context that it was verified by.
    """

    __slots__ = (
        "headers",
        "method",
        "path",
        "path_params",
        "peer_certificate",
        "query",
        "remote",
        "route",
        "secure",
        "state",
        "target",
        "tls_context",
    )

    def __init__(
        self,
        method: str,
        target: str,
        headers: Headers,
        *,
        remote: Any = None,
        secure: bool = False,
        peer_certificate: Mapping[str, Any] | None = None,
        tls_context: ssl.SSLContext | None = None,
    ) -> None:
        self.method = method
        self.target = target
        raw_path, raw_query = split_target(target)
        self.path = "/" + "/".join(split_path(raw_path))
        try:
            self.query = Query(raw_query)
        except ValueError as error:
            raise BadRequest(f"query: {error}") from None
        self.headers = headers
        self.remote = remote
        self.secure = secure
        self.route = ""
        self.peer_certificate = peer_certificate
        self.tls_context = tls_context
        self.path_params: dict[str, Any] = {}
        self.state: dict[str, Any] = {}

    def __repr__(self) -> str:
        return f"<Request {self.method} {self.path}>"

    def refuse(
        self, status: int, text: str = "", headers: Mapping[str, str] | None = None, *, reason: str = ""
    ) -> Response:
        """A response that refuses; ``text`` and a line's end are its body, ``reason`` what it is counted as."""
        return Response(status, f"{text}\n" if text else "", headers=headers, reason=reason)


def split_target(target: str) -> tuple[str, str]:
    """The raw path and the raw query of a request target in origin or absolute form (RFC 9112, 3.2).

    Raises :class:`BadRequest` for any other, and for characters that no target has (RFC 9112, 2.2 and 3.2).
    """
    if _unprintable(target):
        raise BadRequest("request target holds control or non-ASCII characters")
    if not target.startswith("/"):
        match = _absolute(target)
        if match is None:
            raise BadRequest("request target is neither a path nor a URL")
        target = target[match.end() :]
        if not target.startswith("/"):
            target = "/" + target
    target = target.partition("#")[0]
    path, _, query = target.partition("?")
    return path, query


def split_path(raw: str) -> list[str]:
    """The segments of a raw path, each decoded once.

    Raises :class:`BadRequest` for an escape that is none, for anything but printable ASCII and for bytes that are not
    UTF-8 (400), and for an encoded slash or NUL, which no segment can hold (404).
    """
    if _bad_path(raw):
        raise BadRequest("path holds a bad escape or character")
    if "%" not in raw:
        return raw[1:].split("/")
    segments = []
    for segment in raw[1:].split("/"):
        try:
            segment = unquote_to_bytes(segment).decode()
        except UnicodeDecodeError:
            raise BadRequest("path is not UTF-8") from None
        if "/" in segment or "\0" in segment:
            raise BadRequest("path holds an encoded slash or NUL", 404)
        segments.append(segment)
    return segments
