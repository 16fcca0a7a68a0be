"""A start on a disk without a byte left: it comes up, says what is wrong, and goes on by itself when there is room."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest

from gateway.auth import Tokens
from gateway.reserve import BYTES, Reserve
from tests.journal.test_disk import mounted, take_all
from tests.running import Running, acked, gateway, receive, send


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Path]:
    """A file system of four MiB."""
    with mounted(tmp_path / "small", "-t", "tmpfs", "-o", "size=4m", "tmpfs") as target:
        yield target


async def refused(gw: Running) -> None:
    """It serves, shows what it has, and takes nothing."""
    assert (await gw.get("/livez"))[0] == 200
    assert (await gw.get("/readyz"))[0] == 503
    health = await gw.json("/healthz")
    assert health["status"] == "failing"
    assert "No space left on device" in health["problems"][0]["text"] or "free" in health["problems"][0]["text"]
    assert "make room" in health["problems"][0]["hint"]
    assert [row["value"] for row in await gw.rows("d")] == [1]


async def ready(gw: Running) -> None:
    """Until it takes readings."""
    for _ in range(200):
        if (await gw.get("/readyz"))[0] == 200:
            return
        await asyncio.sleep(0.05)
    raise TimeoutError


async def test_a_start_on_a_full_disk(small: Path) -> None:
    """Twice in a row, since the stop sets room aside again; then there is room, and the device's reading is taken."""
    state = small / "state"
    async with gateway(state, journal={"keep_free_bytes": 65536}) as gw, gw.device("d", "?session=b") as ws:
        await receive(ws, "welcome")
        await send(ws, {"seq": 1, "t": 1})
        await acked(ws, 1)
        await gw.rows("d", "t", 1)
    assert (state / "reserve").stat().st_size == BYTES
    take_all(small / "ballast")
    for last in (False, True):
        async with gateway(state, journal={"keep_free_bytes": 2 << 20}) as gw:
            await refused(gw)
            async with gw.device("d", "?session=b") as ws:
                assert (await receive(ws, "welcome"))["last_seq"] == 1
                await send(ws, {"seq": 2, "t": 2})
                assert (await receive(ws))["code"] == "overloaded"
                if last:
                    (small / "ballast").unlink()
                    await ready(gw)
                    await send(ws, {"seq": 2, "t": 2})
                    await acked(ws, 2)
                    assert [row["value"] for row in await gw.rows("d", "t", 2)] == [1, 2]
                    assert (await gw.json("/healthz"))["problems"] == []


async def test_tokens_are_revoked_on_a_full_disk(small: Path) -> None:
    """With the room that was set aside, so that they stay revoked; none can be made meanwhile."""
    state = small / "state"
    async with gateway(state, journal={"keep_free_bytes": 65536}) as gw:
        made = [gw.app.tokens.create(["metrics"], name="x" * 128) for _ in range(40)]  # of more than one page
        assert gw.app._reserve.make()
        take_all(small / "ballast")
        with pytest.raises(OSError, match="No space left"):
            gw.app.tokens.create(["metrics"])
        for record, _ in made[:2]:
            gw.app.tokens.revoke(record.id)
        assert gw.app.tokens.owing == 0
        assert [gw.app.tokens.verify(token) is None for _, token in made] == [True] * 2 + [False] * 38
        copy = Tokens(state / "tokens.json")
        copy.load()
        assert len(copy) == 38
        assert (state / "reserve").stat().st_size == BYTES


def test_the_room_set_aside(small: Path) -> None:
    """It is really taken, given up once, made again where others have enough left, and never half."""
    reserve = Reserve(small / "reserve")
    assert not reserve.release()
    assert reserve.renew()
    assert reserve.make()
    assert (small / "reserve").stat().st_blocks * 512 >= BYTES
    take_all(small / "ballast")
    assert reserve.release()
    (small / "other").write_bytes(bytes(BYTES // 2))
    assert not reserve.make()
    assert not (small / "reserve").exists()
    (small / "ballast").unlink()
    (small / "other").write_bytes(bytes(2 * BYTES))
    assert not reserve.renew()  # others have too little left
    assert reserve.make()
