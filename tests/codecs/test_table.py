"""The table of formats: a new one is a module and a row, and nothing else has to know its name."""

from __future__ import annotations

import ast
from pathlib import Path

import gateway
from gateway.codecs import CODECS, SUBPROTOCOLS

PACKAGE = Path(gateway.__file__).parent
# What formats stand on, and is none itself.
SHARED = {"__init__", "depth", "keys", "model"}
# The formats of browsers and of the package's own client, which speak these alone.
CHOSEN = {"gateway.v1.json", "gateway.v1.msgpack"}


def test_each_format_is_a_module_of_its_own() -> None:
    """Every module of the room gives codecs to the table, and the table has none from elsewhere."""
    modules = {path.stem for path in (PACKAGE / "codecs").glob("*.py")} - SHARED
    assert {type(codec).__module__.rpartition(".")[2] for codec in CODECS.values()} == modules


def test_nothing_else_names_a_format() -> None:
    """So adding one touches two places: its module, and its row."""
    named = {}
    for path in PACKAGE.rglob("*.py"):
        if path.parent.name == "codecs":
            continue
        tree = ast.parse(path.read_text())
        notes = {
            id(node.body[0].value)
            for node in ast.walk(tree)
            if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef))
            and node.body
            and isinstance(node.body[0], ast.Expr)
        }
        for node in ast.walk(tree):
            if isinstance(node, ast.Constant) and node.value in SUBPROTOCOLS and id(node) not in notes:
                named.setdefault(node.value, path.name)
    assert named.keys() <= CHOSEN, named
