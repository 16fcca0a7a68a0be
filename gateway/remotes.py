"""The sinks beyond this machine, made from the settings."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .sinks import registry
from .sinks.layouts.influx import never

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from .config import Settings
    from .sinks.base import Sink
    from .sinks.layouts.influx import Integer

__all__ = ["influx", "mqtt"]


def mqtt(
    settings: Settings,
    *,
    integer: Integer = never,
    guest: bool = False,
    inbound: Mapping[str, Callable[[str, bytes], None]] | None = None,
) -> Sink | None:
    """The broker, if there is one; see :func:`~gateway.sinks.registry.mqtt_sink` for what is raised.

    ``guest``: beside the gateway itself, under a client id of its own, and silent about the gateway's state.
    ``inbound`` is what to subscribe to, and who is called with topic and payload.
    """
    if not settings.mqtt.url:
        return None
    return registry.mqtt_sink(
        url=settings.mqtt.url,
        gateway=settings.id,
        prefix=settings.mqtt.prefix,
        topic=settings.mqtt.topic,
        qos=settings.mqtt.qos,
        layout=settings.mqtt.layout,
        username=settings.mqtt.username,
        password=settings.mqtt.password.get_secret_value(),
        ca=settings.mqtt.ca,
        measurement=settings.influx.measurement,
        integer=integer,
        guest=guest,
        inbound=inbound,
    )


def influx(settings: Settings, *, integer: Integer = never) -> Sink | None:
    """The time-series store, if there is one; see :func:`~gateway.sinks.registry.influx_sink` for what is raised."""
    if not settings.influx.url:
        return None
    return registry.influx_sink(
        url=settings.influx.url,
        token=settings.influx.token.get_secret_value(),
        org=settings.influx.org,
        bucket=settings.influx.bucket,
        measurement=settings.influx.measurement,
        integer=integer,
    )
