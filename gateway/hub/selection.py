"""What a dashboard asked for, and which devices and metrics that covers.  Pure."""

from __future__ import annotations

from collections.abc import Collection

import msgspec

from ..globs import any_of, is_pattern
from ..reading import Value

__all__ = ["MSGPACK", "Names", "Selection", "Subscription"]

MSGPACK = "gateway.v1.msgpack"  # the format that holds integers of 64 bits as they are

ALL = ("*",)
PRESENCE_ONLY = ("none",)  # the list of metrics that subscribes to presence alone
NO, YES = 1, 2
DEVICES, METRICS = 1 << 16, 1 << 10  # names whose answers are remembered
PATTERN_PRICE = 20  # of one pattern and one name, as `Selection.price` counts


class Subscription(msgspec.Struct, frozen=True):
    """One subscription; equal ones share a group.  ``ticks`` is the interval in units of the grid.

    ``format`` is the subprotocol: :data:`MSGPACK`, or one that browsers read as JSON.  ``allowed`` are globs of the
    devices that its reader may see at all.
    """

    id: str
    devices: tuple[str, ...]
    metrics: tuple[str, ...]
    mode: str
    ticks: int
    format: str
    allowed: tuple[str, ...] = ALL


class Names(dict[str, int]):
    """A number for each device, for all selections together, so that each remembers its answers in a byte a device.

    Bound: :data:`DEVICES`; all beyond it get that number, are not kept, and are matched each time.
    """

    def __missing__(self, name: str) -> int:
        number = len(self)
        if number < DEVICES:
            self[name] = number
        return number


class Selection:
    """Which series a subscription covers; remembers its answers.

    Bound: a byte for each of :data:`DEVICES` devices, :data:`METRICS` names of metrics; others are matched each time.
    """

    def __init__(self, subscription: Subscription, names: Names | None = None) -> None:
        devices, metrics = subscription.devices or ALL, subscription.metrics or ALL
        self.exact = subscription.format == MSGPACK  # large integers are shown as they are
        self.no_metrics = metrics == PRESENCE_ONLY
        asked, allowed = any_of(devices), any_of(subscription.allowed)
        self._device = asked if "*" in subscription.allowed else lambda name: allowed(name) and asked(name)
        self._metric = any_of(() if self.no_metrics else metrics)
        self._names = Names() if names is None else names
        self._devices = bytearray()  # by number: not asked yet, no, or yes
        self._metrics: dict[str, bool] = {}
        self._price = PATTERN_PRICE * (1 + sum(map(is_pattern, (*devices, *subscription.allowed))))
        self.all_devices = "*" in devices and "*" in subscription.allowed
        self.all_metrics = "*" in metrics

    def device(self, name: str) -> bool:
        """Whether the device is covered."""
        if self.all_devices:
            return True
        number, known = self._names[name], self._devices
        if number < len(known) and (answer := known[number]):
            return answer == YES
        covered = self._device(name)
        if number < DEVICES:
            known.extend(bytes(max(0, len(self._names) - len(known))))
            known[number] = YES if covered else NO
        return covered

    def price(self, name: str) -> int:
        """What :meth:`device` costs for this name, in the time that a byte of a frame takes (about 20 ns)."""
        if self.all_devices:
            return 2
        number = self._names.get(name, DEVICES)
        return 2 if number < len(self._devices) and self._devices[number] else self._price

    def metric(self, name: str) -> bool:
        """Whether the metric is covered."""
        if self.all_metrics:
            return True
        known = self._metrics.get(name)
        if known is None:
            known = self._metric(name)
            if len(self._metrics) < METRICS:
                self._metrics[name] = known
        return known

    def metrics(self, values: dict[str, Value]) -> Collection[str]:
        """The covered ones of a reading's metrics."""
        return values if self.all_metrics else [name for name in values if self.metric(name)]
