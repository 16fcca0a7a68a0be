"""A device as a row, for the API and for commands: times in milliseconds since the epoch."""

from __future__ import annotations

from ..devices import Device
from ..hub import presence_of
from ..past import stretches

__all__ = ["device_row", "presence_rows"]


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


def presence_rows(device: Device, start: int, end: int) -> list[dict[str, object]]:
    """What ``/api/v1/presence`` says of a device between the two (nanoseconds), ascending."""
    return [
        {
            "device": device.name,
            "state": change.state,
            "since": change.since // 1_000_000,
            "until": until // 1_000_000 if until is not None else None,
            "reason": change.reason,
        }
        for change, until in stretches(device.past, start, end)
    ]
