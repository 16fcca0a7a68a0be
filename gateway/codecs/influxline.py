r"""InfluxDB line protocol (InfluxDB 2, line protocol reference), as Telegraf sends it: lines to readings.

A line is ``measurement[,tag=value..] field=value[,field=value..] [timestamp]``, one reading; lines end with a newline,
empty ones and those that begin with ``#`` are left out.  Commas, spaces and (but for measurements) equals signs are
escaped by a backslash, in strings double quotes and backslashes.  Values are floats, ``1i``, ``1u``, ``"text"``, and
``t``, ``true``, ``f``, ``false`` as InfluxDB spells them.  Timestamps have the precision that their size says, as every
time here has.  There is no sequence: these readings get no ack.

A metric's name is made of all that names a series::

    measurement { "/" tag key "." tag value } "/" field        tags in the order of their keys

    cpu,host=pi,cpu=cpu0 usage_idle=98.2    ->  cpu/cpu.cpu0/host.pi/usage_idle
    disk,path=/,label=a\ b used=1i          ->  disk/label.a:20b/path.:2F/used

Other characters than letters, digits, ``_``, ``-`` and ``.`` are written ``:XX``, a byte of UTF-8 each; so is a ``.``
in a tag's key.  A name that would not begin with a letter or digit has ``0::`` before it.  So two series never share a
name, and each name tells its series.  What becomes longer than a metric's name may be is refused.

Where a tag names sub-devices (a setting), it is no part of the metric's name: a line that has it is of the device whose
name is its value, written in the same way, and one without it of the connection's own.  What is no device's name
(64 characters) then is refused.
"""

from __future__ import annotations

import re
from functools import lru_cache

from ..errors import Refusal
from ..reading import INT64_MAX, INT64_MIN, Value, check_value, is_device, is_metric, time_to_ns
from . import jsoncodec
from .model import MAX_READINGS, Draft, Part, too_many

__all__ = ["TEXT", "InfluxCodec", "device_name", "metric"]

# Possessive quantifiers: nothing here can be matched in two ways, so nothing is tried twice.
_word = r"(?:\\[,= ]|[^,= \n])++"
_string = r'"(?:\\.|[^"\\])*+"'
_value = rf"(?:{_string}|[^,\s\"]++)"
_measurement = r"(?:\\[, ]|[^, \n])++"
_line = re.compile(
    rf"({_measurement})((?:,{_word}={_word})*+) ++({_word}={_value}(?:,{_word}={_value})*+)"
    r"(?: ++(-?\d+))?+ *+\r?(?:\n|\Z)",
    re.DOTALL | re.ASCII,
).match
_blank = re.compile(r"[ \t\r]*+(?:#[^\n]*+)?(?:\n|\Z)").match
_tags = re.compile(rf",({_word})=({_word})").findall
_fields = re.compile(rf"({_word})=({_value}),?", re.DOTALL).findall
_float = re.compile(r"[-+]?(?:\d++\.?\d*+|\.\d++)(?:[eE][-+]?\d++)?").fullmatch
_int = re.compile(r"([-+]?\d{1,19})i").fullmatch
_unsigned = re.compile(r"(\d{1,20})u").fullmatch
_other = re.compile(r"[^A-Za-z0-9_.-]").sub
_BOOLEANS: dict[str, bool] = {
    **dict.fromkeys(("t", "T", "true", "True", "TRUE"), True),
    **dict.fromkeys(("f", "F", "false", "False", "FALSE"), False),
}
NAMES = 4_096  # made-up names remembered, the least used forgotten beyond
FIELDS = 1_000  # a line
MAX_DEVICE = 64  # characters of a device's name
WRITTEN = 256  # characters of a series in a line; what is longer is no name, since each character makes one or more


def _escape(match: re.Match[str]) -> str:
    return "".join(f":{byte:02X}" for byte in match[0].encode())


def _plain(word: str, special: str = ",= ") -> str:
    """Without the backslashes before what they escape; others are a part of the word."""
    if "\\" in word:
        for character in special:
            word = word.replace(f"\\{character}", character)
    return word


@lru_cache(NAMES)
def _series(measurement: str, tags: str) -> str:
    """What the names of all fields of a series begin with."""
    parts = [_other(_escape, _plain(measurement, ", "))]
    for key, value in sorted((_plain(key), _plain(value)) for key, value in _tags(tags)):
        parts.append(f"{_other(_escape, key).replace('.', ':2E')}.{_other(_escape, value)}")
    begin = "/".join(parts)
    return begin if begin[0].isalnum() else f"0::{begin}"


@lru_cache(NAMES)
def metric(measurement: str, tags: str, field: str) -> str:
    """The metric's name for parts of a line, escaped as they were in it; ``tags`` with the comma before each."""
    return f"{_series(measurement, tags)}/{_other(_escape, _plain(field))}"


@lru_cache(NAMES)
def device_name(value: str) -> str:
    """The sub-device of a tag's value; no device's name where it is too long for one."""
    name = _other(_escape, value)
    return name if name[0].isalnum() else f"0::{name}"


def _number(text: str) -> Value:
    """Raises ``ValueError`` in words."""
    known = _BOOLEANS.get(text)
    if known is not None:
        return known
    if _float(text):
        return float(text)
    whole = _int(text) or _unsigned(text)
    if whole is None:
        raise ValueError("not a value of line protocol")
    value = int(whole[1])
    if not INT64_MIN <= value <= INT64_MAX:
        raise ValueError("integer beyond 64 bits")
    return value


def _text(quoted: str) -> str:
    inner = quoted[1:-1]
    return re.sub(r'\\(["\\])', r"\1", inner) if "\\" in inner else inner


def _reading(match: re.Match[str], index: int, naming: str) -> Draft | Refusal:
    measurement, tags, fields, timestamp = match.groups()
    time = -1
    if timestamp is not None:
        try:
            time = time_to_ns(int(timestamp)) if len(timestamp) <= 20 else time_to_ns(INT64_MAX * 10)
        except ValueError as error:
            return Refusal("bad_time", f"timestamp: {error}", index=index)
    pairs = _tags(tags)
    if len({key for key, _ in pairs}) < len(pairs):
        return Refusal("bad_name", "a tag comes twice", index=index)
    device = ""
    if naming and (named := [value for key, value in pairs if _plain(key) == naming]):
        device = _plain(named[0])
        if len(device) > MAX_DEVICE or not is_device(device := device_name(device)):
            return Refusal("bad_device", f"{naming}: {device[:40]}..: more than {MAX_DEVICE} characters", index=index)
        tags = "".join([f",{key}={value}" for key, value in pairs if _plain(key) != naming])
    values: dict[str, Value] = {}
    written = _fields(fields)
    if len(written) > FIELDS:
        return Refusal("bad_message", f"{len(written)} fields, at most {FIELDS} a line", index=index, device=device)
    for key, text in written:
        if len(measurement) + len(tags) + len(key) > WRITTEN:
            return Refusal(
                "bad_name", f"{measurement[:40]!r}..: too long to be a metric's name", index=index, device=device
            )
        name = metric(measurement, tags, key)
        if not is_metric(name):
            return Refusal(
                "bad_name",
                f"{name[:40]}..: {len(name)} characters, at most 128 as a metric",
                index=index,
                device=device,
            )
        try:
            value = _text(text) if text[0] == '"' else _number(text)
        except ValueError as error:
            return Refusal("bad_value", f"{name}: {error}", index=index, device=device)
        if problem := check_value(value):
            return Refusal("bad_value", f"{name}: {problem}", index=index, device=device)
        values[name] = value
    return Draft(values, time=time, device=device)


class InfluxCodec:
    """Line protocol in text or binary frames (Telegraf sends either), JSON replies; ``tag`` names sub-devices."""

    about = "line protocol in text or binary frames; replies in JSON"
    text = None
    reply_text = True

    def __init__(self, *, tag: str = "") -> None:
        self.tag = tag

    def decode(self, data: str | bytes) -> list[Part]:
        """Parts of a message, a reading a line; raises :class:`Refusal`."""
        if isinstance(data, bytes):
            try:
                data = data.decode()
            except UnicodeDecodeError as error:
                raise Refusal("undecodable", f"not UTF-8: {error.reason} at byte {error.start}") from None
        found: list[Part] = []
        at = 0
        while at < len(data):
            if blank := _blank(data, at):
                at = blank.end()
                continue
            if len(found) == MAX_READINGS:
                raise too_many(data.count("\n", at) + MAX_READINGS)
            if match := _line(data, at):
                found.append(_reading(match, len(found), self.tag))
                at = match.end()
                continue
            end = data.find("\n", at) + 1 or len(data)
            found.append(
                Refusal("bad_message", f"not line protocol: {data[at : min(end, at + 40)]!r}", index=len(found))
            )
            at = end
        if found and all(isinstance(part, Refusal) and part.code == "bad_message" for part in found):
            raise Refusal("undecodable", str(found[0]))
        return found

    def encode(self, reply: dict[str, object]) -> str | bytes:
        """JSON text of a reply."""
        return jsoncodec.TEXT.encode(reply)


TEXT = InfluxCodec()
