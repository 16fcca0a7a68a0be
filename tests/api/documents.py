"""What the tests of the API's description share: the documents, and schemas that let nothing pass undescribed."""

from __future__ import annotations

import json
import re
from functools import cache
from pathlib import Path
from typing import Any

import jsonschema
from referencing import Registry, Resource
from referencing.jsonschema import DRAFT7, DRAFT202012

from gateway.api import asyncapi, openapi

METASCHEMA = Path(__file__).parents[1] / "vendor" / "asyncapi" / "asyncapi-3.0.0.json"
BASE = "urn:document"


@cache
def asyncapi_document() -> dict[str, Any]:
    """The AsyncAPI document; not to be changed."""
    return asyncapi.document()


@cache
def openapi_document() -> dict[str, Any]:
    """The OpenAPI document; not to be changed."""
    return openapi.document()


@cache
def metaschema() -> jsonschema.Draft7Validator:
    """AsyncAPI's own schema of documents."""
    return jsonschema.Draft7Validator(json.loads(METASCHEMA.read_text(encoding="utf-8")))


def closed(schema: Any) -> Any:
    """A schema whose objects have the fields that it names, and no other: readers must take others, the gateway sends
    none that is not described."""
    if isinstance(schema, list):
        return [closed(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    made = {
        key: {name: closed(inner) for name, inner in value.items()} if key == "properties" else closed(value)
        for key, value in schema.items()
        if key not in ("examples", "default")
    }
    if "properties" in made:
        made.setdefault("additionalProperties", False)
    return made


class Checker:
    """Holds data against a document's components, closed."""

    def __init__(self, document: dict[str, Any], specification: Any, validator: Any) -> None:
        components = {"components": {"schemas": closed(document["components"]["schemas"])}}
        resource = Resource(components, specification)
        self.fields: set[str] = set()
        """Those that were seen, as ``schema.field``."""
        self._schemas = document["components"]["schemas"]
        self._registry = Registry().with_resource(BASE, resource)
        self._validator = validator
        self._validators: dict[str, Any] = {}

    def faults(self, schema: dict[str, Any], data: object) -> list[str]:
        """What is wrong with the data, in words."""
        key = json.dumps(schema, sort_keys=True)
        if key not in self._validators:
            here = _from(closed(schema))
            self._validators[key] = self._validator(here, registry=self._registry)
        self._note(schema, data)
        found = self._validators[key].iter_errors(data)
        return [f"{'/'.join(map(str, error.absolute_path)) or '.'}: {error.message[:300]}" for error in found]

    def described(self) -> set[str]:
        """All fields that there are."""
        return {
            f"{name}.{key}"
            for name, schema in self._schemas.items()
            for key, field in schema.get("properties", {}).items()
            if field is not False
        }

    def _note(self, schema: Any, data: object, name: str = "") -> None:
        """Note the fields of the data."""
        if not isinstance(schema, dict):
            return
        if "$ref" in schema:
            name = schema["$ref"].rpartition("/")[2]
            self._note(self._schemas[name], data, name)
        for inner in (*schema.get("anyOf", ()), *schema.get("allOf", ())):
            self._note(inner, data)
        if isinstance(data, dict):
            properties = schema.get("properties", {})
            self.fields |= {f"{name}.{key}" for key in data.keys() & properties.keys()}
            for key, value in data.items():
                self._note(properties.get(key, schema.get("additionalProperties")), value)
        elif isinstance(data, list):
            for item in data:
                self._note(schema.get("items"), item)


def _from(schema: Any) -> Any:
    """References made absolute."""
    return json.loads(re.sub(r'"#/', f'"{BASE}#/', json.dumps(schema)))


@cache
def messages() -> Checker:
    """For what goes over WebSocket and MQTT."""
    return Checker(asyncapi_document(), DRAFT7, jsonschema.Draft7Validator)


@cache
def answers() -> Checker:
    """For answers over HTTP."""
    return Checker(openapi_document(), DRAFT202012, jsonschema.Draft202012Validator)
