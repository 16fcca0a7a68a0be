"""The page at the edges: what is searched for, what came late, the greatest numbers, odd addresses, names and kinds."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import pytest
from selenium.webdriver import Chrome

from tests.integration.browser import Page, connected, window
from tools.toolkit.servers import Daemon

GREATEST = 1.7976931348623157e308


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    """A running gateway; the devices of each test have names of their own."""
    with Daemon(tmp_path_factory.mktemp("shared"), {"GATEWAY_ID": "barn-north"}) as running:
        yield running


def alone(chromium: Chrome, daemon: Daemon, steps: str, *arguments: object) -> Any:
    """What ``steps`` (JavaScript) return where the page's modules can be had and nothing else runs."""
    chromium.get(f"{daemon.address}/livez")
    return chromium.execute_async_script(
        "const given = arguments, done = given[given.length - 1];"
        f"(async () => {{ {steps} }})().then(done, (error) => done(`${{error}}`))",
        *arguments,
    )


def test_wall_and_order_obey_the_metric_searched_for(chromium: Chrome, shared: Daemon) -> None:
    """The wall shows the metric that was searched for, of few devices and of many; the list orders by what it shows."""
    names = [f"find-{i}" for i in range(5)]
    for i, name in enumerate(names):
        with connected(shared, name) as device:
            device.send(heat=20 + i, humidity=60 - i)
            if i == 0:
                device.send(humidity_max=75)
    page = Page(chromium, shared, "#q=humidity&sort=value")
    page.wait("the values", lambda: all(" Humidity" in page.row(name) for name in names))
    order = (
        "return [...document.querySelectorAll('.row:not([hidden])')].sort((a, b) => a.ariaPosInSet - b.ariaPosInSet)"
    )
    page.wait("the order", lambda: page.run(f"{order}.map((it) => it.dataset.device)") == names)
    tiles = "return [...document.querySelectorAll('.tile')].map((it) => it.querySelector('.value').innerText.trim())"
    page.run("location.hash = '#wall&q=humidity'")
    page.wait("many", lambda: sorted(page.run(tiles)) == ["56", "57", "58", "59", "60"])
    assert "Humidity" in page.text('.tile[data-device="find-1"]')
    page.run("location.hash = '#wall&q=humidity_'")
    page.wait("one", lambda: page.run(tiles) == ["75"])
    page.run("location.hash = '#wall&q=find-0'")
    page.wait("all of a device", lambda: sorted(page.run(tiles)) == ["20", "60", "75"])


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
        const {axisWords, calmScale, shrinkFor, shrunk} = await import('/axis.js'), {sparkPath} = await import('/spark.js');
        const top = arguments[0], cases = [[-top, top], [top, top], [1.2e308, 1.6e308], [0, top], [-1e307, 5]];
        const scales = cases.map(([low, high]) => calmScale(shrunk(low, shrinkFor(low, high)), shrunk(high, shrinkFor(low, high))));
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
