"""Host and Origin: who may ask at all (section 1 of the contract).

A page from elsewhere, or a foreign name that was made to resolve to this machine (DNS rebinding), cannot use a browser
as its way in: a request whose ``Host`` or web ``Origin`` is neither ours nor listed is refused with 403.
"""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Iterable
from urllib.parse import urlsplit

from ..ws import Next, Request, Response

__all__ = ["Guard"]


class Guard:
    """A middleware; ``origins`` are those listed beside our own, such as ``https://dash.example`` or ``null``."""

    def __init__(self, origins: Iterable[str] = (), hostname: str | None = None) -> None:
        self._origins = {origin.lower().rstrip("/") for origin in origins}
        own = (hostname or socket.gethostname()).lower()
        short = own.removesuffix(".local")
        self._own = {"localhost", own, short, f"{short}.local"}
        self._listed = {name for origin in self._origins if (name := _hostname(origin))}
        self.refused = 0

    async def __call__(self, request: Request, call_next: Next) -> Response:
        """Let the request pass, or refuse it."""
        problem = self.problem(request.headers.get("host"), request.headers.get("origin"))
        if problem:
            self.refused += 1
            return request.refuse(403, problem)
        return await call_next(request)

    def problem(self, host: str | None, origin: str | None) -> str:
        """Why a request may not pass, in words; empty if it may."""
        name = _hostname(f"//{host}") if host is not None else "localhost"
        if not self._ours(name) and name not in self._listed:
            return "this name is not the gateway's: add it to GATEWAY_ORIGINS, such as http://name:8080"
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


def _hostname(url: str) -> str | None:
    try:
        return urlsplit(url).hostname
    except ValueError:
        return None
