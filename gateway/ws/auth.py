"""Bearer authentication (RFC 6750) as middleware."""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable
from typing import Any

from .request import Request, Response
from .router import Next

__all__ = ["BearerAuth"]


class BearerAuth:
    """Middleware that lets a request pass where ``verify(token)``, plain or async, gives a value other than ``None``.

    The value stands in ``request.state["auth"]`` and ``ws.state["auth"]``.  Anything else is answered with 401 and
    ``WWW-Authenticate`` before the upgrade; ``error="invalid_token"`` only where a token was sent (RFC 6750, 3.1).
    """

    def __init__(self, verify: Callable[[str], Any | Awaitable[Any]], *, realm: str = "websocket") -> None:
        if '"' in realm or "\\" in realm or not realm.isprintable():
            raise ValueError("realm cannot be quoted")
        self._verify = verify
        self._realm = realm

    async def __call__(self, request: Request, call_next: Next) -> Response:
        scheme, _, token = request.headers.get("authorization", "").partition(" ")
        token = token.strip()
        challenge = f'Bearer realm="{self._realm}"'
        if scheme.lower() != "bearer" or not token:
            return request.refuse(401, "a bearer token is required", {"WWW-Authenticate": challenge})
        value = self._verify(token)
        if inspect.isawaitable(value):
            value = await value
        if value is None:
            challenge += ', error="invalid_token"'
            return request.refuse(401, "the token is not valid", {"WWW-Authenticate": challenge})
        request.state["auth"] = value
        return await call_next(request)
