"""Reads what the gateway publishes as Home Assistant does: topics, templates, availability, and what stays as it is."""

from __future__ import annotations

import json
import math
from typing import Any

from jinja2 import StrictUndefined
from jinja2.sandbox import ImmutableSandboxedEnvironment

__all__ = ["Entities", "render"]

# Home Assistant's own environment logs each use of what is undefined; here that is an error.
_environment = ImmutableSandboxedEnvironment(undefined=StrictUndefined)


def render(template: str, payload: str, state: str = "unknown") -> str:
    """What a template makes of a message; ``state`` is the entity's."""
    variables: dict[str, Any] = {"value": payload, "this": {"state": state}}
    try:
        variables["value_json"] = json.loads(payload)
    except ValueError:
        pass
    return _environment.from_string(template).render(variables).strip()


class Entities:
    """What Home Assistant makes of one device's configuration: ``states`` by component."""

    def __init__(self, config: bytes) -> None:
        self.config = json.loads(config)
        self.components = {
            key: component for key, component in self.config["components"].items() if component.keys() != {"platform"}
        }
        self.states = dict.fromkeys(self.components, "unknown")
        self._available: dict[str, bool] = {}

    def hear(self, topic: str, payload: str) -> None:
        """A message, retained or not."""
        for source in self.config["availability"]:
            if source["topic"] == topic:
                word = render(source.get("value_template", "{{ value }}"), payload)
                self._available[topic] = word == source.get("payload_available", "online")
        for key, component in self.components.items():
            if topic == component.get("state_topic", self.config.get("state_topic")):
                self._take(key, component, payload)

    def _take(self, key: str, component: dict[str, Any], payload: str) -> None:
        made = render(component["value_template"], payload, self.states[key] if self.available else "unavailable")
        if component["platform"] == "binary_sensor":
            if made:
                self.states[key] = {component["payload_on"]: "on", component["payload_off"]: "off"}[made]
        elif made == "None":
            self.states[key] = "unknown"
        elif "state_class" in component or "unit_of_measurement" in component:
            if made:
                assert math.isfinite(float(made))
                self.states[key] = made
        else:
            self.states[key] = made

    @property
    def available(self) -> bool:
        """By all that tell of it (availability_mode all)."""
        assert self.config["availability_mode"] == "all"
        return all(self._available.get(source["topic"], False) for source in self.config["availability"])
