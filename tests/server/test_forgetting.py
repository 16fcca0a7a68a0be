"""Devices that are forgotten."""

from __future__ import annotations

import asyncio
import re
import shutil
from pathlib import Path

from gateway.devices import FORGOTTEN, DeviceBook
from tests.running import Running, acked, gateway, receive, send
from tests.test_cli import Cli, cli

__all__ = ["cli"]


async def known(running: Running) -> dict[str, str]:
    """The states of the devices."""
    return {row["device"]: row["state"] for row in await running.json("/api/v1/devices")}


async def shown(running: Running) -> set[str]:
    """The devices that a dashboard gets."""
    async with running.live() as live:
        await receive(live, "hello")
        await send(live, {"type": "subscribe", "id": "x"})
        return set((await receive(live, "snapshot"))["devices"])


async def leave(running: Running, *names: str) -> None:
    """Have each send a reading, and go."""
    for name in names:
        async with running.device(name, "?session=s") as ws:
            await receive(ws, "welcome")
            await send(ws, {"type": "describe", "metrics": {"t": {"unit": "Cel"}}}, {"seq": 1, "values": {"t": 1}})
            await acked(ws, 1)
    async with asyncio.timeout(30):
        while max((await known(running)).values()) != "offline":  # noqa: ASYNC110
            await asyncio.sleep(0.01)


async def test_a_device_is_forgotten(tmp_path: Path, cli: Cli) -> None:
    """Only when it is offline; also over a restart; what it took of the bounds is free; its readings stay."""
    limits = {"max_devices": 2, "max_series": 2}
    async with gateway(tmp_path, limits=limits) as running:
        await leave(running, "a", "b")
        assert await shown(running) == {"a", "b"}
        async with running.device("a") as ws:
            await receive(ws, "welcome")
            assert await cli.status("devices", "--forget", "a") == 1
            assert "a is online: only a device that is offline can be forgotten" in cli.err
        assert await cli.status("devices", "--forget", "c") == 1
        assert "no device called 'c' is known" in cli.err
        assert await cli.json("devices", "--forget", "b") == {"device": "b"}
        assert cli.err == "b is forgotten; its readings stay in the history\n"
        assert set(await known(running)) == {"a"}
        assert await cli.status("devices", "--forget", "b") == 1
        assert len(await running.rows("b", until=1)) == 1
        await leave(running, "c")  # there is room for its name, its metric and its description
        assert await shown(running) == {"a", "c"}
    async with gateway(tmp_path) as running:
        assert set(await known(running)) == {"a", "c"}
        assert len(await running.rows("b", until=1)) == 1
        async with running.device("b", "?session=s") as ws:
            assert (await receive(ws, "welcome"))["resumed"] is False
        assert set(await known(running)) == {"a", "b", "c"}


async def test_what_was_on_its_way_does_not_bring_it_back(tmp_path: Path, cli: Cli) -> None:
    """After a crash right behind it the journal still holds its readings and states; the book counts."""
    async with gateway(tmp_path, journal={"commit_ms": 500}) as running:
        await leave(running, "a")
        assert await cli.json("devices", "--forget", "a") == {"device": "a"}
        await leave(running, "z")  # all that came before is on disk, too
        shutil.copytree(tmp_path, tmp_path / "crashed", ignore=shutil.ignore_patterns("*.sock", "crashed"))
    async with gateway(tmp_path / "crashed") as running:
        assert set(await known(running)) == {"z"}
        assert len(await running.rows("a", until=1)) == 1


def test_the_book_remembers_whom_it_has_forgotten(tmp_path: Path) -> None:
    """Over a restart, until the device comes back; the oldest out at the bound."""
    book = DeviceBook(tmp_path / "book", rate=1, burst=1)
    for name in ("a", "b"):
        book.open(name)
        book.forget(name)
    (tmp_path / "book").write_bytes(book.snapshot("e", 5))
    again = DeviceBook(tmp_path / "book", rate=1, burst=1)
    again.load("e")
    assert (list(again), list(again.forgotten)) == ([], ["a", "b"])
    again.open("a")
    assert list(again.forgotten) == ["b"]
    for number in range(FORGOTTEN):
        again.forget(f"d{number}")
    assert len(again.forgotten) == FORGOTTEN
    assert all(re.fullmatch(r"d\d+", name) for name in again.forgotten)
