"""The guide's chapters "Message Types" and "Working with JSON Messages"."""

from __future__ import annotations

import json

import msgspec
from websockets.asyncio.client import connect

from gateway.ws import Connection, Message, Router, Server


class ChatMessage(msgspec.Struct):
    user: str
    text: str
    timestamp: int


def test_message_types() -> None:
    """Message Types: text, binary, ping, pong, close with and without a reason, and JSON from a struct."""
    assert Message.text("Hello, World!").kind == "text"
    assert Message.text("Hello") == Message("text", "Hello")
    assert Message.binary(bytes([1, 2, 3, 4])) == Message("binary", b"\x01\x02\x03\x04")
    assert Message.ping(b"ping data").data == b"ping data"
    assert Message.pong(b"pong data").data == b"pong data"
    assert Message.close().code == 1000
    closing = Message.close(1000, "Normal closure")
    assert (closing.kind, closing.code, closing.reason) == ("close", 1000, "Normal closure")
    chat = ChatMessage("Alice", "Hello everyone!", 1634567890)
    message = Message.json(chat)
    assert message.kind == "text"
    assert json.loads(message.data) == {"user": "Alice", "text": "Hello everyone!", "timestamp": 1634567890}
    assert message.decode(ChatMessage) == chat
    assert message.decode() == json.loads(message.data)


class GameMove(msgspec.Struct):
    player_id: int
    x: int
    y: int
    piece: str


class MoveAnswer(msgspec.Struct):
    accepted: bool
    piece: str


async def process_move(move: GameMove) -> MoveAnswer:
    return MoveAnswer(0 <= move.x < 8 and 0 <= move.y < 8, move.piece)


async def test_working_with_json_messages() -> None:
    """Working with JSON Messages: a move is decoded and checked, the answer is JSON text, bad JSON is named."""
    router = Router()

    @router.websocket("/game")
    async def game(ws: Connection) -> None:
        async for message in ws:
            if message.kind != "text":
                continue
            try:
                move = message.decode(GameMove)
            except msgspec.DecodeError as error:
                await ws.send_text(f"Invalid JSON: {error}")
            else:
                await ws.send_json(await process_move(move))

    async with Server(router) as server, connect(f"ws://127.0.0.1:{server.port}/game") as client:
        await client.send('{"player_id": 1, "x": 3, "y": 4, "piece": "rook"}')
        answer = await client.recv()
        assert isinstance(answer, str)
        assert json.loads(answer) == {"accepted": True, "piece": "rook"}
        await client.send("{not json")
        assert str(await client.recv()).startswith("Invalid JSON: ")
        await client.send('{"player_id": 1, "x": "three", "y": 4, "piece": "rook"}')
        assert "$.x" in str(await client.recv())
