"""What a dashboard asked for, and which devices and metrics that covers.  Pure."""

from __future__ import annotations

from collections.abc import Collection

import msgspec

from ..globs import any_of, is_pattern
from ..reading import Value

__all__ = ["MSGPACK", "Selection", "Subscription"]

MSGPACK = "gateway.v1.msgpack"  # the format that holds integers of 64 bits as they are

ALL = ("*",)
PRESENCE_ONLY = ("none",)  # the list of metrics that subscribes to presence alone
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


class Selection:
    """Which series a subscription covers; remembers its answers (bound: the names there are)."""

    def __init__(self, subscription: Subscription) -> None:
        devices, metrics = subscription.devices or ALL, subscription.metrics or ALL
        self.exact = subscription.format == MSGPACK  # large integers are shown as they are
        self.no_metrics = metrics == PRESENCE_ONLY
        asked, allowed = any_of(devices), any_of(subscription.allowed)
        self._device = asked if "*" in subscription.allowed else lambda name: allowed(name) and asked(name)
        self._metric = any_of(() if self.no_metrics else metrics)
        self._devices: dict[str, bool] = {}
        self._metrics: dict[str, bool] = {}
        self._price = PATTERN_PRICE * (1 + sum(map(is_pattern, (*devices, *subscription.allowed))))
        self.all_devices = "*" in devices and "*" in subscription.allowed
        self.all_metrics = "*" in metrics

    def device(self, name: str) -> bool:
        """Whether the device is covered."""
        if self.all_devices:
            return True
        known = self._devices.get(name)
        if known is None:
            known = self._devices[name] = self._device(name)
        return known

    def price(self, name: str) -> int:
        """What :meth:`device` costs for this name, in the time that a byte of a frame takes (about 20 ns)."""
        return 2 if self.all_devices or name in self._devices else self._price

    def metric(self, name: str) -> bool:
        """Whether the metric is covered."""
        if self.all_metrics:
            return True
        known = self._metrics.get(name)
        if known is None:
            known = self._metrics[name] = self._metric(name)
        return known

    def metrics(self, values: dict[str, Value]) -> Collection[str]:
        """The covered ones of a reading's metrics."""
        return values if self.all_metrics else [name for name in values if self.metric(name)]
