"""Sub-devices that are named by SenML's base name or by a tag of line protocol: never two by one name."""

from __future__ import annotations

import re
from typing import Any

import cbor2
import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.codecs import CODECS, Draft, Naming, Part, codec_for, codecs_by, influxline, senml
from gateway.errors import Refusal
from gateway.reading import is_device

BY_BASE_NAME = codecs_by(Naming(senml_base_name=True))
BY_HOST = codecs_by(Naming(influx_tag="host"))
PACK: list[dict[str, Any]] = [
    {"n": "own", "v": 1},
    {"bn": "urn:dev:ow:10e2073a0108:", "bu": "Cel", "n": "t", "v": 1},
    {"n": "u", "u": "V", "v": 2},
    {"bn": "2001:db8::1/", "n": "t", "v": 3},
    {"v": 4},
    {"n": "x", "vd": "AA"},
    {"bn": "d" * 65, "n": "t", "v": 5},
    {"bn": "", "n": "own", "v": 6},
]


def shown(part: Part) -> tuple[Any, ...]:
    if isinstance(part, Draft):
        return part.device, part.values, part.units
    assert isinstance(part, Refusal)
    return part.code, part.index, part.device


@pytest.mark.parametrize("form", ["json", "cbor"])
def test_base_names(form: str) -> None:
    """The base name is the device, the name alone the metric; without a base name it is the connection's own."""
    data = msgspec.json.encode(PACK).decode() if form == "json" else cbor2.dumps(PACK)
    codec = codec_for(f"gateway.v1.senml-{form}", form == "json", BY_BASE_NAME)
    assert codec is not None
    assert [shown(part) for part in codec.decode(data)] == [
        ("", {"own": 1}, None),
        ("urn:dev:ow:10e2073a0108:", {"t": 1, "u": 2}, {"t": "Cel", "u": "V"}),
        ("2001:db8::3A:1::2F", {"t": 3}, {"t": "Cel"}),
        ("bad_name", 4, "2001:db8::3A:1::2F"),
        ("bad_value", 5, "2001:db8::3A:1::2F"),
        ("bad_device", 6, ""),
        ("", {"own": 6}, {"own": "Cel"}),
    ]
    plain = CODECS[f"gateway.v1.senml-{form}"].decode(data)
    assert {part.device for part in plain if isinstance(part, Draft)} == {""}


LINES = [
    ("cpu,host=pi,cpu=cpu0 idle=1", "pi", "cpu/cpu.cpu0/idle"),
    ("cpu,cpu=cpu0 idle=1", "", "cpu/cpu.cpu0/idle"),
    ("m,host=web-1.example f=1", "web-1.example", "m/f"),
    (r"m,host=my\ host,a=b f=1", "my:20host", "m/a.b/f"),
    (r"m,a=\,host\=x,host=y f=1", "y", "m/a.:2Chost:3Dx/f"),
    ("m,host=_x f=1", "0::_x", "m/f"),
    ("m,host=ä f=1", "0:::C3:A4", "m/f"),
    ("m,Host=x f=1", "", "m/Host.x/f"),
]


@pytest.mark.parametrize(("line", "device", "metric"), LINES, ids=range(len(LINES)))
def test_tags(line: str, device: str, metric: str) -> None:
    """The tag's value is the device, and the tag no part of the metric."""
    (draft,) = BY_HOST["gateway.v1.influx"].decode(line)
    assert isinstance(draft, Draft)
    assert (draft.device, list(draft.values)) == (device, [metric])


def test_a_tag_that_is_too_long() -> None:
    """It is refused, with the others kept; what is wrong with a line is its device's."""
    lines = f"m,host={'x' * 65} f=1\nm,host={'ä' * 20} f=1\nm,host=a f=1\nm,host=a f=1j\n"
    assert [shown(part) for part in BY_HOST["gateway.v1.influx"].decode(lines)] == [
        ("bad_device", 0, ""),
        ("bad_device", 1, ""),
        ("a", {"m/f": 1.0}, None),
        ("bad_value", 3, "a"),
    ]


def undone(device: str, mark: str) -> str:
    """The name that a device's was made of: ``mark`` and two digits are an octet."""
    plain = device.removeprefix("0::") if mark == ":" else device
    octets = re.sub(f"{mark}([0-9A-F]{{2}})".encode(), lambda m: bytes([int(m[1], 16)]), plain.encode())
    return octets.decode()


@given(st.from_regex(r"[a-z0-9][a-z0-9A-F_.:/-]{0,12}", fullmatch=True))
def test_base_names_can_be_told_from_the_devices(base_name: str) -> None:
    """So that there are no two of one device."""
    device = senml.device_name(base_name)
    assert undone(device, "::") == base_name
    assert is_device(device)


@given(st.text(st.characters(exclude_categories=("Cs",)), min_size=1, max_size=6))
def test_tags_can_be_told_from_the_devices(value: str) -> None:
    """Likewise."""
    device = influxline.device_name(value)
    assert undone(device, ":") == value
    assert is_device(device) or len(device) > 64
