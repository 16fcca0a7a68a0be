"""The Python client: :class:`DeviceClient` for devices, :class:`LiveClient` for live feeds.

These are for asyncio programs; :mod:`gateway.client.sync` has both for all others.
"""

from .device import DeviceClient, Refused, Stats
from .errors import BufferFull, ClientClosed, ClientError, LimitExceeded, Undelivered
from .events import CommandState, DeviceView, Event, History, LiveError, Mode, Presence, Snapshot, Update
from .live import CommandFailed, LiveClient
from .wire import Command

__all__ = [
    "BufferFull",
    "ClientClosed",
    "ClientError",
    "Command",
    "CommandFailed",
    "CommandState",
    "DeviceClient",
    "DeviceView",
    "Event",
    "History",
    "LimitExceeded",
    "LiveClient",
    "LiveError",
    "Mode",
    "Presence",
    "Refused",
    "Snapshot",
    "Stats",
    "Undelivered",
    "Update",
]
