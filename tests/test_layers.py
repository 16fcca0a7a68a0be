"""The import rule, read from the syntax trees.

Imports go downwards only: a module may import its own room and rooms on lower floors, never a room on its own
floor or above.  A room is a module or a package directly under ``gateway``; ``sinks`` counts as several (see
:func:`room_of`).
"""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import gateway

PACKAGE = Path(gateway.__file__).parent

# From the roof to the cellar.
FLOORS: list[set[str]] = [
    {"__main__"},
    {"cli"},
    {"doctor", "daemon"},
    {"api", "app", "client"},
    {"reload", "remotes"},
    {"bookkeeper", "capacity", "config", "cores", "lock", "logs", "metrics", "systemd"},
    {"server", "sinks.runner", "sinks.registry"},
    {"homeassistant", "pipeline", "sinks", "ws"},
    {"journal", "history", "hub", "commands", "auth", "delivery"},
    {"devices"},  # the hub's snapshots are made from the device book
    {"bookfile", "clock", "messages", "session", "limit", "liveness", "ledger"},
    {"codecs", "aside", "past", "pem", "reserve"},
    {"reading", "errors", "events", "globs", "topics", "distribution"},
    {"__init__"},
]
FLOOR = {room: number for number, rooms in enumerate(FLOORS) for room in rooms}

# Rooms that only some may enter, wherever they stand.
ONLY_FROM = {
    "ws": {"server", "client"},
    "config": {"app", "cli", "daemon", "doctor", "reload", "remotes"},
    "metrics": {"app", "cli"},
    "systemd": {"daemon"},
    "logs": {"app", "cli", "daemon"},
    "client": {"cli", "doctor"},
}
# All that these may import of the gateway.
ONLY_TO = {
    "ws": {"limit"},
    "config": {"errors", "pem", "reading", "topics"},
    "client": {"ws", "codecs", "errors", "limit", "reading"},
}

# The concrete sinks (``mqtt``, and ``mqtt_*`` beside it): the registry alone names them.
CONCRETE_SINKS = {"history", "homeassistant", "influx", "mqtt", "sparkplug"}
# Of these, what several sinks stand on.
SHARED_BY_SINKS = {"gateway.sinks.mqtt_broker", "gateway.sinks.mqtt_link"}

# No asyncio, no sockets, no files, no clock: time is an argument.
PURE = {"distribution", "errors", "events", "globs", "reading", "topics"} | {
    "codecs",
    "clock",
    "homeassistant",
    "messages",
    "session",
    "limit",
    "liveness",
    "ledger",
}
# fmt: off
IMPURE_MODULES = {
    "asyncio", "concurrent", "io", "logging", "multiprocessing", "os", "pathlib", "queue", "random",
    "select", "selectors", "shutil", "signal", "socket", "sqlite3", "ssl", "subprocess", "tempfile",
    "threading", "time", "apsw", "paho", "prometheus_client", "uvloop", "websockets",
}
# fmt: on
# The token bucket and the sliding window have the monotonic clock as the default of their ``clock`` argument; a codec
# reads from memory.
IMPURE_ALLOWED = {("limit", "time"), ("codecs", "io")}


def module_name(path: Path, package: Path = PACKAGE) -> str:
    """``gateway/sinks/mqtt.py`` -> ``gateway.sinks.mqtt``; a package is its ``__init__``."""
    parts = path.relative_to(package.parent).with_suffix("").parts
    return ".".join(parts)


def imports_of(source: str, module: str) -> set[str]:
    """The absolute names of all modules that ``source`` imports anywhere, for type checking too.

    ``from a import b`` gives ``a.b``: ``b`` may be a module, and naming it cannot widen what is found.
    """
    found = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                above = module.split(".")[: -node.level]
                base = ".".join([*above, base]) if base else ".".join(above)
            found |= {f"{base}.{alias.name}" for alias in node.names}
    return found


def room_of(module: str) -> str:
    """The room of ``gateway.x.y``: ``x``; the sinks' runner and registry stand a floor above the rest."""
    parts = module.split(".")[1:]
    if not parts or parts == ["__version__"]:
        return "__init__"
    if parts[0] == "sinks" and len(parts) > 1 and parts[1] in {"runner", "registry"}:
        return f"sinks.{parts[1]}"
    return parts[0]


def faults(module: str, source: str) -> list[str]:
    """Every breach of the rule in ``module`` (its absolute name), in words."""
    room = room_of(module)
    if room not in FLOOR:
        return [f"{module}: the room {room} has no floor; give it one in FLOORS"]
    found = []
    for name in sorted(imports_of(source, module)):
        if room in PURE and name.split(".")[0] in IMPURE_MODULES:
            if (room, name.split(".")[0]) not in IMPURE_ALLOWED:
                found.append(f"{module} is pure and imports {name}")
            continue
        if name.split(".")[0] != "gateway":
            continue
        target = room_of(name)
        if target not in FLOOR:
            if target.islower():
                found.append(f"{module} imports {name}, whose room has no floor")
            continue  # a name of gateway/__init__
        found += [f"{module} imports {name}: {why}" for why in breaches(module, name, room, target)]
    return found


def breaches(module: str, name: str, room: str, target: str) -> list[str]:
    """Why the import of ``name`` (room ``target``) by ``module`` (room ``room``) is against the rule."""
    found = []
    sink = name.split(".")[2].split("_")[0] if name.startswith("gateway.sinks.") else ""
    shared = room == "sinks" and any(name.startswith(f"{part}.") for part in SHARED_BY_SINKS)
    if (
        sink in CONCRETE_SINKS
        and not shared
        and room != "sinks.registry"
        and not module.startswith(f"gateway.sinks.{sink}")
    ):
        found.append("concrete sinks are named only in sinks/registry.py")
    if room == target or {room, target} == {"sinks", "sinks.runner"}:
        return found
    if FLOOR[room] >= FLOOR[target]:
        found.append("not downwards")
    if target in ONLY_FROM and room not in ONLY_FROM[target] | {"__main__"}:
        found.append(f"{target} is imported by {' and '.join(sorted(ONLY_FROM[target]))} alone")
    if room in ONLY_TO and target not in ONLY_TO[room] | {"__init__"}:
        found.append(f"{room} imports only {', '.join(sorted(ONLY_TO[room]))}")
    return found


def test_imports_go_downwards() -> None:
    """No module of the package imports upwards, sideways, or past one of the closed doors."""
    found = []
    for path in sorted(PACKAGE.rglob("*.py")):
        module = module_name(path)
        found += faults(module, path.read_text(encoding="utf-8"))
    assert not found, "\n".join(found)


@pytest.mark.parametrize(
    ("module", "source", "why"),
    [
        ("gateway.session", "from gateway.journal import Journal", "not downwards"),
        ("gateway.journal.journal", "import gateway.history.store", "not downwards"),
        ("gateway.journal.journal", "from ..history import History", "not downwards"),
        ("gateway.journal.journal", "from .. import history", "not downwards"),
        ("gateway.hub", "if True:\n def f():\n  from gateway.pipeline import Pipeline", "not downwards"),
        ("gateway.pipeline", "from gateway.ws import Router", "ws is imported by client and server alone"),
        ("gateway.app", "from gateway.ws import Server", "ws is imported by client and server alone"),
        ("gateway.ws.server", "from gateway.reading import Reading", "ws imports only limit"),
        (
            "gateway.server.live",
            "from gateway.config import Settings",
            "config is imported by app and cli",
        ),
        ("gateway.sinks.runner", "from gateway import config", "config is imported by app and cli"),
        ("gateway.liveness", "import time", "pure"),
        ("gateway.codecs.json", "from asyncio import Queue", "pure"),
        ("gateway.attic", "", "no floor"),
        ("gateway.app", "from gateway.attic import Box", "no floor"),
    ],
)
def test_a_bad_import_is_caught(module: str, source: str, why: str) -> None:
    """The rule finds each kind of breach, in any form of import, and says which it is."""
    assert any(why in fault for fault in faults(module, source)), faults(module, source)


def test_a_sink_is_named_in_the_registry_alone() -> None:
    """A sink's module is imported by the registry and by that sink's own modules, by no other."""
    source = "from gateway.sinks.mqtt import MqttSink"
    assert any("registry" in fault for fault in faults("gateway.app", source))
    assert any("registry" in fault for fault in faults("gateway.sinks.runner", source))
    assert any("registry" in fault for fault in faults("gateway.app", "from gateway.sinks import mqtt"))
    assert not faults("gateway.sinks.registry", source)
    assert not faults("gateway.sinks.mqtt_loop", source)
    assert not faults("gateway.sinks.sparkplug", "from gateway.sinks.mqtt_link import Link")


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("gateway.cli.run", "from gateway.app import run\nfrom gateway.config import Settings"),
        ("gateway.server.device", "from gateway.ws import Router\nfrom gateway.pipeline import Pipeline"),
        ("gateway.sinks.runner", "from gateway.sinks.base import Sink\nfrom gateway.journal import Cursor"),
        ("gateway.limit", "import time"),
        ("gateway.ws.server", "from gateway.limit import TokenBucket\nfrom .handshake import parse"),
        ("gateway.server.pages", "from gateway import __version__"),
    ],
)
def test_a_good_import_passes(module: str, source: str) -> None:
    """What the rule allows is not reported."""
    assert not faults(module, source)
