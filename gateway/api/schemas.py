"""JSON Schemas of structs and types, as the documents' components.  Pure.

Of msgspec's schemas (JSON Schema 2020-12); what has a title becomes a component of that name, wherever it stands.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

import msgspec

__all__ = ["Schemas", "as_draft_7"]

REF = "#/components/schemas/{name}"
Schema = dict[str, Any]


class Schemas:
    """Of these types, by the names that they have in a document: a struct's, or a type's title."""

    def __init__(self, types: Iterable[Any]) -> None:
        self.components: dict[str, Any] = {}
        roots, found = msgspec.json.schema_components(types, ref_template=REF)
        for schema in found.values():
            self._hoist(schema)
        for schema in roots:
            if "$ref" not in schema:
                self._hoist(schema)
        self.components = dict(sorted(self.components.items()))

    def ref(self, name: str) -> Schema:
        """A reference to one; raises ``KeyError`` where there is none."""
        if name not in self.components:
            raise KeyError(name)
        return {"$ref": REF.format(name=name)}

    def text(self, name: str) -> str:
        """What is said of it."""
        return str(self.components[name].get("description", ""))

    def _hoist(self, schema: Schema) -> Schema:
        """Make a component of a schema with a title; a reference to it."""
        name = schema["title"]
        if "default" in schema:  # of the field, not of its type
            rest = {key: value for key, value in schema.items() if key != "default"}
            return {"allOf": [self._hoist(rest)], "default": _plain(schema["default"])}
        made = {key: self._within(key, value) for key, value in schema.items() if key != "title"}
        if self.components.setdefault(name, made) != made:
            raise ValueError(f"two schemas are called {name}")
        return {"$ref": REF.format(name=name)}

    def _within(self, key: str, value: Any) -> Any:
        if key in ("default", "examples", "enum", "const"):
            return _plain(value)
        if key == "description":
            return _markdown(value)
        if isinstance(value, dict):
            if key == "properties":
                return {name: self._within("", inner) for name, inner in value.items()}
            if key == "propertyNames":
                value = {**value, "type": "string"}
            if "title" in value:
                return self._hoist(value)
            return {inner: self._within(inner, given) for inner, given in value.items()}
        if isinstance(value, list):
            return [self._within("", item) for item in value]
        return value


def _plain(value: Any) -> Any:
    return msgspec.json.decode(msgspec.json.encode(value))


def _markdown(text: str) -> str:
    """A docstring in one paragraph."""
    return re.sub(r"\s+", " ", text.replace("``", "`")).strip()


def as_draft_7(schema: Any) -> Any:
    """A schema in the words of draft 7, which AsyncAPI's are in: tuples are told in another way there."""
    if isinstance(schema, list):
        return [as_draft_7(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    made = {key: as_draft_7(value) for key, value in schema.items()}
    if "prefixItems" in made:
        made["additionalItems"] = made.pop("items", True)
        made["items"] = made.pop("prefixItems")
    return made
