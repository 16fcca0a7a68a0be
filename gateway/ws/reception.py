"""A TCP connection until it is answered: the request, middleware, the upgrade or a page or a refusal.

The head of the request is collected here, bounded, and given to the library whole; bytes behind it are kept for the
connection.  A deadline covers everything up to the answer; another one the sending of it.
"""

from __future__ import annotations

import asyncio
import inspect
import logging
import re
from types import MethodType
from typing import TYPE_CHECKING, cast

from websockets.extensions.permessage_deflate import PerMessageDeflate, ServerPerMessageDeflateFactory
from websockets.http11 import Request as HandshakeRequest
from websockets.server import ServerProtocol

from .connection import Connection
from .gone import GONE
from .handlers import cancelled_from_outside
from .pending import unsent
from .request import BadRequest, Headers, Request, Response, split_path, split_target
from .router import run_chain

if TYPE_CHECKING:
    from collections.abc import Generator, Sequence

    from websockets.http11 import Response as HandshakeResponse
    from websockets.typing import Origin, Subprotocol

    from .router import Match
    from .secure import Hello
    from .server import Server

__all__ = ["Reception"]

logger = logging.getLogger("gateway.ws")
# The library's own lines, one or more a connection, only for those who ask for them.
library_logger = logging.getLogger("gateway.ws.library")
library_logger.setLevel(logging.WARNING)

MAX_HEAD_BYTES = 16 << 10  # a longer head is answered with 431
MAX_LINE_BYTES = 8 << 10  # a longer target is answered with 414, a longer field with 431
MAX_FIELDS = 100  # more are answered with 431
MIN_READ_RATE = 1 << 10  # bytes a second of an answer that its reader takes at least, else it is cut
MAX_EARLY_BYTES = 64 << 10  # sent behind the head before we answered: more is not read until then

_says_body = re.compile(rb"(?:content-length|transfer-encoding)[ \t]*:", re.IGNORECASE).match

# Each message is compressed on its own: a context for each connection costs 64 KiB, and bars prepared frames.
DEFLATE = ServerPerMessageDeflateFactory(server_no_context_takeover=True, client_no_context_takeover=True)


class Reception(asyncio.BufferedProtocol):
    """One connection before its upgrade."""

    __slots__ = (
        "_answered",
        "_buffer",
        "_deadline",
        "_head_end",
        "_hello",
        "_is_head",
        "_is_page",
        "_parser",
        "_path",
        "_server",
        "_task",
        "_transport",
        "unsent",
    )

    def __init__(self, server: Server, hello: Hello | None = None) -> None:
        self._server = server
        self._hello = hello  # what came before, where there is TLS
        self._is_head = False
        self._parser: Generator[None, None, None] | None = None  # the library's, as long as it is ours
        self._transport: asyncio.Transport = cast("asyncio.Transport", None)
        self._buffer = b""
        self._head_end = 0
        self._is_page = False
        self._path = ""
        self._deadline: asyncio.TimerHandle | None = None
        self._task: asyncio.Task[None] | None = None
        self._answered = False
        self.unsent = 0  # bytes of the answer that the peer has not read, when last measured

    @property
    def has_request(self) -> bool:
        """Whether the head of the request has come whole."""
        return bool(self._head_end)

    # What the loop calls

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        server = self._server
        server.tune(self._transport)
        timeout = server.handshake_timeout
        if self._hello is not None:
            timeout = self._hello.done()
            self._hello = None
        else:
            server.counters.accepted += 1
        self._deadline = server.loop.call_later(timeout, self._expired)
        if not server.receive(self):
            self._refuse(503, "too many handshakes at once", {"Retry-After": "1"}, reason="handshakes")

    def get_buffer(self, sizehint: int) -> memoryview:
        return self._server.view

    def buffer_updated(self, nbytes: int) -> None:
        if self._answered:
            return
        self._buffer += self._server.buffer[:nbytes]
        if self._head_end:
            if len(self._buffer) - self._head_end > MAX_EARLY_BYTES:
                self._transport.pause_reading()
            return
        end = self._buffer.find(b"\r\n\r\n", max(0, len(self._buffer) - nbytes - 3))
        if 0 <= end <= MAX_HEAD_BYTES:
            self._head_end = end + 4
            try:
                self._read_head()
            except Exception:
                logger.exception("a request could not be taken")
                self._server.counters.handler_errors += 1
                self._refuse(500, "internal error")
        elif len(self._buffer) > MAX_HEAD_BYTES or end >= 0:
            self._refuse(431, "the request's head is too large")

    def eof_received(self) -> bool | None:
        # A client may shut its half after asking for a page, and wait for the answer.
        return self._task is not None and self._is_page and not self._answered and self._transport.can_write_eof()

    def connection_lost(self, exc: Exception | None) -> None:
        if not self._answered:
            self._server.counters.handshakes_failed += 1
        self._answered = True
        self._end_deadline()
        self._end_parser()
        if self._task is not None:
            self._task.cancel()
        self._server.left(self)
        self._transport = GONE

    # From head to answer

    def _read_head(self) -> None:
        head = self._buffer[: self._head_end]
        self._is_head = head.startswith(b"HEAD ")
        lines = head.split(b"\r\n")
        if len(lines[0]) > MAX_LINE_BYTES:
            self._refuse(414, "the request's target is too long")
            return
        if len(lines) > MAX_FIELDS + 3 or max(map(len, lines)) > MAX_LINE_BYTES:
            self._refuse(431, "the request's head is too large")
            return
        protocol = ServerProtocol(logger=library_logger)
        self._parser = protocol.parser
        protocol.receive_data(head)
        events = protocol.events_received()
        if not events:
            method = head.partition(b" ")[0]
            if self._is_post_with_body(lines):
                self._refuse(413, "a request with a body is not taken here")
            elif method.isalpha() and method not in (b"GET", b"HEAD") and lines[0].endswith(b"HTTP/1.1"):
                self._refuse(405, "only GET is answered here", {"Allow": "GET, HEAD"})
            else:
                self._refuse(400, "the request cannot be read")
            return
        raw = cast("HandshakeRequest", events[0])
        try:
            match, request = self._match(raw)
        except BadRequest as error:
            self._refuse(error.status, str(error))
            return
        if isinstance(match, Response):
            self._send(match)
            return
        self._task = self._server.spawn(self._answer(protocol, raw, match, request))

    def _is_post_with_body(self, lines: list[bytes]) -> bool:
        """Whether this is a POST to an address that takes one, with the body that none may have."""
        method, _, rest = lines[0].partition(b" ")
        if method != b"POST" or not any(map(_says_body, lines[1:])):
            return False
        try:
            path = split_path(split_target(rest.partition(b" ")[0].decode("latin-1"))[0])
        except BadRequest:
            return False
        match = self._server.router.match(path, post=True)
        return match is not None and "POST" in match.route.methods

    def _match(self, raw: HandshakeRequest) -> tuple[Match | Response, Request]:
        if raw.protocol == "HTTP/1.1" and len(raw.headers.get_all("Host")) != 1:
            # RFC 9112, 3.2; RFC 6455, 4.2.1.
            raise BadRequest("exactly one Host header is required")
        transport = self._transport
        tls = transport.get_extra_info("ssl_object")
        request = Request(
            raw.method,
            raw.path,
            Headers(raw.headers.raw_items()),
            remote=transport.get_extra_info("peername"),
            secure=tls is not None,
            peer_certificate=(tls.getpeercert() or None) if tls is not None else None,
            tls_context=tls.context if tls is not None else None,
        )
        self._path = request.path
        upgrade = raw.headers.get_all("Upgrade") != []
        path = split_path(split_target(raw.path)[0])
        match = self._server.router.match(path, websocket=upgrade, post=raw.method == "POST")
        if match is None:
            return request.refuse(404, "there is nothing at this address"), request
        allowed = match.route.methods
        if raw.method not in allowed:
            allow = {"Allow": ", ".join(allowed)}
            return request.refuse(405, f"only {allow['Allow']} is answered here", allow), request
        if match.route.endpoint is not None:
            refusal = self._server.admit(request)
            if refusal is not None:
                return refusal, request
        self._is_page = match.route.page is not None
        request.route = match.pattern
        request.path_params = match.params
        return match, request

    async def _answer(self, protocol: ServerProtocol, raw: HandshakeRequest, match: Match, request: Request) -> None:
        """Run the request through middleware to its page or upgrade; a task's outermost edge."""
        try:
            response = await self._response(protocol, raw, match, request)
            data = response.serialize(head=self._is_head)
            if self._answered:
                return
            if response.status == 101:
                self._upgrade(protocol, match, request, data)
            else:
                self._write_last(response, data)
        except (Exception, asyncio.CancelledError) as error:
            if cancelled_from_outside(error):
                raise
            logger.exception("request for %r from %s failed", request.path, request.remote)
            self._server.counters.handler_errors += 1
            if self._answered:
                self._transport.abort()
            else:
                self._refuse(500, "internal error")

    async def _response(
        self, protocol: ServerProtocol, raw: HandshakeRequest, match: Match, request: Request
    ) -> Response:
        """The answer of middleware and page; 101 where there is to be an upgrade."""
        handshake: HandshakeResponse | None = None

        async def innermost(request: Request) -> Response:
            nonlocal handshake
            if match.route.page is not None:
                answer = match.route.page(request, **match.params)
                response = await answer if inspect.isawaitable(answer) else answer
                if not isinstance(response, Response):
                    raise TypeError(f"page {match.route.pattern} gave back {type(response).__name__}, not a Response")
                return response
            handshake = self._accept(protocol, raw, match)
            headers = dict(handshake.headers.raw_items())
            return Response(handshake.status_code, bytes(handshake.body), headers=headers)

        response = await run_chain(request, match.middleware, innermost)
        if response.status != 101:
            return response
        if handshake is None or handshake.status_code != 101:
            raise TypeError("a middleware answered 101 of its own")
        return self._server.admit(request) or response

    def _accept(self, protocol: ServerProtocol, raw: HandshakeRequest, match: Match) -> HandshakeResponse:
        options = match.route.options
        origins = options.origins if options.origins is not None else self._server.origins
        protocol.origins = cast("Sequence[Origin | None] | None", origins)
        protocol.available_extensions = [DEFLATE] if options.compression else None
        known = options.subprotocols

        def select(_: ServerProtocol, offered: Sequence[Subprotocol]) -> Subprotocol | None:
            return cast("Subprotocol | None", next((name for name in known if name in offered), None))

        if raw.headers.get_all("Sec-WebSocket-Version") not in ([], ["13"]):
            # RFC 6455, 4.2.2: say which version there is.
            response = protocol.reject(426, "only version 13 of the protocol is spoken here\n")
            response.headers["Sec-WebSocket-Version"] = "13"
            response.headers["Upgrade"] = "websocket"
            return response
        protocol.select_subprotocol = MethodType(select, protocol)  # type: ignore[method-assign]
        try:
            return protocol.accept(raw)
        finally:
            del protocol.select_subprotocol  # a cycle, else

    def _upgrade(self, protocol: ServerProtocol, match: Match, request: Request, data: bytes) -> None:
        server = self._server
        endpoint = match.route.endpoint
        assert endpoint is not None
        terms = server.terms(match.route.options)
        protocol.max_message_size = terms.max_message_bytes
        protocol.state = type(protocol.state).OPEN
        # The frame's bytes come from the connection: what the library holds is nothing but the head, already read.
        ws = Connection(protocol, server, terms, request)
        for extension in protocol.extensions:
            if isinstance(extension, PerMessageDeflate):
                ws._compress = extension.local_max_window_bits == 15 and extension.local_no_context_takeover
        self._parser = None
        early = self._buffer[self._head_end :]
        self._buffer = b""
        self._answered = True
        self._end_deadline()
        transport = self._transport
        server.upgraded(self, ws)
        transport.set_protocol(ws)
        ws._open(transport, data, lambda: endpoint.start(ws), early)
        if server.stopping:
            ws._stop(1001, "server is stopping")
        if not ws._transport_paused:
            transport.resume_reading()

    # Answers

    def _refuse(self, status: int, text: str, headers: dict[str, str] | None = None, *, reason: str = "") -> None:
        self._send(Response(status, f"{text}\n", headers=headers, reason=reason))

    def _send(self, response: Response) -> None:
        self._write_last(response, response.serialize(head=self._is_head))

    def _write_last(self, response: Response, data: bytes) -> None:
        """Send an answer and end: our half is closed, the peer has time to read for as long as it does read."""
        if self._answered:
            return
        self._answered = True
        self._buffer = b""
        self._end_parser()
        self._server.answered(self)
        counters = self._server.counters
        status = response.status
        if status < 400:
            counters.pages += 1
        else:
            counters.refuse(status, response.reason)
            self._server.refused(self._transport.get_extra_info("peername"), self._path, response)
        self._end_deadline()
        transport = self._transport
        transport.write(data)
        if transport.can_write_eof():
            try:
                transport.write_eof()
            except (OSError, RuntimeError):
                transport.abort()
                return
        else:
            transport.close()
        self.measure()
        self._deadline = self._server.loop.call_later(
            self._server.handshake_timeout if self.unsent else self._server.linger, self._linger
        )

    def measure(self) -> None:
        """Look at how much of the answer the peer has not read."""
        before, self.unsent = self.unsent, unsent(self._transport)
        self._server.unsent(self.unsent - before)

    def _linger(self) -> None:
        """End, unless the peer reads: it must take at least ``MIN_READ_RATE`` bytes a second."""
        before = self.unsent
        self.measure()
        timeout = self._server.handshake_timeout
        if self.unsent and before - self.unsent >= MIN_READ_RATE * timeout:
            self._deadline = self._server.loop.call_later(timeout, self._linger)
        elif before and not self.unsent:
            self._deadline = self._server.loop.call_later(self._server.linger, self._linger)
        else:
            self._transport.abort()

    def _expired(self) -> None:
        self._deadline = None
        if self._task is not None:
            self._task.cancel()
            self._task = None
            self._refuse(504, "the answer took too long")
        else:
            self._refuse(408, "the request took too long")

    def _end_deadline(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _end_parser(self) -> None:
        """The parser is a generator on its protocol: end it, so that neither waits for the cyclic collector."""
        if self._parser is not None:
            self._parser.close()
            self._parser = None

    def abort(self) -> None:
        """End at once."""
        self._transport.abort()

    def cut(self) -> None:
        """End at once, to make room."""
        self._answered = True
        self._transport.abort()
