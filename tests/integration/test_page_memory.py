"""The page's memory while devices report at ten times the usual rate: it does not grow with what it is told."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.servers import Missing
from tools.toolkit import pagebench
from tools.toolkit.pagebench import Look, Tab

WARM_UP, MESSAGES, STEP = 140, 120, 20  # a second brings some twelve
GROWTH = 350_000  # bytes; charts and compiled code take some 100,000, what the messages hold is some 700,000
COUNTS = (
    "const parse = JSON.parse; window.heard = []; window.keeps = false;"
    "JSON.parse = (text) => { const it = parse(text); heard.push(keeps ? [text, it] : null); return it; }"
)


def after(tab: Tab, messages: int) -> Look:
    """What the tab holds after so many more messages."""
    for _ in range(messages // STEP):
        until = tab.page.run("return heard.length") + STEP
        tab.page.wait("messages", lambda until=until: tab.page.run("return heard.length") >= until)
    return tab.look()


def test_memory_does_not_grow_with_what_the_page_is_told(tmp_path: Path) -> None:
    """Not by what messages hold, nor by nodes or listeners; with a page that keeps them the same measure finds them."""
    try:
        with pagebench.opened(pagebench.Load(), tmp_path) as tab:
            tab.page.run(COUNTS)
            first, second = after(tab, WARM_UP), after(tab, MESSAGES)
            tab.page.run("window.keeps = true")
            leaking = after(tab, MESSAGES)
    except Missing as missing:
        pytest.skip(str(missing))
    assert second.held - first.held < GROWTH
    assert second.nodes <= first.nodes
    assert second.listeners <= first.listeners
    assert leaking.held - second.held > GROWTH
    assert tab.report["acked"] == tab.report["taken"] > 0
