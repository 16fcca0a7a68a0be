"""A small Sparkplug B host application that holds every message of an edge node against the specification.

It reads the wire itself, by the field numbers of Sparkplug 3.0.0, 6.4.1, and shares no code with the gateway.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

INT64, DOUBLE, BOOLEAN, STRING = 4, 10, 11, 12
FIELD_OF = {INT64: 11, DOUBLE: 13, BOOLEAN: 14, STRING: 15}
REBIRTH = "Node Control/Rebirth"


class Metric(NamedTuple):
    name: str | None
    alias: int | None
    timestamp: int | None
    datatype: int | None
    historical: bool
    field: int  # of the value; 0: none
    value: Any


class Payload(NamedTuple):
    timestamp: int | None
    seq: int | None
    metrics: list[Metric]


def varint(data: bytes, at: int) -> tuple[int, int]:
    number = shift = 0
    while True:
        byte = data[at]
        number |= (byte & 127) << shift
        at, shift = at + 1, shift + 7
        if byte < 128:
            return number, at


def fields(data: bytes) -> Iterator[tuple[int, Any]]:
    """Each field's number and content: an integer, or bytes."""
    at = 0
    while at < len(data):
        key, at = varint(data, at)
        kind = key & 7
        content: Any
        if kind == 0:
            content, at = varint(data, at)
        elif kind == 1:
            content, at = data[at : at + 8], at + 8
        elif kind == 2:
            size, at = varint(data, at)
            content, at = data[at : at + size], at + size
        else:
            assert kind == 5, f"wire type {kind}"
            content, at = data[at : at + 4], at + 4
        assert at <= len(data)
        yield key >> 3, content


def read_metric(data: bytes) -> Metric:
    found: dict[int, Any] = {}
    for number, content in fields(data):
        assert number not in found, f"field {number} twice"
        found[number] = content
    assert found.keys() <= {1, 2, 3, 4, 5, *FIELD_OF.values()}, found.keys()
    values = [number for number in FIELD_OF.values() if number in found]
    assert len(values) <= 1
    field = values[0] if values else 0
    value = found.get(field)
    if field == 11:
        value = value - (1 << 64) if value >> 63 else value
    elif field == 13:
        value = struct.unpack("<d", value)[0]
    elif field == 14:
        value = bool(value)
    elif field == 15:
        value = value.decode()
    name = found[1].decode() if 1 in found else None
    return Metric(name, found.get(2), found.get(3), found.get(4), bool(found.get(5, 0)), field, value)


def read(data: bytes) -> Payload:
    timestamp = seq = None
    metrics = []
    for number, content in fields(data):
        if number == 1:
            timestamp = content
        elif number == 2:
            metrics.append(read_metric(content))
        else:
            assert number == 3, f"field {number}"
            seq = content
    return Payload(timestamp, seq, metrics)


def ask_for_births() -> bytes:
    """An NCMD, framed by hand: timestamp 1, one metric with name, data type and value true."""
    name = REBIRTH.encode()
    metric = b"\x0a" + bytes([len(name)]) + name + b"\x20\x0b\x70\x01"
    return b"\x08\x01\x12" + bytes([len(metric)]) + metric


class Value(NamedTuple):
    name: str
    value: Any
    ms: int
    historical: bool


class Host:
    """``hear`` raises AssertionError for what breaks a rule.  ``data`` are the values of each device's DDATA, in order;
    ``values`` what a screen would show; ``verbs`` all that was heard, such as ``DBIRTH pump-1``.
    """

    def __init__(self, group: str, node: str, *, aliases: bool = True) -> None:
        self.group, self.node, self.aliases = group, node, aliases
        self.verbs: list[str] = []
        self.data: dict[str, list[Value]] = {}
        self.values: dict[str, dict[str, Any]] = {}
        self.types: dict[str, dict[str, int]] = {}
        self.bd_seqs: list[int] = []  # of each birth
        self.seqs: list[int] = []
        self.online = False
        # The devices that live, with what their births said, by alias (by name where there are none).
        self.born: dict[str, dict[Any, Metric]] = {}
        self._aliases: dict[int, tuple[str, str]] = {}

    def feed(self, messages: Iterable[Any]) -> Host:
        """What paho's client has received."""
        for message in messages:
            self.hear(message.topic, message.payload, message.qos, message.retain)
        return self

    def hear(self, topic: str, data: bytes, qos: int = 0, retain: bool = False) -> None:
        if topic.split("/")[1] == "STATE" or topic.split("/")[2] in ("NCMD", "DCMD"):
            return
        namespace, group, verb, node, *rest = topic.split("/")
        assert (namespace, group, node) == ("spBv1.0", self.group, self.node), topic
        assert len(rest) == (verb[0] == "D"), topic
        assert not retain
        device = rest[0] if rest else ""
        self.verbs.append(f"{verb} {device}".strip())
        payload = read(data)
        assert payload.timestamp is not None
        assert payload.timestamp > 1_500_000_000_000
        if verb == "NDEATH":
            self._node_dies(payload, qos)
            return
        assert qos == 0
        assert payload.seq is not None
        if verb == "NBIRTH":
            self._node_is_born(payload)
        else:
            assert self.online, f"{verb} of a node that is not born"
            assert payload.seq == (self.seqs[-1] + 1) & 255, f"{verb} {payload.seq} after {self.seqs[-1]}"
            {"DBIRTH": self._is_born, "DDATA": self._tells, "DDEATH": self._dies}[verb](device, payload)
        self.seqs.append(payload.seq)

    def _node_dies(self, payload: Payload, qos: int) -> None:
        assert qos == 1
        assert payload.seq is None
        (metric,) = payload.metrics
        assert (metric.name, metric.datatype, metric.field) == ("bdSeq", INT64, 11)
        assert self.bd_seqs
        if metric.value == self.bd_seqs[-1]:
            self.online = False
            self.born.clear()

    def _node_is_born(self, payload: Payload) -> None:
        assert payload.seq == 0
        by_name = {metric.name: metric for metric in payload.metrics}
        assert len(by_name) == len(payload.metrics)
        for metric in payload.metrics:
            self._check_born(metric)
            assert metric.alias is None  # the node says no more of these
        assert by_name.keys() >= {"bdSeq", REBIRTH}
        number = by_name["bdSeq"]
        assert number.datatype == INT64
        assert 0 <= number.value <= 255
        rebirth = by_name[REBIRTH]
        assert (rebirth.datatype, rebirth.value) == (BOOLEAN, False)
        if self.online:
            assert number.value == self.bd_seqs[-1], "a new number without a new session"
        elif self.bd_seqs:
            assert number.value == (self.bd_seqs[-1] + 1) & 255, "numbers of sessions have a gap"
        self.bd_seqs.append(number.value)
        self.online = True
        self.born.clear()
        self._aliases.clear()

    @staticmethod
    def _check_born(metric: Metric) -> None:
        assert metric.name
        assert metric.timestamp is not None
        assert metric.datatype in FIELD_OF
        assert metric.field == FIELD_OF[metric.datatype], f"{metric.name}: value and type differ"
        assert not metric.historical

    def _is_born(self, device: str, payload: Payload) -> None:
        self._in_order(payload.metrics)
        known: dict[Any, Metric] = {}
        for metric in payload.metrics:
            self._check_born(metric)
            if not self.aliases:
                assert metric.alias is None
                known[metric.name] = metric
                continue
            assert metric.alias is not None
            assert metric.alias not in known
            owner = self._aliases.setdefault(metric.alias, (device, str(metric.name)))
            assert owner == (device, metric.name), f"alias {metric.alias} of {owner}"
            known[metric.alias] = metric
        assert len({metric.name for metric in known.values()}) == len(known)
        self.born[device] = known
        self.values[device] = {str(metric.name): metric.value for metric in known.values()}
        self.types[device] = {str(metric.name): int(metric.datatype or 0) for metric in known.values()}

    def _tells(self, device: str, payload: Payload) -> None:
        assert device in self.born, f"DDATA of {device}, which is not born"
        assert payload.metrics
        self._in_order(payload.metrics)
        for metric in payload.metrics:
            assert metric.timestamp is not None
            key = metric.alias if self.aliases else metric.name
            assert key in self.born[device], f"a metric that {device} did not tell"
            said = self.born[device][key]
            if self.aliases:
                assert (metric.name, metric.datatype) == (None, None)
            else:
                assert (metric.alias, metric.datatype) == (None, said.datatype)
            assert metric.field == FIELD_OF[said.datatype or 0]
            name = str(said.name)
            self.data.setdefault(device, []).append(Value(name, metric.value, metric.timestamp, metric.historical))
            if not metric.historical:
                self.values[device][name] = metric.value

    def _dies(self, device: str, payload: Payload) -> None:
        assert device in self.born
        assert not payload.metrics
        del self.born[device]

    @staticmethod
    def _in_order(metrics: list[Metric]) -> None:
        times = [metric.timestamp or 0 for metric in metrics if not metric.historical]
        assert times == sorted(times)
