"""What a device says it is: the body of ``describe``, checked."""

from __future__ import annotations

from typing import Annotated

import msgspec

from ..reading import check_value, is_metric

__all__ = ["Described", "DescribedMetric", "check_description", "metrics_described", "with_units"]


class DescribedMetric(msgspec.Struct, frozen=True, forbid_unknown_fields=False, omit_defaults=True):
    """What a metric is: its unit, its class in Home Assistant's words, and whether its numbers are integers."""

    unit: Annotated[str, msgspec.Meta(max_length=32)] = ""
    class_: Annotated[str, msgspec.Meta(max_length=64)] = msgspec.field(default="", name="class")
    integer: bool = False


class Described(msgspec.Struct, frozen=True, omit_defaults=True):
    """What a device is: its name for people, how often it reports (seconds), and what its metrics are."""

    name: Annotated[str, msgspec.Meta(max_length=128)] = ""
    interval_s: Annotated[float, msgspec.Meta(gt=0, le=31_536_000)] | None = None
    metrics: Annotated[dict[str, DescribedMetric], msgspec.Meta(max_length=1000)] = {}


def _check_names(described: Described) -> None:
    """Raises ``ValueError`` for a metric whose name is none, and for a text with control characters."""
    for name, about in described.metrics.items():
        if not is_metric(name):
            raise ValueError(f"metrics: {name[:40]!r} is not a metric's name")
        if check_value(about.unit) or check_value(about.class_):
            raise ValueError(f"metrics.{name}: text with control characters")
    if check_value(described.name):
        raise ValueError("name: text with control characters")


def check_description(body: dict[str, object]) -> dict[str, object]:
    """The body with what is known of it alone, ``type`` left out.  Raises ``ValueError`` with the reason in words."""
    try:
        described = msgspec.convert({key: value for key, value in body.items() if key != "type"}, Described)
    except msgspec.ValidationError as error:
        raise ValueError(str(error)) from None
    _check_names(described)
    known: dict[str, object] = msgspec.to_builtins(described)
    return known


def with_units(body: dict[str, object], units: dict[str, str]) -> dict[str, object]:
    """A description with these units of metrics in place of others; raises ``ValueError`` where it cannot be one."""
    known = body.get("metrics")
    metrics: dict[str, dict[str, object]] = known if isinstance(known, dict) else {}
    others = {metric: unit for metric, unit in units.items() if metrics.get(metric, {}).get("unit") != unit}
    if not others:
        return body
    described = {metric: {**metrics.get(metric, {}), "unit": unit} for metric, unit in others.items()}
    return check_description({**body, "metrics": {**metrics, **described}})


def metrics_described(body: dict[str, object]) -> int:
    """How many metrics a description tells of."""
    metrics = body.get("metrics")
    return len(metrics) if isinstance(metrics, dict) else 0
