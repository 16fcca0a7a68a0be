"""The device client against a gateway that speaks the protocol and fails on request."""

from __future__ import annotations

import asyncio
import datetime
import random
from collections.abc import AsyncIterator
from typing import Any

import pytest

from gateway.client import BufferFull, ClientClosed, Command, DeviceClient, Refused, Undelivered

from .fake import FakeGateway, until

FAST = (0.01, 0.05)


@pytest.fixture
async def gateway() -> AsyncIterator[FakeGateway]:
    async with FakeGateway() as fake:
        yield fake


def client(gateway: FakeGateway, **options: Any) -> DeviceClient:
    return DeviceClient(gateway.url, "pump-1", backoff=FAST, rng=random.Random(1), **options)


@pytest.mark.parametrize("format", ["json", "msgpack"])
async def test_readings_arrive_in_order_and_are_acked(gateway: FakeGateway, format: Any) -> None:
    """What is sent is stored in order, in either format, and leaving waits for the acks."""
    async with client(gateway, format=format) as device:
        numbers = [await device.send({"n": n, "door": True, "note": "a\tb"}) for n in range(1, 51)]
    assert numbers == list(range(1, 51))
    assert gateway.stored() == numbers
    assert gateway.model().store[0]["values"] == {"n": 1, "door": True, "note": "a\tb"}
    stats = device.stats
    assert (stats.taken, stats.sent, stats.acked, stats.unacked) == (50, 50, 50, 0)
    assert stats.latency.count == 50
    assert gateway.requests[0].headers["Sec-WebSocket-Protocol"] == f"gateway.v1.{format}"
    assert f"session={device.session}" in gateway.requests[0].path
    assert len(device.session) == 8


async def test_a_backlog_goes_as_arrays(gateway: FakeGateway) -> None:
    """Readings made before the connection are sent as few messages, each within the gateway's limit."""
    gateway.model_options["max_message_bytes"] = 2000
    async with client(gateway) as device:
        for n in range(1, 201):
            await device.send({"n": n})
    assert gateway.stored() == list(range(1, 201))
    assert max(gateway.sizes) <= 2000
    assert len(gateway.sizes) < 15


async def test_a_single_reading_is_written_from_within_send(gateway: FakeGateway) -> None:
    """On an idle connection send() hands the message to the transport before it returns."""
    async with client(gateway) as device:
        await device.connected(5)
        await device.send({"n": 1})
        assert (device.stats.sent, device.stats.queued) == (1, 0)


async def test_times(gateway: FakeGateway) -> None:
    """Readings without a time get one that strictly increases; others keep theirs, also an aware datetime."""
    async with client(gateway, wall=lambda: 1_764_000_000_123_456_789) as device:
        await device.send({"n": 1})
        await device.send({"n": 2})
        await device.send({"n": 3}, 1764000000.5)
        when = datetime.datetime(2025, 11, 24, 16, 0, 0, 250_000, tzinfo=datetime.UTC)
        await device.send({"n": 4}, when)
        await device.send({"n": 5}, datetime.datetime(1970, 1, 2, tzinfo=datetime.UTC))
    times = [reading["ts"] for reading in gateway.model().store]
    assert times == [1_764_000_000_123_456, 1_764_000_000_123_457, 1764000000.5, 1_764_000_000_250_000, 86400.0]


async def test_what_the_gateway_would_refuse_is_refused_at_once(gateway: FakeGateway) -> None:
    """Bad names, values and times raise, take no number and are not sent."""
    async with client(gateway) as device:
        for values in (
            {"ts": 1},
            {"type": 1},
            {"bad name": 1},
            {"x": float("nan")},
            {"x": 1 << 63},
            {"x": [1]},
            {"x": "a\x00"},
        ):
            with pytest.raises(ValueError):  # noqa: PT011 - each has words of its own
                await device.send(values)  # type: ignore[arg-type]
        for values in ("x", [1], None, 22.5):
            with pytest.raises(TypeError, match="values by metric"):
                await device.send(values)  # type: ignore[arg-type]
        for ts in (-1, float("inf"), datetime.datetime(2025, 1, 1)):
            with pytest.raises(ValueError, match="ts"):
                await device.send({"n": 0}, ts)
        with pytest.raises(ValueError, match="name"):
            await device.send({"n": 0}, device="no/slash")
        assert await device.send({"n": 1, "absent": None}, device="sub-1") == 1
    assert gateway.model().store[0]["device"] == "sub-1"


@pytest.mark.parametrize(
    ("url", "device"),
    [
        ("ftp://x", "a"),
        ("ws://", "a"),
        ("ws://h:x", "a"),
        ("h:8080", "a"),
        ("h", "a"),
        ("ws://h?q=1", "a"),
        ("ws://h", "a/b"),
        ("ws://h", ""),
    ],
)
def test_bad_addresses_and_names_raise(url: str, device: str) -> None:
    """An address or a name that cannot work is told at once."""
    with pytest.raises(ValueError, match=r"."):
        DeviceClient(url, device)


@pytest.mark.parametrize("fault", ["cut", "stop", "crash"])
async def test_nothing_is_lost_or_stored_twice_over_outages(gateway: FakeGateway, fault: str) -> None:
    """Connections cut, gateways stopped and crashed under way: all is stored once, in order."""
    async with client(gateway, drain_timeout=10) as device:
        for n in range(1, 601):
            await device.send({"n": n})
            if n % 7 == 0:
                await asyncio.sleep(0.001)
            if n % 150 == 0:
                if fault == "cut":
                    gateway.cut()
                else:
                    await gateway.stop(crash=fault == "crash")
                    await asyncio.sleep(0.02)
                    await gateway.start()
        await until(lambda: device.state == "online")
    assert gateway.stored() == list(range(1, 601))
    assert device.stats.reconnects >= 1
    assert device.stats.acked == 600


async def test_throttled_is_waited_out(gateway: FakeGateway) -> None:
    """After throttled the client waits as told and goes on from that reading; nothing is lost."""
    async with client(gateway) as device:
        await device.connected(5)
        gateway.model().hold(2, retry_after_ms=30)
        for n in range(1, 101):
            await device.send({"n": n})
            await asyncio.sleep(0)
    assert gateway.stored() == list(range(1, 101))
    assert device.stats.throttled == 2
    assert device.stats.resent > 0


async def test_overloaded_is_waited_out(gateway: FakeGateway) -> None:
    """The error overloaded is not a refusal: the reading comes again."""
    async with client(gateway) as device:
        await device.connected(5)
        gateway.model().hold(1, "overloaded", retry_after_ms=20)
        for n in range(1, 11):
            await device.send({"n": n})
    assert gateway.stored() == list(range(1, 11))
    assert (device.stats.overloaded, device.stats.refused) == (1, 0)


async def test_the_gateways_rate_is_kept(gateway: FakeGateway) -> None:
    """A backlog goes at the rate of the welcome, without a single throttled."""
    gateway.model_options["rate"] = {"per_s": 400, "burst": 20}
    loop = asyncio.get_running_loop()
    begin = loop.time()
    async with client(gateway) as device:
        for n in range(1, 101):
            await device.send({"n": n})
    assert loop.time() - begin >= 82 / 400 * 0.9
    assert gateway.stored() == list(range(1, 101))


async def test_a_refused_reading_is_decided_and_told(gateway: FakeGateway) -> None:
    """An error for a reading is called back and kept; the rest goes on, and nothing is sent twice."""
    told: list[Refused] = []
    async with client(gateway, on_refused=told.append) as device:
        await device.send({"n": 1})
        await device.send({"bad": 1})
        await device.send({"n": 2})
    assert gateway.stored() == [1, 2]
    assert [(refused.seq, refused.code) for refused in told] == [(2, "bad_value")]
    assert list(device.refusals) == told
    assert (device.stats.refused, device.stats.acked, device.stats.resent) == (1, 2, 0)


async def test_the_buffer_is_bounded(gateway: FakeGateway) -> None:
    """With max_unacked unacked readings send() waits for an ack, in order of the callers, or raises."""
    gateway.committing = False
    async with client(gateway, max_unacked=3) as device:
        for n in (1, 2, 3):
            await device.send({"n": n})
        assert device.full
        with pytest.raises(BufferFull):
            await device.send({"n": 0}, wait=False)
        waiting = [asyncio.create_task(device.send({"n": n})) for n in (4, 5, 6, 7)]
        await asyncio.sleep(0.01)
        assert not any(task.done() for task in waiting)
        waiting[1].cancel()
        gateway.committing = True
        assert await asyncio.wait_for(waiting[3], 5) == 6
    assert gateway.stored() == [1, 2, 3, 4, 6, 7]


async def test_a_cancelled_caller_does_not_take_a_place_with_it(gateway: FakeGateway) -> None:
    """A caller that is cancelled in the moment it is let in leaves its place to the next."""
    gateway.committing = False
    async with client(gateway, max_unacked=1) as device:
        await device.send({"n": 1})
        first, second = (asyncio.create_task(device.send({"n": n})) for n in (2, 3))
        await until(lambda: gateway.model().pending)
        await asyncio.sleep(0)
        device._receive('{"type":"ack","seq":1}')
        first.cancel()
        gateway.committing = True
        assert await asyncio.wait_for(second, 5) == 2
    assert gateway.stored() == [1, 3]


@pytest.mark.parametrize("code", [1008, 4001])
async def test_final_closes_end_the_client(gateway: FakeGateway, code: int) -> None:
    """After 1008 and 4001 the client does not come back; callers are told why."""
    device = client(gateway)
    device.start()
    await device.connected(5)
    gateway.committing = False
    await device.send({"n": 1})
    waiting = asyncio.create_task(device.drain())
    await asyncio.sleep(0)
    await gateway.close(code, "no more")
    with pytest.raises(ClientClosed, match="no more") as raised:
        await asyncio.wait_for(waiting, 5)
    assert raised.value.code == code
    with pytest.raises(ClientClosed):
        await device.send({"n": 2})
    with pytest.raises(ClientClosed):
        await device.connected(1)
    await asyncio.sleep(0.1)
    assert len(gateway.requests) == 1
    await device.close()


async def test_1013_is_honoured(gateway: FakeGateway) -> None:
    """After 1013 the next attempt comes no sooner than its reason says."""
    loop = asyncio.get_running_loop()
    async with client(gateway) as device:
        await device.connected(5)
        begin = loop.time()
        await gateway.close(1013, "retry_after_ms=150")
        await until(lambda: device.state != "online")
        await device.connected(5)
        assert loop.time() - begin >= 0.15


@pytest.mark.parametrize("status", [401, 403, 404])
async def test_a_refused_handshake_is_final(gateway: FakeGateway, status: int) -> None:
    """A token, scope or address that is not accepted is told, not tried for ever."""
    gateway.reject = (status, {})
    device = client(gateway, token="secret")
    device.start()
    with pytest.raises(ClientClosed, match=str(status)) as raised:
        await device.connected(5)
    assert raised.value.code == status
    assert raised.value.hint
    assert gateway.requests[0].headers["Authorization"] == "Bearer secret"
    await device.close()


async def test_a_busy_gateway_is_tried_again(gateway: FakeGateway) -> None:
    """503 and 429 are waited out."""
    gateway.reject = (503, {"Retry-After": "0"})
    async with client(gateway) as device:
        await device.send({"n": 1})
        await until(lambda: len(gateway.requests) >= 2)
        assert "503" in device.reason
        gateway.reject = None
    assert gateway.stored() == [1]


async def test_leaving_with_unacked_readings_raises(gateway: FakeGateway) -> None:
    """When the acks do not come in time, leaving says how many are missing."""
    gateway.committing = False
    device = client(gateway, drain_timeout=0.05)
    await device.__aenter__()
    await device.connected(10)
    await device.send({"n": 1})
    await device.send({"n": 2})
    with pytest.raises(Undelivered) as raised:
        await device.__aexit__(None, None, None)
    assert raised.value.count == 2
    assert str(raised.value) == "device pump-1: 2 readings have no ack after 0.05 s, although there is a connection"


async def test_a_gateway_that_is_not_there_costs_nothing_but_the_buffer(caplog: pytest.LogCaptureFixture) -> None:
    """Without a gateway readings are kept, the state says why, and what waits in vain says so in a sentence."""
    device = DeviceClient("ws://127.0.0.1:1", "pump-1", backoff=FAST)
    device.start()
    await device.send({"n": 1})
    await until(lambda: device.state == "waiting")
    assert "refused" in device.reason.lower()
    assert not await device.drain(0.02)
    assert caplog.messages == ["device pump-1: 1 reading has no ack after 0.02 s: ws://127.0.0.1:1: Connection refused"]
    with pytest.raises(
        TimeoutError, match=r"no connection to ws://127\.0\.0\.1:1/.* within 0\.02 s: Connection refused"
    ):
        await device.connected(0.02)
    assert device.unacked == 1
    await device.close()
    with pytest.raises(ClientClosed, match="this side"):
        await device.drain()


async def test_a_session_used_by_somebody_else_is_left(gateway: FakeGateway) -> None:
    """When the session's last_seq was never sent from here, the client takes a session of its own."""
    async with client(gateway, session="boot1") as one:
        for n in (1, 2, 3):
            await one.send({"n": n})
    async with client(gateway, session="boot1") as two:
        await two.send({"n": 4})
    assert two.session != "boot1"
    assert gateway.stored() == [1, 2, 3, 4]


async def test_no_acks_asked_for(gateway: FakeGateway) -> None:
    """With ack=none readings go without a number and are forgotten once written."""
    async with client(gateway, ack="none") as device:
        assert [await device.send({"n": n}) for n in (1, 2, 3)] == [0, 0, 0]
        await until(lambda: gateway.model().unnumbered == 3)
        await until(lambda: gateway.stored() == [1, 2, 3])
    assert "ack=none" in gateway.requests[0].path
    assert device.stats.sent == 3


async def test_the_description_goes_until_it_has_arrived(gateway: FakeGateway) -> None:
    """describe is sent with the welcome and again after a cut, unless a later ack showed that it arrived."""
    async with client(gateway) as device:
        device.describe(name="Boiler pump", interval_s=60, metrics={"n": {"unit": "1"}})
        await until(lambda: len(gateway.others) == 1)
        device.cut()
        await until(lambda: len(gateway.others) == 2)
        await device.send({"n": 1})
        assert await device.drain(5)
        device.cut()
        await until(lambda: device.stats.reconnects == 2)
        device.heartbeat()
        await until(lambda: len(gateway.others) == 3)
    assert gateway.others[0] == gateway.others[1]
    assert gateway.others[0]["name"] == "Boiler pump"
    assert gateway.others[2] == {"type": "heartbeat"}


@pytest.mark.parametrize("format", ["json", "msgpack"])
async def test_commands_are_answered_once_run_once(gateway: FakeGateway, format: Any) -> None:
    """A command is run and answered; asked again it is answered from memory; what fails says why."""
    seen: list[Command] = []

    async def handle(command: Command) -> object:
        seen.append(command)
        await asyncio.sleep(0)
        if command.name == "fail":
            raise RuntimeError("no such valve")
        return {"rpm": command.params["rpm"]}

    async with client(gateway, on_command=handle, format=format) as device:
        await device.connected(5)
        command = {"type": "command", "id": "c1", "name": "set_speed", "params": {"rpm": 1200}, "expires": 9e15}
        await gateway.say(command)
        await until(lambda: len(gateway.others) == 1)
        await gateway.say(command)
        await gateway.say({"type": "command", "id": "c2", "name": "fail"})
        await until(lambda: len(gateway.others) == 3)
    assert gateway.others[0] == {"type": "result", "id": "c1", "ok": True, "value": {"rpm": 1200}}
    assert gateway.others[1] == gateway.others[0]
    assert gateway.others[2] == {"type": "result", "id": "c2", "ok": False, "value": "no such valve"}
    assert [command.id for command in seen] == ["c1", "c2"]


async def test_a_device_without_commands_says_so(gateway: FakeGateway) -> None:
    """Without on_command every command is answered as not ok."""
    async with client(gateway) as device:
        await device.connected(5)
        await gateway.say({"type": "command", "id": "c1", "name": "x"})
        await until(lambda: len(gateway.others) == 1)
    assert gateway.others[0]["ok"] is False


async def test_messages_of_a_newer_gateway_are_passed_over(gateway: FakeGateway) -> None:
    """Unknown types and fields, and what cannot be read, disturb nothing."""
    async with client(gateway) as device:
        await device.connected(5)
        await gateway.say({"type": "weather", "mood": [1]})
        await gateway.say({"type": "ack", "seq": "one"})
        await device.send({"n": 1})
    assert gateway.stored() == [1]


async def test_something_else_than_a_welcome_is_no_gateway(gateway: FakeGateway) -> None:
    """A first message that is no welcome ends the connection, and the client tries again."""
    gateway.before_welcome = lambda: {"type": "hello"}
    async with client(gateway) as device:
        await until(lambda: "no welcome" in device.reason)
        gateway.before_welcome = None
        await device.send({"n": 1})
    assert gateway.stored() == [1]


async def test_states_are_told(gateway: FakeGateway) -> None:
    """on_state hears of each change with its reason."""
    told: list[tuple[str, str]] = []
    async with client(gateway, on_state=lambda *change: told.append(change)) as device:
        await device.connected(5)
        gateway.cut()
        await until(lambda: device.stats.reconnects == 1)
    await asyncio.sleep(0)
    states = [state for state, _ in told]
    assert states[:2] == ["connecting", "online"]
    assert states[-3:] == ["connecting", "online", "closed"]
    assert ("waiting", "connection lost") in [(state, reason[:15]) for state, reason in told]


async def test_a_gateway_that_reads_nothing_does_not_grow_the_client(gateway: FakeGateway) -> None:
    """While the socket takes nothing readings wait in the bounded buffer, not in the transport."""
    async with client(gateway, max_unacked=20_000, drain_timeout=20) as device:
        await device.connected(5)
        gateway.connections["pump-1"].transport.pause_reading()
        text = "x" * 1000
        for n in range(1, 12_001):
            await device.send({"n": n, "text": text})
        link = device._link
        assert link is not None
        await until(lambda: link.blocked)
        assert link.transport.get_write_buffer_size() < 300_000
        assert device.stats.queued > 0
        gateway.connections["pump-1"].transport.resume_reading()
    assert gateway.stored() == list(range(1, 12_001))


async def test_a_failing_wall_of_the_client_is_told(gateway: FakeGateway, caplog: pytest.LogCaptureFixture) -> None:
    """A defect in the client's own task ends the client with its reason instead of leaving callers waiting."""
    device = client(gateway)
    device._outbox.welcome = None  # type: ignore[assignment,method-assign]
    device.start()
    with pytest.raises(ClientClosed, match="failed"):
        await device.connected(5)
    assert "Traceback" in caplog.text
    await device.close()
