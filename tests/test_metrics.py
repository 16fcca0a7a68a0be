"""``/metrics``: names, kinds and words that Prometheus and people can use."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_text

from gateway.distribution import LATENCIES_S, Distribution
from gateway.metrics import PREFIXES, TABLE, Source, exposition
from tests.running import acked, gateway, receive, send

OPENMETRICS = "application/openmetrics-text"


def everything() -> list[Source]:
    """A source a room that gives each number the table knows, and one of each kind of prefix."""
    sources: list[Source] = []
    for room, known in TABLE.items():
        numbers = {name: _value(how.kind, at) for at, (name, how) in enumerate(known.items(), 1)}
        numbers.update({f"{prefix}7": 7.0 for prefix, *_ in PREFIXES.get(room, ()) if room == "websocket"})
        labels = {"sink": "mqtt"} if room == "sink" else {"code": "bad_name"} if room == "refusals" else {}
        sources.append((room, labels, lambda numbers=numbers: numbers))  # type: ignore[misc]
    return sources


def _value(kind: str, number: int) -> float | Distribution:
    if kind != "histogram":
        return float(number)
    found = Distribution()
    found.observe(0.003, number)
    return found


def samples(families: Any) -> dict[str, float]:
    """The gateway's own samples, those of its process left out."""
    return {
        sample.name + "".join(f" {key}={value}" for key, value in sample.labels.items()): sample.value
        for family in families
        for sample in family.samples
        if not family.name.startswith("process_")
    }


def test_both_formats_parse_and_say_the_same() -> None:
    """The text format and OpenMetrics parse with their own parsers, hold the same samples, and follow the Accept."""
    text, kind = exposition(everything(), "1.2.3")
    assert kind.startswith("text/plain; version=0.0.4")
    plain = samples(parse_text(text.decode()))
    for accept in (OPENMETRICS, f"{OPENMETRICS};version=1.0.0,text/plain;version=0.0.4;q=0.5,*/*;q=0.1"):
        opened, kind = exposition(everything(), "1.2.3", accept)
        assert kind.startswith(f"{OPENMETRICS}; version=1.0.0")
        assert opened.endswith(b"# EOF\n")
        assert samples(parse_openmetrics(opened.decode())) == plain
    assert plain["gateway_build_info version=1.2.3"] == 1


def test_names_follow_the_conventions() -> None:
    """Counters alone end in _total, units are base units, and no two numbers share a sample."""
    found = list(parse_openmetrics(exposition(everything(), "1", OPENMETRICS)[0].decode()))
    families = [family for family in found if not family.name.startswith("process_")]
    assert len(found) > len(families)
    for family in families:
        assert re.fullmatch(r"gateway_[a-z]+(_[a-z]+)*", family.name), family.name
        assert not re.search(r"_(ms|s|sum|in|out|p\d+|total|count)$", family.name), family.name
        assert (family.type == "counter") == family.samples[0].name.endswith("_total"), family.name
        assert (family.type == "histogram") == family.name.endswith("_latency_seconds"), family.name
    buckets = len(LATENCIES_S) + 3  # infinity, count and sum
    read = [value for _, _, read in everything() for value in read().values()]
    assert len(samples(families)) == sum(buckets if isinstance(value, Distribution) else 1 for value in read) + 1


def test_every_help_says_something() -> None:
    """A help text is a sentence of its own, not the name again."""
    helps = [known.help for room in TABLE.values() for known in room.values() if known.kind != "summary"]
    assert len(set(helps)) == len(helps)
    for room in TABLE.values():
        for known in room.values():
            assert known.help.endswith(".")
            assert len(known.help.split()) >= 3


def test_codes_are_labels_and_seconds_are_seconds() -> None:
    """Close codes and statuses are labels of one counter; milliseconds are shown as seconds."""
    numbers = {"closed_1000": 3, "closed_4001": 1, "refused_404": 2, "lost_ping_timeout": 4}
    refused = {"messages_bad_name": 5}
    found = samples(
        parse_text(
            exposition(
                [
                    ("websocket", {}, lambda: numbers),
                    ("refusals", {}, lambda: refused),
                    ("journal", {}, lambda: {"ack_ms_p50": 50.0, "ack_ms_p99": 1500.0}),
                ],
                "1",
            )[0].decode()
        )
    )
    assert found["gateway_websocket_closed_total code=1000"] == 3
    assert found["gateway_websocket_closed_total code=4001"] == 1
    assert found["gateway_websocket_refused_total status=404"] == 2
    assert found["gateway_websocket_lost_total reason=ping_timeout"] == 4
    assert found["gateway_refusals_messages_total code=bad_name"] == 5
    assert found["gateway_journal_ack_seconds quantile=0.5"] == pytest.approx(0.05)
    assert found["gateway_journal_ack_seconds quantile=0.99"] == pytest.approx(1.5)


def test_what_the_table_lacks_is_shown_all_the_same() -> None:
    """A number that the table does not know is a gauge, or a counter where its source says that it grows."""
    text = exposition([("new", {}, lambda: {"level": 1, "events": 2})], "1")[0].decode()
    assert "# TYPE gateway_new_level gauge" in text
    assert "# TYPE gateway_new_events gauge" in text


async def test_a_running_gateway_has_no_number_without_its_words(tmp_path: Path) -> None:
    """Each number of each room is in the table; a sink's pending is that of /healthz."""
    sinks = {"mqtt": {"url": "mqtt://127.0.0.1:1"}, "influx": {"url": "http://127.0.0.1:1"}}
    async with gateway(tmp_path, **sinks) as running:
        async with running.live() as live, running.device("pump-1", "?session=a") as ws:
            await receive(live, "hello")
            await send(live, {"type": "subscribe"})
            await receive(live, "snapshot")
            await receive(ws, "welcome")
            await send(ws, *({"seq": seq, "t": seq} for seq in range(1, 6)))
            await acked(ws, 5)
            await receive(live, "update")
            await send(ws, {"bad name": 1})
            await receive(ws, "error")
        await running.get("/nowhere")
        await running.rows("pump-1", "t", 5)
        body = (await running.get("/metrics"))[2].decode()
        health = await running.json("/healthz")
    assert 'gateway_downlink_refused_total{reason="queue_full"} 0.0' in body
    assert [line for line in body.splitlines() if "not described" in line] == []
    found = samples(parse_text(body))
    assert found["gateway_readings_stored_total"] == 5
    assert found["gateway_websocket_closed_total code=1000"] == 2
    assert found["gateway_ack_latency_seconds_count"] == 5
    assert found["gateway_ack_latency_seconds_bucket le=0.001"] == 0
    assert found["gateway_ack_latency_seconds_bucket le=+Inf"] == 5
    assert found["gateway_live_latency_seconds_count"] >= 1
    assert 1 <= found["gateway_sink_latency_seconds_count sink=history"] <= 5
    assert found["gateway_sink_latency_seconds_count sink=mqtt"] == 0
    for sink in health["sinks"]:
        assert found[f"gateway_sink_pending sink={sink['name']}"] == sink["pending"]
    assert {sink["name"]: sink["pending"] for sink in health["sinks"]} == {"history": 0, "mqtt": 5, "influx": 5}
