"""CBOR (RFC 8949) in binary frames, the model of :mod:`gateway.codecs.model`, by cbor2.

Of the tags (3.4) only those that a telemetry value can be are taken: decimal fractions (4), which become floats, and,
around the whole, the one that says nothing (55799).  What cbor2 would make of all others (dates, regular expressions,
references, rationals) is no value, and some of it costs out of proportion to its bytes: refused as they are met.
"""

from __future__ import annotations

import io

import cbor2

from ..errors import Refusal
from .depth import MAX_DEPTH, too_deep
from .model import Part, parts

__all__ = ["BINARY", "CborCodec", "decode", "encode"]

# Every tag that cbor2 6 decodes itself, but 4; it hands others to a hook.
_TAGS = (0, 1, 2, 3, 5, 25, 28, 29, 30, 35, 36, 37, 52, 54, 100, 256, 258, 260, 261, 1004, 43000, 55799)
_DEEPEST = MAX_DEPTH + 1  # one more than is taken, so that it is refused by name


# cbor2 gives a tag's decoder the item inside it (a tag that it does not know: the tag), and whether it may change.


def _refuse(item: object, immutable: bool) -> object:
    raise ValueError("a tagged item is not a value here")


def _fraction(item: object, immutable: bool) -> float:
    """A decimal fraction (3.4.4): infinite, which is no value, where it is beyond a float."""
    match item:
        case [int(exponent), int(mantissa)]:
            return float(f"{mantissa}e{exponent}")
    raise ValueError("a decimal fraction is two integers")


_decoders = dict.fromkeys(_TAGS, _refuse) | {4: _fraction}
_SELF_DESCRIBED = b"\xd9\xd9\xf7"  # tag 55799 (3.4.6) says nothing of the item


def decode(data: bytes, *, text_keys: bool = True) -> object:
    """The one item of ``data``: dict, list, str, bytes, int, float, bool, None, or what no reading can hold.

    ``text_keys``: keys are text (or octets) alone, whose hashes nobody can make collide.  Raises :class:`Refusal`:
    ``undecodable`` for what is not CBOR, ``too_deep``.
    """
    data = data.removeprefix(_SELF_DESCRIBED)
    stream = io.BytesIO(data)
    try:
        item: object = cbor2.CBORDecoder(
            stream,
            tag_hook=_refuse,
            semantic_decoders=_decoders,
            max_depth=_DEEPEST,
            strict_hashable_types=text_keys,
        ).decode()
    except (cbor2.CBORError, ValueError, OverflowError, TypeError) as error:
        fault: BaseException = error
        while fault.__cause__ is not None:
            fault = fault.__cause__
        if "nesting depth" in str(fault):
            raise too_deep() from None
        raise Refusal("undecodable", f"not CBOR: {fault}") from None
    if stream.tell() != len(data):
        raise Refusal("undecodable", f"not CBOR: {len(data) - stream.tell()} bytes behind its end")
    return item


def encode(reply: dict[str, object]) -> bytes:
    """CBOR of plain data."""
    return cbor2.dumps(reply)


class CborCodec:
    """CBOR in binary frames, CBOR replies."""

    about = "the same in CBOR (RFC 8949), in binary frames, and replies"
    text = False
    reply_text = False

    def decode(self, data: str | bytes) -> list[Part]:
        """Parts of a message; raises as :func:`decode` does."""
        return parts(decode(data if isinstance(data, bytes) else data.encode()))

    def encode(self, reply: dict[str, object]) -> str | bytes:
        """A reply as CBOR."""
        return encode(reply)


BINARY = CborCodec()
