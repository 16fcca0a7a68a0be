"""``/login`` and ``/logout``, which trade a token for a browser's session and end it; and who knocks.

A login is a POST without a body: the token is in ``Authorization``, so that no form, log or history holds it, and no
page from elsewhere can send it.  The session is a cookie that scripts cannot read and that no other site's page sends
along.
"""

from __future__ import annotations

import asyncio

import msgspec

from ..auth import ANYBODY, Grant
from ..auth.tokens import SESSION_S
from ..errors import AuthError
from ..ws import Request, Response, Router
from .access import Access
from .credentials import COOKIE

__all__ = ["Doors"]

_json = msgspec.json.Encoder().encode


class Doors:
    """The addresses by which one comes in."""

    def __init__(self, access: Access) -> None:
        self._access = access

    def register(self, router: Router) -> None:
        """Add the addresses to a router."""
        router.post("/login", self._login)
        router.post("/logout", self._logout)
        router.get("/api/v1/pending", self._pending)

    def _login(self, request: Request) -> Response:
        grant: Grant = request.state["grant"]
        headers = {"Cache-Control": "no-store"}
        if grant is not ANYBODY:
            try:
                session = self._access.tokens.mint_session(grant)
            except AuthError as error:
                return request.refuse(503, str(error), {**headers, "Retry-After": "1"})
            headers["Set-Cookie"] = _cookie(request, session, SESSION_S)
        return Response(204, headers=headers)

    async def _logout(self, request: Request) -> Response:
        await asyncio.to_thread(self._access.log_out, request)
        headers = {"Cache-Control": "no-store", "Set-Cookie": _cookie(request, "", 0)}
        return Response(204, headers=headers)

    def _pending(self, request: Request) -> Response:
        """Unknown devices that asked to be let in, the last one first; those that the asker may send commands to."""
        grant: Grant = request.state["grant"]
        found = [knock.shown() for knock in self._access.tokens.pending.list() if grant.may_command(knock.device)]
        return Response(200, _json(found), content_type="application/json", headers={"Cache-Control": "no-store"})


def _cookie(request: Request, session: str, max_age: int) -> str:
    """RFC 6265, 4.1; ``Secure`` where there is TLS."""
    secure = "; Secure" if request.secure else ""
    return f"{COOKIE}={session}; Max-Age={max_age}; Path=/; HttpOnly; SameSite=Strict{secure}"
