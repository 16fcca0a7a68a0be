"""The page at the edges: what is searched for, what came late, the greatest numbers, odd addresses, names and kinds."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from typing import Any

import pytest
from selenium.webdriver import Chrome

from tests.integration.browser import Page, connected, touch, window
from tools.toolkit.servers import Daemon

GREATEST = 1.7976931348623157e308


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    """A running gateway; the devices of each test have names of their own."""
    with Daemon(tmp_path_factory.mktemp("shared"), {"GATEWAY_ID": "barn-north"}) as running:
        yield running


def alone(chromium: Chrome, daemon: Daemon, steps: str, *arguments: object) -> Any:
    """What ``steps`` (JavaScript) return where the page's modules can be had and nothing else runs."""
    chromium.get(f"{daemon.address}/app.css")
    return chromium.execute_async_script(
        "const given = arguments, done = given[given.length - 1];"
        f"(async () => {{ {steps} }})().then(done, (error) => done(`${{error}}`))",
        *arguments,
    )


def test_page_without_tokens_has_no_door(chromium: Chrome, shared: Daemon) -> None:
    """A gateway that lets everybody in shows neither a sign-out nor who knocked, and is not asked for them."""
    page = Page(chromium, shared)
    page.wait("the welcome", lambda: "Connect your first device" in page.text("#welcome"))
    page.wait("its name", lambda: page.text("#gateway-id") == "barn-north")
    assert page.text("#sign-out") == page.text("#knocks") == page.text("#door") == ""
    assert "Devices need a token" not in page.text("#welcome")
    assert "oken" not in page.text("#welcome pre")
    asked = page.run("return performance.getEntriesByType('resource').map((it) => it.name)")
    assert not [name for name in asked if "pending" in name]


def test_wall_and_order_obey_the_metric_searched_for(chromium: Chrome, shared: Daemon) -> None:
    """The wall shows the metric that was searched for, of few devices and of many; the list orders by what it shows."""
    names = [f"find-{i}" for i in range(5)]
    for i, name in enumerate(names):
        with connected(shared, name) as device:
            device.send(heat=20 + i, humidity=60 - i)
            if i == 0:
                device.send(humidity_max=75)
    page = Page(chromium, shared, "#wall&q=humidity")
    tiles = "return [...document.querySelectorAll('.tile')].map((it) => it.querySelector('.value').innerText.trim())"
    page.wait("many", lambda: sorted(page.run(tiles)) == ["56", "57", "58", "59", "60"])
    assert "Humidity" in page.text('.tile[data-device="find-1"]')
    page.run("location.hash = '#wall&q=humidity_'")
    page.wait("one", lambda: page.run(tiles) == ["75"])
    page.run("location.hash = '#wall&q=find-0'")
    page.wait("all of a device", lambda: sorted(page.run(tiles)) == ["20", "60", "75"])
    page.run("location.hash = '#q=humidity&sort=value'")
    page.wait("the values", lambda: all(" Humidity" in page.row(name) for name in names))
    order = (
        "return [...document.querySelectorAll('.row:not([hidden])')].sort((a, b) => a.ariaPosInSet - b.ariaPosInSet)"
    )
    assert page.run(f"{order}.map((it) => it.dataset.device)") == names


def test_sparkline_is_asked_for_again_when_what_was_late_is_stored(chromium: Chrome, shared: Daemon) -> None:
    """A sparkline asked for when the feed had just come back is asked for once more, when what came late is stored."""
    asked, length = alone(
        chromium,
        shared,
        """
        const {askSpark} = await import('/spark.js'), {Store, sparkOf} = await import('/store.js');
        let clock = 1e12, asked = 0;
        window.fetch = async () => {
          asked += 1;
          const rows = [1, 2, 3, 4].slice(0, asked).map((n) => ({time: 1e12 - n * 5000, metric: 'm', value: n}));
          return new Response(JSON.stringify(rows));
        };
        const store = new Store(() => clock);
        store.snapshot({devices: {d: {state: 'online', since: 1, last_seen: clock, values: {m: [clock, 7]}}}});
        const device = store.get('d'), metric = device.metric('m'), counts = [];
        const look = async (at) => {
          clock = 1e12 + at;
          askSpark(device, metric, 1e12, store.opened, clock, () => true, () => {});
          await new Promise((next) => setTimeout(next, 20));
          counts.push(asked);
        };
        store.opened = 1e12;
        for (const at of [0, 1000, 16_000, 60_000]) await look(at);
        store.opened = 1e12 + 70_000;
        for (const at of [70_000, 90_000, 200_000]) await look(at);
        store.opened = 1e12 + 210_000;
        for (const at of [300_000, 400_000]) await look(at);
        device.stand({state: 'offline', since: 1e12 + 410_000});
        await look(420_000);
        device.stand({state: 'online', since: 1e12 + 430_000});
        for (const at of [430_000, 450_000]) await look(at);
        return [counts, sparkOf(metric).length];
        """,
    )
    assert asked == [1, 1, 2, 2, 3, 4, 4, 5, 5, 5, 6, 7]
    assert length == 5


def test_sparkline_that_fails_is_left_alone_for_a_while(chromium: Chrome, shared: Daemon) -> None:
    """While the history does not answer, a sparkline is tried each ten seconds, not with each drawing of its row."""
    asked = alone(
        chromium,
        shared,
        """
        const {askSpark} = await import('/spark.js'), {Store} = await import('/store.js');
        let clock = 1e12, asked = 0, status = 503;
        window.fetch = async () => { asked += 1; return new Response('[]', {status}); };
        const store = new Store(() => clock);
        store.snapshot({devices: {d: {state: 'online', since: 1, last_seen: clock, values: {m: [clock, 7]}}}});
        const device = store.get('d'), metric = device.metric('m'), counts = [];
        store.opened = 1e12 - 60_000;
        const look = async (at, wanted = true) => {
          clock = 1e12 + at;
          askSpark(device, metric, 1e12, store.opened, clock, () => wanted, () => {});
          await new Promise((next) => setTimeout(next, 20));
          counts.push(asked);
        };
        for (const at of [0, 500, 9000, 10_000, 10_500]) await look(at);
        store.opened = 1e12 + 11_000;
        for (const at of [11_000, 11_500]) await look(at);
        status = 200;
        for (const at of [20_000, 21_000, 22_000]) await look(at);
        store.opened = 1e12 + 100_000;
        await look(200_000, false);
        for (const at of [200_500, 201_000]) await look(at);
        return counts;
        """,
    )
    assert asked == [1, 1, 1, 2, 2, 3, 3, 3, 4, 4, 4, 5, 5], "a break, and one that nobody wanted, end the wait"


def test_strip_says_of_a_sink_that_is_away_what_the_problem_says(chromium: Chrome, shared: Daemon) -> None:
    """All that waits, once the far side is away; what came in the last moment is not behind while all is well."""
    shown = alone(
        chromium,
        shared,
        """
        const {stagesOf} = await import('/way.js');
        return ['ok', 'waiting', 'stopped'].map((state) => {
          const sinks = [{name: 'mqtt', title: 'MQTT', state, pending: 512, behind: 12}];
          return stagesOf({sinks}, 0, true).find(({key}) => key === 'sink-mqtt').strong;
        });
        """,
    )
    assert shown == ["12", "512", "512"]


def test_lost_connection_is_one_line_with_its_sign_on_a_phone(chromium: Chrome, shared: Daemon) -> None:
    """The icon of the bar that tells it stands beside the words, not above them."""
    with window(chromium, 360, 740):
        page = Page(chromium, shared)
        page.wait("the page", lambda: page.text("#live-word") == "LIVE")
        bottom, top, right, left, end = page.run(
            "document.querySelector('#lost').hidden = false;"
            "document.querySelector('#lost-what').textContent = 'Connection to the gateway lost.';"
            "document.querySelector('#lost-why').textContent = 'Connection broken. What is shown is not live.';"
            "const at = (it) => document.querySelector(`#lost ${it}`).getBoundingClientRect();"
            "return [at('.icon').bottom, at('p').top, at('.icon').right, at('p').left, at('button').right]"
        )
        assert bottom > top
        assert right < left
        assert end <= 360


def test_greatest_numbers_are_drawn(chromium: Chrome, shared: Daemon) -> None:
    """Numbers near the greatest there is are drawn in the list and in the chart, with their axis, and have a mean."""
    with window(chromium, 1440, 1100), connected(shared, "great") as great:
        now = int(time.time() * 1000)
        rows = [
            {"both": (-GREATEST, GREATEST)[k % 2], "top": GREATEST, "near": (1.2e308, 1.6e308)[k % 2]}
            for k in range(60)
        ]
        great.past([(now - (60 - k) * 1000, row) for k, row in enumerate(rows)])
        page = Page(chromium, shared, "#device=great")
        drawn = (
            "const canvas = document.querySelector(`[data-metric='${arguments[0]}'] canvas`); if (!canvas) return 0;"
            "const {data} = canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height); let n = 0;"
            "for (let i = 0; i < data.length; i += 4) n += data[i + 2] - data[i] > 120 && data[i + 3] > 200; return n"
        )
        for metric in ("both", "top", "near"):
            page.wait(f"{metric} in its chart", lambda metric=metric: page.run(drawn, metric) > 10)
        page.wait("the extremes", lambda: "min −1.797" in page.card("both").replace("-", "−"))
        page.press("Table")
        page.wait("the mean", lambda: "1.4×10³⁰⁸" in page.text(".values"))
        assert "Infinity" not in page.text(".values")
        assert "NaN" not in page.text("body")
    lines, words, path = alone(
        chromium,
        shared,
        """
        const {axisWords, calmScale, shrinkFor, shrunk} = await import('/axis.js');
        const {sparkPath} = await import('/spark.js');
        const top = arguments[0], cases = [[-top, top], [top, top], [1.2e308, 1.6e308], [0, top], [-1e307, 5]];
        const scales = cases.map((ends) => calmScale(...ends.map((end) => shrunk(end, shrinkFor(...ends)))));
        const fits = scales.map(([a, b, c]) => [a, b, c, c - a].every(Number.isFinite) && a < b && b < c);
        const ring = {times: [0, 5000, 10000], values: [-top, top, top]};
        const path = sparkPath(ring, 10000, {interval: 0}, {pace: 5000});
        return [fits, scales.map((lines, i) => axisWords(lines, shrinkFor(...cases[i]))), path];
        """.replace("arguments[0]", "given[0]"),
        GREATEST,
    )
    assert lines == [True] * 5
    assert words[0] == ["-200×10³⁰⁶", "0", "200×10³⁰⁶"]
    assert "NaN" not in path
    assert "Infinity" not in path


def test_device_of_the_address_is_never_replaced_by_another(chromium: Chrome, shared: Daemon) -> None:
    """A device that does not exist is said not to, and shown by itself when it comes; odd windows are passed over."""
    with connected(shared, "here") as here:
        here.send(level=1)
        page = Page(chromium, shared, "#device=nosuch")
        page.wait("the word", lambda: "There is no device “nosuch” yet" in page.text("#device"))
        assert page.row("here")
        assert page.text("#device .head") == ""
        assert page.faults() == []
        with connected(shared, "nosuch") as late:
            late.send(level=2)
            page.wait("it", lambda: page.text(".head h2") == "nosuch" and page.card("level"))
        assert page.text(".missing") == ""
        for name in ("*", "a b", "<b>", "\u202ex"):
            page.run("location.hash = new URLSearchParams({device: arguments[0]})", name)
            page.wait("the word", lambda: "No device can have this name" in page.text(".missing"))
        assert "‹U+202E›x" in page.text(".missing")
        for odd in ("from=1e15&to=2e15", "from=1&to=9e12", "from=NaN&to=Infinity", "from=-5&to=5"):
            page.run("location.hash = arguments[0]", f"device=here&{odd}")
            page.wait("the device", lambda: page.text(".head h2") == "here" and page.card("level"))
            page.wait("live", lambda: page.text("#live-word") == "LIVE")
            assert "NaN" not in page.text("body")
        page.keys("-", "-", "-", "-", " ", *"-" * 30)
        page.wait("paused", lambda: page.text("#live-word").startswith("Paused"))
        assert "NaN" not in page.text("body")
        page.run("location.hash = ''")
        page.wait("one that the page chooses", lambda: page.text(".head h2"))


def test_metric_that_changes_its_kind_shows_both(chromium: Chrome, shared: Daemon) -> None:
    """A metric that was a boolean and is a number now has a chart and a strip, each of its own readings; and back."""
    now = int(time.time() * 1000)
    with connected(shared, "moody") as moody:
        moody.past([(now - (60 - k) * 1000, {"m": k % 2 == 0 if k < 30 else k, "n": f"text {k}"}) for k in range(60)])

        def cards() -> dict[str, str]:
            script = (
                "return [...document.querySelectorAll('[data-metric=m]')].map((it) => [it.className, it.innerText])"
            )
            return {kind.split()[2]: " ".join(text.split()) for kind, text in page.run(script)}

        for hash, least in (("#device=moody", "30"), ("#device=moody&range=1h", r"3\d")):
            page = Page(chromium, shared, hash)
            page.wait("the number", lambda least=least: re.search(f"min {least} max 59", cards().get("number", "")))
            page.wait("the strip", lambda: re.search("on 50 %, 29 changes", cards().get("bool", "")))
            assert re.search(r"^M as a number .* 59", cards()["number"])
            assert re.search(r"^M as on or off .* – now a number", cards()["bool"])
        page.press("Table")
        table = r"M 59 3\d 4\d\S* 59 \d\d .* as on or off –"
        page.wait("the table", lambda: re.search(table, page.text(".values")))
        page.press("Charts")
        moody.send(m=False)
        page.wait("back", lambda: re.search("– now on or off", cards()["number"]) and " off" in cards()["bool"])
        moody.send(n=5)
        page.wait("a text before", lambda: len(page.run("return document.querySelectorAll('[data-metric=n]')")) == 2)
        assert page.complaints() == []


def test_texts_of_devices_order_nothing_around_them(chromium: Chrome, shared: Daemon) -> None:
    """Controls in names, units and values are seen and turn nothing around; a name from right to left reads as one."""
    turn, arabic = "\u202e", "مضخة المياه الرئيسية في المبنى"
    with connected(shared, "turned") as device, connected(shared, "arabic") as other:
        device.describe(name=f"{turn}exe.gnp pump\u2066", metrics={"level": {"unit": f"m{turn}"}})
        device.send(
            level=5, note=f"a{turn}b\u200bc\ufeff", flag="\U0001f469\u200d\U0001f527 \U0001f3f4\U000e0067\U000e007f"
        )
        other.describe(name=arabic)
        other.send(level=6)
        page = Page(chromium, shared, "#device=turned")
        page.wait("the name", lambda: page.text(".head h2") == "‹U+202E›exe.gnp pump‹U+2066›")
        page.wait("the value", lambda: "5 m‹U+202E›" in page.row("turned"))
        page.wait("the text", lambda: "a‹U+202E›b‹U+200B›c‹U+FEFF›" in page.card("note"))
        page.wait("the log", lambda: page.card("note").count("a‹U+202E›b‹U+200B›c‹U+FEFF›") == 2)
        assert "‹" not in page.card("flag")
        assert turn not in page.run("return document.documentElement.outerHTML")
        page.wait("the other", lambda: "مضخة" in page.row("arabic"))
        parts = "return [...document.querySelectorAll('[data-device=arabic] .n > span')].map((it) => it.textContent)"
        assert page.run(parts) == [arabic, ""], "letters that join are not parted"
        assert page.run("return getComputedStyle(document.querySelector('[data-device=arabic] .n')).direction") == "rtl"


def test_long_title_is_cut_and_can_be_had_whole(chromium: Chrome, shared: Daemon) -> None:
    """A long title takes three lines at the most; a button, and the mouse that rests there, show all of it."""
    name = "A very long name of a device that goes on and on " * 2 + "and ends here"
    with window(chromium, 360, 800, mobile=True), connected(shared, "long") as device:
        device.describe(name=name)
        device.send(level=5)
        page = Page(chromium, shared, "#device=long")
        page.wait("the name", lambda: page.run("return document.querySelector('.head h2').textContent") == name)
        lines = "const it = document.querySelector('.head h2'), {lineHeight} = getComputedStyle(it);"
        lines += "return [Math.round(it.clientHeight / parseFloat(lineHeight)), it.scrollHeight > it.clientHeight + 2]"
        page.wait("three lines", lambda: page.run(lines) == [3, True])
        assert page.run("return document.querySelector('.head h2').title") == name
        page.press("Whole name")
        page.wait("all of it", lambda: page.run(lines)[0] > 3 and not page.run(lines)[1])
        page.press("Less")
        page.wait("three again", lambda: page.run(lines) == [3, True])


def test_fingers_find_all(chromium: Chrome, shared: Daemon) -> None:
    """Where fingers point, all that they touch is 44 pixels high and wide, on each view; a desk stays dense."""
    small = (
        "return [...document.querySelectorAll('button, input, select, [role=option]')]"
        ".filter((it) => it.checkVisibility()).map((it) => [it.getBoundingClientRect(), it.outerHTML])"
        ".filter(([{width, height}]) => Math.min(width, height) < 44)"
        ".map(([{width, height}, it]) => `${width} ${height} ${it}`)"
    )
    with connected(shared, "thumb") as thumb:
        thumb.describe(name="A very long name of a device that goes on and on " * 2 + "and ends here")
        thumb.send(level=5, run=True, mode="idle")
        page = Page(chromium, shared, "#device=thumb")
        page.wait("the charts", lambda: page.card("run"))
        assert page.run("return document.querySelector('#help').getBoundingClientRect().height") == 28
        with window(chromium, 360, 800, mobile=True), touch(chromium):
            page = Page(chromium, shared, "#device=thumb")
            page.wait("the charts", lambda: page.card("run") and page.drawn("level"))
            assert page.run("return matchMedia('(pointer: coarse)').matches")
            assert page.run(small) == []
            assert page.width() == (360, 360)
            page.press("Table")
            page.wait("the table", lambda: page.text(".values"))
            page.press("?")
            assert page.run(small) == []
            page.press("Close")
            page.press("Charts")
        with window(chromium, 1180, 820, mobile=True), touch(chromium):
            page.wait("the charts", lambda: page.card("run"))
            assert page.run(small) == []
            assert page.width() == (1180, 1180)


def test_a_change_is_told_whoever_brings_it(chromium: Chrome, shared: Daemon) -> None:
    """A change of state is an event when the list of devices, asked for meanwhile, was before the feed with it; a state
    that is the first of its device is none."""
    told = alone(
        chromium,
        shared,
        """
        const {Store} = await import('/store.js'), store = new Store(() => 5), told = [];
        store.addEventListener('turned', ({detail: {name, state}}) => told.push(`${name} ${state}`));
        const entries = (rows) => rows.map(([name, state, since]) => [name, {state, since}]);
        const states = (...rows) => ({devices: Object.fromEntries(entries(rows))});
        store.snapshot(states(['a', 'online', 1], ['b', 'offline', 1]));
        store.presence(states(['a', 'stale', 2]));
        store.rows([{device: 'a', state: 'offline', since: 3}, {device: 'b', state: 'offline', since: 1}]);
        store.presence(states(['a', 'offline', 3], ['c', 'online', 3]));
        store.presence(states(['c', 'offline', 3]));
        for (let n = 0; n < 3; n += 1) store.rows([{device: 'c', state: 'offline', since: 3}], false);
        store.rows([{device: 'd', state: 'stale', since: 3}], false);
        store.snapshot(states(['a', 'online', 4], ['b', 'offline', 1]));
        return told;
        """,
    )
    assert told == ["a stale", "a offline", "c offline", "a online"]
