"""The examples for Prometheus and Grafana: they parse, name what there is, and alert when they should."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import time
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import certifi
import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families as parse_text

from gateway.metrics import PREFIXES, TABLE, exposition
from tests.running import acked, gateway, receive, send
from tests.servers import Victoria

CONFIG = Path(__file__).parents[1] / "config"
NAME = re.compile(r"\b(?:gateway|process)_\w+|\bup\b")
MINUTES = 75  # longer than any range in a rule

Series = dict[str, Callable[[int], float]]  # a name with its labels: its value at a minute


def rules() -> list[dict[str, Any]]:
    groups = yaml.safe_load((CONFIG / "alerts.yml").read_text())["groups"]
    return [rule for group in groups for rule in group["rules"]]


def dashboard() -> dict[str, Any]:
    found: dict[str, Any] = json.loads((CONFIG / "grafana-dashboard.json").read_text())
    return found


def panels() -> list[tuple[str, str]]:
    """Title and expression of each query of the dashboard, its variables filled in."""
    return [
        (panel["title"], target["expr"].replace("$__rate_interval", "5m").replace("$instance", ".*"))
        for panel in dashboard()["panels"]
        for target in panel.get("targets", ())
    ]


def names(expression: str) -> set[str]:
    """The metrics that an expression names; what stands in labels and their values is none."""
    return set(NAME.findall(re.sub(r"\{[^}]*\}", "", expression)))


async def test_every_name_is_one_that_the_gateway_shows(tmp_path: Path) -> None:
    """Alert rules and dashboard ask for samples that a running gateway has at ``/metrics``."""
    sinks = {"mqtt": {"url": "mqtt://127.0.0.1:1"}, "influx": {"url": "http://127.0.0.1:1"}}
    async with gateway(tmp_path, **sinks) as running:
        async with running.device("pump-1") as ws:
            await receive(ws, "welcome")
            await send(ws, {"seq": 1, "t": 1}, {"bad name": 1})
            await acked(ws, 1) if (await receive(ws))["type"] == "error" else await receive(ws, "error")
        await running.get("/nowhere")
        text = (await running.get("/metrics"))[2].decode()
    shown = {sample.name for family in parse_text(text) for sample in family.samples} | {"up"}
    # What is there with a certificate alone.
    shown |= {f"gateway_tls_{known.name}" for known in TABLE["tls"].values()}
    for rule in rules():
        assert names(rule["expr"]), rule["alert"]
        assert names(rule["expr"]) <= shown, rule["alert"]
    for title, expression in panels():
        assert names(expression), title
        assert names(expression) <= shown, (title, names(expression) - shown)


def test_rules_say_what_to_do() -> None:
    """Each alert has a name of its own, a severity, a summary in words and where to look."""
    found = [rule["alert"] for rule in rules()]
    assert len(set(found)) == len(found)
    for rule in rules():
        assert rule["alert"].startswith("Gateway")
        assert rule["labels"]["severity"] in ("warning", "critical")
        assert rule["annotations"]["summary"]
        assert rule["annotations"]["description"].endswith(".")
        used = set(re.findall(r"\$labels\.(\w+)", json.dumps(rule["annotations"])))
        assert used <= {"instance", "sink"}
        assert "sink" not in used or "gateway_sink_" in rule["expr"]


def test_the_dashboard_is_one_that_grafana_takes() -> None:
    """Panels have ids of their own and do not overlap; each asks the data source that was chosen."""
    board = dashboard()
    assert board["uid"]
    assert {variable["name"] for variable in board["templating"]["list"]} == {"datasource", "instance"}
    assert len({panel["id"] for panel in board["panels"]}) == len(board["panels"])
    taken: set[tuple[int, int]] = set()
    for panel in board["panels"]:
        at = panel["gridPos"]
        cells = {(x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])}
        assert at["x"] + at["w"] <= 24
        assert not cells & taken, panel["title"]
        taken |= cells
        for target in panel.get("targets", ()):
            assert target["datasource"]["uid"] == "${datasource}"
            assert "$instance" in target["expr"], panel["title"]


def test_the_rules_are_next_to_the_scrape_example() -> None:
    """``prometheus.yml`` names the rules' file, the job that they ask for, and a token that is no part of the file."""
    config = yaml.safe_load((CONFIG / "prometheus.yml").read_text())
    assert config["rule_files"] == ["alerts.yml"]
    (job,) = config["scrape_configs"]
    assert job["job_name"] == "gateway"
    assert job["metrics_path"] == "/metrics"
    assert job["authorization"] == {"type": "Bearer", "credentials_file": "/etc/prometheus/gateway.token"}
    assert all('job="gateway"' in rule["expr"] for rule in rules() if "up{" in rule["expr"])


def run(*command: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.fixture
def copied(tmp_path: Path) -> Path:
    """The two files with the paths in them changed to files that are there."""
    text = (CONFIG / "prometheus.yml").read_text()
    for name in ("gateway.token", "gateway-ca.pem"):
        shutil.copy(certifi.where(), tmp_path / name)
        text = text.replace(f"/etc/prometheus/{name}", str(tmp_path / name))
    (tmp_path / "prometheus.yml").write_text(text)
    shutil.copy(CONFIG / "alerts.yml", tmp_path)
    return tmp_path


@pytest.mark.skipif(shutil.which("vmalert") is None, reason="needs victoria-metrics")
def test_victoria_takes_them(copied: Path) -> None:
    """vmagent knows every line of the scrape example that is for it, vmalert every rule."""
    config = yaml.safe_load((copied / "prometheus.yml").read_text())
    del config["rule_files"], config["global"]["evaluation_interval"]
    (copied / "prometheus.yml").write_text(yaml.safe_dump(config))
    run("vmagent", "-dryRun", f"-promscrape.config={copied / 'prometheus.yml'}", "-promscrape.config.strictParse")
    run("vmalert", "-dryRun", f"-rule={copied / 'alerts.yml'}")


@pytest.mark.skipif(shutil.which("promtool") is None, reason="needs prometheus")
def test_prometheus_takes_them(copied: Path) -> None:
    """promtool knows every line of the scrape example and every rule."""
    run("promtool", "check", "config", str(copied / "prometheus.yml"))
    run("promtool", "check", "rules", str(copied / "alerts.yml"))


def flat(value: float) -> Callable[[int], float]:
    return lambda minute: value


def grows(rate: float, start: float = 0.0) -> Callable[[int], float]:
    return lambda minute: start + rate * minute


def _healthy() -> Series:
    """All that the rules ask for, of a gateway that is well."""
    sink = '{sink="mqtt"}'
    series: Series = {
        "up": flat(1),
        "process_start_time_seconds": flat(1000),
        "process_open_fds": flat(30),
        "process_max_fds": flat(1000),
        "gateway_journal_failing": flat(0),
        "gateway_journal_damages_total": flat(1),
        "gateway_history_damaged_total": flat(1),
        "gateway_journal_bytes": flat(1e6),
        "gateway_journal_max_bytes": flat(1e9),
        "gateway_journal_free_bytes": flat(1e10),
        "gateway_readings_dropped_total": flat(7),
        "gateway_readings_throttled_total": grows(5),
        "gateway_devices_online": flat(100),
        "gateway_tls_certificate_remaining_seconds": flat(60 * 86400),
        "gateway_access_refusals_total": grows(1),
        "gateway_log_lost_total": flat(3),
        f"gateway_sink_overflowed_total{sink}": flat(2),
        f"gateway_sink_lost_total{sink}": flat(2),
        f"gateway_sink_pending{sink}": flat(20_000),
        f"gateway_sink_stopped{sink}": flat(0),
        f"gateway_sink_up{sink}": flat(1),
        f"gateway_sink_dead_letters{sink}": flat(4),
    }
    for bound in ("0.1", "1", "5", "+Inf"):
        series[f'gateway_ack_latency_seconds_bucket{{le="{bound}"}}'] = grows(100)
    return series


# What is different where an alert is to fire.
FIRING: dict[str, Series] = {
    "GatewayDown": {"up": flat(0)},
    "GatewayRestarts": {"process_start_time_seconds": lambda minute: 1000 + minute // 4},
    "GatewayRefusesReadings": {"gateway_journal_failing": flat(1)},
    "GatewayReadingsDropped": {"gateway_readings_dropped_total": grows(1)},
    "GatewayReadingsOverwritten": {'gateway_sink_overflowed_total{sink="mqtt"}': grows(1)},
    "GatewayDataDamaged": {"gateway_history_damaged_total": grows(1)},
    "GatewayJournalFilling": {"gateway_journal_bytes": flat(0.85e9)},
    "GatewayDiskFull": {"gateway_journal_free_bytes": flat(1e8)},
    "GatewayBacklogGrowing": {'gateway_sink_pending{sink="mqtt"}': grows(100, 20_000)},
    "GatewaySinkStopped": {'gateway_sink_stopped{sink="mqtt"}': flat(1), 'gateway_sink_up{sink="mqtt"}': flat(0)},
    "GatewaySinkUnreachable": {'gateway_sink_up{sink="mqtt"}': flat(0)},
    "GatewayDeadLetters": {'gateway_sink_dead_letters{sink="mqtt"}': grows(1)},
    "GatewayDevicesLost": {"gateway_devices_online": lambda minute: 100 if minute < MINUTES - 3 else 60},
    "GatewayDevicesThrottled": {"gateway_readings_throttled_total": grows(1000)},
    "GatewayAcksSlow": {
        'gateway_ack_latency_seconds_bucket{le="0.1"}': grows(90),
        'gateway_ack_latency_seconds_bucket{le="1"}': grows(95),
    },
    "GatewayCertificateEnds": {"gateway_tls_certificate_remaining_seconds": flat(20 * 86400)},
    "GatewayAccessRefused": {"gateway_access_refusals_total": grows(100)},
    "GatewayFileDescriptors": {"process_open_fds": flat(900)},
    "GatewayLogTooSlow": {"gateway_log_lost_total": grows(3)},
}


def scrapes(series: Series, instance: str, end: int) -> Iterator[str]:
    """The series as lines that Prometheus' text format has, one a minute up to ``end`` (seconds)."""
    for name, value in series.items():
        plain, _, labels = name.rstrip("}").partition("{")
        labels = f'job="gateway",instance="{instance}"' + (f",{labels}" if labels else "")
        for minute in range(MINUTES + 1):
            yield f"{plain}{{{labels}}} {value(minute)} {(end - 60 * (MINUTES - minute)) * 1000}"


def put(victoria: Victoria, lines: Iterator[str] | list[str]) -> None:
    request = urllib.request.Request(f"{victoria.url}/api/v1/import/prometheus", "\n".join(lines).encode() + b"\n")
    with urllib.request.urlopen(request, timeout=30):
        pass
    with urllib.request.urlopen(f"{victoria.url}/internal/force_flush", timeout=30):
        pass


def ask(victoria: Victoria, expression: str, at: int) -> list[dict[str, Any]]:
    query = urllib.parse.urlencode({"query": expression, "time": at, "nocache": 1})
    with urllib.request.urlopen(f"{victoria.url}/api/v1/query?{query}", timeout=30) as answer:
        found: list[dict[str, Any]] = json.load(answer)["data"]["result"]
    return found


def test_each_alert_fires_for_its_cause_alone(victoria: Victoria) -> None:
    """Of gateways of which each has another trouble, and one that is well, each rule finds the one it is for."""
    assert set(FIRING) == {rule["alert"] for rule in rules()}
    end = int(time.time()) // 60 * 60 - 120
    for alert, different in [("well", Series()), *FIRING.items()]:
        assert different.keys() <= _healthy().keys()
        put(victoria, scrapes({**_healthy(), **different}, alert, end))
    for rule in rules():
        found = {result["metric"].get("instance") for result in ask(victoria, rule["expr"], end)}
        assert found == {rule["alert"]}, rule["alert"]


def test_every_panel_shows_something(victoria: Victoria) -> None:
    """Each query of the dashboard is understood, and has an answer where the gateway has the numbers."""
    end = int(time.time()) // 60 * 60 - 120
    sources = [
        (room, {"sink": "mqtt"} if room == "sink" else {}, lambda numbers=numbers: numbers)  # type: ignore[misc]
        for room, known in TABLE.items()
        if (numbers := {name: 1.0 for name, how in known.items() if how.kind != "histogram"})
    ]
    extra = {room: {f"{prefix}1008": 1.0 for prefix, *_ in found} for room, found in PREFIXES.items()}
    sources += [(room, {}, lambda numbers=numbers: numbers) for room, numbers in extra.items()]  # type: ignore[misc]
    text = exposition(sources, "1")[0].decode()
    lines = [line for line in text.splitlines() if not line.startswith("#")]
    for latency in ("ack", "live", "sink"):
        lines += [f'gateway_{latency}_latency_seconds_bucket{{sink="mqtt",le="{le}"}} 1' for le in ("0.1", "+Inf")]
    lines.append("up 1")
    for minute in range(10):
        at, given = (end - 60 * minute) * 1000, []
        for line in lines:
            name, _, value = line.rpartition(" ")
            plain, _, labels = name.rstrip("}").partition("{")
            more = f",{labels}" if labels else ""
            given.append(f'{plain}{{job="gateway",instance="a"{more}}} {float(value) * (10 - minute)} {at}')
        put(victoria, given)
    for title, expression in panels():
        assert ask(victoria, expression, end), f"{title}: {expression}"
