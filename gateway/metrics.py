"""Renders every room's ``stats()`` in the Prometheus text format; no room knows it.

Names follow Prometheus' conventions: base units, ``_total`` for what only grows.  No device is ever a label.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from prometheus_client.metrics_core import Metric

__all__ = ["Source", "exposition"]

Stats = Mapping[str, float]
# (room, its labels, its numbers now, names among them that only grow)
Source = tuple[str, Mapping[str, str], Callable[[], Stats], frozenset[str]]


def exposition(sources: list[Source], version: str) -> tuple[bytes, str]:
    """The exposition and its content type."""
    from prometheus_client import CollectorRegistry, generate_latest
    from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4
    from prometheus_client.registry import Collector

    class Rooms(Collector):
        def collect(self) -> Iterator[Metric]:
            return _collect(sources, version)

    registry = CollectorRegistry(auto_describe=False)
    registry.register(Rooms())
    return generate_latest(registry), CONTENT_TYPE_PLAIN_0_0_4


def _collect(sources: list[Source], version: str) -> Iterator[Metric]:
    from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

    build = GaugeMetricFamily("gateway_build_info", "The running version.", labels=("version",))
    build.add_metric((version,), 1)
    yield build
    families: dict[str, CounterMetricFamily | GaugeMetricFamily] = {}
    for room, labels, read, growing in sources:
        for name, value in read().items():
            full = f"gateway_{room}_{name}"
            family = families.get(full)
            if family is None:
                kind = CounterMetricFamily if name in growing else GaugeMetricFamily
                family = families[full] = kind(full, _help(room, name), labels=tuple(labels))
            family.add_metric(tuple(labels.values()), value)
    yield from families.values()


def _help(room: str, name: str) -> str:
    return f"{name.replace('_', ' ').capitalize()} ({room})."
