"""What a request says of who sent it, and from where: headers and certificates, read strictly.  Pure.

- ``Authorization: Bearer <token>`` (RFC 6750) or ``Basic <base64 of device:token>`` (RFC 7617);
- ``Cookie: gateway_session=..`` (RFC 6265);
- the subject of a client certificate, where it names one CN, and until when it holds.

A token in an address is none: addresses stand in logs and histories.
"""

from __future__ import annotations

import base64
import binascii
import re
import ssl
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

import msgspec

__all__ = ["COOKIE", "Presented", "authorization", "common_name", "host_name", "same_origin", "sessions", "valid_until"]

COOKIE = "gateway_session"
MAX_SESSIONS = 4  # of one request: a page of a neighbouring name may have set one beside ours

_host = re.compile(r"(?:\[(?P<six>[0-9A-Fa-f:.]+)\]|(?P<name>[A-Za-z0-9._-]+))(?::(?P<port>[0-9]{1,5}))?").fullmatch
_ports = {"http": 80, "https": 443}


class Presented(msgspec.Struct, frozen=True):
    """A secret, and of Basic the device that it is said to be of; ``secret`` is empty where it cannot be read."""

    secret: str
    device: str | None = None

    def __repr__(self) -> str:
        return f"Presented(device={self.device!r})"


def authorization(header: str) -> Presented:
    """What an ``Authorization`` header holds."""
    scheme, _, rest = header.strip().partition(" ")
    rest = rest.strip()
    if scheme.lower() == "bearer":
        return Presented(rest)
    if scheme.lower() != "basic":
        return Presented("")
    try:
        device, colon, secret = base64.b64decode(rest, validate=True).decode().partition(":")
    except (binascii.Error, ValueError):
        return Presented("")
    return Presented(secret if colon else "", device)


def sessions(header: str) -> list[str]:
    """The sessions that a ``Cookie`` header holds."""
    pairs = [part.strip().partition("=") for part in header.split(";")]
    return [value for name, _, value in pairs if name == COOKIE and value][:MAX_SESSIONS]


def common_name(certificate: Mapping[str, Any] | None) -> str:
    """The CN of a verified certificate, as ``ssl.SSLSocket.getpeercert()`` gives it; empty where it has not one."""
    subject = (certificate or {}).get("subject", ())
    names = [value for pairs in subject for name, value in pairs if name == "commonName"]
    return str(names[0]) if len(names) == 1 else ""


def valid_until(certificate: Mapping[str, Any] | None) -> int | None:
    """Until when a verified certificate holds (``notAfter``), in milliseconds; ``None`` where it does not say."""
    ends = (certificate or {}).get("notAfter")
    return int(ssl.cert_time_to_seconds(ends)) * 1000 if ends else None


def host_name(host: str) -> str:
    """The name or address of a ``Host`` header (RFC 9112, 3.2), in lower case; empty where it is none.

    No more than a name and a port: with userinfo, ``evil@localhost``, it would name two.
    """
    match = _host(host)
    if match is None or (match["port"] and int(match["port"]) > 65_535):
        return ""
    return (match["six"] or match["name"]).lower()


def same_origin(host: str, origin: str, *, secure: bool = False) -> bool:
    """Whether a page of ``origin`` was served under the very name and port that ``host`` says.

    ``secure``: by TLS, too.  Without, something before the gateway may speak it.
    """
    try:
        parts = urlsplit(origin)
        default = _ports.get(parts.scheme)
        port = parts.port or default
    except ValueError:
        return False
    match = _host(host)
    if match is None or default is None or parts.username is not None or (secure and parts.scheme != "https"):
        return False
    return (parts.hostname, port) == (host_name(host), int(match["port"] or default))
