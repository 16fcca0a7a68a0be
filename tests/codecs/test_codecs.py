"""The JSON model in its two formats: the shapes of a reading, refusals by name, what cannot be decoded."""

import msgspec
import pytest

from gateway.codecs import CODECS, Control, Draft, codec_for
from gateway.errors import Refusal

JSON = CODECS["gateway.v1.json"]
MSGPACK = CODECS["gateway.v1.msgpack"]


@pytest.fixture(params=["json", "msgpack"])
def decode(request):
    """Decode a plain object through the format."""
    if request.param == "json":
        return lambda message: JSON.decode(msgspec.json.encode(message).decode())
    return lambda message: MSGPACK.decode(msgspec.msgpack.encode(message))


def test_flat_reading(decode):
    """A flat object is a reading; ts and seq may stand in it."""
    assert decode({"temperature": 22.5, "door": True, "ts": 1764000000, "seq": 3}) == [
        Draft({"temperature": 22.5, "door": True}, 3, 1764000000 * 10**9)
    ]


def test_envelope(decode):
    """Values may stand in an envelope."""
    assert decode({"ts": 1764000000000, "seq": 17, "values": {"temperature": 22.5}}) == [
        Draft({"temperature": 22.5}, 17, 1764000000 * 10**9)
    ]


def test_array_keeps_order_and_the_good_readings(decode):
    """A reading with one bad value is refused whole, the others of its message are kept."""
    first, bad, last = decode([{"a": 1, "seq": 1}, {"a": 1, "b": [2], "seq": 2}, {"values": {"a": "x"}, "seq": 3}])
    assert (first, last) == (Draft({"a": 1}, 1), Draft({"a": "x"}, 3))
    assert (bad.code, bad.seq, bad.index) == ("bad_value", 2, 1)
    assert str(bad) == "b: an array is not a value"


def test_null_is_absent(decode):
    """Null means absent, for a value as for ts and seq."""
    assert decode({"a": None, "b": 1, "ts": None, "seq": None}) == [Draft({"b": 1})]
    assert decode({"seq": 4, "values": {"a": None}}) == [Draft({}, 4)]


def test_no_values_only_moves_the_sequence(decode):
    """A reading without values is legal."""
    assert decode({"seq": 4, "values": {}}) == [Draft({}, 4)]


@pytest.mark.parametrize(
    ("message", "code"),
    [
        ({"a b": 1}, "bad_name"),
        ({"": 1}, "bad_name"),
        ({"values": {"topic/+/#": 1}}, "bad_name"),
        ({"a": {"b": 1}}, "bad_value"),
        ({"a": "\x00"}, "bad_value"),
        ({"a": 2**63}, "bad_value"),
        ({"seq": 0, "a": 1}, "bad_seq"),
        ({"seq": -1, "a": 1}, "bad_seq"),
        ({"seq": 1.0, "a": 1}, "bad_seq"),
        ({"seq": True, "a": 1}, "bad_seq"),
        ({"seq": "1", "a": 1}, "bad_seq"),
        ({"seq": 2**63, "a": 1}, "bad_seq"),
        ({"ts": -1, "a": 1}, "bad_time"),
        ({"ts": "now", "a": 1}, "bad_time"),
        ({"values": [1]}, "bad_message"),
        ({"values": {"a": 1}, "b": 2}, "bad_message"),
        ({"type": "party"}, "bad_message"),
        ({"device": "", "a": 1}, "bad_device"),
    ],
)
def test_refusals_by_code(decode, message, code):
    """Each fault has its code."""
    if message.get("a") == 2**63:
        (part,) = JSON.decode(msgspec.json.encode(message).decode())
    else:
        (part,) = decode(message)
    assert isinstance(part, Refusal)
    assert part.code == code


def test_control_messages(decode):
    """Typed messages are not readings."""
    assert decode({"type": "heartbeat"}) == [Control("heartbeat", {"type": "heartbeat"})]
    (part,) = decode([{"type": "heartbeat"}])
    assert part.code == "bad_message"


def test_too_many_readings(decode):
    """More than 1,000 readings in a message refuse it whole."""
    assert len(decode([{"a": 1}] * 1000)) == 1000
    with pytest.raises(Refusal) as info:
        decode([{"a": 1}] * 1001)
    assert info.value.code == "too_many_readings"


@pytest.mark.parametrize("text", ["", "hello", "{", '{"a":1}}', "[1,", '{"a":1e5x}', "{'a':1}", "[" * 40])
def test_undecodable_json(text):
    """What is not JSON raises."""
    with pytest.raises(Refusal) as info:
        JSON.decode(text)
    assert info.value.code == "undecodable"


@pytest.mark.parametrize("text", ["5", '"hello"', "null", "true"])
def test_json_that_is_no_message(text):
    """JSON that is neither an object nor an array cannot be a message."""
    with pytest.raises(Refusal) as info:
        JSON.decode(text)
    assert info.value.code == "bad_message"


@pytest.mark.parametrize(
    "literal", ["1e999", "-1e999", "NaN", "Infinity", '"\\ud800"', "123456789012345678901234567890"]
)
def test_json_value_that_cannot_be_spoils_its_reading_alone(literal):
    """A number or string that no value can be is refused by name, the rest of the message is kept."""
    parts = JSON.decode(f'[{{"a":1}},{{"b":{literal},"seq":9}},{{"c":2}}]')
    assert [type(part) for part in parts] == [Draft, Refusal, Draft]
    assert (parts[1].code, parts[1].seq, parts[1].index) == ("bad_value", 9, 1)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\xc1",
        b"\xdd\xff\xff\xff\xff",
        b"\xdb\xff\xff\xff\xffx",
        b"\x81\xa1a",
        b"\x81\xa1\xff\x01",
        b"\x80\x80",
    ],
)
def test_undecodable_msgpack(data):
    """What is not MessagePack raises; lengths that lie cost nothing."""
    with pytest.raises(Refusal) as info:
        MSGPACK.decode(data)
    assert info.value.code == "undecodable"


@pytest.mark.parametrize("data", [b"\x81\x01\x02", b"\x81\xc4\x01a\x01", b"\x81\x90\x01"])
def test_msgpack_keys_that_are_no_names(data):
    """A key that is not a string is refused as a name."""
    (part,) = MSGPACK.decode(data)
    assert part.code == "bad_name"


@pytest.mark.parametrize(
    "data",
    [
        b"\x81\xa1a\xcb\x7f\xf8" + bytes(6),
        b"\x81\xa1a\xcb\x7f\xf0" + bytes(6),
        b"\x81\xa1a\xc4\x01x",
        b"\x81\xa1a\xc7\x01\x05x",
        b"\x81\xa1a\xcf" + b"\xff" * 8,
    ],
)
def test_msgpack_values_that_cannot_be(data):
    """NaN, infinities, byte strings, extensions and uint64 beyond int64 are refused."""
    (part,) = MSGPACK.decode(data)
    assert part.code == "bad_value"


def test_frames_and_subprotocols():
    """The subprotocol, or without one the frame's kind, names the codec; the wrong kind has none."""
    assert codec_for(None, True) is JSON
    assert codec_for("gateway.v1.json", True) is JSON
    assert codec_for("gateway.v1.json", False) is None
    assert codec_for("gateway.v1.msgpack", False) is MSGPACK
    assert codec_for("gateway.v1.msgpack", True) is None
    without = codec_for(None, False)
    assert without is not None
    assert not without.text
    assert without.encode({"type": "ack", "seq": 1}) == '{"type":"ack","seq":1}'
    assert MSGPACK.encode({"seq": 1}) == b"\x81\xa3seq\x01"


@pytest.mark.parametrize("digits", [20, 300, 5_000, 60_000])
def test_an_integer_of_many_digits_spoils_one_reading(digits):
    """However many they are, the reading is refused by name and the others are kept."""
    found = JSON.decode(f'[{{"a":1}},{{"seq":2,"a":-{"9" * digits}}},{{"seq":3,"ts":{"9" * digits},"a":1}},{{"a":2}}]')
    assert [type(part) for part in found] == [Draft, Refusal, Refusal, Draft]
    assert [(part.code, part.seq) for part in found[1:3]] == [("bad_value", 2), ("bad_time", 3)]
