"""The doors of the gateway, as a hostile peer sees them: bytes in, and in words what comes back.

Each gives the answers to what a case sends, then to something good that is sent behind it.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import cbor2
import msgspec

from gateway.server.control import address
from tests.running import Running
from tests.ws.support import BINARY, CLOSE, PING, PONG, TEXT, Raw, frame, open_raw

__all__ = ["DOORS", "REQUEST", "Commands", "Frames", "fresh", "knock"]

PATIENCE_S = 10.0
LAST = (1 << 63) - 1
# What is sent behind a case, by format: what has a sequence is acked, what has none is answered by an error of its own.
BEHIND: dict[str, Any] = {
    "json": {"seq": LAST, "values": {}},
    "msgpack": msgspec.msgpack.encode({"seq": LAST, "values": {}}),
    "cbor": cbor2.dumps({"seq": LAST, "values": {}}),
    "senml-json": [{"n": "served", "v": "x"}],
    "senml-cbor": cbor2.dumps([{"n": "served", "v": "x"}]),
    "influx": "m served=x",
}
UNPACK: dict[str, Callable[[bytes], Any]] = {"cbor": cbor2.loads, "senml-cbor": cbor2.loads}
_numbers = itertools.count()


class Frames(bytes):
    """Frames as they are, behind the upgrade."""


class Commands(tuple[Any, ...]):
    """Messages of a dashboard that are answered one by one."""


def _is_of_command(message: dict[str, Any]) -> bool:
    return message.get("type") in ("error", "command_state")


class Patience:
    """How long is waited for an answer that does not come; less where none is expected."""

    seconds = PATIENCE_S


def fresh() -> str:
    """A device's name that no other case has."""
    return f"victim-{next(_numbers)}"


def _framed(sent: Any) -> bytes:
    if isinstance(sent, Frames):
        return bytes(sent)
    if isinstance(sent, str):
        return frame(TEXT, sent.encode("utf-8", "surrogatepass"))
    if isinstance(sent, bytes):
        return frame(BINARY, sent)
    return frame(TEXT, json.dumps(sent).encode())


def _each(sent: Any) -> list[bytes]:
    return [_framed(one) for one in sent] if isinstance(sent, tuple) else [_framed(sent)]


async def _messages(raw: Raw, unpack: Callable[[bytes], Any]) -> AsyncIterator[dict[str, Any]]:
    """Messages of the gateway up to its close, which is the last: ``{"close": code}``, or 1006 for none."""
    while True:
        got = await raw.recv(PATIENCE_S)
        if got is None or got.opcode == CLOSE:
            yield {"close": got.code if got else 1006}
            return
        if got.opcode == PING:
            raw.send(frame(PONG, got.payload))
        elif got.opcode in (TEXT, BINARY):
            yield json.loads(got.payload) if got.opcode == TEXT else unpack(got.payload)


async def _talk(
    raw: Raw,
    sent: Any,
    behind: bytes,
    last: Callable[[dict[str, Any]], bool],
    unpack: Callable[[bytes], Any] = msgspec.msgpack.decode,
) -> list[str]:
    raw.send(b"".join(_each(sent)) + behind)
    said = []
    try:
        async with asyncio.timeout(Patience.seconds):
            async for message in _messages(raw, unpack):
                if "close" in message:
                    said.append(f"close {message['close']}")
                elif last(message) and message.get("type") == "error" and last is _is_of_command:
                    return [*said, message["code"]]
                elif last(message):
                    return [*said, message["type"] if message.get("type") == "throttled" else "served"]
                elif message.get("type") == "error":
                    said.append(message["code"])
                elif message.get("ok") is False:
                    words = ("not a request", "a fault in the gateway")
                    said.append(next((word for word in words if word in message["error"]), "refused"))
                elif message.get("type") == "throttled":
                    said.append("throttled")
    except TimeoutError:
        said.append("silence")
    return said


async def device(gw: Running, sent: Any) -> list[str]:
    """Messages of a device, JSON or MessagePack; served: a reading behind them is acked.

    ``(subprotocol, message..)`` where the first is the name of one.
    """
    name = gw.victim = fresh()  # type: ignore[attr-defined]
    headers = []
    if isinstance(sent, tuple) and isinstance(sent[0], str) and sent[0].startswith("gateway.v1."):
        headers, sent = [f"Sec-WebSocket-Protocol: {sent[0]}"], sent[1:]
    format = headers[0].rpartition(".")[2] if headers else "json"
    async with open_raw(gw.port, f"/v1/devices/{name}", *headers) as raw:
        return await _talk(raw, sent, _framed(BEHIND[format]), _is_behind, UNPACK.get(format, msgspec.msgpack.decode))


def _is_behind(message: dict[str, Any]) -> bool:
    return message.get("seq") == LAST or "served" in message.get("detail", "")


async def live(gw: Running, sent: Any) -> list[str]:
    """Messages of a dashboard; served: a subscription behind them is answered."""
    behind = _framed({"type": "subscribe", "id": "behind", "devices": ["nobody"]})
    async with open_raw(gw.port, "/v1/live") as raw:
        if isinstance(sent, Commands):
            # Their answers take their time.
            said = [words for one in sent for words in await _talk(raw, one, b"", _is_of_command)]
            return [words for words in said if words != "served"] + await live(gw, ())
        return await _talk(
            raw, sent, behind, lambda message: (message.get("type"), message.get("id")) == ("snapshot", "behind")
        )


async def control(gw: Running, sent: Any) -> list[str]:
    """Requests at the control socket; served: one behind them is answered."""
    behind = _framed({"id": "behind", "command": "explain", "params": {"device": "nobody"}})
    directory: Path = gw.app.settings.state_dir
    with address(directory) as path:
        raw = Raw(*await asyncio.open_unix_connection(path, limit=1 << 22))
    try:
        assert " 101 " in await raw.handshake("/control")
        return await _talk(raw, sent, behind, lambda message: message.get("id") == "behind")
    finally:
        await raw.close()


async def http(gw: Running, sent: bytes) -> list[str]:
    """Bytes instead of a request; the status of each answer, and whether the connection ends."""
    async with open_raw(gw.port, None) as raw:
        raw.send(sent)
        if raw.writer.can_write_eof() and not sent.endswith(b"\r\n\r\n"):
            raw.writer.write_eof()
        return await _statuses(raw)


async def _statuses(raw: Raw) -> list[str]:
    said: list[str] = []
    try:
        async with asyncio.timeout(Patience.seconds):
            while line := await raw.reader.readline():
                if line.startswith(b"HTTP/1.1 "):
                    said.append(line.split(b" ")[1].decode())
                    if said[-1] == "101":
                        head = await raw.reader.readuntil(b"\r\n\r\n")
                        return [*said, "compressed"] if b"sec-websocket-extensions" in head.lower() else said
    except (TimeoutError, ConnectionError):
        return [*said, "open"]
    return said or ["closed"]


async def get(gw: Running, sent: Any) -> list[str]:
    """A target, or a target and headers, of a GET; the status."""
    target, *headers = (sent,) if isinstance(sent, str) else sent
    lines = [f"GET {target} HTTP/1.1", *(headers or ["Host: localhost"])]
    return await http(gw, "\r\n".join(lines).encode("utf-8", "surrogateescape") + b"\r\n\r\n")


async def upgrade(gw: Running, sent: Any) -> list[str]:
    """A target, or a target and headers, of a handshake; the status."""
    target, *headers = (sent,) if isinstance(sent, str) else sent
    async with open_raw(gw.port, None) as raw:
        lines = [
            *("Host: localhost", "Upgrade: websocket", "Connection: Upgrade", "Sec-WebSocket-Version: 13"),
            "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
        ]
        names = {line.partition(":")[0].lower() for line in headers}
        lines = [line for line in lines if line.partition(":")[0].lower() not in names] + list(headers)
        request = "\r\n".join([f"GET {target} HTTP/1.1", *lines]).encode("utf-8", "surrogateescape")
        raw.send(request + b"\r\n\r\n")
        return await _statuses(raw)


async def crowd(gw: Running, sent: Any) -> list[str]:
    """A message of a device each; all that came back, without order."""
    return sorted({words for one in sent for words in await device(gw, one)})


async def hold(gw: Running, sent: Any) -> list[str]:
    """Targets asked for by handshakes that stay, one after the other; their statuses."""
    async with contextlib.AsyncExitStack() as stack:
        said = []
        for target in sent:
            raw = await stack.enter_async_context(open_raw(gw.port, None))
            status = await raw.handshake(target)
            said.append(status.split(" ")[1])
        return said


DOORS: dict[str, Callable[[Running, Any], Awaitable[list[str]]]] = {
    "device": device,
    "crowd": crowd,
    "hold": hold,
    "live": live,
    "control": control,
    "http": http,
    "get": get,
    "upgrade": upgrade,
}


async def knock(gw: Running, door: str, sent: Any) -> tuple[str, ...]:
    """What comes back, runs of the same told as one: ``bad_value x 3``."""
    said = await DOORS[door](gw, sent() if callable(sent) else sent)
    return tuple(
        f"{words} x {count}" if (count := len(list(run))) > 1 else words for words, run in itertools.groupby(said)
    )


REQUEST = b"GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n"
