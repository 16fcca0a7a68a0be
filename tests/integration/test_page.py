"""The page in a real browser, against the real daemon, fed by real devices."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from selenium.webdriver import ActionChains, Chrome
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys

from tests.integration.browser import Page, connected, stored, window
from tools.toolkit.servers import Daemon

FIRST_VIEW_BYTES = 150 * 1024

RUN = "window.pwned=1"
HARM = (
    f"<script>{RUN}</script>",
    f"<img src=x onerror={RUN}>",
    f"<svg/onload={RUN}>",
    f"<svg><animate onbegin={RUN} attributeName=x dur=1s></svg>",
    "<iframe srcdoc='<script>parent.pwned=1</script>'></iframe>",
    f"<details open ontoggle={RUN}>",
    f"<body onload={RUN}>",
    f"<input autofocus onfocus={RUN}>",
    f"<video><source onerror={RUN}></video>",
    f"<math><mtext><img src=x onerror={RUN}></mtext></math>",
    f"<a href=javascript:{RUN}>x</a>",
    f"<style>@keyframes a{{}}</style><b style=animation-name:a onanimationstart={RUN}>x</b>",
    f"<object data=javascript:{RUN}></object>",
    f"<form action=javascript:{RUN}><button>x</button></form>",
    f"<template><img src=x onerror={RUN}></template>",
    f"<meta http-equiv=refresh content='0;url=javascript:{RUN}'>",
    f"javascript:{RUN}//",
    f"{{{{constructor.constructor('{RUN}')()}}}}",
    f"${{{RUN}}}",
    f"');{RUN}//",
)
AROUND = (
    *("{}", '"><!--{}', "'>{}", "</title></textarea></style></script>{}", "]]>{}"),
    *("\u202e{}", "%3C{}", "&lt;{}", "{}\n{}", "`{}`"),
)
HOSTILE = tuple(around.replace("{}", harm) for around in AROUND for harm in HARM)


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    """A running gateway for those tests that have no need to be alone; their devices have names of their own."""
    with Daemon(tmp_path_factory.mktemp("shared"), {"GATEWAY_ID": "barn-north"}) as running:
        yield running


def test_number_from_frame_to_page(chromium: Chrome, daemon: Daemon) -> None:
    """A number that a device sends stands in the list and large over its chart, with its unit, then the next one."""
    page = Page(chromium, daemon)
    with window(chromium, 1280, 1100), connected(daemon, "pump-1") as pump:
        pump.describe(name="Boiler pump", metrics={"flow_temperature": {"unit": "Cel"}})
        pump.send(flow_temperature=71.25, door=True, mode="heating")
        page.wait("the number in the list", lambda: "71.25 °C" in page.row("pump-1"))
        assert re.match(r"Boiler pump pump-1 (now|\d+ s) 71.25 °C", page.row("pump-1"))
        page.wait("the number over its chart", lambda: page.text(".chart .big") == "71.25 °C")
        pump.send(flow_temperature=72.5, door=False, mode="idle")
        page.wait("the next number in the list", lambda: "72.50 °C" in page.row("pump-1"))
        page.wait("the next number over its chart", lambda: "72.50 °C" in page.card("flow_temperature"))
        page.wait("its extent", lambda: "min 71.25 max 72.50" in page.card("flow_temperature"))
        page.wait("the boolean", lambda: "off" in page.card("door"))
        page.wait("the log of texts", lambda: "idle" in page.card("mode") and "heating" in page.card("mode"))
        page.wait("the ledger", lambda: "2 received = 2 stored" in page.text(".ledger"))
        page.wait("the name", lambda: page.text("#gateway-id") == "barn-north")
        assert page.complaints() == []


def test_offline_is_shown_with_its_reason(chromium: Chrome, daemon: Daemon) -> None:
    """A device that goes away is shown offline in words, counted and found by the filters, its last value kept."""
    page = Page(chromium, daemon)
    with connected(daemon, "stays") as stays:
        stays.send(level=1)
        with connected(daemon, "goes") as goes:
            goes.send(level=63)
            page.wait("both online", lambda: "Online 2" in page.text(".chips"))
            page.wait("the value", lambda: "63" in page.row("goes"))
        page.wait("offline in the list", lambda: "offline" in page.row("goes"))
        assert "63" in page.row("goes"), "the last value is kept"
        page.wait("the counts", lambda: "Online 1 Stale 0 Offline 1" in page.text(".chips"))
        chromium.find_element(By.XPATH, "//*[@class='chips']/button[4]").click()
        page.wait("the filter", lambda: page.row("goes") and not page.row("stays"))
        assert "state=offline" in chromium.current_url
        chromium.find_element(By.CSS_SELECTOR, '.row[data-device="goes"]').click()
        page.wait("the reason", lambda: "offline since" in page.text(".head") and "closed" in page.text(".head"))


def test_a_clock_that_is_off_is_told(chromium: Chrome, daemon: Daemon) -> None:
    """A device whose times are an hour ahead is shown as such, and the readings are counted."""
    page = Page(chromium, daemon, "#device=ahead")
    with connected(daemon, "ahead") as device:
        device.past([(int(time.time() * 1000) + 3_600_000, {"level": 1}), (1_600_000_000_000, {"level": 1})])
        page.wait("the clock", lambda: re.search(r"its clock is (1 h|59 m)[^,]* ahead", page.text(".head")))
        page.wait("the count", lambda: "1 with a time ahead" in page.text(".ledger"))
        assert "1 with a time long past" in page.text(".ledger")


def test_hostile_strings_stay_text(chromium: Chrome, daemon: Daemon) -> None:
    """Two hundred hostile values, names and units are shown as text and never run, also without the security policy."""
    assert len(set(HOSTILE)) == 200
    short = [text for text in HOSTILE if len(text) <= 32 and "\n" not in text]  # as long as a unit may be
    chromium.execute_cdp_cmd("Page.setBypassCSP", {"enabled": True})
    try:
        with ExitStack() as stack:
            for k in range(0, 200, 10):
                device = stack.enter_context(connected(daemon, f"evil-{k}"))
                units = {f"n{i}": {"unit": short[(k + i) % len(short)]} for i in range(10)}
                device.describe(name=HOSTILE[k], metrics=units)
                device.send(**{f"n{i}": i for i in range(10)})
            evil = stack.enter_context(connected(daemon, "evil"))
            now = int(time.time() * 1000)
            evil.past([(now - 100 + k, {f"note{i}": HOSTILE[50 * i + k] for i in range(4)}) for k in range(50)])
            page = Page(chromium, daemon, "#device=evil")
            shown = "return [...document.querySelectorAll('.chart .log span')].map((row) => row.textContent)"
            seen = {text.replace("\u202e", "‹U+202E›") for text in HOSTILE}
            page.wait("all of them in the logs", lambda: set(page.run(shown)) == seen)
            page.wait("a name", lambda: HOSTILE[0] in page.run("return document.querySelector('.rows').textContent"))
            search = "%3Cimg src=x onerror=window.pwned=1%3E"
            for hash in ("#device=evil-0", "#device=evil-0&view=table", f"#device=evil&q={search}", "#wall"):
                page.run("location.hash = arguments[0]", hash)
                page.run("document.querySelectorAll('.turn').forEach((button) => button.click())")
                page.wait("a drawing", lambda hash=hash: page.text(".tile" if "wall" in hash else ".head h2"))
            page.wait("a unit on the wall", lambda: len(page.run("return document.querySelectorAll('.tile')")) == 12)
            elements = (
                "return document.querySelectorAll('img, iframe, object, video, form, a, meta[http-equiv], "
                "script:not([src]), [onerror], [onload], [onfocus], [ontoggle]').length"
            )
            assert page.run(elements) == 0
            assert page.run("return window.pwned ?? null") is None
    finally:
        chromium.execute_cdp_cmd("Page.setBypassCSP", {"enabled": False})


def test_recovers_after_restart(chromium: Chrome, daemon: Daemon) -> None:
    """While the daemon is dead the page says so and counts down; when it is back the page goes on without a reload."""
    with connected(daemon, "pump-1") as pump:
        pump.send(pressure=1.5)
        page = Page(chromium, daemon)
        page.wait("the first number", lambda: "1.5" in page.row("pump-1"))
        page.run("window.same = true")
        daemon.kill()
    page.wait("the bar", lambda: "Connection to the gateway lost" in page.text("#lost"))
    assert page.text("#live-word") == "Not live"
    assert "1.5" in page.row("pump-1")
    page.wait("the countdown", lambda: "trying again in" in page.text("#lost"))
    assert page.faults() == []
    daemon.start()
    with connected(daemon, "pump-1") as pump:
        pump.send(pressure=2.5)
        page.wait("live again", lambda: page.text("#live-word") == "LIVE" and not page.text("#lost"))
        page.wait("the new number", lambda: "2.5" in page.row("pump-1"))
        page.wait("both in the chart", lambda: "min 1.5 max 2.5" in page.card("pressure"))
        page.wait("the gateway's absence in words", lambda: "gateway away" in page.text(".strip"))
        assert page.run("return document.querySelectorAll('.strip rect.away').length") == 1
        assert page.text("[data-stage=dashboards] strong") != "0"
        assert page.run("return window.same") is True
        assert page.complaints() == []


def test_empty_page_changes_when_the_first_device_knocks(chromium: Chrome, daemon: Daemon) -> None:
    """Without devices the page shows this gateway's address and a program to copy; the program's device replaces it."""
    page = Page(chromium, daemon)
    page.wait("the welcome", lambda: "Connect your first device" in page.text("#welcome"))
    address = page.text("#welcome .where code")
    assert address == f"ws://127.0.0.1:{daemon.port}/v1/devices/my-first-device"
    for language, word in (("Python", "websockets"), ("JavaScript", "new WebSocket"), ("Arduino", "WebSocketsClient")):
        chromium.find_element(By.XPATH, f"//section[@id='welcome']//button[text()='{language}']").click()
        assert word in page.text("#welcome pre")
    assert page.faults() == []
    with connected(daemon, address.rpartition("/")[2]) as first:
        first.send(temperature=22.5)
        page.wait("the device", lambda: "22.5" in page.row("my-first-device"))
        page.wait("its chart", lambda: "22.5" in page.card("temperature"))
        assert page.text("#welcome") == ""


def test_drag_pauses_and_double_click_goes_live(chromium: Chrome, shared: Daemon) -> None:
    """A drag over a chart shows that stretch and counts what comes meanwhile; a double click goes back to live."""
    with connected(shared, "drag-1") as pump:
        pump.send(level=1)
        page = Page(chromium, shared, "#device=drag-1")
        page.wait("the chart", lambda: page.run("return document.querySelector('.chart .u-over') !== null"))
        over = chromium.find_element(By.CSS_SELECTOR, ".chart .u-over")
        ActionChains(chromium).move_to_element(over).click_and_hold().move_by_offset(40, 0).move_by_offset(
            40, 0
        ).release().perform()
        page.wait("paused", lambda: page.text("#live-word").startswith("Paused"))
        assert "from=" in chromium.current_url
        pump.send(level=2)
        pump.send(level=3)
        page.wait("what came", lambda: page.text("#live-word") == "Paused, 2 new")
        ActionChains(chromium).double_click(over).perform()
        page.wait("live", lambda: page.text("#live-word") == "LIVE")
        assert "from=" not in chromium.current_url


def test_first_view_is_small_and_from_here(chromium: Chrome, shared: Daemon) -> None:
    """The first view takes less than 150 KiB over the wire, and asks no other host."""
    page = Page(chromium, shared)
    page.wait("the feed", lambda: page.text("#live-word") == "LIVE")
    resources = page.run(
        "return [...performance.getEntriesByType('navigation'), ...performance.getEntriesByType('resource')]"
        ".map((entry) => [entry.name, entry.encodedBodySize])"
    )
    assert [name for name, _ in resources if not name.startswith(shared.address)] == []
    assert sum(size for _, size in resources) < FIRST_VIEW_BYTES
    assert len(resources) > 10


def test_list_row_reads_short_and_whole(chromium: Chrome, shared: Daemon) -> None:
    """A row says the name whole, the id and the age; the state in words only where it is not online."""
    names = [f"heating-circuit-{i}" for i in range(1, 4)]
    with window(chromium, 1440, 900), connected(shared, names[0]) as first, connected(shared, names[1]) as second:
        for device, name in ((first, "Air compressor 12"), (second, "North greenhouse heating circuit, upper part 12")):
            device.describe(name=name, metrics={"flow": {"unit": "m3/h"}})
            device.send(flow=1.5)
        with connected(shared, names[2]) as third:
            third.describe(metrics={"flow": {"unit": "m3/h"}})
            third.send(flow=1.25)
        page = Page(chromium, shared)
        page.wait("the rows", lambda: all(page.row(name) for name in names) and "Air" in page.row(names[0]))
        page.wait("offline in words", lambda: "offline" in page.row(names[2]))
        assert "online" not in page.row(names[0])
        icon = f'.row[data-device="{names[0]}"] .icon'
        assert page.run("return document.querySelector(arguments[0]).getAttribute('aria-label')", icon) == "online"
        cut = (
            "return ['n', 'id'].map((part) => document.querySelector(`.row[data-device='${arguments[0]}'] .${part}`))"
            ".map((node) => [node.textContent, node.firstChild.scrollWidth > node.firstChild.clientWidth + 1])"
        )
        assert page.run(cut, names[0]) == [["Air compressor 12", False], [names[0], False]]
        assert page.run(cut, names[1])[0][1] is True, "no room for the whole name"
        page.wait("even decimals", lambda: "1.50 m³/h" in page.row(names[0]) and "1.25" in page.row(names[2]))
        ends = page.run(
            "const row = document.querySelector(`.row[data-device='${arguments[0]}']`);"
            "const [end, spark] = [row.querySelector('.n').lastChild, row.querySelector('.spark')];"
            "return [end.getBoundingClientRect().right, spark.getBoundingClientRect().left]",
            names[1],
        )
        assert ends[0] <= ends[1], "the end of a long name is seen"


def test_page_is_as_tall_as_its_window(chromium: Chrome, shared: Daemon) -> None:
    """On the desk the window itself never scrolls: the list ends at its edge, and many charts scroll by themselves."""
    with window(chromium, 1440, 900), connected(shared, "tall-1") as pump:
        pump.send(**{f"m{i}": i for i in range(12)})
        page = Page(chromium, shared, "#device=tall-1")
        page.wait("the charts", lambda: "11" in page.card("m11"))
        heights = (
            "return [document.documentElement.scrollHeight - innerHeight,"
            " innerHeight - document.querySelector('#list').getBoundingClientRect().bottom]"
        )
        over, under = page.run(heights)
        assert over == 0
        assert 0 <= under <= 20
        device = (
            "const it = document.querySelector('#device'); return [it.scrollHeight > it.clientHeight, it.scrollTop]"
        )
        assert page.run(device) == [True, 0]
        page.keys(Keys.PAGE_DOWN)
        page.wait("the charts to scroll", lambda: page.run(device)[1] > 0)
        assert page.run("return scrollY") == 0


def test_booleans_and_texts_say_the_same_on_every_range(chromium: Chrome, shared: Daemon) -> None:
    """Booleans and texts are shown from their readings on long ranges too: all changes, and when they were."""
    now = int(time.time() * 1000)
    rows: list[tuple[int, dict[str, object]]] = [
        (now - (150 - k) * 20_000, {"door": 50 <= k < 52 or k >= 100, "mode": ("idle", "heating", "idle")[k // 50]})
        for k in range(150)
    ]
    with connected(shared, "gate") as gate:
        gate.past(rows)
        page = Page(chromium, shared, "#device=gate")
        page.wait("the history", lambda: stored(shared, "gate", "door", len(rows)))
        for label in ("1 h", "24 h", "30 d"):
            page.press(label)
            page.wait(f"the boolean over {label}", lambda: re.search(r"on 3[45] %, 3 changes", page.card("door")))
            page.wait(f"the texts over {label}", lambda: "2 changes" in page.card("mode"))
            shown = page.run("return [...document.querySelectorAll('.chart .log time')].map((it) => it.textContent)")
            times = [
                page.run("return new Date(arguments[0]).toTimeString().slice(0, 8)", rows[k][0]) for k in (100, 50, 0)
            ]
            assert all(text.endswith(at) for text, at in zip(shown, times, strict=True)), (label, shown, times)
        assert page.complaints() == []


def test_too_many_booleans_are_called_sampled(chromium: Chrome, tmp_path: Path) -> None:
    """Where there are too many readings of a boolean or a text to show each, the page says that it shows samples."""
    now, n = int(time.time() * 1000), 12_000
    with (
        Daemon(
            tmp_path, {"GATEWAY_LIMITS__DEVICE_RATE": "1000000", "GATEWAY_LIMITS__DEVICE_BURST": "1000000"}
        ) as daemon,
        connected(daemon, "busy") as busy,
    ):
        busy.past([(now - (n - k) * 7000, {"run": k % 100 < 25, "mode": f"m{k // 4000}"}) for k in range(n)])
        page = Page(chromium, daemon, "#range=24h")
        page.wait("the history", lambda: stored(daemon, "busy", "run", n))
        page.press("7 d")
        page.press("24 h")
        page.wait("what is sampled", lambda: "sampled each 2 m" in page.card("run"))
        assert re.search(r"on about 2[3-7] %", page.card("run"))
        page.wait("the texts", lambda: "sampled each 2 m" in page.card("mode") and "by " in page.card("mode"))
        page.press("1 h")
        page.wait("each of an hour", lambda: re.search(r"on \d+ %, \d+ changes", page.card("run")))


def fits_a_phone(chromium: Chrome, daemon: Daemon, device: str, width: int, metric: str) -> None:
    with window(chromium, width, 800, mobile=True):
        page = Page(chromium, daemon, f"#device={device}")
        page.wait("the charts", lambda: all(page.card(name) for name in (metric, "a", "s", "big")))
        assert page.width() == (width, width)
        inside = (
            "return [...document.querySelectorAll('.bar button')].filter((it) => it.checkVisibility())"
            ".every((it) => it.getBoundingClientRect().right <= innerWidth)"
        )
        assert page.run(inside), "every button of the bar is seen"
        page.press("Table")
        page.wait("the table", lambda: metric in page.text(".values").replace(" ", ""))
        assert page.width() == (width, width)


def test_longest_names_fit_a_phone(chromium: Chrome, shared: Daemon) -> None:
    """The longest legal names and texts are cut or broken: nothing makes a phone's page wider than its window."""
    device, metric = "x" * 64, "m" * 128
    with connected(shared, device) as odd:
        odd.describe(
            name="A long name that somebody typed in by accident, twice or so", metrics={"a": {"unit": "W" * 30}}
        )
        odd.send(**{metric: 1e9 + 0.125, "a": 1, "s": "x" * 1024, "big": 9007199254740993})
        for width in (360, 400):
            fits_a_phone(chromium, shared, device, width, metric)
        with window(chromium, 1440, 900):
            page = Page(chromium, shared, f"#device={device}&view=table")
            page.wait("the sums", lambda: page.text(".values").count("1,000,000,000") == 4)
            fits = "const it = document.querySelector('.tablebox'); return it.scrollWidth <= it.clientWidth"
            page.wait("room for it", lambda: page.run(fits))


def test_keys_are_told_and_pause_is_a_button(chromium: Chrome, daemon: Daemon) -> None:
    """A button and a key list the keys; a button pauses and goes back to live, and the badge is not one."""
    with connected(daemon, "pump-1") as pump, connected(daemon, "pump-2") as other:
        pump.send(level=1)
        other.send(level=2)
        page = Page(chromium, daemon)
        page.wait("the first device", lambda: page.text(".head h2") == "pump-1")
        page.press("?")
        page.wait("the keys", lambda: "find a device" in page.text("dialog") and "Space" in page.text("dialog"))
        page.keys(Keys.ESCAPE)
        page.wait("no keys", lambda: page.text("dialog") == "")
        page.run("document.activeElement.blur()")
        page.keys("?")
        page.wait("the keys again", lambda: "find a device" in page.text("dialog"))
        page.keys("j")
        page.press("Close")
        assert page.text(".head h2") == "pump-1", "other keys rest meanwhile"
        page.run("document.activeElement.blur()")
        page.keys("j")
        page.wait("the next device", lambda: page.text(".head h2") == "pump-2")
        page.keys("k")
        page.wait("the one before", lambda: page.text(".head h2") == "pump-1")
        assert page.run("return document.querySelector('#live').tagName") == "SPAN"
        page.press("Pause")
        page.wait("paused", lambda: page.text("#live-word").startswith("Paused"))
        page.press("Back to live")
        page.wait("live", lambda: page.text("#live-word") == "LIVE")


def test_metric_says_its_name_and_true_extremes(chromium: Chrome, shared: Daemon) -> None:
    """A chart's head and the table name the metric exactly; extremes have the decimals they need."""
    with connected(shared, "metric-1") as pump:
        pump.describe(metrics={"count": {"integer": True}})
        for a, count in ((22.5, 9007199254740993), (20, 9007199254740995)):
            pump.send(a=a, count=count)
        page = Page(chromium, shared, "#device=metric-1")
        page.wait("the extremes", lambda: "min 20.0 max 22.5" in page.card("a"))
        page.wait("the long integer", lambda: "9,007,199,254,740,995" in page.card("count"))
        assert page.text('.chart[data-metric="a"] h3') == "A"
        assert page.run("return document.querySelector('.chart[data-metric=a] h3').title") == "a"
        page.press("Table")
        page.wait("the table", lambda: re.search(r"A 20.0 20.0 21.[23] 22.5 2 ", page.text(".values")))
        assert page.complaints() == []
