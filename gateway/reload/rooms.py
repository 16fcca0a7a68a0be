"""Settings as the rooms take them, at the start and while they run."""

from __future__ import annotations

import logging
from typing import Any

from ..capacity import max_connections
from ..clock import ClockRules
from ..codecs import Naming
from ..config import Settings
from ..devices import DeviceBook
from ..journal import Journal
from ..pipeline import Pipeline
from ..server.access import Access
from ..server.desk import Desk
from ..server.device import DeviceEndpoint
from ..server.device import Settings as DeviceSettings
from ..server.guard import Guard
from .reloader import Apply

__all__ = ["appliers", "clock_rules", "device_settings"]


def clock_rules(settings: Settings) -> ClockRules:
    """What becomes of times far off."""
    clock = settings.clock
    return ClockRules(clock.old, clock.future, old_after_s=clock.old_after_s, future_after_s=clock.future_after_s)


def device_settings(settings: Settings) -> DeviceSettings:
    """What the endpoint of devices is told."""
    limits = settings.limits
    return DeviceSettings(
        rate=limits.device_rate,
        burst=limits.device_burst,
        policy=limits.policy,
        max_message_bytes=limits.max_message_bytes,
        max_metrics=limits.max_metrics,
        max_series=limits.max_series,
        heartbeat_s=settings.heartbeat.interval_s,
        drops_oldest=settings.journal.on_full == "drop_oldest",
        naming=Naming(settings.subdevices.senml_base_name, settings.subdevices.influx_tag),
    )


def appliers(
    *,
    access: Access,
    book: DeviceBook,
    devices: DeviceEndpoint,
    desk: Desk,
    guard: Guard,
    journal: Journal,
    pipeline: Pipeline,
    server: Any,
) -> dict[str, Apply]:
    """What puts each setting that can be changed while the gateway runs into force.

    ``server`` is the listener.  The files of TLS are read at every reload, before anything else: here is nothing to do.
    """

    def limits(settings: Settings) -> None:
        limits = settings.limits
        book.limit(rate=limits.device_rate, burst=limits.device_burst, max_devices=limits.max_devices)
        devices.configure(device_settings(settings))
        desk.configure(rate=limits.device_rate, burst=limits.device_burst, clock_rules=clock_rules(settings))
        server.max_connections = max_connections(limits.max_connections)[0]
        server.max_per_address = limits.max_per_address
        access.limit(limits.max_per_token)

    def clock(settings: Settings) -> None:
        pipeline.clock_rules = clock_rules(settings)
        limits(settings)

    def bounds(settings: Settings) -> None:
        journal.bound(max_bytes=settings.journal.max_bytes, keep_free_bytes=settings.journal.keep_free_bytes)

    def of(section: str, *names: str, to: Apply) -> dict[str, Apply]:
        return {f"GATEWAY_{section}__{name}": to for name in names}

    return {
        "GATEWAY_ORIGINS": lambda settings: guard.accept(settings.origins),
        **of("TLS", "CERT", "KEY", "CLIENT_CA", to=lambda settings: None),
        **of("LIMITS", "DEVICE_RATE", "DEVICE_BURST", "POLICY", to=limits),
        **of("LIMITS", "MAX_METRICS", "MAX_SERIES", "MAX_DEVICES", "MAX_CONNECTIONS", to=limits),
        **of("LIMITS", "MAX_PER_ADDRESS", "MAX_PER_TOKEN", to=limits),
        **of("CLOCK", "OLD", "FUTURE", "OLD_AFTER_S", "FUTURE_AFTER_S", to=clock),
        **of("JOURNAL", "MAX_BYTES", "KEEP_FREE_BYTES", to=bounds),
        **of("LOG", "LEVEL", to=lambda settings: logging.getLogger().setLevel(settings.log.level.upper())),
    }
