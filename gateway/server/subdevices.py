"""Sub-devices: devices without a connection of their own, for which a concentrator's speaks.

A reading (or a ``describe``, ``heartbeat``, ``result``) that names another device in ``device`` is of that one, where
the concentrator's grant covers it.  What is whose:

- the concentrator's: the connection, the session with its one sequence, its acks and go-back, ``missing``, the size of
  messages, and the rate of what is refused before a device is known.
- the sub-device's: ledger, rate, metrics, clock, description, and presence: ``online`` once the connection has heard it
  (a reading, taken or not, or a heartbeat), ``stale`` by its own rhythm, ``offline`` when the connection ends.

A connection that replaces one of the same concentrator goes on with its sub-devices.  A device that has a connection of
its own has the presence of that one; readings are taken from both.  One that several concentrators hear is online while
one of them is, and gets commands by the one that heard it last.

Bound: the devices there may be (``max_devices``): a reading of one more is refused for good (``too_many_devices``).
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from .. import liveness
from ..devices import Device, Relay
from ..errors import Overloaded, Refusal
from ..reading import is_device

if TYPE_CHECKING:
    from ..auth import Grant
    from .connection import Connection
    from .device import DeviceEndpoint

__all__ = ["SubDevices", "SubLink"]

SLICE = 500  # sub-devices that are told to be offline in one step of the loop


class SubLink:
    """A sub-device's :class:`~gateway.devices.Link`: over its concentrator."""

    __slots__ = ("_subs", "device", "via")

    def __init__(self, subs: SubDevices, device: Device) -> None:
        self._subs = subs
        self.device = device
        self.via = subs.name

    def committed(self, seq: int) -> None:
        """Nothing to tell: the sequence is that of a connection of its own, which has ended."""

    @property
    def paused(self) -> bool:
        """Whether nothing is read of the concentrator now."""
        return self._subs.connection.paused

    def can_take(self) -> bool:
        """Whether the concentrator reads what it is sent."""
        return self._subs.connection.can_take()

    def command(self, message: dict[str, object]) -> None:
        """Send the concentrator a command for this device."""
        self._subs.connection.command({**message, "device": self.device.name})

    def replaced(self, contested: bool) -> None:
        """A connection of its own took over; nobody is to be closed for that."""


class SubDevices:
    """Those of one concentrator, while it has a connection; ``grant`` says which it may have, None: any."""

    def __init__(self, endpoint: DeviceEndpoint, connection: Connection, grant: Grant | None) -> None:
        self.connection = connection  # the newest of this concentrator
        self.name = connection.device.name
        self.relay = Relay(connection.device)
        self._endpoint = endpoint
        self._grant = grant
        self._links: dict[str, SubLink] = {}

    def __contains__(self, name: str) -> bool:
        return name in self._links

    def find(self, name: object) -> SubLink:
        """The link of a sub-device that is named; raises :class:`Refusal` (``bad_device``, ``too_many_devices``)."""
        if not isinstance(name, str):
            raise Refusal("bad_device", "device: not a name")
        link = self._links.get(name)
        if link is None or self._endpoint.book.get(name) is not link.device:  # it may have been forgotten meanwhile
            if not is_device(name):
                raise Refusal("bad_device", f"device: {name[:40]!r} is not a device's name")
            if self._grant is not None and not self._grant.may_device(name):
                raise Refusal("bad_device", f"device: this token is not one for {name}")
            try:
                link = self._links[name] = SubLink(self, self._endpoint.book.open(name))
            except Overloaded as full:
                raise Refusal("too_many_devices", f"device: {full}") from None
        return link

    def heard(self, link: SubLink, received: int) -> None:
        """The concentrator speaks for the device now; ``received`` in nanoseconds."""
        device, endpoint = link.device, self._endpoint
        device.last_seen = received
        if device.link is not link and not self._attach(link):
            return
        if device.rhythm.speak(endpoint.monotonic()):
            endpoint.lookout.soon(device)
        if device.status is None or device.status.state != liveness.ONLINE:
            self._online(device, received)

    def _attach(self, link: SubLink) -> bool:
        """Whether the device's presence is this connection's from now on."""
        device, endpoint, held = link.device, self._endpoint, link.device.link
        if self.connection.device.link is not self.connection or (held is not None and not held.via):
            return False  # this one has ended, or the device has its own
        if held is None:
            device.rhythm.begin(endpoint.monotonic())
        elif isinstance(held, SubLink):
            several = endpoint.heard_by.setdefault(device, [held])
            if link in several:
                several.remove(link)
            several.append(link)
        device.link = link
        device.via = self.name
        self._online(device, endpoint.now())
        if endpoint.downlink is not None:
            endpoint.downlink.attend(device)
        return True

    def _online(self, device: Device, now: int) -> None:
        status, changed = liveness.connected(device.status, now)
        if changed:
            self._endpoint.lookout.soon(device)
            self._endpoint.pipeline.presence(device, status)
        device.status = status

    def resumed(self) -> None:
        """The connection is read again: what could not be said of them is no pause of theirs."""
        now = self._endpoint.monotonic()
        for link in self._links.values():
            if link.device.link is link:
                link.device.rhythm.begin(now)

    # -- the end -------------------------------------------------------------------------------------------------

    def pass_on(self, connection: Connection, grant: Grant | None) -> None:
        """Another connection of the concentrator took over, which may have fewer of them."""
        self.connection = connection
        self._grant = grant
        if grant is not None:
            lost = [link for name, link in self._links.items() if not grant.may_device(name)]
            for link in lost:
                del self._links[link.device.name]
            self._step(lost, "replaced by a connection that may not speak for it")

    def end(self, reason: str) -> None:
        """The concentrator's connection ended."""
        links = list(self._links.values())
        self._links.clear()
        self._step(links, reason)

    def _step(self, links: list[SubLink], reason: str) -> None:
        for link in links[:SLICE]:
            self._lost(link, reason)
        if rest := links[SLICE:]:
            asyncio.get_running_loop().call_soon(self._step, rest, reason)

    def _lost(self, link: SubLink, reason: str) -> None:
        device, endpoint = link.device, self._endpoint
        several = endpoint.heard_by.get(device, [])
        if link in several:
            several.remove(link)
            if len(several) == 1:
                del endpoint.heard_by[device]
        if device.link is not link:
            return
        if several:
            device.link = several[-1]
            device.via = several[-1].via
            if endpoint.downlink is not None:
                endpoint.downlink.attend(device)
            return
        device.link = None
        if endpoint.stopping or device.status is None:
            return
        status = liveness.lost(device.status, f"{reason} (concentrator {self.name})", endpoint.now())
        if status is not None:
            endpoint.pipeline.presence(device, status)
