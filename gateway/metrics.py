"""Renders every room's ``stats()`` for Prometheus, in its text format or in OpenMetrics; no room knows it.

:data:`TABLE` says of each number what it is called here, whether it only grows, and what it means.  Names follow
Prometheus' conventions (https://prometheus.io/docs/practices/naming/): base units, ``_total`` for what only grows, a
label where numbers are parts of one whole, a histogram for how long something took.  No device is ever a label.  A
number that the table does not know is shown as a gauge under its own name.  The process's own numbers (memory, CPU,
file descriptors) are those of prometheus-client.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from math import inf
from typing import TYPE_CHECKING, NamedTuple

from .distribution import Distribution

if TYPE_CHECKING:
    from prometheus_client import Metric

__all__ = ["TABLE", "Known", "Source", "exposition"]

Stats = Mapping[str, float] | Mapping[str, Distribution]
# (room, its labels, its numbers now)
Source = tuple[str, Mapping[str, str], Callable[[], Stats]]


class Known(NamedTuple):
    """A number's family: ``gateway_<room>_<name>``, with ``_total`` for a counter; what is shown is ``scale`` times
    the number."""

    kind: str  # counter, gauge, summary or histogram
    name: str
    help: str
    labels: Mapping[str, str] = {}
    scale: float = 1.0


def _counter(name: str, help: str) -> Known:
    return Known("counter", name, help)


def _gauge(name: str, help: str) -> Known:
    return Known("gauge", name, help)


def _latency(help: str) -> dict[str, Known]:
    return {"latency": Known("histogram", "latency_seconds", help)}


def _ack(quantile: str) -> Known:
    help = "From the first reading of a group commit to its acks, over the last commits."
    return Known("summary", "ack_seconds", help, {"quantile": quantile}, 0.001)


TABLE: dict[str, dict[str, Known]] = {
    "readings": {
        "received": _counter("received", "Readings that arrived, whatever became of them."),
        "stored": _counter("stored", "Readings safe on this machine's disk."),
        "rejected": _counter("rejected", "Readings and messages refused for good: the device got an error."),
        "duplicate": _counter("duplicate", "Readings that were stored already and came again."),
        "throttled": _counter("throttled", "Readings not kept because the device was above its rate, or behind such."),
        "dropped": _counter("dropped", "Readings not kept because the journal was full or could not be written."),
        "missing": _counter("missing", "Numbers that devices left out of their sequences: never received."),
        "in_flight": _gauge("in_flight", "Readings accepted and not yet synced to disk."),
    },
    "devices": {
        "online": _gauge("online", "Devices that are connected and send as expected."),
        "stale": _gauge("stale", "Devices that are connected and silent for longer than expected."),
        "offline": _gauge("offline", "Devices that are not connected."),
    },
    "intake": {
        "messages": _counter("messages", "Messages of devices, each of one reading or more."),
        "notices_dropped": _counter("notices_dropped", "Answers left out because the device does not read them."),
    },
    "downlink": {
        "waiting": _gauge("waiting", "Commands for devices that have not ended."),
        "queued": _counter("queued", "Commands taken and kept on disk."),
        "sent": _counter("sent", "Commands sent to devices, each time that one was."),
        "done": _counter("done", "Commands that their device has carried out."),
        "failed": _counter("failed", "Commands that their device could not carry out."),
        "expired": _counter("expired", "Commands whose time was over before their device answered."),
        "misaddressed": _counter("misaddressed", "Commands published for what cannot be a device."),
    },
    "refusals": {"messages": _counter("messages", "Errors sent to devices, by code.")},
    "ack": _latency("From the receipt of a reading, at the latest, until its ack was sent; each reading counts."),
    "live": _latency("From the receipt of the oldest reading of an update until dashboards are sent it."),
    "log": {
        "entries": _counter("entries", "Entries of the log written."),
        "lost": _counter("lost", "Entries left out because what takes the log was too slow."),
    },
    "journal": {
        "commits": _counter("commits", "Group commits: each one write and one sync."),
        "records": _counter("records", "Records written, usually one a commit."),
        "written_bytes": _counter("written_bytes", "Bytes written to segments."),
        "commit_seconds": _counter("commit_seconds", "Time spent encoding, writing and syncing."),
        "sync_seconds": _counter("sync_seconds", "Time of it spent in fdatasync."),
        "sync_seconds_max": _gauge("longest_sync_seconds", "The longest fdatasync since the start."),
        "failures": _counter("failures", "Writes or syncs that the disk failed; what they held was written again."),
        "refused": _counter("refused", "Readings refused because the journal was full or could not be written."),
        "torn_bytes": _gauge("torn_bytes", "Bytes cut off at the start: a write that a crash left unfinished."),
        "foreign_segments": _gauge("foreign_segments", "Segments of another journal, found at the start."),
        "damaged_segments": _counter("damaged_segments", "Segments with damaged records."),
        "damages": _counter("damages", "Damaged places that reading went on behind."),
        "set_aside": _counter("set_aside", "Files renamed out of the way because they cannot be used."),
        "vanished": _gauge("vanished", "Stored readings of which no file was left at the start, nor let go before."),
        "dropped_segments": _counter("dropped_segments", "Segments unlinked to make room, not yet read by every sink."),
        "removed_segments": _counter("removed_segments", "Segments unlinked after every sink had read them."),
        "places_failures": _counter("places_failures", "Failed attempts to save how far the sinks are."),
        "ack_ms_p50": _ack("0.5"),
        "ack_ms_p99": _ack("0.99"),
        "next_offset": _gauge("next_offset", "The offset of the next item."),
        "durable_offset": _gauge("durable_offset", "Items below this offset are synced to disk."),
        "oldest_offset": _gauge("oldest_offset", "The offset of the oldest item still held."),
        "stored": _counter("stored", "Readings ever made durable in this state directory."),
        "pending": _gauge("pending", "Items (readings, states, descriptions) not yet synced to disk."),
        "oldest_pending_s": _gauge("oldest_pending_seconds", "For how long the oldest of them has waited."),
        "segments": _gauge("segments", "Segment files held."),
        "bytes": _gauge("bytes", "Bytes of disk that they take."),
        "max_bytes": _gauge("max_bytes", "Bytes of disk that they may take."),
        "free_bytes": _gauge("free_bytes", "Bytes free on their file system."),
        "ring_bytes": _gauge("ring_bytes", "Bytes of the newest items held in memory for the sinks."),
        "ring_batches": _gauge("ring_batches", "Batches of them."),
        "cursors": _gauge("cursors", "Readers whose place in the journal is kept."),
        "failing": _gauge("failing", "1 while nothing can be written, so that readings are refused."),
        "writer_step_s": _gauge(
            "writer_step_seconds", "For how long the writer has been at one step; 0 while it waits."
        ),
        "unencodable": _counter("unencodable", "Items that could not be written in any form: a fault in the gateway."),
    },
    "history": {
        "queries": _counter("queries", "Queries of readings answered."),
        "query_seconds": _counter("query_seconds", "Time spent answering them."),
        "queries_refused": _counter("queries_refused", "Queries refused because too many ran."),
        "queries_running": _gauge("queries_running", "Queries being answered now."),
        "flushes": _counter("flushes", "Times that memory was written to the file."),
        "flush_seconds": _counter("flush_seconds", "Time spent on it."),
        "flush_failures": _counter("flush_failures", "Times that it failed; it is tried again."),
        "damaged": _counter("damaged", "Chunks that could not be read and were passed over."),
        "memtable_bytes": _gauge("memtable_bytes", "Bytes in memory, to be written to the file."),
        "memtable_readings": _gauge("memtable_readings", "Readings in memory, to be written to the file."),
        "position": _gauge("position", "Items below this offset of the journal are in the file."),
        "end": _gauge("end", "Items below this offset of the journal can be queried."),
        "chunks_written": _counter("chunks_written", "Compressed chunks of values written."),
        "rows_written": _counter("rows_written", "Rows of the file written."),
        "values_written": _counter("values_written", "Values in the chunks written."),
        "chunk_bytes_written": _counter("chunk_written_bytes", "Bytes of the chunks written."),
        "chunks_merged": _counter("chunks_merged", "Small chunks joined to larger ones."),
        "chunks_rolled": _counter("chunks_rolled", "Chunks whose readings were put into rollups."),
        "chunks_expired": _counter("chunks_expired", "Chunks deleted at the end of their retention."),
        "chunks_salvaged": _counter("chunks_salvaged", "Chunks taken over from a damaged file."),
        "chunks_left_out": _counter("chunks_lost", "Chunks of a damaged file that could not be read."),
        "rescued": _counter("rescued", "Times that the file could not be used and was made anew."),
        "file_bytes": _gauge("file_bytes", "Bytes of the file."),
        "devices": _gauge("devices", "Devices with readings in the file."),
    },
    "hub": {
        "series": _gauge("series", "Series whose newest value is held for dashboards."),
        "groups": _gauge("groups", "Different subscriptions: dashboards that ask for the same share one."),
        "subscribers": _gauge("subscribers", "Subscriptions of dashboards."),
        "frames": _counter("frames", "Updates encoded; each goes to all dashboards that share it."),
        "downgraded": _counter("downgraded", "Subscriptions of slow dashboards, moved to the latest values."),
        "failures": _counter("failures", "Steps that failed, of sending to dashboards; the log has the reason."),
    },
    "access": {
        "refused": _counter("refusals", "Requests and first messages refused for who sent them, or from where."),
        "ended": _counter("ended", "Connections ended because their token was revoked or has expired."),
    },
    "tls": {
        "expires_in_s": _gauge("certificate_remaining_seconds", "Until the TLS certificate ends; negative since then."),
    },
    "settings": {
        "reloads": _counter("reloads", "Times that the settings were read anew and taken, the certificate with them."),
        "failures": _counter("reload_failures", "Times that they had faults, so that those before stay in force."),
    },
    "sink": {
        **_latency("From the receipt of a batch's oldest reading until the far side has taken it; each batch counts."),
        "stored": _counter("stored", "Readings stored since the sink's place in the journal began; over restarts."),
        "delivered": _counter("delivered", "Of these, safe on the far side; over restarts."),
        "pending": _gauge("unconfirmed", "Of these, not yet known to be safe on the far side: the journal holds them."),
        "dead_lettered": _gauge("dead_lettered", "Of these, put aside and not taken since; over restarts."),
        "overflowed": _counter("overflowed", "Of these, dropped from a full journal unread; over restarts."),
        "lost": _counter("lost", "Of these, taken from the sink by damage to the journal; over restarts."),
        "behind": _gauge("pending", "Readings stored and not yet taken by the far side, as in /healthz."),
        "taken": _counter("taken", "Readings taken by the far side since the start, safe or not yet."),
        "dead_letters": _gauge("dead_letters", "Readings put aside and kept."),
        "dead_letters_damaged": _gauge("damaged_dead_letters", "Of these, damaged on disk: kept, never delivered."),
        "retries": _counter("retries", "Waits before another attempt."),
        "batches": _counter("batches", "Batches taken by the far side."),
        "states_sent": _counter("states_sent", "Changes of presence taken by the far side."),
        "states_pending": _gauge("states_pending", "Changes of presence not yet taken by the far side."),
        "events_dropped": _counter("events_dropped", "States of commands that were not told: too many waited."),
        "deaf": _gauge("deaf", "1 while the broker does not let us subscribe."),
        "write_seconds": _gauge("last_write_seconds", "How long the far side took over the last batch."),
        "write_seconds_sum": _counter("write_seconds", "Time that the far side took over all batches."),
        "up": _gauge("up", "1 while the far side takes what it gets, or nothing was tried yet."),
        "stopped": _gauge("stopped", "1 while a person has to mend something."),
        "connected": _gauge("connected", "1 while there is a connection to the broker."),
        "connects": _counter("connects", "Connections to the broker."),
        "publishes": _counter("publishes", "Messages that the broker has acknowledged."),
        "births": _counter("births", "Births of devices published (Sparkplug)."),
        "deaths": _counter("deaths", "Deaths of devices published (Sparkplug)."),
        "rebirths": _counter("rebirths", "Times that a host asked for all births anew (Sparkplug)."),
        "refused_states": _counter("refused_states", "Changes of presence that the broker refused."),
        "requests": _counter("requests", "Requests to the store."),
        "bytes": _counter("written_bytes", "Bytes of lines that the store has taken."),
    },
    "websocket": {
        "connections": _gauge("connections", "Open WebSocket connections."),
        "transports": _gauge("transports", "Open TCP connections, whatever is spoken on them."),
        "handshakes": _gauge("handshakes", "Connections whose request is not complete or not answered yet."),
        "answered": _gauge("answered", "Connections that were answered and not closed by the other side yet."),
        "unread_bytes": _gauge("unread_bytes", "Bytes of answers that the other side has not read yet."),
        "handlers": _gauge("handlers", "Handlers that run as tasks."),
        "aborted_at_stop": _counter("aborted_at_stop", "Connections cut because they did not close in time at a stop."),
        "accepted": _counter("accepted", "TCP connections accepted."),
        "opened": _counter("opened", "WebSocket connections opened."),
        "pages": _counter("pages", "Requests answered that were no WebSocket."),
        "messages_in": _counter("messages_received", "WebSocket messages received."),
        "bytes_in": _counter("received_bytes", "Bytes received on all connections."),
        "bytes_out": _counter("sent_bytes", "Bytes sent on all connections."),
        "close_timeouts": _counter("close_timeouts", "Connections cut because their end did not answer the close."),
        "handler_errors": _counter("handler_errors", "Exceptions in handlers: each a fault in the gateway."),
        "handshakes_cut": _counter("handshakes_cut", "Silent or unread connections cut to make room for others."),
        "handshakes_failed": _counter("handshakes_failed", "Handshakes that did not come to an answer."),
    },
}

# Numbers whose names hold a label's value behind the prefix: room -> (prefix, family, label, help).
PREFIXES: dict[str, list[tuple[str, str, str, str]]] = {
    "websocket": [
        ("closed_", "closed", "code", "WebSocket connections ended, by close code (RFC 6455, 7.4)."),
        ("refused_", "refused", "status", "Requests refused, by HTTP status."),
        ("refusals_", "refusals", "reason", "The same requests, by the reason for which they were refused."),
        ("lost_", "lost", "reason", "WebSocket connections ended otherwise than by a close from here, by reason."),
    ],
    "refusals": [("messages_", "messages", "code", "Errors sent to devices, by code.")],
    "dashboards": [("refused_", "refused", "code", "Errors sent to dashboards, by code.")],
    "control": [("refused_", "refused", "reason", "Requests on the control socket that were refused, by reason.")],
    "downlink": [("refused_", "refused", "reason", "Commands for devices that were not taken, by reason.")],
    "access": [("refused_", "refused", "reason", "Of the refusals, those for one reason.")],
}


def exposition(sources: Iterable[Source], version: str, accept: str = "") -> tuple[bytes, str]:
    """The exposition and its content type.

    ``accept`` is the request's ``Accept``: OpenMetrics where it names ``application/openmetrics-text``, otherwise
    Prometheus' text format 0.0.4.
    """
    from prometheus_client import CollectorRegistry, ProcessCollector
    from prometheus_client.exposition import choose_encoder
    from prometheus_client.registry import Collector

    class Rooms(Collector):
        def collect(self) -> Iterator[Metric]:
            return _collect(sources, version)

    registry = CollectorRegistry(auto_describe=False)
    registry.register(Rooms())
    ProcessCollector(registry=registry)
    encode, content_type = choose_encoder(accept)
    return encode(registry), content_type


def _collect(sources: Iterable[Source], version: str) -> Iterator[Metric]:
    from prometheus_client import Metric
    from prometheus_client.core import InfoMetricFamily

    yield InfoMetricFamily("gateway_build", "The running version.", {"version": version})
    families: dict[str, Metric] = {}
    for room, labels, read in sources:
        for name, number in read().items():
            known = _known(room, name)
            full = f"gateway_{room}_{known.name}"
            family = families.get(full)
            if family is None:
                family = families[full] = Metric(full, known.help, known.kind)
            if isinstance(number, Distribution):
                _add_buckets(family, labels, number)
                continue
            sample = f"{full}_total" if known.kind == "counter" else full
            family.add_sample(sample, {**labels, **known.labels}, number * known.scale)
    yield from families.values()


def _add_buckets(family: Metric, labels: Mapping[str, str], found: Distribution) -> None:
    for bound, count in found.buckets():
        le = "+Inf" if bound == inf else repr(bound)
        family.add_sample(f"{family.name}_bucket", {**labels, "le": le}, count)
    family.add_sample(f"{family.name}_count", dict(labels), found.count)
    family.add_sample(f"{family.name}_sum", dict(labels), found.total)


def _known(room: str, name: str) -> Known:
    known = TABLE.get(room, {}).get(name)
    if known is not None:
        return known
    for prefix, family, label, help in PREFIXES.get(room, ()):
        value = name.removeprefix(prefix)
        if value != name and value:
            return Known("counter", family, help, {label: value})
    return Known("gauge", name, f"{name} of {room}; not described.")
