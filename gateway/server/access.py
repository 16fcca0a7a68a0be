"""Who may have what: the one place that knows which address needs which scope (section 1 of the contract).

A middleware before every address.  In this order, the first that fails answers:

1. ``Host``: a name that is not ours was made to point here (DNS rebinding): 403.
2. Who it is: the token of ``Authorization``, else the certificate that a device has shown, else a browser's session.
   A header that is there and wrong is never made up for by a cookie or certificate beside it.
3. ``Origin``: a page from elsewhere: 403.  Not asked of a request whose header carried a device's token, which no page
   can make a browser send.
4. What the address needs, by :data:`NEEDS`: 401 where nobody is known, 403 where somebody may not.

An address that the table does not know is nobody's.  Each refusal is counted by its reason.  All this is done before
the upgrade; an open connection costs nothing more, and ends with what let it in, see ``guests``.
"""

from __future__ import annotations

import enum
import math
import ssl
import time
from collections.abc import Callable, Hashable, Iterable, Mapping
from typing import Any, Protocol
from weakref import WeakSet

import msgspec

from ..auth import ANYBODY, CERTIFICATE, Grant, Tokens, certificate_grant
from ..ws import Next, Request, Response
from .attempts import Attempts
from .credentials import authorization, common_name, same_origin, sessions, valid_until
from .guard import Guard
from .guests import End, Guests
from .peer import address_of, is_local

__all__ = ["NEEDS", "Access", "Need"]

PER_TOKEN_RETRY_S = 10
HEADERS = {
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
}


class Need(enum.Enum):
    """What an address asks for."""

    NOTHING = "open to everybody"
    DEVICE = "device:<glob> that covers the device's name"
    LIVE = "live:read or live:command, now or with the first message"
    READ = "live:read, of some device at least"
    COMMAND = "live:command, of some device at least"
    METRICS = "metrics"
    LOGIN = "a token of live:read or live:command, in Authorization"
    LOGOUT = "a page of ours"


NEEDS: Mapping[str, Need] = {
    "/v1/devices/{device}": Need.DEVICE,
    "/v1/live": Need.LIVE,
    "/livez": Need.NOTHING,
    "/readyz": Need.NOTHING,
    "/healthz": Need.READ,
    "/metrics": Need.METRICS,
    "/api/v1/devices": Need.READ,
    "/api/v1/latest": Need.READ,
    "/api/v1/history": Need.READ,
    "/api/v1/presence": Need.READ,
    "/api/v1/pending": Need.COMMAND,
    "/login": Need.LOGIN,
    "/logout": Need.LOGOUT,
    "/asyncapi.yaml": Need.NOTHING,
    "/openapi.yaml": Need.NOTHING,
}
SOCKETS = (Need.DEVICE, Need.LIVE)
FOR_PAGES = (Need.LOGIN, Need.LOGOUT)


class Socket(Protocol):
    """An open connection, as far as its guest goes."""

    def on_closed(self, hook: Callable[[Any], object]) -> None: ...


class Who(msgspec.Struct, frozen=True):
    """``presented``: a header held a secret, or should have; ``device`` is the one that it was said to be of."""

    grant: Grant | None = None
    presented: bool = False
    secret: str = ""
    device: str | None = None

    def __repr__(self) -> str:
        return f"Who({self.grant!r}, presented={self.presented})"


class Access:
    """``mode`` is ``none`` or ``token``; ``open_paths`` are addresses beside the table that everybody may have.

    In mode ``none`` everybody may have everything, from this machine alone unless ``insecure``.
    """

    def __init__(
        self,
        guard: Guard,
        tokens: Tokens,
        *,
        mode: str = "none",
        insecure: bool = False,
        max_per_token: int | None = None,
        open_paths: Iterable[str] = (),
        now: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self.tokens = tokens
        self.asks = mode != "none"
        self._guard = guard
        self._insecure = insecure
        self._needs = {**dict.fromkeys(open_paths, Need.NOTHING), **NEEDS}
        self._attempts = Attempts(monotonic)
        self._guests = Guests(tokens.alive, now, max_per_token, tokens.holds)
        # The contexts of TLS by which clients were verified whose authority is still one; None: all.
        self._trusted: WeakSet[ssl.SSLContext] | None = None
        self._refused: dict[str, int] = {}
        # Told of what is refused after the upgrade: the peer's address, the reason, words.
        self.on_refused: Callable[[object, str, str], None] = lambda remote, reason, words: None
        tokens.on_change.append(self._guests.changed)

    def limit(self, max_per_token: int | None) -> None:
        """Another bound for the connections of a token, from now on; nobody is thrown out."""
        self._guests.most = max_per_token

    def trust(self, context: ssl.SSLContext, *, alone: bool = True) -> int:
        """Another context of TLS verifies clients from now on; ``alone``: what those before it verified holds no more.

        How many connections of client certificates that ended.
        """
        if self._trusted is None or alone:
            self._trusted = WeakSet()
        self._trusted.add(context)
        return self._guests.end_certificates() if alone else 0

    # -- the middleware ----------------------------------------------------------------------------------------------

    async def __call__(self, request: Request, call_next: Next) -> Response:
        """Let the request pass, with ``request.state["grant"]``, or refuse it."""
        response = self._refusal(request)
        if response is None:
            response = await call_next(request)
            if response.status == 101:
                # Others may have been let in, or this one's token revoked, while it waited.
                response = self._late_refusal(request) or response
        if response.status != 101:
            for name, value in HEADERS.items():
                response.headers.setdefault(name, value)
        return response

    def _refusal(self, request: Request) -> Response | None:
        need = self._needs.get(request.route)
        host = request.headers.get("host")
        if problem := self._guard.host_problem(host):
            return self._refuse(request, "host", 403, problem)
        if need is None:
            return self._refuse(request, "address", 403, "nobody may have this")
        if not self.asks and not (self._insecure or is_local(request.remote)):
            return self._refuse(request, "not_local", 403, "without tokens only this machine is served")
        who = self._who(request, need) if self.asks else Who(ANYBODY)
        if problem := self._origin_problem(request, need, who):
            return self._refuse(request, "origin", 403, problem)
        request.state["grant"] = grant = who.grant
        if need in (Need.NOTHING, Need.LOGOUT):
            return None
        if grant is None:
            if need is Need.LIVE and not who.presented:
                return None  # its first message will say
            return self._refuse_unknown(request, need, who)
        if not _may(grant, need, request, who):
            return self._refuse_scope(request, need, who)
        return self._full(request, grant) if need in SOCKETS else None

    def _who(self, request: Request, need: Need) -> Who:
        header = request.headers.get("authorization")
        if need is Need.NOTHING or need is Need.LOGOUT:
            return Who()
        if header is not None:
            presented = authorization(header)
            secret = presented.secret
            if presented.device is not None and need is not Need.DEVICE:
                return Who(None, True)
            return Who(self.tokens.verify(secret) if secret else None, True, secret, presented.device)
        if need is Need.DEVICE:
            return Who(self._certified(request))
        if need is Need.LOGIN or not self._is_own_page(request):
            return Who()
        found = [grant for text in sessions(request.headers.get("cookie", "")) if (grant := self._session(text))]
        return Who(found[0] if found else None)

    def _certified(self, request: Request) -> Grant | None:
        if self._trusted is not None and request.tls_context not in self._trusted:
            return None
        certificate = request.peer_certificate
        return certificate_grant(common_name(certificate), valid_until(certificate))

    def _session(self, text: str) -> Grant | None:
        return self.tokens.verify_session(text)

    def _origin_problem(self, request: Request, need: Need, who: Who) -> str:
        if need in FOR_PAGES:
            return "" if self._is_own_page(request) else "only the gateway's own page may ask for this"
        if who.presented and who.grant is not None and who.grant.devices:
            return ""
        return self._guard.origin_problem(request.headers.get("origin"))

    @staticmethod
    def _is_own_page(request: Request) -> bool:
        """Whether this comes from our own page, by Origin, or where a browser sends none by Fetch Metadata; who is no
        browser says nothing of it."""
        headers = request.headers
        origin = headers.get("origin")
        if origin is not None:
            return same_origin(headers.get("host", ""), origin.lower(), secure=request.secure)
        return headers.get("sec-fetch-site", "none") in ("none", "same-origin")

    # -- refusals ----------------------------------------------------------------------------------------------------

    def _refuse(
        self, request: Request, reason: str, status: int, text: str, headers: dict[str, str] | None = None
    ) -> Response:
        self._refused[reason] = self._refused.get(reason, 0) + 1
        return request.refuse(status, text, headers, reason=reason)

    def _refuse_unknown(self, request: Request, need: Need, who: Who) -> Response:
        if (need is Need.DEVICE or who.presented) and (wait := self._attempts.fail(request.remote)):
            return self._too_many(request, wait)
        self._knock(request, need, who)
        challenge = 'Bearer realm="gateway"'
        if who.presented:
            challenge += ', error="invalid_token"'
        if need is Need.DEVICE:
            challenge += ', Basic realm="gateway", charset="UTF-8"'
        headers = {"WWW-Authenticate": challenge, "Cache-Control": "no-store"}
        if who.presented:
            return self._refuse(request, "bad_token", 401, "the token is not valid, or is not any more", headers)
        return self._refuse(request, "no_token", 401, "a token is needed: Authorization: Bearer <token>", headers)

    def _refuse_scope(self, request: Request, need: Need, who: Who) -> Response:
        if need is Need.DEVICE and (wait := self._attempts.fail(request.remote)):
            return self._too_many(request, wait)
        self._knock(request, need, who)
        return self._refuse(request, "scope", 403, f"this token may not: {need.value} is needed")

    def _too_many(self, request: Request, wait: float) -> Response:
        headers = {"Retry-After": str(math.ceil(wait)), "Cache-Control": "no-store"}
        return self._refuse(request, "attempts", 429, "too many attempts that failed", headers)

    def _knock(self, request: Request, need: Need, who: Who) -> None:
        if need is Need.DEVICE:
            # Of a token that is somebody else's nothing is kept: `Knocks` knows it.
            self.tokens.pending.knock(_device(request), who.secret, address_of(request.remote))

    def _full(self, request: Request, grant: Grant) -> Response | None:
        if grant is ANYBODY or not self._guests.is_full(grant, request.path_params.get("device")):
            return None
        headers = {"Retry-After": str(PER_TOKEN_RETRY_S)}
        return self._refuse(request, "per_token", 429, "this token has all connections that it may have", headers)

    def _late_refusal(self, request: Request) -> Response | None:
        grant: Grant | None = request.state["grant"]
        if grant is None or grant is ANYBODY:
            return None
        if not self.tokens.holds(grant) or (grant.id.startswith(CERTIFICATE) and self._certified(request) is None):
            headers = {"WWW-Authenticate": 'Bearer realm="gateway", error="invalid_token"'}
            return self._refuse(request, "bad_token", 401, "the token is not valid any more", headers)
        return self._full(request, grant)

    def log_out(self, request: Request) -> None:
        """End the sessions whose cookies the request has, and what they have open.  Blocks for a sync."""
        if self.asks:
            for text in sessions(request.headers.get("cookie", "")):
                self.tokens.end_session(text)

    # -- connections -------------------------------------------------------------------------------------------------

    def enter(self, grant: Grant, key: Hashable, end: End, ws: Socket) -> None:
        """A connection is open; ``end(1008, reason)`` is called when its grant ends.  ``key`` tells those of a grant
        apart: a device's name, or anything of its own."""
        if grant is not ANYBODY:
            leave = self._guests.enter(grant, key, end)
            ws.on_closed(lambda _: leave())

    def first_message(self, remote: object, token: str) -> tuple[Grant | None, str]:
        """Who presents this token in the first message of a live connection, or why that does not let it in."""
        grant = self.tokens.verify(token)
        if grant is None:
            reason = "attempts" if self._attempts.fail(remote) else "bad_token"
            return None, self._refuse_first(remote, reason, "the token is not valid")
        if not (grant.reads or grant.commands):
            words = "this token may not: live:read or live:command is needed"
            return None, self._refuse_first(remote, "scope", words)
        if self._guests.is_full(grant):
            return None, self._refuse_first(remote, "per_token", "this token has all connections that it may have")
        return grant, ""

    def _refuse_first(self, remote: object, reason: str, words: str) -> str:
        self._refused[reason] = self._refused.get(reason, 0) + 1
        self.on_refused(remote, reason, words)
        return words

    def silent(self, reason: str = "no_token") -> None:
        """A live connection has not said who it is: in time, or (``crowd``) before too many others came."""
        self._refused[reason] = self._refused.get(reason, 0) + 1

    def watch(self) -> None:
        """To be called once a second: end what has expired."""
        self._guests.expire()

    def stats(self) -> dict[str, float]:
        """Refusals by reason, and connections ended with their tokens."""
        return {
            "ended": self._guests.ended,
            "refused": sum(self._refused.values()),
            **{f"refused_{reason}": count for reason, count in self._refused.items()},
        }


def _device(request: Request) -> str:
    return str(request.path_params.get("device", ""))


def _may(grant: Grant, need: Need, request: Request, who: Who) -> bool:
    match need:
        case Need.DEVICE:
            name = _device(request)
            return who.device in (None, name) and grant.may_device(name)
        case Need.READ:
            return bool(grant.reads)
        case Need.COMMAND:
            return bool(grant.commands)
        case Need.METRICS:
            return grant.may_metrics
        case Need.LIVE | Need.LOGIN:
            return bool(grant.reads or grant.commands)
        case _:
            return False
