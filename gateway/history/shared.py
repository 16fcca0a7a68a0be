"""Reading the chunks that several devices share, for one device after the other.

Each is unpacked once for all devices that are asked for, since these come in the order of their numbers, and let go
when the last of its devices has passed.
"""

from __future__ import annotations

import logging
from array import array
from collections.abc import Callable
from itertools import compress
from typing import Final, NamedTuple

import apsw

from gateway.history.catalogue import Catalogue
from gateway.history.chunks import read_shared
from gateway.history.codec import DamagedChunk, decode_shared
from gateway.history.column import pick
from gateway.history.frame import Frame, cut_frame
from gateway.history.memtable import Shape
from gateway.history.schema import fetch, whole

__all__ = ["SharedChunks", "below"]

log = logging.getLogger(__name__)

_FIND: Final = (
    "SELECT id, shape, from_device, to_device, first FROM shared WHERE last >= ? AND first < ?"
    " AND to_device >= ? AND from_device <= ? ORDER BY from_device DESC"
)


class _Open(NamedTuple):
    shape: Shape
    last_device: int
    frame: Frame
    spans: dict[int, tuple[int, int]]


class SharedChunks:
    """The rows of the devices numbered ``lowest`` to ``highest`` in shared chunks, with orders below ``bound``.

    ``columns`` gives the indices of those columns of a shape that are asked for: frames have only these.
    """

    def __init__(
        self,
        connection: apsw.Connection,
        catalogue: Catalogue,
        columns: Callable[[Shape], list[int]],
        *,
        start: int,
        end: int,
        lowest: int,
        highest: int,
        bound: int,
    ) -> None:
        self.damaged = 0
        self._connection = connection
        self._catalogue = catalogue
        self._columns = columns
        self._bound = bound
        found = fetch(connection, _FIND, (start, end, lowest, highest))
        self._waiting = whole(found)
        self.damaged += len(found) - len(self._waiting)
        self._open: list[_Open] = []

    def of(self, device: int, end: int) -> list[tuple[Shape, Frame]]:
        """Frames of a device, which has a greater number than the last one; none that begin at ``end`` or later."""
        self._open = [found for found in self._open if found.last_device >= device]
        while self._waiting and self._waiting[-1][2] <= device:
            number, kind, from_device, to_device, first = self._waiting.pop()
            shape = self._catalogue.shape_of.get(kind, ())
            if to_device >= device and first < end and self._columns(shape):
                opened = self._unpack(number, shape, from_device, to_device)
                if opened is not None:
                    self._open.append(opened)
        frames = []
        for found in self._open:
            span = found.spans.get(device)
            if span is not None:
                frame = below(cut_frame(found.frame, *span), self._bound)
                if len(frame):
                    frames.append((found.shape, frame))
        return frames

    def _unpack(self, number: int, shape: Shape, from_device: int, to_device: int) -> _Open | None:
        try:
            frame, devices, starts = decode_shared(read_shared(self._connection, number), self._columns(shape))
        except DamagedChunk as error:
            log.warning("history: shared chunk %d cannot be read: %s", number, error)
            self.damaged += 1
            return None
        spans = {
            device: (begin, stop)
            for device, begin, stop in zip(devices, starts, starts[1:], strict=False)
            if from_device <= device <= to_device
        }
        return _Open(shape, to_device, frame, spans)


def below(frame: Frame, bound: int) -> Frame:
    """The rows with orders below ``bound``."""
    orders = frame.orders
    if frame.high < bound:
        return frame
    if isinstance(orders, int):
        return cut_frame(frame, 0, 0)
    keep = list(compress(range(len(frame)), map(bound.__gt__, orders)))
    return Frame(
        array("q", map(frame.times.__getitem__, keep)),
        frame.received,
        array("q", map(orders.__getitem__, keep)),
        [pick(column, keep) for column in frame.columns],
    )
