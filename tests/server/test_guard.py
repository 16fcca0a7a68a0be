"""Host and Origin."""

import pytest

from gateway.server.guard import Guard

guard = Guard(["https://dash.example", "http://10.9.8.7:3000"], hostname="barn")


@pytest.mark.parametrize(
    "host",
    [
        "localhost:8080",
        "127.0.0.1:8080",
        "[::1]:8080",
        "barn:8080",
        "BARN.local",
        "192.168.1.5",
        "dash.example",
        "page.localhost:8080",
        None,
    ],
)
def test_our_names_and_listed_ones_pass(host):
    """Loopback names, addresses, this machine's name and those of listed origins are asked for rightly."""
    assert guard.host_problem(host) == ""


@pytest.mark.parametrize(
    "host",
    [
        "evil.example",
        "evil.example:8080",
        "localhost.evil.example",
        "127.0.0.1.evil.example",
        "",
        "[::1",
        "evil@localhost",
        "localhost@evil.example",
        "evil.example@127.0.0.1:8080",
        "localhost:8080:8080",
        "localhost:port",
        "localhost:99999",
        "localhost/evil.example",
        "localhost?evil.example",
        "localhost#evil.example",
        "localhost, evil.example",
        "localhost\\evil.example",
        " localhost",
        "[localhost]",
        "2130706433",
        "0x7f000001",
        "127.1",
        "lоcalhost",
    ],
)
def test_other_names_are_refused(host):
    """A name that was made to point here, or that names two, is refused."""
    assert guard.host_problem(host)


@pytest.mark.parametrize(
    "origin",
    [
        None,
        "http://127.0.0.1:8080",
        "http://[::1]:8080",
        "http://barn.local:8080",
        "http://192.168.1.5",
        "file://",
        "https://DASH.example",
        "http://10.9.8.7:3000",
    ],
)
def test_our_origins_and_listed_ones_pass(origin):
    """Our own pages, listed origins, and what is no web page pass."""
    assert guard.origin_problem(origin) == ""


@pytest.mark.parametrize(
    "origin",
    [
        "http://localhost.evil.example",
        "http://evil.example",
        "https://dash.example:444",
        "http://dash.example",
        "null",
        "http://barn.local.evil.example",
        "http://localhost@evil.example",
        "http://evil@localhost",
        "http://localhost:80:80",
        "http://localhost/evil.example",
        "http://localhost, http://evil.example",
        "http://",
        "http:localhost",
        "https://",
    ],
)
def test_other_origins_are_refused(origin):
    """A page from elsewhere is refused, and so is what only looks like an origin."""
    assert guard.origin_problem(origin)


def test_null_passes_where_it_is_listed():
    """An opaque origin has to be listed by that word."""
    assert Guard(["null"], hostname="barn").origin_problem("null") == ""


def test_others_can_be_listed_later():
    """What is listed anew takes the place of what was."""
    later = Guard(["https://dash.example"], hostname="barn")
    later.accept(["https://other.example"])
    assert later.origin_problem("https://other.example") == later.host_problem("other.example") == ""
    assert later.origin_problem("https://dash.example")
    assert later.host_problem("dash.example")
