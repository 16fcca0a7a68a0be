"""Layouts: readings to messages, one module a layout, one table that names them.  All are pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gateway.sinks.layouts.batch import Batched
from gateway.sinks.layouts.flat import Flat
from gateway.sinks.layouts.influx import Influx, Integer, never
from gateway.sinks.layouts.message import HISTORICAL, Layout, Message

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["HISTORICAL", "LAYOUTS", "Layout", "Message", "layout"]

LAYOUTS: dict[str, Callable[[str, str, Integer], Layout]] = {
    "flat": lambda gateway, measurement, integer: Flat(gateway),
    "batch": lambda gateway, measurement, integer: Batched(),
    "influx": lambda gateway, measurement, integer: Influx(measurement, integer),
}


def layout(name: str, *, gateway: str = "", measurement: str = "telemetry", integer: Integer = never) -> Layout:
    """The layout of that name; raises ``KeyError`` for a name that is not in ``LAYOUTS``."""
    return LAYOUTS[name](gateway, measurement, integer)
