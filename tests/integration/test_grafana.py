"""The examples for Grafana: each query of the Infinity dashboard is asked of a running gateway, as Grafana would."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any
from urllib.parse import quote

import yaml

from tests.running import gateway, receive, send

GRAFANA = Path(__file__).parents[2] / "config" / "grafana"
INTERVALS = ("1ms", "500ms", "1s", "30s", "1m", "6h", "1d")  # as ${__interval} is written


def dashboard(name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((GRAFANA / "dashboards" / f"{name}.json").read_text())
    return found


def queries(found: dict[str, Any]) -> list[dict[str, Any]]:
    """Those of the variables and of the panels."""
    variables = [v["query"]["infinityQuery"] for v in found["templating"]["list"] if v["type"] == "query"]
    return variables + [target for panel in found["panels"] for target in panel["targets"]]


def test_data_sources_are_those_of_the_dashboards() -> None:
    """Each dashboard names a data source that is provisioned; queries name the address of no host."""
    sources = {
        source["uid"]: source for source in yaml.safe_load((GRAFANA / "datasources.yml").read_text())["datasources"]
    }
    for name in ("devices", "devices-influx"):
        for panel in dashboard(name)["panels"]:
            assert sources[panel["datasource"]["uid"]]["type"] == panel["datasource"]["type"]
    assert all(query["url"].startswith("/api/v1/") for query in queries(dashboard("devices")))
    (provider,) = yaml.safe_load((GRAFANA / "dashboards.yml").read_text())["providers"]
    assert provider["type"] == "file"


async def test_each_query_is_answered(tmp_path: Path) -> None:
    """With all that a variable can stand for, by rows that have every column that the panel shows."""
    async with gateway(tmp_path) as running:
        async with running.device("pump-1") as pump:
            await send(pump, {"seq": 1, "values": {"temperature": 22.5, "a/b:c": 3}})
            await receive(pump, "ack")
        await running.rows("pump-1", until=2)
        now = round(time.time() * 1000)
        fixed = {"__from": str(now - 3_600_000), "__to": str(now)}
        for interval in INTERVALS:
            for device, metric, agg in (("*", "*", "mean"), ("pump-1", "a/b:c", "count")):
                given = {**fixed, "__interval": interval, "device": device, "metric": metric, "agg": agg}
                for query in queries(dashboard("devices")):
                    url = query["url"]
                    for name, value in given.items():
                        url = url.replace(f"${{{name}}}", quote(value, safe="*"))
                    assert "$" not in url
                    rows = await running.json(url)
                    assert rows, url
                    for column in query["columns"]:
                        found = rows[0]
                        for key in column["selector"].split("."):
                            found = found[key]
                        assert isinstance(found, (str, int, float)), (url, column)
