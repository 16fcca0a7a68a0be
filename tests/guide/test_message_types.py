"""The guide, "Message Types" and "Working with JSON Messages"."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest
from websockets.exceptions import ConnectionClosed as ClientClosed
from websockets.frames import Opcode

from gateway.ws import Connection, Message, Router, message_handler

from .support import dial, eventually, running, watching


class ChatMessage(msgspec.Struct):
    """The guide's message with a user, a text and a time."""

    user: str
    text: str
    timestamp: int


CHAT = ChatMessage("Alice", "Hello everyone!", 1634567890)


def test_constructors() -> None:
    """Every kind has its constructor: text is ``str``, all others are bytes, a close has a code and a reason."""
    text = Message.text("Hello, World!")
    assert (text.kind, text.data) == ("text", "Hello, World!")
    assert text == Message("text", "Hello, World!")
    for data in (b"\x01\x02\x03\x04", bytearray(b"\x01\x02\x03\x04"), memoryview(b"\x01\x02\x03\x04")):
        assert Message.binary(data) == Message("binary", b"\x01\x02\x03\x04")
    assert Message.ping(b"ping data") == Message("ping", b"ping data")
    assert Message.pong(b"pong data") == Message("pong", b"pong data")
    assert (Message.close().kind, Message.close().code, Message.close().reason) == ("close", 1000, "")
    close = Message.close(1000, "Normal closure")
    assert (close.kind, close.code, close.reason) == ("close", 1000, "Normal closure")
    chat = Message.json(CHAT)
    assert chat.kind == "text"
    assert json.loads(chat.data) == {"user": "Alice", "text": "Hello everyone!", "timestamp": 1634567890}
    assert chat.decode() == json.loads(chat.data)
    assert chat.decode(ChatMessage) == CHAT


def test_constructors_refuse_what_cannot_be_sent() -> None:
    """A message that no frame can hold is an error where it is made, not where it is sent."""
    wrong: Any = b"not text"
    with pytest.raises(TypeError):
        Message.text(wrong)
    with pytest.raises(TypeError):
        Message.binary("not bytes")  # type: ignore[arg-type]
    with pytest.raises(TypeError):
        Message.json(object())
    for control in (Message.ping, Message.pong):
        with pytest.raises(ValueError, match="125"):
            control(bytes(126))
    for code in (0, 999, 1004, 1005, 1006, 1015, 1016, 2999, 5000):
        with pytest.raises(ValueError, match=str(code)):
            Message.close(code)
    with pytest.raises(ValueError, match="123"):
        Message.close(1000, "é" * 62)


@pytest.mark.parametrize("data", ["{", "", "[" * 100_000, '"\\ud800"', b"\xff", b'{"a": "\xff"}', "1 2"], ids=range(7))
def test_what_is_not_json_is_one_documented_error(data: str | bytes) -> None:
    """Whatever is wrong with a message, ``decode`` raises ``msgspec.DecodeError``."""
    message = Message.text(data) if isinstance(data, str) else Message.binary(data)
    with pytest.raises(msgspec.DecodeError):
        message.decode()


async def test_every_type_on_the_wire() -> None:
    """What a handler gives back arrives as a frame of its own kind, whole and unmasked."""
    answers = {
        "text": Message.text("Hello, World!"),
        "binary": Message.binary(bytes([1, 2, 3, 4])),
        "ping": Message.ping(b"ping data"),
        "pong": Message.pong(b"pong data"),
        "json": Message.json(CHAT),
        "close": Message.close(1000, "Normal closure"),
    }
    router = Router()
    router.websocket("/", message_handler(lambda ws, message: answers[str(message.data)]))
    frames = []
    async with running(router) as server, watching(server) as peer:
        for name in answers:
            peer.text(name)
            frame = await peer.frame()
            assert frame is not None
            assert frame.fin
            frames.append((frame.opcode, bytes(frame.data)))
        assert await peer.frame() is None
    assert frames == [
        (Opcode.TEXT, b"Hello, World!"),
        (Opcode.BINARY, b"\x01\x02\x03\x04"),
        (Opcode.PING, b"ping data"),
        (Opcode.PONG, b"pong data"),
        (Opcode.TEXT, b'{"user":"Alice","text":"Hello everyone!","timestamp":1634567890}'),
        (Opcode.CLOSE, b"\x03\xe8Normal closure"),
    ]


async def test_every_type_from_the_peer() -> None:
    """A handler that asks for control frames sees every kind, in the order it was sent; fragments are one message."""
    received: list[Message] = []
    router = Router()

    @router.websocket("/", control=True)
    async def record(ws: Connection) -> None:
        async for message in ws:
            received.append(message)

    async with running(router) as server:
        async with dial(server) as client:
            await client.send("text")
            await client.send(b"binary")
            await client.send(["frag", "men", "ted"])
            await client.ping(b"ping data")
            await client.pong(b"pong data")
            await client.send("")
            await client.close(3999, "a reason")
        await eventually(lambda: server.stats()["handlers"] == 0)
    *messages, close = received
    assert messages == [
        Message.text("text"),
        Message.binary(b"binary"),
        Message.text("fragmented"),
        Message.ping(b"ping data"),
        Message.pong(b"pong data"),
        Message.text(""),
    ]
    assert (close.kind, close.code, close.reason) == ("close", 3999, "a reason")


@pytest.mark.parametrize(("code", "reason"), [(1000, ""), (1001, "away"), (1011, "ż" * 61), (3000, "x"), (4999, "y")])
async def test_close_with_reason(code: int, reason: str) -> None:
    """The guide's ``close_with_reason``: the peer gets the code and the reason that the handler gave."""
    ends: list[tuple[int | None, str]] = []
    router = Router()

    @router.websocket("/")
    async def leave(ws: Connection) -> None:
        await ws.close(code, reason)
        ends.append((ws.close_code, ws.close_reason))

    async with running(router) as server, dial(server) as client:
        with pytest.raises(ClientClosed):
            await client.recv()
        assert (client.close_code, client.close_reason) == (code, reason)
        await eventually(lambda: ends)
    assert ends == [(code, reason)]


async def test_a_close_that_cannot_be_sent_is_an_error() -> None:
    """The guide's promise of ``close_with_reason``: code and reason are checked, and the connection stays open."""
    errors: list[str] = []
    router = Router()

    @router.websocket("/")
    async def leave(ws: Connection) -> None:
        for code, reason in ((1005, ""), (1006, ""), (2000, ""), (1000, "x" * 124)):
            try:
                await ws.close(code, reason)
            except ValueError as error:
                errors.append(str(error))
        await ws.send_text("still open")

    async with running(router) as server, dial(server) as client:
        assert await client.recv() == "still open"
    assert len(errors) == 4


class GameMove(msgspec.Struct, forbid_unknown_fields=True):
    """The guide's move."""

    player_id: int
    x: int
    y: int
    piece: str


class MoveAnswer(msgspec.Struct):
    """What became of a move."""

    accepted: bool
    piece: str


async def process_move(move: GameMove) -> MoveAnswer:
    return MoveAnswer(0 <= move.x < 8 and 0 <= move.y < 8, move.piece)


def game() -> Router:
    """The guide's handler of JSON messages."""
    router = Router()

    @router.websocket("/game")
    async def handle_game(ws: Connection) -> None:
        async for message in ws:
            if message.kind != "text":
                continue
            try:
                move = message.decode(GameMove)
            except msgspec.DecodeError as error:
                await ws.send_text(f"Invalid JSON: {error}")
            else:
                await ws.send_json(await process_move(move))

    return router


async def test_game_moves() -> None:
    """A move is decoded, checked and answered with JSON; one outside the board is answered, too."""
    async with running(game()) as server, dial(server, "/game") as client:
        for x, accepted in ((3, True), (8, False)):
            await client.send(json.dumps({"player_id": 1, "x": x, "y": 4, "piece": "rook ♜"}))
            assert json.loads(await client.recv()) == {"accepted": accepted, "piece": "rook ♜"}


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("{not json", "JSON is malformed"),
        ("", "truncated"),
        ('{"player_id": 1, "x": 3, "y": 4}', "piece"),
        ('{"player_id": 1, "x": "3", "y": 4, "piece": "rook"}', "$.x"),
        ('{"player_id": 1, "x": 3.5, "y": 4, "piece": "rook"}', "$.x"),
        ('{"player_id": 1, "x": 3, "y": 4, "piece": null}', "$.piece"),
        ('{"player_id": 1, "x": 3, "y": 4, "piece": "rook", "z": 0}', "z"),
        ("[" * 100_000, "array"),
        ('{"piece": "\\ud800"}', "Invalid JSON"),
    ],
    ids=["malformed", "empty", "missing", "string", "float", "null", "unknown", "nested", "surrogate"],
)
async def test_invalid_json_is_named_and_the_game_goes_on(text: str, named: str) -> None:
    """What is no move is answered with what is wrong with it; the next move is processed as ever."""
    async with running(game()) as server, dial(server, "/game") as client:
        await client.send(text)
        answer = str(await client.recv())
        assert answer.startswith("Invalid JSON: ")
        assert named in answer
        await client.send(b'{"passed": "over"}')
        await client.send('{"player_id": 1, "x": 1, "y": 1, "piece": "pawn"}')
        assert json.loads(await client.recv()) == {"accepted": True, "piece": "pawn"}


async def test_send_json_is_a_text_frame() -> None:
    """The guide's promise of ``send_json``: what a browser parses as JSON comes as text, whatever its type was."""
    values: list[Any] = [CHAT, {"a": None}, [1, 2.5], "text", 7, None, True, {"z": "ż"}]
    router = Router()

    @router.websocket("/")
    async def send(ws: Connection) -> None:
        for value in values:
            await ws.send_json(value)
        with pytest.raises(TypeError):
            await ws.send_json(object())
        await ws.send_text("done")

    async with running(router) as server, watching(server) as peer:
        decoded = []
        for _ in values:
            frame = await peer.frame()
            assert frame is not None
            assert frame.opcode is Opcode.TEXT
            decoded.append(json.loads(frame.data))
        end = await peer.frame()
        assert end is not None
        assert end.data == b"done"
    assert decoded == [msgspec.to_builtins(CHAT), *values[1:]]
