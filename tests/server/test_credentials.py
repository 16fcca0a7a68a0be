"""What a request says of who sent it: headers, cookies, certificates, origins."""

from __future__ import annotations

import base64

import pytest

from gateway.server.credentials import MAX_SESSIONS, authorization, common_name, host_name, same_origin, sessions


def encoded(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


@pytest.mark.parametrize(
    ("header", "device", "secret"),
    [
        ("Bearer abc", None, "abc"),
        ("bearer   abc  ", None, "abc"),
        ("BEARER a b", None, "a b"),
        ("Bearer", None, ""),
        ("Bearer abc, Bearer def", None, "abc, Bearer def"),
        (f"Basic {encoded('pump-1:abc')}", "pump-1", "abc"),
        (f"basic {encoded('pump-1:a:b')}", "pump-1", "a:b"),
        (f"Basic {encoded(':abc')}", "", "abc"),
        (f"Basic {encoded('pump-1')}", "pump-1", ""),
        ("Basic pump-1:abc", None, ""),
        ("Basic /w==", None, ""),
        ("Digest abc", None, ""),
        ("Token abc", None, ""),
        ("abc", None, ""),
        ("", None, ""),
    ],
)
def test_authorization(header: str, device: str | None, secret: str) -> None:
    """Bearer and Basic as their RFCs have them; of anything else there is no secret."""
    presented = authorization(header)
    assert (presented.device, presented.secret) == (device, secret)
    assert not secret or secret not in repr(presented)


def test_sessions() -> None:
    """Of all cookies those of our name, a few at most: a neighbour may have set one of that name beside ours."""
    assert sessions("a=b; gateway_session=x; c=d") == ["x"]
    assert sessions("gateway_session=; gateway_session=y;gateway_session=z=") == ["y", "z="]
    assert sessions("xgateway_session=1; gateway_sessionx=2; gateway_session") == []
    assert len(sessions("gateway_session=x;" * 100)) == MAX_SESSIONS
    assert sessions("") == []


def test_common_name() -> None:
    """A certificate names a device where it has one CN and no more."""
    one = {"subject": ((("countryName", "DE"),), (("commonName", "pump-1"),))}
    assert common_name(one) == "pump-1"
    assert common_name({"subject": ((("commonName", "a"),), (("commonName", "b"),))}) == ""
    assert common_name({"subject": ((("commonName", "a"), ("commonName", "b")),)}) == ""
    assert common_name({"subject": (), "subjectAltName": (("DNS", "pump-1"),)}) == ""
    assert common_name({}) == common_name(None) == ""


@pytest.mark.parametrize(
    ("host", "name"),
    [("A.b:80", "a.b"), ("[::1]:8080", "::1"), ("[FE80::1]", "fe80::1"), ("a@b", ""), ("a:b", ""), ("a:65536", "")],
)
def test_host_name(host: str, name: str) -> None:
    """A name or an address, with a port or without; anything else is none."""
    assert host_name(host) == name


@pytest.mark.parametrize(
    ("host", "origin", "same"),
    [
        ("a.example", "https://a.example", True),
        ("a.example:443", "https://a.example", True),
        ("a.example", "http://a.example:80", True),
        ("a.example:8080", "http://a.example:8080", True),
        ("[::1]:8080", "http://[::1]:8080", True),
        ("a.example:8080", "http://a.example", False),
        ("a.example", "http://a.example:8080", False),
        ("a.example", "http://b.a.example", False),
        ("a.example", "ftp://a.example", False),
        ("a.example", "null", False),
        ("a.example", "http://x@a.example", False),
        ("x@a.example", "http://a.example", False),
        ("", "http://", False),
        ("a.example", "http://[a.example", False),
        ("a.example", "http://a.example:port", False),
    ],
)
def test_same_origin(host: str, origin: str, same: bool) -> None:
    """The same name and the same port, which may be left out where it is the scheme's own."""
    assert same_origin(host, origin) is same


def test_behind_tls_only_tls_is_the_same_origin() -> None:
    """A page that came without it, of whichever port, is another's; something before us may speak it for us."""
    assert same_origin("a.example", "https://a.example", secure=True)
    assert not same_origin("a.example", "http://a.example", secure=True)
    assert not same_origin("a.example:8443", "http://a.example:8443", secure=True)
    assert same_origin("a.example", "https://a.example", secure=False)
