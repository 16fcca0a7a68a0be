"""The guide, "Examples": a chat room, an authenticated chat, a game server."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

import msgspec
import pytest
from websockets.asyncio.client import ClientConnection
from websockets.exceptions import InvalidStatus

from gateway.ws import BearerAuth, Connection, Message, Pool, Request, Response, Router, message_handler

from .support import dial, eventually, running

CallNext = Callable[[Request], Awaitable[Response]]


async def receive(client: ClientConnection) -> Any:
    """The next message, text that holds JSON."""
    text = await client.recv()
    assert isinstance(text, str)
    return json.loads(text)


class ChatMessage(msgspec.Struct):
    """The guide's message of a chat."""

    user: str
    message: str
    timestamp: int


class ChatRoom:
    """The guide's chat room: a message of one user goes to all, its sender included."""

    def __init__(self) -> None:
        self.connections = Pool()
        self.users: dict[str, Connection] = {}

    async def handle_user(self, ws: Connection, user_id: str) -> None:
        self.users[user_id] = ws
        self.connections.add(ws)
        await ws.send_json({"joined": user_id})
        try:
            async for message in ws:
                if message.kind != "text":
                    continue
                try:
                    chat = message.decode(ChatMessage)
                except msgspec.DecodeError:
                    continue
                self.connections.broadcast(chat)
        finally:
            del self.users[user_id]


async def test_chat_room() -> None:
    """The path names the user; every valid message reaches all, any other nobody; who leaves is forgotten."""
    room = ChatRoom()
    router = Router()
    router.websocket("/chat/{user_id}", room.handle_user)
    async with running(router) as server:
        async with dial(server, "/chat/alice") as alice, dial(server, "/chat/b%C3%B6b") as bob:
            assert await receive(alice) == {"joined": "alice"}
            assert await receive(bob) == {"joined": "böb"}
            assert set(room.users) == {"alice", "böb"}
            for wrong in ("not JSON", '{"user": "alice"}', '{"user": "a", "message": "m", "timestamp": "now"}'):
                await alice.send(wrong)
            await alice.send(b"\x00")
            for number, sender in enumerate((alice, bob, alice)):
                message = {"user": "alice", "message": f"hello {number}", "timestamp": 1634567890 + number}
                await sender.send(json.dumps(message))
                assert await receive(alice) == message
                assert await receive(bob) == message
            bob.transport.abort()
            await eventually(lambda: set(room.users) == {"alice"})
            await alice.send(json.dumps(message))
            assert await receive(alice) == message
            assert len(room.connections) == 1
        await eventually(lambda: not room.users)
        await eventually(lambda: server.stats()["handlers"] == 0)
    assert len(room.connections) == 0


@pytest.mark.parametrize(
    "path", ["/chat", "/chat/", "/chat/a/b", "/chat/a%2Fb", "/chat/a%00b", "/chat/%", "/chat/%ff", "/CHAT/a"]
)
async def test_a_path_that_names_no_user_is_refused(path: str) -> None:
    """The guide's promise of ``Path<String>``: one segment, decoded; what is none is refused before the upgrade."""
    room = ChatRoom()
    router = Router()
    router.websocket("/chat/{user_id}", room.handle_user)
    async with running(router) as server:
        with pytest.raises(InvalidStatus) as refused:
            await dial(server, path)
        assert refused.value.response.status_code in (400, 404)
        assert server.stats()["opened"] == 0


@dataclass
class AuthInfo:
    """The guide's knowledge of a user."""

    user_id: str
    permissions: list[str] = field(default_factory=list)


TOKENS = {"secret-token": AuthInfo("u1", ["read", "write"]), "other-token": AuthInfo("u2", ["read"])}


async def verify(token: str) -> AuthInfo | None:
    await asyncio.sleep(0)
    return TOKENS.get(token)


async def process_authenticated_message(user: AuthInfo, text: str) -> str:
    if "write" not in user.permissions:
        return f"{user.user_id} may not write"
    return f"{user.user_id}: {text}"


async def authenticated_websocket(ws: Connection) -> None:
    """The guide's handler of those who are known."""
    auth: AuthInfo = ws.state["auth"]
    await ws.send_json({"type": "welcome", "user_id": auth.user_id, "message": "Welcome to the authenticated channel!"})
    async for message in ws:
        match message.kind:
            case "text":
                await ws.send_text(await process_authenticated_message(auth, str(message.data)))
            case "close":
                break


def bearer(token: str) -> dict[str, dict[str, str]]:
    return {"additional_headers": {"Authorization": f"Bearer {token}"}}


async def test_authenticated_chat() -> None:
    """Who shows a token is welcomed by name, and every message is processed with the user's own permissions."""
    router = Router()
    router.middleware(BearerAuth(verify))
    router.websocket("/secure-chat", authenticated_websocket)
    async with (
        running(router) as server,
        dial(server, "/secure-chat", **bearer("secret-token")) as one,
        dial(server, "/secure-chat", **bearer("other-token")) as two,
    ):
        for client, user in ((one, "u1"), (two, "u2")):
            assert await receive(client) == {
                "type": "welcome",
                "user_id": user,
                "message": "Welcome to the authenticated channel!",
            }
            await client.send("hello")
        assert await one.recv() == "u1: hello"
        assert await two.recv() == "u2 may not write"


@pytest.mark.parametrize(
    ("authorization", "challenge"),
    [
        (None, 'Bearer realm="websocket"'),
        ("", 'Bearer realm="websocket"'),
        ("secret-token", 'Bearer realm="websocket"'),
        ("Basic secret-token", 'Bearer realm="websocket"'),
        ("Bearer", 'Bearer realm="websocket"'),
        ("Bearer wrong", 'Bearer realm="websocket", error="invalid_token"'),
        ("Bearer secret-token2", 'Bearer realm="websocket", error="invalid_token"'),
        ("Bearer secret-token, Bearer secret-token", 'Bearer realm="websocket", error="invalid_token"'),
    ],
)
async def test_who_is_not_known_is_refused_before_the_upgrade(authorization: str | None, challenge: str) -> None:
    """The guide's promise of ``AuthMiddleware``: 401 with a challenge, no upgrade, and no handler has run."""
    entered: list[Connection] = []
    router = Router()

    @router.websocket("/secure-chat")
    async def secure(ws: Connection) -> None:
        entered.append(ws)

    # Added behind the route, and all the same in front of it.
    router.middleware(BearerAuth(verify))
    headers = {} if authorization is None else {"Authorization": authorization}
    async with running(router) as server:
        with pytest.raises(InvalidStatus) as refused:
            await dial(server, "/secure-chat", additional_headers=headers)
        assert refused.value.response.status_code == 401
        assert refused.value.response.headers["WWW-Authenticate"] == challenge
        assert "Upgrade" not in refused.value.response.headers
        stats = server.stats()
        assert (stats["opened"], stats["refused_401"], stats["handlers"]) == (0, 1, 0)
    assert not entered


async def test_middleware_runs_before_the_upgrade_outermost_first() -> None:
    """The guide's promise of middleware: it refuses with any status, gives values of any type, and covers paths."""
    order: list[str] = []
    inner = Router()
    router = Router()

    def named(name: str) -> Any:
        async def middleware(request: Request, call_next: CallNext) -> Response:
            order.append(name)
            request.state.setdefault("names", []).append(name)
            response = await call_next(request)
            order.append(f"{name} {response.status}")
            return response

        return middleware

    @router.middleware
    async def only_friends(request: Request, call_next: CallNext) -> Response:
        status = int(request.query.get("status", "0"))
        return request.refuse(status, "not you") if status else await call_next(request)

    router.middleware(named("outer"))
    router.middleware(named("secure"), paths="/in/secure*")
    inner.middleware(named("inner"))

    @inner.websocket("/{name}")
    async def tell(ws: Connection, name: str) -> None:
        await ws.send_json([name, *ws.state["names"]])

    router.include("/in", inner)
    async with running(router) as server:
        for path, names in (("/in/open", ["outer", "inner"]), ("/in/secure", ["outer", "secure", "inner"])):
            order.clear()
            async with dial(server, path) as client:
                assert await receive(client) == [path.removeprefix("/in/"), *names]
            assert order == [*names, *(f"{name} 101" for name in reversed(names))]
        order.clear()
        for status in (302, 400, 402, 403, 404, 429, 451, 503):
            with pytest.raises(InvalidStatus) as refused:
                await dial(server, f"/in/open?status={status}")
            assert refused.value.response.status_code == status
            assert refused.value.response.body == b"not you\n"
        assert not order
        assert server.stats()["opened"] == 2


class Join(msgspec.Struct, tag=True):
    player_name: str


class Move(msgspec.Struct, tag=True):
    x: int
    y: int


class Leave(msgspec.Struct, tag=True):
    pass


class Joined(msgspec.Struct, tag=True):
    player_id: int
    game_state: str


class MoveResult(msgspec.Struct, tag=True):
    success: bool
    new_state: str


class Error(msgspec.Struct, tag=True):
    message: str


class Game:
    """The guide's game, with a board: a field is taken once."""

    def __init__(self) -> None:
        self.players: dict[int, str] = {}
        self.moves: list[tuple[int, int, int]] = []
        self._next_id = 1

    def create_player(self, name: str) -> int:
        player, self._next_id = self._next_id, self._next_id + 1
        self.players[player] = name
        return player

    def make_move(self, player: int, x: int, y: int) -> bool:
        if any((x, y) == move[1:] for move in self.moves):
            return False
        self.moves.append((player, x, y))
        return True

    @property
    def state(self) -> str:
        return f"{len(self.moves)} moves"

    async def handle(self, ws: Connection) -> None:
        """The guide's ``game_websocket``: what comes is one of a union, told apart by its tag."""
        player: int | None = None
        try:
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
                        player = self.create_player(name)
                        await ws.send_json(Joined(player, self.state))
                    case Move(x=x, y=y) if player is not None:
                        await ws.send_json(MoveResult(self.make_move(player, x, y), self.state))
                    case Leave():
                        break
        finally:
            if player is not None:
                del self.players[player]


async def test_game_server() -> None:
    """Tagged messages in both directions: joining, moves that succeed or not, and a leave that ends with 1000."""
    game = Game()
    router = Router()
    router.websocket("/game", game.handle)
    async with running(router) as server, dial(server, "/game") as ann, dial(server, "/game") as ben:

        async def ask(client: ClientConnection, **command: Any) -> Any:
            await client.send(json.dumps(command))
            return await receive(client)

        # A move before joining is answered with nothing: the next answer is that of the next message.
        await ann.send('{"type": "Move", "x": 1, "y": 2}')
        joined = await ask(ann, type="Join", player_name="Ann")
        assert joined == {"type": "Joined", "player_id": 1, "game_state": "0 moves"}
        joined = await ask(ben, type="Join", player_name="Ben")
        assert joined == {"type": "Joined", "player_id": 2, "game_state": "0 moves"}
        assert game.players == {1: "Ann", 2: "Ben"}
        for client, x, success, state in (
            (ann, 1, True, "1 moves"),
            (ben, 1, False, "1 moves"),
            (ben, 2, True, "2 moves"),
        ):
            result = await ask(client, type="Move", x=x, y=2)
            assert result == {"type": "MoveResult", "success": success, "new_state": state}
        await ann.send('{"type": "Leave"}')
        await ann.wait_closed()
        assert ann.close_code == 1000
        assert game.players == {2: "Ben"}
        # However a player leaves, it is removed.
        ben.transport.abort()
        await eventually(lambda: not game.players)
        assert server.stats()["handler_errors"] == 0


@pytest.mark.parametrize(
    "text",
    [
        "{",
        "[]",
        "{}",
        '{"type": "Fly"}',
        '{"type": 1}',
        '{"x": 1, "y": 2}',
        '{"type": "Move", "x": "1", "y": 2}',
        '{"type": "Move", "x": 1}',
        '{"type": "Join", "player_name": null}',
    ],
)
async def test_a_message_that_is_none_of_the_game_is_answered_with_an_error(text: str) -> None:
    """The guide's validation: what is wrong is said in a tagged error, and the game goes on."""
    game = Game()
    router = Router()
    router.websocket("/game", game.handle)
    async with running(router) as server, dial(server, "/game") as client:
        await client.send(text)
        answer = await receive(client)
        assert set(answer) == {"type", "message"}
        assert answer["type"] == "Error"
        assert answer["message"].startswith("Invalid message: ")
        await client.send('{"type": "Join", "player_name": "Ann"}')
        assert (await receive(client))["type"] == "Joined"


async def test_a_tagged_answer_can_be_returned() -> None:
    """The same by a message handler: a struct that is returned goes out as JSON text with its tag."""

    def play(ws: Connection, message: Message) -> Joined | Error:
        try:
            command = message.decode(Join)
        except msgspec.ValidationError as error:
            return Error(str(error))
        return Joined(len(command.player_name), "new")

    router = Router()
    router.websocket("/", message_handler(play, inline=True))
    async with running(router) as server, dial(server) as client:
        await client.send('{"type": "Join", "player_name": "Ann"}')
        assert await receive(client) == {"type": "Joined", "player_id": 3, "game_state": "new"}
        await client.send('{"type": "Leave"}')
        assert (await receive(client))["type"] == "Error"
