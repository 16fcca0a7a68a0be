"""JSON text (RFC 8259), the model of :mod:`gateway.codecs.model`."""

from __future__ import annotations

import json

import msgspec

from ..errors import Refusal
from .model import Part, parts

__all__ = ["TEXT", "JsonCodec"]

_decode = msgspec.json.Decoder().decode
_encode = msgspec.json.Encoder().encode


class JsonCodec:
    """JSON in text frames, JSON replies."""

    text = True
    reply_text = True

    def decode(self, data: str | bytes) -> list[Part]:
        """Parts of a message; raises :class:`Refusal` with code ``undecodable`` for what is not JSON."""
        try:
            message = _decode(data)
        except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
            # The lenient parser takes what only spoils one value (1e999, NaN, a lone surrogate), so that the one
            # reading is refused by name and the others of its message are kept.
            try:
                message = json.loads(data)
            except (ValueError, RecursionError) as error:
                raise Refusal("undecodable", f"not JSON: {error}") from None
        return parts(message)

    def encode(self, reply: dict[str, object]) -> str:
        """JSON text of a reply."""
        return _encode(reply).decode()


TEXT = JsonCodec()
