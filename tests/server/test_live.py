"""The live feed over real sockets: section 5 of the contract."""

import asyncio
import random

import msgspec
import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus

from gateway.reading import Reading
from tests.running import acked, gateway, receive, send


async def subscribe(ws, **options):
    """Subscribe and give the snapshot."""
    await send(ws, {"type": "subscribe", "id": "main", **options})
    return await receive(ws, "snapshot")


async def test_hello_comes_first(tmp_path):
    """The first message says which stream this is and where it stands."""
    async with gateway(tmp_path) as gw, gw.live() as ws:
        hello = await receive(ws)
        assert (hello["type"], hello["heartbeat_s"], hello["auth"]) == ("hello", 5, "ok")
        assert len(hello["epoch"]) >= 8
        assert hello["offset"] >= 0
        assert hello["limits"]["subscriptions"] == 16


async def test_snapshot_then_updates(tmp_path):
    """A snapshot holds states and newest values; what comes after it comes as updates with growing offsets."""
    async with gateway(tmp_path) as gw, gw.device("pump-1") as device, gw.live() as ws:
        await receive(device, "welcome")
        await send(device, {"seq": 1, "t": 1.5, "ts": 1764000000000}, {"seq": 2, "door": True, "ts": 1764000000500})
        await acked(device, 2)
        snapshot = await subscribe(ws)
        pump = snapshot["devices"]["pump-1"]
        assert pump["state"] == "online"
        assert pump["values"] == {"t": [1764000000000, 1.5], "door": [1764000000500, True]}
        await send(device, {"seq": 3, "t": 2.5, "ts": 1764000001000})
        update = await receive(ws, "update")
        assert update["data"] == {"pump-1": {"t": [[1764000001000, 2.5]]}}
        assert update["offset"] > snapshot["offset"]


async def test_presence_on_the_feed(tmp_path):
    """A device that comes and goes is told, with the reason; others are not."""
    async with gateway(tmp_path) as gw, gw.live() as ws:
        await subscribe(ws, devices=["pump-*"], metrics=["none"])
        async with gw.device("other") as other:
            await receive(other, "welcome")
        async with gw.device("pump-2") as device:
            await receive(device, "welcome")
            online = await receive(ws, "presence")
            assert online["devices"]["pump-2"]["state"] == "online"
        offline = await receive(ws, "presence")
        assert offline["devices"]["pump-2"]["state"] == "offline"
        assert offline["devices"]["pump-2"]["reason"]


async def test_half_open_device_goes_offline_by_ping_timeout(tmp_path):
    """A device that answers no ping is offline after interval and timeout, and the reason says so."""
    async with gateway(tmp_path, heartbeat={"interval_s": 0.2, "timeout_s": 0.2}) as gw, gw.live() as ws:
        await subscribe(ws)
        device = await gw.device("pump-2", ping_interval=None)
        await receive(device, "welcome")
        device.transport.pause_reading()
        assert (await receive(ws, "presence"))["devices"]["pump-2"]["state"] == "online"
        offline = await receive(ws, "presence")
        assert offline["devices"]["pump-2"]["reason"] == "ping timeout"
        device.transport.abort()


async def test_msgpack_feed(tmp_path):
    """The subprotocol carries the same messages in MessagePack."""
    async with gateway(tmp_path) as gw, gw.live(subprotocols=["gateway.v1.msgpack"]) as ws:
        assert msgspec.msgpack.decode(await ws.recv())["type"] == "hello"
        await ws.send(msgspec.msgpack.encode({"type": "subscribe"}))
        assert (await receive(ws))["type"] == "snapshot"


@pytest.mark.parametrize(
    "message",
    [
        "nonsense",
        "[]",
        "{}",
        '{"type":"party","id":"x"}',
        '{"type":"subscribe","id":""}',
        '{"type":"subscribe","id":7}',
        '{"type":"subscribe","devices":"pump-1"}',
        '{"type":"subscribe","devices":[1]}',
        '{"type":"subscribe","mode":"some"}',
        '{"type":"subscribe","interval_ms":-1}',
        '{"type":"subscribe","history_s":1e99}',
        '{"type":"subscribe","after":"x"}',
        '{"type":"unsubscribe","id":"never"}',
        '{"type":"subscribe","devices":["' + "x" * 200 + '"]}',
        "[" * 30_000,
    ],
)
async def test_bad_requests_get_an_error_and_change_nothing(tmp_path, message):
    """A clear error, with the id where one was given, and the connection goes on."""
    async with gateway(tmp_path) as gw, gw.live() as ws:
        await receive(ws, "hello")
        await send(ws, message)
        error = await receive(ws)
        assert (error["type"], error["code"]) == ("error", "bad_request")
        assert error["detail"]
        assert error.get("id", "") == {
            '{"type":"party","id":"x"}': "x",
            '{"type":"unsubscribe","id":"never"}': "never",
        }.get(message, "")
        assert (await subscribe(ws))["type"] == "snapshot"


async def test_several_subscriptions_and_their_bound(tmp_path):
    """Sixteen on a socket; the next is refused, an id in use is replaced, an ended one is silent."""
    async with gateway(tmp_path) as gw, gw.live() as ws, gw.device("a") as device:
        await receive(ws, "hello")
        for n in range(16):
            await send(ws, {"type": "subscribe", "id": f"s{n}", "devices": ["none"] if n else ["a"]})
            await receive(ws, "snapshot")
        await send(ws, {"type": "subscribe", "id": "s16"})
        assert (await receive(ws, "error"))["code"] == "too_many_subscriptions"
        await send(ws, {"type": "subscribe", "id": "s0", "devices": ["a"], "metrics": ["u"]})
        await receive(ws, "snapshot")
        await send(device, {"t": 1}, {"u": 2})
        assert list((await receive(ws, "update"))["data"]["a"]) == ["u"]
        await send(ws, {"type": "unsubscribe", "id": "s0"}, {"type": "subscribe", "id": "s17", "devices": ["a"]})
        await receive(ws, "snapshot")
        await send(device, {"u": 3})
        assert (await receive(ws, "update"))["id"] == "s17"


async def test_foreign_origin(tmp_path):
    """A page from elsewhere gets no feed, a listed one does."""
    async with gateway(tmp_path, origins=["https://dash.example"]) as gw:
        with pytest.raises(InvalidStatus) as info:
            await gw.live(origin="https://evil.example")
        assert info.value.response.status_code == 403
        async with gw.live(origin="https://dash.example") as ws:
            assert (await receive(ws))["type"] == "hello"


async def test_resume_after_a_cut(tmp_path):
    """after with the epoch gives all that was missed; another epoch gives a snapshot that says it is none."""
    async with gateway(tmp_path) as gw, gw.device("a") as device:
        await receive(device, "welcome")
        async with gw.live() as ws:
            epoch = (await receive(ws, "hello"))["epoch"]
            await subscribe(ws, mode="every", interval_ms=50)
            await send(device, {"t": 0, "seq": 1})
            seen = (await receive(ws, "update"))["offset"]
        await send(device, *({"t": n, "seq": n + 1} for n in range(1, 20)))
        await acked(device, 20)
        async with gw.live() as ws:
            assert (await subscribe(ws, mode="every", epoch=epoch, after=seen))["recovered"] is True
            values = []
            while len(values) < 19:
                values += [value for _, value in (await receive(ws, "update"))["data"]["a"]["t"]]
            assert values == list(range(1, 20))
        async with gw.live() as ws:
            assert (await subscribe(ws, epoch="another", after=seen))["recovered"] is False


async def test_snapshot_history_and_updates_join_exactly(tmp_path):
    """Under load, from a store that is being written: every value once, none missing, none twice."""
    rng = random.Random(7)
    async with (
        gateway(tmp_path, limits={"device_rate": 10_000, "device_burst": 10_000}) as gw,
        gw.device("a") as device,
    ):
        await receive(device, "welcome")
        total = 3000
        clients: list[asyncio.Task[list[int]]] = []

        async def watch() -> list[int]:
            async with gw.live() as ws:
                await receive(ws, "hello")
                await send(
                    ws, {"type": "subscribe", "id": "main", "mode": "every", "interval_ms": 50, "history_s": 600}
                )
                values: list[int] = []
                while not values or values[-1] != total:
                    message = await receive(ws)
                    assert message.get("complete", True)
                    if message["type"] in ("history", "update"):
                        values += [value for _, value in message["data"].get("a", {}).get("n", [])]
                return values

        for n in range(1, total + 1):
            await send(device, {"n": n, "seq": n})
            if n % 250 == 0:
                clients.append(asyncio.create_task(watch()))
            if n % 50 == 0:
                await asyncio.sleep(rng.random() * 0.02)
        async with asyncio.timeout(20):
            for values in await asyncio.gather(*clients):
                assert values == list(range(1, total + 1))


async def test_history_of_many_points_is_thinned(tmp_path):
    """Beyond 10,000 points a series is downsampled, and the frames stay below 512 KiB."""
    async with gateway(tmp_path, limits={"device_rate": 10**6, "device_burst": 10**6}) as gw, gw.device("a") as device:
        await receive(device, "welcome")
        start = (await receive_time(gw)) - 15_000
        for first in range(0, 12_000, 1000):
            await send(device, [{"ts": start + n, "t": n, "s": "x", "seq": n + 1} for n in range(first, first + 1000)])
        await acked(device, 12_000)
        await gw.rows("a", metric="t", until=12_000)
        async with gw.live(max_size=512 * 1024) as ws:
            await receive(ws, "hello")
            await send(ws, {"type": "subscribe", "history_s": 60})
            points: list[list[float]] = []
            while True:
                frame = await receive(ws, "history")
                points += frame["data"].get("a", {}).get("t", [])
                if frame["last"]:
                    break
            assert 1500 <= len(points) <= 2000
            assert points == sorted(points)
            assert points[0][1] < 10
            assert points[-1][1] > 11_980


async def receive_time(gw):
    """The gateway's time in milliseconds."""
    return (await gw.json("/healthz"))["time"]


async def test_reader_that_stops_is_moved_to_latest(tmp_path):
    """A client in every mode that stops reading is told and served by latest when it reads again."""
    async with (
        gateway(tmp_path, limits={"device_rate": 10**6, "device_burst": 10**6}) as gw,
        gw.device("a") as device,
        gw.live(max_queue=1) as ws,
    ):
        await receive(device, "welcome")
        await receive(ws, "hello")
        await subscribe(ws, mode="every", interval_ms=50)
        ws.transport.pause_reading()
        text = "x" * 1000
        n = 0
        async with asyncio.timeout(20):
            while (await gw.get("/metrics"))[2].find(b"gateway_hub_downgraded_total 1.0") < 0:
                n += 1
                await send(device, [{"s": text, "n": n}] * 50)
        ws.transport.resume_reading()
        mode = await receive(ws, "mode")
        assert mode == {"type": "mode", "id": "main", "mode": "latest", "reason": "slow"}
        await send(device, {"s": "end"})
        async with asyncio.timeout(10):
            while (await receive(ws, "update"))["data"]["a"].get("s", [[0, ""]])[-1][1] != "end":
                pass


async def test_client_that_asks_and_never_reads_is_bounded_and_dropped(tmp_path, monkeypatch):
    """Its requests are not read while it reads no answers; others are served; after a while it is gone."""
    monkeypatch.setattr("gateway.server.live.UNREAD_S", 0.5)
    async with gateway(tmp_path) as gw, gw.live(max_queue=1, ping_interval=None) as deaf, gw.live() as ws:
        await receive(ws, "hello")
        deaf.transport.pause_reading()
        bad = '{"type":"subscribe","id":"' + "x" * 60 + '","devices":[' + ",".join(['"*a*"'] * 150) + "]}"
        most = 0
        loop = asyncio.get_running_loop()
        deadline = loop.time() + 15
        while len(gw.live_clients()) > 1 and loop.time() < deadline:
            try:
                async with asyncio.timeout(0.2):
                    for _ in range(500):
                        await deaf.send(bad)
            except (TimeoutError, ConnectionClosed):
                await asyncio.sleep(0.05)
            most = max(client.pending_bytes for client in gw.live_clients())
        assert len(gw.live_clients()) == 1
        assert most < 2**20
        assert (await subscribe(ws))["type"] == "snapshot"


async def test_too_many_patterns(tmp_path):
    """Plain names may be many, patterns may not."""
    async with gateway(tmp_path) as gw, gw.live() as ws:
        await receive(ws, "hello")
        assert (await subscribe(ws, devices=[f"d{n}" for n in range(1000)]))["type"] == "snapshot"
        for globs in ([f"d{n}*" for n in range(101)], [f"{'a*' * 60}{n}" for n in range(10)]):
            for field in ("devices", "metrics"):
                await send(ws, {"type": "subscribe", field: globs})
                assert "globs" in (await receive(ws, "error"))["detail"]


async def test_subscription_replaced_while_its_history_is_read(tmp_path):
    """The later one waits for its own history: nothing is sent before it, nothing twice."""
    async with gateway(tmp_path, limits={"device_rate": 10**6, "device_burst": 10**6}) as gw, gw.device("a") as device:
        await receive(device, "welcome")
        for first in range(0, 5000, 1000):
            await send(device, [{"n": n, "seq": n + 1} for n in range(first, first + 1000)])
        await acked(device, 5000)
        async with gw.live() as ws:
            await receive(ws, "hello")
            request = {"type": "subscribe", "id": "main", "mode": "every", "interval_ms": 50, "history_s": 600}
            await send(ws, request, request)
            await send(device, {"n": 5000, "seq": 5001})
            await receive(ws, "snapshot")
            await receive(ws, "snapshot")
            values: list[int] = []
            while not values or values[-1] != 5000:
                values += [value for _, value in (await receive(ws))["data"].get("a", {}).get("n", [])]
            assert values == list(range(5001))


async def test_resume_with_history_repeats_nothing(tmp_path):
    """every with after and history: what was missed comes as updates, all before it as history, each value once."""
    async with gateway(tmp_path) as gw, gw.device("a", "?session=x") as device, gw.live() as ws:
        epoch = (await receive(ws, "hello"))["epoch"]
        await receive(device, "welcome")
        await send(device, *({"seq": n, "v": n} for n in range(1, 4)))
        await acked(device, 3)
        after = (await subscribe(ws))["offset"]
        await send(ws, {"type": "unsubscribe", "id": "main"})
        await send(device, *({"seq": n, "v": n} for n in range(4, 7)))
        await acked(device, 6)
        await gw.rows("a", until=6)
        await send(device, *({"seq": n, "v": n} for n in range(7, 10)))
        await acked(device, 9)
        snapshot = await subscribe(ws, mode="every", history_s=300, epoch=epoch, after=after)
        assert snapshot["recovered"] is True
        history = await receive(ws, "history")
        assert (history["last"], history.get("complete", True)) == (True, True)
        assert [value for _, value in history["data"]["a"]["v"]] == [1, 2, 3]
        values = []
        while values[-1:] != [9]:
            update = await receive(ws, "update")
            assert update["offset"] >= snapshot["offset"]
            values += [value for _, value in update["data"]["a"]["v"]]
        assert values == [4, 5, 6, 7, 8, 9]


async def test_grid_turns_on_when_a_step_fails(tmp_path, monkeypatch, caplog):
    """What one tick raises is logged with its place and counted; readings and heartbeats go on."""
    monkeypatch.setattr("gateway.server.live.HEARTBEAT_S", 0.2)
    async with gateway(tmp_path) as gw, gw.device("a") as device, gw.live() as ws:
        await receive(device, "welcome")
        await subscribe(ws)
        hub = gw.app.live.hub
        tick, failures, over = hub.tick, iter(range(3)), asyncio.Event()

        def fail():
            if next(failures, None) is not None:
                raise RuntimeError("no turn")
            over.set()
            return tick()

        monkeypatch.setattr(hub, "tick", fail)
        async with asyncio.timeout(10):
            await over.wait()
        await send(device, {"t": 1})
        assert (await receive(ws, "update"))["data"]["a"]["t"][0][1] == 1
        await receive(ws, "heartbeat")
        assert b"gateway_hub_failures_total 3.0" in (await gw.get("/metrics"))[2]
    (record,) = [record for record in caplog.records if record.name == "gateway.server.live"]
    assert "no turn" in caplog.text
    assert record.exc_info


async def test_failing_history_is_said_and_updates_follow(tmp_path, monkeypatch, caplog):
    """Whatever a history meets, the subscription is told, and goes on without it."""

    def fail(*arguments):
        raise RuntimeError("no rows")
        yield

    monkeypatch.setattr("gateway.server.paging.Pages.told", fail)
    async with gateway(tmp_path) as gw, gw.device("a") as device, gw.live() as ws:
        await receive(device, "welcome")
        await subscribe(ws, history_s=60)
        assert (await receive(ws, "error"))["code"] == "history_failed"
        await send(device, {"t": 1})
        assert (await receive(ws, "update"))["data"]["a"]["t"][0][1] == 1
    assert "no rows" in caplog.text


async def test_snapshot_of_very_many_series_is_bounded(tmp_path):
    """It comes in frames below 512 KiB, never more than 1 MiB on its way; history and updates follow the last one."""
    async with gateway(tmp_path) as gw, gw.live(max_size=512 * 1024, max_queue=1) as ws:
        await receive(ws, "hello")
        hub, book = gw.app.live.hub, gw.app.live.hub._book
        for n in range(3000):
            name = f"device-{n}"
            book.open(name)
            hub.publish(Reading(name, "s", 0, n, n, {f"metric-{m}": "x" * 100 for m in range(20)}), hub.offset + 1)
        ws.transport.pause_reading()
        await send(ws, {"type": "subscribe", "id": "main", "history_s": 60})
        (client,) = gw.live_clients()
        most = 0
        for _ in range(20):
            await asyncio.sleep(0.02)
            most = max(most, client.pending_bytes)
        assert most < 1 << 20
        ws.transport.resume_reading()
        shown = {}
        more = True
        while more:
            snapshot = await receive(ws)
            if snapshot["type"] == "heartbeat":
                continue
            assert snapshot["type"] == "snapshot"
            shown |= snapshot["devices"]
            more = snapshot.get("more", False)
        assert len(shown) == 3000
        assert all(len(device["values"]) == 20 for device in shown.values())
        assert (await receive(ws, "history"))["last"] is True
