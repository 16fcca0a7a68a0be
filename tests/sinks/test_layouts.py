"""Layouts: what readings become as messages and lines."""

from __future__ import annotations

import json

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.reading import Description, Item, Mark, Presence, Reading
from gateway.sinks.layouts import LAYOUTS, layout
from gateway.sinks.layouts.influx import Influx
from gateway.topics import Topics

from .memory import reading

NS = 1_764_000_000_123_999_999


def one(**values: object) -> Reading:
    return Reading("pump-1", "s1", 17, NS, NS, values)  # type: ignore[arg-type]


OTHERS: list[Item] = [
    Mark("pump-1", "s1", 3),
    Presence("pump-1", "online", NS),
    Description("pump-1", NS, {"name": "Pump"}),
    Reading("pump-1", "s1", 4, NS, NS, {}),
]


@pytest.mark.parametrize("name", sorted(LAYOUTS))
def test_only_readings_with_values_make_messages(name: str) -> None:
    """Marks, presence, descriptions and empty readings are skipped, and the indices still fit."""
    made = layout(name, gateway="g").messages([*OTHERS, one(t=1.5), *OTHERS], Topics("gateway"), 1 << 20)
    assert [message.indices for message in made] == [(4,)]
    assert made[0].topic == ("v1/gateway/telemetry" if name == "thingsboard" else "gateway/pump-1/telemetry")
    assert layout(name).messages(OTHERS, Topics("gateway"), 1 << 20) == []


def test_flat_payload_and_properties() -> None:
    """A flat message is ts in whole milliseconds and the metrics, with gateway, session and seq beside it."""
    (made,) = layout("flat", gateway="g-1").messages(
        [one(temperature=22.5, door=True, note='a"b\n')], Topics("p"), 1 << 20
    )
    assert made.payload == b'{"ts":1764000000123,"temperature":22.5,"door":true,"note":"a\\"b\\n"}'
    assert made.properties == (("gateway", "g-1"), ("session", "s1"), ("seq", "17"))


def test_flat_names_the_concentrator_whose_session_and_seq_they_are() -> None:
    """A reading of a sub-device has it beside these, in both kinds of message."""
    reading = msgspec.structs.replace(one(t=1), via="hub")
    topic = "{prefix}/{device}/metric/{metric}"
    for made in (
        layout("flat").messages([reading], Topics("p"), 1 << 20),
        layout("flat", per_value=True).messages([reading], Topics("p", topic), 1 << 20),
    ):
        assert [message.properties[-1] for message in made] == [("via", "hub")]


def test_flat_leaves_out_a_seq_that_the_device_did_not_give() -> None:
    """Seq 0 means none."""
    made = layout("flat", gateway="g").messages([Reading("d", "s", 0, NS, NS, {"t": 1})], Topics("p"), 1 << 20)
    assert made[0].properties == (("gateway", "g"), ("session", "s"))


@pytest.mark.parametrize("name", ["flat", "batch"])
def test_integers_beyond_2_to_53_stay_integers(name: str) -> None:
    """An int64 is written digit by digit, a float as a float."""
    (made,) = layout(name).messages([one(big=2**63 - 1, small=-(2**63), whole=22.0)], Topics("p"), 1 << 20)
    assert b'"big":9223372036854775807,"small":-9223372036854775808,"whole":22.0' in made.payload


def test_batch_is_one_message_a_device_in_order() -> None:
    """Readings of one device stand together in the order in which they came."""
    items = [reading(n, devices=3) for n in range(9)]
    made = layout("batch").messages(items, Topics("p"), 1 << 20)
    assert [(m.topic, m.indices) for m in made] == [
        ("p/d-0/telemetry", (0, 3, 6)),
        ("p/d-1/telemetry", (1, 4, 7)),
        ("p/d-2/telemetry", (2, 5, 8)),
    ]
    assert json.loads(made[1].payload) == [
        {"ts": 1764000000001, "values": {"n": 1}},
        {"ts": 1764000000004, "values": {"n": 4}},
        {"ts": 1764000000007, "values": {"n": 7}},
    ]


@pytest.mark.parametrize("name", ["batch", "influx"])
@given(sizes=st.lists(st.integers(1, 400), min_size=1, max_size=60), limit=st.integers(1, 3000))
def test_messages_are_cut_to_size(name: str, sizes: list[int], limit: int) -> None:
    """No message of several readings is larger than asked, and none is lost, repeated or out of order."""
    items = [reading(n, devices=2, values={"text": "x" * size}) for n, size in enumerate(sizes)]
    made = layout(name).messages(items, Topics("p"), limit)
    for message in made:
        assert len(message.payload) <= limit or len(message.indices) == 1
    for device in ("d-0", "d-1"):
        indices = [i for m in made if m.topic == f"p/{device}/telemetry" for i in m.indices]
        assert indices == [n for n, item in enumerate(items) if item.device == device]


@pytest.mark.parametrize("name", sorted(LAYOUTS.keys() - {"thingsboard"}))
@given(late=st.lists(st.booleans(), min_size=1, max_size=30), limit=st.sampled_from([1, 200, 1 << 20]))
def test_no_message_holds_news_and_backlog(name: str, late: list[bool], limit: int) -> None:
    """Readings received before the bound are marked, others not, and each device's order is kept."""
    received = [NS - 1 if old else NS for old in late]
    items: list[Item] = [Reading(f"d-{n % 2}", "s", n + 1, n, at, {"n": n}) for n, at in enumerate(received)]
    made = layout(name, gateway="g").messages(items, Topics("p"), limit, NS)
    for message in made:
        marked = ("historical", "true") in message.properties
        assert {late[index] for index in message.indices} == {marked}
    for device in ("d-0", "d-1"):
        indices = [i for m in made if m.topic == f"p/{device}/telemetry" for i in m.indices]
        assert indices == [n for n, item in enumerate(items) if item.device == device]


def test_line_protocol_of_each_kind_of_value() -> None:
    """Numbers are floats, booleans words, strings quoted, times nanoseconds."""
    line = Influx().line(one(a=22.5, b=22, c=True, d=False, e="x", f=-0.0, g=1e300))
    assert line == f'telemetry,device=pump-1 a=22.5,b=22,c=true,d=false,e="x",f=-0.0,g=1e+300 {NS}'


def test_declared_integers_have_their_suffix() -> None:
    """A whole number of a declared integer metric is an integer; a fraction, a boolean and text stay what they are."""
    influx = Influx(integer=lambda device, metric: device == "pump-1" and metric != "other")
    line = influx.line(one(a=7, b=7.0, c=7.5, d=True, e="7", other=7, top=float(2**63)))
    assert line == f'telemetry,device=pump-1 a=7i,b=7i,c=7.5,d=true,e="7",other=7,top=9.223372036854776e+18 {NS}'


@pytest.mark.parametrize(
    ("value", "field"),
    [
        ('a"b', r'"a\"b"'),
        ("ends with \\", r'"ends with \\"'),
        ('\\"', r'"\\\""'),
        ("a, b=c d", '"a, b=c d"'),
        ("a\nb", r'"a\nb"'),
        ("a\tb\r", '"a\tb\r"'),
        ("", '""'),
        ("é\U0001f600", '"é\U0001f600"'),
    ],
)
def test_strings_are_escaped(value: str, field: str) -> None:
    """Quotes and backslashes are escaped; a line feed never ends the line."""
    assert Influx().line(one(s=value)) == f"telemetry,device=pump-1 s={field} {NS}"


def test_measurement_is_escaped() -> None:
    """Commas and spaces in the measurement are escaped."""
    assert Influx("my data, all").line(one(a=1)).startswith("my\\ data\\,\\ all,device=pump-1 a=1 ")


def test_content_types() -> None:
    """Each message says what its payload is (MQTT 5.0, 3.3.2.3.9)."""
    found = {name: layout(name).messages([one(t=1)], Topics(), 1 << 20)[0].content_type for name in LAYOUTS}
    assert found == {
        "flat": "application/json",
        "batch": "application/json",
        "influx": "text/plain",
        "thingsboard": "application/json",
    }


def test_a_value_a_topic() -> None:
    """Each value has a message of its own: plain, in the topic of its metric, with the time beside it."""
    topics = Topics("p", "{prefix}/{device}/metric/{metric}")
    made = layout("flat", gateway="g", per_value=True).messages(
        [one(temperature=22.5, door=True, note="a b", **{"a/b": 3}), *OTHERS], topics, 1
    )
    assert [(message.topic, message.payload) for message in made] == [
        ("p/pump-1/metric/temperature", b"22.5"),
        ("p/pump-1/metric/door", b"true"),
        ("p/pump-1/metric/note", b"a b"),
        ("p/pump-1/metric/a.b", b"3"),
    ]
    properties = (("gateway", "g"), ("session", "s1"), ("ts", "1764000000123"), ("seq", "17"))
    assert {(message.indices, message.properties) for message in made} == {((0,), properties)}
    (old,) = layout("flat", per_value=True).messages([one(t=1)], topics, 1, NS + 1)
    assert ("historical", "true") in old.properties
    for name in LAYOUTS.keys() - {"flat"}:
        with pytest.raises(ValueError, match="many values"):
            layout(name, per_value=True)


def test_thingsboard() -> None:
    """The devices of a flush share a message; connect and disconnect tell of each (its gateway API)."""
    items = [reading(n, devices=2, values={"n": n}) for n in range(3)]
    (made,) = layout("thingsboard").messages(items, Topics(), 1 << 20)
    assert made.topic == "v1/gateway/telemetry"
    assert json.loads(made.payload) == {
        "d-0": [
            {"ts": items[0].time // 1_000_000, "values": {"n": 0}},
            {"ts": items[2].time // 1_000_000, "values": {"n": 2}},
        ],
        "d-1": [{"ts": items[1].time // 1_000_000, "values": {"n": 1}}],
    }
    small = layout("thingsboard").messages(items, Topics(), 1)
    assert [message.indices for message in small] == [(0,), (1,), (2,)]
    presence = layout("thingsboard").presence
    assert presence is not None
    told = [presence("pump-1", state) for state in (b"online", b"stale", b"offline", None)]
    assert [message.topic.rpartition("/")[2] for message in told] == ["connect", "connect", "disconnect", "disconnect"]
    assert {message.payload for message in told} == {b'{"device":"pump-1"}'}
