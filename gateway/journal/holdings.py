"""Which segments a journal holds: the way from an offset to a file, their bytes, which may go.  Pure.

Owned by the loop.  The tuple is replaced, never changed, so that a reader thread can keep the one it was given; the
segments in it are the writer's objects, whose ``end`` and ``size`` grow.
"""

from __future__ import annotations

from bisect import bisect_right
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

    from gateway.journal.reader import Damage
    from gateway.journal.segment import Segment

__all__ = ["Holdings"]


class Holdings:
    """Segments in order, never none: the last is the one being written."""

    def __init__(self, segments: Iterable[Segment]) -> None:
        self.segments = tuple(segments)
        self._barren = (0, 0)  # nothing between these offsets can be read

    def __len__(self) -> int:
        return len(self.segments)

    @property
    def bytes(self) -> int:
        """Bytes of all files."""
        return sum(segment.size for segment in self.segments)

    @property
    def oldest(self) -> Segment:
        """The first segment: nothing below its base is held."""
        return self.segments[0]

    def add(self, segments: list[Segment]) -> None:
        """Segments were born."""
        self.segments += tuple(segments)

    def take_oldest(self, count: int) -> list[Segment]:
        """Let the ``count`` oldest go (less than all) and return them."""
        gone = self.segments[:count]
        self.segments = self.segments[count:]
        return list(gone)

    def passed(self, floor: int | None) -> int:
        """How many of the oldest hold nothing at or behind the offset ``floor``; never the last; none for ``None``."""
        count = 0
        while floor is not None and count < len(self.segments) - 1 and self.segments[count].end <= floor:
            count += 1
        return count

    def bytes_of(self, count: int) -> int:
        """Bytes of the ``count`` oldest files."""
        return sum(segment.size for segment in self.segments[:count])

    def covering(self, need: int) -> int:
        """How many of the oldest must go to free ``need`` bytes; never the last, so perhaps too few."""
        count = 0
        while need > 0 and count < len(self.segments) - 1:
            need -= self.segments[count].size
            count += 1
        return count

    def next_held(self, offset: int) -> int | None:
        """The least offset from ``offset`` on that a segment speaks for, ``None`` if there is none."""
        held = self._next_held(offset)
        return self._next_held(self._barren[1]) if held is not None and self._is_barren(held) else held

    def _is_barren(self, offset: int) -> bool:
        return self._barren[0] <= offset < self._barren[1]

    def _next_held(self, offset: int) -> int | None:
        segments = self.segments
        index = self._index(offset)
        if index and offset < segments[index - 1].end:
            return offset
        return next((segment.base for segment in segments[index:] if segment.end > segment.base), None)

    def give_up(self, start: int, end: int) -> None:
        """Nothing from ``start`` up to ``end`` can be read.  The last such stretch is kept in mind."""
        self._barren = (start, end)

    def readings_below(self, offset: int) -> int:
        """How many readings were stored below ``offset``, as far as the segments' headers tell: at least."""
        index = self._index(offset)
        if not index:
            return self.segments[0].before
        segment = self.segments[index - 1]
        return segment.end_readings if offset >= segment.end else segment.before

    def note(self, damage: Damage) -> tuple[bool, bool]:
        """Keep in mind what is damaged: whether the place is new, and whether the file is."""
        for segment in self.segments:
            if segment.path == damage.path and damage.at not in segment.damaged_at:
                first = not segment.damaged_at
                segment.damaged_at.add(damage.at)
                return True, first
        return False, False

    def _index(self, offset: int) -> int:
        return bisect_right(self.segments, offset, key=lambda segment: segment.base)
