"""Readings and what else goes through the journal; the rules for names, values and times.

Pure: no clock, no I/O.  Times are int64 nanoseconds since the epoch, UTC.  Everything here is frozen, so that a fan-out
can share it.  The structs are encoded as MessagePack arrays, tag first (``[0, device, session, ...]``): a field may be
added at an end with a default, none may be moved or removed, since journals on disk hold them.
"""

from __future__ import annotations

import re

import msgspec

__all__ = [
    "ASSIGNED",
    "DEVICE",
    "FUTURE",
    "METRIC",
    "OLD",
    "Batch",
    "Description",
    "Item",
    "Mark",
    "Presence",
    "Reading",
    "Value",
    "check_value",
    "is_device",
    "is_metric",
    "time_to_ns",
]

Value = float | int | bool | str

# Flags of a reading.
ASSIGNED = 1  # it came without a time: the time is that of receipt
OLD = 2  # its time is more than OLD_AFTER_S (or what the settings say) before the receipt
FUTURE = 4  # its time is more than FUTURE_AFTER_S (likewise) after the receipt

OLD_AFTER_S = 24 * 3600
FUTURE_AFTER_S = 60

MAX_STRING = 1024
INT64_MIN, INT64_MAX = -(1 << 63), (1 << 63) - 1


class Reading(msgspec.Struct, frozen=True, array_like=True, tag=0, gc=False):
    """Values of one device at one time.

    ``seq`` is 0 where the device gave none.  ``values`` may be empty (a reading that only moves the sequence).  ``via``
    names the concentrator that sent it for a sub-device: ``session`` and ``seq`` are the concentrator's then.
    """

    device: str
    session: str
    seq: int
    time: int
    received: int
    values: dict[str, Value]
    flags: int = 0
    via: str = ""


class Mark(msgspec.Struct, frozen=True, array_like=True, tag=1, gc=False):
    """The session's sequence moved to ``seq`` without a reading kept: it was refused for good."""

    device: str
    session: str
    seq: int


class Presence(msgspec.Struct, frozen=True, array_like=True, tag=2, gc=False):
    """A device changed to ``state`` (``online``, ``stale``, ``offline``) at ``since``; ``reason`` in words."""

    device: str
    state: str
    since: int
    reason: str = ""
    session: str = ""


class Description(msgspec.Struct, frozen=True, array_like=True, tag=3):
    """What a device said it is: the body of its ``describe`` message, checked, without ``type``."""

    device: str
    received: int
    body: dict[str, object]


Item = Reading | Mark | Presence | Description


class Batch(msgspec.Struct, frozen=True):
    """Consecutive items of the journal: ``items[i]`` has offset ``base + i``.

    ``readings`` counts the :class:`Reading` among them.
    """

    base: int
    items: list[Item]
    readings: int

    @property
    def end(self) -> int:
        """The offset after the last item."""
        return self.base + len(self.items)


DEVICE = r"[A-Za-z0-9][A-Za-z0-9_.:-]{0,63}"
METRIC = r"[A-Za-z0-9][A-Za-z0-9_.:/-]{0,127}"

_device = re.compile(DEVICE, re.ASCII).fullmatch
_metric = re.compile(METRIC, re.ASCII).fullmatch
# C0 controls other than tab, CR and LF; lone surrogates.
_bad_character = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\ud800-\udfff]").search


def is_device(name: str) -> bool:
    """Whether ``name`` is a device's name: ``[A-Za-z0-9][A-Za-z0-9_.:-]{0,63}``."""
    return _device(name) is not None


def is_metric(name: str) -> bool:
    """Whether ``name`` is a metric's name: ``[A-Za-z0-9][A-Za-z0-9_.:/-]{0,127}`` (the grammar of RFC 8428, 4.5.1)."""
    return _metric(name) is not None


def check_value(value: object) -> str:
    """Say in words why ``value`` cannot be a value, or give the empty string if it can.

    ``None`` is not a value here: codecs leave absent values out before they ask.
    """
    kind = type(value)
    if kind is float:
        # inf - inf and nan - nan are nan, which differs from 0.0.
        return "" if value - value == 0.0 else "not a finite number"  # type: ignore[operator]
    if kind is bool:
        return ""
    if kind is int:
        return "" if INT64_MIN <= value <= INT64_MAX else "integer beyond 64 bits"  # type: ignore[operator]
    if kind is str:
        if len(value) > MAX_STRING:  # type: ignore[arg-type]
            return f"string longer than {MAX_STRING} characters"
        return "string with control characters or lone surrogates" if _bad_character(value) else ""  # type: ignore[call-overload]
    if kind is dict:
        return "an object is not a value"
    if kind is list:
        return "an array is not a value"
    return "not a number, boolean or string"


def time_to_ns(ts: object) -> int:
    """Nanoseconds of a wire time: below 1e11 seconds, below 1e14 ms, below 1e17 us, else ns.

    Raises ``ValueError`` with the reason in words: not a number, negative, not finite, or beyond int64 nanoseconds.
    """
    kind = type(ts)
    if kind is not int and kind is not float:
        raise ValueError("not a number")
    if not ts >= 0:  # type: ignore[operator]
        raise ValueError("negative" if ts < 0 else "not a finite number")  # type: ignore[operator]
    if ts < 1e11:  # type: ignore[operator]
        scale = 1_000_000_000
    elif ts < 1e14:  # type: ignore[operator]
        scale = 1_000_000
    elif ts < 1e17:  # type: ignore[operator]
        scale = 1_000
    else:
        scale = 1
    if kind is int:
        ns: int = ts * scale  # type: ignore[operator]
    else:
        if ts == float("inf"):
            raise ValueError("not a finite number")
        # A float of seconds holds microseconds only: split, so that the fraction is rounded once.
        whole, fraction = divmod(ts, 1.0)  # type: ignore[operator]
        ns = int(whole) * scale + round(fraction * scale)
    if ns > INT64_MAX:
        raise ValueError("beyond the year 2262")
    return ns
