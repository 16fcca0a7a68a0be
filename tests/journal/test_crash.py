"""A process killed with SIGKILL, and the order of its system calls."""

from __future__ import annotations

import random
import re
import signal
import subprocess
from pathlib import Path

import pytest

from .client import REPOSITORY, Client, command, parse, run_until_killed, tracing


async def test_sigkill_under_load(tmp_path: Path) -> None:
    """Over many kills: what was acked is there, once, in order, as it was; no offset is ever shown twice."""
    rng = random.Random(4)
    client = Client()
    for _ in range(6):
        client.hear(run_until_killed(tmp_path, rng.randrange(1, 40)))
        assert await client.missing(tmp_path) == []
    assert len(client.acked) > 500


def run_until_call(directory: Path, call: str, number: int, fault: str = "") -> list[list[str]]:
    """Run the worker under strace, which kills it as it makes the system call for the so manieth time; its lines."""
    tracing()
    inject = f"inject={call}:signal=KILL:when={number}"
    ended = subprocess.run(
        ["strace", "-f", "-o", "/dev/null", "-e", f"trace={call}", "-e", inject, *command(directory, fault, "300")],
        cwd=REPOSITORY,
        stdout=subprocess.PIPE,
        timeout=60,
        check=False,
    )
    assert ended.returncode in (-signal.SIGKILL, 128 + signal.SIGKILL), "the call was not made so often"
    return parse(ended.stdout)


@pytest.mark.parametrize(
    ("call", "number"),
    [
        ("pwritev2", 1),  # the first header
        ("fdatasync", 1),
        ("fsync", 4),  # of the directory, for the first segment
        ("pwrite64", 2),  # zeros ahead
        ("pwritev2", 7),
        ("fdatasync", 8),
        ("ftruncate", 1),  # a segment is closed
        ("ftruncate", 2),
        ("unlink", 1),
        ("unlink", 2),
    ],
)
async def test_killed_at_a_step_of_the_write_path(tmp_path: Path, call: str, number: int) -> None:
    """Killed at any of the system calls that make up a commit, a roll, a removal: nothing acked is missing."""
    directory = tmp_path / "journal"
    client = Client()
    client.hear(run_until_call(directory, call, number))
    client.hear(run_until_killed(directory, 3))
    assert await client.missing(directory) == []


async def test_an_ack_before_the_write_would_be_missing(tmp_path: Path) -> None:
    """The same check of a journal that tells its waiters too soon finds what is missing."""
    client = Client()
    client.hear(run_until_call(tmp_path / "journal", "pwritev2", 7, "early"))
    assert await client.missing(tmp_path / "journal")


# -- the order of system calls -----------------------------------------------------------------------------------------

_call = re.compile(r"^(?P<pid>\d+) +(?P<at>[\d.]+) (?P<name>\w+)\((?P<rest>.*)$")
_resumed = re.compile(r"^(?P<pid>\d+) +(?P<at>[\d.]+) <\.\.\. (?P<name>\w+) resumed>(?P<rest>.*)$")


def early_acks(trace: str) -> tuple[int, list[int]]:
    """How many acks a trace shows, and the numbers of those written before a sync of their record had ended.

    A record is known by the greatest number in what was written to a segment: the worker's devices are numbered.
    """
    written: dict[str, int] = {}  # thread -> greatest number in what it wrote to a segment since its last sync
    durable = -1
    under_way: dict[str, str] = {}
    acks, early = 0, []
    for line in trace.splitlines():
        if resumed := _resumed.match(line):
            pid, name, rest = resumed["pid"], resumed["name"], resumed["rest"]
            rest = under_way.pop(pid, "") + rest
        elif call := _call.match(line):
            pid, name, rest = call["pid"], call["name"], call["rest"]
            if rest.endswith("<unfinished ...>"):
                under_way[pid] = rest
                if name != "write":
                    continue
        else:
            continue
        if name.startswith("pwritev") and ".seg>" in rest:
            numbers = map(int, re.findall(r"n(\d{7})", rest))
            written[pid] = max([written.get(pid, -1), *numbers])
        elif name == "fdatasync" and ".seg>" in rest and rest.endswith("= 0"):
            durable = max(durable, written.get(pid, -1))
        elif name == "write" and (ack := re.search(r'"ack (\d+)', rest)) and not _resumed.match(line):
            acks += 1
            if int(ack[1]) > durable:
                early.append(int(ack[1]))
    return acks, early


def traced(tmp_path: Path, fault: str) -> tuple[int, list[int]]:
    tracing()
    target = tmp_path / "trace"
    calls = "trace=write,pwritev,pwritev2,fdatasync"
    strace = ["strace", "-f", "-y", "-ttt", "-s", "100000", "-e", calls, "-o", str(target)]
    subprocess.run(
        [*strace, *command(tmp_path / "journal", fault, "40")],
        cwd=REPOSITORY,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        check=True,
        timeout=60,
    )
    return early_acks(target.read_text())


def test_every_ack_comes_after_the_sync_of_its_record(tmp_path: Path) -> None:
    """No waiter is told of a record whose ``fdatasync`` has not returned: seen from outside, by strace."""
    acks, early = traced(tmp_path, "")
    assert acks >= 10
    assert early == []


def test_an_early_ack_would_be_seen(tmp_path: Path) -> None:
    """The same trace of a journal that tells its waiters too soon shows it."""
    acks, early = traced(tmp_path, "early")
    assert acks >= 10
    assert early
