"""SenML (RFC 8428) in JSON and CBOR: packs of records to parts.

A record is a measurement: its name, ``bn`` + ``n``, is the metric, ``bt`` + ``t`` its time, ``bv`` + ``v``, ``vs`` or
``vb`` its value.  Records in a row of one time are one reading, unless a name comes twice.  A time below 2**28 seconds
is relative to the receipt (4.5.3).  Packs have no sequence: their readings get no ack.

What the model cannot hold is refused by the record's name, and the other records are kept: sums (``s``, ``bs``), data
values (``vd``), and values of another type than their label says.  Unknown labels are ignored, but one that ends with
``_`` has to be understood: then, and for a ``bver`` beyond 10 or a base field of another type, the whole pack is
refused (4.4), since what it means is not known.  ``ut`` and links say nothing of the value and are ignored.

Where base names name sub-devices (a setting), ``n`` alone is the metric, and the device is ``bn``; without a ``bn`` it
is the connection's own.  A device's name has no ``/``: it is written ``::2F``, and a colon before another colon or a
slash ``::3A``, so that two base names never are one device.  One of more than 64 characters then is refused.

Labels in CBOR are the integers of table 4, or text.
"""

from __future__ import annotations

import re
from typing import Any

import msgspec

from ..errors import Refusal
from ..reading import INT64_MAX, INT64_MIN, Value, check_value, is_device
from . import cborcodec, jsoncodec
from .keys import check_cbor_keys
from .model import MAX_READINGS, Draft, Part, name_problem, too_many

__all__ = ["CBOR", "JSON", "SenmlCborCodec", "SenmlJsonCodec", "device_name", "resolve"]

VERSION = 10
RELATIVE_S = 2**28  # below it a time is one from now on
LONGEST_AGO_S = 1_000_000_000  # further back there was nothing that could be measured so
SECOND = 1_000_000_000
LABELS = {
    -1: "bver", -2: "bn", -3: "bt", -4: "bu", -5: "bv", -6: "bs",
    0: "n", 1: "u", 2: "v", 3: "vs", 4: "vb", 5: "s", 6: "t", 7: "ut", 8: "vd",
}  # fmt: skip
Kinds = tuple[type, ...]
_TEXT, _NUMBER = (str,), (int, float)
_BASE: dict[str, Kinds] = {"bn": _TEXT, "bt": _NUMBER, "bu": _TEXT, "bv": _NUMBER, "bs": _NUMBER}
_BASE_LABELS = {*_BASE, "bver"}
_REGULAR: dict[str, Kinds] = {"n": _TEXT, "u": _TEXT, "t": _NUMBER, "s": _NUMBER, "ut": _NUMBER}
_VALUES: dict[str, Kinds] = {"v": _NUMBER, "vs": _TEXT, "vb": (bool,), "vd": ()}
_KNOWN = {*_BASE_LABELS, *_REGULAR, *_VALUES}
Number = int | float
_escaped = re.compile(r":(?=[:/])|/").sub


class Record(msgspec.Struct, frozen=True, gc=False):
    """One, resolved (4.6): ``time`` in nanoseconds, since the epoch or, if ``relative``, from now on.

    ``device`` where the base name is that of a sub-device.
    """

    name: str
    time: int
    relative: bool
    unit: str
    value: Value
    device: str = ""


class _Base:
    """The base fields (4.1) that hold for a record, checked.  ``names``: ``bn`` is that of a sub-device."""

    __slots__ = ("_at", "_given", "device", "name", "names", "sums", "time", "unit", "value", "version", "wrong")

    def __init__(self, names: bool) -> None:
        self.names = names
        self.version = 0  # none was given
        self.name = ""  # what a metric's begins with
        self.device = ""
        self.wrong = ""  # why there is no such device
        self.time: Number = 0
        self.unit = ""
        self.value: Number | None = None
        self.sums = False
        self._given: Number = 0  # the time resolved last, and what it came to
        self._at = (0, True)

    def take(self, record: dict[str, object], index: int) -> None:
        """Those of a record hold from it on; raises :class:`Refusal` for the whole pack."""
        if "bver" in record:
            self._take_version(record["bver"], index)
        for label, kinds in _BASE.items():
            if label in record and type(record[label]) not in kinds:
                raise Refusal("bad_message", f"record {index}: {label}: not a {_word(kinds)}")
        base: dict[str, Any] = record
        if "bn" in base:
            self._take_name(base["bn"])
        self.time = base.get("bt", self.time)
        self.unit = base.get("bu", self.unit)
        self.value = base.get("bv", self.value)
        self.sums = self.sums or "bs" in base

    def _take_version(self, version: object, index: int) -> None:
        if type(version) is not int or version < 1:
            raise Refusal("bad_message", f"record {index}: bver: not a positive integer")
        if version > VERSION:
            raise Refusal("bad_message", f"record {index}: bver: version {version}, this understands {VERSION}")
        if self.version not in (0, version):
            raise Refusal("bad_message", f"record {index}: bver: another version than before")
        self.version = version

    def _take_name(self, name: str) -> None:
        if not self.names:
            self.name = name
            return
        self.device = device_name(name) if name else ""
        self.wrong = f"bn: {name[:40]!r} is no device's name" if name and not is_device(self.device) else ""

    def at(self, given: Number) -> tuple[int, bool]:
        """The base time and ``given``, as :func:`_time` gives it; raises ``ValueError`` in words.

        Most of a pack's records are of one time: it is worked out once.
        """
        seconds = _sum(self.time, given)
        if seconds != self._given:
            self._at = _time(seconds)
            self._given = seconds
        return self._at


def device_name(base_name: str) -> str:
    """The sub-device of a base name; no device's name where it is too long for one."""
    return _escaped(lambda match: "::2F" if match[0] == "/" else "::3A", base_name)


def resolve(pack: object, *, base_names: bool = False) -> list[Record | Refusal | None]:
    """The pack's records, resolved, with a refusal for each that cannot be taken and None for one of base fields alone.

    ``base_names``: they name sub-devices.
    Raises :class:`Refusal` (``bad_message``, ``too_many_readings``) for a pack that cannot be.
    """
    if type(pack) is not list:
        raise Refusal("bad_message", "a SenML pack is an array of records")
    if len(pack) > MAX_READINGS:
        raise too_many(len(pack))
    base = _Base(base_names)
    return [_record(_labelled(given, index), base, index) for index, given in enumerate(pack)]


def _labelled(given: object, index: int) -> dict[str, object]:
    """The record by its text labels, as far as they are understood; raises :class:`Refusal` for the whole pack."""
    if type(given) is not dict:
        raise Refusal("bad_message", f"record {index}: not an object")
    if given.keys() <= _KNOWN:
        return given
    record: dict[str, object] = {}
    for key, value in given.items():
        label = LABELS.get(key) if type(key) is int else key
        if label in _KNOWN:
            if label in record:
                raise Refusal("bad_message", f"record {index}: {label} twice")
            record[str(label)] = value
        elif type(label) is str and label.endswith("_"):
            raise Refusal("bad_message", f"record {index}: {label[:40]!r} has to be understood, and is not")
    return record


def _record(record: dict[str, object], base: _Base, index: int) -> Record | Refusal | None:
    """Resolve one, and keep its base fields in ``base``; raises :class:`Refusal` for the whole pack."""
    if not record.keys().isdisjoint(_BASE_LABELS):
        base.take(record, index)
    if record.keys() <= _BASE_LABELS:
        return None
    if base.wrong:
        return Refusal("bad_device", f"record {index}: {base.wrong}", index=index)
    found = ""
    for label, given in record.items():
        kinds = _REGULAR.get(label)
        if kinds is not None:
            if type(given) not in kinds:
                return _refused("bad_value", f"record {index}: {label}: not a {_word(kinds)}", base, index)
        elif label in _VALUES:
            found = f"{found} and {label}" if found else label
    fields: dict[str, Any] = record
    name: str = base.name + fields.get("n", "")
    if problem := name_problem(name):
        return _refused("bad_name", f"record {index}: {problem}", base, index)
    if "s" in record or base.sums:
        return _refused("bad_value", f"{name}: a sum is not kept here", base, index)
    if found not in _VALUES:
        return _refused("bad_value", f"{name}: {found} in one record" if found else f"{name}: no value", base, index)
    if found == "vd":
        return _refused("bad_value", f"{name}: a data value is not kept here", base, index)
    value: Value = fields[found]
    if type(value) not in _VALUES[found]:
        return _refused("bad_value", f"{name}: {found}: not a {_word(_VALUES[found])}", base, index)
    if base.value is not None and found == "v":
        value = _sum(base.value, fields["v"])
    if problem := check_value(value):
        return _refused("bad_value", f"{name}: {problem}", base, index)
    try:
        time, relative = base.at(fields.get("t", 0))
    except ValueError as error:
        return _refused("bad_time", f"{name}: {error}", base, index)
    return Record(name, time, relative, fields.get("u", base.unit), value, base.device)


def _refused(code: str, detail: str, base: _Base, index: int) -> Refusal:
    return Refusal(code, detail, index=index, device=base.device)


def _word(kinds: Kinds) -> str:
    return {str: "text", bool: "boolean"}.get(kinds[0], "number")


def _sum(base: Number, given: Number) -> Number:
    """A base and what is added to it: exact where both are integers, and where a sum of floats is what was meant."""
    try:
        return base + given
    except OverflowError:  # an integer that is beyond a float
        return float("inf")


def _time(seconds: Number) -> tuple[int, bool]:
    """Nanoseconds, and whether from now on; raises ``ValueError`` in words."""
    if not -LONGEST_AGO_S <= seconds <= INT64_MAX / SECOND:  # NaN, too
        raise ValueError("t: beyond the years that there are")
    whole, fraction = divmod(seconds, 1)
    time = int(whole) * SECOND + round(fraction * SECOND)
    if not INT64_MIN <= time <= INT64_MAX:
        raise ValueError("t: beyond the years that there are")
    return time, seconds < RELATIVE_S


def _parts(pack: object, base_names: bool) -> list[Part]:
    """Readings of a pack: records of one device and time in a row together."""
    found: list[Part] = []
    draft: Draft | None = None
    for record in resolve(pack, base_names=base_names):
        if record is None:
            continue
        if isinstance(record, Refusal):
            found.append(record)
            continue
        time, shift = (-1, record.time) if record.relative else (record.time, 0)
        if (
            draft is None
            or draft.time != time
            or draft.shift != shift
            or draft.device != record.device
            or record.name in draft.values
        ):
            draft = Draft({}, time=time, device=record.device, shift=shift)
            found.append(draft)
        draft.values[record.name] = record.value
        if record.unit:
            if draft.units is None:
                draft.units = {}
            draft.units[record.name] = record.unit
    return found


class SenmlJsonCodec:
    """``application/senml+json`` (5) in text frames, JSON replies; ``base_names`` may name sub-devices."""

    about = "packs of RFC 8428 in text frames; replies in JSON"
    text = True
    reply_text = True

    def __init__(self, *, base_names: bool = False) -> None:
        self.base_names = base_names

    def decode(self, data: str | bytes) -> list[Part]:
        """Parts of a pack; raises :class:`Refusal`."""
        return _parts(jsoncodec.decode(data), self.base_names)

    def encode(self, reply: dict[str, object]) -> str | bytes:
        """JSON text of a reply."""
        return jsoncodec.TEXT.encode(reply)


class SenmlCborCodec:
    """``application/senml+cbor`` (6) in binary frames, CBOR replies; ``base_names`` may name sub-devices."""

    about = "packs of RFC 8428 in binary frames; replies in CBOR"
    text = False
    reply_text = False

    def __init__(self, *, base_names: bool = False) -> None:
        self.base_names = base_names

    def decode(self, data: str | bytes) -> list[Part]:
        """Parts of a pack; raises :class:`Refusal`."""
        data = data if isinstance(data, bytes) else data.encode()
        check_cbor_keys(data)
        return _parts(cborcodec.decode(data, text_keys=False), self.base_names)

    def encode(self, reply: dict[str, object]) -> str | bytes:
        """CBOR of a reply."""
        return cborcodec.encode(reply)


JSON = SenmlJsonCodec()
CBOR = SenmlCborCodec()
