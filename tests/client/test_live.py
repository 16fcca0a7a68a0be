"""The live client against a feed that says what each test wants."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from gateway.client import (
    ClientClosed,
    CommandFailed,
    CommandState,
    History,
    LimitExceeded,
    LiveClient,
    LiveError,
    Mode,
    Presence,
    Snapshot,
    Update,
)
from gateway.client.live import EVENTS

from .fake import until
from .fake_live import FakeLive

FAST = (0.01, 0.05)


@pytest.fixture
async def feed() -> AsyncIterator[FakeLive]:
    async with FakeLive() as fake:
        yield fake


async def test_a_snapshot_in_parts(feed: FakeLive) -> None:
    """Each part is an event of its own, and says whether there is another."""
    async with LiveClient(feed.url, backoff=FAST) as live:
        live.subscribe()
        whole = await live.next()
        part = {"type": "snapshot", "id": "main", "offset": 1, "recovered": False, "devices": {}}
        await feed.say({**part, "more": True})
        await feed.say(part)
        parts = [await live.next(), await live.next()]
        assert [event.more for event in [whole, *parts] if isinstance(event, Snapshot)] == [False, True, False]


@pytest.mark.parametrize("format", ["json", "msgpack"])
async def test_a_subscription_brings_its_events(feed: FakeLive, format: Any) -> None:
    """Snapshot, history, updates, presence and mode arrive as typed events, in order."""
    async with LiveClient(feed.url, format=format, backoff=FAST) as live:
        live.subscribe(devices=["pump-*"], mode="every", interval_ms=50, history_s=300)
        snapshot = await live.next()
        assert isinstance(snapshot, Snapshot)
        assert snapshot.devices["pump-1"].state == "online"
        assert snapshot.devices["pump-1"].values == {"n": (1764000000000, 1 << 60), "s": (1764000000000, "ok")}
        data = {"pump-1": {"n": [[1, 1.5], [2, True]]}}
        await feed.say({"type": "history", "id": "main", "data": data, "last": True})
        await feed.update(7)
        await feed.say({"type": "heartbeat", "time": 1})
        await feed.say({"type": "presence", "id": "main", "devices": {"pump-2": {"state": "offline", "since": 5}}})
        await feed.say({"type": "mode", "id": "main", "mode": "latest", "reason": "slow"})
        await feed.say({"type": "error", "id": "main", "code": "bad_request", "detail": "no"})
        history, update, presence, mode, error = [await live.next() for _ in range(5)]
        assert isinstance(history, History)
        assert list(history.points()) == [("pump-1", "n", 1, 1.5), ("pump-1", "n", 2, True)]
        assert (history.last, history.complete) == (True, True)
        assert isinstance(update, Update)
        assert list(update.points()) == [("pump-1", "n", 1764000000007, 7)]
        assert isinstance(presence, Presence)
        assert presence.devices["pump-2"].state == "offline"
        assert mode == Mode("main", "latest", "slow")
        assert error == LiveError("main", "bad_request", "no")
        assert live.position() == ("e1", 101)
        live.unsubscribe()
        await until(lambda: len(feed.received) == 2)
    assert feed.received[0] == {
        "type": "subscribe",
        "id": "main",
        "devices": ["pump-*"],
        "metrics": [],
        "mode": "every",
        "interval_ms": 50,
        "history_s": 300,
    }
    assert feed.received[1] == {"type": "unsubscribe", "id": "main"}


async def test_after_a_cut_each_subscription_goes_on_where_it_was(feed: FakeLive) -> None:
    """The client reconnects by itself and resumes by epoch and offset."""
    async with LiveClient(feed.url, backoff=FAST) as live:
        live.subscribe("a")
        live.subscribe("b", metrics=["none"])
        await live.next()
        await live.next()
        await feed.update(1, "a")
        await live.next()
        feed.cut()
        snapshots = [await live.next(), await live.next()]
        assert [(event.id, event.recovered) for event in snapshots if isinstance(event, Snapshot)] == [
            ("a", True),
            ("b", True),
        ]
    assert [(r["id"], r.get("epoch"), r.get("after")) for r in feed.received] == [
        ("a", None, None),
        ("b", None, None),
        ("a", "e1", 101),
        ("b", "e1", 100),
    ]


async def test_a_position_can_be_handed_to_another_client(feed: FakeLive) -> None:
    """What one program had received another goes on from."""
    async with LiveClient(feed.url) as live:
        live.subscribe(epoch="e0", after=42)
        snapshot = await live.next()
        assert isinstance(snapshot, Snapshot)
        assert not snapshot.recovered
    assert (feed.received[0]["epoch"], feed.received[0]["after"]) == ("e0", 42)


async def test_iteration_ends_with_the_client(feed: FakeLive) -> None:
    """After close() the loop over events ends."""
    seen = []
    async with LiveClient(feed.url) as live:
        live.subscribe()
        async for event in live:
            seen.append(event)
            await live.close()
    assert len(seen) == 1


async def test_a_final_close_is_raised(feed: FakeLive) -> None:
    """When the gateway ends the feed for good, the loop raises and says why."""
    async with LiveClient(feed.url, backoff=FAST) as live:
        await live.connected(5)
        assert feed.connection is not None
        await feed.connection.close(1008, "not allowed")
        with pytest.raises(ClientClosed, match="not allowed") as raised:
            await live.__anext__()
        assert raised.value.code == 1008


async def test_tokens(feed: FakeLive) -> None:
    """The token goes as a header, and as a message where the header did not arrive; without one the client says so."""
    feed.auth = "required"
    async with LiveClient(feed.url, token="t0") as live:
        await live.connected(5)
        await until(lambda: feed.received)
    assert feed.tokens == ["Bearer t0"]
    assert feed.received == [{"type": "auth", "token": "t0"}]
    async with LiveClient(feed.url) as live:
        with pytest.raises(ClientClosed, match="token"):
            await live.connected(5)


async def test_commands(feed: FakeLive) -> None:
    """A command's last state is its result: done gives the value, anything else raises."""

    async def answer(*states: dict[str, Any]) -> Any:
        before = len(feed.received)
        async with LiveClient(feed.url) as live:
            asking = asyncio.create_task(live.command("pump-1", "set_speed", {"rpm": 1}, ttl_s=5))
            await until(lambda: len(feed.received) > before)
            request = feed.received[-1]
            assert (request["device"], request["name"], request["params"]) == ("pump-1", "set_speed", {"rpm": 1})
            for state in states:
                await feed.say({"ref": request["ref"]} | state)
            return await asyncio.wait_for(asking, 5)

    def state(name: str, value: object = None) -> dict[str, Any]:
        return {"type": "command_state", "id": "c1", "device": "pump-1", "state": name, "value": value}

    assert await answer(state("queued"), state("sent"), state("done", 3)) == 3
    with pytest.raises(CommandFailed, match="no valve") as failed:
        await answer(state("failed", "no valve"))
    assert (failed.value.state, failed.value.value) == ("failed", "no valve")
    with pytest.raises(CommandFailed, match="expired"):
        await answer(state("expired"))
    with pytest.raises(CommandFailed, match="not allowed"):
        await answer({"type": "error", "code": "forbidden", "detail": "not allowed"})


async def test_another_programs_command_is_an_event(feed: FakeLive) -> None:
    """States of commands that this client did not ask for are events like all others."""
    async with LiveClient(feed.url) as live:
        await live.connected(5)
        await feed.say({"type": "command_state", "ref": "x", "id": "c", "device": "pump-1", "state": "sent"})
        assert await live.next() == CommandState("x", "c", "pump-1", "sent")


async def test_a_program_that_does_not_read_stops_the_reading(feed: FakeLive) -> None:
    """Unread events are bounded; what is behind them waits in the socket, and nothing is lost."""
    async with LiveClient(feed.url) as live:
        live.subscribe()
        await live.next()
        total = 3 * EVENTS

        async def talk() -> None:
            for n in range(total):
                await feed.update(n)

        talking = asyncio.create_task(talk())
        await until(lambda: len(live._events) == EVENTS)
        await asyncio.sleep(0.05)
        assert len(live._events) == EVENTS
        seen = []
        while len(seen) < total:
            event = await asyncio.wait_for(live.next(), 5)
            assert isinstance(event, Update)
            seen += [value for _, _, _, value in event.points()]
        assert seen == list(range(total))
        await talking


async def test_what_cannot_be_read_is_passed_over(feed: FakeLive) -> None:
    """Unknown types and broken shapes end nothing."""
    async with LiveClient(feed.url) as live:
        live.subscribe()
        assert isinstance(await live.next(), Snapshot)
        await feed.say({"type": "forecast", "id": 3})
        await feed.say({"type": "forecast"})
        await feed.update(1)
        assert isinstance(await asyncio.wait_for(live.next(), 5), Update)


async def test_a_subscription_that_is_replaced_gets_nothing_of_the_one_before(feed: FakeLive) -> None:
    """Neither what is on its way nor what was not read yet; the program sees its own id all the while."""
    async with LiveClient(feed.url, backoff=FAST) as live:
        live.subscribe("x", devices=["old"])
        assert isinstance(await live.next(), Snapshot)
        live.subscribe("y")
        assert isinstance(await live.next(), Snapshot)
        await feed.update(1, "x")
        await feed.update(2, "y")
        await until(lambda: len(live._events) == 2)
        live.subscribe("x", devices=["new"])
        await until(lambda: len(feed.received) == 4)
        first, _, ended, again = feed.received
        assert (first["id"], ended["type"], ended["id"], again["devices"]) == ("x", "unsubscribe", "x", ["new"])
        assert again["id"] != "x"
        await feed.say({"type": "history", "id": "x", "data": {}, "last": True})
        await feed.say({"type": "presence", "id": "x", "devices": {}})
        await feed.say({"type": "mode", "id": "x", "mode": "latest", "reason": "slow"})
        await feed.say({"type": "error", "id": "x", "code": "history_failed", "detail": "of the old one"})
        await feed.update(3, "x")
        await feed.update(4, again["id"])
        found = [await asyncio.wait_for(live.next(), 5) for _ in range(3)]
        assert [(type(event), event.id) for event in found] == [(Update, "y"), (Snapshot, "x"), (Update, "x")]
        assert isinstance(found[2], Update)
        assert [value for *_, value in found[2].points()] == [4]
        await feed.say({"type": "error", "id": again["id"], "code": "history_failed", "detail": "of the new one"})
        assert await asyncio.wait_for(live.next(), 5) == LiveError("x", "history_failed", "of the new one")
        assert live.position("x") == ("e1", feed.offset)
        feed.cut()
        assert (await asyncio.wait_for(live.next(), 5)).id in ("x", "y")
        assert {request["id"] for request in feed.received[4:]} <= {"y", again["id"]}


async def test_ids_on_the_wire_never_meet(feed: FakeLive) -> None:
    """A program may use any ids itself, long ones as well, and change them often."""
    async with LiveClient(feed.url) as live:
        await live.connected(5)
        for id in ("x", "x", "x~1", "x~2", "x", "x~2", "y" * 64, "y" * 64):
            live.subscribe(id)
        open_ids = set(live._wires)
        assert len(open_ids) == len(live._subscriptions) == 4
        await until(lambda: len(feed.received) == 12)
        used = [request["id"] for request in feed.received if request["type"] == "subscribe"]
        assert len(set(used)) == len(used)
        assert max(map(len, used)) <= 64


async def test_what_is_more_than_the_gateway_takes_is_not_sent(feed: FakeLive) -> None:
    """It is refused in words, and changes nothing; said before the hello came, it is told by an event."""
    feed.limits |= {"subscriptions": 2, "globs": 300, "max_message_bytes": 2000}
    async with LiveClient(feed.url, backoff=FAST) as live:
        live.subscribe("big", devices=["d" * 100] * 50)
        live.subscribe("a")
        live.subscribe("b")
        live.subscribe("c")
        await live.connected(5)
        events = [await asyncio.wait_for(live.next(), 5) for _ in range(4)]
        errors = {(event.id, event.code): event.detail for event in events if isinstance(event, LiveError)}
        assert set(errors) == {("big", "too_big"), ("c", "too_many_subscriptions")}
        assert "2000" in errors["big", "too_big"]
        with pytest.raises(LimitExceeded, match="takes 2000"):
            live.subscribe("a", devices=["d" * 100] * 50)
        with pytest.raises(LimitExceeded, match="301 metrics: the gateway takes 300"):
            live.subscribe("a", metrics=["m"] * 301)
        with pytest.raises(LimitExceeded, match="3 subscriptions: the gateway takes 2"):
            live.subscribe("c")
        with pytest.raises(LimitExceeded, match="takes 2000"):
            await live.command("pump-1", "set", {"text": "x" * 3000})
        await feed.update(1, "a")
        assert (await asyncio.wait_for(live.next(), 5)).id == "a"
        feed.cut()
        assert {(await asyncio.wait_for(live.next(), 5)).id for _ in range(2)} == {"a", "b"}
        assert [request["id"] for request in feed.received] == ["a", "b", "a", "b"]
