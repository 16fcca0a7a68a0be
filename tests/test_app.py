"""The composition: what is begun again, what a stop waits for, what is told when the grace time ends."""

from __future__ import annotations

import asyncio
import errno
import zlib

import pytest

from gateway import app
from gateway.errors import GatewayError
from gateway.journal.segment import Tail
from tests.running import acked, gateway, receive, send


async def test_work_that_fails_is_begun_again(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A fault in the feed, the figures, the device book or the watchdog is logged and ends none of them."""
    monkeypatch.setattr(app, "AGAIN_S", 0.0)
    runs = 0
    done = asyncio.Event()

    async def work() -> None:
        nonlocal runs
        runs += 1
        if runs == 1:
            raise OverflowError("a count too many")
        done.set()
        await asyncio.Event().wait()

    task = asyncio.create_task(app.keep_up("device book", work))
    async with asyncio.timeout(5):
        await done.wait()
    task.cancel()
    assert "device book: fault" in caplog.text
    assert "a count too many" in caplog.text


async def test_a_stop_on_a_disk_that_fails_ends(tmp_path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What cannot be written holds nobody up: the stop is bounded, and nobody was told that it is safe."""

    def fail(*_: object) -> None:
        raise OSError(errno.EIO, "Input/output error")

    loop = asyncio.get_running_loop()
    async with gateway(tmp_path) as gw:
        async with gw.device("d", "?session=b") as ws:
            await receive(ws, "welcome")
            await send(ws, {"seq": 1, "a": 1})
            await acked(ws, 1)
            monkeypatch.setattr(Tail, "append", fail)
            await send(ws, {"seq": 2, "a": 2})
            deadline = loop.time() + 5
            while not (await gw.json("/healthz"))["journal"]["reason"]:
                assert loop.time() < deadline
        began = loop.time()
    assert loop.time() - began < 10
    monkeypatch.undo()
    async with gateway(tmp_path) as gw, gw.device("d", "?session=b") as ws:
        assert (await receive(ws))["last_seq"] == 1


async def test_the_end_of_the_grace_time_is_told(tmp_path) -> None:
    """States found at the start become certain when it is over: the silent are offline, the offline confirmed."""
    async with gateway(tmp_path) as gw:
        async with gw.device("gone"):
            pass
        here = await gw.device("here")
        await receive(here, "welcome")
    await here.close()
    async with gateway(tmp_path, heartbeat={"interval_s": 0.3, "timeout_s": 0.2}) as gw, gw.live() as live:
        await receive(live, "hello")
        await send(live, {"type": "subscribe", "id": "m", "metrics": ["none"]})
        devices = (await receive(live, "snapshot"))["devices"]
        assert (devices["gone"]["state"], devices["gone"]["confirmed"]) == ("offline", False)
        assert (devices["here"]["state"], devices["here"]["confirmed"]) == ("online", False)
        seen: dict[str, dict[str, object]] = {}
        while set(seen) < {"gone", "here"}:
            seen.update((await receive(live, "presence"))["devices"])
        assert seen["gone"]["state"] == "offline"
        assert seen["gone"].get("confirmed", True)
        assert seen["here"]["state"] == "offline"
        assert seen["here"]["reason"] == "not seen since the gateway started"


async def test_a_device_book_of_a_later_version_is_refused_before_anything_is_changed(tmp_path) -> None:
    """The start ends, and the state directory holds what it held."""
    async with gateway(tmp_path) as gw, gw.device("d", "?session=b") as ws:
        await receive(ws, "welcome")
        await send(ws, {"seq": 1, "a": 1})
        await acked(ws, 1)
    book = tmp_path / "devices.msgpack"
    data = bytearray(book.read_bytes())
    data[12:16] = (99).to_bytes(4, "little")
    data[8:12] = zlib.crc32(data[12:]).to_bytes(4, "little")
    book.write_bytes(data)
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    with pytest.raises(GatewayError, match="is of version 99"):
        async with gateway(tmp_path):
            pass
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before
