"""What a dashboard asked for, and which devices and metrics that covers.  Pure."""

from __future__ import annotations

from collections.abc import Callable, Collection

import msgspec

from ..globs import any_of, is_pattern
from ..reading import Value

__all__ = ["MSGPACK", "Names", "Selection", "Subscription"]

MSGPACK = "gateway.v1.msgpack"  # the format that holds integers of 64 bits as they are

ALL = ("*",)
PRESENCE_ONLY = ("none",)  # the list of metrics that subscribes to presence alone
NO, YES = 1, 2
DEVICES, METRICS = 1 << 16, 1 << 12  # names whose answers are remembered
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


class Numbers(dict[str, int]):
    """A number for each name, from 0 on; names beyond the first ``most`` all get that number, and are not kept."""

    def __init__(self, most: int) -> None:
        super().__init__()
        self.most = most

    def __missing__(self, name: str) -> int:
        number = len(self)
        if number < self.most:
            self[name] = number
        return number


class Names:
    """Numbers of devices and metrics, for all selections together, so that each remembers its answers in a byte a
    name.  Bound: :data:`DEVICES` and :data:`METRICS`, 64 KiB and 4 KiB of a selection; others are matched each time.
    """

    def __init__(self) -> None:
        self.devices = Numbers(DEVICES)
        self.metrics = Numbers(METRICS)


class Selection:
    """Which series a subscription covers; remembers its answers (bound: see :class:`Names`)."""

    def __init__(self, subscription: Subscription, names: Names | None = None) -> None:
        devices, metrics = subscription.devices or ALL, subscription.metrics or ALL
        names = names or Names()
        self.exact = subscription.format == MSGPACK  # large integers are shown as they are
        self.no_metrics = metrics == PRESENCE_ONLY
        asked, allowed = any_of(devices), any_of(subscription.allowed)
        self._device = asked if "*" in subscription.allowed else lambda name: allowed(name) and asked(name)
        self._metric = any_of(() if self.no_metrics else metrics)
        self._device_numbers, self._metric_numbers = names.devices, names.metrics
        self._devices, self._metrics = bytearray(), bytearray()  # by number: not asked yet, no, or yes
        self._price = PATTERN_PRICE * (1 + sum(map(is_pattern, (*devices, *subscription.allowed))))
        self.all_devices = "*" in devices and "*" in subscription.allowed
        self.all_metrics = "*" in metrics

    def device(self, name: str) -> bool:
        """Whether the device is covered."""
        if self.all_devices:
            return True
        number = self._device_numbers[name]
        if number < len(self._devices) and (answer := self._devices[number]):
            return answer == YES
        return _asked(self._device, name, number, self._devices, self._device_numbers)

    def price(self, name: str) -> int:
        """What :meth:`device` costs for this name, in the time that a byte of a frame takes (about 20 ns)."""
        if self.all_devices:
            return 2
        number = self._device_numbers.get(name, DEVICES)
        return 2 if number < len(self._devices) and self._devices[number] else self._price

    def metric(self, name: str) -> bool:
        """Whether the metric is covered."""
        if self.all_metrics:
            return True
        number = self._metric_numbers[name]
        if number < len(self._metrics) and (answer := self._metrics[number]):
            return answer == YES
        return _asked(self._metric, name, number, self._metrics, self._metric_numbers)

    def metrics(self, values: dict[str, Value]) -> Collection[str]:
        """The covered ones of a reading's metrics."""
        return values if self.all_metrics else [name for name in values if self.metric(name)]


def _asked(ask: Callable[[str], bool], name: str, number: int, known: bytearray, numbers: Numbers) -> bool:
    answer = ask(name)
    if number < numbers.most:
        known.extend(bytes(max(0, len(numbers) - len(known))))
        known[number] = YES if answer else NO
    return answer
