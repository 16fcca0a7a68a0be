"""The README's table of limits: every setting with its default, and every count it names is there."""

from __future__ import annotations

import ast
import re
from pathlib import Path

from gateway import commands, metrics
from gateway.capacity import HANDSHAKES
from gateway.codecs import depth, model
from gateway.config import variables
from gateway.history import history
from gateway.server import attempts, connection, control, live, pages
from gateway.ws import reception, request

ROOT = Path(__file__).parents[1]
PREFIX = "GATEWAY_LIMITS__"


def rows() -> list[list[str]]:
    """The cells of each row."""
    section = (ROOT / "README.md").read_text().partition("\n### Limits\n")[2].partition("\n### ")[0]
    lines = [line for line in section.splitlines() if line.startswith("| ")][2:]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


def row(what: str) -> str:
    """The second cell of a row."""
    (found,) = [cells[1] for cells in rows() if cells[0] == what]
    return found


def strings() -> set[str]:
    """Every string in the gateway's source."""
    found: set[str] = set()
    for path in (ROOT / "gateway").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                found.add(node.value)
    return found


def test_every_setting_has_its_row_and_default() -> None:
    """Each setting of the section stands in the table once, with the default that it has."""
    known = {name: default for name, (default, _) in variables().items() if name.startswith(PREFIX)}
    said = {}
    for cells in rows():
        for name, default in re.findall(rf"`({PREFIX}\w+)`(?:, ([\w.]+)| \(`\w+`\))", "|".join(cells)):
            said[name] = default
    assert set(said) == set(known)
    for name, default in known.items():
        if isinstance(default, int | float):
            assert float(said[name]) == default, name


def test_fixed_numbers_are_those_of_the_code() -> None:
    """What has no setting is told as it is."""
    assert row("readings a message") == f"{model.MAX_READINGS:,}"
    assert row("depth of a message") == f"{depth.MAX_DEPTH}"
    assert row("messages that cannot be decoded") == f"{connection.UNDECODABLE_MAX} in a row"
    assert row("connections without a request").startswith(f"{HANDSHAKES:,}")
    assert row("time to say who it is, at `/v1/live`") == f"{live.AUTH_S:g} s"
    assert row("dashboards that have not said who they are").startswith(f"{live.UNKNOWN_MAX},")
    assert row("attempts of an address that failed") == f"{attempts.FAILURES} a minute"
    assert row("a dashboard's message") == f"{live.MAX_MESSAGE_BYTES:,} bytes"
    assert f"{live.MAX_SUBSCRIPTIONS}, of {live.MAX_GLOBS:,} globs, {live.MAX_PATTERNS} " in row(
        "subscriptions of a dashboard"
    )
    waiting = row("commands that wait for devices")
    assert waiting.startswith(f"{commands.WAITING_DEVICE} for one, ")
    assert waiting.endswith(f"{commands.WAITING:,} in all, with {commands.WAITING_BYTES >> 20} MiB of parameters")
    assert row("questions to `/api` at once") == (
        f"{pages.LISTS_MAX} lists; {history.MAX_QUERIES} of the history, {history.READERS} at a time"
    )
    assert row("an answer of `/api`") == f"{pages.ROWS_MAX:,} rows, globs of {pages.GLOB_MAX} characters"
    assert row("clients of the control socket") == (
        f"{control.CONNECTIONS}, {control.REQUEST_BYTES >> 10} KiB a request"
    )
    assert row("head of a request") == (
        f"{reception.MAX_HEAD_BYTES >> 10} KiB, {reception.MAX_FIELDS} fields, {reception.MAX_LINE_BYTES >> 10} KiB a "
        f"line, {request.MAX_QUERY_FIELDS} fields of a query"
    )


def test_every_count_is_there() -> None:
    """A code or reason is one that the gateway has, a metric one that it shows."""
    known = strings()
    families = {
        f"gateway_{room}_{one.name}" + ("_total" if one.kind == "counter" else "")
        for room, table in metrics.TABLE.items()
        for one in table.values()
    }
    families |= {f"gateway_{room}_{family}_total" for room, of in metrics.PREFIXES.items() for _, family, _, _ in of}
    text = (ROOT / "README.md").read_text()
    for name in re.findall(r"`(gateway_\w+_total)[`{]", text):
        assert name in families, name
    for cells in rows():
        for name in re.findall(r"`([^`]+)`", cells[3]):
            assert name in known or name in families or name.isdigit(), name
