"""JSON text (RFC 8259), the model of :mod:`gateway.codecs.model`."""

from __future__ import annotations

import json

import msgspec

from ..errors import Refusal
from .depth import too_deep
from .model import Part, parts

__all__ = ["TEXT", "JsonCodec", "decode"]

_decode = msgspec.json.Decoder().decode
_encode = msgspec.json.Encoder().encode

MAX_DIGITS = 64  # of an integer; one with more is only known to be too large, also for a float that is added to it
_HUGE = 1 << 2_000


def _integer(digits: str) -> int:
    return int(digits) if len(digits) <= MAX_DIGITS else _HUGE


def decode(data: str | bytes) -> object:
    """Plain data of JSON text; raises :class:`Refusal`: ``undecodable`` for what is not JSON, ``too_deep``."""
    try:
        return _decode(data)
    except RecursionError:
        raise too_deep() from None
    except (msgspec.DecodeError, UnicodeDecodeError):
        # The lenient parser takes what only spoils one value (1e999, NaN, a lone surrogate, thousands of digits),
        # so that the one reading is refused by name and the others of its message are kept.
        try:
            found: object = json.loads(data, parse_int=_integer)
        except RecursionError:
            raise too_deep() from None
        except ValueError as error:
            raise Refusal("undecodable", f"not JSON: {error}") from None
        return found


class JsonCodec:
    """JSON in text frames, JSON replies."""

    about = "JSON in text frames, and replies"
    text = True
    reply_text = True

    def decode(self, data: str | bytes) -> list[Part]:
        """Parts of a message; raises as :func:`decode` does, and :class:`Refusal` as ``parts`` does."""
        return parts(decode(data))

    def encode(self, reply: dict[str, object]) -> str:
        """JSON text of a reply."""
        return _encode(reply).decode()


TEXT = JsonCodec()
