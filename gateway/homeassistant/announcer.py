"""When Home Assistant is told of which device.

:meth:`Announcer.look` is to be called once a second, and looks which devices have another description or other metrics
than were told: so no device is told more than once a second, however it changes.  A metric's kind is looked at where
something else of its device changed, and in turns of :data:`KINDS_AT_ONCE` devices a look: nothing is added to the path
of a reading.  A metric of several kinds is a text from then on, in this process' life, rather than be told anew with
each reading.

Bound: :data:`COMPONENTS_AT_ONCE` components are made in a look; the devices behind them come in the next.  A look has
steps, so that the loop is not held by many devices.  What is told is held by the sink's second door, some 300 bytes a
metric.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from itertools import islice
from typing import TYPE_CHECKING, Protocol

from .payload import BINARY, NUMBER, TEXT, Facts, Maker

if TYPE_CHECKING:
    from ..devices import Device, DeviceBook
    from ..reading import Value

__all__ = ["Announcer"]

KINDS_AT_ONCE = 200
COMPONENTS_AT_ONCE = 2_000
STEP = 2_000  # devices looked at
STEP_COMPONENTS = 200  # or components made, between two steps
BIRTH = b"online"

Key = tuple[str, ...]


class Values(Protocol):
    """A device's newest values (gateway.hub.Series)."""

    def points(self, exact: bool = ...) -> Iterator[tuple[str, list[Value]]]: ...


class Runner(Protocol):
    """The MQTT sink's runner, as far as its second door goes."""

    def set_state(self, key: Key, value: bytes | None) -> None: ...

    def renew(self, kind: str) -> None: ...


class _Told:
    """What a device was like when it was told."""

    __slots__ = ("components", "described", "gone", "kinds", "metrics")

    def __init__(self) -> None:
        self.metrics: set[str] | None = None
        self.described: dict[str, object] | None = None
        self.kinds: dict[str, str] = {}
        self.components: dict[str, str] = {}
        self.gone: dict[str, str] = {}


class Announcer:
    """Tells of the devices in ``book`` by ``runner``, once that is set; ``series`` are their newest values."""

    def __init__(self, book: DeviceBook, series: Mapping[str, Values], maker: Maker) -> None:
        self.runner: Runner | None = None
        self._book = book
        self._series = series
        self._maker = maker
        self._told: dict[str, _Told] = {}
        self._turn = 0
        self._born = False

    @property
    def inbound(self) -> dict[str, Callable[[str, bytes], None]]:
        """What to subscribe to: Home Assistant says when it has started, and forgets what it was told before."""
        return {f"{self._maker.prefix}/status": self._heard}

    def _heard(self, topic: str, payload: bytes) -> None:
        self._born = self._born or payload == BIRTH

    def look(self) -> Iterator[None]:
        """Tell what has changed; others may go on between two steps."""
        runner = self.runner
        if runner is None:
            return
        if self._born:
            self._born = False
            runner.renew("topic")
        turn = self._next_turn()
        room = COMPONENTS_AT_ONCE
        made = 0
        for number, device in enumerate(list(self._book)):
            if number % STEP == STEP - 1 or made >= STEP_COMPONENTS:
                made = 0
                yield
            name = device.name
            told = self._told.get(name)
            if told is None:
                if not device.metrics:
                    continue
            elif device.metrics is told.metrics and device.described is told.described and name not in turn:
                continue
            if self._book.get(name) is not device:
                continue  # forgotten meanwhile
            if told is None:
                told = self._told[name] = _Told()
            if room <= 0:
                continue  # in the next look
            components = self._tell(runner, device, told)
            room -= components
            made += components

    def _next_turn(self) -> set[str]:
        """The devices whose values are looked at now."""
        start, many = self._turn, len(self._book)
        self._turn = start + KINDS_AT_ONCE if start + KINDS_AT_ONCE < many else 0
        return {device.name for device in islice(self._book, start, start + KINDS_AT_ONCE)}

    def _tell(self, runner: Runner, device: Device, told: _Told) -> int:
        """Tell of the device if there is something new; returns how many components were made."""
        changed = self._note_kinds(device, told)
        if not changed and device.metrics is told.metrics and device.described is told.described:
            return 0
        told.metrics, told.described = device.metrics, device.described
        if not told.kinds:
            return 0
        facts = self._facts(device, told)
        components = self._maker.components(facts)
        told.gone |= {key: platform for key, platform in told.components.items() if key not in components}
        for key in components:
            told.gone.pop(key, None)
        told.components = components
        runner.set_state(("topic", self._maker.topic(device.name)), self._maker.config(self._facts(device, told)))
        return len(components)

    def _note_kinds(self, device: Device, told: _Told) -> bool:
        series = self._series.get(device.name)
        if series is None:
            return False
        changed = False
        kinds = told.kinds
        for metric, (_, value) in series.points(True):
            if metric not in device.metrics:
                continue
            kind, before = _kind(value), kinds.get(metric)
            if before is not None and before != kind:
                kind = TEXT
            if before != kind:
                kinds[metric] = kind
                changed = True
        return changed

    def _facts(self, device: Device, told: _Told) -> Facts:
        described = device.described
        metrics, interval = described.get("metrics"), described.get("interval_s")
        return Facts(
            device.name,
            device.display_name,
            told.kinds,
            metrics if isinstance(metrics, dict) else {},
            float(interval) if isinstance(interval, int | float) else 0.0,
            told.gone,
        )

    def forget(self, name: str) -> None:
        """Clear what was told of a device that is no longer in the book."""
        self._told.pop(name, None)
        if self.runner is not None:
            self.runner.set_state(("topic", self._maker.topic(name)), None)


def _kind(value: Value) -> str:
    if type(value) is bool:
        return BINARY
    return TEXT if type(value) is str else NUMBER
