"""Bytes to messages and replies to bytes: one module a format, and the one table that names them.

A codec is a module-level object with four members (:class:`Codec`).  Adding a format is a new module and a row below.
"""

from __future__ import annotations

from typing import Protocol

import msgspec

from . import cborcodec, influxline, jsoncodec, msgpackcodec, senml
from .model import Control, Draft, Part

__all__ = ["CODECS", "SUBPROTOCOLS", "Codec", "Control", "Draft", "Naming", "Part", "codec_for", "codecs_by"]


class Codec(Protocol):
    """One wire format of devices.

    ``about`` says in a line what it is, ``text`` which kind of frame carries it, None that either may.  ``decode``
    gives the parts of a message in order, with a :class:`~gateway.errors.Refusal` in place of each reading that cannot
    be taken, and raises one for a message that cannot be decoded at all.  ``encode`` renders a reply; ``reply_text``
    says in which kind of frame.
    """

    @property
    def about(self) -> str: ...

    @property
    def text(self) -> bool | None: ...

    @property
    def reply_text(self) -> bool: ...

    def decode(self, data: str | bytes) -> list[Part]: ...

    def encode(self, reply: dict[str, object]) -> str | bytes: ...


# Subprotocol to codec, in the order in which the gateway prefers them.
CODECS: dict[str, Codec] = {
    "gateway.v1.msgpack": msgpackcodec.BINARY,
    "gateway.v1.cbor": cborcodec.BINARY,
    "gateway.v1.json": jsoncodec.TEXT,
    "gateway.v1.senml-cbor": senml.CBOR,
    "gateway.v1.senml-json": senml.JSON,
    "gateway.v1.influx": influxline.TEXT,
}
SUBPROTOCOLS: tuple[str, ...] = tuple(CODECS)

# Without a subprotocol the frame's kind decides, and replies are JSON text.
_WITHOUT: dict[bool, Codec] = {True: jsoncodec.TEXT, False: msgpackcodec.BINARY_JSON_REPLIES}


class Naming(msgspec.Struct, frozen=True):
    """What names a sub-device, in formats that have no ``device``: by settings."""

    senml_base_name: bool = False
    influx_tag: str = ""


def codecs_by(naming: Naming) -> dict[str, Codec]:
    """The table, with sub-devices named so."""
    return CODECS | {
        "gateway.v1.senml-cbor": senml.SenmlCborCodec(base_names=naming.senml_base_name),
        "gateway.v1.senml-json": senml.SenmlJsonCodec(base_names=naming.senml_base_name),
        "gateway.v1.influx": influxline.InfluxCodec(tag=naming.influx_tag),
    }


def codec_for(subprotocol: str | None, text: bool, codecs: dict[str, Codec] = CODECS) -> Codec | None:
    """The codec for a frame, or None where the subprotocol does not allow this kind of frame (close code 1003)."""
    codec = codecs.get(subprotocol) if subprotocol else _WITHOUT[text]
    return codec if codec is not None and codec.text in (text, None) else None
