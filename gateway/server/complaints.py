"""What devices and strangers do wrong, and when devices come and go, told in the log.

A device that misbehaves a thousand times a second writes a few lines with a count: the first events of a kind are said
of each device (or address), then how many more of the same there were, see :class:`~gateway.limit.Repeats`, which holds
the bounds.  An event that is not said costs no more than a look at its count: no words are put together for it.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

from .. import liveness
from ..events import EVENTS
from ..limit import Repeated, Repeats
from ..reading import is_device
from .peer import address_of

if TYPE_CHECKING:
    from ..devices import Device
    from ..ws import Response

__all__ = ["Complaints"]

log = logging.getLogger(__name__)

# What is said of an event behind the device's name, before the reason.
_WORDS = {
    "device_online": " is online",
    "device_stale": " is stale",
    "device_offline": " is offline",
    "device_refused": ": refused",
    "device_undecodable": ": a message cannot be decoded",
    "device_throttled": ": throttled",
    "device_replaced": ": replaced",
    "device_closed": ": disconnected",
    "request_refused": ": a request was refused",
}


class _Kind(NamedTuple):
    """What is counted by itself: lines and their count are of one level."""

    event: str
    level: int


_LEVELS = logging.getLevelNamesMapping()
_KINDS = {event: _Kind(event, _LEVELS[EVENTS[event].level.upper()]) for event in _WORDS}
_REFUSED, _MISSED = "request_refused", "request_missed"
_KINDS[_MISSED] = _Kind(_REFUSED, logging.INFO)  # asked for what there is not, or in a way that there is not
_STATES = {
    liveness.ONLINE: "device_online",
    liveness.STALE: "device_stale",
    liveness.OFFLINE: "device_offline",
}
DEVICES = "/v1/devices/"
LOCAL = "a local program"
_WARNED = (401, 403, 429)  # somebody who may not, or wants too much; all else is no warning


class Complaints:
    """All of them; ``settle`` is to be called once a second."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._repeats = Repeats(clock=clock)

    def note(self, event: str, device: str, reason: str, code: int | str | None = None, count: int = 1) -> None:
        """An event of a device, ``count`` times; ``code`` is that of the error or the close."""
        if self._repeats.note(event, device, reason, count):
            extra = {"event": event, "device": device, "reason": reason, "code": code}
            log.log(_KINDS[event].level, "%s", _line(event, device, reason), extra=extra)

    def presence(self, device: Device) -> None:
        """The device's state has changed."""
        status = device.status
        if status is not None:
            self.note(_STATES[status.state], device.name, status.reason)

    def refused(self, remote: object, path: str, response: Response) -> None:
        """A request was refused before any connection."""
        host = address_of(remote) or LOCAL
        reason = response.reason or str(response.status)
        kind = _REFUSED if response.status in _WARNED else _MISSED
        if self._repeats.note(kind, host, reason):
            text = bytes(response.body).decode("utf-8", "replace").strip()
            asked = path[:128] or "something that cannot be read"
            device = path.removeprefix(DEVICES)
            extra = {"event": _REFUSED, "remote": host, "reason": reason, "code": response.status}
            if device != path and is_device(device):
                extra["device"] = device
            words = "%s asked for %s: refused with %d: %s"
            log.log(_KINDS[kind].level, words, host, asked, response.status, text, extra=extra)

    def stranger(self, remote: object, reason: str, words: str) -> None:
        """Whoever is connected was not let in: its first message did not say who it is."""
        host = address_of(remote) or LOCAL
        if self._repeats.note(_REFUSED, host, reason):
            extra = {"event": _REFUSED, "remote": host, "reason": reason}
            log.warning("%s was not let in: %s", host, words, extra=extra)

    def settle(self, *, early: bool = False) -> None:
        """Say how many were not said, when it is time to, or now if ``early``."""
        for repeated in self._repeats.due(early=early):
            self._say(repeated)

    def _say(self, repeated: Repeated) -> None:
        (event, level), who, count = _KINDS[repeated.kind], repeated.who, repeated.count
        extra: dict[str, object] = {"event": event, "count": count, "reason": repeated.words}
        if who:
            extra["remote" if event == _REFUSED else "device"] = who
        if who:
            line = _line(event, who, repeated.words)
            more = f" … and {count - 1:,} more of the same in {repeated.seconds:.0f} s" if count > 1 else ""
        else:
            line = f"{event.replace('_', ' ')}: {count:,} more in {repeated.seconds:.0f} s, of others"
            more = f", the last: {repeated.words}" if repeated.words else ""
        log.log(level, "%s%s", line, more, extra=extra)


def _line(event: str, who: str, reason: str) -> str:
    words = f"{who}{_WORDS[event]}"
    return f"{words}: {reason}" if reason else words
