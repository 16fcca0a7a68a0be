"""Targets ``cbor``, ``senml-json``, ``senml-cbor`` and ``influx``: messages in the formats that have no reference here.

The input is one message.  Whatever it is, the decoder gives parts that the contract allows, or a refusal with a known
code and words of one line.
"""

from __future__ import annotations

from collections.abc import Callable

import cbor2
import msgspec

from gateway.codecs import CODECS, Draft, Part
from gateway.errors import Refusal

from .fuzz_messages import check_draft, check_refusal
from .fuzzing import Finding, Target

__all__ = ["TARGETS"]


def _decoded(name: str, data: str | bytes) -> list[Part] | Refusal:
    codec = CODECS[f"gateway.v1.{name}"]
    try:
        parts = codec.decode(data)
    except Refusal as refusal:
        check_refusal(codec, refusal)
        return refusal
    for part in parts:
        if isinstance(part, Refusal):
            check_refusal(codec, part)
        elif isinstance(part, Draft):
            check_draft(part)
    return parts


def _check(name: str, *, text: bool) -> Callable[[bytes], None]:
    def check(data: bytes) -> None:
        if not text:
            _decoded(name, data)
            return
        try:
            message = data.decode()
        except UnicodeDecodeError:
            return
        _decoded(name, message)

    return check


def check_influx(data: bytes) -> None:
    """Lines in a text and in a binary frame are the same."""
    packed = _decoded("influx", data)
    try:
        plain = _decoded("influx", data.decode())
    except UnicodeDecodeError:
        if not isinstance(packed, Refusal):
            raise Finding(f"{packed!r:.300} of what is not UTF-8") from None
        return
    if repr(plain) != repr(packed):
        raise Finding(f"{plain!r:.300} in a text frame, {packed!r:.300} in a binary one")


_READINGS: tuple[object, ...] = (
    {"temperature": 22.5, "door": True, "state": "on", "n": None},
    {"ts": 1764000000000, "seq": 17, "values": {"temperature": 22.5, "a/b": -(1 << 63)}},
    [{"seq": 1, "a": 1}, {"seq": 2, "ts": 1764000000.25, "values": {}}, {"device": "x", "a": 2}],
    {"type": "describe", "name": "Boiler", "metrics": {"t": {"unit": "Cel"}}},
)
_PACKS: tuple[object, ...] = (
    [{"bn": "urn:dev:ow:1:", "bt": 1764000000, "bu": "Cel", "n": "temp", "v": 23.1}, {"n": "rh", "u": "%RH", "v": 40}],
    [{"n": "open", "vb": True}, {"n": "text", "vs": "on", "t": -5}, {"n": "sum", "s": 3}, {"n": "data", "vd": "aGk"}],
    [{"bver": 10, "bv": 20, "n": "a", "v": 0.5}, {"n": "a", "v": 1, "t": 1}, {"n": "b", "v_": 1}],
)
_NUMBERS: tuple[object, ...] = (
    [{-2: "dev:", -3: 1764000000.5, 0: "t", 2: 22.5, 1: "Cel"}, {0: "u", 4: False}, {0: "v", 3: "x", 6: 5}],
)
_CBOR_TOKENS = (
    *(
        b"\xc4\x82\x20\x05",
        b"\xd9\xd9\xf7",
        b"\x9f",
        b"\xbf",
        b"\xff",
        b"\x9b\xff\xff\xff\xff\xff\xff\xff\xff",
        b"\xf9\x7e\0",
    ),
    *(
        b"\xc2\x49\1\0\0\0\0\0\0\0\0",
        b"\xd8\x1c",
        b"\xd8\x1d\0",
        b"\xc1\x1a\0\0\0\0",
        b"\x5f",
        b"\x7f\x61a\xff",
        b"\xf7",
        b"\xf6",
    ),
    *(
        b"\xa1aa",
        b"\x81" * 40,
        b"\xfb\x7f\xf0\0\0\0\0\0\0",
        b"\xc4\x82\x1b\x7f\xff\xff\xff\xff\xff\xff\xff\1",
        b"\xd9\1\2\x80",
    ),
)
_SENML_TOKENS = (
    *(
        b'"bn":"',
        b'"bt":',
        b'"bv":1e308',
        b'"bver":11',
        b'"n":"',
        b'"v":',
        b'"vb":true',
        b'"vs":"',
        b'"t":-1e9',
        b'"x_":1',
    ),
    *(b"1" * 400, b"1e999", b"null", b'"s":1', b"},{"),
)
_LINES = (
    b"cpu,host=pi,cpu=cpu0 usage_idle=98.2,n=1i,u=2u 1764000000000000000\nmem used=1,free=2\n",
    b'disk,path=/,label=a\\ b used=1i,text="a \\"quoted\\" \\\\ text",ok=t\n# a comment\n\nm f=F -5\r\n',
)
_LINE_TOKENS = (
    *(
        b"\\,",
        b"\\ ",
        b"\\=",
        b'="',
        b'\\"',
        b"\n",
        b"1i",
        b"18446744073709551615u",
        b"t",
        b"1e999",
        b" 99999999999999999999",
    ),
    *(b"NaN", b",a=b", b"#", b"=" * 50, b"," * 50, b"\\" * 50, b"\xe2\x82\xac", b"\0"),
)
_cbor = tuple(cbor2.dumps(message) for message in (*_READINGS, *_PACKS, *_NUMBERS))

TARGETS = {
    "cbor": Target("cbor", "the JSON model in CBOR", _check("cbor", text=False), _cbor, _CBOR_TOKENS),
    "senml-cbor": Target("senml-cbor", "SenML in CBOR", _check("senml-cbor", text=False), _cbor, _CBOR_TOKENS),
    "senml-json": Target(
        "senml-json",
        "SenML in JSON",
        _check("senml-json", text=True),
        tuple(msgspec.json.encode(message) for message in (*_PACKS, *_READINGS)),
        _SENML_TOKENS,
    ),
    "influx": Target("influx", "line protocol", check_influx, _LINES, _LINE_TOKENS),
}
