"""Figures and words of the page: what is a number, how it is written, what is said once, what keeps its place."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from selenium.webdriver import Chrome

from tests.integration.browser import Page, connected, window
from tests.integration.test_page_edges import alone
from tools.toolkit.servers import Daemon

BEYOND = 9_007_199_254_740_993


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    """A running gateway; the devices of each test have names of their own."""
    with Daemon(tmp_path_factory.mktemp("shared"), {}) as running:
        yield running


def test_whole_numbers_beyond_a_browsers_are_numbers(chromium: Chrome, shared: Daemon) -> None:
    """A metric of nothing but integers beyond 2^53 is one chart, in each range; digits among words are a text."""
    now = int(time.time() * 1000)
    with connected(shared, "huge") as huge:
        texts = [("idle", "1234567890123456789")[k % 2] for k in range(60)]
        huge.past([(now - (60 - k) * 1000, {"big": BEYOND + k, "note": texts[k]}) for k in range(60)])
        cards = "return [...document.querySelectorAll('.chart')].map((it) => it.className.split(' ')[2]).sort()"
        for hash in ("range=1m", "range=5m", "range=1h", "range=6h"):
            page = Page(chromium, shared, f"#device=huge&{hash}")
            page.wait("the extremes", lambda page=page: "max 9.007199×10¹⁵" in page.card("big"))
            page.wait("a chart and a log", lambda page=page: page.run(cards) == ["number", "text"])
            assert f"{BEYOND + 59:,}" in page.card("big")
        assert page.complaints() == []
    kinds = alone(
        chromium,
        shared,
        """
        const {kindOf, Store} = await import('/store.js'), store = new Store(() => 5);
        const texts = ['9007199254740991', '09007199254740993', '9223372036854775808', '12345678901234567890'];
        const numbers = ['9007199254740992', '-9007199254740992', '9223372036854775807', '-9223372036854775808'];
        store.snapshot({devices: {d: {values: {serial: [1, numbers[0]]}}}});
        const serial = store.get('d').metric('serial');
        const first = serial.kind;
        for (const text of ['idle', numbers[0]]) serial.take(2, text);
        return [texts.map((it) => kindOf(it)), numbers.map((it) => kindOf(it)), first, serial.kind];
        """,
    )
    assert kinds == [["text"] * 4, ["number"] * 4, "number", "text"]


def test_metrics_are_named_once(chromium: Chrome, shared: Daemon) -> None:
    """A card and a row of the table show a metric's label alone, which has all of its name but case and separators."""
    with connected(shared, "named") as named:
        named.send(flow_rate=5)
        page = Page(chromium, shared, "#device=named")
        page.wait("the card", lambda: re.match(r"Flow rate (min|5)", page.card("flow_rate")))
        page.press("Table")
        page.wait("the row", lambda: re.match(r"Flow rate 5 ", page.text(".values tbody")))
        assert page.run("return document.querySelector('.values tbody th').title") == "flow_rate"


def test_whole_numbers_have_no_decimals_of_other_devices(chromium: Chrome, shared: Daemon) -> None:
    """A metric of whole numbers is written as such, whatever another device's metric of that name and unit needs."""
    texts = alone(
        chromium,
        shared,
        """
        const {Store} = await import('/store.js'), store = new Store(() => 5);
        const power = {metrics: {power: {unit: 'W'}}};
        store.rows(['a', 'b', 'c'].map((device) => ({device, ...power})));
        const told = (values) => Object.entries(values).map(([name, value]) => [name, {power: [[5, value]]}]);
        const said = () => ['a', 'b', 'c'].map((name) => store.get(name).metric('power').text);
        store.update({data: Object.fromEntries(told({a: 216, b: 215.25, c: 7.5}))});
        const first = said();
        store.update({data: Object.fromEntries(told({a: 216.5, b: 215, c: 7}))});
        return [first, said()];
        """,
    )
    assert texts == [["216", "215.25", "7.50"], ["216.50", "215.00", "7.00"]]


def test_empty_range_has_no_scale(chromium: Chrome, shared: Daemon) -> None:
    """Where nothing was read the chart says so and shows no scale, whether it had one before or not."""
    painted = (
        "const {ctx, bbox} = document.querySelector('[data-metric=level]').card.plot, side = bbox.left + bbox.width;"
        "const {data} = ctx.getImageData(side + 4, 0, ctx.canvas.width - side - 4, bbox.top + bbox.height);"
        "let n = 0; for (let i = 3; i < data.length; i += 4) n += data[i] > 60; return n"
    )
    now = int(time.time() * 1000)
    with connected(shared, "empty") as device:
        device.past([(now - (60 - k) * 1000, {"level": 40 + k % 7}) for k in range(60)])
        page = Page(chromium, shared, f"#device=empty&from={now - 7_200_000}&to={now - 7_000_000}")

        def empty() -> bool:
            return "No readings in this range" in page.card("level") and page.run(painted) == 0

        page.wait("nothing", empty)
        page.run("location.hash = 'device=empty'")
        page.wait("a scale", lambda: "max 46" in page.card("level") and page.run(painted) > 0)
        page.run("location.hash = arguments[0]", f"device=empty&from={now - 7_200_000}&to={now - 7_000_000}")
        page.wait("nothing again", empty)
        assert page.complaints() == []


def test_order_by_state_is_seen(chromium: Chrome, shared: Daemon) -> None:
    """Ordered by state, each row says for how long it is in its state, and the newest of these stands first."""
    for name in ("sort-a", "sort-b", "sort-c"):
        with connected(shared, name) as device:
            device.send(level=1)
            time.sleep(0.05)
    page = Page(chromium, shared, "#q=sort-&sort=state")
    page.wait("how long", lambda: re.search(r"offline (for \d+ s|just now)", page.row("sort-a")))
    order = (
        "return [...document.querySelectorAll('.row:not([hidden])')].sort((a, b) => a.ariaPosInSet - b.ariaPosInSet)"
    )
    assert page.run(f"{order}.map((it) => it.dataset.device)") == ["sort-c", "sort-b", "sort-a"]
    page.run("location.hash = '#q=sort-'")
    page.wait("as always", lambda: page.row("sort-a") and " for " not in page.row("sort-a"))


def test_nothing_moves_when_a_device_turns_stale(chromium: Chrome, shared: Daemon) -> None:
    """What stands below the facts and the strip keeps its place, however much these say."""
    with connected(shared, "calm") as device, window(chromium, 1280, 900):
        device.describe(interval_s=3600)
        device.send(level=1)
        page = Page(chromium, shared, "#device=calm")
        page.wait("its chart", lambda: page.drawn("level"))
        places = (
            "const top = (it) => document.querySelector(it).getBoundingClientRect().top;"
            "const facts = document.querySelector('.head .facts'), say = document.querySelector('.strip .say');"
            "return arguments[0].map((words) => {"
            " facts.textContent = say.textContent = words; return [top('.ledger'), top('.grid')]; })"
        )
        stale = "since 13:47: nothing for 3 s, expected each 0.5 s, last reading 12 s ago, every 0.5 s, "
        first, *others = page.run(places, ["", "last reading now", stale, stale * 2, stale * 5])
        assert all(at == first for at in others)


def test_wall_is_read_from_across_the_room(chromium: Chrome, shared: Daemon) -> None:
    """On a wall screen full of tiles the smallest words are about a thirtieth of its height, and nothing overlaps."""
    for i in range(12):
        with connected(shared, f"wall-{i:02}") as device:
            device.send(level=20.5 + i)
    with window(chromium, 1920, 1080):
        page = Page(chromium, shared, "#wall&q=wall-")
        page.wait("the tiles", lambda: len(page.run("return document.querySelectorAll('.tile')")) == 12)
        page.wait("their words", lambda: "offline since" in page.text(".tile .said"))
        size = "return parseFloat(getComputedStyle(document.querySelector(arguments[0])).fontSize)"
        for words in (".tile .said", ".tile .what", ".walltop"):
            assert page.run(size, words) > (35 if "tile" in words else 27), words
        apart = (
            "return [...document.querySelectorAll('.tile')].map((it) => ['.what', '.value', '.said'].map((part) =>"
            " it.querySelector(part).getBoundingClientRect()))"
            ".filter(([a, b, c]) => a.bottom > b.top + 2 || b.bottom > c.top + 2).length"
        )
        assert page.run(apart) == 0


def test_states_before_a_crash_are_in_the_strip(chromium: Chrome, tmp_path: Path) -> None:
    """After a crash of the gateway the strip shows the states before it, with their reasons."""
    with Daemon(tmp_path, {}) as daemon:
        with connected(daemon, "pump-1") as pump:
            pump.describe(interval_s=0.5)
            pump.send(level=1)
            page = Page(chromium, daemon, "#device=pump-1")
            page.wait("stale", lambda: "stale" in page.text(".strip .say"))
            pump.send(level=2)
            page.wait("online", lambda: page.text(".head .tag") == "online")
        page.wait("offline", lambda: "closed" in page.text(".strip .say"))
        daemon.kill()
        daemon.start()
        page = Page(chromium, daemon, "#device=pump-1&range=1h")
        page.wait("the stale stretch", lambda: page.run("return document.querySelector('.strip rect.stale')"))
        titles = "return [...document.querySelectorAll('.strip rect title')].map((it) => it.textContent).join('; ')"
        page.wait("its reason", lambda: "expected every 0.5 s" in page.run(titles))
        page.wait("its words", lambda: re.search(r"stale [^;]*, offline .*closed", page.text(".strip .say")))
        assert page.complaints() == []
