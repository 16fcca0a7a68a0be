"""The guide's chapter "Examples": chat room, authentication, game server."""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass

import msgspec
import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import InvalidStatus

from gateway.ws import BearerAuth, Connection, Message, Pool, Router, Server
from tests.ws.support import eventually


class ChatMessage(msgspec.Struct):
    user: str
    message: str
    timestamp: int


class ChatRoom:
    """The guide's ``ChatRoom``: every valid message goes to everybody, its sender included."""

    def __init__(self) -> None:
        self.connections = Pool()
        self.users: list[str] = []

    async def handle_user(self, ws: Connection, user_id: str) -> None:
        self.users.append(user_id)
        self.connections.add(ws)
        async for message in ws:
            if message.kind != "text":
                continue
            try:
                chat = message.decode(ChatMessage)
            except msgspec.DecodeError:
                continue
            self.connections.broadcast(Message.json(chat))
        self.users.remove(user_id)


async def receive(client: ClientConnection) -> object:
    return json.loads(await asyncio.wait_for(client.recv(), 5))


async def test_real_time_chat_application() -> None:
    """Real-Time Chat Application: the path names the user, and messages reach all users of the room."""
    room = ChatRoom()
    router = Router()
    router.websocket("/chat/{user_id}", room.handle_user)
    async with Server(router) as server:
        url = f"ws://127.0.0.1:{server.port}/chat"
        async with connect(f"{url}/alice") as alice, connect(f"{url}/b%C3%B6b") as bob:
            await eventually(lambda: len(room.connections) == 2)
            assert sorted(room.users) == ["alice", "böb"]
            await alice.send("not JSON: left out")
            message = {"user": "alice", "message": "hello", "timestamp": 1634567890}
            await alice.send(json.dumps(message))
            assert await receive(alice) == message
            assert await receive(bob) == message
        await eventually(lambda: not room.users)
        assert len(room.connections) == 0


@dataclass
class AuthInfo:
    user_id: str
    permissions: list[str]


async def test_websocket_with_authentication() -> None:
    """WebSocket with Authentication: no handler runs without the token; with it, it knows the user."""
    router = Router()
    entered: list[str] = []

    async def verify(token: str) -> AuthInfo | None:
        return AuthInfo("u1", ["chat"]) if token == "secret-token" else None

    router.middleware(BearerAuth(verify))

    @router.websocket("/secure-chat")
    async def authenticated(ws: Connection) -> None:
        auth: AuthInfo = ws.state["auth"]
        entered.append(auth.user_id)
        await ws.send_json(
            {"type": "welcome", "user_id": auth.user_id, "message": "Welcome to the authenticated channel!"}
        )
        async for message in ws:
            if message.kind == "text":
                await ws.send_text(f"{auth.user_id}: {message.data}")

    async with Server(router) as server:
        url = f"ws://127.0.0.1:{server.port}/secure-chat"
        for headers in ({}, {"Authorization": "Bearer wrong"}, {"Authorization": "secret-token"}):
            with pytest.raises(InvalidStatus) as refused:
                await connect(url, additional_headers=headers)
            assert refused.value.response.status_code == 401
        assert not entered
        async with connect(url, additional_headers={"Authorization": "Bearer secret-token"}) as client:
            assert await receive(client) == {
                "type": "welcome",
                "user_id": "u1",
                "message": "Welcome to the authenticated channel!",
            }
            await client.send("hello")
            assert await client.recv() == "u1: hello"
    assert entered == ["u1"]


class Join(msgspec.Struct, tag="Join"):
    player_name: str


class Move(msgspec.Struct, tag="Move"):
    x: int
    y: int


class Leave(msgspec.Struct, tag="Leave"):
    pass


class Joined(msgspec.Struct, tag="Joined"):
    player_id: int
    game_state: str


class MoveResult(msgspec.Struct, tag="MoveResult"):
    success: bool
    new_state: str


class Error(msgspec.Struct, tag="Error"):
    message: str


class Game:
    """The guide's game functions, with a game behind them."""

    def __init__(self) -> None:
        self.players: dict[int, str] = {}
        self.moves: list[tuple[int, int, int]] = []
        self.next_id = 1

    async def create_player(self, name: str) -> int:
        player, self.next_id = self.next_id, self.next_id + 1
        self.players[player] = name
        return player

    async def state(self) -> str:
        return f"{len(self.moves)} moves"

    async def make_move(self, player: int, x: int, y: int) -> bool:
        if any((x, y) == (taken_x, taken_y) for _, taken_x, taken_y in self.moves):
            return False
        self.moves.append((player, x, y))
        return True

    async def remove_player(self, player: int) -> None:
        del self.players[player]

    async def handle(self, ws: Connection) -> None:
        """The guide's ``game_websocket``."""
        player: int | None = None
        async for message in ws:
            if message.kind != "text":
                continue
            try:
                command = message.decode(Join | Move | Leave)
            except msgspec.DecodeError as error:
                await ws.send_json(Error(f"Invalid message: {error}"))
                continue
            match command:
                case Join(player_name=name):
                    player = await self.create_player(name)
                    await ws.send_json(Joined(player, await self.state()))
                case Move(x=x, y=y):
                    if player is not None:
                        success = await self.make_move(player, x, y)
                        await ws.send_json(MoveResult(success, await self.state()))
                case Leave():
                    break
        if player is not None:
            await self.remove_player(player)


async def test_game_server() -> None:
    """Game Server Example: tagged messages in both directions, and a clean-up however the player leaves."""
    game = Game()
    router = Router()
    router.websocket("/game", game.handle)
    async with Server(router) as server:
        url = f"ws://127.0.0.1:{server.port}/game"
        one, two = await connect(url), await connect(url)
        for client, name in ((one, "Ann"), (two, "Ben")):
            await client.send(json.dumps({"type": "Join", "player_name": name}))
        assert await receive(one) == {"type": "Joined", "player_id": 1, "game_state": "0 moves"}
        assert await receive(two) == {"type": "Joined", "player_id": 2, "game_state": "0 moves"}
        for client, success in ((one, True), (two, False)):
            await client.send(json.dumps({"type": "Move", "x": 1, "y": 2}))
            assert await receive(client) == {"type": "MoveResult", "success": success, "new_state": "1 moves"}
        for wrong in ('{"type": "Fly"}', '{"type": "Move", "x": "1", "y": 2}', "{", '{"x": 1}'):
            await one.send(wrong)
            answer = await receive(one)
            assert isinstance(answer, dict)
            assert answer["type"] == "Error"
            assert answer["message"].startswith("Invalid message: ")
        await one.send('{"type": "Leave"}')
        await one.wait_closed()
        assert one.close_code == 1000
        assert game.players == {2: "Ben"}
        two.transport.abort()
        await eventually(lambda: not game.players)
