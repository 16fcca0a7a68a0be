"""What a cursor handed out and nobody confirmed yet: how many readings lie below each offset of it.

Pure.  Batches of readings alone, one behind the other, need one entry however many they are; a batch with other items
in it keeps a byte an item.  So the memory is bounded by what the reader has under way, and small.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

from gateway.reading import Reading

if TYPE_CHECKING:
    from gateway.reading import Batch

__all__ = ["Handed"]


class _Span:
    __slots__ = ("base", "before", "end", "mask")

    def __init__(self, base: int, end: int, before: int, mask: bytes | None) -> None:
        self.base = base
        self.end = end
        self.before = before
        self.mask = mask  # 1 for a reading, 0 for another item; None: all are readings

    def below(self, offset: int) -> int:
        """Readings ever stored below ``offset``, which lies in the span or at its end."""
        length = offset - self.base
        return self.before + (length if self.mask is None else self.mask.count(1, 0, length))

    def cut_front(self, offset: int) -> None:
        self.before = self.below(offset)
        if self.mask is not None:
            self.mask = self.mask[offset - self.base :]
        self.base = offset

    def cut_back(self, offset: int) -> None:
        if self.mask is not None:
            self.mask = self.mask[: offset - self.base]
        self.end = offset


class Handed:
    """Spans of offsets in order, with the readings ever stored below each offset."""

    def __init__(self) -> None:
        self.end = 0
        """The offset behind the last item handed out (0: none)."""
        self._spans: deque[_Span] = deque()

    def forget(self, offset: int) -> None:
        """What was handed out from ``offset`` on is read again: its reader has given up what it had in hand of it."""
        spans = self._spans
        while spans and spans[-1].base >= offset:
            spans.pop()
        if spans and spans[-1].end > offset:
            spans[-1].cut_back(offset)
        self.end = min(self.end, offset)

    def add(self, batch: Batch, before: int) -> None:
        """Note a batch behind all others, with ``before`` readings below it."""
        spans = self._spans
        self.end = batch.end
        mask = None
        if batch.readings != len(batch.items):
            mask = bytes([type(item) is Reading for item in batch.items])
        if mask is None and spans:
            last = spans[-1]
            if last.mask is None and last.end == batch.base and last.below(batch.base) == before:
                last.end = batch.end
                return
        spans.append(_Span(batch.base, batch.end, before, mask))

    def take(self, offset: int, readings: int) -> tuple[int, int]:
        """Forget what lies below ``offset``, given ``readings`` below the place before.

        Returns the readings ever stored below ``offset`` and how many of those since the place before are missing
        from what was handed out.
        """
        missing = 0
        spans = self._spans
        while spans and spans[0].base < offset:
            span = spans[0]
            missing += max(0, span.before - readings)
            readings = max(readings, span.below(min(offset, span.end)))
            if span.end > offset:
                span.cut_front(offset)
                break
            spans.popleft()
        return readings, missing
