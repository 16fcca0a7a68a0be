"""Where telemetry goes on MQTT: a template of a topic's levels (PROTOCOL, section 6).  Pure.

``{prefix}``, ``{device}`` and ``{metric}`` stand for themselves; ``{metric}`` as a level of its own, behind a level
that is written out, so that no metric can speak as presence or as a command: ``{prefix}/{device}/metric/{metric}``.
With ``{metric}`` a message carries one value.  A ``/`` in a metric's name is written ``.`` there.
"""

from __future__ import annotations

import re

__all__ = ["TEMPLATE", "Topics", "problem"]

TEMPLATE = "{prefix}/{device}/telemetry"
KEPT = 16_384  # topics remembered; forgotten all at once beyond
_names = re.compile(r"\{([^{}]*)\}").findall
_TAKEN = {"presence", "command", "status"}  # levels that say what a topic below a device, or the prefix, is


def problem(template: str) -> str:
    """Why this cannot be a template, in words; empty if it can."""
    names = _names(template)
    levels = template.split("/")
    if unknown := [name for name in names if name not in ("prefix", "device", "metric")]:
        return f"{{{unknown[0]}}}: only {{prefix}}, {{device}} and {{metric}} are known"
    if "{" in (bare := re.sub(r"\{[a-z]*\}", "", template)) or "}" in bare:
        return "a brace that stands alone"
    if names.count("device") != 1 or max(map(names.count, names)) > 1:
        return "{device} has to be in it, and each name once at most"
    if any(character in template for character in "+#\0") or template.startswith("$"):
        return "no topic to publish to has +, # or begins with $ (MQTT 5.0, 4.7)"
    if "" in levels:
        return "a level is empty"
    if "metric" in names:
        at = next(index for index, level in enumerate(levels) if "{metric}" in level)
        if levels[at] != "{metric}" or at == 0 or "{" in levels[at - 1]:
            return "{metric} is a level of its own, behind one that is written out, such as {device}/metric/{metric}"
    if _TAKEN & set(levels):
        return f"{', '.join(sorted(_TAKEN & set(levels)))}: topics of that name say something else"
    return ""


class Topics:
    """The topics of one gateway; raises ``ValueError`` with the problem for a template that cannot be one."""

    def __init__(self, prefix: str = "gateway", template: str = TEMPLATE) -> None:
        if fault := problem(template):
            raise ValueError(fault)
        self.prefix = prefix
        self.per_value = "{metric}" in template
        rest = template.replace("{prefix}", prefix).replace("{device}", "").replace("{metric}", "")
        self.longest = len(rest.encode()) + 64 + (128 if self.per_value else 0)  # bytes
        self._template = template.replace("{prefix}", prefix.replace("{", "{{").replace("}", "}}"))
        self._known: dict[str | tuple[str, str], str] = {}

    def device(self, device: str) -> str:
        """Where a device's readings go."""
        return self._known.get(device) or self._make(device, device)

    def value(self, device: str, metric: str) -> str:
        """Where a metric's values go."""
        return self._known.get((device, metric)) or self._make((device, metric), device, metric)

    def _make(self, key: str | tuple[str, str], device: str, metric: str = "") -> str:
        if len(self._known) >= KEPT:
            self._known.clear()
        made = self._known[key] = self._template.format(device=device, metric=metric.replace("/", "."))
        return made
