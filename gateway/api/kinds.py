"""What the tables of messages and topics are made of.  Pure."""

from __future__ import annotations

from typing import Any, NamedTuple

from ..sinks.layouts import JSON

__all__ = ["JSON", "TEXT", "Channel", "Kind", "Operation"]

TEXT = "text/plain"


class Kind(NamedTuple):
    """A kind of message: the name of its schema, and how it is sent."""

    schema: str
    content_type: str = JSON
    headers: bool = False
    more: str = ""  # said of it beside its schema's words


class Channel(NamedTuple):
    """An address and its messages by their names."""

    address: str
    description: str
    messages: dict[str, Kind]
    parameters: dict[str, str] = {}
    more: dict[str, Any] = {}
    servers: tuple[str, ...] = ("broker",)


class Operation(NamedTuple):
    """What the gateway does at a channel, with which messages; ``reply``: with which it answers, or is answered."""

    action: str
    channel: str
    summary: str
    messages: tuple[str, ...] = ()  # none: all of the channel
    reply: tuple[str, ...] = ()
    retain: bool = False
    mqtt: bool = False
    qos: int = 1
