"""The specification's numbered statements as a checklist, and whether the host that judges finds faults at all."""

from __future__ import annotations

import importlib
from collections.abc import Callable

import pytest

from gateway.config import Settings
from gateway.errors import ConfigError
from gateway.reading import is_device

from .sparkplug_host import Host
from .sparkplug_statements import NOT_APPLICABLE, SHOWN
from .test_sparkplug_node import Pair, at

COUNT = 291  # in the text of 3.0.0


def ids(table: dict[str, str]) -> list[str]:
    return [name for names in table.values() for name in names.split()]


def test_each_statement_is_shown_or_not_applicable() -> None:
    """Every id is there once, with a test that exists or a reason."""
    found = ids(SHOWN) + ids(NOT_APPLICABLE)
    assert len(found) == len(set(found)) == COUNT
    for reference in SHOWN:
        module, name = reference.split(".")
        test = getattr(importlib.import_module(f"tests.sinks.{module}"), name)
        assert test.__doc__, reference
    assert all(len(reason) > 10 for reason in NOT_APPLICABLE)


@pytest.mark.parametrize("name", ["a/b", "a+", "#", "a\0b"])
def test_names_that_would_break_a_topic_are_refused(name: str) -> None:
    """Group, node and host have no +, # or / in them, and no device has."""
    assert not is_device(name)
    for field in ("group", "node", "primary_host"):
        with pytest.raises(ConfigError, match=f"GATEWAY_SPARKPLUG__{field.upper()}"):
            Settings(_env_file=None, mqtt={"url": "mqtt://b"}, sparkplug={"enabled": True, field: name})  # type: ignore[call-arg]


def test_an_edge_node_needs_a_broker() -> None:
    """Sparkplug without GATEWAY_MQTT__URL is a fault of the settings, with words that say what to set."""
    with pytest.raises(ConfigError, match=r"GATEWAY_SPARKPLUG__ENABLED: .*GATEWAY_MQTT__URL"):
        Settings(_env_file=None, sparkplug={"enabled": True})  # type: ignore[call-arg]


class Tampering(Pair):
    """What the host hears goes through ``change`` first."""

    def __init__(self, change: Callable[[str, bytes], tuple[str, bytes] | None]) -> None:
        super().__init__()
        self.change = change

    def hear(self, messages: object) -> Pair:
        for message in messages:  # type: ignore[attr-defined]
            changed = self.change(message.topic, message.payload)
            if changed is not None:
                self.host.hear(*changed)
        return self


def without(verb: str) -> Callable[[str, bytes], tuple[str, bytes] | None]:
    return lambda topic, payload: None if f"/{verb}/" in topic else (topic, payload)


def replaced(verb: str, old: bytes, new: bytes) -> Callable[[str, bytes], tuple[str, bytes]]:
    def change(topic: str, payload: bytes) -> tuple[str, bytes]:
        if f"/{verb}/" not in topic:
            return topic, payload
        assert old in payload
        return topic, payload.replace(old, new, 1)

    return change


@pytest.mark.parametrize(
    "change",
    [
        without("NBIRTH"),
        without("DBIRTH"),
        lambda topic, payload: (topic.replace("DDATA", "DDEATH"), payload),
        lambda topic, payload: (topic.replace("spBv1.0", "spAv1.0"), payload),
        lambda topic, payload: (topic.removesuffix("/a"), payload),
        replaced("NBIRTH", b"bdSeq", b"bdSeX"),
        replaced("NBIRTH", b"Rebirth", b"rebirth"),
        replaced("NBIRTH", b"\x18\x00", b"\x18\x01"),  # seq
        replaced("DBIRTH", b"\x10\x01", b"\x10\x02"),  # an alias twice
        replaced("DBIRTH", b"\x20\x0a", b"\x20\x04"),  # data type
        replaced("DDATA", b"\x10\x01", b"\x10\x09"),  # an alias that was not told
        replaced("DDATA", b"\x18\x02", b"\x18\x03"),  # seq
    ],
)
def test_the_host_finds_faults(change: Callable[[str, bytes], tuple[str, bytes] | None]) -> None:
    """A message left out, renamed or with one field wrong is a fault to the host; untouched they are none."""

    def course(pair: Pair) -> Host:
        pair.newest["a"] = [("x", at(-2).time, 1.5), ("y", at(-1).time, True)]
        return pair.births().presence("a", b"online").data(at(-1, x=2.5)).presence("a", b"offline").host

    assert course(Pair()).values["a"]["x"] == 2.5
    with pytest.raises(AssertionError):
        course(Tampering(change))
