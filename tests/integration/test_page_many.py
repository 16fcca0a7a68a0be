"""The page with a thousand devices and a hundred thousand points: nothing in its way, no task that holds it up."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from selenium.webdriver import Chrome
from selenium.webdriver.common.keys import Keys

from tests.integration.browser import Page, connected, downloads, stored, traced, window
from tests.integration.crowd import Crowd
from tools.toolkit.servers import Daemon

MANY, LEAVING = 1_000, 20
pytestmark = pytest.mark.alone  # what the browser takes is measured

POINTS, METRICS = 10_000, 11
TRIES = 3  # for what is measured: others work on this machine's cores too
TASK_MS = 50

SETTINGS = {
    "GATEWAY_ID": "barn-north",
    "GATEWAY_HEARTBEAT__INTERVAL_S": "600",
    "GATEWAY_LIMITS__DEVICE_RATE": "1000000",
    "GATEWAY_LIMITS__DEVICE_BURST": "1000000",
    "GATEWAY_LIMITS__MAX_MESSAGE_BYTES": "1000000",
}


@pytest.fixture(scope="module")
def crowded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    """A gateway with a thousand devices, of which twenty are offline, and one with very many points."""
    with (
        Daemon(tmp_path_factory.mktemp("crowded"), SETTINGS) as daemon,
        Crowd(daemon, [f"room-{number}" for number in range(1, MANY)], leaving=LEAVING),
        connected(daemon, "big") as big,
    ):
        now = int(time.time() * 1000)
        big.describe(name="Big")
        rows = [(k * 7, now - (POINTS - k) * 25) for k in range(POINTS)]
        big.past([(at, {f"m{i}": (k + i) % 1000 / 10 for i in range(METRICS)}) for k, at in rows])
        yield daemon


def best(measure: Any, good: Any) -> Any:
    """The first of some measurements that is good, else the last."""
    for _ in range(TRIES):
        result = measure()
        if good(result):
            break
    return result


def test_nothing_is_in_the_way_of_anybody(chromium: Chrome, crowded: Daemon) -> None:
    """axe-core finds nothing on any view, in both themes, on a desk and a phone, with a thousand devices."""
    found: list[str] = []

    def look(page: Page, view: str) -> None:
        # What is not of colours is the same in both themes.
        rules = () if view.startswith("light") else ("color-contrast",)
        found.extend(f"{view}: {fault}" for fault in page.faults(*rules))

    for theme in ("light", "dark"):
        page = Page(chromium, crowded, f"#{theme}&device=room-900&q=room")
        page.wait("the rows", lambda page=page: f"All {MANY:,}" in page.text(".chips") and page.card("temperature"))
        page.wait("the value", lambda page=page: page.row("room-1"))
        look(page, f"{theme}, charts")
        page.run("document.querySelectorAll('.turn').forEach((button) => button.click())")
        page.run("document.activeElement.blur()")
        page.keys(" ")
        page.wait("a table", lambda page=page: page.text(".databox"))
        look(page, f"{theme}, paused, charts as tables")
        page.press("Table")
        page.press("?")
        look(page, f"{theme}, table and keys")
        page.keys(Keys.ESCAPE)
        page.run("location.hash = arguments[0]", f"#{theme}&wall")
        page.wait("the wall", lambda page=page: len(page.run("return document.querySelectorAll('.tile')")) == 12)
        look(page, f"{theme}, wall")
        with window(chromium, 360, 800, mobile=True):
            page.run("location.hash = arguments[0]", f"#{theme}&device=room-2&state=offline")
            page.wait("an offline device", lambda page=page: "offline since" in page.text(".head"))
            look(page, f"{theme}, phone, offline")
    assert not found, "\n".join(found)


def test_thousand_devices_scroll(chromium: Chrome, crowded: Daemon) -> None:
    """A list of a thousand devices is scrolled through without a task above 50 ms, with some rows in the document."""
    page = Page(chromium, crowded)
    page.wait("the rows", lambda: f"All {MANY:,}" in page.text(".chips") and page.row("room-1"))
    scroll = (
        "const done = arguments[0], box = document.querySelector('.rows'), {left, top} = box.getBoundingClientRect();"
        "const begun = performance.now(), end = box.scrollHeight - box.clientHeight; let frames = 0, blank = 0;"
        "const step = () => {"
        " if (!document.elementFromPoint(left + 50, top + 100)?.closest('.row')) blank += 1;"
        " const share = (performance.now() - begun) / 1200;"
        " box.scrollTop = Math.min(1, share) * end;"
        " frames += 1;"
        " if (share < 1) requestAnimationFrame(step); else setTimeout(() => done([frames, blank]), 100);"
        "};"
        "requestAnimationFrame(step)"
    )

    def measure() -> tuple[float, int, int]:
        with traced(chromium) as trace:
            frames, blank = page.browser.execute_async_script(scroll)
        return trace.longest_ms, frames, blank

    longest, frames, blank = best(measure, lambda result: result[0] <= TASK_MS and result[1] > 20)
    assert longest <= TASK_MS
    assert frames > 20
    assert blank <= frames * 0.1
    assert page.row(f"room-{MANY - 1}"), "the last one is seen"
    assert page.run("return document.querySelectorAll('.row').length") < 60


def test_hundred_thousand_points(chromium: Chrome, crowded: Daemon) -> None:
    """A device with a hundred thousand points is shown whole within a second, no task being above 50 ms."""
    page = Page(chromium, crowded, "#device=room-500")
    page.wait("another device", lambda: page.card("temperature"))
    shown = (
        "const it = performance.getEntriesByName('shown').at(-1);"
        "return it ? [it.startTime, it.duration, it.detail.points] : [0, 0, 0]"
    )

    def choose(hash: str, points: int) -> tuple[float, float]:
        page.run("location.hash = '#device=room-500'")
        page.wait("another device", lambda: page.text(".head h2") == "Room 500" and page.run(shown)[2] < 1000)
        page.run("performance.clearMeasures()")
        with traced(chromium) as trace:
            page.run("location.hash = arguments[0]", hash)
            page.wait("the points", lambda: page.run(shown)[2] >= points)
        return page.run(shown)[1], trace.longest_ms

    for hash in ("#device=big", "#device=big&range=1h"):
        took, longest = best(
            lambda hash=hash: choose(hash, POINTS * 10), lambda result: result[0] < 1000 and result[1] <= TASK_MS
        )
        assert took < 1000, (hash, took)
        assert longest <= TASK_MS, (hash, longest)
    page.wait("the band", lambda: "min 0.0 max 99.9" in page.card("m0"))


def test_more_readings_than_an_answer_holds_are_saved_whole(chromium: Chrome, crowded: Daemon, tmp_path: Path) -> None:
    """A range with more readings than the gateway gives at once is saved as one CSV file, in order, nothing twice."""
    page = Page(chromium, crowded, "#device=big&range=1h")
    page.wait("the readings", lambda: stored(crowded, "big", "m0", POINTS))
    page.wait("the device", lambda: page.card("m0"))
    with downloads(chromium, tmp_path) as saved:
        page.press("CSV")
        page.wait("the file", saved)
        lines = saved()[0].read_text().splitlines()
    assert lines[0] == "time,device,metric,value"
    assert len(lines) == len(set(lines)) == POINTS * METRICS + 1
    times = [int(re.match(r"\d+", line)[0]) for line in lines[1:]]  # type: ignore[index]
    assert times == sorted(times)
