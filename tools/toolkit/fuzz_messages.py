"""Targets ``json``, ``msgpack`` and ``session``: what devices send, decoded and judged.

``json`` and ``msgpack``: the input is one message.  The reference reads it with another decoder (Python's ``json``; a
MessagePack reader written here after its specification) and applies the contract's rules for readings, written here
again.  Both have to take the same readings, with the same values, and refuse the same ones; which of its faults a
reading is refused for is not compared.

``session``: two bytes a step, what a device sends and how the gateway fares; see :func:`check_session`.
"""

from __future__ import annotations

import json
import math
import re
import struct
from collections.abc import Callable
from fractions import Fraction
from typing import Any

import msgspec

from gateway.codecs import CODECS, Codec, Control, Draft, codec_for
from gateway.codecs.depth import MAX_DEPTH
from gateway.codecs.model import MAX_READINGS
from gateway.errors import Refusal
from gateway.session import GIVE_UP_S, Session, Verdict

from .fuzzing import Finding, Target

__all__ = ["TARGETS", "check_draft", "check_refusal"]

INT64 = range(-(1 << 63), 1 << 63)
CODES = {
    "undecodable",
    "too_deep",
    "bad_message",
    "too_many_readings",
    "bad_seq",
    "bad_time",
    "bad_device",
    "bad_name",
    "bad_value",
}
REFUSED = "refused"
UNKNOWN = "unknown"  # nested so deeply, or with such keys, that the two decoders need not agree


class Extension:
    """What MessagePack has and JSON has not; never a value."""


# The contract's rules


def _wanted(message: object) -> object:
    """What becomes of a decoded message: ``REFUSED`` as a whole, or its parts."""
    if isinstance(message, dict):
        if "type" in message:
            kind = message["type"]
            return [kind if kind in ("heartbeat", "describe", "result") else REFUSED]
        return [_reading(message)]
    if isinstance(message, list) and len(message) <= MAX_READINGS:
        return [_reading(element) for element in message]
    return REFUSED


def _reading(element: object) -> object:
    if not isinstance(element, dict):
        return REFUSED
    rest = dict(element)
    seq, ts, device = rest.pop("seq", None), rest.pop("ts", None), rest.pop("device", "")
    if seq is not None and (type(seq) is not int or not 0 < seq < 1 << 63):
        return REFUSED
    if not isinstance(device, str) or ("device" in element and not device):
        return REFUSED
    time = _time(ts)
    if time is None:
        return REFUSED
    if "values" in rest:
        values = rest.pop("values")
        if rest or not isinstance(values, dict):
            return REFUSED
    else:
        values = rest
        if "type" in values:
            return REFUSED
    kept = {}
    for name, value in values.items():
        if not isinstance(name, str) or not _is_metric(name):
            return REFUSED
        if value is None:
            continue
        if not _is_value(value):
            return REFUSED
        kept[name] = value
    return kept, seq or 0, time, device


def _is_metric(name: str) -> bool:
    return re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.:/-]{0,127}", name, re.ASCII) is not None


def _is_value(value: object) -> bool:
    if isinstance(value, bool):
        return True
    if isinstance(value, int):
        return value in INT64
    if isinstance(value, float):
        return math.isfinite(value)
    if isinstance(value, str):
        controls = any((char < " " and char not in "\t\r\n") or "\ud800" <= char <= "\udfff" for char in value)
        return len(value) <= 1024 and not controls
    return False


def _time(ts: object) -> Fraction | None:
    """Nanoseconds, exactly; -1 where there is no time, ``None`` where it is none."""
    if ts is None:
        return Fraction(-1)
    if isinstance(ts, bool) or not isinstance(ts, int | float) or not 0 <= ts < math.inf:
        return None
    ns = Fraction(ts) * (10**9 if ts < 1e11 else 10**6 if ts < 1e14 else 10**3 if ts < 1e17 else 1)
    return ns if ns < 1 << 63 else None


def _depth(message: object) -> int:
    """Objects and arrays inside one another."""
    deepest, left = 0, [(message, 1)]
    while left:
        value, depth = left.pop()
        if isinstance(value, dict | list):
            deepest = max(deepest, depth)
            left += [(inner, depth + 1) for inner in (value.values() if isinstance(value, dict) else value)]
    return deepest


def _digits(digits: str) -> int:
    """An integer, however many digits it has: all of the long ones are too large."""
    return int(digits) if len(digits) < 4000 else 1 << 64


def _compare(codec: Codec, data: str | bytes, decoded: object) -> None:
    """``codec`` makes of ``data`` what the rules make of it, ``decoded`` by another decoder."""
    wanted = REFUSED if decoded is REFUSED else _wanted(decoded)
    deep = decoded is not UNKNOWN and _depth(decoded) > MAX_DEPTH
    try:
        found = codec.decode(data)
    except Refusal as refusal:
        check_refusal(codec, refusal)
        if refusal.code == "too_deep" and decoded not in (UNKNOWN, REFUSED):
            if not deep:
                raise Finding(f"too_deep for {decoded!r:.300}") from refusal
            return
        if wanted is not REFUSED and decoded is not UNKNOWN:
            raise Finding(f"{refusal.code} ({refusal}) for {wanted!r:.300}") from refusal
        return
    for part in found:
        if isinstance(part, Refusal):
            check_refusal(codec, part)
        elif isinstance(part, Draft):
            check_draft(part)
    if decoded is UNKNOWN:
        return
    if deep:
        raise Finding(f"{found!r:.300} of what is {_depth(decoded)} deep")
    if not isinstance(wanted, list):
        raise Finding(f"{found!r:.300} for what is to be refused")
    if len(found) != len(wanted):
        raise Finding(f"{len(found)} parts instead of {len(wanted)}")
    for part, want in zip(found, wanted, strict=True):
        _compare_part(part, want)


def _compare_part(part: Draft | Control | Refusal, want: object) -> None:
    if isinstance(part, Refusal):
        if want is not REFUSED:
            raise Finding(f"{part.code} ({part}) for {want!r:.300}")
    elif isinstance(part, Control):
        if want != part.type or part.body.get("type") != part.type:
            raise Finding(f"{part!r:.200} instead of {want!r:.200}")
    elif not isinstance(want, tuple):
        raise Finding(f"{part!r:.300} instead of {want!r:.300}")
    else:
        values, seq, time, device = want
        same = (part.seq, part.device, list(part.values)) == (seq, device, list(values))
        if not same or abs(part.time - time) > 1 or type(part.time) is not int:
            raise Finding(f"{part!r:.300} instead of {want!r:.300}")
        for name, value in values.items():
            if type(value) is not type(part.values[name]) or value != part.values[name]:
                raise Finding(f"{name}: {part.values[name]!r} instead of {value!r}")


def check_draft(part: Draft) -> None:
    """A reading holds nothing but what the contract allows."""
    names = all(isinstance(name, str) and _is_metric(name) for name in part.values)
    if not names or not all(map(_is_value, part.values.values())):
        raise Finding(f"{part!r:.300} holds what is no value")
    if part.seq not in INT64[1 << 63 :] or part.time not in INT64[(1 << 63) - 1 :] or type(part.device) is not str:
        raise Finding(f"{part!r:.300}")


def check_refusal(codec: Codec, refusal: Refusal) -> None:
    """It can be sent, and its words are fit for a log."""
    if refusal.code not in CODES:
        raise Finding(f"unknown code {refusal.code}")
    if refusal.seq and (type(refusal.seq) is not int or refusal.seq not in INT64):
        raise Finding(f"seq {refusal.seq!r}")
    detail = str(refusal)[:512]  # as the endpoint cuts it
    if not detail.isprintable():
        raise Finding(f"words that are no single line: {detail!r:.600}")
    codec.encode({"type": "error", "code": refusal.code, "detail": detail, "seq": refusal.seq, "index": refusal.index})


# JSON


def check_json(data: bytes) -> None:
    """One text message; not UTF-8 is the WebSocket layer's to refuse."""
    try:
        text = data.decode()
    except UnicodeDecodeError:
        return
    decoded: object
    try:
        decoded = json.loads(text, parse_int=_digits)
    except RecursionError:
        decoded = UNKNOWN
    except ValueError:
        decoded = REFUSED
    codec = codec_for(None, True)
    assert codec is CODECS["gateway.v1.json"]
    _compare(codec, text, decoded)


# MessagePack


def check_msgpack(data: bytes) -> None:
    """One binary message."""
    decoded: object
    try:
        decoded, end = _unpack(data, 0, 0)
        if end != len(data):
            decoded = REFUSED
    except RecursionError:
        decoded = UNKNOWN
    except (ValueError, TypeError, IndexError, struct.error):
        decoded = REFUSED
    for codec in (CODECS["gateway.v1.msgpack"], codec_for(None, False)):
        assert codec is not None
        _compare(codec, data, decoded)


_FIXED: dict[int, Callable[[bytes, int], tuple[object, int]]] = {
    0xC0: lambda data, at: (None, at),
    0xC2: lambda data, at: (False, at),
    0xC3: lambda data, at: (True, at),
}
for _code, _format in zip(range(0xCA, 0xD4), ("f", "d", "B", "H", "I", "Q", "b", "h", "i", "q"), strict=True):
    _FIXED[_code] = lambda data, at, form=">" + _format: (  # type: ignore[misc]
        struct.unpack_from(form, data, at)[0],
        at + struct.calcsize(form),
    )
_SIZES = {0xC4: 1, 0xC5: 2, 0xC6: 4, 0xD9: 1, 0xDA: 2, 0xDB: 4, 0xDC: 2, 0xDD: 4, 0xDE: 2, 0xDF: 4}
_SIZES |= {0xC7: 1, 0xC8: 2, 0xC9: 4}


def _unpack(data: bytes, at: int, depth: int) -> tuple[Any, int]:
    """One object at ``at``, after https://github.com/msgpack/msgpack/blob/master/spec.md, and the place behind it."""
    if depth > 100:
        raise RecursionError
    code = data[at]
    at += 1
    if code < 0x80:
        return code, at
    if code >= 0xE0:
        return code - 256, at
    if code in _FIXED:
        return _FIXED[code](data, at)
    if code < 0xC0:
        size = code & (0x1F if code >= 0xA0 else 0x0F)
        code = 0xD9 if code >= 0xA0 else 0xDC if code >= 0x90 else 0xDE
    elif code in range(0xD4, 0xD9):
        size, code = 1 << code - 0xD4, 0xC7
    else:
        wide = _SIZES[code] if code in _SIZES else int("unused code")
        size = int.from_bytes(_take(data, at, wide), "big")
        at += wide
    if code in (0xC7, 0xC8, 0xC9):
        kind, payload = struct.unpack_from("b", data, at)[0], _take(data, at + 1, size)
        if kind == -1:
            _check_timestamp(payload)
        return Extension(), at + 1 + size
    if code in (0xC4, 0xC5, 0xC6, 0xD9, 0xDA, 0xDB):
        payload = _take(data, at, size)
        return payload.decode() if code >= 0xD9 else payload, at + size
    found = []
    for _ in range(size if code in (0xDC, 0xDD) else 2 * size):
        one, at = _unpack(data, at, depth + 1)
        found.append(one)
    if code in (0xDC, 0xDD):
        return found, at
    if any(isinstance(key, list | Extension) for key in found[::2]):
        raise RecursionError
    return dict(zip(found[::2], found[1::2], strict=True)), at


def _take(data: bytes, at: int, size: int) -> bytes:
    if at + size > len(data):
        raise ValueError("cut off")
    return data[at : at + size]


def _check_timestamp(payload: bytes) -> None:
    """A timestamp that cannot be one makes the message undecodable."""
    if len(payload) == 4:
        return
    if len(payload) == 8:
        nanoseconds, seconds = int.from_bytes(payload, "big") >> 34, int.from_bytes(payload, "big") & (1 << 34) - 1
    elif len(payload) == 12:
        nanoseconds, seconds = struct.unpack(">Iq", payload)
    else:
        raise ValueError("a timestamp has 4, 8 or 12 bytes")
    if nanoseconds > 999_999_999 or not -62135596800 <= seconds <= 253402300799:
        raise ValueError("beyond what a timestamp holds")


# Sessions


def check_session(data: bytes) -> None:
    """Steps of two bytes: (what, how).

    Byte 0: below 0x40 commit, else send; its low six bits are the sequence number relative to the highest one taken
    (minus 8).  Byte 1: the low bit says whether there is room, the others how many tenths of a second pass before.
    """
    session = Session("s")
    now = 0.0
    taken: list[int] = []
    held: tuple[int, float] | None = None
    durable = missing = never = 0
    came: list[int] = []
    for step in range(0, len(data) - 1, 2):
        what, how = data[step], data[step + 1]
        now += (how >> 1) / 10
        if what < 0x40:
            # A commit covers a prefix of what was taken.
            upto = taken[: what % (len(taken) + 1)]
            session.decided(upto[-1] if upto else 0)
            durable = max([durable, *upto])
        else:
            seq = session.highest + (what & 0x3F) - 8
            if seq < 1:
                continue
            if taken and seq <= taken[-1]:
                wanted = Verdict.DUPLICATE
            elif held and seq > held[0] and now - held[1] < GIVE_UP_S:
                wanted = Verdict.HELD
            else:
                wanted = Verdict.NEW
            found = session.judge(seq, now)
            came.append(seq)
            if found is not wanted:
                raise Finding(f"step {step // 2}: {seq} is {found.name}, not {wanted.name}")
            if wanted is Verdict.NEW and how & 1:
                missing += session.accept(seq)
                # What came and was not kept is not missing.
                never += len(set(range(max(came[0], taken[-1] + 1 if taken else 0), seq)) - set(came))
                taken.append(seq)
                if held and seq >= held[0]:
                    held = None
            elif wanted is Verdict.NEW:
                session.hold(seq, now)
                held = (seq, now)
        if (session.highest, session.durable) != (taken[-1] if taken else 0, durable):
            raise Finding(f"step {step // 2}: {session.highest}, {session.durable} instead of {taken[-1:]}, {durable}")
        if missing != never:
            raise Finding(f"step {step // 2}: {missing} missing of {taken}, {never} never came, of {came}")


_MESSAGES: tuple[object, ...] = (
    {"temperature": 22.5, "door": True, "state": "on", "n": None},
    {"ts": 1764000000000, "seq": 17, "values": {"temperature": 22.5, "a/b": -(1 << 63)}},
    [{"seq": 1, "a": 1}, {"seq": 2, "ts": 1764000000.25, "values": {}}, {"device": "x", "a": 2}],
    {"type": "heartbeat"},
    {"type": "describe", "name": "Boiler", "metrics": {"t": {"unit": "Cel", "integer": False}}},
    {"type": "other", "seq": 4},
    {"seq": (1 << 63) - 1, "ts": 1e17, "v": 2**63 - 1},
    {"ts": -1, "a": [1, {"b": {}}]},
    [],
    7,
)
_JSON_TOKENS = (
    *(b'"seq":', b'"ts":', b'"values":{', b'"device":"', b'"type":"', b'"heartbeat"', b"null", b"true", b"NaN"),
    *(b"-Infinity", b"1e999", b"9223372036854775808", b"-0.0", b"1e-400", b'"\\ud800"', b'"\\u0000"', b"[[", b"{}"),
    *(b"1" * 400, b"99999999999.5", b"9.3e18", b'"\xe2\x82\xac":1,', b'"a":1,"a":2', b"\xef\xbb\xbf", b"\\"),
)
_MSGPACK_TOKENS = (
    *(b"\xa3seq", b"\xa2ts", b"\xa6values\x81", b"\xa6device", b"\xa4type", b"\xa9heartbeat", b"\xc0", b"\xc1"),
    *(b"\xcb\x7f\xf0\0\0\0\0\0\0", b"\xcf\xff\xff\xff\xff\xff\xff\xff\xff", b"\xd3\x80\0\0\0\0\0\0\0", b"\xc4\1x"),
    *(b"\xd6\xff\0\0\0\0", b"\xc7\x0c\xff\0\0\0\0\0\0\0\0\0\0\0\0", b"\xd4\5x", b"\xdd\0\0\0\2", b"\x81\xa1a", b"\x90"),
)

TARGETS = {
    "json": Target(
        "json",
        "the JSON model",
        check_json,
        tuple(msgspec.json.encode(message) for message in _MESSAGES),
        _JSON_TOKENS,
    ),
    "msgpack": Target(
        "msgpack",
        "the same in MessagePack",
        check_msgpack,
        tuple(msgspec.msgpack.encode(message) for message in _MESSAGES),
        _MSGPACK_TOKENS,
    ),
    "session": Target(
        "session",
        "sequence numbers of a session",
        check_session,
        (
            b"\x49\x01\x49\x01\x01\x00\x02\x00",
            b"\x49\x01\x4a\x00\x4b\x01\x4a\x01\x4b\x03",
            b"\x49\x01\x4c\x00\x4a\x00\x50\x01\x50\xff",
        ),
        (b"\x49\x01", b"\x4a\x00", b"\x48\x01", b"\x49\xc9", b"\x3f\x00"),
        400,
    ),
}
