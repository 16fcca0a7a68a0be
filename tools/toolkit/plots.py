"""Draws the curves of ``tools/bench report`` with matplotlib, which the gateway does not need."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from .curves import PARTS, drawn

__all__ = ["draw", "has_matplotlib"]


def has_matplotlib() -> bool:
    """Whether it can be imported."""
    try:
        import matplotlib  # noqa: F401
    except ImportError:
        return False
    return True


def draw(result: dict[str, Any], path: Path) -> None:
    """One picture: for each figure what was measured, and the straight line through the first and the last of it.

    What a reading costs stands over a logarithmic axis, and has no such line.
    """
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt
    from matplotlib.ticker import EngFormatter

    part, rows = PARTS[result["part"]], result["rows"]
    figure, axes = plt.subplots(1, len(part.drawn), figsize=(4.5 * len(part.drawn), 3.6), layout="constrained")
    x = [row["x"] for row in rows]
    for axis, (name, title) in zip(axes, part.drawn, strict=True):
        y = [drawn(row, name) for row in rows]
        axis.plot(x, y, "o-")
        if name == "cpu_us":
            axis.set_xscale("symlog" if not x[0] else "log")
        elif len(x) > 1:
            axis.plot([x[0], x[-1]], [y[0], y[-1]], ":", color="grey")
        if name != "cpu_us":
            axis.xaxis.set_major_formatter(EngFormatter(sep=""))
        axis.set_ylim(bottom=0)
        axis.set_xlabel(part.grows)
        axis.set_title(title, fontsize="medium")
        axis.grid(visible=True, alpha=0.3)
    figure.savefig(path, dpi=100)
    plt.close(figure)
