"""``gateway top`` in colours, with the last minute of each rate; needs the extra ``top`` (rich).

Text of others is never markup: it goes into :class:`rich.text.Text`, without control characters.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence
from typing import Any

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from .words import ago, plain, size

__all__ = ["Board", "show"]

REMEMBERED = 60  # pictures; of a device that is in none of them nothing is
BARS = "▁▂▃▄▅▆▇█"
NARROW = 90  # columns; below it the course of each rate is left out
STYLES = {
    "ok": "green",
    "online": "green",
    "degraded": "yellow",
    "stale": "yellow",
    "waiting": "yellow",
    "offline": "dim",
    "idle": "dim",
    "stopped": "bold red",
    "failing": "bold red",
}


def show(items: Iterable[dict[str, Any]]) -> None:
    """Draw pictures on the terminal's other screen as they come."""
    console = Console(highlight=False)
    board = Board()
    with Live(console=console, screen=True, auto_refresh=False, vertical_overflow="crop") as live:
        for item in items:
            live.update(board.picture(item, console.width), refresh=True)


class Board:
    """Makes pictures, and remembers the rates in them."""

    def __init__(self) -> None:
        self._all: deque[float] = deque(maxlen=REMEMBERED)
        self._rates: dict[str, deque[float]] = {}

    def picture(self, item: dict[str, Any], columns: int) -> RenderableType:
        """The next picture."""
        health = item["health"]
        self._remember(item["devices"], health["ingest"]["readings_per_s"])
        parts: list[RenderableType] = [self._head(health, columns)]
        parts += [
            Text(f"! {plain(problem['text'])} ", style="bold yellow").append(plain(problem["hint"]), style="not bold")
            for problem in health["problems"]
        ]
        parts += [Text(), _sinks(health["sinks"]), Text()]
        if item["devices"]:
            parts.append(self._devices(item["devices"], health["time"], columns))
        else:
            parts.append(Text("No device has connected yet.", style="dim"))
        return Group(*parts)

    def _remember(self, rows: Iterable[dict[str, Any]], rate: float) -> None:
        """Every device in the picture gets its rate, one that is not in it a pause, as long as anything is left."""
        self._all.append(rate)
        now = {row["device"]: row["per_s"] for row in rows}
        for name in now.keys() - self._rates.keys():
            self._rates[name] = deque(maxlen=REMEMBERED)
        for name, rates in list(self._rates.items()):
            rates.append(now.get(name, 0.0))
            if not any(rates) and name not in now:
                del self._rates[name]

    def _head(self, health: dict[str, Any], columns: int) -> RenderableType:
        devices, journal = health["devices"], health["journal"]
        up = ago(1, int(health["uptime_s"] * 1000) + 1)
        first = Text.assemble(
            (plain(health["id"]), "bold"), " is ", _state(health["status"]), f", up {up}: ",
            (f"{devices['online']} online", "green"), ", ", (f"{devices['stale']} stale", "yellow"), ", ",
            (f"{devices['offline']} offline", "dim"),
        )  # fmt: skip
        second = Text.assemble(
            (f"{health['ingest']['readings_per_s']:,}", "bold"), " readings/s ", (course(self._all, 30), "cyan"),
            f"  acks {journal['ack_ms']['p50']:g} ms, 99 of 100 {journal['ack_ms']['p99']:g} ms; "
            f"journal {size(journal['bytes'])}",
        )  # fmt: skip
        return Group(first, second)

    def _devices(self, rows: Sequence[dict[str, Any]], now: int, columns: int) -> RenderableType:
        wide = columns >= NARROW
        table = _table("DEVICE", "STATE")
        for header in ("PER S", "RECEIVED", "STORED", "NOT KEPT", "SEEN"):
            table.add_column(header, justify="right", no_wrap=True)
            if wide and header == "PER S":
                table.add_column("", no_wrap=True, style="cyan")
        for row in rows:
            ledger = row["ledger"]
            lost = ledger["rejected"] + ledger["throttled"] + ledger["dropped"]
            cells = [Text(plain(row["device"])), _state(row["state"]), Text(f"{row['per_s']:g}")]
            if wide:
                cells.append(Text(course(self._rates[row["device"]], 20)))
            cells += [Text(f"{ledger['received']:,}"), Text(f"{ledger['stored']:,}")]
            cells += [Text(f"{lost:,}", style="yellow" if lost else "dim"), Text(ago(row["last_seen"], now))]
            table.add_row(*cells)
        return table


def _sinks(sinks: Iterable[dict[str, Any]]) -> RenderableType:
    table = _table("SINK", "STATE")
    for header in ("PENDING", "DEAD LETTERS"):
        table.add_column(header, justify="right", no_wrap=True)
    for sink in sinks:
        letters = sink["dead_lettered"]
        table.add_row(
            Text(plain(sink["title"])),
            _state(sink["state"]),
            Text(f"{sink['pending']:,}"),
            Text(f"{letters:,}", style="yellow" if letters else "dim"),
        )
    return table


def _table(*headers: str) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for header in headers:
        table.add_column(header, no_wrap=True)
    return table


def _state(name: str) -> Text:
    return Text(plain(name), style=STYLES.get(name, ""))


def course(rates: Iterable[float], count: int) -> str:
    """The last rates as bars, each in proportion to the greatest of them; nothing at all is a blank."""
    last = list(rates)[-count:]
    most = max(last, default=0.0)
    bars = [BARS[min(7, int(rate / most * 8))] if rate > 0 else " " for rate in last]
    return "".join(bars).rjust(count)
