"""SenML: the examples of RFC 8428 (5.1, 6), resolution as a property, and what is refused by name."""

from __future__ import annotations

import contextlib
import json
import math
from typing import Any

import cbor2
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.codecs import codec_for
from gateway.codecs.model import Draft
from gateway.codecs.senml import CBOR, JSON, LABELS, Record, resolve
from gateway.errors import Refusal

NUMBERS = {label: number for number, label in LABELS.items()}
SECOND = 1_000_000_000


def in_cbor(pack: list[dict[str, Any]]) -> bytes:
    """The pack with the integer labels of table 4."""
    return cbor2.dumps([{NUMBERS.get(label, label): value for label, value in record.items()} for record in pack])


def rows(pack: list[dict[str, Any]]) -> list[tuple[str, float, Any, str]]:
    """Name, time in seconds, value and unit of each record."""
    found = []
    for record in resolve(pack):
        assert isinstance(record, Record), record
        found.append((record.name, record.time / SECOND, record.value, record.unit))
    return found


DEV = "urn:dev:ow:10e2073a01080063"
EXAMPLES: dict[str, tuple[list[dict[str, Any]], list[tuple[str, float, Any, str]]]] = {
    "5.1.1": ([{"n": DEV, "u": "Cel", "v": 23.1}], [(DEV, 0, 23.1, "Cel")]),
    "5.1.2 now": (
        [
            {"bn": f"{DEV}:", "n": "voltage", "u": "V", "v": 120.1},
            {"n": "current", "u": "A", "v": 1.2},
        ],
        [(f"{DEV}:voltage", 0, 120.1, "V"), (f"{DEV}:current", 0, 1.2, "A")],
    ),
    "5.1.2 past": (
        [
            {"bn": "urn:dev:ow:10e2073a0108006:", "bt": 1.276020076001e9, "bu": "A", "bver": 5, "n": "voltage",
             "u": "V", "v": 120.1},
            {"n": "current", "t": -5, "v": 1.2},
            {"n": "current", "t": -4, "v": 1.3},
            {"n": "current", "v": 1.7},
        ],
        [
            ("urn:dev:ow:10e2073a0108006:voltage", 1276020076.001, 120.1, "V"),
            ("urn:dev:ow:10e2073a0108006:current", 1276020071.001, 1.2, "A"),
            ("urn:dev:ow:10e2073a0108006:current", 1276020072.001, 1.3, "A"),
            ("urn:dev:ow:10e2073a0108006:current", 1276020076.001, 1.7, "A"),
        ],
    ),
    "5.1.3": (
        [
            {"bn": DEV, "bt": 1.320067464e9, "bu": "%RH", "v": 20},
            {"u": "lon", "v": 24.30621},
            {"u": "lat", "v": 60.07965},
            {"t": 60, "v": 20.3},
            {"u": "%EL", "t": 150, "v": 98},
        ],
        [
            (DEV, 1320067464, 20, "%RH"),
            (DEV, 1320067464, 24.30621, "lon"),
            (DEV, 1320067464, 60.07965, "lat"),
            (DEV, 1320067524, 20.3, "%RH"),
            (DEV, 1320067614, 98, "%EL"),
        ],
    ),
    "5.1.6 several devices": (
        [
            {"bn": "2001:db8::2/", "bt": 1.320078429e9, "n": "temperature", "u": "Cel", "v": 25.2},
            {"n": "humidity", "u": "%RH", "v": 30},
            {"bn": "2001:db8::1/", "n": "temperature", "u": "Cel", "v": 12.3},
            {"n": "humidity", "u": "%RH", "v": 67},
        ],
        [
            ("2001:db8::2/temperature", 1320078429, 25.2, "Cel"),
            ("2001:db8::2/humidity", 1320078429, 30, "%RH"),
            ("2001:db8::1/temperature", 1320078429, 12.3, "Cel"),
            ("2001:db8::1/humidity", 1320078429, 67, "%RH"),
        ],
    ),
    "5.1.7 thermostat": (
        [
            {"bn": "urn:dev:ow:10e2073a01080063:", "n": "temp", "u": "Cel", "v": 23.1},
            {"n": "heat", "u": "/", "v": 1},
            {"n": "fan", "u": "/", "v": 0},
        ],
        [(f"{DEV}:temp", 0, 23.1, "Cel"), (f"{DEV}:heat", 0, 1, "/"), (f"{DEV}:fan", 0, 0, "/")],
    ),
    "5.1.7 lights": (
        [{"bt": 1.320078429e9, "bu": "/", "n": "2001:db8::3", "v": 1}, {"n": "2001:db8::4", "v": 1}],
        [("2001:db8::3", 1320078429, 1, "/"), ("2001:db8::4", 1320078429, 1, "/")],
    ),
    "base value": ([{"bn": "a", "bv": 100, "v": 3}, {"n": "b", "v": -1.5}], [("a", 0, 103, ""), ("ab", 0, 98.5, "")]),
    "types": (
        [{"bn": f"{DEV}:", "n": "temp", "u": "Cel", "v": 23.1}, {"n": "label", "vs": "Machine Room"},
         {"n": "open", "vb": False}],
        [(f"{DEV}:temp", 0, 23.1, "Cel"), (f"{DEV}:label", 0, "Machine Room", ""), (f"{DEV}:open", 0, False, "")],
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", EXAMPLES)
@pytest.mark.parametrize("form", ["json", "cbor"])
def test_examples(name: str, form: str) -> None:
    """The RFC's examples resolve to what it says, the same in both forms."""
    pack, expected = EXAMPLES[name]
    assert rows(pack) == expected
    codec, data = (JSON, json.dumps(pack)) if form == "json" else (CBOR, in_cbor(pack))
    values = [
        (metric, value, (part.units or {}).get(metric, ""))
        for part in codec.decode(data)  # type: ignore[attr-defined]
        if isinstance(part, Draft)
        for metric, value in part.values.items()
    ]
    assert values == [(metric, value, unit) for metric, _, value, unit in expected]


def test_the_cbor_example() -> None:
    """The octets of section 6 are the second example of 5.1.2."""
    octets = bytes.fromhex(
        "87a721781b75726e3a6465763a6f773a3130653230373361303130383030363a22fb41d303a15b00106223614120"
        "0500677 66f6c7461676501615602fb405e066666666666".replace(" ", "")
        + "a3006763757272656e74062402fb3ff3333333333333"
        + "a3006763757272656e74062302fb3ff4cccccccccccd"
        + "a3006763757272656e74062202fb3ff6666666666666"
        + "a3006763757272656e74062102f93e00"
        + "a3006763757272656e74062002fb3ff999999999999a"
        + "a3006763757272656e74060002fb3ffb333333333333"
    )
    parts = CBOR.decode(octets)
    assert [part.values for part in parts if isinstance(part, Draft)] == [
        {"urn:dev:ow:10e2073a0108006:voltage": 120.1},
        *({"urn:dev:ow:10e2073a0108006:current": value} for value in (1.2, 1.3, 1.4, 1.5, 1.6, 1.7)),
    ]
    times = [part.time for part in parts if isinstance(part, Draft)]
    assert [round((time - times[0]) / SECOND) for time in times] == [0, -5, -4, -3, -2, -1, 0]


def test_records_of_one_time_are_one_reading() -> None:
    """As long as no name comes twice; and another time begins another."""
    pack = [
        {"bn": "a", "bt": 1e9, "n": "1", "v": 1},
        {"n": "2", "v": 2},
        {"n": "1", "v": 3},
        {"n": "2", "t": 1, "v": 4},
    ]
    drafts = JSON.decode(json.dumps(pack))
    assert [(part.values, part.time) for part in drafts if isinstance(part, Draft)] == [
        ({"a1": 1, "a2": 2}, 10**18), ({"a1": 3}, 10**18), ({"a2": 4}, 10**18 + SECOND)]  # fmt: skip


def test_times_from_now_on() -> None:
    """Below 2**28 seconds they are relative, zero is none at all, from there on absolute."""
    pack = [{"n": "a", "t": t, "v": 1} for t in (0, -5, 2.5, 2**28 - 1, 2**28)]
    drafts = JSON.decode(json.dumps(pack))
    assert [(part.time, part.shift) for part in drafts if isinstance(part, Draft)] == [
        (-1, 0), (-1, -5 * SECOND), (-1, 2_500_000_000), (-1, (2**28 - 1) * SECOND), (2**28 * SECOND, 0)]  # fmt: skip


BASE_ALONE = [{"bn": "a:", "bt": 1e9, "bu": "Cel", "bver": 10}, {"n": "t", "v": 1}]


def test_a_record_of_base_fields_alone() -> None:
    """It sets them and is no measurement."""
    (part,) = JSON.decode(json.dumps(BASE_ALONE))
    assert isinstance(part, Draft)
    assert (part.values, part.time, part.units) == ({"a:t": 1}, 10**18, {"a:t": "Cel"})


# Record (in the middle of two good ones), code, and a word of the detail.
REFUSED: list[tuple[dict[str, Any], str, str]] = [
    ({"n": "x", "s": 5}, "bad_value", "a:x: a sum"),
    ({"n": "x", "v": 1, "s": 5}, "bad_value", "a:x: a sum"),
    ({"n": "x", "vd": "aGk"}, "bad_value", "a:x: a data value"),
    ({"n": "x"}, "bad_value", "a:x: no value"),
    ({"n": "x", "v": 1, "vs": "b"}, "bad_value", "v and vs"),
    ({"n": "x", "v": "1"}, "bad_value", "v: not a number"),
    ({"n": "x", "v": True}, "bad_value", "v: not a number"),
    ({"n": "x", "v": None}, "bad_value", "v: not a number"),
    ({"n": "x", "vb": 1}, "bad_value", "vb: not a boolean"),
    ({"n": "x", "vs": 1}, "bad_value", "vs: not a text"),
    ({"n": "x", "vs": "a\x00"}, "bad_value", "control characters"),
    ({"n": "x", "v": math.inf}, "bad_value", "not a finite number"),
    ({"n": "x", "v": 2**63}, "bad_value", "beyond 64 bits"),
    ({"n": 5, "v": 1}, "bad_value", "n: not a text"),
    ({"n": "x", "u": 5, "v": 1}, "bad_value", "u: not a text"),
    ({"n": "x", "t": "now", "v": 1}, "bad_value", "t: not a number"),
    ({"n": "x", "ut": [], "v": 1}, "bad_value", "ut: not a number"),
    ({"n": "x y", "v": 1}, "bad_name", "not a metric's name"),
    ({"n": "x" * 127, "v": 1}, "bad_name", "not a metric's name"),
    ({"n": "x", "t": 1e300, "v": 1}, "bad_time", "t:"),
    ({"n": "x", "t": -1e10, "v": 1}, "bad_time", "t:"),
]


@pytest.mark.parametrize("form", ["json", "cbor"])
@pytest.mark.parametrize(("record", "code", "words"), REFUSED, ids=range(len(REFUSED)))
def test_a_record_is_refused_by_name(record: dict[str, Any], code: str, words: str, form: str) -> None:
    """With its index; the records around it are kept."""
    pack = [{"bn": "a:", "n": "before", "v": 1}, record, {"n": "after", "v": 2}]
    parts = JSON.decode(json.dumps(pack)) if form == "json" else CBOR.decode(in_cbor(pack))
    drafts = [part.values for part in parts if isinstance(part, Draft)]
    (refusal,) = [part for part in parts if isinstance(part, Refusal)]
    assert (refusal.code, refusal.index) == (code, 1)
    assert words in str(refusal)
    kept: dict[str, object] = {}
    for values in drafts:
        kept |= values
    assert kept == {"a:before": 1, "a:after": 2}


@pytest.mark.parametrize("name", ["ts", "seq", "type", "values", "device"])
def test_reserved_names(name: str) -> None:
    """They are never metrics, in any format."""
    (part,) = JSON.decode(json.dumps([{"n": name, "v": 1}]))
    assert isinstance(part, Refusal)
    assert "reserved" in str(part)


PACKS: list[tuple[object, str]] = [
    ({"n": "x", "v": 1}, "array of records"),
    ("x", "array of records"),
    ([5], "record 0: not an object"),
    ([{"n": "x", "v": 1, "new_": 1}], "has to be understood"),
    ([{"n": "x", "v": 1, "bver": 11}], "version 11"),
    ([{"n": "x", "v": 1, "bver": 0}], "bver: not a positive"),
    ([{"n": "x", "v": 1, "bver": "10"}], "bver: not a positive"),
    ([{"n": "x", "v": 1, "bver": 5}, {"n": "y", "v": 1, "bver": 6}], "another version"),
    ([{"bn": 5, "v": 1}], "bn: not a text"),
    ([{"bn": "a", "bt": "1", "v": 1}], "bt: not a number"),
    ([{"bn": "a", "bs": None, "v": 1}], "bs: not a number"),
]


@pytest.mark.parametrize(("pack", "words"), PACKS, ids=range(len(PACKS)))
def test_a_pack_is_refused_whole(pack: object, words: str) -> None:
    """Where what it means is not known."""
    with pytest.raises(Refusal, match=words) as refused:
        JSON.decode(json.dumps(pack))
    assert refused.value.code == "bad_message"


def test_limits() -> None:
    """A thousand records are taken, one more none; a label twice, once as a number, is none."""
    pack = [{"n": "a", "t": -n, "v": 1} for n in range(1000)]
    assert len(JSON.decode(json.dumps(pack))) == 1000
    with pytest.raises(Refusal) as refused:
        JSON.decode(json.dumps([*pack, pack[0]]))
    assert refused.value.code == "too_many_readings"
    with pytest.raises(Refusal, match="n twice"):
        CBOR.decode(cbor2.dumps([{0: "x", "n": "y", 2: 1}]))


def test_unknown_labels_are_ignored() -> None:
    """So are links and update times, which say nothing of the value."""
    (part,) = JSON.decode(json.dumps([{"n": "x", "v": 1, "ut": 5, "l": "</a>", "foo": {"a": []}}]))
    assert isinstance(part, Draft)
    assert part.values == {"x": 1}


def test_decimal_fractions() -> None:
    """A CBOR number may be one (6)."""
    (part,) = CBOR.decode(bytes.fromhex("81a20061780 2c48221196ab3".replace(" ", "")))
    assert isinstance(part, Draft)
    assert part.values == {"x": 273.15}


def test_the_table() -> None:
    """The subprotocols take their kind of frame alone."""
    assert codec_for("gateway.v1.senml-json", True) is JSON
    assert codec_for("gateway.v1.senml-json", False) is None
    assert codec_for("gateway.v1.senml-cbor", False) is CBOR
    assert codec_for("gateway.v1.senml-cbor", True) is None


numbers = st.integers(-(2**50), 2**50) | st.floats(-1e12, 1e12, allow_nan=False)
names = st.text("abcXYZ019_.:-/", max_size=12)
letters = st.text("abc019", min_size=1, max_size=8)
records = st.fixed_dictionaries(
    {"n": letters, "v": numbers},
    optional={
        "bn": letters,
        "bt": st.integers(0, 2 * 10**9),
        "bu": st.sampled_from(["V", "A"]),
        "bv": numbers,
        "u": st.sampled_from(["Cel", "W"]),
        "t": st.integers(-1000, 1000),
        "extra": st.none(),
    },
)


@given(st.lists(records, max_size=12))
def test_resolution_is_that_of_the_definition(pack: list[dict[str, Any]]) -> None:
    """Base fields hold from their record to the next of the kind (4.1); the result, resolved again, is the same."""
    base: dict[str, Any] = {"bn": "", "bt": 0, "bu": "", "bv": 0}
    expected = []
    for record in pack:
        base |= {label: record[label] for label in base if label in record}
        time = base["bt"] + record.get("t", 0)
        value = base["bv"] + record["v"] if base["bv"] else record["v"]
        expected.append((base["bn"] + record["n"], time, value, record.get("u", base["bu"])))
    found = rows(pack)
    assert found == expected
    again = [{"n": name, "t": time, "v": value, "u": unit} for name, time, value, unit in found]
    assert rows(again) == found


@given(st.recursive(st.none() | st.booleans() | numbers | names, lambda x: st.lists(x) | st.dictionaries(names, x)))
def test_any_data_is_resolved_or_refused(pack: object) -> None:
    """Whatever comes, nothing but a refusal is raised."""
    for codec, data in ((JSON, json.dumps(pack)), (CBOR, cbor2.dumps(pack))):
        with contextlib.suppress(Refusal):
            codec.decode(data)  # type: ignore[attr-defined]
