"""Keys of maps: what would be built in quadratic time is refused before; all else is left to the decoder."""

from __future__ import annotations

import contextlib
import time
from typing import Any

import cbor2
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.codecs import keys, msgpackcodec, senml
from gateway.codecs.keys import check_cbor_keys, check_msgpack_keys
from gateway.errors import Refusal
from tests.collisions import colliding, in_cbor, in_msgpack


def test_they_collide() -> None:
    """The attack is one: all of them have one hash."""
    assert len({hash(pair) for pair in colliding(50)}) == 1


@pytest.mark.parametrize("form", ["msgpack", "senml-cbor"])
def test_the_largest_message_costs_little(form: str) -> None:
    """Four thousand keys of one hash are refused, in a small part of the time that building the map takes."""
    decode = msgpackcodec.BINARY.decode if form == "msgpack" else senml.CBOR.decode
    data = in_msgpack(4_000) if form == "msgpack" else in_cbor(4_000)
    begin = time.process_time()
    with pytest.raises(Refusal) as refused:
        decode(data)
    assert refused.value.code == "undecodable"
    assert time.process_time() - begin < 0.05  # measured: 0.0002, where building it takes 0.15


def test_small_messages_are_left_alone() -> None:
    """They cannot cost much, and their decoder says what it thinks of them."""
    check_msgpack_keys(in_msgpack(50))
    check_cbor_keys(in_cbor(50))


plain = (
    st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.floats(allow_nan=False) | st.text() | st.binary()
)
names: Any = st.text() | st.integers(-10, 10)
values = st.recursive(plain, lambda inner: st.lists(inner) | st.dictionaries(names, inner))


@given(values, st.binary(max_size=3))
def test_whatever_has_plain_keys_passes(value: object, more: bytes) -> None:
    """However it is nested, also with something behind it."""
    assert not keys._has_odd_key(cbor2.dumps(value) + more)


@given(values, st.lists(st.integers(0, 9)), values)
def test_an_array_as_a_key_is_found_wherever_it_is(before: object, odd: list[int], value: object) -> None:
    """Beside and inside anything, behind tags and indefinite lengths."""
    key = cbor2.dumps(odd)
    inner = b"\xa1" + key + cbor2.dumps(value)
    around = [
        b"\x82" + cbor2.dumps(before) + inner,
        b"\x9f" + inner + b"\xff",
        b"\xa1\x61a" + inner,
        b"\xbf\x61a" + inner + b"\xff",
    ]
    tagged = b"\xa1\xc4" + key + b"\x00"
    assert all(keys._has_odd_key(data) for data in [inner, tagged, b"\xd9\xd9\xf7" + inner, *around])


@given(st.binary(max_size=200))
def test_any_octets_end(data: bytes) -> None:
    """Whatever comes, the pass ends and raises nothing but a refusal."""
    keys._has_odd_key(data)
    with contextlib.suppress(Refusal):
        keys.check_msgpack_keys(data + bytes(keys.SMALL))
