"""What an edge node says, held against the rules by a host of other hands."""

from __future__ import annotations

from collections.abc import Iterable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.reading import Mark, Presence, Reading, Value
from gateway.sinks.layouts import Message
from gateway.sinks.sparkplug_host import PrimaryHost
from gateway.sinks.sparkplug_node import DATA_BYTES, Node

from .sparkplug_host import BOOLEAN, DOUBLE, INT64, STRING, Host

SECOND = 1_000_000_000
NOW = 1_764_000_000 * SECOND
MS = NOW // 1_000_000
PLENTY = 1 << 28


class Pair:
    """A node and its host; ``newest`` is what is known of the devices beside what the node is given."""

    def __init__(self, integers: Iterable[str] = (), aliases: bool = True) -> None:
        self.newest: dict[str, list[tuple[str, int, Value]]] = {}
        declared = set(integers)
        self.node = Node(
            "g",
            "n",
            latest=lambda device: self.newest.get(device, ()),
            integer=lambda _, metric: metric in declared,
            aliases=aliases,
        )
        self.host = Host("g", "n", aliases=aliases)
        self.refused: dict[int, str] = {}
        self.sizes: list[int] = []
        self.max_bytes = PLENTY

    def hear(self, messages: Iterable[Message]) -> Pair:
        for message in messages:
            self.sizes.append(len(message.payload))
            self.host.hear(message.topic, message.payload)
        return self

    def births(self, bd_seq: int = 0, fresh: bool = True) -> Pair:
        return self.hear(self.node.births(bd_seq, NOW, fresh=fresh, max_bytes=self.max_bytes))

    def presence(self, device: str, state: bytes | None) -> Pair:
        return self.hear(self.node.presence(device, state, NOW, max_bytes=self.max_bytes))

    def data(self, *items: Reading | Mark | Presence) -> Pair:
        before = NOW - 10 * SECOND
        return self.hear(self.node.data(items, before, NOW, max_bytes=self.max_bytes, refused=self.refused))

    def take_verbs(self) -> list[str]:
        verbs, self.host.verbs = self.host.verbs, []
        return verbs


def at(seconds: float, device: str = "a", received: float | None = None, **values: Value) -> Reading:
    """A reading of a time relative to now, received then too unless said otherwise."""
    when = NOW + int(seconds * SECOND)
    got = when if received is None else NOW + int(received * SECOND)
    return Reading(device, "s", 1, when, got, values)


def test_births_before_data_and_a_death_behind() -> None:
    """The node is born first, then the devices that are there; a device that leaves dies once."""
    pair = Pair().presence("a", b"offline").births().presence("a", b"online").data(at(-1, x=1.5))
    pair.presence("a", b"stale").presence("a", b"online").presence("a", b"offline").presence("a", b"offline")
    assert pair.take_verbs() == ["NBIRTH", "DBIRTH a", "DBIRTH a", "DDATA a", "DDEATH a"]
    assert pair.host.seqs == [0, 1, 2, 3, 4]
    assert pair.host.data["a"] == [("x", 1.5, MS - 1000, False)]
    assert (pair.node.born, pair.node.died) == (2, 1)


def test_births_know_what_there_was_before() -> None:
    """With values known from before, the first birth has them all, and data needs no other."""
    pair = Pair()
    pair.newest["a"] = [("x", NOW - 5 * SECOND, 1), ("s", NOW - 9 * SECOND, "on")]
    pair.births().presence("a", b"online").data(at(-1, x=2))
    assert pair.take_verbs() == ["NBIRTH", "DBIRTH a", "DDATA a"]
    assert pair.host.values["a"] == {"x": 2, "s": "on"}


def test_a_new_session_births_all_that_live_with_the_newest_values() -> None:
    """After a new connection each device that is connected is born again, with what is newest now."""
    pair = Pair().births(0)
    for device in "abc":
        pair.presence(device, b"online").data(at(-3, device, x=1))
    pair.presence("b", b"offline").take_verbs()
    pair.newest["a"] = [("x", NOW - SECOND, 5)]
    pair.host.online = False
    pair.births(1)
    assert pair.take_verbs() == ["NBIRTH", "DBIRTH a", "DBIRTH c"]
    assert pair.host.values["a"] == {"x": 5}
    assert pair.host.values["c"] == {"x": 1}
    assert pair.host.bd_seqs == [0, 1]


def test_a_rebirth_keeps_session_number_values_and_aliases() -> None:
    """Births on request begin at 0 again, with the same bdSeq, aliases and published values."""
    pair = Pair().births(7).presence("a", b"online").data(at(-2, x=1, y=True))
    before = {alias: metric.name for alias, metric in pair.host.born["a"].items()}
    pair.births(7, fresh=False)
    assert pair.host.seqs[-2:] == [0, 1]
    assert pair.host.bd_seqs == [7, 7]
    assert {alias: metric.name for alias, metric in pair.host.born["a"].items()} == before
    assert pair.host.values["a"] == {"x": 1, "y": True}


def test_the_sequence_wraps_over_all_messages() -> None:
    """Births, data and deaths of all devices share one sequence, 0 after 255."""
    pair = Pair().births().presence("a", b"online").presence("b", b"online")
    for n in range(300):
        pair.data(at(-300 + n, "ab"[n % 2], received=0, x=n))
    assert pair.host.seqs[255:257] == [255, 0]
    assert len(pair.host.seqs) > 300


def test_a_new_metric_makes_one_birth_for_a_batch() -> None:
    """All new metrics of a batch are in one birth before its data."""
    pair = Pair().births().presence("a", b"online").data(at(-9, x=1))
    pair.take_verbs()
    pair.data(at(-8, x=2), at(-7, y=True), at(-6, z="s"), at(-5, x=3))
    assert pair.take_verbs() == ["DDATA a", "DBIRTH a", "DDATA a"]
    assert [value.value for value in pair.host.data["a"]] == [1, 2, True, "s", 3]
    assert pair.host.types["a"] == {"x": INT64, "y": BOOLEAN, "z": STRING}


def test_a_changed_type_makes_a_birth() -> None:
    """A number that gets a fraction becomes Double for good; another type of value is born with that type."""
    pair = Pair().births().presence("a", b"online")
    pair.data(at(-9, x=22), at(-8, x=22.5), at(-7, x=23), at(-6, x="off"), at(-5, x=24))
    assert pair.take_verbs() == ["NBIRTH", "DBIRTH a", *["DBIRTH a", "DDATA a"] * 4]
    assert [value.value for value in pair.host.data["a"]] == [22, 22.5, 23.0, "off", 24]
    assert pair.host.types["a"] == {"x": INT64}


def test_a_declared_integer_stays_one() -> None:
    """A metric that its device declared an integer is Int64, also where it comes as a float."""
    pair = Pair(integers=["n"]).births().presence("a", b"online").data(at(-2, n=3.0), at(-1, n=4))
    assert pair.host.types["a"] == {"n": INT64}
    assert [value.value for value in pair.host.data["a"]] == [3, 4]


def test_backlog_and_late_values_are_historical() -> None:
    """What was received more than ten seconds before, and what is older than data before it, is historical."""
    pair = Pair()
    pair.newest["a"] = [("x", NOW - SECOND, 9)]
    pair.births().presence("a", b"online")
    pair.data(at(-30, x=1), at(-3, x=2), at(-2, received=-1, x=4)).data(at(-2.5, received=-1, x=3), at(-1, x=9))
    assert [(value.value, value.historical) for value in pair.host.data["a"]] == [
        (1, True),
        (2, False),
        (4, False),
        (3, True),
        (9, False),
    ]
    assert pair.host.values["a"] == {"x": 9}


def test_a_birth_keeps_the_newest_value() -> None:
    """What comes behind a birth with a newer value does not take its place in the next birth."""
    pair = Pair()
    pair.newest["a"] = [("x", NOW - SECOND, 9)]
    pair.births().presence("a", b"online").data(at(-3, x=2)).births(fresh=False)
    assert pair.host.values["a"] == {"x": 9}


def test_a_backlog_of_an_unknown_device_leaves_the_newest_value() -> None:
    """After a restart the birth for a backlog has the newest values, and only another type puts an old one in place."""
    pair = Pair()
    pair.newest["a"] = [("x", NOW - SECOND, 9), ("y", NOW - SECOND, "off")]
    pair.births().data(at(-60, x=1), at(-59, x=2, z=True))
    assert pair.host.verbs == ["NBIRTH", "DBIRTH a", "DDATA a", "DDEATH a"]
    assert pair.host.values["a"] == {"x": 9, "y": "off", "z": True}
    assert [value.historical for value in pair.host.data["a"]] == [True, True, True]
    pair.data(at(-58, y=3), at(-1, y="off"))
    assert pair.host.values["a"]["y"] == "off"
    assert [value.value for value in pair.host.data["a"][-2:]] == [3, "off"]


def test_births_begin_anew_where_others_broke_off() -> None:
    """A device that was born for its data, and whose death was not published any more, is born again for the next."""
    pair = Pair().births()
    pair.hear([next(pair.node.data([at(-2, x=1)], 0, NOW, max_bytes=PLENTY, refused={}))])
    pair.births().data(at(-2, x=1))
    assert pair.take_verbs() == ["NBIRTH", "DBIRTH a", "NBIRTH", "DBIRTH a", "DDATA a", "DDEATH a"]


def test_a_time_in_the_future_makes_no_history() -> None:
    """After a value of a clock that was ahead, those of now are no history."""
    pair = Pair().births().presence("a", b"online").data(at(3600, received=0, x=1)).data(at(-1, x=2))
    assert [value.historical for value in pair.host.data["a"]] == [False, False]
    assert pair.host.values["a"] == {"x": 2}
    pair.births(fresh=False)
    assert pair.host.values["a"] == {"x": 2}


def test_values_of_one_message_are_in_the_order_of_time() -> None:
    """Readings that came out of order are told in order."""
    pair = Pair().births().presence("a", b"online").data(at(-1, x=3), at(-3, x=1), at(-2, x=2))
    assert [value.value for value in pair.host.data["a"]] == [1, 2, 3]


def test_data_of_a_device_that_left_is_framed_by_birth_and_death() -> None:
    """What a device sent before it left, or in an earlier run, comes between a birth and a death."""
    pair = Pair().births().data(at(-1, "gone", x=1))
    assert pair.take_verbs() == ["NBIRTH", "DBIRTH gone", "DDATA gone", "DDEATH gone"]
    pair.presence("b", b"online").presence("b", b"offline").data(at(-1, "b", x=1))
    assert pair.take_verbs() == ["DBIRTH b", "DDEATH b", "DBIRTH b", "DDATA b", "DDEATH b"]


def test_what_is_no_value_is_skipped() -> None:
    """Marks, presence and readings without values say nothing."""
    pair = Pair().births().presence("a", b"online")
    pair.data(Mark("a", "s", 1), Presence("a", "online", NOW), at(-1))
    assert pair.take_verbs() == ["NBIRTH", "DBIRTH a"]


def test_a_forgotten_device_dies_and_comes_back_as_a_new_one() -> None:
    """Its aliases are not used again."""
    pair = Pair().births().presence("a", b"online").data(at(-2, x=1))
    old = set(pair.host.born["a"])
    pair.presence("a", None).presence("a", None).presence("a", b"online").data(at(-1, x=True))
    assert pair.take_verbs()[-4:] == ["DDEATH a", "DBIRTH a", "DBIRTH a", "DDATA a"]
    assert not old & set(pair.host.born["a"])


def test_messages_stay_below_what_the_broker_takes() -> None:
    """Data is cut between metrics, and never more than 128 KiB at once."""
    pair = Pair().births().presence("a", b"online")
    readings = [at(-9 + n / 1000, **{f"m{m}": "x" * 100 for m in range(10)}) for n in range(200)]
    pair.data(*readings)
    assert max(pair.sizes) <= DATA_BYTES
    assert pair.host.verbs.count("DDATA a") >= 2
    pair.max_bytes = 3000
    pair.take_verbs()
    pair.sizes.clear()
    pair.data(*readings[:20])
    assert max(pair.sizes) <= 3000
    assert pair.host.verbs.count("DDATA a") >= 7
    assert not pair.refused
    assert len(pair.host.data["a"]) == 2200


def test_a_value_larger_than_a_packet_is_refused() -> None:
    """Its reading alone, with words that name it, and no number of the sequence."""
    pair = Pair().births().presence("a", b"online").data(at(-9, x=0, s=""))
    pair.max_bytes = 400
    pair.data(at(-3, x=1), at(-2, x=2, s="x" * 500), at(-1, x=3))
    assert [value.value for value in pair.host.data["a"]] == [0, "", 1, 3]
    assert list(pair.refused) == [1]
    assert "s alone" in pair.refused[1]


def test_a_birth_larger_than_a_packet_leaves_the_device_out() -> None:
    """Its readings are refused, it dies where it was born, and all others go on."""
    pair = Pair().births().presence("a", b"online").presence("b", b"online").data(at(-9, x=1))
    pair.max_bytes = 1500
    pair.take_verbs()
    wide = {f"metric-{n:03}": n for n in range(100)}
    pair.data(at(-3, x=2), at(-2, "a", **wide), at(-1, x=3), at(-1, "b", y=1))
    assert pair.take_verbs() == ["DDATA a", "DDEATH a", "DBIRTH b", "DDATA b"]
    assert list(pair.refused) == [1, 2]
    assert "the birth of a has" in pair.refused[1]
    pair.presence("a", b"online").births(fresh=False)
    assert pair.take_verbs() == ["NBIRTH", "DBIRTH b"]


VALUE = st.one_of(st.booleans(), st.integers(-5, 5), st.floats(-5, 5), st.sampled_from(["", "x"]))
STEP = st.one_of(
    st.tuples(st.just("presence"), st.sampled_from("abc"), st.sampled_from([b"online", b"stale", b"offline", None])),
    st.tuples(
        st.just("data"),
        st.lists(
            st.tuples(st.sampled_from("abc"), st.integers(-20, 1), st.dictionaries(st.sampled_from("xyz"), VALUE)),
            max_size=8,
        ),
    ),
    st.tuples(st.just("births"), st.booleans()),
    st.tuples(st.just("newest"), st.sampled_from("abc"), st.dictionaries(st.sampled_from("xyz"), VALUE)),
)


@settings(max_examples=60, deadline=None)
@given(st.booleans(), st.lists(STEP, max_size=25))
def test_any_course_keeps_the_rules(aliases: bool, steps: list[tuple[object, ...]]) -> None:
    """Whatever comes and goes, the host finds no fault, and hears each value once and with its own type."""
    pair = Pair(aliases=aliases).births(0)
    sent: list[tuple[str, str, Value]] = []
    for step in steps:
        if step[0] == "presence":
            pair.presence(step[1], step[2])  # type: ignore[arg-type]
        elif step[0] == "data":
            readings = [at(seconds, device, **values) for device, seconds, values in step[1]]  # type: ignore[attr-defined]
            pair.data(*readings)
            sent += [(one.device, name, value) for one in readings for name, value in one.values.items()]
        elif step[0] == "newest":
            known = step[2].items()  # type: ignore[attr-defined]
            pair.newest[str(step[1])] = [(name, NOW - SECOND, value) for name, value in known]
        else:
            pair.births(0, fresh=bool(step[1]))
    heard = [(device, value.name, value.value) for device, values in pair.host.data.items() for value in values]
    assert sorted(map(repr, map(_plain, heard))) == sorted(map(repr, map(_plain, sent)))


def _plain(value: tuple[str, str, Value]) -> tuple[str, str, Value]:
    device, name, content = value
    # A whole number of a metric with fractions is a Double, and the same number.
    return device, name, float(content) + 0.0 if type(content) in (int, float) else content


def test_types_that_the_host_knows() -> None:
    """Each of the four types of value has the data type of its own."""
    pair = Pair().births().presence("a", b"online").data(at(-1, i=-5, d=0.5, b=False, s="é"))
    assert pair.host.types["a"] == {"i": INT64, "d": DOUBLE, "b": BOOLEAN, "s": STRING}
    assert pair.host.values["a"] == {"i": -5, "d": 0.5, "b": False, "s": "é"}


def test_without_aliases_values_say_all_of_themselves() -> None:
    """Births have no aliases then, and each value has its name and data type."""
    pair = Pair(aliases=False).births().presence("a", b"online").data(at(-30, x=1.5, s="é"), at(-1, x=2))
    assert pair.host.values["a"] == {"x": 2.0, "s": "é"}
    assert [(value.name, value.value, value.historical) for value in pair.host.data["a"]] == [
        ("x", 1.5, True),
        ("s", "é", True),
        ("x", 2.0, False),
    ]


def test_the_primary_host_is_believed_by_its_newest_word() -> None:
    """A STATE older than the one before is not heeded; what is none is said to be none."""
    host = PrimaryHost("scada")
    assert host.topic == "spBv1.0/STATE/scada"
    assert not host.online
    assert host.heard(b'{"online":true,"timestamp":5}')
    assert not host.heard(b'{"online":false,"timestamp":4}')
    assert host.online
    assert host.heard(b'{"online":false,"timestamp":5}')
    assert not host.online
    for word in (b"ONLINE", b'{"online":"yes","timestamp":5}', b"{}"):
        with pytest.raises(ValueError, match="STATE"):
            host.heard(word)
