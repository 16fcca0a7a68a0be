"""MessagePack in binary frames, the model of :mod:`gateway.codecs.model`."""

from __future__ import annotations

import msgspec

from ..errors import Refusal
from .depth import too_deep
from .jsoncodec import TEXT
from .keys import check_msgpack_keys
from .model import Part, parts

__all__ = ["BINARY", "BINARY_JSON_REPLIES", "MsgpackCodec"]

_decode = msgspec.msgpack.Decoder().decode
_encode = msgspec.msgpack.Encoder().encode


class MsgpackCodec:
    """MessagePack in binary frames, MessagePack replies."""

    about = "the same in MessagePack, in binary frames, and replies"
    text = False
    reply_text = False

    def decode(self, data: str | bytes) -> list[Part]:
        """Parts of a message; raises :class:`Refusal`: ``undecodable`` for what is not MessagePack, ``too_deep``."""
        check_msgpack_keys(data)  # type: ignore[arg-type]
        try:
            return parts(_decode(data))  # type: ignore[arg-type]
        except RecursionError:
            raise too_deep() from None
        except (msgspec.DecodeError, msgspec.ValidationError, ValueError, TypeError) as error:
            raise Refusal("undecodable", f"not MessagePack: {error}") from None

    def encode(self, reply: dict[str, object]) -> str | bytes:
        """A reply as MessagePack."""
        return _encode(reply)


class MsgpackJsonReplies(MsgpackCodec):
    """MessagePack from a device that named no subprotocol: replies are JSON text."""

    reply_text = True

    def encode(self, reply: dict[str, object]) -> str | bytes:
        """A reply as JSON text."""
        return TEXT.encode(reply)


BINARY = MsgpackCodec()
BINARY_JSON_REPLIES = MsgpackJsonReplies()
