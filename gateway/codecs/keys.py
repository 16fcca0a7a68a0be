"""What maps may have as keys in binary formats: nothing that anybody can make many of with one hash.

Python hashes text and octets with a key of the process' own; an array, which decoders turn into a tuple, has a hash
that anybody can work out, and a map of thousands with one hash takes time that grows with their square.  So before a
decoder that would build such a map gets a message that is large enough to matter, its keys are looked at.
"""

from __future__ import annotations

import msgpack  # type: ignore[import-untyped]

from ..errors import Refusal

__all__ = ["check_cbor_keys", "check_msgpack_keys"]

OCTETS, TEXT, ARRAY, MAP, TAG = 2, 3, 4, 5, 6  # major types
INDEFINITE, BREAK = 31, 0xFF
DEEPEST = 1_000
SMALL = 4_096  # bytes; what fits in has a few hundred keys at the most


def check_msgpack_keys(data: bytes) -> None:
    """Raises :class:`Refusal` (``undecodable``) for a large message with other keys than text and octets.

    What is no MessagePack for another reason is for the decoder to say.
    """
    if len(data) <= SMALL:
        return
    try:
        msgpack.unpackb(data, strict_map_key=True, raw=True, timestamp=0)
    except ValueError as error:
        if "map key" in str(error):
            raise Refusal("undecodable", f"a key of a map that is no text: {error}") from None
    except (msgpack.exceptions.UnpackException, RecursionError, OverflowError):
        pass


def check_cbor_keys(data: bytes) -> None:
    """Raises :class:`Refusal` (``undecodable``) for a large message with arrays, maps or tags as keys of a map.

    What is no CBOR for another reason is for the decoder to say.
    """
    if len(data) > SMALL and _has_odd_key(data):
        raise Refusal("undecodable", "a key of a map that is neither text nor a number")


def _has_odd_key(data: bytes) -> bool:
    """One pass over the heads of all items (RFC 8949, 3), without building any."""
    at, end = 0, len(data)
    # Of each container that is open: items to come (-1: until a break), whether it is a map, whether a key comes next.
    open_: list[tuple[int, bool, bool]] = [(1, False, False)]
    while open_ and at < end:
        left, is_map, is_key = open_.pop()
        if left == 0:
            continue
        head = data[at]
        major, info, number = head >> 5, head & 31, head & 31
        at += 1
        if head == BREAK:
            if left != -1:
                return False
            continue
        if 24 <= info <= 27:
            size = 1 << (info - 24)
            number = int.from_bytes(data[at : at + size], "big")
            at += size
        if is_key and major in (ARRAY, MAP, TAG):
            return True
        if major == TAG:  # a part of the item behind it
            open_.append((left, is_map, is_key))
            continue
        open_.append((left - 1 if left > 0 else left, is_map, is_map and not is_key))
        if major in (OCTETS, TEXT):
            if info == INDEFINITE:
                open_.append((-1, False, False))
            else:
                at += number
        elif major in (ARRAY, MAP):
            items = -1 if info == INDEFINITE else number * (2 if major == MAP else 1)
            open_.append((items, major == MAP, major == MAP))
            if len(open_) > DEEPEST:
                return False  # the decoder refuses it for that
    return False
