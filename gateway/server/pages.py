"""GET addresses: the dashboard's files, the API and its description, health and metrics (section 1 of the contract).

Answers are buffered whole, so their size is bounded: rows by :data:`ROWS_MAX`, and what was cut says so.  Rendering
many rows happens in a thread, looking at many devices in steps.  So many lists are made at once as :data:`LISTS_MAX`
says, so many queries of the history as that one bears: one more is refused with 503.
"""

from __future__ import annotations

import asyncio
import csv
import gzip
import hashlib
import io
import mimetypes
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping
from functools import cache
from importlib import resources
from importlib.resources.abc import Traversable
from operator import itemgetter
from typing import Any, TypeVar

import msgspec

from ..auth import ANYBODY, Grant
from ..devices import Device, DeviceBook
from ..errors import HistoryError, Overloaded
from ..globs import matcher
from ..history import History, Row
from ..hub import Hub, wire_value
from ..ws import Request, Response, Router
from .rows import device_row, presence_rows
from .times import parse_duration, parse_time

__all__ = ["Pages", "assets"]

ROWS_MAX = 100_000
LISTS_MAX = 8  # of devices or newest values
SLICE = 1_000  # rows rendered at once
PIECE = 500  # devices looked at in one step of the loop
GLOB_MAX = 128  # characters, as the live feed has it: each glob is tried against every name
AGGREGATES = ("mean", "min", "max", "last", "count")
FORMATS = ("json", "csv")
YAML = "application/yaml"  # RFC 9512: always UTF-8

T = TypeVar("T")
_json = msgspec.json.Encoder().encode

SECURITY = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
}


class Pages:
    """Everything that is not a WebSocket.

    ``health`` gives the body of ``/healthz``; ``alive`` and ``ready`` the problem in words, empty where there is none;
    ``metrics`` the exposition and its content type, by the request's ``Accept``.
    """

    def __init__(
        self,
        book: DeviceBook,
        hub: Hub[Any],
        history: History,
        *,
        health: Callable[[Callable[[str], bool] | None], dict[str, object]],
        alive: Callable[[], str],
        ready: Callable[[], str],
        metrics: Callable[[str], tuple[bytes, str]],
        now: Callable[[], int] = time.time_ns,
    ) -> None:
        self._book = book
        self._hub = hub
        self._history = history
        self._health = health
        self._alive = alive
        self._ready = ready
        self._metrics = metrics
        self._now = now
        self._lists = 0  # that are being made
        self._assets = assets()

    def register(self, router: Router) -> None:
        """Add the addresses to a router."""
        router.get("/livez", self._livez)
        router.get("/readyz", self._readyz)
        router.get("/healthz", self._healthz)
        router.get("/metrics", self._metrics_page)
        router.get("/api/v1/devices", self._devices)
        router.get("/api/v1/latest", self._latest)
        router.get("/api/v1/history", self._history_rows)
        router.get("/api/v1/presence", self._presence)
        for path in self._assets:
            router.get(path, self._asset)

    # -- health --------------------------------------------------------------------------------------------------

    def _livez(self, request: Request) -> Response:
        return _verdict(self._alive())

    def _readyz(self, request: Request) -> Response:
        return _verdict(self._ready())

    def _healthz(self, request: Request) -> Response:
        grant = _grant(request)
        body = self._health(None if grant.reads == ("*",) else grant.may_read)
        return _answer({**body, "auth": "none" if grant is ANYBODY else "token"})

    def _metrics_page(self, request: Request) -> Response:
        body, content_type = self._metrics(request.headers.get("accept", ""))
        headers = {"Cache-Control": "no-store", "Vary": "Accept"}
        return Response(200, body, content_type=content_type, headers=headers)

    # -- the API -------------------------------------------------------------------------------------------------

    async def _devices(self, request: Request) -> Response:
        return self._refusal(request) or await self._one_of_few(self._list_devices(request))

    async def _list_devices(self, request: Request) -> Response:
        wanted, may_read = matcher(request.query.get("device") or "*"), _grant(request).may_read
        pieces: list[bytes] = []
        for some in _pieces(list(self._book)):
            rows = [_row(device) for device in some if wanted(device.name) and may_read(device.name)]
            if rows:
                pieces.append(_json(rows)[1:-1])
            await asyncio.sleep(0)
        return _answer(b"[" + b",".join(pieces) + b"]")

    async def _latest(self, request: Request) -> Response:
        return self._refusal(request) or await self._one_of_few(self._list_latest(request))

    async def _list_latest(self, request: Request) -> Response:
        device = matcher(request.query.get("device") or "*")
        metric = matcher(request.query.get("metric") or "*")
        may_read = _grant(request).may_read
        rows: list[tuple[Any, str, str, object]] = []
        looked_at = 0
        for name, series in list(self._hub.series.items()):
            looked_at += 1
            if device(name) and may_read(name):
                rows += [(ms, name, key, value) for key, (ms, value) in series.points() if metric(key)]
                looked_at += len(series)
            if looked_at >= PIECE:
                looked_at = 0
                await asyncio.sleep(0)
        return _answer(await asyncio.to_thread(_newest, rows), truncated=len(rows) > ROWS_MAX)

    async def _presence(self, request: Request) -> Response:
        return self._refusal(request) or await self._one_of_few(self._list_presence(request))

    async def _list_presence(self, request: Request) -> Response:
        faults: list[str] = []
        start, end = self._stretch(request, faults)
        if faults:
            return request.refuse(400, "; ".join(faults), reason="query")
        wanted, may_read = matcher(request.query.get("device") or "*"), _grant(request).may_read
        rows: list[dict[str, object]] = []
        for some in _pieces(list(self._book)):
            for device in some:
                if wanted(device.name) and may_read(device.name):
                    rows += presence_rows(device, start, end)
            if len(rows) > ROWS_MAX:
                break
            await asyncio.sleep(0)
        return _answer(await asyncio.to_thread(_json, rows[:ROWS_MAX]), truncated=len(rows) > ROWS_MAX)

    def _stretch(self, request: Request, faults: list[str]) -> tuple[int, int]:
        """``from`` and ``to`` of a question in nanoseconds, the millisecond named by ``to`` begins there."""
        query, now = request.query, self._now()
        start, end = now - 3600 * 10**9, now
        for name in ("from", "to"):
            if text := query.get(name):
                try:
                    at = parse_time(text, now)
                except ValueError as error:
                    faults.append(f"{name}: {error}")
                else:
                    start, end = (at, end) if name == "from" else (start, at)
        if query.get("from") and query.get("to") and start > end:
            faults.append("from: later than to")
        return start, end

    async def _history_rows(self, request: Request) -> Response:
        query = request.query
        faults = _long_globs(request)
        start, end = self._stretch(request, faults)
        step = None
        if text := query.get("step"):
            try:
                step = parse_duration(text)
            except ValueError as error:
                faults.append(f"step: {error}")
        aggregate, form = query.get("agg", "mean"), query.get("format", "json")
        if aggregate not in AGGREGATES:
            faults.append(f"agg: one of {', '.join(AGGREGATES)}")
        if form not in FORMATS:
            faults.append(f"format: one of {', '.join(FORMATS)}")
        if faults:
            return request.refuse(400, "; ".join(faults), reason="query")
        try:
            found = await self._history.ask(
                devices=query.get("device") or "*",
                metrics=query.get("metric") or "*",
                start=start,
                end=end + 1_000_000,  # `to` names a millisecond, whole
                step=step,
                agg=aggregate,
                limit=ROWS_MAX,
                within=_grant(request).reads,
            )
        except (HistoryError, Overloaded) as error:
            return request.refuse(503, str(error), headers={"Retry-After": "1"}, reason="query_load")
        if form == "csv":
            body = await asyncio.to_thread(_csv, found.rows)
            answer = _answer(body, truncated=found.truncated, content_type="text/csv; charset=utf-8")
        else:
            answer = _answer(await asyncio.to_thread(_rows, found.rows), truncated=found.truncated)
        if found.whole_from is not None:
            answer.headers["X-Whole-From"] = str(-(-found.whole_from // 1_000_000))
        return answer

    def _refusal(self, request: Request) -> Response | None:
        """Of a list whose question is wrong, or while there is no room for one more."""
        if faults := _long_globs(request):
            return request.refuse(400, "; ".join(faults), reason="query")
        if self._lists >= LISTS_MAX:
            return request.refuse(503, "too many lists at once", {"Retry-After": "1"}, reason="query_load")
        return None

    async def _one_of_few(self, making: Awaitable[Response]) -> Response:
        self._lists += 1
        try:
            return await making
        finally:
            self._lists -= 1

    # -- the dashboard -------------------------------------------------------------------------------------------

    def _asset(self, request: Request) -> Response:
        return self._assets[request.path].answer(request)


def _grant(request: Request) -> Grant:
    """Whose request it is: none comes here without (``access``)."""
    grant: Grant = request.state["grant"]
    return grant


def _long_globs(request: Request) -> list[str]:
    """What is wrong with the globs of a question."""
    globs = ((name, request.query.get(name) or "") for name in ("device", "metric"))
    return [f"{name}: longer than {GLOB_MAX} characters" for name, glob in globs if len(glob) > GLOB_MAX]


def _pieces(items: list[T]) -> Iterator[list[T]]:
    """The items, so many at a time as the loop can be kept for."""
    return (items[start : start + PIECE] for start in range(0, len(items), PIECE))


def _row(device: Device) -> dict[str, object]:
    """A device for browsers."""
    row = device_row(device)
    row["ledger"] = {name: wire_value(count) for name, count in device.ledger.as_dict().items()}
    return row


def _newest(rows: list[tuple[Any, str, str, object]]) -> bytes:
    """JSON of rows of time in milliseconds, device, metric and value, the newest at the end; what is too much is left
    out at the beginning."""
    names = ("time", "device", "metric", "value")
    rows = sorted(rows, key=itemgetter(0))[-ROWS_MAX:]
    return (
        b"["
        + b",".join(_json([dict(zip(names, row, strict=True)) for row in some])[1:-1] for some in _pieces(rows))
        + b"]"
    )


def _slices(rows: list[Row]) -> Iterator[list[Row]]:
    """The rows a thousand at a time, in order, each slice freed before the next: a thread that works on many rows, or
    frees them, at once keeps the interpreter from the loop."""
    rows.reverse()
    while rows:
        piece = rows[-SLICE:]
        del rows[-SLICE:]
        piece.reverse()
        yield piece


def _rows(rows: list[Row]) -> bytes:
    """JSON of the rows, which are used up."""
    pieces = [
        _json(
            [
                {"time": time_ns // 1_000_000, "device": device, "metric": metric, "value": wire_value(value)}
                for time_ns, device, metric, value in piece
            ]
        )[1:-1]
        for piece in _slices(rows)
    ]
    return b"[" + b",".join(pieces) + b"]"


def _csv(rows: list[Row]) -> bytes:
    """CSV of the rows, which are used up."""
    text = io.StringIO(newline="")
    writer = csv.writer(text)
    writer.writerow(("time", "device", "metric", "value"))
    for piece in _slices(rows):
        for time_ns, device, metric, value in piece:
            plain = ("false", "true")[value] if value is True or value is False else value
            writer.writerow((time_ns // 1_000_000, device, metric, plain))
    return text.getvalue().encode()


def _answer(body: object, *, truncated: bool = False, content_type: str = "application/json") -> Response:
    headers = {"Cache-Control": "no-store", "X-Content-Type-Options": "nosniff"}
    if truncated:
        headers["X-Truncated"] = "true"
    return Response(200, body if isinstance(body, bytes) else _json(body), content_type=content_type, headers=headers)


def _verdict(problem: str) -> Response:
    headers = {"Cache-Control": "no-store"}
    if problem:
        return Response(503, problem + "\n", headers={**headers, "Retry-After": "1"}, reason="not_ready")
    return Response(200, "ok\n", headers=headers)


class _Asset:
    """A file of the dashboard, or of the API's description, held in memory, compressed once."""

    def __init__(self, name: str, body: bytes) -> None:
        kind = YAML if name.endswith(".yaml") else mimetypes.guess_type(name)[0] or "application/octet-stream"
        text = kind.startswith("text/") or kind in (YAML, "application/javascript", "image/svg+xml", "application/json")
        self._type = f"{kind}; charset=utf-8" if text and kind != YAML else kind
        self._body = body
        self._gzip = gzip.compress(body, 9, mtime=0) if text and len(body) > 512 else None
        self._tag = f'"{hashlib.sha256(body).hexdigest()[:16]}"'

    def answer(self, request: Request) -> Response:
        headers = {"ETag": self._tag, "Cache-Control": "no-cache", "Vary": "Accept-Encoding", **SECURITY}
        if self._tag in request.headers.get("if-none-match", ""):
            return Response(304, headers=headers)
        body = self._body
        if self._gzip is not None and "gzip" in request.headers.get("accept-encoding", ""):
            headers["Content-Encoding"] = "gzip"
            body = self._gzip
        return Response(200, body, content_type=self._type, headers=headers)


@cache
def assets() -> Mapping[str, _Asset]:
    """The dashboard's files by their addresses."""
    return dict(_load(resources.files(__package__).joinpath("static"), ""))


def _load(folder: Traversable, prefix: str) -> list[tuple[str, _Asset]]:
    """Every file below ``folder`` by its address; ``index.html`` is its folder's own."""
    assets = []
    for entry in folder.iterdir():
        path = f"{prefix}/{entry.name}"
        if entry.is_dir():
            assets += _load(entry, path)
        else:
            assets.append((path.removesuffix("index.html"), _Asset(entry.name, entry.read_bytes())))
    return assets
