"""Questions of somebody who may see some devices only."""

from __future__ import annotations

from pathlib import Path

import pytest

from gateway.history import History
from tests.history.model import batch, reading

ALL = {"start": 0, "end": 1 << 62}


@pytest.mark.parametrize("flushed", [False, True])
async def test_only_devices_within(tmp_path: Path, flushed: bool) -> None:
    """Whatever is asked for, in memory and in the file, named or by a glob; what is not within takes up no room."""
    store = History(tmp_path / "history.db", retention_days=0)
    await store.open()
    names = ["tank"] * 50 + ["pump-1", "pump-2", "pump-20"]
    await store.write(batch(0, [reading(name, at, {"m": at}) for at, name in enumerate(names)]))
    if flushed:
        await store.flush()
    within = ("pump-?", "other")
    for devices in ("*", ("*", "tank"), "pump-*", ("pump-1", "pump-2", "tank")):
        for step in (None, 1):
            rows, cut = await store.query(devices=devices, within=within, step=step, limit=10, **ALL)
            assert {row[1] for row in rows} == {"pump-1", "pump-2"}, devices
            assert not cut
    for devices in ("tank", "pump-20", ("tan?", "pump-20")):
        assert await store.query(devices=devices, within=within, **ALL) == ([], False)
    assert await store.query(within=(), **ALL) == ([], False)
    await store.close()
