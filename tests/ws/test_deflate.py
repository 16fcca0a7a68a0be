"""permessage-deflate (RFC 7692) where the peer breaks it."""

from __future__ import annotations

import tracemalloc
import zlib

import pytest

from .support import CLOSE, CONT, PING, PONG, TEXT, Frame, frame, no_loop_errors, open_raw, serving

BOTH_LOOPS = True

EXTENSION = "Sec-WebSocket-Extensions: permessage-deflate"


def deflated(data: bytes) -> bytes:
    deflater = zlib.compressobj(wbits=-15)
    return (deflater.compress(data) + deflater.flush(zlib.Z_SYNC_FLUSH))[:-4]


HELLO = deflated(b"hello hello hello")


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (frame(TEXT, b"\xff\xff\xff\xff", rsv=4), 1002),
        (frame(PING, b"x", rsv=4), 1002),
        (frame(TEXT, HELLO[:3], rsv=4, fin=False) + frame(CONT, HELLO[3:], rsv=4), 1002),
        (frame(TEXT, HELLO, rsv=2), 1002),
        (frame(TEXT, HELLO, rsv=6), 1002),
        (frame(TEXT, deflated(b"\xff" * 10), rsv=4), 1007),
        (frame(TEXT, deflated(b"x" * 100_000), rsv=4), 1009),
    ],
    ids=["rubbish", "a ping", "a continuation", "another bit", "two bits", "no UTF-8", "too large inflated"],
)
async def test_faults(data: bytes, code: int) -> None:
    """Each fails the connection with its code, is counted, and costs no memory."""
    with no_loop_errors():
        async with (
            serving(options={"compression": True, "max_message_bytes": 50_000}) as server,
            open_raw(server.port, "/", EXTENSION) as raw,
        ):
            raw.send(data)
            got = await raw.recv()
            assert got is not None
            assert (got.opcode, got.code) == (CLOSE, code)
            assert server.stats()[f"closed_{code}"] == 1
            assert server.stats()["handler_errors"] == 0


async def test_without_the_extension_its_bit_is_a_fault() -> None:
    """Where it was not agreed on."""
    async with serving(options={"compression": True}) as server, open_raw(server.port) as raw:
        raw.send(frame(TEXT, HELLO, rsv=4))
        assert (await raw.recv()).code == 1002  # type: ignore[union-attr]


async def test_fragments_with_a_ping_between() -> None:
    """The bit stands on the first fragment alone, and the message is whole."""
    async with serving(options={"compression": True}) as server, open_raw(server.port, "/", EXTENSION) as raw:
        raw.send(frame(TEXT, HELLO[:3], rsv=4, fin=False) + frame(PING, b"p") + frame(CONT, HELLO[3:]))
        assert await raw.recv() == Frame(PONG, b"p")
        assert await raw.recv() == Frame(TEXT, b"hello hello hello")


async def test_a_bomb_costs_no_more_than_a_message() -> None:
    """Sixty kilobytes that would become sixty megabytes are given up at the bound."""
    bomb = frame(TEXT, deflated(b"x" * 60_000_000), rsv=4)
    async with (
        serving(options={"compression": True, "max_message_bytes": 1 << 20}) as server,
        open_raw(server.port, "/", EXTENSION) as raw,
    ):
        tracemalloc.start()
        try:
            raw.send(bomb)
            got = await raw.recv()
            assert got is not None
            assert got.code == 1009
            assert tracemalloc.get_traced_memory()[1] < 8 << 20
        finally:
            tracemalloc.stop()
