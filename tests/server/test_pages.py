"""The GET addresses: API, health, metrics and the dashboard's files."""

import asyncio
import contextlib
import csv
import io

import pytest
from prometheus_client.parser import text_string_to_metric_families

from gateway.history import Answer, History
from gateway.server import pages
from tests.running import acked, gateway, receive, send

T0 = 1_764_000_000_000


async def fill(gw, name="pump-1", count=10):
    """A device with some readings, a second apart."""
    async with gw.device(name) as ws:
        await receive(ws, "welcome")
        await send(ws, [{"ts": T0 + 1000 * n, "seq": n + 1, "t": float(n), "ok": n % 2 == 0} for n in range(count)])
        await acked(ws, count)
    await gw.rows(name, until=2 * count)


async def test_latest(tmp_path):
    """Newest value a series, by globs; also after a restart."""
    async with gateway(tmp_path) as gw:
        await fill(gw)
        await fill(gw, "tank")
        rows = await gw.json("/api/v1/latest?device=pump-*&metric=t")
        assert rows == [{"time": T0 + 9000, "device": "pump-1", "metric": "t", "value": 9.0}]
        assert len(await gw.json("/api/v1/latest")) == 4
    async with gateway(tmp_path) as gw:
        assert len(await gw.json("/api/v1/latest")) == 4


async def test_history_queries(tmp_path):
    """Ranges, steps, aggregates, CSV."""
    async with gateway(tmp_path) as gw:
        await fill(gw)
        path = "/api/v1/history?device=pump-1&metric=t"
        rows = await gw.json(f"{path}&from={T0 + 2000}&to={T0 + 4000}")
        assert [(row["time"], row["value"]) for row in rows] == [(T0 + 2000, 2), (T0 + 3000, 3), (T0 + 4000, 4)]
        rows = await gw.json(f"{path}&from=2025-11-24T16:00:00Z&to={T0 + 9999}&step=5s")
        assert [(row["time"], row["value"]) for row in rows] == [(T0, 2), (T0 + 5000, 7)]
        for agg, expected in (("min", [0, 5]), ("max", [4, 9]), ("last", [4, 9]), ("count", [5, 5])):
            rows = await gw.json(f"{path}&from={T0}&to={T0 + 9999}&step=5s&agg={agg}")
            assert [row["value"] for row in rows] == expected, agg
        assert await gw.json("/api/v1/history?from=-1m") == []
        status, headers, body = await gw.get(f"/api/v1/history?device=pump-1&from={T0}&to={T0}&format=csv")
        assert (status, headers["content-type"]) == (200, "text/csv; charset=utf-8")
        assert list(csv.reader(io.StringIO(body.decode()))) == [
            ["time", "device", "metric", "value"],
            [str(T0), "pump-1", "ok", "true"],
            [str(T0), "pump-1", "t", "0.0"],
        ]


async def test_many_rows_come_in_order(tmp_path):
    """An answer of several thousand rows is whole and in order, as JSON and as CSV."""
    async with gateway(tmp_path, limits={"device_rate": 10**6, "device_burst": 10**6}) as gw:
        async with gw.device("a") as ws:
            await receive(ws, "welcome")
            for first in range(0, 4000, 1000):
                await send(ws, [{"ts": T0 + n, "seq": n + 1, "n": n} for n in range(first, first + 1000)])
            await acked(ws, 4000)
        rows = await gw.rows("a", until=4000)
        assert [row["value"] for row in rows] == list(range(4000))
        _, _, body = await gw.get("/api/v1/history?from=0&format=csv")
        assert [row[3] for row in csv.reader(io.StringIO(body.decode()))] == ["value", *map(str, range(4000))]


async def test_history_that_is_not_kept_whole_says_so(tmp_path, monkeypatch):
    """Where rollups stand for readings that are not kept any more the answer says before when, in full milliseconds."""

    def ask(history, **question):
        async def answer():
            return Answer([(5_000_000, "a", "b", 1.5)], False, 7_000_001)

        return answer()

    async with gateway(tmp_path) as gw:
        monkeypatch.setattr(History, "ask", ask)
        for form in ("json", "csv"):
            status, headers, body = await gw.get(f"/api/v1/history?from=0&format={form}")
            assert (status, headers.get("x-whole-from")) == (200, "8")
            assert b"1.5" in body


async def test_history_that_is_cut_says_so(tmp_path, monkeypatch):
    """Beyond the bound rows are left out and the answer says so."""
    monkeypatch.setattr("gateway.server.pages.ROWS_MAX", 7)
    async with gateway(tmp_path) as gw:
        await fill(gw, count=3)
        status, headers, _ = await gw.get(f"/api/v1/history?from={T0}&to={T0 + 99_000}")
        assert (status, headers.get("x-truncated")) == (200, None)
        await fill(gw, "more", count=3)
        status, headers, body = await gw.get(f"/api/v1/history?from={T0}&to={T0 + 99_000}")
        assert (status, headers.get("x-truncated"), body.count(b'"time"')) == (200, "true", 7)


@pytest.mark.parametrize("query", ["from=yesterday", "to=x", "step=5", "step=0s", "agg=median", "format=xml"])
async def test_bad_queries(tmp_path, query):
    """A bad parameter is a 400 that names it."""
    async with gateway(tmp_path) as gw:
        status, _, body = await gw.get(f"/api/v1/history?{query}")
        assert status == 400
        assert query.split("=")[0] in body.decode()


async def test_health_and_metrics(tmp_path):
    """Alive and ready without a broker; detail in JSON; metrics parse and add up, without a device's name."""
    async with gateway(tmp_path, mqtt={"url": "mqtt://127.0.0.1:1"}) as gw:
        await fill(gw)
        for path in ("/livez", "/readyz"):
            assert (await gw.get(path))[0] == 200
        health = await gw.json("/healthz")
        assert health["devices"] == {"online": 0, "stale": 0, "offline": 1}
        assert {sink["name"] for sink in health["sinks"]} == {"history", "mqtt"}
        status, headers, body = await gw.get("/metrics")
        assert status == 200
        assert headers["content-type"].startswith("text/plain")
        samples = {
            sample.name: sample.value
            for family in text_string_to_metric_families(body.decode())
            for sample in family.samples
        }
        assert samples["gateway_readings_received_total"] == samples["gateway_readings_stored_total"] == 10
        assert samples["gateway_devices_offline"] == 1
        assert b"pump-1" not in body


async def test_large_counts_are_strings_of_digits(tmp_path):
    """What browsers cannot hold as a number is text in the rows of devices, and stays a number for commands."""
    async with gateway(tmp_path) as gw:
        async with gw.device("pump-1", "?session=b") as ws:
            await receive(ws, "welcome")
            await send(ws, {"seq": 1, "t": 1}, {"seq": 2**62, "t": 1})
            await acked(ws, 2**62)
        (row,) = await gw.json("/api/v1/devices")
        assert row["ledger"]["missing"] == str(2**62 - 2)
        assert row["ledger"]["stored"] == 2


async def test_pages_and_unknown_addresses(tmp_path):
    """The dashboard is served compressed, cacheable and with its security headers; unknown addresses are not."""
    async with gateway(tmp_path) as gw:
        status, headers, _ = await gw.get("/", {"Accept-Encoding": "gzip"})
        assert (status, headers["content-type"], headers["content-encoding"]) == (
            200,
            "text/html; charset=utf-8",
            "gzip",
        )
        assert "default-src 'none'" in headers["content-security-policy"]
        assert "frame-ancestors 'none'" in headers["content-security-policy"]
        assert (await gw.get("/", {"If-None-Match": headers["etag"]}))[0] == 304
        assert (await gw.get("/nothing"))[0] == 404
        assert (await gw.get("/../pyproject.toml"))[0] == 404
        assert (await gw.get("/", {"Host": "evil.example"}))[0] == 403
        assert (await gw.get("/api/v1/devices", {"Origin": "http://evil.example"}))[0] == 403
        assert (await gw.get("/v1/live"))[0] in (400, 426)


async def test_lists_at_once_are_bounded(tmp_path, monkeypatch):
    """One list more than there may be is refused with 503, and counted; afterwards there is room again."""
    release = asyncio.Event()
    make = pages.Pages._list_latest

    async def slow(self, request):
        await release.wait()
        return await make(self, request)

    monkeypatch.setattr(pages.Pages, "_list_latest", slow)
    monkeypatch.setattr(pages, "LISTS_MAX", 2)
    async with gateway(tmp_path) as gw:
        waiting = [asyncio.create_task(gw.get("/api/v1/latest")) for _ in range(2)]
        async with asyncio.timeout(10):
            while gw.app.server.stats()["handlers"] < 2:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
        for path in ("latest", "devices"):
            status, headers, _ = await gw.get(f"/api/v1/{path}")
            assert (status, headers["retry-after"]) == (503, "1")
        assert gw.app.server.stats()["refusals_query_load"] == 2
        release.set()
        assert [status for status, *_ in await asyncio.gather(*waiting)] == [200] * 2
        assert (await gw.get("/api/v1/latest"))[0] == 200


async def test_presence(tmp_path):
    """The states that devices were in, also from before a restart; of the time of that nothing is claimed."""
    async with contextlib.AsyncExitStack() as held, gateway(tmp_path) as gw:
        for _ in range(2):
            async with gw.device("pump-1") as ws:
                await receive(ws, "welcome")
            while (await gw.json("/api/v1/devices"))[0]["state"] != "offline":  # noqa: ASYNC110
                await asyncio.sleep(0.02)
        await receive(await held.enter_async_context(gw.device("tank")), "welcome")
        before = await gw.json("/api/v1/presence")
        states = [("pump-1", state) for state in ("online", "offline") * 2]
        assert [(row["device"], row["state"]) for row in before] == [*states, ("tank", "online")]
        assert [row["until"] for row in before] == [*[row["since"] for row in before[1:4]], None, None]
        assert before[1]["reason"]
    async with gateway(tmp_path) as gw:
        assert await gw.json("/api/v1/presence?device=pump-*&from=-1h&to=now") == before[:4]
        (row,) = await gw.json("/api/v1/presence?device=tank")
        assert row == {**before[4], "until": row["until"]}
        assert row["since"] <= row["until"]
        async with gw.device("tank") as ws:
            await receive(ws, "welcome")
            _, again = await gw.json("/api/v1/presence?device=tank")
            assert (again["state"], again["until"]) == ("online", None)
            assert again["since"] > row["until"]
        last = before[3]["since"]
        (row,) = await gw.json(f"/api/v1/presence?device=pump-1&from={last + 1}")
        assert row == before[3]
        assert await gw.json(f"/api/v1/presence?device=pump-1&from=0&to={before[0]['since'] - 1}") == []
        for query in ("from=then", "to=-1", "from=2000&to=1000"):
            assert (await gw.get(f"/api/v1/presence?{query}"))[0] == 400
