"""The short reader against the library's own parser, on a transport that is a list."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Iterator

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from gateway.ws import Message
from gateway.ws.reader import PAUSED_BY_USER

from .rig import LIMIT, Rig, by_the_library
from .support import BINARY, CLOSE, CONT, PING, PONG, TEXT, close_frame, frame

payloads = st.one_of(
    st.binary(max_size=20),
    st.integers(120, 130).map(lambda n: b"x" * n),
    st.integers(250, LIMIT + 10).map(lambda n: b"y" * n),
)
texts = st.one_of(
    st.text(st.characters(exclude_categories=("Cs",)), max_size=12).map(str.encode),
    st.integers(120, 130).map(lambda n: b"x" * n),
)
keys = st.binary(min_size=4, max_size=4)
masks = st.one_of(keys, keys, keys, st.none())


@st.composite
def frames(draw: st.DrawFn) -> bytes:
    """A frame or a fragmented message, mostly legal."""
    shape = draw(st.integers(0, 11))
    if shape < 4:
        return frame(BINARY, draw(payloads), mask=draw(keys))
    if shape < 7:
        return frame(TEXT, draw(texts), mask=draw(keys))
    if shape == 7:
        return frame(draw(st.sampled_from([PING, PONG])), draw(st.binary(max_size=126)), mask=draw(keys))
    if shape == 8:
        pieces = draw(st.lists(st.binary(max_size=10), min_size=1, max_size=4))
        between = frame(PING, b"p", mask=draw(keys)) if draw(st.booleans()) else b""
        head = frame(BINARY, pieces[0], fin=len(pieces) == 1, mask=draw(keys))
        rest = [frame(CONT, part, fin=part is pieces[-1], mask=draw(keys)) for part in pieces[1:]]
        return head + between + between.join(rest)
    if shape == 9:
        return frame(draw(st.integers(0, 15)), draw(st.binary(max_size=5)), fin=draw(st.booleans()), mask=draw(masks))
    if shape == 10:
        return frame(BINARY, draw(st.binary(max_size=5)), rsv=draw(st.integers(0, 7)), mask=draw(keys))
    return draw(st.sampled_from([close_frame(1000, b"bye"), frame(CLOSE), close_frame(4001), frame(CLOSE, b"x")]))


def cut(data: bytes, seed: int) -> list[bytes]:
    """``data`` in random pieces."""
    chance = random.Random(seed)
    pieces = []
    while data:
        size = chance.choice([1, 2, 3, 6, 7, 14, 50, 500])
        pieces.append(data[:size])
        data = data[size:]
    return pieces


@settings(deadline=None, max_examples=300)
@given(st.lists(frames(), max_size=8), st.integers(0, 1 << 16), st.booleans())
@example([frame(BINARY, b"x" * 126)], 0, True)
def test_any_stream_in_any_pieces_reads_as_the_library_reads_it(parts: list[bytes], seed: int, pause: bool) -> None:
    """The same messages, the same bytes sent, the same close code, also with pauses in between."""
    rig = Rig()
    try:
        check_stream(rig, parts, seed, pause)
    finally:
        rig.end()


def check_stream(rig: Rig, parts: list[bytes], seed: int, pause: bool) -> None:
    data = b"".join(parts)
    messages, sent, code = by_the_library(data)
    chance = random.Random(seed)

    def keep(message: Message) -> None:
        assert not rig.ws._paused
        rig.seen.append(message)
        if pause and chance.random() < 0.4:
            rig.ws.pause()
            rig.loop.call_soon(rig.ws.resume)

    rig.handle = keep
    for piece in cut(data, seed):
        rig.feed(piece)
        if pause:
            while rig.ws._paused:
                rig.loop.run_until_complete(asyncio.sleep(0))
            rig.loop.run_until_complete(asyncio.sleep(0))
    for _ in range(3):
        rig.loop.run_until_complete(asyncio.sleep(0))
    assert rig.outcome() == (messages, sent, code)


@pytest.fixture
def rig() -> Iterator[Rig]:
    rig = Rig()
    yield rig
    rig.end()


def test_nothing_is_delivered_between_pause_and_resume(rig: Rig) -> None:
    """Messages behind a pause, in the same read or the next, wait for resume, in order."""
    rig.handle = lambda message: (rig.seen.append(message), rig.ws.pause())
    rig.feed(b"".join(frame(TEXT, b"%d" % number) for number in range(3)))
    assert [message.data for message in rig.seen] == ["0"]
    assert rig.transport.reading
    rig.feed(frame(TEXT, b"3"))
    assert not rig.transport.reading
    for expected in (["0", "1"], ["0", "1", "2"], ["0", "1", "2", "3"]):
        rig.ws.resume()
        rig.loop.run_until_complete(asyncio.sleep(0))
        rig.loop.run_until_complete(asyncio.sleep(0))
        assert [message.data for message in rig.seen] == expected
    rig.ws.resume()
    rig.loop.run_until_complete(asyncio.sleep(0))
    assert rig.transport.reading


def test_a_pause_within_the_librarys_frames_holds(rig: Rig) -> None:
    """Paused by a message that the library read, the short reader waits, too."""
    rig.handle = lambda message: (rig.seen.append(message), rig.ws.pause())
    rig.feed(frame(TEXT, b"a", fin=False) + frame(CONT, b"b") + frame(TEXT, b"c"))
    assert [message.data for message in rig.seen] == ["ab"]


def test_reading_goes_on_only_when_every_reason_to_pause_is_gone(rig: Rig) -> None:
    """A full queue and a user may both have paused; one of them alone does not resume."""
    rig.ws._pause(PAUSED_BY_USER | 2)
    rig.feed(frame(TEXT, b"x"))
    rig.ws.resume()
    rig.loop.run_until_complete(asyncio.sleep(0))
    assert not rig.seen
    rig.ws._resume(2)
    rig.loop.run_until_complete(asyncio.sleep(0))
    assert [message.data for message in rig.seen] == ["x"]


def test_no_message_is_delivered_after_close_soon(rig: Rig) -> None:
    """A handler that begins to close sees no message behind the one it has, whatever the read holds."""
    rig.handle = lambda message: (rig.seen.append(message), rig.ws.close_soon(4000, "enough"))
    rig.feed(frame(TEXT, b"a") * 5 + frame(BINARY, b"x", fin=False) + frame(CONT, b"y"))
    assert len(rig.seen) == 1
    assert rig.transport.written == b"\x88\x08\x0f\xa0enough"
    rig.feed(frame(TEXT, b"a") + close_frame(4000, b"enough"))
    assert len(rig.seen) == 1
    assert (rig.ws.close_code, rig.ws.reason_lost) == (4000, "")


def test_what_an_inline_handler_sends_goes_out_in_one_write(rig: Rig) -> None:
    """Replies and pongs of one read are one call to the transport, in order."""
    writes: list[bytes] = []
    rig.transport.write = writes.append  # type: ignore[method-assign]
    rig.handle = lambda message: message
    rig.feed(frame(TEXT, b"a") + frame(PING, b"p") + frame(TEXT, b"b"))
    assert writes == [b"\x81\x01a\x8a\x01p\x81\x01b"]
