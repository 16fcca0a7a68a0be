"""Running the worker, and what somebody who read its lines knows."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from gateway.reading import Reading

from .support import held, opened

REPOSITORY = Path(__file__).parents[2]


def command(directory: Path, *arguments: str) -> list[str]:
    return [sys.executable, "-m", "tests.journal.worker", str(directory), *arguments]


def tracing() -> None:
    """Skip where strace cannot be used."""
    if shutil.which("strace") is None:
        pytest.skip("strace is not on this machine: the order of fdatasync and acks is not shown")
    if subprocess.run(["strace", "-o", "/dev/null", "true"], capture_output=True, check=False).returncode:
        pytest.skip("strace may not trace here: the order of fdatasync and acks is not shown")


def parse(output: bytes) -> list[list[str]]:
    """The whole lines of the worker, each split at blanks."""
    whole, _, _ = output.rpartition(b"\n")
    return [line.split() for line in whole.decode().splitlines()]


class Worker:
    """A running worker, killed at the end of the block."""

    def __init__(self, directory: Path, *arguments: str) -> None:
        self._process = subprocess.Popen(command(directory, *arguments), cwd=REPOSITORY, stdout=subprocess.PIPE)
        self._data = b""

    def read_acks(self, count: int) -> None:
        """Read on until there were so many acks in all."""
        assert self._process.stdout is not None
        while self._data.count(b"ack ") < count:
            piece = os.read(self._process.stdout.fileno(), 65536)
            assert piece, "the worker ended by itself"
            self._data += piece

    def stop(self) -> None:
        """Stand still, and do not go on."""
        self._process.send_signal(signal.SIGSTOP)
        os.waitid(os.P_PID, self._process.pid, os.WSTOPPED | os.WNOWAIT)

    def kill(self) -> list[list[str]]:
        """Kill it; all its lines."""
        if self._process.stdout is None or self._process.stdout.closed:
            return []
        self._process.kill()
        rest, _ = self._process.communicate()
        return parse(self._data + rest)


@contextlib.contextmanager
def working(directory: Path, *arguments: str) -> Iterator[Worker]:
    """A worker in ``directory``."""
    worker = Worker(directory, *arguments)
    try:
        yield worker
    finally:
        worker.kill()


def run_until_killed(directory: Path, after_acks: int) -> list[list[str]]:
    """Start the worker, kill it after some acks; its lines."""
    with working(directory) as worker:
        worker.read_acks(after_acks)
        return worker.kill()


class Client:
    """What somebody who read the worker's lines knows."""

    def __init__(self) -> None:
        self.shown: dict[int, int] = {}  # offset -> number
        self.acked: set[int] = set()  # offsets

    def hear(self, lines: list[list[str]]) -> None:
        fresh: dict[int, int] = {}
        for kind, *rest in lines:
            if kind == "show":
                offset, number = map(int, rest)
                assert offset not in self.shown, "an offset was used twice"
                self.shown[offset] = fresh[offset] = number
            elif kind == "ack":
                self.acked |= {offset for offset, number in fresh.items() if number <= int(rest[0])}

    async def missing(self, directory: Path) -> list[int]:
        """The offsets of what was acked and cannot be read; all else is checked to be as it was shown."""
        async with opened(directory) as journal:
            cursor = journal.cursor("sink")
            found = await held(journal)
            assert [offset for offset, _ in found] == sorted({offset for offset, _ in found})
            for offset, item in found:
                assert isinstance(item, Reading)
                # What was never shown was appended and written, and its line was not.
                assert item.seq == self.shown.get(offset, item.seq - 1) + 1
            assert cursor.position.offset >= found[0][0]
            assert cursor.pending == sum(1 for offset, _ in found if offset >= cursor.position.offset)
            assert journal.stats()["damages"] == journal.stats()["set_aside"] == 0
            # The cursor's place says what it may have confirmed: only that may be gone.
            return sorted(self.acked - {offset for offset, _ in found} - set(range(cursor.position.offset)))
