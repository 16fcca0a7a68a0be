"""The control socket: requests, streams, who may connect, and what a bad client costs."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import socket
import stat
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from websockets.asyncio.client import ClientConnection, unix_connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from gateway.errors import GatewayError
from gateway.server import control as control_module
from gateway.server.control import CONNECTIONS, NAME, Control, address

TIMEOUT = 10.0


async def echo(params: dict[str, Any]) -> object:
    return params


async def refuse(params: dict[str, Any]) -> object:
    raise GatewayError("no device is called x", hint="look at `gateway devices`")


async def fail(params: dict[str, Any]) -> object:
    raise ZeroDivisionError("no")


async def no_disk(params: dict[str, Any]) -> object:
    raise OSError(28, "No space left on device", "letters")


async def count(params: dict[str, Any]) -> AsyncIterator[object]:
    for number in range(params["to"]):
        yield number


def dial(directory: Path) -> Any:
    return unix_connect(str(directory / NAME), "ws://gateway/control", compression=None)


async def ask(ws: ClientConnection, *requests: object) -> Any:
    """Send each, give the last answer."""
    answer: Any = None
    for request in requests:
        await ws.send(request if isinstance(request, str) else json.dumps(request))
        answer = json.loads(await asyncio.wait_for(ws.recv(), TIMEOUT))
    return answer


async def test_a_request_is_answered_by_its_command(tmp_path: Path) -> None:
    """The answer holds the request's id, and what the command gave; parameters may be left out."""
    async with Control(tmp_path, {"echo": echo}), dial(tmp_path) as ws:
        assert await ask(ws, {"id": 1, "command": "echo", "params": {"device": "pump-1"}}) == {
            "id": 1,
            "ok": True,
            "result": {"device": "pump-1"},
        }
        assert await ask(ws, {"id": "b", "command": "echo"}) == {"id": "b", "ok": True, "result": {}}


async def test_what_cannot_be_done_is_said_with_what_to_do(tmp_path: Path) -> None:
    """A refusal, an unknown command and a message that is no request are answered in words; the connection goes on."""
    async with Control(tmp_path, {"echo": echo, "refuse": refuse}), dial(tmp_path) as ws:
        assert await ask(ws, {"id": 1, "command": "refuse"}) == {
            "id": 1,
            "ok": False,
            "error": "no device is called x",
            "hint": "look at `gateway devices`",
        }
        answer = await ask(ws, {"id": 2, "command": "reboot"})
        assert (answer["id"], answer["ok"]) == (2, False)
        assert "reboot" in answer["error"]
        assert "echo, refuse" in answer["hint"]
        for bad in ("{", "[]", '{"id":1}', '{"id":1,"command":"echo","params":[]}'):
            answer = await ask(ws, bad)
            assert (answer["id"], answer["ok"]) == (None, False), bad
        assert (await ask(ws, {"id": 3, "command": "echo"}))["ok"]


async def test_a_fault_of_a_command_is_logged_and_answered(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """An exception costs neither the connection nor the gateway; its traceback is in the log."""
    async with Control(tmp_path, {"fail": fail, "echo": echo}), dial(tmp_path) as ws:
        answer = await ask(ws, {"id": 1, "command": "fail"})
        assert not answer["ok"]
        assert "log" in answer["hint"]
        assert (await ask(ws, {"id": 2, "command": "echo"}))["ok"]
    assert any(record.exc_info for record in caplog.records)


async def test_a_disk_that_fails_is_said(tmp_path: Path) -> None:
    """In words, without a traceback."""
    async with Control(tmp_path, {"no_disk": no_disk}), dial(tmp_path) as ws:
        answer = await ask(ws, {"id": 1, "command": "no_disk"})
        assert answer["error"] == "the disk: No space left on device"


async def test_a_stream_comes_in_items_and_ends_with_ok(tmp_path: Path) -> None:
    """Each item carries the request's id."""
    async with Control(tmp_path, {"count": count}), dial(tmp_path) as ws:
        await ws.send('{"id":7,"command":"count","params":{"to":3}}')
        got = [json.loads(await asyncio.wait_for(ws.recv(), TIMEOUT)) for _ in range(4)]
        assert got == [*({"id": 7, "item": n} for n in range(3)), {"id": 7, "ok": True, "result": None}]


async def test_a_client_that_leaves_ends_its_stream(tmp_path: Path) -> None:
    """The command's generator is closed at once, however long it would have waited."""
    ended = asyncio.Event()

    async def forever(params: dict[str, Any]) -> AsyncIterator[object]:
        try:
            yield "first"
            await asyncio.Event().wait()
        finally:
            ended.set()

    async with Control(tmp_path, {"forever": forever}):
        async with dial(tmp_path) as ws:
            await ws.send('{"id":1,"command":"forever"}')
            await asyncio.wait_for(ws.recv(), TIMEOUT)
        await asyncio.wait_for(ended.wait(), TIMEOUT)


async def test_a_client_that_reads_nothing_holds_nobody_up(tmp_path: Path) -> None:
    """What it does not read is bounded: its stream waits, others are answered, and the stop is in time."""
    sent = 0
    begun = asyncio.Event()

    async def flood(params: dict[str, Any]) -> AsyncIterator[object]:
        nonlocal sent
        while True:
            sent += 1
            begun.set()
            yield "x" * 10_000

    control = Control(tmp_path, {"flood": flood, "echo": echo}, stop_timeout=0.5)
    async with control:
        reader, writer = await asyncio.open_unix_connection(str(tmp_path / NAME), limit=1)
        writer.write(
            b"GET /control HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
        )
        request = b'{"id":1,"command":"flood"}'
        writer.write(bytes([0x81, 0x80 | len(request), 0, 0, 0, 0]) + request)
        async with asyncio.timeout(TIMEOUT):
            await begun.wait()
            before = -1
            while before != sent:
                before = sent
                await asyncio.sleep(0.1)
        assert sent * 10_000 < 2 << 20
        async with dial(tmp_path) as ws:
            assert (await ask(ws, {"id": 2, "command": "echo"}))["ok"]
        started = asyncio.get_running_loop().time()
    assert asyncio.get_running_loop().time() - started < 5.0
    writer.close()
    del reader


async def test_a_client_that_never_reads_is_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A stream that nobody reads ends within a minute: so long may a terminal stand still, and no connection longer."""
    assert control_module.UNREAD_S <= 60
    monkeypatch.setattr(control_module, "UNREAD_S", 0.4)
    ended = asyncio.Event()

    async def flood(params: dict[str, Any]) -> AsyncIterator[object]:
        try:
            while True:
                yield "x" * 10_000
        finally:
            ended.set()

    async with Control(tmp_path, {"flood": flood}), dial(tmp_path) as ws:
        await ws.send('{"id":1,"command":"flood"}')
        ws.transport.pause_reading()
        await asyncio.wait_for(ended.wait(), TIMEOUT)
        ws.transport.resume_reading()
        with pytest.raises(ConnectionClosed):
            [_ async for _ in ws]


async def test_a_request_nested_too_deeply_is_none(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """It is answered as what it is, and nothing in the log calls it a fault of the gateway."""
    deep = "[" * 100_000
    async with Control(tmp_path, {"echo": echo}), dial(tmp_path) as ws:
        for bad in (deep, f'{{"id":1,"command":"echo","params":{{"a":{deep}'):
            answer = await ask(ws, bad)
            assert not answer["ok"]
            assert answer["error"].startswith("not a request: ")
        assert (await ask(ws, {"id": 3, "command": "echo"}))["ok"]
    assert not caplog.records


async def test_connections_are_bounded(tmp_path: Path) -> None:
    """One more than there may be is told so, and gets in when one has left."""
    async with Control(tmp_path, {"echo": echo}):
        held = [await dial(tmp_path) for _ in range(CONNECTIONS)]
        with pytest.raises(InvalidStatus) as refused:
            await dial(tmp_path)
        assert refused.value.response.status_code == 503
        await asyncio.gather(*(ws.close() for ws in held))
        async with dial(tmp_path) as ws:
            assert (await ask(ws, {"id": 1, "command": "echo"}))["ok"]


async def test_the_socket_is_its_owners_alone_and_gone_after_the_stop(tmp_path: Path) -> None:
    """Mode 0600 whatever the umask, never wider even for a moment; no file is left."""
    before = os.umask(0)
    try:
        async with Control(tmp_path, {}):
            found = (tmp_path / NAME).lstat()
            assert stat.S_ISSOCK(found.st_mode)
            assert stat.S_IMODE(found.st_mode) == 0o600
    finally:
        os.umask(before)
    assert not (tmp_path / NAME).exists()


async def test_a_socket_that_a_crash_left_is_replaced(tmp_path: Path) -> None:
    """Nobody listens on it: it goes."""
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(tmp_path / NAME))
    async with Control(tmp_path, {"echo": echo}), dial(tmp_path) as ws:
        assert (await ask(ws, {"id": 1, "command": "echo"}))["ok"]


async def test_a_file_in_its_place_is_left_alone(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """The gateway runs without a control socket, and says why; the file stays, after the stop too."""
    (tmp_path / NAME).write_text("mine")
    with caplog.at_level(logging.WARNING):
        async with Control(tmp_path, {}):
            pass
    assert (tmp_path / NAME).read_text() == "mine"
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert "control.sock" in caplog.text


async def test_anothers_socket_is_not_removed_at_the_stop(tmp_path: Path) -> None:
    """Where the socket was replaced meanwhile, the new one stays."""
    async with Control(tmp_path, {}):
        (tmp_path / NAME).unlink()
        other = socket.socket(socket.AF_UNIX)
        other.bind(str(tmp_path / NAME))
    other.close()
    assert (tmp_path / NAME).exists()


async def test_a_path_longer_than_an_address_works(tmp_path: Path) -> None:
    """A state directory deep in the tree is no obstacle, for either side (unix(7): 108 bytes)."""
    deep = tmp_path / ("d" * 100) / ("e" * 100)
    deep.mkdir(parents=True)
    async with Control(deep, {"echo": echo}):
        with address(deep) as path:
            assert len(path) < 108
            async with unix_connect(path, "ws://gateway/control", compression=None) as ws:
                assert (await ask(ws, {"id": 1, "command": "echo"}))["ok"]
    assert not (deep / NAME).exists()


async def test_only_its_own_address_is_answered(tmp_path: Path) -> None:
    """There are no other addresses on it."""
    async with Control(tmp_path, {}):
        with pytest.raises(InvalidStatus) as refused:
            await unix_connect(str(tmp_path / NAME), "ws://gateway/v1/live")
        assert refused.value.response.status_code == 404


async def test_a_stop_says_that_it_goes_away(tmp_path: Path) -> None:
    """Whoever is connected gets 1001."""
    async with Control(tmp_path, {}):
        ws = await dial(tmp_path)
    with pytest.raises(ConnectionClosed):
        await ws.recv()
    assert ws.close_code == 1001
