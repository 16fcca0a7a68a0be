"""Requests that are none, or more than one (RFC 9112, and what goes by the name of request smuggling)."""

from __future__ import annotations

from .corpus import Case
from .doors import REQUEST


def raw(attack: str, name: str, sent: bytes, *expected: str, check: str = "") -> Case:
    return Case(attack, name, "http", sent, expected, check)


def head(
    name: str, *lines: bytes, expected: str = "400", check: str = "parser", first: bytes = b"GET /livez HTTP/1.1"
) -> Case:
    return raw("request", name, b"\r\n".join([first, *lines, b"", b""]), expected, check=check)


HOST = b"Host: localhost"

CASES = [
    head("two hosts", HOST, HOST, check="host count"),
    head("no host", check="host count"),
    head("a foreign host", b"Host: evil.example", expected="403", check="host"),
    head("a foreign host that ends like ours", b"Host: localhost.evil.example", expected="403", check="host"),
    head("a host with our name in front of an at", b"Host: localhost@evil.example", expected="403", check="host"),
    head("a host that is none", b"Host: [::1", expected="403", check="host"),
    head("a foreign origin", HOST, b"Origin: http://evil.example", expected="403", check="origin"),
    head("an origin that is null", HOST, b"Origin: null", expected="403", check="origin"),
    head("an origin that is none", HOST, b"Origin: http://[", expected="403", check="origin"),
    # a body, and what could be taken for a second request
    raw(
        "request",
        "a body behind a length",
        b"GET /livez HTTP/1.1\r\nHost: a\r\nContent-Length: 40\r\n\r\n" + REQUEST,
        "400",
        check="body",
    ),
    raw(
        "request",
        "chunks",
        b"GET /livez HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n" + REQUEST,
        "400",
        check="body",
    ),
    raw(
        "request",
        "chunks and a length",
        b"POST /login HTTP/1.1\r\nHost: localhost\r\nContent-Length: 6\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nG"
        + REQUEST,
        "413",
        check="body",
    ),
    raw(
        "request",
        "two lengths",
        b"POST /login HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\nContent-Length: 9\r\n\r\n",
        "413",
        check="body",
    ),
    raw("request", "one request behind another", REQUEST + REQUEST, "200"),
    raw("request", "a name with a space", b"GET /livez HTTP/1.1\r\nHost : localhost\r\n\r\n", "400", check="parser"),
    raw(
        "request", "a continued line", b"GET /livez HTTP/1.1\r\nHost: localhost\r\n X: y\r\n\r\n", "400", check="parser"
    ),
    raw("request", "a line without a colon", b"GET /livez HTTP/1.1\r\nHost localhost\r\n\r\n", "400", check="parser"),
    raw("request", "lines that end with LF alone", b"GET /livez HTTP/1.1\nHost: localhost\n\n", "closed"),
    raw("request", "a CR alone", b"GET /livez HTTP/1.1\rHost: localhost\r\r\n\r\n", "400", check="parser"),
    head("NUL in a value", b"Host: local\0host"),
    head("another version", HOST, first=b"GET /livez HTTP/9.9"),
    head("no version", HOST, first=b"GET /livez"),
    head("three words too many", HOST, first=b"GET / livez x y HTTP/1.1"),
    head("a method that there is not", HOST, first=b"DELETE /livez HTTP/1.1", expected="405", check="method"),
    head("a tunnel", HOST, first=b"CONNECT evil.example:443 HTTP/1.1"),
    head("a method that is none", HOST, first=b"G(T /livez HTTP/1.1", expected="405", check="method"),
    raw("request", "TLS to a plain port", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\0" * 200, "closed"),
    raw("request", "HTTP/2", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "400", check="parser"),
    raw("request", "nothing", b"", "closed"),
    raw("request", "nothing but ends of lines", b"\r\n\r\n", "400", check="parser"),
    raw("request", "half a head", b"GET /livez HTTP/1.1\r\nHost: loc", "closed"),
    # size
    raw("size", "a head without end", b"GET /livez HTTP/1.1\r\n" + b"X: y\r\n" * 4_000, "431", check="head size"),
    raw("size", "a line without end", b"GET /livez HTTP/1.1\r\nX: " + b"y" * 30_000, "431", check="head size"),
    head("101 fields and more", HOST, *[b"X: y"] * 200, expected="431", check="field count"),
    head("a field of 9,000 characters", HOST, b"X: " + b"y" * 9_000, expected="431", check="line size"),
    raw("size", "a target without end", b"GET /" + b"x" * 40_000, "431", check="head size"),
    # handshakes
    *[
        Case("request", f"a handshake: {name}", "upgrade", ("/v1/live", *lines), (status,), check)
        for name, lines, status, check in (
            ("no key", ("Sec-WebSocket-Key:",), "400", "handshake"),
            ("a key that is none", ("Sec-WebSocket-Key: x",), "400", "handshake"),
            ("another version", ("Sec-WebSocket-Version: 8",), "426", "version"),
            ("not asked for", ("Connection: close",), "426", "handshake"),
            ("another protocol", ("Upgrade: h2c",), "426", "handshake"),
            ("from elsewhere", ("Origin: https://evil.example",), "403", "origin"),
            ("of a foreign host", ("Host: evil.example",), "403", "host"),
            ("99 extensions", ("Sec-WebSocket-Extensions: " + ", ".join(["x-a; b=c"] * 99),), "101", ""),
            ("999 subprotocols", ("Sec-WebSocket-Protocol: " + ", ".join(f"a{n}" for n in range(999)),), "101", ""),
        )
    ],
]
