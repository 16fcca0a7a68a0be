"""Layouts: readings to messages, one module a layout, one table that names them.  All are pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gateway.sinks.layouts.batch import Batched
from gateway.sinks.layouts.flat import Flat
from gateway.sinks.layouts.influx import Influx, Integer, never
from gateway.sinks.layouts.message import HISTORICAL, JSON, Layout, Message
from gateway.sinks.layouts.thingsboard import ThingsBoard
from gateway.sinks.layouts.values import Values

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["HISTORICAL", "JSON", "LAYOUTS", "Layout", "Message", "layout"]

LAYOUTS: dict[str, Callable[[str, str, Integer], Layout]] = {
    "flat": lambda gateway, measurement, integer: Flat(gateway),
    "batch": lambda gateway, measurement, integer: Batched(),
    "influx": lambda gateway, measurement, integer: Influx(measurement, integer),
    "thingsboard": lambda gateway, measurement, integer: ThingsBoard(),
}


def layout(
    name: str, *, gateway: str = "", measurement: str = "telemetry", integer: Integer = never, per_value: bool = False
) -> Layout:
    """The layout of that name; raises ``KeyError`` for a name that is not in ``LAYOUTS``.

    ``per_value``: a topic of its own for each metric, which is a form of ``flat``; raises ``ValueError`` for others.
    """
    if per_value:
        if name != "flat":
            raise ValueError(f"{name} has many values in a message, and {{metric}} in the topic names one")
        return Values(gateway)
    return LAYOUTS[name](gateway, measurement, integer)
