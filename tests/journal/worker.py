"""A program around a journal, for tests to kill or to watch.

Usage: ``python -m tests.journal.worker DIRECTORY [FAULT [GROUPS]]``.  It appends numbered readings in groups of twenty,
for ever or so many times, and writes to stdout: ``open OFFSET``, ``show OFFSET NUMBER`` for each append, ``ack NUMBER``
when a waiter is told, ``full`` at a bound; what is told at once in one ``write``.  ``FAULT`` breaks the journal on
purpose: ``early`` tells waiters before the disk was asked, ``nosync`` never syncs.
"""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path

from gateway.errors import Overloaded
from gateway.journal import Journal

from .support import reading

GROUP = 20


def say(line: str) -> None:
    os.write(1, line.encode() + b"\n")


class Waiter:
    def committed(self, token: int) -> None:
        say(f"ack {token}")


async def work(directory: Path, fault: str, groups: int) -> None:
    journal = Journal(directory, commit_ms=2, keep_free_bytes=0, segment_bytes=65_536)
    await journal.open()
    if fault == "nosync":
        os.fdatasync = os.fsync = lambda fd: None
    if fault == "early":
        hand_over = journal._writer.commit

        def early(base, items):  # type: ignore[no-untyped-def]
            for waiter, token in journal._in_flight_waiters.items():
                waiter.committed(token)
            journal._in_flight_waiters = {}
            hand_over(base, items)

        journal._writer.commit = early  # type: ignore[method-assign]
    say(f"open {journal.next_offset}")
    waiter = Waiter()
    number = journal.stored
    cursor = journal.cursor("sink")
    while groups:
        groups -= 1
        lines = []
        try:
            for _ in range(GROUP):
                offset = journal.append(reading(number, device=f"n{number:07d}"), waiter, number)
                lines.append(f"show {offset} {number}\n")
                number += 1
        except Overloaded:
            say("full")
            await asyncio.sleep(0.1)
        os.write(1, "".join(lines).encode())
        if groups % 10 == 0:
            await journal.flush()
            batch = await cursor.read(cursor.position.offset, max_delay=0)
            cursor.confirm(batch.base + len(batch.items) // 2)
        await asyncio.sleep(0.001)
    await journal.close()


if __name__ == "__main__":
    given = [*sys.argv[1:], "", "-1"]
    asyncio.run(work(Path(given[0]), given[1], int(given[2]) if len(sys.argv) > 3 else -1))
