"""Real file systems: one that is full, and one whose power is cut."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from gateway.errors import Overloaded
from gateway.reading import Reading

from .client import Client, working
from .support import Ear, fill, held, opened, reading, segments, until


def run(*command: str | Path) -> None:
    subprocess.run(command, check=True, capture_output=True)


@contextlib.contextmanager
def mounted(target: Path, *options: str | Path) -> Iterator[Path]:
    """Mount something on ``target``; skips where that may not be done."""
    if os.geteuid() != 0:
        pytest.skip("mounting needs root: a full disk and a power cut are not shown")
    target.mkdir(exist_ok=True)
    try:
        run("mount", *options, target)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("nothing can be mounted here: a full disk and a power cut are not shown")
    try:
        yield target
    finally:
        run("umount", target)


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Path]:
    """A file system of one MiB."""
    with mounted(tmp_path / "small", "-t", "tmpfs", "-o", "size=1m", "tmpfs") as target:
        yield target


def take_all(path: Path) -> None:
    """Fill the file system but for a few bytes."""
    with path.open("ab", buffering=0) as file:
        for size in (65536, 4096, 512, 1):
            with contextlib.suppress(OSError):
                while file.write(bytes(size)) == size:
                    pass


async def test_a_full_disk_refuses_and_recovers(small: Path) -> None:
    """``refuse`` on a full disk: refusals within a second, nothing told that was not stored, and full recovery."""
    ear = Ear()
    async with opened(small / "journal", ring_bytes=1) as journal:
        cursor = journal.cursor("sink")
        offsets = await fill(journal, [reading(number, text="x" * 900) for number in range(100)], group=10)
        take_all(small / "ballast")
        started = time.monotonic()
        number = 100
        while not journal.reason:
            offsets.append(journal.append(reading(number, text="x" * 900), ear, number))
            number += 1
            await asyncio.sleep(0.001)
        assert time.monotonic() - started < 1
        assert journal.reason == "the disk fails: No space left on device"
        with pytest.raises(Overloaded):
            journal.append(reading(number))
        told = ear.tokens[-1] if ear.tokens else 99
        assert journal.durable_offset == offsets[told] + 1
        # What is durable is read all the while.
        batch = await cursor.read(0, max_readings=10, max_delay=0)
        assert [item.seq for item in batch.items if isinstance(item, Reading)] == list(range(1, 11))
        (small / "ballast").unlink()
        started = time.monotonic()
        await journal.flush()
        assert time.monotonic() - started < 2
        assert ear.tokens[-1] == number - 1
        offsets += await fill(journal, [reading(number)])
        expected = [*(reading(each, text="x" * 900) for each in range(number)), reading(number)]
        assert await held(journal) == list(zip(offsets, expected, strict=True))
        assert journal.stored == len(offsets)
    async with opened(small / "journal") as journal:
        assert await held(journal) == list(zip(offsets, expected, strict=True))


async def test_cursors_move_and_make_room_on_a_full_disk(small: Path) -> None:
    """Places are written and segments go although not a byte is free; the journal then goes on by itself."""
    async with opened(small / "journal", max_bytes=1 << 19) as journal:
        cursor = journal.cursor("sink")
        await fill(journal, [reading(number, text="x" * 900) for number in range(300)], group=10)
        take_all(small / "ballast")
        with contextlib.suppress(Overloaded):
            for number in range(100):
                journal.append(reading(number, text="x" * 900))
        await until(lambda: journal.reason)
        count = len(segments(small / "journal"))
        offset = cursor.position.offset
        for _ in range(25):
            batch = await cursor.read(offset, max_readings=10, max_delay=0)
            offset = batch.end
            cursor.confirm(offset)
        await journal._store_last()
        await until(lambda: len(segments(small / "journal")) < count)
        await until(lambda: not journal.reason)


async def test_a_full_disk_drops_the_oldest(small: Path) -> None:
    """``drop_oldest`` on a full disk: appends go on, and what goes is counted."""
    async with opened(small / "journal", on_full="drop_oldest", keep_free_bytes=100_000) as journal:
        journal._writer._segment_bytes = 65536
        cursor = journal.cursor("sink")
        refused = 0
        for number in range(3000):
            try:
                journal.append(reading(number, text="x" * 900))
            except Overloaded:
                refused += 1
                await asyncio.sleep(0.01)
            if number % 20 == 0:
                await journal.flush()
        await journal.flush()
        assert journal.stored == 3000 - refused
        assert cursor.overflowed > 1500
        assert cursor.overflowed + cursor.pending == journal.stored
        assert refused < 300


async def test_opening_on_a_full_disk(small: Path) -> None:
    """What is held is read, nothing is taken and no offset given out until there is room; then all goes on."""
    ear = Ear()
    async with opened(small / "journal") as journal:
        offsets = await fill(journal, [reading(1)])
        epoch = journal.epoch
    take_all(small / "ballast")
    async with opened(small / "journal") as journal:
        assert journal.reason == "the disk fails: No space left on device"
        assert await held(journal) == [(offsets[0], reading(1))]
        with pytest.raises(Overloaded, match="No space left"):
            journal.append(reading(2))
        next_offset = journal.next_offset
        await until(lambda: journal.stats()["failures"] > 2)
        assert len(segments(small / "journal")) == 1
        (small / "ballast").unlink()
        await until(lambda: not journal.reason)
        offsets.append(journal.append(reading(2), ear, 2))
        assert offsets[-1] == next_offset > offsets[0]
        await journal.flush()
        await until(lambda: ear.tokens)
        assert await held(journal) == list(zip(offsets, [reading(1), reading(2)], strict=True))
    async with opened(small / "journal") as journal:
        assert journal.epoch == epoch
        assert await held(journal) == list(zip(offsets, [reading(1), reading(2)], strict=True))
        assert journal.stored == 2


async def test_a_full_disk_through_starts_and_stops(small: Path) -> None:
    """A start that never had room leaves everything as it was, and uses no offset that could have been shown."""
    async with opened(small / "journal") as journal:
        offsets = await fill(journal, [reading(1)])
    take_all(small / "ballast")
    before = sorted(path.name for path in (small / "journal").iterdir())
    for _ in range(3):
        async with opened(small / "journal") as journal:
            await until(lambda journal=journal: journal.stats()["failures"] > 1)
    assert sorted(path.name for path in (small / "journal").iterdir()) == before
    (small / "ballast").unlink()
    async with opened(small / "journal") as journal:
        offsets += await fill(journal, [reading(2)])
        assert await held(journal) == list(zip(offsets, [reading(1), reading(2)], strict=True))


async def test_a_first_start_on_a_full_disk(small: Path) -> None:
    """With nothing but its directory it comes up, and makes its files when there is room: they bear one epoch."""
    (small / "journal").mkdir()
    take_all(small / "ballast")
    async with opened(small / "journal") as journal:
        epoch = journal.epoch
        cursor = journal.cursor("sink")
        journal.go_on_behind(journal.next_offset + 5)  # a reader that knows offsets of another journal
        await until(lambda: journal.stats()["failures"] > 1)
        (small / "ballast").unlink()
        await until(lambda: not journal.reason)
        offsets = await fill(journal, [reading(1), reading(2)])
        cursor.confirm(offsets[0] + 1)
    async with opened(small / "journal") as journal:
        assert journal.epoch == epoch
        assert journal.cursor("sink").position.offset == offsets[0] + 1
        assert await held(journal) == list(zip(offsets, [reading(1), reading(2)], strict=True))


async def test_a_full_disk_at_the_start_drops_the_oldest(small: Path) -> None:
    """With ``drop_oldest`` room is made of what is held."""
    async with opened(small / "journal") as journal:
        journal._writer._segment_bytes = 65536
        await fill(journal, [reading(number, text="x" * 900) for number in range(300)], group=10)
    take_all(small / "ballast")
    async with opened(small / "journal", on_full="drop_oldest") as journal:
        await until(lambda: not journal.reason)
        await fill(journal, [reading(1)])
        assert 0 < journal.stats()["dropped_segments"] < 4


# -- a power cut -------------------------------------------------------------------------------------------------------


async def cut_power(tmp_path: Path, fault: str, client: Client) -> list[int]:
    """Run the worker on an ext4 image, and look at the image as it is on the device; what is missing of its acks."""
    if shutil.which("mkfs.ext4") is None:
        pytest.skip("mkfs.ext4 is not on this machine: a power cut is not shown")
    image, copy = tmp_path / "image", tmp_path / "copy"
    if not image.exists():
        with image.open("wb") as file:
            file.truncate(16 << 20)
        run("mkfs.ext4", "-q", image)
    with mounted(tmp_path / "disk", "-o", "loop", image) as disk, working(disk / "journal", fault) as worker:
        worker.read_acks(30)
        worker.stop()
        # What the kernel holds and was not told to sync is not in the image: the copy is the disk after a power cut.
        shutil.copyfile(image, copy)
        client.hear(worker.kill())
    with mounted(tmp_path / "disk", "-o", "loop", copy) as disk:
        missing = await client.missing(disk / "journal")
    copy.replace(image)
    return missing


async def test_a_power_cut_takes_nothing_that_was_acked(tmp_path: Path) -> None:
    """After each of several power cuts everything acked is there, and no offset shown before is used again."""
    client = Client()
    for _ in range(3):
        assert await cut_power(tmp_path, "", client) == []
    assert len(client.acked) > 500


async def test_a_missing_sync_would_be_seen(tmp_path: Path) -> None:
    """The same power cut takes acked readings from a journal that never syncs, which no kill would show."""
    with contextlib.suppress(IndexError):  # not even a segment may be there
        assert await cut_power(tmp_path, "nosync", Client())
