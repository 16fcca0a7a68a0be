"""What the live feed says, as frozen structs; times are milliseconds since the epoch.

Pure.  PROTOCOL section 5.  On the wire there is one flat message with everything but ``type`` optional, since
a gateway may add types and fields; :meth:`LiveMessage.event` gives it its shape.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgspec

from ..reading import Value

__all__ = [
    "CommandState",
    "DeviceView",
    "Event",
    "History",
    "LiveError",
    "LiveMessage",
    "Mode",
    "Presence",
    "Snapshot",
    "Update",
]

Point = tuple[int, Value]
Data = dict[str, dict[str, list[Point]]]


class DeviceView(msgspec.Struct, frozen=True):
    """A device as a snapshot or a presence message has it; what that does not carry is at its default.

    ``values``: the newest of each metric, ``(ms, value)``.  ``confirmed`` is false from the gateway's restart
    until the device is seen.
    """

    state: str = ""
    since: int | None = None
    last_seen: int | None = None
    reason: str = ""
    confirmed: bool = True
    values: dict[str, Point] = {}


class Snapshot(msgspec.Struct, frozen=True):
    """The state at ``offset``; ``recovered``: whether, after a resume, nothing was missed.

    ``more``: it is a part, and the next snapshot has other devices.
    """

    id: str
    offset: int
    recovered: bool
    devices: dict[str, DeviceView]
    more: bool = False


class History(msgspec.Struct, frozen=True):
    """A piece of the past, ascending in time; ``last`` ends it; ``complete``: whether it joins what
    follows.
    """

    id: str
    data: Data
    last: bool
    complete: bool

    def points(self) -> Iterator[tuple[str, str, int, Value]]:
        """Device, metric, time in milliseconds, value."""
        return _points(self.data)


class Update(msgspec.Struct, frozen=True):
    """What came since; ``skipped`` counts values that were passed over for newer ones."""

    id: str
    offset: int
    data: Data
    skipped: int

    def points(self) -> Iterator[tuple[str, str, int, Value]]:
        """Device, metric, time in milliseconds, value."""
        return _points(self.data)


class Presence(msgspec.Struct, frozen=True):
    """Devices whose state changed."""

    id: str
    devices: dict[str, DeviceView]


class Mode(msgspec.Struct, frozen=True):
    """The gateway changed the subscription's mode, since this client was slow."""

    id: str
    mode: str
    reason: str


class LiveError(msgspec.Struct, frozen=True):
    """A request was refused."""

    id: str
    code: str
    detail: str
    ref: str = ""


class CommandState(msgspec.Struct, frozen=True):
    """How a command stands: ``queued``, ``sent``, ``done``, ``failed`` or ``expired``."""

    ref: str
    id: str
    device: str
    state: str
    value: Any = None

    @property
    def final(self) -> bool:
        """Whether nothing more will come of it."""
        return self.state in ("done", "failed", "expired")


Event = Snapshot | History | Update | Presence | Mode | LiveError | CommandState


class LiveMessage(msgspec.Struct, frozen=True):
    """Any message of the live feed."""

    type: str
    id: str = ""
    # hello
    epoch: str = ""
    offset: int = 0
    auth: str = "ok"
    limits: Any = None
    # snapshot, presence
    recovered: bool = False
    devices: dict[str, DeviceView] = {}
    more: bool = False
    # history, update
    data: Data = {}
    last: bool = False
    complete: bool = True
    skipped: int = 0
    # mode, error, command_state
    mode: str = ""
    reason: str = ""
    code: str = ""
    detail: str = ""
    ref: str = ""
    device: str = ""
    state: str = ""
    value: Any = None

    def event(self) -> Event | None:
        """The event it is; ``None`` for hello, heartbeat, and what a newer gateway may add."""
        match self.type:
            case "update":
                return Update(self.id, self.offset, self.data, self.skipped)
            case "snapshot":
                return Snapshot(self.id, self.offset, self.recovered, self.devices, self.more)
            case "history":
                return History(self.id, self.data, self.last, self.complete)
            case "presence":
                return Presence(self.id, self.devices)
            case "mode":
                return Mode(self.id, self.mode, self.reason)
            case "error":
                return LiveError(self.id, self.code, self.detail, self.ref)
            case "command_state":
                return CommandState(self.ref, self.id, self.device, self.state, self.value)
            case _:
                return None


def _points(data: Data) -> Iterator[tuple[str, str, int, Value]]:
    for device, metrics in data.items():
        for metric, points in metrics.items():
            for ms, value in points:
                yield device, metric, ms, value
