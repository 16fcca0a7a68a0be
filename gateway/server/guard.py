"""Host and Origin: who may ask at all (section 1 of the contract).

A page from elsewhere, or a foreign name that was made to resolve to this machine (DNS rebinding), cannot use a browser
as its way in: a request whose ``Host`` or web ``Origin`` is neither ours nor listed is refused with 403.
"""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Iterable
from urllib.parse import urlsplit

from .credentials import host_name

__all__ = ["Guard"]


class Guard:
    """Says what is ours; ``origins`` are those listed beside it, such as ``https://dash.example`` or ``null``."""

    def __init__(self, origins: Iterable[str] = (), hostname: str | None = None) -> None:
        self.accept(origins)
        own = (hostname or socket.gethostname()).lower()
        short = own.removesuffix(".local")
        self._own = {"localhost", own, short, f"{short}.local"}

    def accept(self, origins: Iterable[str]) -> None:
        """List others from now on."""
        self._origins = {origin.lower().rstrip("/") for origin in origins}
        self._listed = {name for origin in self._origins if (name := _hostname(origin))}

    def host_problem(self, host: str | None) -> str:
        """Why a request for this ``Host`` may not pass, in words; empty if it may."""
        name = host_name(host) if host is not None else "localhost"
        if self._ours(name) or name in self._listed:
            return ""
        return "this name is not the gateway's: add it to GATEWAY_ORIGINS, such as http://name:8080"

    def origin_problem(self, origin: str | None) -> str:
        """Why a request of a page of this ``Origin`` may not pass, in words; empty if it may."""
        if origin is None:
            return ""
        origin = origin.lower()
        if origin in self._origins:
            return ""
        if origin == "null":
            return "origin null is not listed in GATEWAY_ORIGINS"
        if not origin.startswith(("http:", "https:")):
            return ""  # not a web page's: a device, an application
        return "" if self._ours(_hostname(origin)) else "this origin is not listed in GATEWAY_ORIGINS"

    def _ours(self, name: str | None) -> bool:
        if not name:
            return False
        if name in self._own or name.endswith(".localhost"):
            return True
        try:
            ipaddress.ip_address(name)
        except ValueError:
            return False
        return True


def _hostname(origin: str) -> str | None:
    """The name in an origin, which is a scheme, a name and a port (RFC 6454, 6.2), and nothing beside."""
    try:
        parts = urlsplit(origin)
    except ValueError:
        return None
    return host_name(parts.netloc) if parts.netloc and not (parts.path or parts.query or parts.fragment) else None
