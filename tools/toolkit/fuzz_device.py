"""Target ``device``: a device's messages to the whole device endpoint, on a journal and a socket in memory.

Input: byte 0 chooses the terms (the subprotocol by bits 4 to 6, or where they are 0 by bits 0 and 1; the level of acks
by bit 2, the policy by bit 3), then steps:

    00 n        commit what was taken so far, and time passes: n tenths of a second
    01 n        the journal has room (n even) or not
    02 n        the device connects again with the same session
    03 n m      the following n + 256 m bytes are a text message; 04 n m a binary one

After each step the contract's promises hold (section 3): every reading is in the ledger once; acks never go back, never
cover what is not durable, and never a number that was throttled and neither came again nor was given up for 10 s.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import cbor2
import msgspec

from gateway.codecs import SUBPROTOCOLS
from gateway.delivery import Delivery
from gateway.devices import DeviceBook
from gateway.errors import Overloaded
from gateway.ledger import FIELDS
from gateway.pipeline import Pipeline
from gateway.reading import Item, Mark, Reading
from gateway.server.connection import Connection
from gateway.server.device import DeviceEndpoint, Settings
from gateway.session import GIVE_UP_S
from gateway.ws import Message
from gateway.ws.request import Query

from .fuzzing import Finding, Target

__all__ = ["TARGETS"]

START_NS = 1_764_000_000_000_000_000
ROOM = 50


class Socket:
    """What a connection asks of a WebSocket."""

    pending_bytes = 0
    reason_lost = ""
    close_code = 1006
    peer_gone = False
    remote = ("127.0.0.1", 5)

    def __init__(self, subprotocol: str | None, query: str) -> None:
        self.subprotocol = subprotocol
        self.query = Query(query)
        self.state: dict[str, Any] = {}
        self.sent: list[dict[str, Any]] = []
        self.closed = False

    def try_send(self, message: Message) -> int:
        data = message.data
        unpack = cbor2.loads if "cbor" in (self.subprotocol or "") else msgspec.msgpack.decode
        found = json.loads(data) if isinstance(data, str) else unpack(data)
        if not self.closed:
            self.sent.append(found)
        return 0

    def close_soon(self, code: int = 1000, reason: str = "") -> None:
        Message.close(code, reason)
        self.closed = True


class Journal:
    """Keeps items in memory; what is committed is durable."""

    def __init__(self) -> None:
        self.items: list[Item] = []
        self.durable = 0
        self.full = False
        self._waiting: dict[Any, Any] = {}

    def append(self, item: Item, waiter: Any = None, token: Any = 0) -> int:
        msgspec.msgpack.encode(item)
        if self.full or len(self.items) - self.durable >= ROOM:
            raise Overloaded("no room")
        self.items.append(item)
        if waiter is not None:
            self._waiting[waiter] = token
        return len(self.items) - 1

    def commit(self) -> None:
        self.durable = len(self.items)
        waiting, self._waiting = self._waiting, {}
        for waiter, token in waiting.items():
            waiter.committed(token)


class Hub:
    """Looks at nothing."""

    def publish(self, *_: object) -> None:
        pass

    presence = publish


class Rig:
    """One device and its gateway."""

    def __init__(self, terms: int) -> None:
        self.now = 1000.0
        self.journal = Journal()
        book = self.book = DeviceBook(Path("devices.msgpack"), rate=5, burst=5, clock=lambda: self.now)
        self.device = book.open("d")
        self.endpoint = DeviceEndpoint(
            book,
            Pipeline(cast("Any", self.journal), cast("Any", Hub())),
            Delivery(lambda: self.journal.durable, lambda: self.journal.durable),
            Settings(rate=5, burst=5, policy="close" if terms & 8 else "drop"),
            now=lambda: START_NS + int(self.now * 1e9),
            monotonic=lambda: self.now,
        )
        others = (None, "gateway.v1.msgpack", "gateway.v1.json", None)
        self._subprotocol = (*SUBPROTOCOLS, None)[(terms >> 4) % 7 - 1] if terms & 0x70 else others[terms & 3]
        self._query = f"session=s&ack={'delivered' if terms & 4 else 'durable'}"
        self._seen = 0  # items of the journal looked at
        self._acked = 0
        self.holds: dict[int, float] = {}  # throttled or overloaded numbers, and when they last were
        self.connect()

    def connect(self) -> None:
        self.socket = Socket(self._subprotocol, self._query)
        self.connection = Connection(self.endpoint, cast("Any", self.socket), self.device)
        self._acked = 0

    def message(self, message: Message) -> None:
        if not self.socket.closed:
            self.connection.message(message)

    def check(self) -> None:
        """The promises that hold at any time."""
        for device in self.book:
            counts = device.ledger.as_dict()
            parts = [counts[field] for field in FIELDS[1:]]
            if counts["received"] != sum(parts) or min(parts) < 0:
                raise Finding(f"the ledger of {device.name} does not add up: {counts}")
        self._look_at_journal()
        sent, self.socket.sent = self.socket.sent, []
        for reply in sent:
            self._look_at(reply)

    def _look_at_journal(self) -> None:
        for item in self.journal.items[self._seen :]:
            if isinstance(item, Reading | Mark) and item.seq:
                for hold, since in list(self.holds.items()):
                    if hold < item.seq and self.now - since < GIVE_UP_S:
                        raise Finding(f"{item.seq} was kept behind {hold}, which was refused {self.now - since} s ago")
                    if hold <= item.seq:
                        del self.holds[hold]
        self._seen = len(self.journal.items)

    def _look_at(self, reply: dict[str, Any]) -> None:
        kind, seq = reply.get("type"), reply.get("seq")
        if kind == "ack":
            durable = [
                item.seq for item in self.journal.items[: self.journal.durable] if isinstance(item, Reading | Mark)
            ]
            if not isinstance(seq, int) or seq < self._acked or seq > max(durable, default=0):
                raise Finding(f"ack {seq} after {self._acked}, durable are {durable[-3:]}")
            self._acked = seq
        elif kind == "throttled" or (kind == "error" and reply.get("code") == "overloaded"):
            if reply["retry_after_ms"] < 1:
                raise Finding(f"{reply}")
            # A notice that is only repeated, since the device goes on behind the number, asks for no wait.
            if seq and (seq not in self.holds or reply["retry_after_ms"] > 1):
                self.holds[seq] = self.now
        elif kind == "error":
            if not isinstance(reply["code"], str) or not isinstance(reply["detail"], str):
                raise Finding(f"{reply}")
        elif kind != "welcome":
            raise Finding(f"unknown reply {reply}")


def _steps(data: bytes) -> Iterator[tuple[int, int, bytes]]:
    at = 0
    while at + 1 < len(data):
        kind, number = data[at] % 5, data[at + 1]
        at += 2
        payload = b""
        if kind > 2:
            size = number + 256 * data[at] if at < len(data) else 0
            payload = data[at + 1 : at + 1 + size]
            at += 1 + size
        yield kind, number, payload


def check(data: bytes) -> None:
    """One device's life."""
    if not data:
        return
    rig = Rig(data[0])
    for kind, number, payload in _steps(data[1:]):
        if kind == 0:
            rig.journal.commit()
            rig.check()
            rig.now += number / 10
        elif kind == 1:
            rig.journal.full = bool(number & 1)
        elif kind == 2:
            rig.connection.closed()
            rig.connect()
        elif kind == 3:
            try:
                rig.message(Message("text", payload.decode()))
            except UnicodeDecodeError:
                continue
        else:
            rig.message(Message("binary", payload))
        rig.check()
    rig.journal.full = False
    rig.journal.commit()
    rig.check()
    if any(device.ledger.in_flight for device in rig.book):
        raise Finding("something is in flight after a commit")


def _text(*messages: object) -> bytes:
    return b"".join(_step(3, msgspec.json.encode(message)) for message in messages)


def _binary(*messages: object) -> bytes:
    return b"".join(_step(4, msgspec.msgpack.encode(message)) for message in messages)


def _step(kind: int, payload: bytes) -> bytes:
    return bytes((kind, len(payload) & 255, len(payload) >> 8)) + payload


_readings = [{"seq": seq, "v": 1.5} for seq in range(1, 9)]
_SEEDS = (
    b"\x00" + _text(*[reading | {"device": "def"[number % 3]} for number, reading in enumerate(_readings)]) + b"\0\1",
    b"\x20" + b"".join(_step(4, cbor2.dumps(reading)) for reading in _readings) + b"\0\1",
    b"\x40" + _step(4, cbor2.dumps([{-2: "dev:", 0: "t", 2: 22.5, 6: -1}, {0: "u", 4: False}])) + b"\0\1",
    b"\x50" + _text([{"bn": "dev:", "n": "t", "v": 22.5, "u": "Cel"}, {"n": "x", "vs": "on"}]) + b"\0\1",
    b"\x60" + _step(3, b"cpu,host=a idle=98.2,n=1i 1764000000000\nmem used=1\n") + b"\0\1",
    b"\x01" + _text(*_readings, {"seq": 6, "values": {}}) + b"\0\1" + _text(*_readings[5:]) + b"\0\x0f",
    b"\x00" + _text(_readings) + b"\0\x0a" + _text(_readings[5:]) + b"\0\x7f" + _text({"seq": 20, "v": 1}),
    b"\x06" + _binary(_readings[:3], {"type": "heartbeat"}) + b"\2\0" + _binary(_readings[2:5]) + b"\0\1",
    b"\x00" + _text({"seq": 1, "v": 1}) + b"\1\1" + _text({"seq": 2, "v": [1]}, {"seq": 3, "v": 2}) + b"\1\0\0\5",
    b"\x00" + _text({"type": "describe", "name": "x", "interval_s": 60, "metrics": {"v": {"unit": "K", "class": "t"}}}),
    b"\x04" + _text({"v": 1}, {"type": "result", "id": "c1"}, {"seq": 3, "ts": 1, "bad value": 1}) + b"\0\0",
    b"\x08" + _text([{"v": n} for n in range(9)]) + b"\2\0" + _text("x", 1, None, [], {}) + b"\0\1",
    b"\x03" + _binary({"seq": 1, "v": b"x"}, {"type": "describe", 1: 2, "metrics": {"a": {"unit": 1}}}) + _text({}),
)
_TOKENS = (
    *(b'{"seq":1,"v":1}', b'{"seq":9}', b'"seq":2', b"\0\x64", b"\1\1", b"\1\0", b"\2\0", b'{"type":"describe"'),
    *(b'"metrics":{"', b'"interval_s":', b'"device":"d"', b'"device":"e"', b'"class":"', b"null", b"-1", b"1e999"),
)

TARGETS = {"device": Target("device", "a device's messages to the endpoint", check, _SEEDS, _TOKENS, 4096)}
