"""What dashboards are told of the devices' states."""

from __future__ import annotations

from itertools import islice

from ..devices import Device, DeviceBook
from .accumulator import PIECE_BYTES
from .selection import Selection
from .series import text_weight

__all__ = ["PRESENCES", "States", "presence_of", "state_weight"]

PRESENCES = 500  # devices in a frame
STATE_BYTES = 160  # of a device's state, about, beside its name and reason


def presence_of(device: Device) -> dict[str, object]:
    """A device's state for the wire: times in milliseconds."""
    shown: dict[str, object] = {"state": "offline", "since": 0, "last_seen": device.last_seen // 1_000_000}
    status = device.status
    if status is not None:
        shown["state"], shown["since"] = status.state, status.since // 1_000_000
        if status.reason:
            shown["reason"] = status.reason
        if not status.confirmed:
            shown["confirmed"] = False
    return shown


def state_weight(name: str, shown: dict[str, object]) -> int:
    """About how many bytes of JSON a device's state takes."""
    return STATE_BYTES + len(name) + text_weight(str(shown.get("reason", "")))


class States:
    """Which devices changed their state, in the order of their last changes.  Bound: the devices there are."""

    def __init__(self, book: DeviceBook) -> None:
        self._book = book
        self._changed: dict[str, int] = {}  # the number of each device's last change, ascending
        self.changes = 0  # so far
        self._names: list[str] = []

    def names(self) -> list[str]:
        """All devices: one list for all snapshots, which only grows, so that each needs no more than a place in it.

        Where a device is forgotten, another is begun.
        """
        if len(self._names) > len(self._book):
            self._names = []
        if len(self._names) < len(self._book):
            self._names += [device.name for device in islice(self._book, len(self._names), None)]
        return self._names

    def changed(self, device: Device) -> None:
        """A device's state has changed: told at the next tick.  Or it is no longer in the book."""
        name = device.name
        if self._book.get(name) is not device:
            self._changed.pop(name, None)
            self._names = []  # snapshots that are being sent go on with the list that they began with
            return
        self.changes += 1
        self._changed.pop(name, None)
        self._changed[name] = self.changes

    def behind(self, known: int, selection: Selection) -> tuple[dict[str, object], int, int]:
        """The covered states for the next frame to one that was told up to the change ``known``.

        Also up to which change it is told then, and what this cost, in bytes of a frame.
        """
        names: list[str] = []
        for name, change in reversed(self._changed.items()):
            if change <= known:
                break
            names.append(name)
        names.reverse()
        states: dict[str, object] = {}
        spent = len(names)
        for name in names:
            spent += selection.price(name)
            if selection.device(name) and (device := self._book.get(name)) is not None:
                states[name] = shown = presence_of(device)
                spent += state_weight(name, shown)
            if len(states) >= PRESENCES or spent >= PIECE_BYTES:
                return states, self._changed[name], spent
        return states, self.changes, spent
