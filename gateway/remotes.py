"""The sinks beyond this machine, made from the settings."""

from __future__ import annotations

from typing import TYPE_CHECKING

from . import __version__
from .homeassistant import Announcer, Maker
from .sinks import registry
from .sinks.layouts.influx import never

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from .config import Settings
    from .devices import DeviceBook
    from .hub import Series
    from .sinks.base import Sink
    from .sinks.layouts.influx import Integer
    from .sinks.reach import Reach

__all__ = ["announcer", "influx", "mqtt", "sparkplug"]


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
        gateway=settings.id,
        prefix=settings.mqtt.prefix,
        topic=settings.mqtt.topic,
        expiry_s=settings.mqtt.expiry_s,
        qos=settings.mqtt.qos,
        layout=settings.mqtt.layout,
        **_broker(settings),
        measurement=settings.influx.measurement,
        integer=integer,
        guest=guest,
        inbound=inbound,
    )


def _broker(settings: Settings) -> Reach:
    return {
        "url": settings.mqtt.url,
        "username": settings.mqtt.username,
        "password": settings.mqtt.password.get_secret_value(),
        "ca": settings.mqtt.ca,
    }


def announcer(settings: Settings, book: DeviceBook, series: Mapping[str, Series]) -> Announcer | None:
    """What tells Home Assistant of the devices in ``book``, if it is to be told; ``series`` are their newest values."""
    if not settings.homeassistant.enabled:
        return None
    maker = Maker(
        gateway=settings.id,
        prefix=settings.homeassistant.prefix,
        mqtt_prefix=settings.mqtt.prefix,
        layout=settings.mqtt.layout,
        topic=settings.mqtt.topic,
        qos=settings.mqtt.qos,
        delay_s=settings.batch.max_delay_ms / 1000,
        version=__version__,
    )
    return Announcer(book, series, maker)


def sparkplug(settings: Settings, series: Mapping[str, Series], *, integer: Integer = never) -> Sink | None:
    """The edge node, if there is to be one; ``series`` are the devices' newest values.

    See :func:`~gateway.sinks.registry.sparkplug_sink` for what is raised.
    """
    if not settings.sparkplug.enabled:
        return None
    return registry.sparkplug_sink(
        gateway=settings.id,
        group=settings.sparkplug.group,
        node=settings.sparkplug.node or settings.id,
        session=settings.state_dir / "sparkplug.json",
        primary_host=settings.sparkplug.primary_host,
        aliases=settings.sparkplug.aliases,
        latest=lambda device: series[device].newest() if device in series else (),
        integer=integer,
        **_broker(settings),
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
