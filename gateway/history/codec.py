"""The body of a chunk: rows, sorted by time, packed; a shared one holds those of several devices one after the other.

Pure.  All work over many values is done in C: differences by ``map``, bytes shuffled by slices, then zlib at its
fastest level with a window and tables that fit small data (the default ones cost ten times the time of a small chunk,
for setting them up).

Layout::

    body     = version (1 byte) | mode (1 byte) | rest
    rest     = mode ONE:     zlib(length of header, 4 bytes | header | section | section ...)
               mode MANY:    length of header, 4 bytes | header | zlib(section) | zlib(section) ...
    header   = MessagePack of [rows, [Section, ...]]
    sections = times, lags (received - time, milliseconds), orders, then one a metric of the shape;
               in a shared body also the numbers of the devices, which ascend, and how many rows each has

Integers are little-endian.  A section of integers is kept as unsigned numbers ``u`` of 0, 1, 2, 4 or 8 bytes, their
bytes shuffled (all first bytes, then all second ones, ...)::

    PLAIN    value[i] = base + u[i]
    DELTA    value[0] = base;  value[i] = value[i - 1] + step + factor * u[i - 1]
    SIGNED   value[0] = base;  value[i] = value[i - 1] + s[i - 1], s signed bytes

With width 0 all ``u`` are 0 and nothing is kept.  Floats that are decimals are integers with a ``scale``: value =
integer / scale, which is exact, bit for bit, or the doubles are kept as they are (RAW, shuffled).  Strings and mixed
values are a MessagePack array (PACKED).
"""

from __future__ import annotations

import math
import sys
import zlib
from array import array
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import accumulate, repeat
from operator import add, floordiv, mul, sub, truediv
from typing import Any, Final

import msgspec

from gateway.history.column import BOOL, FLOAT, INT, OBJECT, Column
from gateway.history.frame import Frame, Orders, concatenate
from gateway.reading import INT64_MAX, INT64_MIN, Value

__all__ = ["MAX_COLUMNS", "DamagedChunk", "decode", "decode_shared", "decode_within", "encode", "encode_shared"]

VERSION: Final = 1
ONE: Final = 0
MANY: Final = 1

PLAIN: Final = 0
DELTA: Final = 1
RAW: Final = 2
PACKED: Final = 3
SIGNED: Final = 4

MAX_COLUMNS: Final = 32  # wider shapes are cut: one metric of many is read without unpacking them all
SMALL: Final = 16_384  # sections of up to so many bytes in all are one zlib stream

MILLISECOND: Final = 1_000_000

_WIDTHS: Final = ((1 << 8, 1, "B"), (1 << 16, 2, "H"), (1 << 32, 4, "I"), (1 << 64, 8, "Q"))
_TYPECODES: Final = {1: "B", 2: "H", 4: "I", 8: "Q"}
_SCALES: Final = (1, 10, 100, 1_000, 10_000, 100_000, 1_000_000)


class DamagedChunk(Exception):
    """A body that cannot be read back."""


class Section(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """How one section is kept; ``size`` is that of its bytes in the body."""

    kind: int
    form: int
    size: int = 0
    width: int = 0
    base: int = 0
    step: int = 0
    factor: int = 1
    scale: int = 0


class Header(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """Rows of the chunk, its sections, and of how many devices they are (0: of one, which the body does not name)."""

    rows: int
    sections: list[Section]
    devices: int = 0


_encode = msgspec.msgpack.Encoder().encode
_decode_header = msgspec.msgpack.Decoder(Header).decode
_decode_values = msgspec.msgpack.Decoder(list[float | int | bool | str]).decode

_Packed = tuple[Section, bytes]
Cuts = Sequence[tuple[int, int]]  # rows from the first to before the second: ascending, none over another


def encode(frame: Frame) -> bytes:
    """The body of a frame that is sorted by time and has at least one row."""
    return _seal(len(frame), 0, _pack_frame(frame))


def encode_shared(parts: list[tuple[int, Frame]]) -> bytes:
    """The body of the frames, each sorted by time, of devices with these numbers, which ascend."""
    frame = concatenate([frame for _, frame in parts])
    packed = _pack_frame(frame)
    packed.append(_pack_integers(INT, [device for device, _ in parts]))
    packed.append(_pack_integers(INT, [len(frame) for _, frame in parts]))
    return _seal(len(frame), len(parts), packed)


def _pack_frame(frame: Frame) -> list[_Packed]:
    orders = [frame.orders] if isinstance(frame.orders, int) else frame.orders.tolist()
    packed = [_pack_times(frame.times.tolist()), _pack_integers(INT, _lags(frame)), _pack_integers(INT, orders)]
    packed += map(_pack_column, frame.columns)
    return packed


def _seal(rows: int, devices: int, packed: list[_Packed]) -> bytes:
    if sum(len(data) for _, data in packed) <= SMALL:
        header = _encode(Header(rows, [section for section, _ in packed], devices))
        content = b"".join((len(header).to_bytes(4, "little"), header, *(data for _, data in packed)))
        objects = any(section.form == PACKED for section, _ in packed)
        return bytes((VERSION, ONE)) + _deflate(content, objects)
    sections, bodies = [], []
    for section, data in packed:
        body = _deflate(data, section.form == PACKED) if data else b""
        sections.append(msgspec.structs.replace(section, size=len(body)))
        bodies.append(body)
    header = _encode(Header(rows, sections, devices))
    return b"".join((bytes((VERSION, MANY)), len(header).to_bytes(4, "little"), header, *bodies))


class _Body:
    """A body being read."""

    def __init__(self, body: bytes) -> None:
        if len(body) < 2 or body[0] != VERSION:
            raise DamagedChunk("unknown version")
        self._one = body[1] == ONE
        self._content = zlib.decompress(body[2:]) if self._one else body[2:]
        start = 4 + int.from_bytes(self._content[:4], "little")
        self.header = header = _decode_header(self._content[4:start])
        self._offsets = list(accumulate((section.size for section in header.sections), initial=start))

    def _data(self, index: int) -> bytes:
        data = self._content[self._offsets[index] : self._offsets[index + 1]]
        return data if self._one or not data else zlib.decompress(data)

    def _integers(self, index: int, cuts: Cuts) -> Iterator[Iterable[int]]:
        return _unpack_integers(self.header.sections[index], cuts, self._data(index))

    def _whole(self, index: int, rows: int) -> list[int] | range:
        (numbers,) = self._integers(index, [(0, rows)])
        return numbers if isinstance(numbers, range) else list(numbers)

    def _frames(
        self, stamps: list[array[int]], cuts: Cuts, columns: Iterable[int] | None, received: bool, orders: bool
    ) -> list[Frame]:
        sections = self.header.sections
        if columns is None:
            columns = range(len(sections) - (5 if self.header.devices else 3))
        got = [array("q") for _ in cuts]
        if received:
            lags = (map(mul, lag, repeat(MILLISECOND)) for lag in self._integers(1, cuts))
            got = [array("q", map(add, lag, of)) for lag, of in zip(lags, stamps, strict=True)]
        order: list[Orders] = [0 for _ in cuts]
        if orders:
            constant = sections[2].width == 0 and sections[2].step == 0
            order = [sections[2].base if constant else array("q", numbers) for numbers in self._integers(2, cuts)]
        series = [_unpack_column(sections[index + 3], cuts, self._data(index + 3)) for index in columns]
        return [Frame(*each, [of[at] for of in series]) for at, each in enumerate(zip(stamps, got, order, strict=True))]

    def frame(self, columns: Iterable[int] | None, received: bool, orders: bool) -> Frame:
        every = [(0, self.header.rows)]
        stamps = [array("q", numbers) for numbers in self._integers(0, every)]
        return self._frames(stamps, every, columns, received, orders)[0]

    def within(self, spans: Iterable[tuple[int, int]], columns: Iterable[int], orders: bool) -> list[Frame]:
        times = self.header.sections[0]
        base, factor = 0, 1
        if times.form == DELTA and times.width and not times.step:
            # What is passed over is added up as it is kept: to make times of it costs as much again.
            base, factor = times.base, times.factor
            kept = _from_bytes(self._data(0), times.width, _TYPECODES[times.width])
            numbers: list[int] | range = list(accumulate(kept, initial=0))
        else:
            numbers = self._whole(0, self.header.rows)
        bounds = [[bisect_left(numbers, -((base - time) // factor)) for time in span] for span in spans]
        cuts = [(lo, hi) for lo, hi in bounds]
        stamps = [array("q", map(add, map(mul, numbers[lo:hi], repeat(factor)), repeat(base))) for lo, hi in cuts]
        return self._frames(stamps, cuts, columns, False, orders)

    def directory(self) -> tuple[list[int], list[int]]:
        count, last = self.header.devices, len(self.header.sections) - 1
        starts = accumulate(self._whole(last, count), initial=0)
        return list(self._whole(last - 1, count)), list(starts)


@contextmanager
def _reading() -> Iterator[None]:
    try:
        yield
    except (zlib.error, msgspec.MsgspecError, ValueError, OverflowError, IndexError) as error:
        raise DamagedChunk(str(error)) from error


def decode(body: bytes, columns: Iterable[int] | None = None, *, received: bool = False, orders: bool = False) -> Frame:
    """The frame of a body; only the columns with these indices, in this order (None: all).

    Without ``received`` that array is empty, without ``orders`` the orders are 0.  Raises :class:`DamagedChunk`.
    """
    with _reading():
        return _Body(body).frame(columns, received, orders)


def decode_within(
    body: bytes, spans: Iterable[tuple[int, int]], columns: Iterable[int], *, orders: bool = False
) -> list[Frame]:
    """The rows of each of these spans of time, from a start to before an end: ascending, none over another.

    As :func:`decode` without ``received``; what lies between is passed over for a fraction of its price.
    """
    with _reading():
        return _Body(body).within(spans, columns, orders)


def decode_shared(
    body: bytes, columns: Iterable[int] | None = None, *, received: bool = False
) -> tuple[Frame, list[int], list[int]]:
    """All rows of a shared body, with their orders; the devices; each one's first row, and the number of rows.

    Raises :class:`DamagedChunk`.
    """
    with _reading():
        whole = _Body(body)
        return whole.frame(columns, received, True), *whole.directory()


def _deflate(data: bytes, objects: bool) -> bytes:
    # Shuffled numbers have runs, not phrases: Z_RLE is faster than the search for matches, and smaller.
    if objects:
        deflate = zlib.compressobj(1, zlib.DEFLATED, 15, 8)
    else:
        deflate = zlib.compressobj(1, zlib.DEFLATED, 12, 6, zlib.Z_RLE)
    return deflate.compress(data) + deflate.flush()


def _shuffle(data: bytes, width: int) -> bytes:
    return data if width == 1 else b"".join([data[i::width] for i in range(width)])


def _unshuffle(data: bytes, width: int) -> bytes:
    if width == 1:
        return data
    rows = len(data) // width
    whole = bytearray(rows * width)
    for i in range(width):
        whole[i::width] = data[i * rows : (i + 1) * rows]
    return bytes(whole)


def _to_bytes(numbers: array[int] | array[float]) -> bytes:
    if sys.byteorder == "big":
        numbers = numbers[:]
        numbers.byteswap()
    return _shuffle(numbers.tobytes(), numbers.itemsize)


def _from_bytes(data: bytes, width: int, typecode: str) -> array[int]:
    numbers = array(typecode)
    numbers.frombytes(_unshuffle(data, width))
    if sys.byteorder == "big":
        numbers.byteswap()
    return numbers


def _unsigned(numbers: Iterable[int], span: int) -> tuple[int, bytes]:
    """Width and shuffled bytes of numbers from 0 to ``span``."""
    for bound, width, typecode in _WIDTHS:
        if span < bound:
            return width, _to_bytes(array(typecode, numbers))
    raise OverflowError(f"span of {span} in 64 bits")


def _factor(numbers: list[int]) -> int:
    """What all of these, not all of them 0, divide by; the sample is there because mostly it is 1."""
    return 1 if math.gcd(*numbers[:16]) == 1 else math.gcd(*numbers)


def _lags(frame: Frame) -> list[int]:
    if frame.received == frame.times:
        return [0]
    return list(map(floordiv, map(sub, frame.received.tolist(), frame.times.tolist()), repeat(MILLISECOND)))


def _pack_times(times: list[int]) -> tuple[Section, bytes]:
    deltas = list(map(sub, times[1:], times))
    if not deltas:
        return Section(INT, PLAIN, base=times[0]), b""
    low, high = min(deltas), max(deltas)
    if low == high:
        return Section(INT, DELTA, base=times[0], step=low), b""
    # From one device of a shared body to the next, time goes back.
    step = min(low, 0)
    if step:
        deltas = list(map(sub, deltas, repeat(step)))
    factor = _factor(deltas)
    if factor > 1:
        deltas = list(map(floordiv, deltas, repeat(factor)))
    width, data = _unsigned(deltas, (high - step) // factor)
    return Section(INT, DELTA, len(data), width, times[0], step, factor), data


def _pack_integers(kind: int, numbers: list[int], scale: int = 0) -> tuple[Section, bytes]:
    low, high = min(numbers), max(numbers)
    if low < INT64_MIN or high > INT64_MAX:
        raise OverflowError("integers beyond 64 bits")
    if low == high:
        return Section(kind, PLAIN, base=low, scale=scale), b""
    # Differences, where a sample says that they are much smaller than the numbers.
    sample = numbers[:48]
    jumps = list(map(sub, sample[1:], sample))
    if len(jumps) > 8 and (high - low) >= 32 and 4 * (max(jumps) - min(jumps)) < high - low:
        deltas = list(map(sub, numbers[1:], numbers))
        least, most = min(deltas), max(deltas)
        if most - least < (high - low) // 2:
            if least >= -128 and most <= 127 and most > least:
                data = array("b", deltas).tobytes()
                return Section(kind, SIGNED, len(data), 1, numbers[0], scale=scale), data
            width, data = _unsigned(map(sub, deltas, repeat(least)), most - least) if most > least else (0, b"")
            return Section(kind, DELTA, len(data), width, numbers[0], least, scale=scale), data
    width, data = _unsigned(numbers if low == 0 else map(sub, numbers, repeat(low)), high - low)
    return Section(kind, PLAIN, len(data), width, low, scale=scale), data


def _unpack_integers(section: Section, cuts: Cuts, data: bytes) -> Iterator[Iterable[int]]:
    base, step, factor = section.base, section.step, section.factor
    if section.form not in (PLAIN, DELTA, SIGNED):
        raise DamagedChunk("not integers")
    if section.width == 0:
        for lo, hi in cuts:
            yield range(base + lo * step, base + hi * step, step) if step else repeat(base, hi - lo)
        return
    kept = _from_bytes(data, section.width, "b" if section.form == SIGNED else _TYPECODES[section.width])
    if section.form == PLAIN:
        for lo, hi in cuts:
            yield kept[lo:hi] if base == 0 else list(map(add, kept[lo:hi], repeat(base)))
        return
    at = 0  # the row that is base
    for lo, hi in cuts:
        base += step * (lo - at) + factor * sum(kept[at:lo])
        at = lo
        deltas: Iterable[int] = kept[lo : max(lo, hi - 1)]
        if factor != 1:
            deltas = map(mul, deltas, repeat(factor))
        if step:
            deltas = map(add, deltas, repeat(step))
        # Into an array, a list goes faster than any other iterable.
        yield list(accumulate(deltas, initial=base)) if lo < hi else ()


def _exact(data: array[float], scale: int) -> list[int] | None:
    """The numbers times ``scale`` as integers, if dividing them gives back every bit."""
    try:
        integers = list(map(float.__round__, map(mul, data, repeat(float(scale)))))
    except (OverflowError, ValueError):
        return None
    # Bytes, since -0.0 equals 0.0.
    return integers if array("d", map(truediv, integers, repeat(scale))).tobytes() == data.tobytes() else None


def _pack_column(column: Column) -> tuple[Section, bytes]:
    data: Any = column.data
    if column.kind == OBJECT:
        packed = _encode(data)
        return Section(OBJECT, PACKED, len(packed)), packed
    if column.kind != FLOAT or column.scale:
        return _pack_integers(column.kind, data.tolist(), column.scale)
    # A scale that suits the sample and then not the whole gets one more try.
    sample = data[:: -(-len(data) // 12)]
    tries = 0
    for scale in _SCALES:
        if _exact(sample, scale) is None:
            continue
        integers = _exact(data, scale)
        if integers is not None:
            try:
                return _pack_integers(FLOAT, integers, scale)
            except OverflowError:
                break
        tries += 1
        if tries == 2:
            break
    raw = _to_bytes(data)
    return Section(FLOAT, RAW, len(raw), 8), raw


def _unpack_column(section: Section, cuts: Cuts, data: bytes) -> list[Column]:
    if section.form == PACKED:
        unpacked: list[Value] = _decode_values(data)
        return [Column(OBJECT, unpacked[lo:hi]) for lo, hi in cuts]
    if section.form == RAW:
        floats = _from_bytes(data, 8, "d")
        return [Column(FLOAT, floats[lo:hi]) for lo, hi in cuts]
    typecode = "B" if section.kind == BOOL else "q"
    parts = _unpack_integers(section, cuts, data)
    return [Column(section.kind, array(typecode, numbers), section.scale) for numbers in parts]
