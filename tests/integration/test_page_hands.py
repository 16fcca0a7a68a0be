"""The page in the hands of people: mouse, wheel, keys and fingers; the wall; what is taken along."""

from __future__ import annotations

import re
import struct
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import parse_qs

import pytest
from selenium.webdriver import ActionChains, Chrome
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys

from tests.integration.browser import Page, connected, downloads, window
from tools.toolkit.servers import Daemon

POINTS = 60


@pytest.fixture(scope="module")
def farm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    """A gateway that keeps three days, with a pump that was heard each second of the last minute, and two others."""
    settings = {"GATEWAY_ID": "barn-north", "GATEWAY_HISTORY__RETENTION_DAYS": "3"}
    with (
        Daemon(tmp_path_factory.mktemp("farm"), settings) as daemon,
        connected(daemon, "pump-1") as pump,
        connected(daemon, "silo-1") as silo,
    ):
        pump.describe(name="Boiler pump", metrics={"pressure": {"unit": "bar"}, "run": {}, "mode": {}})
        now = int(time.time() * 1000)
        pump.past(
            [
                (now - (POINTS - k) * 1000, {"mode": "heating", "run": k % 20 < 10, "pressure": round(1 + k / 100, 2)})
                for k in range(POINTS)
            ]
        )
        silo.send(level=63)
        with connected(daemon, "gone-1") as gone:
            gone.send(level=7)
        yield daemon


class Window:
    """The chart's window, as the address has it."""

    def __init__(self, page: Page) -> None:
        self._page = page

    def read(self) -> tuple[int, int]:
        """From and to in milliseconds; zeros while it is live."""
        words = parse_qs(self._page.browser.current_url.partition("#")[2])
        return int(words.get("from", ["0"])[0]), int(words.get("to", ["0"])[0])

    def after(self, what: str, before: tuple[int, int]) -> tuple[int, int]:
        """What it is once it has changed, and rests."""
        self._page.wait(what, lambda: self.read() != before)
        while (rests := self.read()) != (time.sleep(0.3), self.read())[1]:
            pass
        return rests


def length(window: tuple[int, int]) -> int:
    return window[1] - window[0]


def test_wheel_and_keys_pan_and_zoom(chromium: Chrome, farm: Daemon) -> None:
    """Wheel and arrows pan all charts, Ctrl with the wheel, plus and minus zoom; both pause, Escape goes live."""
    page = Page(chromium, farm, "#device=pump-1")
    page.wait("the charts", lambda: page.drawn("pressure") and page.drawn("run"))
    shown = Window(page)
    over = chromium.find_element(By.CSS_SELECTOR, ".chart .u-over").rect
    wheel = {"type": "mouseWheel", "x": over["x"] + over["width"] / 2, "y": over["y"] + 20}
    chromium.execute_cdp_cmd("Input.dispatchMouseEvent", {**wheel, "deltaX": -over["width"] / 4, "deltaY": 0})
    panned = shown.after("panned", (0, 0))
    assert page.text("#live-word").startswith("Paused")
    assert abs(length(panned) - 300_000) < 1000
    assert abs(time.time() * 1000 - panned[1] - 75_000) < 15_000
    chromium.execute_cdp_cmd("Input.dispatchMouseEvent", {**wheel, "deltaX": 0, "deltaY": -200, "modifiers": 2})
    zoomed = shown.after("zoomed", panned)
    assert length(zoomed) < length(panned) * 0.7
    page.keys(Keys.ARROW_LEFT)
    earlier = shown.after("earlier", zoomed)
    assert earlier[0] < zoomed[0]
    assert abs(length(earlier) - length(zoomed)) <= 2
    page.keys("-")
    longer = shown.after("longer", earlier)
    assert abs(length(longer) - 2 * length(earlier)) <= 4
    page.keys(Keys.ARROW_RIGHT, Keys.ARROW_RIGHT, Keys.ARROW_RIGHT, Keys.ARROW_RIGHT)
    latest = shown.after("later", longer)
    assert latest[1] <= time.time() * 1000, "not beyond now"
    page.keys(Keys.ESCAPE)
    page.wait("live", lambda: page.text("#live-word") == "LIVE")
    page.keys("+")
    page.wait("a minute", lambda: "range=1m" in chromium.current_url)
    assert page.text("#ranges").split() == ["1", "m", "5", "m", "1", "h", "24", "h", "3", "d"], "up to what is kept"


def test_fingers_pan_and_zoom(chromium: Chrome, farm: Daemon) -> None:
    """One finger pans a chart, two zoom it, one that moves down scrolls the page."""
    with window(chromium, 390, 700, mobile=True):
        page = Page(chromium, farm, "#device=pump-1")
        page.wait("the charts", lambda: page.drawn("pressure"))
        place = "const it = document.querySelector('.chart .u-over'); it.scrollIntoView({block: 'center'});"
        place += "const {left, top, width} = it.getBoundingClientRect(); return [left + width / 2, top + 30, width]"
        shown = Window(page)

        def drag(*fingers: tuple[float, float]) -> None:
            middle, y, _ = page.run(place)
            for share in (0.0, 0.25, 0.5, 0.75, 1.0):
                at = [{"x": middle + a + (b - a) * share, "y": y, "id": i} for i, (a, b) in enumerate(fingers)]
                kind = "touchMove" if share else "touchStart"
                chromium.execute_cdp_cmd("Input.dispatchTouchEvent", {"type": kind, "touchPoints": at})
            chromium.execute_cdp_cmd("Input.dispatchTouchEvent", {"type": "touchEnd", "touchPoints": []})

        drag((0, page.run(place)[2] / 4))
        panned = shown.after("panned", (0, 0))
        assert abs(length(panned) - 300_000) < 1000
        drag((-20, -80), (20, 80))
        zoomed = shown.after("zoomed", panned)
        assert length(zoomed) < length(panned) / 2
        assert page.run("return getComputedStyle(document.querySelector('.u-over')).touchAction") == "pan-y"
        targets = (
            "return [...document.querySelectorAll('button, input, select')].filter((it) => it.checkVisibility())"
            ".filter((it) => it.getBoundingClientRect().height < 31).map((it) => it.outerHTML)"
        )
        assert page.run(targets) == [], "all can be hit by a thumb"


def test_address_shows_the_same_again(chromium: Chrome, farm: Daemon) -> None:
    """What is chosen, the range, search, filter, order and view stand in the address, and a link shows the same."""
    page = Page(chromium, farm)
    page.wait("the rows", lambda: page.row("silo-1") and page.row("gone-1"))
    chromium.find_element(By.CSS_SELECTOR, '.row[data-device="silo-1"]').click()
    page.press("1 h")
    page.press("Table")
    page.run("document.activeElement.blur()")
    page.keys("/", "level", Keys.TAB, "s")
    page.press("Online 2")
    page.wait("the address", lambda: "state=online" in chromium.current_url)
    seen = (
        "return [...document.querySelectorAll('[aria-pressed=true], input, select, .head h2, .row:not([hidden]) .n')]"
        ".map((it) => it.value || it.textContent)"
    )
    page.wait("one row", lambda: not page.row("gone-1") and not page.row("pump-1"))
    before, address = page.run(seen), chromium.current_url
    again = Page(chromium, farm, "#" + address.partition("#")[2])
    again.wait("the same", lambda: again.run(seen) == before)
    assert {"silo-1", "level", "1 h", "Table", "Online 2", "state"} <= set(before)


def test_one_moment_on_all_charts(chromium: Chrome, farm: Daemon) -> None:
    """The mouse over one chart marks the same instant on all, in words."""
    page = Page(chromium, farm, "#device=pump-1")
    page.wait("the charts", lambda: page.drawn("pressure") and page.drawn("run"))
    over = chromium.find_element(By.CSS_SELECTOR, ".chart[data-metric=pressure] .u-over")
    ActionChains(chromium).move_to_element_with_offset(over, over.rect["width"] // 3, 0).perform()
    texts = "return ['pressure', 'run'].map((it) => document.querySelector(`[data-metric=${it}] .extent`).textContent)"

    def both(words: str) -> bool:
        return all(re.match(rf"\d\d:\d\d:\d\d  {words}", text) for text in page.run(texts))

    page.wait("both", lambda: both(r"(1\.\d\d|on|off)$"))
    first, second = (int(text[6:8]) for text in page.run(texts))
    assert (first - second) % 60 in (58, 59, 0, 1, 2), "to the nearest reading"
    ActionChains(chromium).move_to_element_with_offset(over, -over.rect["width"] // 3, 0).perform()
    page.wait("nothing", lambda: both("no reading"))


def test_charts_are_tables_too(chromium: Chrome, farm: Daemon) -> None:
    """Each chart says in words what it shows, and shows its readings as a table, the newest first, and back."""
    page = Page(chromium, farm, "#device=pump-1")
    page.wait("the charts", lambda: page.drawn("pressure") and page.drawn("run"))
    label = "return document.querySelector('[data-metric=pressure] .plot').getAttribute('aria-label')"
    page.wait("the words", lambda: page.run(label) == "Pressure: line chart, 1.00 to 1.59 bar, now 1.59")
    turn = chromium.find_element(By.CSS_SELECTOR, "[data-metric=pressure] .turn")
    turn.click()
    rows = "return [...document.querySelectorAll('[data-metric=pressure] tbody tr')].map((row) => row.innerText)"
    page.wait("the rows", lambda: len(page.run(rows)) == POINTS)
    assert [text.split()[1] for text in page.run(rows)] == [f"{1 + k / 100:.2f}" for k in reversed(range(POINTS))]
    chromium.find_element(By.CSS_SELECTOR, "[data-metric=run] .turn").click()
    page.wait("the runs", lambda: re.search(r"off 1\d s .* on 1\d s .* off", page.text("[data-metric=run] tbody")))
    turn.click()
    page.wait("the chart", lambda: page.text("[data-metric=pressure] .databox") == "")


def test_range_is_saved(chromium: Chrome, farm: Daemon, tmp_path: Path) -> None:
    """The readings of the range are saved as CSV, named after the device and the range, and the charts as a picture."""
    page = Page(chromium, farm, "#device=pump-1")
    page.wait("the charts", lambda: page.drawn("pressure") and page.card("mode"))
    with downloads(chromium, tmp_path) as saved:
        page.press("CSV")
        page.wait("the file", lambda: len(saved()) == 1)
        page.press("PNG")
        page.wait("the picture", lambda: len(saved()) == 2)
        table, picture = saved()
    for file in (table, picture):
        assert re.fullmatch(r"pump-1_\d{8}T\d{6}_\d{8}T\d{6}\.(csv|png)", file.name)
    lines = table.read_text().splitlines()
    assert len(lines) == POINTS * 3 + 1
    assert lines[-3].rpartition(",")[2] in ("1.59", "heating", "false")
    body = picture.read_bytes()
    assert body.startswith(b"\x89PNG")
    wide, high = struct.unpack(">II", body[16:24])
    assert wide > 600
    assert high > 300
    assert page.complaints() == []


def test_wall_shows_trouble_first(chromium: Chrome, farm: Daemon) -> None:
    """The wall shows large values, those in trouble first, and no controls; it obeys the search; a key leads there."""
    with window(chromium, 1920, 1080):
        page = Page(chromium, farm, "#q=-1")
        page.wait("the rows", lambda: "offline" in page.row("gone-1"))
        page.keys("w")
        page.wait("the tiles", lambda: "gone-1" in page.text(".tiles") and "Boiler" in page.text(".tiles"))
        assert "#wall" in chromium.current_url
        texts = page.run("return [...document.querySelectorAll('.tile')].map((it) => it.innerText)")
        tiles = [[line for line in text.split("\n") if line] for text in texts]
        assert tiles[0][0] == "Level"
        assert re.match("gone-1, offline since .*: closed", tiles[0][-1])
        assert any(tile[0] == "Pressure" and "1.59" in tile[1] and tile[-1] == "Boiler pump" for tile in tiles), tiles
        high = "return parseFloat(getComputedStyle(document.querySelector('.tile .value')).fontSize)"
        assert page.run(high) > 60
        controls = "return [...document.querySelectorAll('header button, .columns')]"
        assert page.run(controls + ".filter((it) => it.checkVisibility()).length") == 0
        assert page.width() == (1920, 1920)
        assert page.run("return document.querySelector('main').scrollHeight <= innerHeight")
        page.keys("w")
        page.wait("the list", lambda: page.row("pump-1"))
        page.run("location.hash = '#wall&q=silo'")
        page.wait("one tile", lambda: page.run("return document.querySelectorAll('.tile').length") == 1)
        page.keys(Keys.ESCAPE)
        page.wait("the list", lambda: page.row("silo-1"))
        assert page.complaints() == []
