"""Which sinks there are: the only place that names them.  Each is imported when it is enabled, not before."""

from __future__ import annotations

from typing import TYPE_CHECKING, Unpack

from gateway.sinks.layouts import layout as find_layout
from gateway.sinks.layouts.influx import never
from gateway.topics import TEMPLATE

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from pathlib import Path

    from gateway.reading import Value
    from gateway.sinks.base import Sink
    from gateway.sinks.history import Store
    from gateway.sinks.layouts.influx import Integer
    from gateway.sinks.reach import Reach

__all__ = ["history_sink", "influx_sink", "mqtt_sink", "sparkplug_sink"]


def history_sink(store: Store) -> Sink:
    """The embedded history; somebody else opens and closes ``store``."""
    from gateway.sinks.history import HistorySink

    return HistorySink(store)


def mqtt_sink(
    *,
    gateway: str,
    prefix: str = "gateway",
    topic: str = TEMPLATE,
    expiry_s: int = 0,
    qos: int = 1,
    layout: str = "flat",
    measurement: str = "telemetry",
    integer: Integer = never,
    guest: bool = False,
    inbound: Mapping[str, Callable[[str, bytes], None]] | None = None,
    **broker: Unpack[Reach],
) -> Sink:
    """Readings to an MQTT 5 broker; ``gateway`` is this gateway's id, and the client id made of it its own.

    A ``guest`` has another client id, and says nothing of whether the gateway is there.  ``inbound`` is what to
    subscribe to, and who is called with topic and payload.

    Raises ``ValueError`` for a URL, topic or QoS that is none, ``KeyError`` for a layout that is none, ``OSError``
    for a ``ca`` that cannot be read.
    """
    from gateway.sinks.mqtt import MqttSink

    return MqttSink(
        layout=find_layout(
            layout, gateway=gateway, measurement=measurement, integer=integer, per_value="{metric}" in topic
        ),
        client_id=f"gateway-{gateway}" + ("-guest" if guest else ""),
        tells_status=not guest,
        inbound=inbound,
        prefix=prefix,
        topic=topic,
        expiry_s=expiry_s,
        qos=qos,
        **broker,
    )


def sparkplug_sink(
    *,
    gateway: str,
    group: str,
    node: str,
    session: Path,
    primary_host: str = "",
    aliases: bool = True,
    latest: Callable[[str], Iterable[tuple[str, int, Value]]] = lambda device: (),
    integer: Integer = never,
    **broker: Unpack[Reach],
) -> Sink:
    """The gateway as a Sparkplug B edge node on an MQTT 5 broker; ``gateway`` is this gateway's id.

    ``session`` is a file of the sink's own; ``latest`` gives the newest values of a device, each as metric, time in
    nanoseconds, value.  Without ``aliases`` data has names and data types.  Raises ``ValueError`` for a URL that is
    none, ``OSError`` for a ``ca`` that cannot be read.
    """
    from gateway.sinks.sparkplug import SparkplugSink

    return SparkplugSink(
        client_id=f"gateway-{gateway}-sparkplug",
        group=group,
        node=node,
        session=session,
        primary_host=primary_host,
        aliases=aliases,
        latest=latest,
        integer=integer,
        **broker,
    )


def influx_sink(
    *,
    url: str,
    token: str = "",
    org: str = "",
    bucket: str,
    measurement: str = "telemetry",
    gzip: bool = False,
    timeout_s: float = 10.0,
    integer: Integer = never,
) -> Sink:
    """Readings to InfluxDB 2, or to what takes the same; needs the extra ``influx``: raises ``ImportError``."""
    from gateway.sinks.influx import InfluxSink

    return InfluxSink(
        url=url,
        token=token,
        org=org,
        bucket=bucket,
        measurement=measurement,
        gzip=gzip,
        timeout_s=timeout_s,
        integer=integer,
    )
