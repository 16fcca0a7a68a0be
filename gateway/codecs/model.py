"""The JSON model: plain decoded objects to parts, shared by every format that carries it (JSON, MessagePack).

Three shapes of a reading (flat, envelope, array of either) and the typed control messages.  ``type``, ``ts``, ``seq``,
``values`` and ``device`` are reserved at the top level and never metrics.
"""

from __future__ import annotations

import msgspec

from ..errors import Refusal
from ..reading import INT64_MAX, INT64_MIN, Value, check_value, is_metric, time_to_ns
from .depth import check_depth

__all__ = ["MAX_READINGS", "RESERVED", "Control", "Draft", "Part", "name_problem", "parts", "too_many"]

MAX_READINGS = 1000  # a message; a longer array is refused whole, with code too_many_readings
RESERVED = frozenset({"type", "ts", "seq", "values", "device"})  # never metrics, in any format
CONTROLS = frozenset({"heartbeat", "describe", "result"})


class Draft(msgspec.Struct, gc=False):
    """A reading as its device sent it, checked: ``seq`` 0 and ``time`` -1 where missing; ``time`` in nanoseconds.

    ``shift``: where ``time`` is missing, nanoseconds from the receipt to the reading's time.  ``units`` of metrics,
    where the format has them.
    """

    values: dict[str, Value]
    seq: int = 0
    time: int = -1
    device: str = ""
    shift: int = 0
    units: dict[str, str] | None = None


class Control(msgspec.Struct, frozen=True):
    """A typed message that is not a reading: ``heartbeat``, ``describe`` or ``result``, with its whole body."""

    type: str
    body: dict[str, object]


Part = Draft | Control | Refusal


def parts(message: object) -> list[Part]:
    """The parts of a decoded message, in order.

    Raises :class:`Refusal` for what is neither an object nor an array (``bad_message``), ``too_many_readings`` and
    ``too_deep``: what is taken is flat, so only what is refused, or typed, has to be looked at for that.
    """
    if type(message) is dict:
        if "type" in message:
            return [_control(message)]
        return [_reading(message, None)]
    if type(message) is list:
        if len(message) > MAX_READINGS:
            raise too_many(len(message))
        return [_reading(element, index) for index, element in enumerate(message)]
    raise Refusal("bad_message", "neither an object nor an array")


def too_many(count: int) -> Refusal:
    """The refusal of a message of so many readings."""
    return Refusal("too_many_readings", f"{count} readings, at most {MAX_READINGS} a message: none was taken, split it")


def name_problem(name: str) -> str:
    """Why ``name`` cannot be a metric's, in words; empty if it can."""
    if name in _known or _learn(name):
        return f"{name}: reserved" if name in RESERVED else ""
    return f"{_shown(name)}: not a metric's name"


def _control(message: dict[str, object]) -> Part:
    check_depth(message)
    kind = message["type"]
    if type(kind) is str and kind in CONTROLS:
        return Control(kind, message)
    return Refusal("bad_message", f"unknown type {_shown(kind)}", seq=_seq_of(message))


def _reading(element: object, index: int | None) -> Draft | Refusal:
    if type(element) is not dict:
        return _refused("bad_message", "a reading is an object", 0, index, element)
    seq = 0
    time = -1
    device = ""
    if "seq" in element:
        seq = _seq_of(element)
        if not seq and element["seq"] is not None:
            return _refused("bad_seq", "seq: not a positive integer below 2^63", 0, index, element)
        del element["seq"]
    if "ts" in element:
        ts = element.pop("ts")
        if ts is not None:
            try:
                time = time_to_ns(ts)
            except ValueError as error:
                return _refused("bad_time", f"ts: {error}", seq, index, element, ts)
    if "device" in element:
        named = element.pop("device")
        if type(named) is not str or not named:
            return _refused("bad_device", "device: not a name", seq, index, element, named)
        device = named
    values = element
    prefix = ""
    if "values" in element:
        values = element.pop("values")
        prefix = "values."
        if type(values) is not dict:
            return _refused("bad_message", "values: not an object", seq, index, element, values, device)
        if element:
            stray = _shown(next(iter(element)))
            detail = f"{stray} beside values: move it into values"
            return _refused("bad_message", detail, seq, index, element, values, device)
    elif "type" in element:
        return _refused("bad_message", "a typed message inside an array", seq, index, element)
    absent = False
    for name, value in values.items():
        if name not in _known and not _learn(name):
            detail = f"{prefix}{_shown(name)}: not a metric's name"
            return _refused("bad_name", detail, seq, index, element, values, device)
        kind = type(value)
        if kind is float:
            if value - value == 0.0:  # finite
                continue
        elif kind is int:
            if INT64_MIN <= value <= INT64_MAX:
                continue
        elif kind is bool:
            continue
        elif value is None:
            absent = True
            continue
        problem = check_value(value)
        if problem:
            return _refused("bad_value", f"{prefix}{name}: {problem}", seq, index, element, values, device)
    if absent:
        values = {name: value for name, value in values.items() if value is not None}
    return Draft(values, seq, time, device)


def _refused(
    code: str, detail: str, seq: int, index: int | None, element: object, taken: object = None, device: object = ""
) -> Refusal:
    """The refusal of a reading (of ``device``, if that was read already), ``element`` without what was ``taken`` out of
    it; raises that of the whole message for one that is nested too deeply."""
    around = 0 if index is None else 1
    check_depth(element, around)
    if taken is not element:
        check_depth(taken, around + 1)
    if not device and type(element) is dict and code != "bad_device":
        device = element.get("device", "")
    return Refusal(code, detail, seq=seq, index=index, device=device if isinstance(device, str) else "")


# Names that passed the grammar, so that a stream's regular expression runs once a name.
# Bounded: at the bound it is emptied and learns anew.
_known: set[str] = set()
_KNOWN_MAX = 20_000


def _learn(name: object) -> bool:
    if type(name) is not str or not is_metric(name):
        return False
    if len(_known) >= _KNOWN_MAX:
        _known.clear()
    _known.add(name)
    return True


def _shown(given: object) -> str:
    """A word of the device for a detail; what is no string may be deep or long, and is not shown."""
    return repr(given[:40]) if isinstance(given, str) else f"a {type(given).__name__}"


def _seq_of(message: dict[str, object]) -> int:
    seq = message.get("seq")
    return seq if type(seq) is int and 0 < seq <= INT64_MAX else 0
