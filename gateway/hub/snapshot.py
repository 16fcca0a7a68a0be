"""What a snapshot shows of the devices.  Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ..devices import DeviceBook
from .presence import presence_of, state_weight
from .selection import Selection
from .series import Series, text_weight

__all__ = ["snapshot_of"]


def snapshot_of(
    book: DeviceBook,
    all_series: Mapping[str, Series],
    selection: Selection,
    names: Sequence[str],
    places: range,
    room: int,
) -> tuple[dict[str, object], int, int]:
    """States and newest values of the covered ones among ``names`` at ``places``, of about ``room`` bytes.

    Also the place behind them, and what of ``room`` they took.
    """
    devices: dict[str, object] = {}
    spent, place = 0, places.start
    while place < places.stop and spent < room:
        name = names[place]
        place += 1
        spent += selection.price(name)
        if not selection.device(name) or (device := book.get(name)) is None:
            continue
        shown = devices[name] = presence_of(device)
        values = shown["values"] = _values(all_series.get(name), selection)
        spent += state_weight(name, shown)
        spent += sum([40 + len(key) for key in values])
        spent += sum([text_weight(value) for _, value in values.values() if type(value) is str])
    return devices, place, spent


def _values(series: Series | None, selection: Selection) -> dict[str, list[object]]:
    if series is None or selection.no_metrics:
        return {}
    if selection.all_metrics:
        return dict(series.points(selection.exact))  # type: ignore[arg-type]
    return {name: shown for name, shown in series.points(selection.exact) if selection.metric(name)}  # type: ignore[misc]
