"""Sockets of the live feed that hold every message against section 5 of the contract, and devices to go with them.

:data:`SHAPES` has each message's fields: none may be there that is not named, none may be of another type.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import msgspec

from tests.running import Running, acked, receive, send

MSGPACK, JSON = "gateway.v1.msgpack", "gateway.v1.json"
TIMEOUT_S = 10.0
FAST: dict[str, Any] = {"limits": {"device_rate": 10**6, "device_burst": 10**6}, "journal": {"commit_ms": 2}}
"""Settings of a gateway that throttles nobody and acks soon."""

# -- shapes -----------------------------------------------------------------------------------------------------------

Check = Callable[[Any], bool]


def whole(value: Any) -> bool:
    """An integer, and no boolean."""
    return type(value) is int


def natural(value: Any) -> bool:
    """An integer from 0 on: an offset, a count."""
    return type(value) is int and value >= 0


def ms(value: Any) -> bool:
    """A time in milliseconds of this century."""
    return type(value) is int and 10**12 <= value < 10**13


def text(value: Any) -> bool:
    """Some text."""
    return type(value) is str and value != ""


def flag(value: Any) -> bool:
    """True or false."""
    return type(value) is bool


def one_of(*values: Any) -> Check:
    """One of these, of the same type."""
    return lambda value: any(type(value) is type(one) and value == one for one in values)


def table(check: Check) -> Check:
    """An object with any names, each with a value that passes."""
    return lambda value: type(value) is dict and all(text(key) and check(one) for key, one in value.items())


def point(value: Any) -> bool:
    """``[ms, value]``."""
    return type(value) is list and len(value) == 2 and natural(value[0]) and type(value[1]) in (int, float, bool, str)


def points(value: Any) -> bool:
    """A list of points, not empty."""
    return type(value) is list and bool(value) and all(map(point, value))


def fields(**checks: Check) -> Check:
    """An object with just these fields; a name that ends with ``_`` may be missing."""

    def check(value: Any) -> bool:
        if type(value) is not dict:
            return False
        must = {name for name in checks if not name.endswith("_")}
        may = {name[:-1]: one for name, one in checks.items() if name.endswith("_")}
        known = {**{name: checks[name] for name in must}, **may}
        return must <= set(value) <= set(known) and all(known[name](one) for name, one in value.items())

    return check


STATES = one_of("online", "stale", "offline")
STATE: dict[str, Check] = {"state": STATES, "since": ms, "last_seen": ms, "reason_": text, "confirmed_": one_of(False)}

SHAPES: dict[str, Check] = {
    "hello": fields(
        type=text,
        epoch=text,
        offset=natural,
        heartbeat_s=lambda value: type(value) in (int, float) and value > 0,
        auth=one_of("ok", "required"),
        time=ms,
        limits=table(lambda value: natural(value) and value > 0),
    ),
    "snapshot": fields(
        type=text,
        id=text,
        offset=natural,
        recovered=flag,
        devices=table(fields(values=table(point), **STATE)),
        more_=one_of(True),
    ),
    "history": fields(type=text, id=text, data=table(table(points)), last=flag, complete_=one_of(False)),
    "update": fields(
        type=text,
        id=text,
        offset=natural,
        data=table(table(points)),
        skipped_=lambda value: natural(value) and value > 0,
    ),
    "presence": fields(type=text, id=text, devices=table(fields(**STATE))),
    "mode": fields(type=text, id=text, mode=one_of("latest"), reason=one_of("slow")),
    "heartbeat": fields(type=text, time=ms),
    "error": fields(type=text, code=text, detail=text, id_=text, ref_=text),
    "command_state": fields(
        type=text,
        ref=text,
        id=text,
        device=text,
        state=one_of("queued", "sent", "done", "failed", "expired"),
        value_=lambda value: True,
    ),
}


def conforms(message: Any) -> bool:
    """Whether a message is one of the contract's."""
    return type(message) is dict and message.get("type") in SHAPES and SHAPES[message["type"]](message)


# -- a gateway, sockets, devices --------------------------------------------------------------------------------------


class Feed:
    """A dashboard's socket that checks what it gets; ``hello`` is the first message."""

    def __init__(self, ws: Any) -> None:
        self.ws = ws
        self.packed = ws.subprotocol == MSGPACK
        self.hello: dict[str, Any] = {}
        self.skipped = {"heartbeat"}

    async def ask(self, *requests: Any) -> None:
        """Send objects in the socket's format; text and bytes as they are."""
        for request in requests:
            if not isinstance(request, str | bytes):
                request = msgspec.msgpack.encode(request) if self.packed else json.dumps(request)
            await self.ws.send(request)

    async def next(self, kind: str = "") -> dict[str, Any]:
        """The next message, those of ``skipped`` left out; with ``kind`` it has to be one of that type."""
        async with asyncio.timeout(TIMEOUT_S):
            while True:
                data = await self.ws.recv()
                assert isinstance(data, bytes if self.packed else str)
                message: dict[str, Any] = msgspec.msgpack.decode(data) if self.packed else json.loads(data)
                assert conforms(message), message
                if message["type"] not in self.skipped or kind == message["type"]:
                    break
        assert kind in ("", message["type"]), message
        return message

    async def subscribe(self, **options: Any) -> dict[str, Any]:
        """Subscribe; the snapshot, which is the next message."""
        await self.ask({"type": "subscribe", **options})
        return await self.next("snapshot")

    async def quiet(self) -> None:
        """Nothing has come up to here: what is asked now is answered next."""
        assert (await self.subscribe(id="quiet?", devices=["nobody"]))["id"] == "quiet?"
        await self.ask({"type": "unsubscribe", "id": "quiet?"})


@asynccontextmanager
async def feed(gw: Running, subprotocol: str = "") -> AsyncIterator[Feed]:
    """A socket after its hello."""
    options: dict[str, Any] = {"subprotocols": [subprotocol]} if subprotocol else {}
    async with gw.live(max_size=None, **options) as ws:
        found = Feed(ws)
        found.hello = await found.next("hello")
        yield found


_names = iter(range(10**6))


def fresh(prefix: str = "dev") -> str:
    """A name that no other test has."""
    return f"{prefix}{next(_names)}"


@asynccontextmanager
async def device(gw: Running, name: str, *readings: dict[str, Any]) -> AsyncIterator[Callable[..., Any]]:
    """A device that has sent ``readings``; gives a function that sends more and waits for their ack."""
    seq = 0
    async with gw.device(name) as ws:
        await receive(ws, "welcome")

        async def say(*more: dict[str, Any]) -> None:
            nonlocal seq
            for values in more:
                seq += 1
                await send(ws, {"seq": seq, **values})
            if more:
                await acked(ws, seq)

        await say(*readings)
        yield say


async def refused(one: Feed, request: Any, id: str) -> None:
    """One error comes, with the id; then the socket goes on as before."""
    await one.ask(request)
    error = await one.next("error")
    assert error["code"] == "bad_request"
    assert error.get("id", "") == id
    assert "ref" not in error
    assert len(error["detail"]) <= 512
    await one.quiet()
