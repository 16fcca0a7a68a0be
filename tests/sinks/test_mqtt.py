"""The MQTT sink against a broker that misbehaves as told."""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from unittest.mock import Mock

import pytest

from gateway.sinks.base import Refused, Rejected, Stopped, Unavailable
from gateway.sinks.deadletters import DeadLetters
from gateway.sinks.layouts import layout
from gateway.sinks.mqtt import MqttSink
from gateway.sinks.mqtt_broker import parse_url
from gateway.sinks.mqtt_link import Link
from gateway.sinks.runner import Runner
from tests.servers import free_port

from .broker import FakeBroker, Published, connack, packet, puback
from .memory import MemoryCursor, batch, reading


def make(url: str, name: str = "flat", **more: object) -> MqttSink:
    return MqttSink(url=url, layout=layout(name, gateway="g"), client_id="gateway-g", **more)  # type: ignore[arg-type]


@contextlib.asynccontextmanager
async def connected(broker: FakeBroker, name: str = "flat", **more: object) -> AsyncIterator[MqttSink]:
    sink = make(broker.url, name, **more)
    await sink.open()
    assert await sink.ready()
    try:
        yield sink
    finally:
        await sink.close()


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(5):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0.001)


def telemetry(broker: FakeBroker) -> list[Published]:
    return [published for published in broker.published if published.topic.endswith("/telemetry")]


def refuse(code: int, when: bytes = b"") -> object:
    """An answer to PUBLISH: ``code`` for telemetry whose payload holds ``when``."""

    def answer(published: Published) -> bytes:
        bad = published.topic.endswith("/telemetry") and when in published.payload
        return puback(published.mid, code if bad else None)

    return answer


@pytest.mark.parametrize(
    ("url", "parts"),
    [
        ("mqtt://broker", ("broker", 1883, False, "", "")),
        ("mqtts://broker", ("broker", 8883, True, "", "")),
        ("mqtt://u%40x:p%2F%3A@broker:1884/", ("broker", 1884, False, "u@x", "p/:")),
        ("mqtt://[::1]:1", ("::1", 1, False, "", "")),
    ],
)
def test_urls(url: str, parts: tuple[object, ...]) -> None:
    """Host, port, TLS, user and password; the last two percent-decoded."""
    assert tuple(parse_url(url)) == parts


@pytest.mark.parametrize(
    "url", ["", "broker", "http://broker", "mqtt://", "mqtt://:1883", "mqtt://b:0", "mqtt://b:x", "mqtt://b/topic"]
)
def test_urls_that_are_none(url: str) -> None:
    """Each is refused in words."""
    with pytest.raises(ValueError, match=r"must|names"):
        parse_url(url)


async def test_paho_opens_no_connection_of_its_own() -> None:
    """paho speaks through what it is given: the CONNECT for a host that nobody can look up goes to the transport."""
    link = Link("gateway-g", 1, time.monotonic)
    transport = Mock(is_closing=lambda: False)
    link.connection_made(transport)
    link.session.connect("nobody.invalid")
    assert transport.write.call_args.args[0][0] == 0x10


async def test_connect_says_who_we_are_and_what_we_leave() -> None:
    """CONNECT is MQTT 5, clean start, with user, password and a retained Last Will of QoS 1."""
    async with FakeBroker() as broker:
        sink = make(broker.url.replace("//", "//user:secret@"), prefix="p")
        await sink.ready()
        await sink.close()
        body = broker.connects[0].body
        assert body[:7] == b"\x00\x04MQTT\x05"
        assert body[7] == 0b1110_1110  # user, password, will retain, will QoS 1, will, clean start
        assert b"\x00\x09gateway-g" in body
        assert b"\x00\x08p/status\x00\x07offline" in body
        assert body.endswith(b"\x00\x04user\x00\x06secret")
        assert [(p.topic, p.payload, p.retain) for p in broker.published] == [
            ("p/status", b"online", True),
            ("p/status", b"offline", True),
        ]
        await until(lambda: broker.disconnects)


async def test_window_stays_within_receive_maximum_and_our_own() -> None:
    """Never are more publishes under way than the broker's Receive Maximum or our window allows."""
    for receive_maximum, window, limit in ((5, 100, 5), (50, 7, 7)):
        async with FakeBroker() as broker:
            broker.on_connect = lambda m=receive_maximum: connack(props=b"\x21" + m.to_bytes(2, "big"))  # type: ignore[misc]
            async with connected(broker, window=window) as sink:
                held: list[int] = []
                most = 0

                def hold(published: Published) -> bytes:
                    nonlocal most
                    held.append(published.mid)  # noqa: B023
                    most = max(most, len(held))  # noqa: B023
                    assert len(set(held)) == len(held)  # noqa: B023
                    return b""

                broker.on_publish = hold
                write = asyncio.create_task(sink.write(batch(*[reading(n) for n in range(40)])))
                while not write.done():
                    await asyncio.sleep(0.005)
                    acks, held[:] = b"".join(map(puback, reversed(held))), []
                    if acks:
                        broker.send(acks)
                assert await write == 40
                broker.on_publish = lambda published: puback(published.mid)
            assert most == limit
            assert [json.loads(p.payload)["n"] for p in telemetry(broker)] == list(range(40))


async def test_batch_is_safe_only_after_the_last_acknowledgement() -> None:
    """While one PUBACK is missing the write waits; what is acknowledged twice or unasked harms nothing."""
    async with FakeBroker() as broker, connected(broker) as sink:
        held: list[int] = []
        broker.on_publish = lambda published: held.append(published.mid) or b""  # type: ignore[func-returns-value]
        write = asyncio.create_task(sink.write(batch(*[reading(n) for n in range(3)])))
        await until(lambda: len(held) >= 3)
        broker.send(puback(held[0]) + puback(held[0]) + puback(60000) + puback(held[2]))
        done, _ = await asyncio.wait({write}, timeout=0.05)
        assert not done
        broker.send(puback(held[1])[:2])
        await asyncio.sleep(0.01)
        assert not write.done()
        broker.send(puback(held[1])[2:])
        assert await write == 3
        broker.on_publish = lambda published: puback(published.mid)


@pytest.mark.parametrize("code", [0x87, 0x97])
async def test_refusal_for_want_of_rights_or_quota_stops(code: int) -> None:
    """Not authorized and quota exceeded stop the sink, with a hint; it goes on when it is allowed to."""
    async with FakeBroker() as broker, connected(broker) as sink:
        broker.on_publish = refuse(code)  # type: ignore[assignment]
        with pytest.raises(Stopped) as caught:
            await sink.write(batch(reading(0), reading(1)))
        assert caught.value.hint
        assert f"0x{code:02x}" in str(caught.value)
        broker.on_publish = lambda published: puback(published.mid)
        assert await sink.write(batch(reading(0), reading(1))) == 2


@pytest.mark.parametrize("code", [0x80, 0x83, 0x91])
async def test_refusal_without_a_reason_is_tried_again(code: int) -> None:
    """Unspecified and implementation-specific errors say nothing of the message: nothing is put aside for them."""
    async with FakeBroker() as broker, connected(broker) as sink:
        broker.on_publish = refuse(code)  # type: ignore[assignment]
        with pytest.raises(Unavailable):
            await sink.write(batch(reading(0)))


@pytest.mark.parametrize("name", ["flat", "batch"])
@pytest.mark.parametrize("count", [1, 2, 30])
async def test_message_refused_without_a_reason_again_and_again_is_put_aside(
    tmp_path: Path, name: str, count: int
) -> None:
    """It is tried for long, alone or among others; then it goes to the dead letters, and what is behind it flows."""
    async with FakeBroker() as broker:
        bad = {b'"n":%d}' % n for n in range(min(count, 2))}
        tries = 0

        def respond(published: Published) -> bytes:
            nonlocal tries
            refused = any(mark in published.payload for mark in bad)
            tries += b'"n":0}' in published.payload
            return puback(published.mid, 0x83 if refused else 0)

        broker.on_publish = respond
        cursor = MemoryCursor(count, lambda n: reading(n, devices=3))
        letters = DeadLetters(tmp_path / "letters")
        sink = make(broker.url, name)
        runner = Runner(sink, cursor, max_delay=0.01, retry_least_s=0.001, retry_most_s=0.002, dead_letters=letters)
        task = asyncio.create_task(runner.run())
        await until(lambda: runner.state == "waiting")
        await until(lambda: cursor.pending == 0)
        assert {letter.offset for letter in letters.read()} == set(range(len(bad)))
        assert {letter.reason for letter in letters.read()} == {
            "the broker refused it: implementation specific error (0x83)"
        }
        assert tries >= 10
        await runner.stop(1)
        assert task.done()


@pytest.mark.parametrize("code", [0x90, 0x95, 0x99])
async def test_refusal_of_a_message_names_its_reading(code: int) -> None:
    """What the broker holds against one message rejects that reading; all others are safe."""
    async with FakeBroker() as broker, connected(broker) as sink:
        broker.on_publish = refuse(code, b'"n":3')  # type: ignore[assignment]
        with pytest.raises(Rejected) as caught:
            await sink.write(batch(*[reading(n) for n in range(6)]))
        assert list(caught.value.reasons) == [3]
        assert caught.value.rest_safe
        assert f"0x{code:02x}" in caught.value.reasons[3]


@pytest.mark.parametrize("name", ["batch", "influx"])
@pytest.mark.parametrize("code", [0x95, 0x99])
async def test_refused_message_of_several_readings_is_taken_apart(name: str, code: int) -> None:
    """Of a message of many readings only the one at fault is rejected; the others arrive in smaller messages."""
    mark = b"poison"
    async with FakeBroker() as broker, connected(broker, name) as sink:
        taken: list[bytes] = []

        def answer(published: Published) -> bytes:
            if mark in published.payload:
                return puback(published.mid, code)
            taken.append(published.payload)
            return puback(published.mid)

        broker.on_publish = answer
        items = [reading(n, device=f"d-{n % 2}", values={"n": n}) for n in range(16)]
        items[5] = reading(5, device="d-1", values={"text": "poison"})
        with pytest.raises(Rejected) as caught:
            await sink.write(batch(*items))
        assert list(caught.value.reasons) == [5]
        assert caught.value.rest_safe
        together = b"\n".join(taken)
        for n in range(16):
            assert (f'"n":{n}}}'.encode() in together or f" n={n} ".encode() in together) == (n != 5)
        broker.on_publish = lambda published: puback(published.mid)


async def test_size_the_broker_takes_is_learned() -> None:
    """After a message was refused as too large, later ones are made smaller from the start."""
    async with FakeBroker() as broker, connected(broker, "batch") as sink:
        broker.on_publish = lambda p: puback(p.mid, 0x95 if len(p.payload) > 2000 else 0)
        items = [reading(n, device="d", values={"text": "x" * 50}) for n in range(100)]
        assert await sink.write(batch(*items)) == 100
        before = len(broker.published)
        assert await sink.write(batch(*items)) == 100
        assert all(len(p.payload) <= 2000 for p in broker.published[before:])


async def test_maximum_packet_size_is_kept() -> None:
    """No packet beyond the broker's Maximum Packet Size is sent; a reading that cannot be smaller is rejected."""
    limit = 600
    async with FakeBroker() as broker:
        broker.on_connect = lambda: connack(props=b"\x27" + limit.to_bytes(4, "big"))
        for name in ("batch", "influx", "flat"):
            broker.published.clear()
            async with connected(broker, name) as sink:
                items = [reading(n, device="d", values={"text": "x" * 50}) for n in range(40)]
                items[7] = reading(7, device="d", values={"text": "y" * 700})
                with pytest.raises(Rejected) as caught:
                    await sink.write(batch(*items))
                assert list(caught.value.reasons) == [7]
                assert "too large" in caught.value.reasons[7]
                sent = telemetry(broker)
                assert all(len(p.payload) + len(p.topic) + 5 < limit for p in sent)
                assert sum(p.payload.count(b"xxx" * 16) for p in sent) == 39
                assert len(sent) == 39 if name == "flat" else len(sent) < 20


async def test_connection_lost_in_the_middle_is_unavailable_and_reported() -> None:
    """A cut in the middle of a PUBACK fails the write; nothing is published until the sink is connected again."""
    async with FakeBroker() as broker, connected(broker) as sink:
        lost = asyncio.Event()
        sink.lost = lost.set
        await sink.close()
        await sink.ready()
        broker.on_publish = lambda published: puback(published.mid)[:3] + FakeBroker.CUT
        with pytest.raises(Unavailable):
            await sink.write(batch(reading(0), reading(1)))
        await asyncio.wait_for(lost.wait(), 5)
        count = len(broker.published)
        with pytest.raises(Unavailable):
            await sink.write(batch(reading(0), reading(1)))
        assert len(broker.published) == count
        broker.on_publish = lambda published: puback(published.mid)
        assert await sink.ready()
        assert await sink.write(batch(reading(0), reading(1))) == 2


async def test_idle_connection_that_ends_is_reported() -> None:
    """Also with nothing to write the runner hears of the end."""
    async with FakeBroker() as broker:
        sink = make(broker.url)
        lost = asyncio.Event()
        sink.lost = lost.set
        await sink.ready()
        broker.writers[-1].transport.abort()
        await asyncio.wait_for(lost.wait(), 5)
        assert sink.stats()["connected"] == 0.0
        with pytest.raises(Unavailable, match="connection"):
            await sink.ready()
        assert await sink.ready()
        await sink.close()


async def test_reason_of_an_idle_end_is_kept_for_who_asks_next() -> None:
    """Another client with our id does not draw us into pushing it out in turn, for as long as we are idle."""
    async with FakeBroker() as broker:
        sink = make(broker.url)
        lost = asyncio.Event()
        sink.lost = lost.set
        await sink.ready()
        broker.send(packet(0xE0, b"\x8e\x00") + FakeBroker.CUT)
        await asyncio.wait_for(lost.wait(), 5)
        with pytest.raises(Stopped, match="Session taken over"):
            await sink.ready()
        assert len(broker.connects) == 1
        assert await sink.ready()
        await sink.close()


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        (b"\x8e", Stopped),
        (b"\x87\x00", Stopped),
        (b"\x97\x83\x01\x1f\x00\x80" + b"x" * 128, Stopped),
        (b"\x95", Refused),
        (b"\x99\x00", Refused),
        (b"\x8b", Unavailable),
        (b"\xfe", Unavailable),
        (b"", Unavailable),
    ],
)
async def test_disconnect_by_the_broker_says_why(code: bytes, kind: type[Exception]) -> None:
    """The reason of a DISCONNECT decides: for others' doing stop, for what we sent halve, else try again."""
    async with FakeBroker() as broker, connected(broker) as sink:
        broker.on_publish = lambda published: packet(0xE0, code) + FakeBroker.CUT
        with pytest.raises(kind):
            await sink.write(batch(reading(0), reading(1)))
        broker.on_publish = lambda published: puback(published.mid)


@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        (connack(0x86), Stopped),
        (connack(0x87), Stopped),
        (connack(0x85), Stopped),
        (connack(0x9A), Stopped),
        (connack(0x88), Unavailable),
        (connack(0x89), Unavailable),
        (packet(0x20, b"\x00\x01"), Stopped),  # what a broker without MQTT 5 answers
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", Unavailable),
        (FakeBroker.CUT, Unavailable),
        (connack()[:2] + FakeBroker.CUT, Unavailable),
        (b"\x20\xff\xff\xff\xff\xff\x7f", Unavailable),
    ],
)
async def test_refused_connections(answer: bytes, kind: type[Exception]) -> None:
    """Credentials and settings stop the sink with a hint; what passes is tried again; nonsense is no crash."""
    async with FakeBroker() as broker:
        broker.on_connect = lambda: answer
        with pytest.raises(kind) as caught:
            await make(broker.url, connect_s=0.5).ready()
        assert bool(caught.value.hint) == (kind is Stopped)  # type: ignore[attr-defined]


async def test_silent_broker_is_given_up() -> None:
    """A far side that takes the connection and says nothing is unavailable after the time-out."""
    async with FakeBroker() as broker:
        broker.on_connect = lambda: b""
        with pytest.raises(Unavailable, match=r"no answer within 0\.1 s"):
            await make(broker.url, connect_s=0.1).ready()


@pytest.mark.parametrize("address", ["127.0.0.1", "no-such-host.invalid"])
async def test_nobody_there(address: str) -> None:
    """A closed port and a name that does not resolve are unavailable."""
    url = f"mqtt://{address}:{free_port()}"
    sink = make(url)
    with pytest.raises(Unavailable):
        await sink.ready()
    with pytest.raises(Unavailable):
        await sink.write(batch(reading(0)))
    with pytest.raises(Unavailable):
        await sink.state({("presence", "d"): b"online"})
    await sink.close()


async def test_broker_that_stops_answering_is_noticed() -> None:
    """Without an answer to its ping a link ends, and the write that waits on it fails."""
    async with FakeBroker() as broker, connected(broker, keepalive_s=1) as sink:
        broker.answers_pings = False
        broker.on_publish = lambda published: b""
        with pytest.raises(Unavailable, match="ping"):
            await asyncio.wait_for(sink.write(batch(reading(0))), 10)
        broker.on_publish = lambda published: puback(published.mid)


async def test_broker_that_answers_pings_but_acknowledges_nothing_is_noticed() -> None:
    """Pings alone do not keep a link alive on which something is owed."""
    async with FakeBroker() as broker, connected(broker, keepalive_s=1, ack_s=1.5) as sink:
        broker.on_publish = lambda published: b""
        with pytest.raises(Unavailable, match="nothing acknowledged"):
            await asyncio.wait_for(sink.write(batch(reading(0))), 10)
        broker.on_publish = lambda published: puback(published.mid)


async def test_states_are_retained_and_cleared() -> None:
    """Presence goes to its topic, other keys to the topic they name; clearing retains nothing."""
    async with FakeBroker() as broker, connected(broker, prefix="p") as sink:
        broker.published.clear()
        await sink.state({("presence", "d1"): b"online", ("topic", "a/b/c"): b"{}", ("presence", "d2"): None})
        assert [(p.topic, p.payload, p.retain, p.qos) for p in broker.published] == [
            ("p/d1/presence", b"online", True, 1),
            ("a/b/c", b"{}", True, 1),
            ("p/d2/presence", b"", True, 1),
        ]


async def test_states_count_what_is_refused_for_its_content_and_stop_for_rights() -> None:
    """One topic the broker dislikes does not keep the others; an access rule stops the sink."""
    async with FakeBroker() as broker, connected(broker) as sink:
        broker.on_publish = lambda p: puback(p.mid, 0x90 if p.topic == "bad" else 0)
        await sink.state({("topic", "bad"): b"1", ("topic", "good"): b"2"})
        assert sink.stats()["refused_states"] == 1
        broker.on_publish = lambda p: puback(p.mid, 0x87)
        with pytest.raises(Stopped):
            await sink.state({("topic", "good"): b"2"})
        broker.on_publish = lambda published: puback(published.mid)


async def test_broker_without_retained_messages_gets_none() -> None:
    """Retain Available 0 is kept, QoS 0 where the broker knows no other."""
    async with FakeBroker() as broker:
        broker.on_connect = lambda: connack(props=b"\x25\x00\x24\x00")
        async with connected(broker) as sink:
            await sink.state({("presence", "d1"): b"online"})
            await sink.write(batch(reading(1)))
        assert {(p.retain, p.qos) for p in broker.published} == {(False, 0)}


async def test_qos_0_waits_until_the_broker_has_read_all() -> None:
    """Without acknowledgements a batch is safe when a ping sent after it is answered."""
    async with FakeBroker() as broker, connected(broker, qos=0) as sink:
        broker.answers_pings = False
        write = asyncio.create_task(sink.write(batch(*[reading(n) for n in range(50)])))
        done, _ = await asyncio.wait({write}, timeout=0.05)
        assert not done
        assert len(telemetry(broker)) == 50
        broker.answers_pings = True
        broker.send(packet(0xD0))
        assert await write == 50
        assert await sink.write(batch(reading(50))) == 1


async def test_cancelled_write_leaves_a_link_that_works() -> None:
    """Late acknowledgements of a write that was cancelled are not taken for those of the next."""
    async with FakeBroker() as broker, connected(broker) as sink:
        held: list[int] = []
        broker.on_publish = lambda published: held.append(published.mid) or b""  # type: ignore[func-returns-value]
        first = asyncio.create_task(sink.write(batch(*[reading(n) for n in range(5)])))
        await until(lambda: len(held) >= 5)
        first.cancel()
        await asyncio.wait({first})
        second = asyncio.create_task(sink.write(batch(reading(9))))
        await until(lambda: len(held) >= 6)
        broker.send(b"".join(puback(mid, 0x87) for mid in held[:5]))
        done, _ = await asyncio.wait({second}, timeout=0.03)
        assert not done
        broker.send(puback(held[5]))
        assert await second == 1
        broker.on_publish = lambda published: puback(published.mid)


async def test_packet_identifiers_wrap_without_meeting() -> None:
    """Beyond 65,535 identifiers start again at 256, those below are for subscriptions; none under way is used twice."""
    async with FakeBroker() as broker, connected(broker) as sink:
        held: list[int] = []
        broker.on_publish = lambda published: held.append(published.mid) or b""  # type: ignore[func-returns-value]
        first = asyncio.create_task(sink.write(batch(reading(0))))
        await until(lambda: held)
        first.cancel()
        await asyncio.wait({first})
        mids: list[int] = []
        broker.on_publish = lambda published: mids.append(published.mid) or puback(published.mid)  # type: ignore[func-returns-value]
        assert sink._link is not None
        sink._link._mid = 65_530
        await sink.write(batch(*[reading(n) for n in range(10)]))
        assert held == [257]
        assert mids == [65531, 65532, 65533, 65534, 65535, 256, 258, 259, 260, 261]
        broker.on_publish = lambda published: puback(published.mid)


async def test_close_does_not_wait_for_a_broker_that_is_gone(tmp_path: Path) -> None:
    """A broker that answers nothing more does not hold up the stop beyond the runner's bound."""
    async with FakeBroker() as broker:
        sink = make(broker.url)
        await sink.ready()
        broker.on_publish = lambda published: b""
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.05):
                await sink.close()
        assert sink.stats()["connected"] == 0.0


async def test_qos_0_barrier_belongs_to_its_own_write() -> None:
    """The answer to a cancelled write's ping does not make the next write safe."""
    async with FakeBroker() as broker, connected(broker, qos=0) as sink:
        broker.answers_pings = False
        for n in range(2):
            write = asyncio.create_task(sink.write(batch(reading(n))))
            await until(lambda n=n: len(telemetry(broker)) > n)  # type: ignore[misc]
            if n == 0:
                write.cancel()
                await asyncio.wait({write})
        broker.send(packet(0xD0))
        done, _ = await asyncio.wait({write}, timeout=0.03)
        assert not done
        broker.send(packet(0xD0))
        assert await write == 1
        broker.answers_pings = True


async def test_a_subscription_that_is_not_answered() -> None:
    """It ends the connection, with the reason; the next one asks again."""
    async with FakeBroker() as broker:
        sink = make(broker.url, ack_s=0.05, inbound={"gateway/+/command": lambda topic, payload: None})
        broker.suback = None
        with pytest.raises(Unavailable, match="no answer to a subscription"):
            await sink.ready()
        assert sink.stats()["connected"] == 0
        broker.suback = 1
        sink._broker._ack_s = 10.0
        assert await sink.ready()
        assert (len(broker.connects), len(broker.subscribes), sink.stats()["deaf"]) == (2, 2, 0)
        await sink.close()


@pytest.mark.parametrize(("code", "error"), [(0x83, Unavailable), (0x97, Stopped)])
async def test_a_status_that_is_refused_is_told_again(code: int, error: type[Exception]) -> None:
    """On the connection that lasts, and only then is it a new one, with all that follows of that."""
    async with FakeBroker() as broker:
        sink = make(broker.url, inbound={"gateway/+/command": lambda topic, payload: None})
        broker.on_publish = lambda published: puback(published.mid, code)
        with pytest.raises(error):
            await sink.ready()
        broker.on_publish = lambda published: puback(published.mid)
        assert await sink.ready()
        assert not await sink.ready()
        told = [(published.topic, published.payload) for published in broker.published]
        assert told == [("gateway/status", b"online")] * 2
        assert (len(broker.connects), len(broker.subscribes)) == (1, 1)
        await sink.close()
