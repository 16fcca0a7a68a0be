"""Tables, times and paragraphs for a terminal.  Pure but for :func:`width`."""

from __future__ import annotations

import shutil
import sys
import textwrap
import time
from collections.abc import Iterable, Sequence

__all__ = ["ago", "cell", "clock", "moment", "paragraph", "plain", "size", "span", "table", "value", "width"]

WIDEST = 110  # a paragraph is not read more easily for being wider
LEAST = 10  # of a column that is shortened
UNITS = ((86_400, "day"), (3600, "hour"), (60, "minute"), (1, "second"))


def width() -> int | None:
    """The terminal's columns; None where output goes elsewhere, which is not cut."""
    return shutil.get_terminal_size().columns if sys.stdout.isatty() else None


def ago(ms: int, now_ms: int) -> str:
    """For how long, in its largest unit: ``5s``, ``12m``, ``3h``, ``40d``; a dash for never."""
    count, unit = _largest(ms, now_ms)
    return f"{count}{unit[0]}" if ms else "-"


def span(ms: int, now_ms: int) -> str:
    """The same in words: ``5 seconds``, ``1 hour``."""
    count, unit = _largest(ms, now_ms)
    return f"{count} {unit}{'' if count == 1 else 's'}"


def _largest(ms: int, now_ms: int) -> tuple[int, str]:
    seconds = max(0, now_ms - ms) // 1000
    return next(((seconds // size, unit) for size, unit in UNITS if seconds >= size), (0, "second"))


def moment(ms: int, now_ms: int) -> str:
    """A time of this place: ``10:31:02`` where it is today's, else with the day."""
    then, now = time.localtime(ms / 1000), time.localtime(now_ms / 1000)
    return time.strftime("%H:%M:%S" if then[:3] == now[:3] else "%Y-%m-%d %H:%M:%S", then)


def clock(ms: int) -> str:
    """Hours to milliseconds, of this place."""
    return f"{time.strftime('%H:%M:%S', time.localtime(ms / 1000))}.{ms % 1000:03}"


def size(count: int) -> str:
    """Bytes in a unit that leaves few digits."""
    if count < 1024:
        return f"{count} B"
    if count < 1024**2:
        return f"{count / 1024:.1f} KiB"
    return f"{count / 1024**2:.1f} MiB"


def plain(text: str) -> str:
    """Text of others without what a terminal would take for a command."""
    return "".join(character if character.isprintable() else "\N{REPLACEMENT CHARACTER}" for character in text)


def value(given: object) -> str:
    """A reading's value."""
    if isinstance(given, bool):
        return "true" if given else "false"
    return plain(given) if isinstance(given, str) else str(given)


def cell(given: object) -> object:
    """The same in a table for programs: exact, booleans as in JSON."""
    return ("false", "true")[given] if isinstance(given, bool) else given


def paragraph(text: str, columns: int | None, first: str = "", rest: str | None = None) -> str:
    """``text`` in lines of at most ``columns``, the first one behind ``first``, the others behind ``rest``."""
    if columns is None:
        return first + text
    indent = " " * len(first) if rest is None else rest
    return textwrap.fill(
        text,
        max(40, min(columns, WIDEST)),
        initial_indent=first,
        subsequent_indent=indent,
        break_long_words=False,
        break_on_hyphens=False,
    )


def table(
    headers: Sequence[str], rows: Iterable[Sequence[str]], columns: int | None, *, right: Iterable[int] = ()
) -> str:
    """Lines of columns two spaces apart; those in ``right`` end alike.

    Where they are wider than ``columns``, the last one is shortened if it is text, or left out if nothing of use would
    be left of it; then the first one is shortened.
    """
    shown = [[plain(cell) for cell in row] for row in (headers, *rows)]
    widths = [max(map(len, column)) for column in zip(*shown, strict=True)]
    ends = set(right)
    last = len(widths) - 1
    if columns is not None and last and last not in ends:
        widths[last] -= max(0, _over(widths, columns))
        if widths[last] < LEAST:
            widths.pop()
    if columns is not None:
        widths[0] = max(min(LEAST, widths[0]), widths[0] - max(0, _over(widths, columns)))
    lines = []
    for row in shown:
        cells = [
            _short(cell, wide).rjust(wide) if at in ends else _short(cell, wide).ljust(wide)
            for at, (cell, wide) in enumerate(zip(row, widths, strict=False))
        ]
        lines.append("  ".join(cells).rstrip())
    return "\n".join(lines)


def _over(widths: Sequence[int], columns: int) -> int:
    return sum(widths) + 2 * (len(widths) - 1) - columns


def _short(text: str, wide: int) -> str:
    return text if len(text) <= wide else text[: wide - 1] + "…"
