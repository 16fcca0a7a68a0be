"""Host and Origin."""

import pytest

from gateway.server.guard import Guard

guard = Guard(["https://dash.example", "http://10.9.8.7:3000"], hostname="barn")


@pytest.mark.parametrize(
    ("host", "origin"),
    [
        ("localhost:8080", None),
        ("127.0.0.1:8080", "http://127.0.0.1:8080"),
        ("[::1]:8080", "http://[::1]:8080"),
        ("barn:8080", "http://barn.local:8080"),
        ("BARN.local", None),
        ("192.168.1.5", "http://192.168.1.5"),
        ("dash.example", "https://dash.example"),
        ("localhost", "file://"),
        ("localhost", "https://DASH.example"),
        ("localhost", "http://10.9.8.7:3000"),
        (None, None),
    ],
)
def test_ours_and_listed_pass(host, origin):
    """Loopback names, addresses, this machine's name, listed origins and what is no web page pass."""
    assert guard.problem(host, origin) == ""


@pytest.mark.parametrize(
    ("host", "origin"),
    [
        ("evil.example", None),
        ("evil.example:8080", "http://localhost"),
        ("localhost.evil.example", None),
        ("127.0.0.1.evil.example", None),
        ("", None),
        ("[::1", None),
        ("localhost", "http://evil.example"),
        ("localhost", "https://dash.example:444"),
        ("localhost", "http://dash.example"),
        ("localhost", "null"),
        ("localhost", "http://barn.local.evil.example"),
        ("localhost", "http://localhost@evil.example"),
        ("localhost", "http://"),
    ],
)
def test_others_are_refused(host, origin):
    """A name that was made to point here, and a page from elsewhere, are refused."""
    assert guard.problem(host, origin)


def test_null_passes_where_it_is_listed():
    """An opaque origin has to be listed by that word."""
    assert Guard(["null"], hostname="barn").problem("localhost", "null") == ""
