"""Requests and responses."""

from __future__ import annotations

import pytest

from gateway.ws import Headers, Query, Request, Response
from gateway.ws.request import BadRequest, split_target


def test_headers_know_no_case_and_join() -> None:
    """A name is found in any case; fields of one name read as one."""
    headers = Headers([("Host", "here"), ("Accept", "a"), ("accept", "b")])
    assert headers["HOST"] == headers.get("host") == "here"
    assert headers["Accept"] == "a, b"
    assert "ACCEPT" in headers
    assert "other" not in headers
    assert headers.get("other") is None
    assert (len(headers), sorted(headers)) == (2, ["accept", "host"])


def test_query_gives_the_last_and_the_list() -> None:
    """Of a field given twice get has the last value, getlist both; blank values are kept and escapes decoded."""
    query = Query("a=1&b=%C3%B6+x&a=2&c=")
    assert (query["a"], query.getlist("a")) == ("2", ["1", "2"])
    assert query["b"] == "ö x"
    assert query["c"] == ""
    assert query.get("d") is None
    assert query.getlist("d") == []
    assert dict(query) == {"a": "2", "b": "ö x", "c": ""}


def test_a_query_of_too_many_fields_is_refused() -> None:
    """A query has at most 256 fields."""
    with pytest.raises(BadRequest, match="query"):
        Request("GET", "/?" + "a&" * 300, Headers())


@pytest.mark.parametrize(
    ("target", "parts"),
    [
        ("/a?b=c", ("/a", "b=c")),
        ("/a", ("/a", "")),
        ("http://host:1/a?b", ("/a", "b")),
        ("HTTPS://host", ("/", "")),
        ("http://host?b", ("/", "b")),
        ("/a#f?b", ("/a", "")),
    ],
)
def test_targets(target: str, parts: tuple[str, str]) -> None:
    """Origin and absolute form give path and query; a fragment is cut off."""
    assert split_target(target) == parts


@pytest.mark.parametrize("target", ["*", "a", "", "ftp://host/a", "host:80"])
def test_other_targets_are_refused(target: str) -> None:
    """Anything else is no target of a GET."""
    with pytest.raises(BadRequest):
        split_target(target)


def test_a_response_is_serialized_with_its_length_and_the_end() -> None:
    """Every response says its length and that the connection closes; HEAD has the length without the body."""
    response = Response(200, "hé", headers={"Content-Length": "99", "X-A": "b", "connection": "keep-alive"})
    head, _, body = response.serialize().partition(b"\r\n\r\n")
    lines = head.decode().split("\r\n")
    assert lines[0] == "HTTP/1.1 200 OK"
    assert "X-A: b" in lines
    assert [line for line in lines if line.lower().startswith(("content-length", "connection"))] == [
        "Connection: close",
        "Content-Length: 3",
    ]
    assert body == "hé".encode()
    assert response.serialize(head=True) == head + b"\r\n\r\n"


def test_responses_without_a_body() -> None:
    """204 and 304 have neither body nor length (RFC 9110, 8.6)."""
    for status in (204, 304):
        data = Response(status, b"x").serialize()
        assert data.endswith(b"\r\n\r\n")
        assert b"Content-Length" not in data


@pytest.mark.parametrize(
    "headers", [{"A\r\nB": "c"}, {"A": "b\r\nC: d"}, {"A": "b\n"}, {"": "x"}, {"A": "\0"}, {"A": "€"}]
)
def test_header_fields_that_would_split_are_refused(headers: dict[str, str]) -> None:
    """No header field can smuggle a line."""
    with pytest.raises(ValueError, match="header field"):
        Response(200, headers=headers).serialize()


def test_a_status_must_be_one() -> None:
    """A status is between 100 and 599; one without a name is sent all the same."""
    with pytest.raises(ValueError, match="status"):
        Response(42)
    assert Response(599).serialize().startswith(b"HTTP/1.1 599 Unknown\r\n")


def test_refuse_makes_a_response() -> None:
    """A request refuses with any status, a line of text and headers."""
    response = Request("GET", "/", Headers()).refuse(429, "slowly", {"Retry-After": "3"})
    assert (response.status, response.body, response.headers["Retry-After"]) == (429, b"slowly\n", "3")
