"""The configuration of one device for Home Assistant (https://www.home-assistant.io/integrations/mqtt/).  Pure.

Published retained under ``{prefix}/device/{id}/config``; one component a metric, which reads the telemetry as the
layout has it: ``flat``, ``batch``, or a topic a value.  An id is the gateway's and the device's name, the key of a
component the metric's; of what names may hold, an id may have letters, digits and ``_ -`` alone, so that
``_`` is written ``__``, ``.`` ``_d``, ``:`` ``_c``, ``/`` ``_s``; ``_-`` stands between gateway and device.

A template says nothing where a message lacks the metric, or has it in another kind, and Home Assistant keeps what it
has; but for texts, where it would take nothing for an empty text: these name the state that it has.

What is told of presence: ``online`` and ``stale`` are both there; and the gateway has to be, since nobody would
otherwise tell that a device is gone.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any

import msgspec

from ..topics import TEMPLATE, Topics
from .meaning import label, of_binary, of_number, of_text, says_binary

__all__ = ["BINARY", "NUMBER", "TEXT", "Facts", "Maker", "identifier"]

NUMBER, BINARY, TEXT = "number", "binary", "text"
SENSOR, BINARY_SENSOR = "sensor", "binary_sensor"

TEXT_MOST = 255  # characters of a state
SILENT = 3.0  # intervals of silence until a value is too old, as with presence
SILENT_LEAST_S = 10.0

_CODES = {"_": "__", ".": "_d", ":": "_c", "/": "_s"}
_special = re.compile(r"[_.:/]").sub
_encode = msgspec.json.Encoder(order="deterministic").encode


class Facts(msgspec.Struct, frozen=True):
    """A device: ``title`` is its name for people, ``interval_s`` how often it says it reports (0: it does not say).

    ``kinds`` has each metric's kind, ``described`` what the device said of metrics (``unit``, ``class``, ``integer``).
    ``gone`` are components that were told in this way before and are no more: key and platform.
    """

    name: str
    title: str
    kinds: Mapping[str, str]
    described: Mapping[str, object] = {}
    interval_s: float = 0.0
    gone: Mapping[str, str] = {}


def identifier(name: str) -> str:
    """A name of a device or metric, in letters, digits, ``_`` and ``-``; another for each."""
    return _special(lambda match: _CODES[match[0]], name)


class Maker:
    """Makes configurations: ``gateway`` is its id, ``version`` the program's; the others are those of the MQTT sink.

    ``delay_s`` is how long a reading may be on its way to the broker.  Raises ``ValueError`` for a layout that cannot
    be read.
    """

    def __init__(
        self,
        *,
        gateway: str,
        prefix: str = "homeassistant",
        mqtt_prefix: str = "gateway",
        layout: str = "flat",
        topic: str = TEMPLATE,
        qos: int = 1,
        delay_s: float = 0.0,
        version: str = "",
    ) -> None:
        if layout not in ("flat", "batch"):
            raise ValueError(f"Home Assistant does not read the layout {layout}")
        self.prefix = prefix
        self._gateway = identifier(gateway)
        self._mqtt_prefix = mqtt_prefix
        self._batch = layout == "batch"
        self._topics = Topics(mqtt_prefix, topic)
        self._qos = qos
        self._delay_s = delay_s
        self._origin = {"name": "Telemetry Gateway", "sw_version": version}

    def topic(self, device: str) -> str:
        """Where a device's configuration is."""
        return f"{self.prefix}/device/{self._id(device)}/config"

    def _id(self, device: str) -> str:
        return f"{self._gateway}_-{identifier(device)}"

    def config(self, facts: Facts) -> bytes:
        """The configuration, JSON; the same for the same facts."""
        name = facts.name
        body: dict[str, Any] = {
            "device": {"identifiers": [self._id(name)], "name": facts.title},
            "origin": self._origin,
            "availability": [
                {"topic": f"{self._mqtt_prefix}/status"},
                {
                    "topic": f"{self._mqtt_prefix}/{name}/presence",
                    "value_template": "{{ 'online' if value in ('online', 'stale') else 'offline' }}",
                },
            ],
            "availability_mode": "all",
            "qos": self._qos,
        }
        if not self._topics.per_value:
            body["state_topic"] = self._topics.device(name)
        components: dict[str, Any] = {key: {"platform": platform} for key, platform in facts.gone.items()}
        for metric in facts.kinds:
            key, component = self._component(facts, metric)
            components[key] = component
        body["components"] = components
        return _encode(body)

    def components(self, facts: Facts) -> dict[str, str]:
        """The key of each component, and its platform."""
        return {_key(metric, platform): platform for metric, platform in _platforms(facts).items()}

    def _component(self, facts: Facts, metric: str) -> tuple[str, dict[str, Any]]:
        described = _described(facts, metric)
        stated = str(described.get("class") or "").strip().lower()
        unit = str(described.get("unit") or "")
        kind, platform = facts.kinds[metric], _platform(facts, metric)
        key = _key(metric, platform)
        made: dict[str, Any] = {
            "platform": platform,
            "unique_id": f"{self._id(facts.name)}_-{key}",
            "name": label(metric),
        }
        if self._topics.per_value:
            made["state_topic"] = self._topics.value(facts.name, metric)
        if platform == BINARY_SENSOR:
            meaning = of_binary(metric, stated)
            made |= {"payload_on": "true", "payload_off": "false"}
            made["value_template"] = self._template(metric, "number", "({} != 0) | lower", "''")
        elif kind == NUMBER:
            meaning = of_number(metric, unit, stated)
            made["value_template"] = self._template(metric, "number", "{}", "''")
            if described.get("integer") is True:
                made["suggested_display_precision"] = 0
        else:
            meaning = of_text(stated)
            made["value_template"] = self._text(metric)
        if meaning.device_class:
            made["device_class"] = meaning.device_class
        if meaning.unit:
            made["unit_of_measurement"] = meaning.unit
        if meaning.state_class:
            made["state_class"] = meaning.state_class
        if facts.interval_s > 0:
            silent = max(SILENT * facts.interval_s, SILENT_LEAST_S)
            made["expire_after"] = math.ceil(silent + self._delay_s)
        return key, made

    def _text(self, metric: str) -> str:
        if self._topics.per_value:
            return f"{{{{ value[:{TEXT_MOST}] }}}}"
        # Where it is not available there is none to be named: unknown, until the text comes.
        kept = "(this.state if this.state not in ('unavailable', 'unknown') else 'None')"
        return self._template(metric, "defined", f"({{}} | string)[:{TEXT_MOST}]", kept)

    def _template(self, metric: str, test: str, shown: str, otherwise: str) -> str:
        """``shown`` where the metric's value is what ``test`` asks.  Names hold nothing that a quoted text minds.

        Booleans are numbers to Jinja.  In a batch, the last reading that has the metric counts.
        """
        if self._topics.per_value:
            value, before = "value_json", ""
        elif self._batch:
            value = "n.v"
            before = (
                "{% set n = namespace() %}{% for r in value_json if '"
                f"{metric}' in r['values'] %}}{{% set n.v = r['values']['{metric}'] %}}{{% endfor %}}"
            )
        else:
            value, before = f"value_json['{metric}']", ""
        return f"{before}{{{{ {shown.format(value)} if {value} is {test} else {otherwise} }}}}"


def _described(facts: Facts, metric: str) -> Mapping[str, object]:
    about = facts.described.get(metric)
    return about if isinstance(about, dict) else {}


def _platform(facts: Facts, metric: str) -> str:
    kind = facts.kinds[metric]
    if kind == BINARY:
        return BINARY_SENSOR
    stated = str(_described(facts, metric).get("class") or "").strip().lower()
    return BINARY_SENSOR if kind == NUMBER and says_binary(stated) else SENSOR


def _platforms(facts: Facts) -> dict[str, str]:
    return {metric: _platform(facts, metric) for metric in facts.kinds}


def _key(metric: str, platform: str) -> str:
    # No two platforms may share a key: what changes from one to the other is told as gone under the key of before.
    return identifier(metric) + ("_b" if platform == BINARY_SENSOR else "")
