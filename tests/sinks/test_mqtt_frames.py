"""Packets of the hot path, against paho's own and against any cutting of the stream."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties, VariableByteIntegers

from gateway.sinks import mqtt_frames as frames

texts = st.text(st.characters(exclude_characters="\0\ufeff", exclude_categories=["Cs"]), max_size=40)


@given(
    topic=texts.filter(bool),
    mid=st.integers(0, 65535),
    user=st.lists(st.tuples(texts, texts), max_size=4),
    payload=st.binary(max_size=300),
    retain=st.booleans(),
)
def test_publish_is_read_by_paho_as_it_was_meant(
    topic: str, mid: int, user: list[tuple[str, str]], payload: bytes, retain: bool
) -> None:
    """Topic, identifier, QoS, retain, properties and payload come out of paho's decoder as they went in."""
    frame = frames.publish(frames.string(topic), mid, frames.properties(user), payload, retain)
    remaining, size = VariableByteIntegers.decode(frame[1:5])
    assert len(frame) == 1 + size + remaining
    assert frame[0] & 0xF0 == 0x30
    assert (frame[0] & 1, frame[0] & 8) == (retain, 0)
    body = frame[1 + size :]
    assert body[: 2 + len(topic.encode())] == len(topic.encode()).to_bytes(2, "big") + topic.encode()
    body = body[2 + len(topic.encode()) :]
    assert frame[0] >> 1 & 3 == (1 if mid else 0)
    if mid:
        assert body[:2] == mid.to_bytes(2, "big")
        body = body[2:]
    properties = Properties(PacketTypes.PUBLISH)
    _, size = properties.unpack(body)
    assert getattr(properties, "UserProperty", []) == user
    assert body[size:] == payload


@pytest.mark.parametrize("number", [0, 1, 127, 128, 16383, 16384, 2_097_151, 2_097_152, 268_435_455])
def test_lengths_are_encoded_as_paho_does(number: int) -> None:
    """Variable Byte Integers at the borders of each size."""
    assert frames.varint(number) == VariableByteIntegers.encode(number)


def packet(first: int, body: bytes) -> bytes:
    return bytes([first]) + frames.varint(len(body)) + body


acks = st.tuples(st.integers(1, 65535), st.sampled_from([None, 0, 0x10, 0x87, 0x99]))
others = st.tuples(st.sampled_from([0x20, 0x30, 0x90, 0xD0, 0xE0]), st.binary(max_size=300))


@given(sent=st.lists(acks | others, max_size=20), cuts=st.lists(st.integers(1, 50), max_size=50))
def test_any_cutting_of_the_stream_gives_the_same_packets(sent: list[tuple[int, object]], cuts: list[int]) -> None:
    """Acknowledgements and other packets come out whole and in order, however the network cut them."""
    stream = b""
    expected_acks, expected_others = [], []
    for first, second in sent:
        if isinstance(second, bytes):
            expected_others.append(packet(first, second))
            stream += expected_others[-1]
        else:
            assert second is None or isinstance(second, int)
            stream += packet(0x40, first.to_bytes(2, "big") + (b"" if second is None else bytes([second])))
            expected_acks.append((first, second or 0))
    splitter = frames.Splitter(1 << 20)
    got_acks, got_others = [], []
    at = 0
    for size in [*cuts, len(stream)]:
        found = splitter.feed(stream[at : at + size])
        got_acks += found[0]
        got_others += found[1]
        at += size
    assert (got_acks, got_others) == (expected_acks, expected_others)


def test_packet_beyond_the_bound_is_refused_before_it_is_held() -> None:
    """Its announced length suffices."""
    splitter = frames.Splitter(1000)
    assert splitter.feed(b"\x30\xff") == ([], [])
    with pytest.raises(ValueError, match="more than we said"):
        splitter.feed(b"\xff\x01")


@pytest.mark.parametrize("data", [b"\x30\xff\xff\xff\xff\x01", b"\x40\x01\x00", b"\x40\x00"])
def test_malformed_packets_are_refused(data: bytes) -> None:
    """A length of five bytes, an acknowledgement without identifier."""
    with pytest.raises(ValueError, match="a "):
        frames.Splitter(1000).feed(data)
