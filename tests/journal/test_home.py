"""A directory that is removed, moved or replaced while the journal is open."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from gateway.errors import Overloaded, StateLocked
from gateway.journal import Journal

from .support import fill, held, opened, reading, segments, until


def everything(directory: Path) -> None:
    shutil.rmtree(directory.parent)


def files(directory: Path) -> None:
    for path in directory.iterdir():
        path.unlink()


def newest(directory: Path) -> None:
    segments(directory)[-1].unlink()


@pytest.mark.parametrize("remove", [everything, shutil.rmtree, files, newest])
async def test_what_was_acked_after_a_removal_is_there(tmp_path: Path, remove: Callable[[Path], None]) -> None:
    """A directory or file removed under the journal is made again before anything more is called durable."""
    directory = tmp_path / "state" / "journal"
    async with opened(directory, ring_bytes=1) as journal:
        await fill(journal, [reading(1)])
        cursor = journal.cursor("sink")
        remove(directory)
        second = await fill(journal, [reading(2), reading(3)])
        assert journal.reason == ""
        assert journal.stats()["failures"] >= 1
        batch = await cursor.read(cursor.position.offset, max_readings=1, max_delay=0)
        assert batch.base == second[0]
        cursor.confirm(batch.end)
        assert (cursor.lost, cursor.delivered, cursor.pending) == (1, 1, 1)
        with pytest.raises(StateLocked):
            await Journal(directory).open()
        epoch = journal.epoch
    async with opened(directory) as journal:
        assert journal.epoch == epoch
        assert [offset for offset, _ in await held(journal)] == second
        assert journal.next_offset > second[-1]
        cursor = journal.cursor("sink")
        assert (cursor.pending, cursor.position.offset) == (1, second[0] + 1)


async def refused(journal: Journal, directory: Path) -> None:
    """Appends until the journal refuses to; nothing of it is durable."""
    durable = journal.durable_offset
    journal.append(reading(7))
    await until(lambda: journal.reason)
    with pytest.raises(Overloaded):
        journal.append(reading(8))
    assert journal.durable_offset == durable


async def test_a_directory_that_was_moved_away_is_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is called durable while the directory is elsewhere, nor is another made; it goes on when it is back."""
    monkeypatch.setattr("gateway.journal.writer.LOOK_S", 0.0)
    directory = tmp_path / "journal"
    async with opened(directory) as journal:
        first = await fill(journal, [reading(1)])
        directory.rename(tmp_path / "elsewhere")
        await refused(journal, directory)
        assert "moved" in journal.reason
        assert not directory.exists()
        (tmp_path / "elsewhere").rename(directory)
        await asyncio.wait_for(journal.flush(), 20)
        found = [offset for offset, _ in await held(journal)]
        assert found[0] == first[0]
        assert len(found) == 2
    async with opened(directory) as journal:
        assert [offset for offset, _ in await held(journal)] == found
        assert journal.stats()["damages"] == 0


async def test_a_directory_that_was_replaced_is_not_written_to(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another journal in the place of ours is left alone, and the reason is said."""
    monkeypatch.setattr("gateway.journal.writer.LOOK_S", 0.0)
    directory = tmp_path / "journal"
    async with opened(tmp_path / "other") as other:
        await fill(other, [reading(9)])
    async with opened(directory) as journal:
        await fill(journal, [reading(1)])
        shutil.rmtree(directory)
        shutil.copytree(tmp_path / "other", directory)
        before = {path: path.read_bytes() for path in directory.iterdir()}
        await refused(journal, directory)
        await until(lambda: "replaced" in journal.reason)
        assert {path: path.read_bytes() for path in directory.iterdir()} == before
