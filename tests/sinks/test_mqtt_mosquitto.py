"""The MQTT sink and its runner against the real mosquitto: outages, rights, TLS, limits, a frozen broker."""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import msgspec
import pytest
import uvloop

from gateway.journal import Journal
from gateway.sinks import mqtt_link, registry
from gateway.sinks.base import Cursor, Rejected, Sink
from gateway.sinks.runner import Runner
from tests.servers import Missing, Mosquitto

from .broker import Subscriber
from .memory import MemoryCursor, batch, reading

ALL = "allow_anonymous true\nmax_queued_messages 1000000\n"  # by default mosquitto drops for subscribers that lag


def sink(broker: Mosquitto, **more: object) -> Sink:
    return registry.mqtt_sink(**{"url": broker.url, "gateway": "g", **more})  # type: ignore[arg-type]


async def until(condition: Callable[[], object], seconds: float = 15.0) -> None:
    async with asyncio.timeout(seconds):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0.005)


@contextlib.asynccontextmanager
async def running(to: Sink, cursor: Cursor, **more: object) -> AsyncIterator[Runner]:
    options: dict[str, object] = {"rng": random.Random(1), "max_delay": 0.01, "retry_least_s": 3600.0, **more}
    options.setdefault("retry_most_s", options["retry_least_s"])
    runner = Runner(to, cursor, **options)  # type: ignore[arg-type]
    task = asyncio.create_task(runner.run())
    try:
        yield runner
    finally:
        await runner.stop(2.0)
        assert task.done()


@contextlib.contextmanager
def broker(path: Path, config: str) -> Iterator[Mosquitto]:
    try:
        server = Mosquitto(path / "mosquitto", config=config)
    except Missing as missing:
        pytest.skip(str(missing))
    with server:
        yield server


def numbers(messages: list[bytes], layout: str) -> list[int]:
    if layout == "flat":
        return [json.loads(payload)["n"] for payload in messages]
    return [entry["values"]["n"] for payload in messages for entry in json.loads(payload)]


@contextlib.asynccontextmanager
async def generated(path: Path, count: int, devices: int) -> AsyncIterator[Cursor]:
    yield MemoryCursor(count, lambda at: reading(at, devices=devices))


@contextlib.asynccontextmanager
async def journalled(path: Path, count: int, devices: int) -> AsyncIterator[Cursor]:
    """A cursor of a real journal that is filled while it is read."""
    journal = Journal(path / "journal", segment_bytes=2 << 20, commit_ms=20)
    await journal.open()

    async def fill() -> None:
        for start in range(0, count, 10_000):
            for n in range(start, min(count, start + 10_000)):
                journal.append(reading(n, devices=devices))
            await journal.flush()

    filling = asyncio.create_task(fill())
    cursor = journal.cursor("mqtt")
    try:
        yield cursor
        await filling
        assert cursor.pending == 0
    finally:
        filling.cancel()
        await journal.close()
    assert len(list((path / "journal").rglob("*"))) < 8, "segments behind the cursor are gone"


@pytest.mark.alone
@pytest.mark.parametrize(("layout", "count", "source"), [("batch", 360_000, journalled), ("flat", 20_000, generated)])
async def test_outage_loses_nothing_and_drains_in_order(
    tmp_path: Path, layout: str, count: int, source: Callable[..., contextlib.AbstractAsyncContextManager[Cursor]]
) -> None:
    """A broker that dies in the middle and comes back gets all, at least once and each device's in order."""
    devices = 20
    with broker(tmp_path, ALL) as server:
        async with (
            source(tmp_path, count, devices) as cursor,
            running(sink(server, layout=layout), cursor) as runner,
        ):
            with Subscriber(server.port, "gateway/+/telemetry") as before:
                await until(lambda: runner.stats()["delivered"] > count // 20)
                await asyncio.to_thread(server.stop, True)
                await until(lambda: runner.state == "waiting")
                confirmed = cursor.position.readings
                first = list(before.messages)
            assert 0 < confirmed < count
            await until(lambda: confirmed + cursor.pending == count)
            await asyncio.to_thread(server.start)
            with Subscriber(server.port, "gateway/+/telemetry") as after:
                started = time.perf_counter()
                runner.retry_now()
                await until(lambda: cursor.pending == 0)
                seconds = time.perf_counter() - started
                await until(lambda: settled(after))
                second = list(after.messages)
        for device in range(devices):
            topic = f"gateway/d-{device}/telemetry"
            early = numbers([m.payload for m in first if m.topic == topic], layout)
            late = numbers([m.payload for m in second if m.topic == topic], layout)
            assert early == list(range(device, device + len(early) * devices, devices))
            assert late == list(range(late[0], count, devices))
            assert late[0] <= confirmed + devices
        assert runner.stats()["delivered"] == count
        print(f"{layout}: {(count - confirmed) / seconds:,.0f} readings/s drained")


def settled(subscriber: Subscriber) -> bool:
    """Whether nothing more has come for a while."""
    before = len(subscriber.messages)
    time.sleep(0.3)
    return len(subscriber.messages) == before


@pytest.mark.alone
async def test_frozen_broker_is_noticed_and_never_blocks_the_loop(mosquitto: Mosquitto) -> None:
    """A broker under SIGSTOP makes the sink wait, not the loop; thawed, it gets all that was kept."""
    from gateway.sinks.layouts import layout
    from gateway.sinks.mqtt import MqttSink

    far = MqttSink(url=mosquitto.url, layout=layout("flat", gateway="g"), client_id="g", keepalive_s=1, connect_s=1)
    cursor = MemoryCursor(100)
    worst = 0.0

    machine = 0.0
    over = threading.Event()

    async def pulse() -> None:
        nonlocal worst
        while True:
            before = time.perf_counter()
            await asyncio.sleep(0.005)
            worst = max(worst, time.perf_counter() - before)

    def pulse_beside() -> None:
        # What a loop that waits for the broker does not hold up: this machine's own share in what is late.
        nonlocal machine
        while not over.is_set():
            before = time.perf_counter()
            time.sleep(0.005)
            machine = max(machine, time.perf_counter() - before)

    async with running(far, cursor, retry_least_s=0.1, retry_most_s=0.2) as runner:
        runner.set_state(("presence", "d-1"), b"online")
        await until(lambda: cursor.pending == 0)
        pulsing = asyncio.create_task(pulse())
        beside = asyncio.create_task(asyncio.to_thread(pulse_beside))
        mosquitto.freeze()
        try:
            for _ in range(5000):
                cursor.append(reading(cursor.end, values={"n": cursor.end, "text": "x" * 1000}))
            await until(lambda: runner.state == "waiting", 10)
            assert cursor.pending == 5000
            await until(lambda: runner.stats()["retries"] >= 2)
        finally:
            mosquitto.thaw()
            pulsing.cancel()
            over.set()
            await beside
        await until(lambda: cursor.pending == 0)
    assert worst < 0.9 + machine  # each try at a frozen broker waits for a second


@pytest.mark.alone
async def test_small_batches_do_not_wait_for_delayed_acknowledgements(
    mosquitto: Mosquitto, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Against a broker with Nagle's algorithm, mosquitto's default, no batch waits the 40 ms of a delayed ACK."""

    async def seconds() -> float:
        far = sink(mosquitto, window=20)  # the first acknowledgements meet a message of ours, the last ones none
        await far.ready()
        started = time.perf_counter()
        for _ in range(25):
            await far.write(batch(*[reading(n) for n in range(30)]))
        took = time.perf_counter() - started
        await far.close()
        return took

    quick = await seconds()
    monkeypatch.setattr(mqtt_link, "_QUICKACK", None)
    assert quick < await seconds() / 3  # a hundredth on a machine with nothing else to do


async def test_status_and_presence_are_retained(mosquitto: Mosquitto) -> None:
    """Somebody who comes later finds online and the presence; after a clean stop offline, said by us."""
    cursor = MemoryCursor(0)
    async with running(sink(mosquitto), cursor) as runner:
        runner.set_state(("presence", "d-1"), b"online")
        runner.set_state(("presence", "d-2"), b"stale")
        await until(lambda: runner.stats()["states_sent"] == 2)
        with Subscriber(mosquitto.port) as late:
            await until(lambda: len(late.messages) == 3)
            assert {m.topic: (m.payload, m.retain) for m in late.messages} == {
                "gateway/status": (b"online", True),
                "gateway/d-1/presence": (b"online", True),
                "gateway/d-2/presence": (b"stale", True),
            }
            runner.set_state(("presence", "d-2"), None)
            await until(lambda: late.payloads("gateway/d-2/presence") == [b"stale", b""])
            await runner.stop(2.0)
            await until(lambda: late.payloads("gateway/status") == [b"online", b"offline"])
    with Subscriber(mosquitto.port) as later:
        await until(lambda: len(later.messages) == 2)
        assert {m.topic: m.payload for m in later.messages} == {
            "gateway/status": b"offline",
            "gateway/d-1/presence": b"online",
        }


async def test_last_will_and_return(mosquitto: Mosquitto) -> None:
    """When the connection is cut the broker says offline; the sink comes back by itself and says all again."""
    cursor = MemoryCursor(0)
    async with running(sink(mosquitto), cursor, retry_least_s=0.05, retry_most_s=0.1) as runner:
        runner.set_state(("presence", "d-1"), b"online")
        await until(lambda: runner.stats()["states_sent"] == 1)
        with Subscriber(mosquitto.port) as other:
            await until(lambda: len(other.messages) == 2)
            link = runner.sink._link  # type: ignore[attr-defined]
            link._transport.abort()
            await until(lambda: other.payloads("gateway/status")[-2:] == [b"offline", b"online"])
            await until(lambda: other.payloads("gateway/d-1/presence") == [b"online", b"online"])
        assert runner.stats()["connects"] == 2


async def test_wrong_password_stops_with_a_hint(tmp_path: Path) -> None:
    """Credentials that the broker does not know stop the sink; the right ones, in URL or settings, let it in."""
    passwords = tmp_path / "passwords"
    try:
        await asyncio.to_thread(run, "mosquitto_passwd", "-b", "-c", str(passwords), "me", "se:cret@")
    except FileNotFoundError:
        pytest.skip("mosquitto_passwd is not on this machine (Debian package mosquitto).")
    with broker(tmp_path, f"allow_anonymous false\npassword_file {passwords}") as server:
        for wrong in (sink(server), sink(server, username="me", password="no")):
            cursor = MemoryCursor(3)
            async with running(wrong, cursor) as runner:
                await until(lambda: runner.state == "stopped")
                assert "PASSWORD" in runner.hint
                assert cursor.pending == 3
        for right in (
            sink(server, username="me", password="se:cret@"),
            sink(server, url=server.url.replace("//", "//me:se%3Acret%40@")),
        ):
            cursor = MemoryCursor(3)
            async with running(right, cursor) as runner:
                await until(lambda: runner.pending == 0)


async def test_access_rule_stops_and_its_end_goes_on(tmp_path: Path) -> None:
    """A topic that the broker's rules forbid stops the sink with nothing dropped; allowed, all arrives."""
    rules = tmp_path / "acl"
    rules.write_text("topic readwrite gateway/status\ntopic read #\n")
    rules.chmod(0o644)
    with broker(tmp_path, f"{ALL}\nacl_file {rules}") as server:
        cursor = MemoryCursor(50)
        async with running(sink(server), cursor) as runner:
            await until(lambda: runner.state == "stopped")
            assert "access rules" in runner.hint
            assert cursor.pending == 50
            rules.write_text("topic readwrite #\n")
            assert server.process is not None
            server.process.send_signal(signal.SIGHUP)
            with Subscriber(server.port, "gateway/+/telemetry") as other:
                await asyncio.sleep(0.2)
                runner.retry_now()
                await until(lambda: cursor.pending == 0)
                await until(lambda: len(other.messages) == 50)


async def test_tls_with_our_own_authority(tmp_path: Path) -> None:
    """mqtts:// trusts the given authority, checks the name, and stops with a hint where it cannot trust."""
    certificate(tmp_path)
    listener = f"cafile {tmp_path}/ca.crt\ncertfile {tmp_path}/server.crt\nkeyfile {tmp_path}/server.key"
    try:
        server = Mosquitto(tmp_path / "mosquitto", listener=listener)
    except Missing as missing:
        pytest.skip(str(missing))
    with server:
        url = server.url.replace("mqtt://127.0.0.1", "mqtts://localhost")
        cursor = MemoryCursor(2000)
        async with running(sink(server, url=url, ca=tmp_path / "ca.crt"), cursor):
            await until(lambda: cursor.pending == 0)
        for bad in (
            sink(server, url=url),
            sink(server, url=url.replace("localhost", "127.0.0.1"), ca=tmp_path / "ca.crt"),
        ):
            cursor = MemoryCursor(3)
            async with running(bad, cursor) as runner:
                await until(lambda: runner.state == "stopped")
                assert "certificate" in runner.reason
                assert "GATEWAY_MQTT__CA" in runner.hint
        async with running(sink(server), MemoryCursor(3)) as runner:
            await until(lambda: runner.state == "waiting")  # plain MQTT to a TLS port


def run(*command: str | Path) -> None:
    subprocess.run(command, check=True, capture_output=True)


def certificate(path: Path) -> None:
    """An authority and a certificate of its for localhost."""
    openssl = shutil.which("openssl")
    if openssl is None:
        pytest.skip("openssl is not on this machine (Debian package openssl).")
    new = [openssl, "req", "-newkey", "rsa:2048", "-nodes"]
    ca, own = path / "ca.crt", path / "server.csr"
    extension = path / "extension"
    extension.write_text("subjectAltName=DNS:localhost\n")
    sign = [openssl, "x509", "-req", "-days", "2", "-extfile", extension]
    for command in (
        [*new, "-x509", "-keyout", path / "ca.key", "-out", ca, "-subj", "/CN=authority", "-days", "2"],
        [*new, "-keyout", path / "server.key", "-out", own, "-subj", "/CN=localhost"],
        [*sign, "-in", own, "-CA", ca, "-CAkey", path / "ca.key", "-CAcreateserial", "-out", path / "server.crt"],
    ):
        run(*command)


async def test_message_too_large_for_the_broker_is_rejected_alone(tmp_path: Path) -> None:
    """A limit that mosquitto does not announce rejects one reading, in either layout, and only that."""
    with broker(tmp_path, f"{ALL}\nmessage_size_limit 500") as server:
        items = [reading(n, devices=2) for n in range(60)]
        items[9] = reading(9, devices=2, values={"text": "x" * 600})
        for layout in ("flat", "batch"):
            far = sink(server, layout=layout)
            await far.ready()
            with Subscriber(server.port, "gateway/+/telemetry") as other:
                with pytest.raises(Rejected) as caught:
                    await far.write(batch(*items))
                assert list(caught.value.reasons) == [9]
                await until(lambda: sum(m.payload.count(b'"n":') for m in other.messages) == 59)
            await far.close()


async def test_announced_packet_size_is_kept(tmp_path: Path) -> None:
    """A broker that announces its limit is never sent more: the connection lasts."""
    with broker(tmp_path, f"{ALL}\nmax_packet_size 400") as server, Subscriber(server.port, "gateway/#") as other:
        far = sink(server, layout="batch")
        await far.ready()
        assert await far.write(batch(*[reading(n, devices=2) for n in range(500)])) == 500
        await until(lambda: sum(m.payload.count(b'"n":') for m in other.messages) == 500)
        assert far.stats()["connects"] == 1
        await far.close()


async def test_two_with_one_client_id_do_not_fight_for_ever(mosquitto: Mosquitto) -> None:
    """Of two gateways with one id, whom mosquitto lets push each other out without a word, one waits and says why."""
    quick = {"retry_least_s": 0.02, "retry_most_s": 0.05}
    async with (
        running(sink(mosquitto), MemoryCursor(1), **quick) as one,
        running(sink(mosquitto), MemoryCursor(1), **quick) as other,
    ):
        await until(lambda: "GATEWAY_ID" in one.hint + other.hint)
        patient = one if one.hint else other
        assert patient.next_try is not None
        assert patient.next_try - time.monotonic() > 20


def test_works_on_uvloop(mosquitto: Mosquitto) -> None:
    """The same on uvloop: connect, write, state, outage, return."""

    async def main() -> None:
        cursor = MemoryCursor(3000)
        async with running(sink(mosquitto), cursor) as runner:
            await until(lambda: cursor.pending == 0)
            await asyncio.to_thread(mosquitto.stop)
            await until(lambda: runner.state == "waiting")
            cursor.append(reading(cursor.end))
            await asyncio.to_thread(mosquitto.start)
            runner.retry_now()
            await until(lambda: cursor.pending == 0)
        assert runner.stats()["connects"] == 2

    uvloop.run(main())


@pytest.mark.parametrize("layout", ["flat", "batch"])
async def test_backlog_is_marked(mosquitto: Mosquitto, layout: str) -> None:
    """What was received more than ten seconds before it is published says so to a subscriber; news says nothing."""
    first = time.time_ns() - 12_500_000_000
    items = [msgspec.structs.replace(reading(n, devices=1), received=first + n * 10**9) for n in range(6)]
    with Subscriber(mosquitto.port, "gateway/+/telemetry") as other:
        far = sink(mosquitto, layout=layout)
        await far.ready()
        assert await far.write(batch(*items)) == 6
        await until(lambda: sum(m.payload.count(b'"n":') for m in other.messages) == 6)
        await far.close()
    marked: dict[bool, list[int]] = {True: [], False: []}
    for message in other.messages:
        properties = dict(getattr(message.properties, "UserProperty", []))
        assert properties.get("historical", "true") == "true"
        marked["historical" in properties] += numbers([message.payload], layout)
    assert marked == {True: [0, 1, 2], False: [3, 4, 5]}


async def test_a_value_a_topic_and_what_it_is(tmp_path: Path) -> None:
    """A template with {metric} makes a message of each value; each says its content type."""
    with broker(tmp_path, ALL) as server, Subscriber(server.port, "#") as subscriber:
        made = sink(server, topic="{prefix}/{device}/metric/{metric}")
        async with running(made, MemoryCursor(3)) as runner:
            await until(lambda: runner.pending == 0)
        await until(lambda: len([m for m in subscriber.messages if "/metric/" in m.topic]) >= 3)
        found = [message for message in subscriber.messages if "/metric/" in message.topic]
        assert {message.properties.ContentType for message in found} == {"text/plain"}
        assert not any(hasattr(message.properties, "MessageExpiryInterval") for message in found)
        assert all(json.loads(message.payload) is not None for message in found)


async def test_thingsboard_is_told_in_its_own_way(tmp_path: Path) -> None:
    """Connect, telemetry, disconnect; nothing is retained, and no other topic used."""
    with broker(tmp_path, ALL) as server, Subscriber(server.port, "#") as subscriber:
        async with running(sink(server, layout="thingsboard"), MemoryCursor(5)) as runner:
            runner.set_state(("presence", "d-0"), b"online")
            await until(lambda: runner.pending == 0)
            await until(lambda: any(m.topic.endswith("/connect") for m in subscriber.messages))
            runner.set_state(("presence", "d-0"), b"offline")
            await until(lambda: any(m.topic.endswith("/disconnect") for m in subscriber.messages))
        topics = {message.topic for message in subscriber.messages}
        assert topics == {"v1/gateway/connect", "v1/gateway/telemetry", "v1/gateway/disconnect"}
        with Subscriber(server.port, "#") as later:
            await asyncio.sleep(0.2)
            assert later.messages == []


async def test_what_is_published_to_us_and_told_once(tmp_path: Path) -> None:
    """Filters get their messages, not what was retained; events are published once, in order, after an outage too."""
    heard: list[tuple[str, bytes]] = []
    with broker(tmp_path, ALL) as server, Subscriber(server.port, "gateway/+/command/state") as subscriber:
        subscriber.publish("gateway/d-0/command", b"old", retain=True)
        made = sink(server, inbound={"gateway/+/command": lambda topic, payload: heard.append((topic, payload))})
        async with running(made, MemoryCursor(1), retry_least_s=0.01, retry_most_s=0.05) as runner:
            await until(lambda: runner.pending == 0)
            subscriber.publish("gateway/d-1/command", b"1")
            subscriber.publish("gateway/d-1/other", b"2")
            subscriber.publish("gateway/d-2/command", b"3")
            await until(lambda: len(heard) >= 2)
            assert heard == [("gateway/d-1/command", b"1"), ("gateway/d-2/command", b"3")]
            for number in range(5):
                runner.tell(("command-state", "d-1"), b"%d" % number)
            await until(lambda: len(subscriber.messages) >= 5)
            server.stop()
            runner.tell(("command-state", "d-1"), b"5")
            await until(lambda: runner.state == "waiting")
            server.start()
            await until(lambda: runner.stats()["states_pending"] == 0)
        told = [(message.topic, message.payload, message.retain) for message in subscriber.messages[:5]]
        assert told == [("gateway/d-1/command/state", b"%d" % number, False) for number in range(5)]
        assert (runner.stats()["events_dropped"], made.stats()["deaf"]) == (0, 0)


async def test_a_broker_that_lets_nobody_subscribe(tmp_path: Path) -> None:
    """It is published to all the same, and said."""
    rules = tmp_path / "acl"
    rules.write_text("topic write gateway/#\n")
    rules.chmod(0o644)
    with broker(tmp_path, f"{ALL}\nacl_file {rules}") as server:
        made = sink(server, inbound={"gateway/+/command": lambda topic, payload: None})
        async with running(made, MemoryCursor(3)) as runner:
            await until(lambda: runner.pending == 0)
            assert runner.state == "ok"


@pytest.mark.parametrize("layout", ["flat", "batch"])
async def test_telemetry_that_nobody_fetches_expires(tmp_path: Path, layout: str) -> None:
    """What a broker may forget says when; states of commands do so by themselves."""
    with broker(tmp_path, ALL) as server, Subscriber(server.port, "#") as subscriber:
        async with running(sink(server, layout=layout, expiry_s=30), MemoryCursor(3)) as runner:
            runner.tell(("command-state", "d-0"), b"{}")
            await until(lambda: runner.pending == 0)
            await until(lambda: any(message.topic.endswith("/state") for message in subscriber.messages))
            await until(lambda: any(message.topic.endswith("/telemetry") for message in subscriber.messages))
        found = {
            message.topic.rpartition("/")[2]: getattr(message.properties, "MessageExpiryInterval", None)
            for message in subscriber.messages
        }
        assert found == {"status": None, "telemetry": 30, "state": 3_600}
