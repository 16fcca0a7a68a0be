"""SenML (RFC 8428) in JSON and CBOR: packs of records to parts.

A record is a measurement: its name, ``bn`` + ``n``, is the metric, ``bt`` + ``t`` its time, ``bv`` + ``v``, ``vs`` or
``vb`` its value.  Records in a row of one time are one reading, unless a name comes twice.  A time below 2**28 seconds
is relative to the receipt (4.5.3).  Packs have no sequence: their readings get no ack.

What the model cannot hold is refused by the record's name, and the other records are kept: sums (``s``, ``bs``), data
values (``vd``), and values of another type than their label says.  Unknown labels are ignored, but one that ends with
``_`` has to be understood: then, and for a ``bver`` beyond 10 or a base field of another type, the whole pack is
refused (4.4), since what it means is not known.  ``ut`` and links say nothing of the value and are ignored.

Labels in CBOR are the integers of table 4, or text.
"""

from __future__ import annotations

from typing import NamedTuple

from ..errors import Refusal
from ..reading import INT64_MAX, INT64_MIN, Value, check_value
from . import cborcodec, jsoncodec
from .keys import check_cbor_keys
from .model import MAX_READINGS, Draft, Part, name_problem, too_many

__all__ = ["CBOR", "JSON", "SenmlCborCodec", "SenmlJsonCodec", "resolve"]

VERSION = 10
RELATIVE_S = 2**28  # below it a time is one from now on
LONGEST_AGO_S = 1_000_000_000  # further back there was nothing that could be measured so
SECOND = 1_000_000_000
LABELS = {
    -1: "bver", -2: "bn", -3: "bt", -4: "bu", -5: "bv", -6: "bs",
    0: "n", 1: "u", 2: "v", 3: "vs", 4: "vb", 5: "s", 6: "t", 7: "ut", 8: "vd",
}  # fmt: skip
VALUES = ("v", "vs", "vb", "vd")
_TEXT, _NUMBER = (str,), (int, float)
_BASE = {"bn": _TEXT, "bt": _NUMBER, "bu": _TEXT, "bv": _NUMBER, "bs": _NUMBER}
_REGULAR = {"n": _TEXT, "u": _TEXT, "t": _NUMBER, "s": _NUMBER, "ut": _NUMBER}
_VALUE = {"v": _NUMBER, "vs": _TEXT, "vb": (bool,)}
_KNOWN = {*_BASE, *_REGULAR, *VALUES, "bver"}
Number = int | float


class Record(NamedTuple):
    """One, resolved (4.6): ``time`` in nanoseconds, since the epoch or, if ``relative``, from now on."""

    name: str
    time: int
    relative: bool
    unit: str
    value: Value


def resolve(pack: object) -> list[Record | Refusal | None]:
    """The pack's records, resolved, with a refusal for each that cannot be taken and None for one of base fields alone.

    Raises :class:`Refusal` (``bad_message``, ``too_many_readings``) for a pack that cannot be.
    """
    if type(pack) is not list:
        raise Refusal("bad_message", "a SenML pack is an array of records")
    if len(pack) > MAX_READINGS:
        raise too_many(len(pack))
    base: dict[str, object] = {}
    return [_record(_labelled(given, index), base, index) for index, given in enumerate(pack)]


def _labelled(given: object, index: int) -> dict[str, object]:
    """The record by its text labels, as far as they are understood; raises :class:`Refusal` for the whole pack."""
    if type(given) is not dict:
        raise Refusal("bad_message", f"record {index}: not an object")
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


def _record(record: dict[str, object], base: dict[str, object], index: int) -> Record | Refusal | None:
    """Resolve one, and keep its base fields in ``base``; raises :class:`Refusal` for the whole pack."""
    version = record.get("bver", VERSION)
    if type(version) is not int or version < 1:
        raise Refusal("bad_message", f"record {index}: bver: not a positive integer")
    if version > VERSION:
        raise Refusal("bad_message", f"record {index}: bver: version {version}, this understands {VERSION}")
    if "bver" in record and base.setdefault("bver", version) != version:
        raise Refusal("bad_message", f"record {index}: bver: another version than before")
    for label, kinds in _BASE.items():
        if label in record:
            value = record[label]
            if not _is(value, kinds):
                raise Refusal("bad_message", f"record {index}: {label}: not a {_word(kinds)}")
            base[label] = value
    if not record.keys() - _BASE.keys() - {"bver"}:
        return None
    for label, kinds in _REGULAR.items():
        if label in record and not _is(record[label], kinds):
            return Refusal("bad_value", f"record {index}: {label}: not a {_word(kinds)}", index=index)
    name = f"{base.get('bn', '')}{record.get('n', '')}"
    if problem := name_problem(name):
        return Refusal("bad_name", f"record {index}: {problem}", index=index)
    if "s" in record or "bs" in base:
        return Refusal("bad_value", f"{name}: a sum is not kept here", index=index)
    found = [label for label in VALUES if label in record]
    if len(found) != 1:
        what = f"{' and '.join(found)} in one record" if found else "no value"
        return Refusal("bad_value", f"{name}: {what}", index=index)
    (label,) = found
    if label == "vd":
        return Refusal("bad_value", f"{name}: a data value is not kept here", index=index)
    if not _is(record[label], _VALUE[label]):
        return Refusal("bad_value", f"{name}: {label}: not a {_word(_VALUE[label])}", index=index)
    value = _sum(base.get("bv", 0), record[label]) if label == "v" and "bv" in base else record[label]
    if problem := check_value(value):
        return Refusal("bad_value", f"{name}: {problem}", index=index)
    try:
        time, relative = _time(_sum(base.get("bt", 0), record.get("t", 0)))
    except ValueError as error:
        return Refusal("bad_time", f"{name}: {error}", index=index)
    unit = record.get("u", base.get("bu", ""))
    return Record(name, time, relative, str(unit), value)  # type: ignore[arg-type]


def _is(value: object, kinds: tuple[type, ...]) -> bool:
    return type(value) in kinds


def _word(kinds: tuple[type, ...]) -> str:
    return {str: "text", bool: "boolean"}.get(kinds[0], "number")


def _sum(base: object, given: object) -> Number:
    """A base and what is added to it: exact where both are integers, and where a sum of floats is what was meant."""
    assert isinstance(base, int | float) and isinstance(given, int | float)  # noqa: PT018 - looked at before
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


def _parts(pack: object) -> list[Part]:
    """Readings of a pack: records of one time in a row together."""
    found: list[Part] = []
    draft: Draft | None = None
    for record in resolve(pack):
        if record is None:
            continue
        if isinstance(record, Refusal):
            found.append(record)
            continue
        time, shift = (-1, record.time) if record.relative else (record.time, 0)
        if draft is None or draft.time != time or draft.shift != shift or record.name in draft.values:
            draft = Draft({}, time=time, shift=shift)
            found.append(draft)
        draft.values[record.name] = record.value
        if record.unit:
            draft.units = {**(draft.units or {}), record.name: record.unit}
    return found


class SenmlJsonCodec:
    """``application/senml+json`` (5) in text frames, JSON replies."""

    text = True
    reply_text = True

    def decode(self, data: str | bytes) -> list[Part]:
        """Parts of a pack; raises :class:`Refusal`."""
        return _parts(jsoncodec.decode(data))

    def encode(self, reply: dict[str, object]) -> str | bytes:
        """JSON text of a reply."""
        return jsoncodec.TEXT.encode(reply)


class SenmlCborCodec:
    """``application/senml+cbor`` (6) in binary frames, CBOR replies."""

    text = False
    reply_text = False

    def decode(self, data: str | bytes) -> list[Part]:
        """Parts of a pack; raises :class:`Refusal`."""
        data = data if isinstance(data, bytes) else data.encode()
        check_cbor_keys(data)
        return _parts(cborcodec.decode(data, text_keys=False))

    def encode(self, reply: dict[str, object]) -> str | bytes:
        """CBOR of a reply."""
        return cborcodec.encode(reply)


JSON = SenmlJsonCodec()
CBOR = SenmlCborCodec()
