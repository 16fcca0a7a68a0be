"""The queue of commands: on disk before it is told, sent again and said so, expired, bounded; damage is set aside."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import apsw
import msgspec
import pytest

from gateway import commands
from gateway.commands import Command, Commands
from gateway.errors import GatewayError, Overloaded, Refusal


class Clock:
    def __init__(self) -> None:
        self.at = 1_764_000_000.0

    def __call__(self) -> float:
        return self.at


@asynccontextmanager
async def queue(path: Path, now: Callable[[], float] | None = None) -> AsyncIterator[tuple[Commands, list[Command]]]:
    """An open queue, and what its watcher is told."""
    told: list[Command] = []
    opened = Commands(path / "commands.db", now=now or Clock())
    opened.watchers.append(told.append)
    await opened.open()
    try:
        yield opened, told
    finally:
        await opened.close()


def on_disk(path: Path) -> list[tuple[str, int]]:
    """Device and times of each command in the file, as another process finds it."""
    connection = apsw.Connection(str(path / "commands.db"), flags=apsw.SQLITE_OPEN_READONLY)
    found = list(connection.execute("SELECT device, times FROM command ORDER BY rowid"))
    connection.close()
    return found


async def test_it_is_on_disk_before_it_is_told(tmp_path: Path) -> None:
    """Queued, sent, done: each is in the file when it is told."""
    seen: list[tuple[str, list[tuple[str, int]]]] = []
    async with queue(tmp_path) as (opened, told):
        opened.watchers.append(lambda command: seen.append((command.state, on_disk(tmp_path))))
        made = await opened.submit("live", "pump-1", "set_speed", {"rpm": 1200}, ref="x1", ttl_s=60)
        assert made.message() == {
            "type": "command",
            "id": made.id,
            "name": "set_speed",
            "params": {"rpm": 1200},
            "expires": 1764000060000,
        }
        sent = await opened.sent(made.id)
        assert sent is not None
        assert on_disk(tmp_path) == [("pump-1", 1)]
        opened.tell_sent(sent)
        await opened.result("pump-1", made.id, True, 3)
        assert opened.waiting("pump-1") == []
    assert seen == [("queued", [("pump-1", 0)]), ("sent", [("pump-1", 1)]), ("done", [])]
    assert [command.told() for command in told] == [
        {"type": "command_state", "ref": "x1", "id": made.id, "device": "pump-1", "state": "queued"},
        {"type": "command_state", "ref": "x1", "id": made.id, "device": "pump-1", "state": "sent"},
        {"type": "command_state", "ref": "x1", "id": made.id, "device": "pump-1", "state": "done", "value": 3},
    ]


async def test_it_survives_a_restart_and_says_that_it_comes_again(tmp_path: Path) -> None:
    """In order; what was sent and not answered is sent again, marked."""
    async with queue(tmp_path) as (opened, _):
        first = await opened.submit("mqtt", "pump-1", "a")
        await opened.submit("mqtt", "pump-2", "b")
        await opened.submit("mqtt", "pump-1", "c", {"x": [1, {"y": "ü"}]})
        await opened.sent(first.id)
    async with queue(tmp_path) as (opened, told):
        waiting = opened.waiting("pump-1")
        assert [(command.name, command.state, command.source) for command in waiting] == [
            ("a", "sent", "mqtt"), ("c", "queued", "mqtt")]  # fmt: skip
        assert waiting[1].message()["params"] == {"x": [1, {"y": "ü"}]}
        again = await opened.sent(first.id)
        assert again is not None
        assert (again.message()["again"], again.told()["times"]) == (True, 2)
        fresh = await opened.sent(waiting[1].id)
        assert fresh is not None
        assert "again" not in fresh.message()
        assert told == []


async def test_its_time_is_over(tmp_path: Path) -> None:
    """It expires, sent or not, also over a restart; nothing is sent of it then."""
    clock = Clock()
    async with queue(tmp_path, clock) as (opened, told):
        short = await opened.submit("live", "pump-1", "a", ttl_s=5)
        await opened.submit("live", "pump-1", "b", ttl_s=50)
        clock.at += 5
        await opened.expire()
        assert [(command.name, command.state) for command in told[2:]] == [("a", "expired")]
        assert await opened.sent(short.id) is None
    clock.at += 60
    async with queue(tmp_path, clock) as (opened, told):
        await opened.expire()
        assert [(command.name, command.state) for command in told] == [("b", "expired")]
    assert on_disk(tmp_path) == []


async def test_results_that_nobody_waits_for(tmp_path: Path) -> None:
    """Of another device, an unknown id, one that was not sent, or the second one: refused."""
    async with queue(tmp_path) as (opened, _):
        made = await opened.submit("live", "pump-1", "a")
        for device, id in (("pump-1", made.id), ("pump-2", made.id), ("pump-1", "c0")):
            with pytest.raises(Refusal) as refused:
                await opened.result(device, id, True)
            assert refused.value.code == "unknown_command"
        await opened.sent(made.id)
        with pytest.raises(Refusal):
            await opened.result("pump-2", made.id, True)
        failed = await opened.result("pump-1", made.id, False, "no power")
        assert (failed.state, failed.value, failed.ended) == ("failed", "no power", True)
        with pytest.raises(Refusal):
            await opened.result("pump-1", made.id, True)


BAD: list[tuple[dict[str, Any], str]] = [
    ({"device": "a/b"}, "device"),
    ({"device": 5}, "device"),
    ({"name": ""}, "name"),
    ({"name": "x" * 65}, "name"),
    ({"name": "a\n"}, "name"),
    ({"name": 5}, "name"),
    ({"params": []}, "params"),
    ({"params": {"x": "y" * 9000}}, "params"),
    ({"params": {1: 2, "x": object()}}, "params"),
    ({"params": {"x": [{"y": 1 << 64}]}}, "params"),
    ({"ttl_s": 0}, "ttl_s"),
    ({"ttl_s": -1}, "ttl_s"),
    ({"ttl_s": float("nan")}, "ttl_s"),
    ({"ttl_s": float("inf")}, "ttl_s"),
    ({"ttl_s": True}, "ttl_s"),
    ({"ttl_s": "5"}, "ttl_s"),
    ({"ref": "x" * 129}, "ref"),
    ({"ref": 5}, "ref"),
    ({"ref": "\x00"}, "ref"),
]


@pytest.mark.parametrize(("changed", "words"), BAD, ids=range(len(BAD)))
async def test_what_is_no_command(tmp_path: Path, changed: dict[str, Any], words: str) -> None:
    """It is refused in words, and nothing of it is kept."""
    async with queue(tmp_path) as (opened, told):
        given: dict[str, Any] = {"device": "pump-1", "name": "a", **changed}
        with pytest.raises(Refusal, match=f"^{words}: ") as refused:
            await opened.submit("live", **given)
        assert refused.value.code == "bad_command"
        assert (len(opened), told) == (0, [])
        assert (opened.stats()["refused_bad_command"], opened.stats()["refused_queue_full"]) == (1, 0)
        assert "e+" not in str(refused.value)


async def test_parameters_are_bounded_in_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Over all devices, also after a restart; what has ended makes room."""
    monkeypatch.setattr(commands, "WAITING_BYTES", 30)
    params = {"x": "y" * 4}  # twelve bytes
    async with queue(tmp_path) as (opened, _):
        await opened.submit("live", "pump-1", "a", params)
    async with queue(tmp_path) as (opened, _):
        await opened.submit("live", "pump-2", "a", params)
        with pytest.raises(Refusal) as refused:
            await opened.submit("live", "pump-3", "a", params)
        assert refused.value.code == "queue_full"
        assert opened.stats()["refused_queue_full"] == 1
        await opened.forget("pump-1")
        await opened.submit("live", "pump-3", "a", params)
        assert len(opened) == 2


async def test_deep_parameters(tmp_path: Path) -> None:
    """They are refused before anything walks them."""
    deep: Any = {}
    for _ in range(100):
        deep = {"x": deep}
    async with queue(tmp_path) as (opened, _):
        with pytest.raises(Refusal, match="nested"):
            await opened.submit("live", "pump-1", "a", deep)


async def test_bounds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """For each device and in all; an ended one makes room."""
    monkeypatch.setattr(commands, "WAITING_DEVICE", 2)
    monkeypatch.setattr(commands, "WAITING", 3)
    async with queue(tmp_path) as (opened, _):
        first = await opened.submit("live", "pump-1", "a")
        await opened.submit("live", "pump-1", "b")
        for device in ("pump-1", "pump-2", "pump-3"):
            if device == "pump-2":
                await opened.submit("live", device, "c")
                continue
            with pytest.raises(Refusal) as refused:
                await opened.submit("live", device, "c")
            assert refused.value.code == "queue_full"
        await opened.sent(first.id)
        await opened.result("pump-1", first.id, True)
        await opened.submit("live", "pump-1", "d")


async def test_devices_that_were_never_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """They have a share of the queue, so that invented names leave room for others; the operator has room kept."""
    monkeypatch.setattr(commands, "WAITING_UNKNOWN", 2)
    monkeypatch.setattr(commands, "WAITING", 3)
    monkeypatch.setattr(commands, "RESERVED", 1)
    async with queue(tmp_path) as (opened, _):
        for number in range(2):
            await opened.submit("live", f"n-{number}", "a", known=False)
        with pytest.raises(Refusal, match="never seen"):
            await opened.submit("live", "n-2", "a", known=False)
        await opened.submit("live", "pump-1", "a")
        with pytest.raises(Refusal, match="in all"):
            await opened.submit("live", "pump-1", "a")
        kept = await opened.submit("control", "pump-1", "a", operator=True)
        with pytest.raises(Refusal, match="in all"):
            await opened.submit("control", "pump-1", "a", operator=True)
        await opened.cancel(kept.id)
        for command in opened.all():
            await opened.cancel(command.id)
        await opened.submit("live", "n-2", "a", known=False)
        with pytest.raises(Refusal, match="no command"):
            await opened.cancel(kept.id)


async def test_a_forgotten_device(tmp_path: Path) -> None:
    """What waits for it has expired."""
    async with queue(tmp_path) as (opened, told):
        await opened.submit("live", "pump-1", "a")
        await opened.forget("pump-1")
        assert [command.state for command in told] == ["queued", "expired"]
        assert on_disk(tmp_path) == []


async def test_a_disk_that_takes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is told as queued or sent that is not on disk; and nothing of it waits."""

    def full(command: Command) -> None:
        raise apsw.FullError("database or disk is full")

    async with queue(tmp_path) as (opened, told):
        made = await opened.submit("live", "pump-1", "a")
        monkeypatch.setattr(opened, "_save", full)
        with pytest.raises(Overloaded):
            await opened.submit("live", "pump-1", "b")
        with pytest.raises(Overloaded):
            await opened.sent(made.id)
        assert [(command.name, command.state) for command in opened.waiting("pump-1")] == [("a", "queued")]
        assert [command.name for command in told] == ["a"]


async def test_what_the_disk_did_not_take_never_comes_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not at a restart either, though its device came before that was known and the disk had room again."""
    async with queue(tmp_path) as (opened, _):
        save = opened._save
        fails = iter((True,))

        def full_once(command: Command) -> None:
            if next(fails, False):
                raise apsw.FullError("database or disk is full")
            save(command)

        monkeypatch.setattr(opened, "_save", full_once)
        submitted = asyncio.create_task(opened.submit("live", "pump-1", "a"))
        await asyncio.sleep(0)
        (command,) = opened.waiting("pump-1")
        assert await opened.sent(command.id) is None
        with pytest.raises(Overloaded):
            await submitted
    assert on_disk(tmp_path) == []


async def test_a_damaged_file_is_set_aside(tmp_path: Path) -> None:
    """It is kept under another name, and a new one begun."""
    (tmp_path / "commands.db").write_bytes(b"no database at all" * 100)
    async with queue(tmp_path) as (opened, _):
        assert len(opened) == 0
        await opened.submit("live", "pump-1", "a")
    assert len([file for file in tmp_path.iterdir() if "damaged" in file.name]) == 1
    assert on_disk(tmp_path) == [("pump-1", 0)]


async def test_a_later_version_is_refused(tmp_path: Path) -> None:
    """And left as it is."""
    connection = apsw.Connection(str(tmp_path / "commands.db"))
    connection.execute("CREATE TABLE command (id TEXT); PRAGMA user_version = 99")
    connection.close()
    opened = Commands(tmp_path / "commands.db")
    with pytest.raises(GatewayError, match="later version"):
        await opened.open()
    assert [file.name for file in tmp_path.iterdir() if "damaged" in file.name] == []


async def test_large_values_are_left_out(tmp_path: Path) -> None:
    """The result counts all the same."""
    async with queue(tmp_path) as (opened, _):
        made = await opened.submit("live", "pump-1", "a")
        await opened.sent(made.id)
        ended = await opened.result("pump-1", made.id, True, "x" * 10_000)
        assert (ended.state, ended.value) == ("done", None)


@pytest.mark.parametrize(
    "value", [msgspec.msgpack.Ext(5, b"x"), 1 << 70, {(1, 2): 3}, {"a": object()}, "\ud800", b"x" * 9_000, float("inf")]
)
async def test_values_that_a_format_cannot_say_are_left_out(tmp_path: Path, value: object) -> None:
    """A device may answer in another format with what no dashboard can be told: the command is done all the same."""
    async with queue(tmp_path) as (opened, _):
        made = await opened.submit("live", "pump-1", "a")
        await opened.sent(made.id)
        done = await opened.result("pump-1", made.id, True, value)
        assert done.state == "done"
        assert done.value is None or value == float("inf")
        msgspec.json.encode(done.told())
