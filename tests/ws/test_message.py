"""Messages: what they hold, what they refuse, and their frames."""

from __future__ import annotations

import struct
import zlib
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from websockets.frames import Frame

from gateway.ws import Message
from gateway.ws.message import frame, prepare


class Move(msgspec.Struct):
    x: int
    y: int = 0


def read_frame(data: bytes, extensions: Any = None) -> Frame:
    """The library's reading of a server's frame."""
    position = 0

    def read_exact(n: int) -> Any:
        nonlocal position
        position += n
        return data[position - n : position]
        yield

    parser = Frame.parse(read_exact, mask=False, extensions=extensions)
    try:
        next(parser)
    except StopIteration as done:
        assert position == len(data)
        return done.value  # type: ignore[no-any-return]
    raise AssertionError


@given(
    st.sampled_from([1, 2, 9, 10]),
    st.one_of(st.binary(max_size=300), st.sampled_from([125, 126, 65535, 65536]).map(bytes)),
)
def test_frames_are_what_the_library_reads(opcode: int, payload: bytes) -> None:
    """Every length gets the shortest header, and the library reads the same payload."""
    if opcode > 8:
        payload = payload[:125]
    data = frame(opcode, payload)
    assert len(data) - len(payload) == (2 if len(payload) < 126 else 4 if len(payload) < 65536 else 10)
    read = read_frame(data)
    assert (read.opcode, read.data, read.fin) == (opcode, payload, True)


def test_kinds() -> None:
    """Each constructor gives its kind, with text as str and everything else as bytes."""
    assert Message.text("a") == Message("text", "a")
    assert Message.binary(bytearray(b"a")) == Message("binary", b"a")
    assert Message.json({"a": [1, None]}) == Message("text", '{"a":[1,null]}')
    assert Message.ping(b"p") == Message("ping", b"p")
    assert Message.pong() == Message("pong", b"")
    closing = Message.close(4000, "bye")
    assert (closing.kind, closing.code, closing.reason) == ("close", 4000, "bye")
    assert closing.data == b"\x0f\xa0bye"


@pytest.mark.parametrize("code", [0, 999, 1004, 1005, 1006, 1015, 1016, 2999, 5000])
def test_close_codes_that_must_not_be_sent_are_refused(code: int) -> None:
    """RFC 6455, 7.4: reserved and unassigned codes cannot be put into a close message."""
    with pytest.raises(ValueError, match="cannot be sent"):
        Message.close(code)


def test_what_cannot_be_sent_is_refused() -> None:
    """Wrong types, long reasons and long control frames are refused where the message is made."""
    with pytest.raises(TypeError):
        Message.text(b"bytes")  # type: ignore[arg-type]
    with pytest.raises(TypeError):
        Message.binary("text")  # type: ignore[arg-type]
    with pytest.raises(TypeError):
        Message.json(object())
    with pytest.raises(ValueError, match="123 bytes"):
        Message.close(1000, "ä" * 62)
    with pytest.raises(ValueError, match="surrogate"):
        Message.close(1000, "\ud800")
    with pytest.raises(ValueError, match="125 bytes"):
        Message.ping(b"x" * 126)
    with pytest.raises(ValueError, match="cannot be prepared"):
        Message.close().prepare()
    with pytest.raises(ValueError, match="surrogates"):
        Message.text("\ud800").prepare()


def test_messages_are_frozen() -> None:
    """A message can be shared: nobody can change it."""
    with pytest.raises(AttributeError):
        Message.text("a").data = "b"  # type: ignore[misc]


def test_decode_gives_plain_objects_or_validates() -> None:
    """Without a type JSON becomes plain objects; with one it is checked; both say so where it fails."""
    assert Message.text('{"x":1}').decode() == {"x": 1}
    assert Message.binary(b'{"x":1}').decode(Move) == Move(1)
    assert Message.text("[1,2]").decode(list[int]) == [1, 2]
    for broken in (Message.text("{"), Message.binary(b"\xff"), Message.binary(b'"\xff"'), Message.text("[" * 100_000)):
        with pytest.raises(msgspec.DecodeError):
            broken.decode()
    with pytest.raises(msgspec.ValidationError, match=r"\$\.x"):
        Message.text('{"x":"one"}').decode(Move)


def test_anything_can_be_prepared() -> None:
    """Text, bytes, messages and JSON objects are framed alike; a prepared one is given back."""
    assert prepare("a").frame == b"\x81\x01a"
    assert prepare(b"a").frame == prepare(memoryview(b"a")).frame == b"\x82\x01a"
    assert prepare(Message.ping(b"a")).frame == b"\x89\x01a"
    assert prepare({"a": 1}).frame == b'\x81\x07{"a":1}'
    prepared = Message.text("a").prepare()
    assert prepare(prepared) is prepared
    with pytest.raises(TypeError):
        prepare(object())


@given(st.binary(max_size=2000), st.integers(1, 20))
def test_deflated_frames_inflate_to_the_payload(seed: bytes, times: int) -> None:
    """RFC 7692, 7.2.2: RSV1 is set, and the payload with 00 00 ff ff behind it inflates; short ones stay plain."""
    payload = seed * times
    prepared = Message.binary(payload).prepare()
    data = prepared.deflated
    assert prepared.deflated is data
    if not data[0] & 0x40:
        assert data == prepared.frame
        return
    assert len(data) < len(prepared.frame)
    header = 2 if data[1] < 126 else 4 if data[1] == 126 else 10
    if data[1] == 126:
        assert struct.unpack("!H", data[2:4])[0] == len(data) - 4
    assert zlib.decompress(data[header:] + b"\x00\x00\xff\xff\x03\x00", wbits=-15) == payload


@pytest.mark.parametrize(
    ("message", "error", "words"),
    [
        (Message("ping", b"x" * 126), ValueError, "125"),
        (Message("pong", b"x" * 126), ValueError, "125"),
        (Message("text", b"\xff"), TypeError, "str"),
        (Message("binary", "text"), TypeError, "bytes"),
        (Message("nothing", b""), ValueError, "nothing"),  # type: ignore[arg-type]
        (Message.text("\ud800"), ValueError, "surrogates"),
    ],
)
def test_a_message_made_by_hand_is_checked_before_it_is_sent(
    message: Message, error: type[Exception], words: str
) -> None:
    """Nothing that RFC 6455 forbids goes out, however the message was made."""
    with pytest.raises(error, match=words):
        message.prepare()


def test_pings_and_pongs_take_text() -> None:
    """As ws.ping does; the bound is that of the bytes."""
    assert Message.ping("é") == Message("ping", "é".encode())
    assert Message.pong("é") == Message("pong", "é".encode())
    with pytest.raises(ValueError, match="125"):
        Message.ping("é" * 63)


@pytest.mark.parametrize("wrong", [("bye", ""), (1000, None), (1000.0, ""), (1000, b"bye")])
def test_a_close_of_the_wrong_types_says_so(wrong: Any) -> None:
    """The message names what was given."""
    with pytest.raises(TypeError, match=r"code \(int\) and a reason \(str\)"):
        Message.close(*wrong)
