"""Sparkplug B payloads: values to bytes, and what a host asks for from bytes.  Pure.

Source: Sparkplug 3.0.0, 6.4; the messages are those of ``sparkplug_b.proto``.  Times are nanoseconds here and
milliseconds in payloads.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from google.protobuf.message import DecodeError

from gateway.sinks.sparkplug_b_pb2 import DataType, Payload

if TYPE_CHECKING:
    from gateway.reading import Value

__all__ = [
    "BOOLEAN",
    "DOUBLE",
    "INT64",
    "REBIRTH",
    "STRING",
    "Maker",
    "asked",
    "datatype",
    "death",
    "fits",
    "most_bytes",
]

INT64 = int(DataType.Int64)
DOUBLE = int(DataType.Double)
BOOLEAN = int(DataType.Boolean)
STRING = int(DataType.String)

BD_SEQ = "bdSeq"
REBIRTH = "Node Control/Rebirth"

_OF: dict[type, int] = {int: INT64, float: DOUBLE, bool: BOOLEAN, str: STRING}
_MS = 1_000_000
_UINT64 = (1 << 64) - 1
_EXACT = 1 << 53


def datatype(value: Value, integer: bool = False, before: int = 0) -> int:
    """The data type of a metric that was ``before`` (0: new) and now has ``value``.

    Numbers become Double once one of them has a fraction, and stay so: 22 and then 22.5 must not change the type to and
    fro.  Those that the device declared an ``integer`` are Int64 where their value allows it.
    """
    kind = type(value)
    if integer and kind is float and value == int(value) and abs(value) <= _EXACT:
        return INT64
    if kind is int and before == DOUBLE and not integer:
        return DOUBLE
    return _OF[kind]


def fits(value: Value, known: int) -> bool:
    """Whether a metric of data type ``known`` can have ``value`` as it is; whole numbers are Double as well."""
    return _OF[type(value)] == known or (known == DOUBLE and type(value) is int)


def most_bytes(value: Value, name: str = "") -> int:
    """What a metric takes in a payload at most: 6 fields with a number, tag and length of itself, text."""
    text = 4 + len(value.encode()) if type(value) is str else 9
    return 48 + text + len(name)


class Maker:
    """One payload in the making.  ``size`` is what it has at most so far, in bytes."""

    __slots__ = ("_add", "_payload", "size")

    def __init__(self, now: int) -> None:
        self._payload = Payload(timestamp=now // _MS)
        self._add = self._payload.metrics.add
        self.size = 32

    def __len__(self) -> int:
        return len(self._payload.metrics)

    def born(self, name: str, kind: int, value: Value, time: int, alias: int | None = None) -> None:
        """A metric of a birth: its name, data type and present value, and its alias if it has one."""
        metric = self._add(name=name, timestamp=time // _MS, datatype=kind)
        if alias is not None:
            metric.alias = alias
        self._set(metric, kind, value)
        self.size += most_bytes(value, name)

    def told(self, alias: int, kind: int, value: Value, time: int, historical: bool) -> None:
        """A metric of data: what its birth said of it stands for its name and data type."""
        metric = self._add(alias=alias, timestamp=time // _MS)
        if historical:
            metric.is_historical = True
        self._set(metric, kind, value)
        self.size += most_bytes(value)

    def named(self, name: str, kind: int, value: Value, time: int, historical: bool) -> None:
        """A metric of data that says all of itself, with no alias."""
        metric = self._add(name=name, timestamp=time // _MS, datatype=kind)
        if historical:
            metric.is_historical = True
        self._set(metric, kind, value)
        self.size += most_bytes(value, name)

    @staticmethod
    def _set(metric: Payload.Metric, kind: int, value: Value) -> None:
        if kind == DOUBLE:
            metric.double_value = value  # type: ignore[assignment]
        elif kind == INT64:
            metric.long_value = int(value) & _UINT64
        elif kind == BOOLEAN:
            metric.boolean_value = value  # type: ignore[assignment]
        else:
            metric.string_value = value  # type: ignore[assignment]

    def encode(self, seq: int | None) -> bytes:
        """The payload's bytes; ``seq`` None: a death of the node."""
        if seq is not None:
            self._payload.seq = seq
        return self._payload.SerializeToString()


def death(bd_seq: int, now: int) -> bytes:
    """An NDEATH (6.4.27): the number of the session that ends, and nothing else."""
    made = Maker(now)
    made.born(BD_SEQ, INT64, bd_seq, now)
    return made.encode(None)


def asked(data: bytes) -> list[tuple[str, Value | None]]:
    """The metrics of an NCMD, each with its value, None for one that is none of ours.

    Raises ``ValueError``: it is no payload.
    """
    try:
        payload = Payload.FromString(data)
    except DecodeError:
        raise ValueError("not a Sparkplug B payload") from None
    found: list[tuple[str, Value | None]] = []
    for metric in payload.metrics:
        which = metric.WhichOneof("value")
        found.append((metric.name, getattr(metric, which) if which else None))
    return found
