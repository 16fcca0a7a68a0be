"""The Sparkplug sink against a broker that misbehaves as told: what CONNECT, DISCONNECT and each PUBLISH look like."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from gateway.sinks.base import Rejected, Stopped, Unavailable
from gateway.sinks.sparkplug import SparkplugSink

from .broker import FakeBroker, connack, packet
from .memory import batch, reading
from .sparkplug_host import Host, ask_for_births, read

RECEIVED = 1_764_000_000_500_000_000  # when ``reading(0)`` was
ONLINE = {("presence", "d-0"): b"online"}


def make(broker: FakeBroker, path: Path, **more: object) -> SparkplugSink:
    options: dict[str, object] = {
        "url": broker.url,
        "client_id": "gateway-g-sparkplug",
        "group": "plant",
        "node": "barn",
        "session": path / "sparkplug.json",
        "wall_clock": lambda: RECEIVED,
    }
    return SparkplugSink(**{**options, **more})  # type: ignore[arg-type]


@contextlib.asynccontextmanager
async def connected(broker: FakeBroker, path: Path, **more: object) -> AsyncIterator[SparkplugSink]:
    sink = make(broker, path, **more)
    await sink.open()
    assert await sink.ready()
    try:
        yield sink
    finally:
        await sink.close()


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(10):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0.001)


def heard(broker: FakeBroker) -> Host:
    host = Host("plant", "barn")
    for published in broker.published:
        host.hear(published.topic, published.payload, published.qos, published.retain)
    return host


async def test_connect_bears_the_death_and_the_node_is_born_behind_its_subscription(tmp_path: Path) -> None:
    """CONNECT is MQTT 5 with clean start, no session expiry, and NDEATH as the Will at QoS 1, not retained; NCMD is
    subscribed to at QoS 1, and NBIRTH is the first publish."""
    async with FakeBroker() as broker, connected(broker, tmp_path):
        body = broker.connects[0].body
        assert body[:7] == b"\x00\x04MQTT\x05"
        assert body[7] == 0b0000_1110  # Will QoS 1, will, clean start; not retained
        assert b"\x11" not in body[10 : 10 + body[10] + 1].split(b"\x27")[0]  # no Session Expiry Interval: 0
        assert b"\x00\x13gateway-g-sparkplug" in body
        topic = b"spBv1.0/plant/NDEATH/barn"
        at = body.index(topic) + len(topic)
        will = read(body[at + 2 : at + 2 + int.from_bytes(body[at : at + 2], "big")])
        assert (will.seq, [(metric.name, metric.value) for metric in will.metrics]) == (None, [("bdSeq", 0)])
        (subscribe,) = broker.subscribes
        assert subscribe.body[3:] == b"\x00\x17spBv1.0/plant/NCMD/barn" + bytes([0b10_0001])  # QoS 1, nothing retained
        assert heard(broker).verbs == ["NBIRTH"]


async def test_close_says_the_death_and_lets_the_broker_say_it(tmp_path: Path) -> None:
    """NDEATH at QoS 1 comes before DISCONNECT with reason 0x04, disconnect with Will Message."""
    async with FakeBroker() as broker:
        async with connected(broker, tmp_path) as sink:
            await sink.state(ONLINE)
        assert [published.qos for published in broker.published] == [0, 0, 1]
        assert heard(broker).verbs == ["NBIRTH", "DBIRTH d-0", "NDEATH"]
        await until(lambda: broker.disconnects)
        assert broker.disconnects[0].body[:1] == b"\x04"


async def test_a_batch_is_safe_when_a_ping_behind_it_is_answered(tmp_path: Path) -> None:
    """``write`` waits for the answer, and raises when the connection ends before."""
    async with FakeBroker() as broker, connected(broker, tmp_path) as sink:
        await sink.state(ONLINE)
        assert await sink.write(batch(reading(0, "d-0"), base=5)) == 6
        broker.answers_pings = False
        write = asyncio.create_task(sink.write(batch(reading(1, "d-0"))))
        await until(lambda: len(broker.published) == 5)
        await asyncio.sleep(0.02)
        assert not write.done()
        broker.writers[-1].transport.abort()
        with pytest.raises(Unavailable):
            await write


async def test_what_ends_early_is_born_again(tmp_path: Path) -> None:
    """After a write that was cancelled, all is born anew on the same connection, with the same session number."""
    async with FakeBroker() as broker, connected(broker, tmp_path) as sink:
        await sink.state(ONLINE)
        broker.answers_pings = False
        write = asyncio.create_task(sink.write(batch(reading(0, "d-0"))))
        await until(lambda: len(broker.published) == 4)
        write.cancel()
        await asyncio.wait([write])
        with pytest.raises(Unavailable, match="born"):
            await sink.write(batch(reading(0, "d-0")))
        broker.answers_pings = True
        broker.send(packet(0xD0))  # to what was cancelled
        assert not await sink.ready()
        await sink.write(batch(reading(0, "d-0")))
        host = heard(broker)
        assert host.verbs[-3:] == ["NBIRTH", "DBIRTH d-0", "DDATA d-0"]
        assert host.bd_seqs == [0, 0]
        assert len(broker.connects) == 1


async def test_a_new_connection_is_a_new_session(tmp_path: Path) -> None:
    """After the broker closed, the next CONNECT has the next number, and births come again before all else."""
    async with FakeBroker() as broker, connected(broker, tmp_path) as sink:
        await sink.state(ONLINE)
        link = sink._broker.link
        assert link is not None
        broker.writers[-1].close()
        await until(lambda: link.closed is not None)
        with pytest.raises(Unavailable):
            await sink.ready()
        count = len(broker.published)
        assert await sink.ready()
        host = Host("plant", "barn")
        for published in broker.published[count:]:
            host.hear(published.topic, published.payload)
        assert host.verbs == ["NBIRTH", "DBIRTH d-0"]
        assert host.bd_seqs == [1]


async def test_a_number_is_used_by_each_connect_and_by_nothing_else(tmp_path: Path) -> None:
    """A CONNECT that is refused has used its number; a broker that is away uses none."""
    async with FakeBroker() as broker:
        broker.on_connect = lambda: connack(0x88)
        sink = make(broker, tmp_path)
        with pytest.raises(Unavailable):
            await sink.ready()
        assert (tmp_path / "sparkplug.json").read_bytes() == b'{"bdSeq":0}'
        broker.on_connect = connack
        await sink.ready()
        assert heard(broker).bd_seqs == [1]
        await sink.close()
        assert broker.server is not None
        broker.server.close()
        with pytest.raises(Unavailable):
            await sink.ready()
        assert (tmp_path / "sparkplug.json").read_bytes() == b'{"bdSeq":1}'


async def test_a_host_that_asks_gets_births_before_more_data(tmp_path: Path) -> None:
    """NCMD wakes the runner, and births come with the next look; other commands and garbage change nothing."""
    topic = b"\x00\x17spBv1.0/plant/NCMD/barn\x00"
    async with FakeBroker() as broker, connected(broker, tmp_path) as sink:
        woken: list[bool] = []
        sink.lost = lambda: woken.append(True)
        await sink.state(ONLINE)
        broker.send(packet(0x30, topic + b"\xff\xff"))
        broker.send(packet(0x30, topic + b"\x12\x05\x0a\x01x\x70\x01"))
        broker.send(packet(0x30, topic + ask_for_births().replace(b"\x70\x01", b"\x70\x00")))
        assert not await sink.ready()
        await sink.state({("presence", "d-1"): b"online"})  # a way there and back
        assert not woken
        broker.send(packet(0x30, topic + ask_for_births()))
        await until(lambda: woken)
        assert not await sink.ready()
        await sink.write(batch(reading(0, "d-0")))
        host = heard(broker)
        assert host.verbs[-5:] == ["NBIRTH", "DBIRTH d-0", "DBIRTH d-1", "DBIRTH d-0", "DDATA d-0"]
        assert sink.stats()["rebirths"] == 1


async def test_packets_too_small_for_a_device_put_its_readings_aside(tmp_path: Path) -> None:
    """What cannot be born is rejected by index, all else is safe; too small for the node itself stops the sink."""
    async with FakeBroker() as broker:
        broker.on_connect = lambda: connack(props=b"\x27" + (700).to_bytes(4, "big"))
        async with connected(broker, tmp_path) as sink:
            wide = reading(1, "d-1", values={f"metric-{n:03}": n for n in range(50)})
            with pytest.raises(Rejected) as rejected:
                await sink.write(batch(reading(0, "d-0"), wide))
            assert (list(rejected.value.reasons), rejected.value.rest_safe) == ([1], True)
            assert heard(broker).verbs == ["NBIRTH", "DBIRTH d-0", "DDATA d-0", "DDEATH d-0"]
        broker.on_connect = lambda: connack(props=b"\x27" + (60).to_bytes(4, "big"))
        sink = make(broker, tmp_path)
        with pytest.raises(Stopped):
            await sink.ready()
        await sink.close()


async def test_a_broker_without_commands_is_told_of_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Where NCMD may not be subscribed to, the node is born all the same, and ``deaf`` says so."""
    async with FakeBroker() as broker:
        broker.suback = 0x87
        async with connected(broker, tmp_path) as sink:
            assert sink.stats()["deaf"] == 1
            assert heard(broker).verbs == ["NBIRTH"]
        assert caplog.text.count("does not let us subscribe") == 1


async def test_a_new_connection_has_to_hear_of_the_primary_host_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What an earlier connection heard of it does not count: without a STATE that is retained nothing is published."""
    monkeypatch.setattr("gateway.sinks.sparkplug.HOST_ANSWER_S", 0.05)
    async with FakeBroker() as broker:
        sink = make(broker, tmp_path, primary_host="scada")
        with pytest.raises(Unavailable, match="scada is offline"):
            await sink.ready()
        assert [found.body[3:] for found in broker.subscribes] == [
            b"\x00\x17spBv1.0/plant/NCMD/barn" + bytes([0b10_0001]),
            b"\x00\x13spBv1.0/STATE/scada" + bytes([0b00_0001]),  # with what is retained
        ]
        state = b"\x00\x13spBv1.0/STATE/scada\x00" + b'{"online":true,"timestamp":5}'
        broker.send(packet(0x31, state))  # retained
        await until(lambda: sink._host is not None and sink._host.online)
        await sink.ready()
        assert heard(broker).verbs == ["NBIRTH"]
        link = sink._broker.link
        assert link is not None
        broker.writers[-1].close()
        await until(lambda: link.closed is not None)
        for _ in range(2):
            with pytest.raises(Unavailable):
                await sink.ready()
        assert len(broker.connects) == 2
        await sink.close()
        assert heard(broker).verbs == ["NBIRTH"]


async def test_a_subscription_that_is_not_answered_ends_the_connection(tmp_path: Path) -> None:
    """A broker that answers nothing to SUBSCRIBE is left, and tried again with a new connection."""
    async with FakeBroker() as broker:
        broker.suback = None
        sink = make(broker, tmp_path, ack_s=0.05)
        for _ in range(2):
            with pytest.raises(Unavailable, match="subscription"):
                await sink.ready()
        assert len(broker.connects) == 2
        assert heard(broker).verbs == []
        await sink.close()


async def test_births_that_end_early_leave_the_connection_a_new_one(tmp_path: Path) -> None:
    """Only once they are through is the connection told to be new, with all that follows of that."""
    async with FakeBroker() as broker:
        sink = make(broker, tmp_path)
        broker.answers_pings = False
        ready = asyncio.create_task(sink.ready())
        await until(lambda: broker.published)
        ready.cancel()
        await asyncio.wait([ready])
        broker.answers_pings = True
        broker.send(packet(0xD0))  # to what was cancelled
        assert await sink.ready()
        assert not await sink.ready()
        assert heard(broker).verbs == ["NBIRTH", "NBIRTH"]
        assert (len(broker.connects), len(broker.subscribes)) == (1, 1)
        await sink.close()


async def test_a_primary_host_that_comes_late_finds_a_new_connection(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """States that were told before it was there are told once more."""
    monkeypatch.setattr("gateway.sinks.sparkplug.HOST_ANSWER_S", 0.01)
    async with FakeBroker() as broker:
        sink = make(broker, tmp_path, primary_host="scada")
        with pytest.raises(Unavailable, match="scada is offline"):
            await sink.ready()
        broker.send(packet(0x31, b"\x00\x13spBv1.0/STATE/scada\x00" + b'{"online":true,"timestamp":5}'))
        await until(lambda: sink._host is not None and sink._host.online)
        assert await sink.ready()
        assert not await sink.ready()
        assert len(broker.connects) == 1
        await sink.close()


async def test_other_states_and_events_are_not_told(tmp_path: Path) -> None:
    """Only presence is a state here, and there are no events."""
    async with FakeBroker() as broker, connected(broker, tmp_path) as sink:
        await sink.state({("topic", "x/y"): b"z"})
        await sink.tell([(("command-state", "d-0"), b"{}")])
        assert heard(broker).verbs == ["NBIRTH"]
