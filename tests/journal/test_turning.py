"""Whether the journal's writer turns: told by the step it is at, whatever the disk says."""

from __future__ import annotations

import errno
import math
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from gateway.journal import Journal
from gateway.journal.writer import Writer

from .support import failing, opened, reading, until


@contextmanager
def held_up(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A disk that does not answer."""
    answer = threading.Event()
    real = os.fdatasync

    def fdatasync(fd: int) -> None:
        answer.wait(30)
        real(fd)

    monkeypatch.setattr(os, "fdatasync", fdatasync)
    try:
        yield
    finally:
        answer.set()
        monkeypatch.undo()


def step(journal: Journal) -> float:
    return journal.stats()["writer_step_s"]


async def test_a_disk_that_does_not_answer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The step grows for as long as it does not, and is over with it."""
    async with opened(tmp_path) as journal:
        assert step(journal) == 0
        with held_up(monkeypatch):
            journal.append(reading(1))
            await until(lambda: step(journal) > 0.05)
        await journal.flush()
        await until(lambda: step(journal) == 0)


async def test_a_disk_that_fails_and_then_does_not_answer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """While it fails the writer turns; when it hangs after that, it does not, although the journal fails already."""
    async with opened(tmp_path) as journal:
        with failing("fdatasync", OSError(errno.EIO, "Input/output error")):
            journal.append(reading(1))
            await until(lambda: journal.stats()["failures"] > 2)
            assert journal.reason
            await until(lambda: step(journal) == 0)
        with held_up(monkeypatch):
            await until(lambda: step(journal) > 0.05)
        await journal.flush()


async def test_a_long_commit_turns_with_each_record(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A group of many records is many steps: slow is not stuck."""
    steps: list[float] = []
    real = Writer._write

    async with opened(tmp_path, commit_ms=50) as journal:

        def write(self: Writer, *packed: object) -> None:
            real(self, *packed)  # type: ignore[arg-type]
            steps.append(self._step_since)

        monkeypatch.setattr(Writer, "_write", write)
        for number in range(10_000):
            journal.append(reading(number))
        await journal.flush()
    assert len(steps) > 2
    assert sorted(set(steps)) == steps


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
async def test_a_writer_that_has_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A thread that is gone is at its step for ever; one that was told to stop is not."""

    def fault(self: Writer) -> None:
        raise SystemExit  # ends a thread without a word

    async with opened(tmp_path) as journal:
        with monkeypatch.context() as patched:
            patched.setattr(Writer, "_probe", fault)
            journal._writer.probe()
            await until(lambda: step(journal) == math.inf)
        # For the end of the test: another takes over what is left.
        journal._writer._thread = threading.Thread(target=journal._writer._run, daemon=True)
        journal._writer.start()
    assert journal._writer.step_s() == 0
