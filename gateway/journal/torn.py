"""What stands at the newest segment's end and is not whole: a write that a crash cut short, or damage.  Pure.

Each record is synced before the next is written, so a crash tears one record at the most.  More than one, or more bytes
than the one says it has, was written and synced, and was damaged later.  How much is lost is told by the heads that can
be believed: those that begin where the one before ends, end where the one behind begins, or end with the file.

One record alone that is not whole counts as torn: nothing tells which of its bytes ever reached the disk.
"""

from __future__ import annotations

from typing import NamedTuple

from gateway.journal import record

__all__ = ["Lost", "judge"]

# The least that MessagePack takes for an item, and for a reading with its two times, in bytes.
ITEM_BYTES = 4
READING_BYTES = 20


class Lost(NamedTuple):
    """Nothing can be read up to the offset ``end``; ``readings`` were ever stored below it."""

    end: int
    readings: int


def judge(data: bytes, base: int, before: int) -> Lost | None:
    """Whether ``data``, from behind the last whole record on, is damage (what is lost) or a torn write (``None``).

    ``base`` is the offset behind that record, ``before`` the readings ever stored below it.
    """
    used = len(data.rstrip(b"\0"))
    heads = _heads(data, base, before)
    begins = {(head.base, head.before) for _, head in heads}
    ends = {(head.end, head.before + head.readings) for _, head in heads} | {(base, before)}
    believed = [
        (at, head)
        for at, head in heads
        if (head.base, head.before) in ends
        or (head.end, head.before + head.readings) in begins
        or used <= at + record.HEAD_SIZE + head.size <= len(data)
    ]
    if believed and believed[0][0] == 0:
        torn = len(believed) == 1 and used <= record.HEAD_SIZE + believed[0][1].size
    else:
        torn = data.find(record.MARK, 1) < 0
    if torn:
        return None
    at, last = believed[-1] if believed else (0, None)
    if last is None or not at:
        return Lost(base, before)  # nothing tells that what stands first was ever synced
    return Lost(last.end, last.before + last.readings)


def _heads(data: bytes, base: int, before: int) -> list[tuple[int, record.Head]]:
    """What looks like a record's head and can lie behind ``base``, with its place."""
    heads = []
    at = data.find(record.MARK)
    while 0 <= at <= len(data) - record.HEAD_SIZE:
        head = record.unpack_head(data, at)
        if (
            head is not None
            and head.base >= base
            and head.before >= before
            and 0 < head.items * ITEM_BYTES <= head.size
            and head.readings <= head.items
            and head.readings * READING_BYTES <= head.size
        ):
            heads.append((at, head))
        at = data.find(record.MARK, at + 1)
    return heads
