"""The tables of kinds and fields, and the calls that use them."""

from __future__ import annotations

import ast
import functools
import logging
import re
from collections.abc import Iterator
from pathlib import Path

import gateway
from gateway.events import EVENTS, FIELDS

PACKAGE = Path(gateway.__file__).parent
README = PACKAGE.parent / "README.md"
OWN = {"fault", "log_lost"}  # given by the log itself


def extras() -> Iterator[tuple[str, ast.Dict]]:
    """Every ``extra={..}`` in the package, with its place."""
    for name, nodes in trees():
        for node in nodes:
            if isinstance(node, ast.keyword) and node.arg == "extra" and isinstance(node.value, ast.Dict):
                yield f"{name}:{node.value.lineno}", node.value


@functools.cache
def trees() -> list[tuple[str, list[ast.AST]]]:
    """The nodes of every module but the table, with its name."""
    paths = [path for path in sorted(PACKAGE.rglob("*.py")) if path.name != "events.py"]
    return [(path.name, list(ast.walk(ast.parse(path.read_text(encoding="utf-8"))))) for path in paths]


def events() -> Iterator[tuple[str, ast.Dict]]:
    """Every ``{"event": .., ..}`` in the package, with its place."""
    for path in sorted(PACKAGE.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Dict) and any(
                isinstance(k, ast.Constant) and k.value == "event" for k in node.keys
            ):
                yield f"{path.name}:{node.lineno}", node


def used() -> set[str]:
    """Kinds that are logged: as an entry's event, or handed as one to a function (their names are of two words)."""
    names = set(OWN)
    for _, given in events():
        names |= {value.value for value in given.values if isinstance(value, ast.Constant)}
    for _, nodes in trees():
        for node in nodes:
            if isinstance(node, ast.Constant) and isinstance(node.value, str) and "_" in node.value:
                names.add(node.value)
    return names


def test_ids_are_128_bits_of_their_own() -> None:
    """Each id is what ``journalctl --new-id128`` prints, and no two are the same."""
    assert all(re.fullmatch(r"[0-9a-f]{32}", event.id) for event in EVENTS.values())
    assert len({event.id for event in EVENTS.values()}) == len(EVENTS)
    assert all(event.level in ("info", "warning", "error") for event in EVENTS.values())


def test_calls_name_what_the_tables_have() -> None:
    """Whatever is passed as ``extra`` is a kind of the table and fields of the table."""
    found = [*extras(), *events()]
    assert found
    for place, given in found:
        for key, value in zip(given.keys, given.values, strict=True):
            if key is None:  # more fields, from a dictionary
                continue
            assert isinstance(key, ast.Constant), place
            assert key.value == "event" or key.value in FIELDS, f"{place}: {key.value}"
            if key.value == "event" and isinstance(value, ast.Constant):
                assert value.value in EVENTS, f"{place}: {value.value}"


def test_every_kind_is_used() -> None:
    """The table holds no kind that is never logged."""
    assert set(EVENTS) - used() == set()


def test_fields_are_journalds() -> None:
    """Fields have names that journald takes from anybody, and do not hide what a record has of its own."""
    assert all(re.fullmatch(r"[A-Z][A-Z0-9_]{0,63}", name) for name in FIELDS.values())
    own = logging.LogRecord("n", 10, "p", 1, "m", (), None).__dict__
    assert not (FIELDS.keys() | {"event"}) & own.keys()


def test_the_readme_lists_every_kind() -> None:
    """README's table has each kind with its id, level and words, and no other."""
    rows = re.findall(r"^\| `(\w+)` \| (\w+) \| `([0-9a-f]{32})` \| (.*) \|$", README.read_text(), re.MULTILINE)
    assert {name: (id, level, words) for name, level, id, words in rows} == dict(EVENTS)
