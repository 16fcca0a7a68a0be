"""The documents as such: as they would be written, valid by the specifications' own schemas, whole, and served."""

from __future__ import annotations

import copy
import gzip
from collections.abc import Iterator
from importlib import resources
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from openapi_spec_validator import OpenAPIV31SpecValidator

from gateway import server
from gateway.api import documents, yamltext
from gateway.api.asyncapi import CHANNELS
from gateway.api.examples import EXAMPLES
from gateway.api.sockets import FORMATS
from gateway.codecs import SUBPROTOCOLS
from gateway.server.access import NEEDS
from gateway.server.pages import assets
from tests.api.documents import asyncapi_document, messages, metaschema, openapi_document
from tests.server.visitor import ask, gate

NAMES = ("asyncapi.yaml", "openapi.yaml")


def test_the_files_are_what_would_be_written() -> None:
    """A change of a struct, an address or a need shows in the files, or here."""
    for name, text in documents().items():
        written = resources.files(server).joinpath("static", name).read_text(encoding="utf-8")
        assert written == text, f"{name} is not what `python -m gateway.api` writes"


def test_the_files_say_what_the_documents_say() -> None:
    """YAML is read by others as it was meant."""
    texts = documents()
    assert yaml.load(texts["asyncapi.yaml"], yaml.CSafeLoader) == asyncapi_document()
    assert yaml.load(texts["openapi.yaml"], yaml.CSafeLoader) == openapi_document()


SCALARS = st.none() | st.booleans() | st.integers() | st.text(max_size=20) | st.sampled_from(["no", "1e3", "a: b", "-"])


@settings(max_examples=60)
@given(
    st.recursive(
        SCALARS | st.text(st.sampled_from("ab .:#-'\"\n"), min_size=100, max_size=150),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
        max_leaves=8,
    )
)
def test_any_data_is_written_so_that_it_is_read_back(data: Any) -> None:
    """Whatever a text looks like, and however long it is."""
    assert yaml.load(yamltext.dump(data), yaml.CSafeLoader) == data


def _broken(document: dict[str, Any], *path: str, value: object = None) -> dict[str, Any]:
    made = copy.deepcopy(document)
    at = made
    for key in path[:-1]:
        at = at[key]
    if value is None:
        del at[path[-1]]
    else:
        at[path[-1]] = value
    return made


def test_asyncapi_is_valid() -> None:
    """By AsyncAPI's own schema, which finds what is wrong."""
    document = asyncapi_document()
    worst = jsonschema.exceptions.best_match(metaschema().iter_errors(document))
    assert worst is None, f"{list(worst.absolute_path)}: {worst.message[:500]}"
    for bad in (
        _broken(document, "channels", "live", "address", value=7),
        _broken(document, "channels", "device", "bindings", "ws", "method", value="TAKE"),
        _broken(document, "operations", "feed", "action"),
        _broken(document, "components", "schemas", "Ack", "properties", "seq", value=7),
    ):
        assert not metaschema().is_valid(bad)


def test_openapi_is_valid() -> None:
    """By OpenAPI's own schema and rules, which find what is wrong."""
    document = openapi_document()
    assert not [error.message for error in OpenAPIV31SpecValidator(document).iter_errors()]
    for bad in (
        _broken(document, "paths", "/livez", "get", "responses", "200", "description"),
        _broken(document, "components", "parameters", "deviceName", "in", value="body"),
        _broken(document, "paths", "/metrics", "get", "operationId", value="getLivez"),
    ):
        assert list(OpenAPIV31SpecValidator(bad).iter_errors())


def _references(data: Any) -> Iterator[str]:
    if isinstance(data, dict):
        if isinstance(data.get("$ref"), str):
            yield data["$ref"]
        for value in data.values():
            yield from _references(value)
    elif isinstance(data, list):
        for item in data:
            yield from _references(item)


@pytest.mark.parametrize("document", [asyncapi_document, openapi_document])
def test_references_lead_somewhere(document: Any) -> None:
    """Each names a part of the document, and each schema is named by one."""
    data = document()
    named = set(_references(data))
    for reference in named:
        at = data
        for key in reference.removeprefix("#/").split("/"):
            at = at[key]
    unused = {f"#/components/schemas/{name}" for name in data["components"]["schemas"]} - named
    assert not unused


def test_examples_are_messages() -> None:
    """Each message has one at least, and each is what its schema says, with no field that is not described."""
    schemas = {kind.schema for channel in CHANNELS.values() for kind in channel.messages.values()}
    assert schemas == EXAMPLES.keys()
    for name, examples in EXAMPLES.items():
        for example in examples:
            assert not messages().faults({"$ref": f"#/components/schemas/{name}"}, example), name


def test_every_message_is_part_of_an_operation() -> None:
    """None is described that nobody sends or takes."""
    operations = set(_references(asyncapi_document()["operations"]))
    channels = asyncapi_document()["channels"].items()
    every = {f"#/channels/{name}/messages/{message}" for name, channel in channels for message in channel["messages"]}
    assert not every - operations


def test_every_format_is_described() -> None:
    """A subprotocol that the gateway takes has its words."""
    assert FORMATS.keys() == set(SUBPROTOCOLS)


async def test_addresses_are_those_that_there_are(tmp_path: Path) -> None:
    """The documents have the router's addresses and no other; the page's own files but for the page apart."""
    async with gate(tmp_path) as gw:
        assert gw.app.server is not None
        tables = gw.app.server.router._tables
        routes = {
            kind: {route.pattern for route in (*table.literal.values(), *table.entries)}
            for kind, table in tables.items()
        }
        described = openapi_document()["paths"]
        sockets = {channel.address for channel in CHANNELS.values() if channel.address.startswith("/")}
        own = {*assets()} - {"/", "/asyncapi.yaml", "/openapi.yaml"}
        assert routes["socket"] == sockets
        assert routes["page"] - own == {path for path, item in described.items() if "get" in item} - sockets
        assert routes["post"] == {path for path, item in described.items() if "post" in item}
        assert described.keys() - {"/"} == NEEDS.keys()


async def test_documents_are_served_to_everybody(tmp_path: Path) -> None:
    """With their type, a tag by which they are asked for anew, and compressed where that is asked for."""
    async with gate(tmp_path) as gw:
        for name in NAMES:
            answer = await ask(gw.port, f"/{name}")
            assert answer.status == 200
            assert answer.headers["content-type"] == "application/yaml"
            assert answer.body.decode() == documents()[name]
            again = await ask(gw.port, f"/{name}", {"If-None-Match": answer.headers["etag"]})
            assert (again.status, again.body) == (304, b"")
            small = await ask(gw.port, f"/{name}", {"Accept-Encoding": "gzip"})
            assert small.headers["content-encoding"] == "gzip"
            assert gzip.decompress(small.body) == answer.body
            assert len(small.body) < 12_000
