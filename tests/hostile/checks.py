"""The checks that refuse what is hostile, each with the way to take it out.

``CHECKS`` is by name; a function is given pytest's ``monkeypatch`` and leaves the check out, in the product or in the
library that has it.  One that stands in the middle of a function is taken out of its source (:func:`without`): where it
is moved or written otherwise, that fails and says so.
"""

from __future__ import annotations

import inspect
import sys
import textwrap
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest
from websockets import http11
from websockets.server import ServerProtocol

from gateway import codecs, commands, reading
from gateway.codecs import Draft, cborcodec, depth, influxline, jsoncodec, model, msgpackcodec, senml
from gateway.devices import DeviceBook
from gateway.pipeline import Pipeline
from gateway.server import connection, control, desk, device, guard, live, pages
from gateway.server.downlink import Downlink
from gateway.server.subdevices import SubDevices
from gateway.ws import reception, request
from gateway.ws.server import Server
from tests.ws.test_conformance import take_out as layer

__all__ = ["CHECKS"]

Patch = pytest.MonkeyPatch
Out = Callable[[Patch], None]


def without(owner: Any, name: str, *changes: tuple[str, str]) -> Out:
    """Change pieces of a function's source, each of which stands there once; wherever it was imported to."""

    def out(patch: Patch) -> None:
        found = inspect.getattr_static(owner, name)
        plain = getattr(found, "__func__", found)
        source = textwrap.dedent(inspect.getsource(plain))
        for old, new in changes:
            assert source.count(old) == 1, f"{old!r} stands {source.count(old)} times in {name}"
            source = source.replace(old, new)
        space = dict(plain.__globals__)
        exec(compile("from __future__ import annotations\n" + source, inspect.getfile(plain), "exec"), space)
        made = space[name]
        # Its names are looked up where the original's are, so that other patches are seen.
        again = getattr(made, "__func__", made)
        made_here = type(again)(again.__code__, plain.__globals__, name, again.__defaults__, again.__closure__)
        made_here.__kwdefaults__ = again.__kwdefaults__
        changed = classmethod(made_here) if isinstance(found, classmethod) else made_here
        patch.setattr(owner, name, changed)
        for module in [module for key, module in sys.modules.items() if key.startswith("gateway.")]:
            if getattr(module, name, None) is found:
                patch.setattr(module, name, changed)

    return out


def put(owner: Any, name: str, value: Any) -> Out:
    """Another value instead."""
    return lambda patch: patch.setattr(owner, name, value)


def both(*outs: Out) -> Out:
    """Several that are one."""

    def out(patch: Patch) -> None:
        for each in outs:
            each(patch)

    return out


def _of_layer(check: str) -> Out:
    return lambda patch: layer(check, patch)


def _lenient(decode: Any, otherwise: Any) -> Any:
    def lenient(data: Any) -> Any:
        try:
            return decode(data)
        except Exception:
            return otherwise

    return lenient


class _Anything:
    """Takes everything for a heartbeat."""

    @staticmethod
    def decode(data: object) -> live.Heartbeat:
        return live.Heartbeat()


def _no_handshake(patch: Patch) -> None:
    process = ServerProtocol.process_request

    def lenient(self: ServerProtocol, request: Any) -> Any:
        try:
            return process(self, request)
        except Exception:
            return "accepted", None, None

    patch.setattr(ServerProtocol, "process_request", lenient)


def _no_bad_lines(patch: Patch) -> None:
    decode = influxline.InfluxCodec.decode

    def lenient(self: influxline.InfluxCodec, data: str | bytes) -> list[Any]:
        if "served" in str(data):
            return decode(self, data)
        return [part for part in _lenient(lambda data: decode(self, data), [])(data) if type(part) is Draft]

    patch.setattr(influxline.InfluxCodec, "decode", lenient)


def _any_parameters(patch: Patch) -> None:
    def convert(params: dict[str, Any], kind: Any) -> Any:
        try:
            return msgspec.convert(params, kind)
        except msgspec.ValidationError:
            return kind(**dict.fromkeys(kind.__struct_fields__[:1], "nobody") if kind is desk._Explain else {})

    patch.setattr(desk, "msgspec", SimpleNamespace(convert=convert))


async def _nothing(*_: Any) -> None:
    """In place of something that looks at what it is given."""


async def _anybody(self: desk.Desk, name: str) -> Any:
    return self._book.open("anybody")


NEVER = 1 << 60
_reading, _connection = "_reading", connection.Connection

CHECKS: dict[str, Out] = {
    # codecs and values
    "json": put(jsoncodec, "decode", _lenient(jsoncodec.decode, {})),
    "msgpack": put(msgpackcodec, "_decode", _lenient(msgpackcodec._decode, {})),
    "cbor": put(cborcodec, "decode", _lenient(cborcodec.decode, {})),
    "cbor depth": put(cborcodec, "too_deep", lambda: RecursionError()),
    "keys": both(
        put(msgpackcodec, "check_msgpack_keys", lambda data: None),
        put(senml, "check_cbor_keys", lambda data: None),
        put(live, "check_msgpack_keys", lambda data: None),
    ),
    "pack": put(senml, "_parts", lambda *_: []),
    "record": without(senml, "_parts", ("found.append(record)", "pass")),
    "line": _no_bad_lines,
    "line fields": put(influxline, "FIELDS", NEVER),
    "depth": without(depth, "is_deep", ("return True", "return False")),
    "recursion": both(
        put(jsoncodec, "too_deep", lambda: RecursionError()), put(msgpackcodec, "too_deep", lambda: RecursionError())
    ),
    "kind": without(codecs, "codec_for", ("codec.text in (text, None)", "True")),
    "shape": without(model, "parts", ('raise Refusal("bad_message", "neither an object nor an array")', "return []")),
    "readings": put(model, "MAX_READINGS", NEVER),
    "object": without(model, _reading, ("if type(element) is not dict:", "if False:")),
    "envelope": without(model, _reading, ("if type(values) is not dict:", "if False:")),
    "beside": without(model, _reading, ("if element:", "if False:")),
    "typed": without(model, _reading, ('elif "type" in element:', "elif False:")),
    "types": both(
        without(model, "_control", ("if type(kind) is str and kind in CONTROLS:", "if True:")),
        put(Downlink, "answered", _nothing),
    ),
    "sequence": without(model, _reading, ('if not seq and element["seq"] is not None:', "if False:")),
    "time": without(model, _reading, ('return _refused("bad_time", f"ts: {error}", seq, index, element, ts)', "pass")),
    "device type": both(
        without(model, _reading, ("if type(named) is not str or not named:", "if False:")),
        put(_connection, "_reading_of_other", lambda *_: None),
    ),
    "name": both(
        put(model, "_known", set()),
        without(model, "_learn", ("if type(name) is not str or not is_metric(name):", "if False:")),
    ),
    "finite": without(reading, "check_value", ('"" if value - value == 0.0 else "not a finite number"', '""')),
    "int64": without(
        reading, "check_value", ('"" if INT64_MIN <= value <= INT64_MAX else "integer beyond 64 bits"', '""')
    ),
    "text size": put(reading, "MAX_STRING", NEVER),
    "characters": put(reading, "_bad_character", lambda text: None),
    "values": without(
        reading,
        "check_value",
        ('return "an object is not a value"', 'return ""'),
        ('return "an array is not a value"', 'return ""'),
        ('return "not a number, boolean or string"', 'return ""'),
    ),
    # devices
    "sub-device": without(SubDevices, "find", ("if not is_device(name):", "if False:")),
    "sub-device type": put(_connection, "_heard_of", lambda *_: None),
    "metrics": without(_connection, _reading, ("if len(metrics) > endpoint.settings.max_metrics:", "if False:")),
    "series": without(
        _connection,
        _reading,
        ("if endpoint.series + len(metrics) - len(device.metrics) > endpoint.settings.max_series:", "if False:"),
    ),
    "series described": without(
        _connection,
        "_describe",
        ("if more > 0 and endpoint.described + more > endpoint.settings.max_series:", "if False:"),
    ),
    "description": put(connection, "check_description", lambda body: {}),
    "results": put(Downlink, "answered", _nothing),
    "undecodable in a row": put(connection, "UNDECODABLE_MAX", NEVER),
    "rate": without(Pipeline, "admit", ("wait = bucket.borrow(1.0) if delay else bucket.take(1.0)", "wait = 0.0")),
    "rate of refusals": without(
        _connection,
        "_refuse",
        ("wait = device.bucket.borrow(1.0) if endpoint.delay else device.bucket.take(1.0)", "wait = 0.0"),
    ),
    "rate of controls": without(_connection, "_control", ("if device.bucket.take(1.0):", "if False:")),
    "devices": put(DeviceBook, "check_room", lambda self, name: None),
    "device name": without(device.DeviceEndpoint, "_admit", ("if not is_device(name):", "if False:")),
    "session": without(device.DeviceEndpoint, "_admit", ("if session is not None and (", "if False and (")),
    "ack": without(device.DeviceEndpoint, "_admit", ("if level not in ACKS:", "if False:")),
    "format": put(device, "CODECS", type("Any", (dict,), {"__contains__": lambda *_: True})(codecs.CODECS)),
    # addresses and requests
    "escapes": both(put(request, "_bad_path", lambda raw: None), put(request, "_unprintable", lambda target: None)),
    "slash": without(request, "split_path", ('if "/" in segment or "\\0" in segment:', "if False:")),
    "path utf-8": without(request, "split_path", ('raise BadRequest("path is not UTF-8") from None', 'segment = "x"')),
    "target": without(request, "split_target", ("if match is None:", "if False:")),
    "routes": without(reception.Reception, "_match", ("if match is None:", "if False:")),
    "fields": put(request, "MAX_QUERY_FIELDS", NEVER),
    "line size": put(reception, "MAX_LINE_BYTES", NEVER),
    "head size": put(reception, "MAX_HEAD_BYTES", NEVER),
    "field count": put(reception, "MAX_FIELDS", NEVER),
    "parser": without(reception.Reception, "_read_head", ("if not events:", "if False:")),
    "method": without(reception.Reception, "_match", ("if raw.method not in allowed:", "if False:")),
    "body": without(
        http11.Request,
        "parse",
        ('if "Transfer-Encoding" in headers:', "if False:"),
        ('if not set(headers.get_all("Content-Length")) <= {"0"}:', "if False:"),
    ),
    "host count": without(reception.Reception, "_match", ('if raw.protocol == "HTTP/1.1" and ', "if False and ")),
    "host": put(guard.Guard, "host_problem", lambda self, host: ""),
    "origin": put(guard.Guard, "origin_problem", lambda self, origin: ""),
    "handshake": _no_handshake,
    "version": without(
        reception.Reception,
        "_accept",
        ('if raw.headers.get_all("Sec-WebSocket-Version") not in ([], ["13"]):', "if False:"),
    ),
    "connections": without(
        Server,
        "admit",
        ("if self.max_connections is not None and len(self._held) >= self.max_connections:", "if False:"),
    ),
    "per address": without(Server, "admit", ("self.max_per_address is not None\n", "False\n")),
    # frames
    "no compression": without(
        reception.Reception, "_accept", ("[DEFLATE] if options.compression else None", "[DEFLATE]")
    ),
    "message size": _of_layer("size"),
    **{
        check: _of_layer(check)
        for check in (
            *("utf-8", "utf-8 pieces", "control length", "reserved", "masking", "opcode", "close length", "close code"),
        )
    },
    # questions
    "durations": put(pages, "parse_duration", lambda text: 10**9),
    "times": put(pages, "parse_time", lambda text, now: now),
    "aggregates": put(pages, "AGGREGATES", ("mean", "eval")),
    "formats": put(pages, "FORMATS", ("json", "../../etc")),
    "order": without(
        pages.Pages, "_stretch", ('if query.get("from") and query.get("to") and start > end:', "if False:")
    ),
    "glob size": put(pages, "GLOB_MAX", NEVER),
    # dashboards
    "requests": both(put(live, "_from_json", _Anything), put(live, "_from_msgpack", _Anything)),
    "params numbers": put(commands, "_pack", lambda params: b""),
    "params depth": put(live, "check_depth", lambda *_: None),
    "patterns": put(live, "MAX_PATTERNS", NEVER),
    "stars": put(live, "MAX_STARS", NEVER),
    "subscriptions": put(live, "MAX_SUBSCRIPTIONS", NEVER),
    "unsubscribe": without(
        live.Client, "message", ('self._error(request.id, "bad_request", "no such subscription")', "pass")
    ),
    "commands": put(commands, "_check", lambda *_: {}),
    # the control socket
    "control requests": put(control, "_request", lambda message: control._Request(1, "health")),
    "commands known": without(control.Control, "_run", ("if command is None:", "if False:")),
    "parameters": _any_parameters,
    "device known": put(desk.Desk, "_device", _anybody),
    "sink known": put(desk.Desk, "_chosen", lambda self, sink: self._runners),
}
