"""A device as a row, for the API and for commands: times in milliseconds since the epoch."""

from __future__ import annotations

from ..devices import Device
from ..hub import presence_of

__all__ = ["device_row"]


def device_row(device: Device) -> dict[str, object]:
    """What ``/api/v1/devices`` says of a device."""
    row: dict[str, object] = {"device": device.name, "name": device.display_name, "reason": "", "confirmed": True}
    row.update(presence_of(device))
    row["session"] = device.session.id
    if device.via:
        row["via"] = device.via
    row["ledger"] = device.ledger.as_dict()
    clock = device.clock
    row["clock"] = {"skew_ms": clock.skew_ms, "old": clock.old, "future": clock.future}
    for key in ("metrics", "interval_s"):
        if key in device.described:
            row[key] = device.described[key]
    return row
