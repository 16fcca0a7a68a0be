"""The device endpoint over real sockets: section 3 of the contract."""

import asyncio
import json
import re
import time
from contextlib import AsyncExitStack, contextmanager

import msgspec
import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus

from gateway.errors import Overloaded
from gateway.reading import Mark, Reading
from tests.running import acked, gateway, receive, send


async def closing(ws):
    """Read to the end; the close code and reason."""
    try:
        async with asyncio.timeout(10):
            while True:
                await ws.recv()
    except ConnectionClosed:
        return ws.close_code, ws.close_reason


async def test_welcome_comes_first_and_says_the_terms(tmp_path):
    """The first frame is welcome, with the device's name, session and limits."""
    async with gateway(tmp_path) as gw, gw.device("pump-1") as ws:
        welcome = await receive(ws)
        assert welcome.pop("session")
        assert welcome.pop("time") > 1_700_000_000_000
        assert welcome == {
            "type": "welcome",
            "device": "pump-1",
            "resumed": False,
            "last_seq": 0,
            "heartbeat_s": 20.0,
            "max_message_bytes": 65536,
            "rate": {"per_s": 100.0, "burst": 200.0},
        }


async def test_three_shapes_of_a_reading(tmp_path):
    """Flat, envelope and array are stored alike, values of every type exactly."""
    async with gateway(tmp_path) as gw, gw.device("pump-1") as ws:
        await receive(ws, "welcome")
        await send(ws, {"temperature": 22.5, "door": True, "ts": 1764000000000, "seq": 1})
        await send(ws, {"ts": 1764000001000, "seq": 2, "values": {"temperature": 23, "state": "on"}})
        await send(ws, [{"ts": 1764000002, "seq": 3, "n": 2**60}, {"ts": 1764000003, "seq": 4, "values": {}}])
        await acked(ws, 4)
        rows = await gw.rows("pump-1", until=5)
        assert [(row["time"], row["metric"], row["value"]) for row in rows] == [
            (1764000000000, "door", True),
            (1764000000000, "temperature", 22.5),
            (1764000001000, "state", "on"),
            (1764000001000, "temperature", 23),
            (1764000002000, "n", str(2**60)),
        ]
        assert (await gw.ledger("pump-1"))["stored"] == 4


@pytest.mark.parametrize(
    ("protocols", "replies"),
    [([], "text"), (["gateway.v1.msgpack"], "binary"), (["arduino", "gateway.v1.msgpack"], "binary")],
)
async def test_msgpack(tmp_path, protocols, replies):
    """Binary frames carry the same model; replies are MessagePack where it was agreed on, else JSON text."""
    async with gateway(tmp_path) as gw, gw.device("m", subprotocols=protocols or None) as ws:
        assert ws.subprotocol == ("gateway.v1.msgpack" if protocols else None)
        welcome = await ws.recv()
        assert isinstance(welcome, str if replies == "text" else bytes)
        await ws.send(msgspec.msgpack.encode([{"seq": 1, "a": 1.5}, {"seq": 2, "a": 2}]))
        ack = await ws.recv()
        decoded = json.loads(ack) if replies == "text" else msgspec.msgpack.decode(ack)
        assert decoded == {"type": "ack", "seq": 2}


async def test_unknown_subprotocol_is_none(tmp_path):
    """A device that offers only what is not known is served as one that offers nothing."""
    async with gateway(tmp_path) as gw, gw.device("m", subprotocols=["arduino"], origin="file://") as ws:
        assert ws.subprotocol is None
        assert (await receive(ws))["type"] == "welcome"


async def test_format_for_clients_that_cannot_offer_one(tmp_path):
    """The query names the format instead."""
    async with gateway(tmp_path) as gw, gw.device("m", "?format=gateway.v1.msgpack") as ws:
        assert msgspec.msgpack.decode(await ws.recv())["type"] == "welcome"
        await send(ws, "{}")
        assert (await closing(ws))[0] == 1003


@pytest.mark.parametrize(("protocol", "frame"), [("gateway.v1.json", b"\x80"), ("gateway.v1.msgpack", "{}")])
async def test_wrong_kind_of_frame(tmp_path, protocol, frame):
    """The other opcode than the subprotocol's closes with 1003 at once."""
    async with gateway(tmp_path) as gw, gw.device("m", subprotocols=[protocol]) as ws:
        await ws.recv()
        await ws.send(frame)
        assert (await closing(ws))[0] == 1003


async def test_one_error_a_refusal_and_the_rest_is_kept(tmp_path):
    """A bad reading is named by code, seq and index, and is final: the ack covers it."""
    async with gateway(tmp_path) as gw, gw.device("d") as ws:
        await receive(ws, "welcome")
        await send(ws, [{"seq": 1, "a": 1}, {"seq": 2, "a": [1]}, {"seq": 3, "a b": 1}, {"seq": 4, "a": 4}])
        first, second = await receive(ws, "error"), await receive(ws, "error")
        assert (first["code"], first["seq"], first["index"]) == ("bad_value", 2, 1)
        assert "a: an array" in first["detail"]
        assert (second["code"], second["seq"], second["index"]) == ("bad_name", 3, 2)
        await acked(ws, 4)
        await send(ws, '{"seq":5,"a":NaN}')
        assert (await receive(ws))["code"] == "bad_value"
        await acked(ws, 5)
        ledger = await gw.ledger("d")
        assert (ledger["received"], ledger["stored"], ledger["rejected"]) == (5, 2, 3)
        assert len(await gw.rows("d", until=2)) == 2


async def test_five_undecodable_in_a_row_close(tmp_path):
    """The fifth in a row closes with 1011; an accepted reading resets the count; each is counted once."""
    async with gateway(tmp_path) as gw, gw.device("d") as ws:
        await receive(ws, "welcome")
        for _ in range(4):
            await send(ws, "nonsense")
            assert (await receive(ws, "error"))["code"] == "undecodable"
        await send(ws, {"a": 1}, *["nonsense"] * 5)
        errors = [await receive(ws, "error") for _ in range(5)]
        assert {error["code"] for error in errors} == {"undecodable"}
        assert (await closing(ws))[0] == 1011
        ledger = await gw.ledger("d")
        assert (ledger["received"], ledger["rejected"]) == (10, 9)


async def test_bad_utf8_and_too_big(tmp_path):
    """Bad UTF-8 closes with 1007, a message beyond the limit with 1009."""
    async with gateway(tmp_path, limits={"max_message_bytes": 1000}) as gw:
        async with gw.device("d") as ws:
            await receive(ws, "welcome")
            await ws.send(b"\xff\xfe", text=True)
            assert (await closing(ws))[0] == 1007
        async with gw.device("d") as ws:
            await receive(ws, "welcome")
            await send(ws, '{"a":"' + "x" * 1000 + '"}')
            assert (await closing(ws))[0] == 1009


async def test_throttled_and_go_back(tmp_path):
    """At the burst's end throttled names the seq; nothing behind it is kept until it comes again."""
    async with gateway(tmp_path, limits={"device_rate": 20, "device_burst": 5}) as gw, gw.device("d") as ws:
        await receive(ws, "welcome")
        await send(ws, *({"seq": n, "a": n} for n in range(1, 9)))
        throttled = await receive(ws, "throttled")
        assert (throttled["seq"], throttled["dropped"]) == (6, 1)
        assert 50 <= throttled["retry_after_ms"] <= 251
        await asyncio.sleep(0.5)
        await send(ws, {"seq": 9, "a": 9}, {"seq": 6, "a": 6}, {"seq": 7, "a": 7})
        await acked(ws, 7)
        assert [row["value"] for row in await gw.rows("d", until=7)] == [1, 2, 3, 4, 5, 6, 7]
        ledger = await gw.ledger("d")
        assert (ledger["received"], ledger["stored"], ledger["throttled"]) == (11, 7, 4)


async def test_array_is_taken_up_to_the_first_that_does_not_fit(tmp_path):
    """The rest of the array is named by the first seq and the count."""
    async with gateway(tmp_path, limits={"device_rate": 1, "device_burst": 3}) as gw, gw.device("d") as ws:
        await receive(ws, "welcome")
        await send(ws, [{"seq": n, "a": n} for n in range(1, 8)])
        throttled = await receive(ws, "throttled")
        assert (throttled["seq"], throttled["dropped"]) == (4, 4)
        assert 900 <= throttled["retry_after_ms"] <= 1001
        await acked(ws, 3)
        await send(ws, {"seq": 4, "values": {}})
        await acked(ws, 4)


async def test_what_costs_an_answer_or_a_place_costs_the_rate(tmp_path):
    """Refused readings, empty ones and descriptions cannot flood the gateway; giving up has a burst of credit."""
    async with gateway(tmp_path, limits={"device_rate": 0.01, "device_burst": 3}) as gw, gw.device("d") as ws:
        await receive(ws, "welcome")
        await send(ws, {"seq": 1, "a": [1]}, {"seq": 2, "values": {}}, {"type": "describe", "name": "D"})
        assert (await receive(ws))["code"] == "bad_value"
        await send(ws, {"seq": 3, "a": [1]}, {"type": "describe", "name": "E"})
        assert (await receive(ws, "throttled"))["seq"] == 3
        assert (await receive(ws, "error"))["code"] == "rate"
        for seq in range(3, 7):
            await send(ws, {"seq": seq, "values": {}})
            assert (await receive(ws, "ack"))["seq"] == seq
            await send(ws, {"seq": seq + 1, "a": 1})
            assert (await receive(ws, "throttled"))["seq"] == seq + 1
        await send(ws, {"seq": 7, "values": {}})
        assert (await receive(ws, "throttled"))["seq"] == 7
        ledger = await gw.ledger("d")
        assert (ledger["stored"], ledger["rejected"]) == (5, 1)


async def test_metrics_of_a_device_are_bounded(tmp_path):
    """A device that invents names is refused by name beyond its bound, also after a restart."""
    async with gateway(tmp_path, limits={"max_metrics": 3}) as gw, gw.device("d") as ws:
        await receive(ws, "welcome")
        await send(ws, {"seq": 1, "a": 1, "b": 2}, {"seq": 2, "c": 3, "d": 4}, {"seq": 3, "c": 3})
        error = await receive(ws, "error")
        assert (error["code"], error["seq"]) == ("too_many_metrics", 2)
        await acked(ws, 3)
        await gw.rows("d", until=3)
    async with gateway(tmp_path, limits={"max_metrics": 3}) as gw, gw.device("d") as ws:
        await receive(ws, "welcome")
        await send(ws, {"e": 1}, {"a": 1})
        assert (await receive(ws))["code"] == "too_many_metrics"


async def test_metrics_of_all_devices_are_bounded_together(tmp_path):
    """Beyond the bound no device gets a new metric, sent or described, and each keeps its own; after a restart too."""
    limits = {"max_series": 3}
    async with gateway(tmp_path, limits=limits) as gw, gw.device("d") as d, gw.device("e") as e:
        await send(d, {"seq": 1, "a": 1, "b": 2})
        await receive(d, "ack")
        await send(e, {"seq": 1, "a": 1, "b": 1}, {"seq": 2, "a": 1}, {"seq": 3, "c": 1}, {"seq": 4, "a": 2})
        refused = [await receive(e, "error") for _ in range(2)]
        assert [(error["code"], error["seq"]) for error in refused] == [("too_many_series", 1), ("too_many_series", 3)]
        while (await receive(e, "ack"))["seq"] < 4:
            pass
        codes = []
        for seq, (ws, names) in enumerate(((d, "abc"), (e, "a"), (d, "ab"), (e, "a")), 5):
            await send(ws, {"type": "describe", "metrics": {name: {} for name in names}}, {"seq": seq, "values": {}})
            while (message := await receive(ws))["type"] != "ack" or message["seq"] < seq:
                codes += [message["code"]] if message["type"] == "error" else []
        assert codes == ["too_many_series"]
        await gw.rows("e", until=2)
        assert gw.app.devices.series == gw.app.devices.described == 3
    async with gateway(tmp_path, limits=limits) as gw, gw.device("e") as ws:
        assert gw.app.devices.series == gw.app.devices.described == 3
        await send(ws, {"seq": 1, "b": 1}, {"seq": 2, "a": 1})
        assert (await receive(ws, "error"))["code"] == "too_many_series"
        assert (await receive(ws, "ack"))["seq"] == 2


async def test_a_reading_that_cannot_be_refused_aloud_is_held(tmp_path, monkeypatch):
    """While the device does not read, a bad reading is held: no ack covers what no error has named."""
    monkeypatch.setattr("gateway.server.connection.REPLIES_MAX", -1)
    async with gateway(tmp_path) as gw, gw.device("d") as ws:
        await send(ws, {"seq": 1, "a": 1}, {"seq": 2, "a": [1]}, {"seq": 3, "a": 3})
        await gw.rows("d", until=1)
        monkeypatch.setattr("gateway.server.connection.REPLIES_MAX", 65536)
        await send(ws, {"seq": 1, "a": 1}, {"seq": 2, "a": [1]}, {"seq": 3, "a": 3})
        assert (await receive(ws, "error"))["seq"] == 2
        await acked(ws, 3)
        ledger = await gw.ledger("d")
        assert (ledger["stored"], ledger["throttled"], ledger["rejected"]) == (2, 2, 1)


async def test_a_plain_get_makes_no_device(tmp_path):
    """Only a connection makes a device known."""
    async with gateway(tmp_path) as gw:
        assert (await gw.get("/v1/devices/junk"))[0] in (400, 426)
        assert (await gw.json("/healthz"))["devices"]["offline"] == 0
        assert gw.app.health is not None
        assert gw.app.health.body()["devices"] == {"online": 0, "stale": 0, "offline": 0}


async def test_throttled_without_seq_is_dropped_and_counted(tmp_path):
    """A device without seq is told how many were dropped."""
    async with gateway(tmp_path, limits={"device_rate": 0.01, "device_burst": 2}) as gw, gw.device("d") as ws:
        await receive(ws, "welcome")
        await send(ws, [{"a": n} for n in range(5)], {"a": 9})
        first, second = await receive(ws, "throttled"), await receive(ws, "throttled")
        assert (first["dropped"], second["dropped"]) == (3, 1)
        assert "seq" not in first
        assert (await gw.ledger("d"))["throttled"] == 4


async def test_policy_close(tmp_path):
    """With policy close, going beyond the rate closes with 1008."""
    async with (
        gateway(tmp_path, limits={"device_rate": 1, "device_burst": 1, "policy": "close"}) as gw,
        gw.device("d") as ws,
    ):
        await receive(ws, "welcome")
        await send(ws, {"a": 1}, {"a": 2})
        assert (await closing(ws))[0] == 1008


async def test_policy_delay(tmp_path):
    """With policy delay nothing is dropped: the socket is not read until there is room, and nobody is timed out."""
    limits = {"device_rate": 50, "device_burst": 10, "policy": "delay"}
    async with (
        gateway(tmp_path, limits=limits, heartbeat={"interval_s": 0.2, "timeout_s": 0.2}) as gw,
        gw.device("d") as ws,
    ):
        await receive(ws, "welcome")
        loop = asyncio.get_running_loop()
        started = loop.time()
        await send(ws, [{"seq": n, "a": n} for n in range(1, 51)], *({"seq": n, "a": n} for n in range(51, 61)))
        await acked(ws, 60)
        assert loop.time() - started >= 0.9
        ledger = await gw.ledger("d")
        assert (ledger["stored"], ledger["throttled"]) == (60, 0)


async def test_resume_and_duplicates(tmp_path):
    """A session resumes at its last durable seq; what comes again is counted, not stored, and acked again."""
    async with gateway(tmp_path) as gw:
        async with gw.device("d", "?session=boot1") as ws:
            await receive(ws, "welcome")
            await send(ws, {"seq": 5, "a": 5}, {"seq": 6, "a": 6})
            await acked(ws, 6)
        async with gw.device("d", "?session=boot1") as ws:
            welcome = await receive(ws)
            assert (welcome["session"], welcome["resumed"], welcome["last_seq"]) == ("boot1", True, 6)
            await send(ws, {"seq": 6, "a": 6})
            assert await receive(ws) == {"type": "ack", "seq": 6}
            await send(ws, {"seq": 9, "a": 9})
            await acked(ws, 9)
        async with gw.device("d", "?session=boot2") as ws:
            welcome = await receive(ws)
            assert (welcome["resumed"], welcome["last_seq"]) == (False, 0)
        ledger = await gw.ledger("d")
        assert (ledger["stored"], ledger["duplicate"], ledger["missing"]) == (3, 1, 2)


async def test_delivered_acks_wait_for_every_sink(tmp_path, mosquitto):
    """ack=delivered says so when history and broker have it; durable is not enough, and a resume is told at once."""
    async with gateway(tmp_path, mqtt={"url": mosquitto.url}) as gw:
        mosquitto.freeze()
        async with gw.device("d", "?session=b&ack=delivered") as ws, gw.device("e") as quick:
            await receive(ws, "welcome")
            await receive(quick, "welcome")
            await send(ws, {"seq": 1, "a": 1})
            await gw.rows("d", until=1)
            await send(quick, {"seq": 1, "a": 1})
            await acked(quick, 1)
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.5):
                    await ws.recv()
            mosquitto.thaw()
            await acked(ws, 1)
        async with gw.device("d", "?session=b&ack=delivered") as ws:
            assert (await receive(ws))["last_seq"] == 1
            await acked(ws, 1)
    async with gateway(tmp_path, mqtt={"url": mosquitto.url}) as gw, gw.device("d", "?session=b&ack=delivered") as ws:
        assert (await receive(ws))["last_seq"] == 1
        await acked(ws, 1)


async def test_delivered_is_not_promised_where_the_oldest_is_dropped(tmp_path):
    """An ack of that level could cover what no sink ever had: it is refused in words."""
    async with gateway(tmp_path, journal={"on_full": "drop_oldest"}) as gw:
        with pytest.raises(InvalidStatus) as refused:
            async with gw.device("d", "?ack=delivered"):
                pass
        assert refused.value.response.status_code == 400
        assert b"ON_FULL" in refused.value.response.body


async def test_reminded_of_a_hold(tmp_path, monkeypatch):
    """A device that goes on behind a hold is told again, not for every reading."""
    monkeypatch.setattr("gateway.server.connection.REMIND_S", 0.2)
    async with gateway(tmp_path, limits={"device_rate": 0.1, "device_burst": 1}) as gw, gw.device("d") as ws:
        await receive(ws, "welcome")
        await send(ws, *({"seq": n, "a": n} for n in range(1, 20)))
        assert (await receive(ws, "throttled"))["seq"] == 2
        await asyncio.sleep(0.25)
        await send(ws, {"seq": 20, "a": 1}, {"seq": 21, "a": 1})
        assert (await receive(ws, "throttled"))["seq"] == 2
        await send(ws, "nonsense")
        assert (await receive(ws, "error"))["code"] == "undecodable"


async def test_session_survives_a_restart(tmp_path):
    """The newest session and the counts are there after a restart."""
    async with gateway(tmp_path) as gw, gw.device("d", "?session=boot1") as ws:
        await receive(ws, "welcome")
        await send(ws, {"seq": 1, "a": 1}, {"seq": 2, "a": 2})
        await acked(ws, 2)
    async with gateway(tmp_path) as gw, gw.device("d", "?session=boot1") as ws:
        welcome = await receive(ws)
        assert (welcome["resumed"], welcome["last_seq"]) == (True, 2)
        assert (await gw.ledger("d"))["stored"] == 2
        assert len(await gw.rows("d")) == 2


async def test_no_acks_where_none_are_asked_for(tmp_path):
    """ack=none sends none; a reading without seq gets none."""
    async with gateway(tmp_path) as gw, gw.device("d", "?ack=none") as quiet, gw.device("e") as ws:
        await receive(quiet, "welcome")
        await receive(ws, "welcome")
        await send(quiet, {"seq": 1, "a": 1})
        await send(ws, {"a": 1})
        await gw.rows("*", until=2)
        await send(ws, {"seq": 1, "a": 1})
        await acked(ws, 1)
        await send(quiet, "nonsense")
        assert (await receive(quiet))["type"] == "error"


async def test_a_reading_without_seq_gets_no_ack(tmp_path):
    """Not even the last one again."""
    async with gateway(tmp_path) as gw, gw.device("d") as ws:
        await receive(ws, "welcome")
        await send(ws, {"seq": 1, "a": 1})
        await acked(ws, 1)
        await send(ws, {"a": 2})
        await gw.rows("d", until=2)
        await send(ws, {"seq": 2, "a": 3})
        assert await receive(ws) == {"type": "ack", "seq": 2}


async def test_times_of_receipt_strictly_increase(tmp_path):
    """Readings without a time do not overwrite each other."""
    async with gateway(tmp_path) as gw, gw.device("d") as ws:
        await receive(ws, "welcome")
        await send(ws, [{"a": n} for n in range(50)])
        assert [row["value"] for row in await gw.rows("d", until=50)] == list(range(50))


async def test_replacement(tmp_path):
    """A second connection replaces the first with 4001, and presence does not change."""
    async with gateway(tmp_path) as gw, gw.device("d") as first:
        await receive(first, "welcome")
        since = (await gw.json("/api/v1/devices"))[0]["since"]
        async with gw.device("d") as second:
            await receive(second, "welcome")
            assert (await closing(first))[0] == 4001
            row = (await gw.json("/api/v1/devices"))[0]
            assert (row["state"], row["since"]) == ("online", since)
            await send(second, {"seq": 1, "a": 1})
            await acked(second, 1)


async def test_two_that_keep_replacing_each_other_are_told_and_slowed_down(tmp_path, monkeypatch):
    """From the fourth replacement within a short time on, the newcomer waits, and the reason says why."""
    monkeypatch.setattr("gateway.server.device.REPLACEMENT_DELAY_S", 0.3)
    async with gateway(tmp_path) as gw:
        loop = asyncio.get_running_loop()
        connections = [await gw.device("d") for _ in range(4)]
        started = loop.time()
        connections.append(await gw.device("d"))
        assert loop.time() - started >= 0.3
        code, reason = await closing(connections[-2])
        assert code == 4001
        assert "two devices" in reason
        for ws in connections:
            await ws.close()


async def test_describe_is_kept(tmp_path):
    """What a device says of itself is kept over a restart; a bad description is refused by name."""
    async with gateway(tmp_path) as gw, gw.device("d") as ws:
        await receive(ws, "welcome")
        await send(
            ws,
            {
                "type": "describe",
                "name": "Boiler pump",
                "interval_s": 60,
                "metrics": {"t": {"unit": "Cel", "class": "temperature", "more": 1}},
            },
        )
        for bad in (
            {"interval_s": -1},
            {"metrics": {"b c": {}}},
            {"name": "a\x00"},
            {"metrics": {"t": {"unit": "\n\x1b"}}},
        ):
            await send(ws, {"type": "describe", **bad})
            assert (await receive(ws))["code"] == "bad_description"
    async with gateway(tmp_path) as gw:
        (row,) = await gw.json("/api/v1/devices")
        assert (row["name"], row["interval_s"], row["metrics"]) == (
            "Boiler pump",
            60,
            {"t": {"unit": "Cel", "class": "temperature"}},
        )


async def test_heartbeat_and_unknown_types(tmp_path):
    """A heartbeat needs no answer; an unknown type, and a result nobody asked for, are refused."""
    async with gateway(tmp_path) as gw, gw.device("d") as ws:
        await receive(ws, "welcome")
        await send(ws, {"type": "heartbeat"}, {"type": "party"}, {"type": "result", "id": "c1", "ok": True})
        assert [(await receive(ws))["code"] for _ in range(2)] == ["bad_message", "unknown_command"]
        await send(ws, {"device": "", "a": 1, "seq": 1}, {"device": "d", "a": 1, "seq": 2})
        assert (await receive(ws))["code"] == "bad_device"
        await acked(ws, 2)


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("a%20b", 400),
        ("-a", 400),
        ("a/b", 404),
        ("a%2Fb", 404),
        ("", 400),
        ("d?ack=perhaps", 400),
        ("d?session=" + "x" * 65, 400),
        ("d?session=a%00b", 400),
        ("d?format=gateway.v2", 400),
    ],
)
async def test_refused_before_the_upgrade(tmp_path, path, status):
    """Names and queries are checked at the edge."""
    async with gateway(tmp_path) as gw:
        with pytest.raises(InvalidStatus) as info:
            await gw.device(path)
        assert info.value.response.status_code in (status, 404)


async def test_foreign_origin_is_refused(tmp_path):
    """A web page from elsewhere cannot speak for a device."""
    async with gateway(tmp_path) as gw:
        with pytest.raises(InvalidStatus) as info:
            await gw.device("d", origin="http://evil.example")
        assert info.value.response.status_code == 403


async def test_too_many_devices(tmp_path):
    """Beyond the bound a new name is refused with 503 and Retry-After."""
    async with gateway(tmp_path, limits={"max_devices": 1}) as gw, gw.device("a") as ws:
        await receive(ws, "welcome")
        with pytest.raises(InvalidStatus) as info:
            await gw.device("b")
        assert info.value.response.status_code == 503
        assert info.value.response.headers["Retry-After"] == "60"


async def state_of(gw, device, state):
    """The device's row as soon as it is in the state."""
    for _ in range(500):
        (row,) = await gw.json(f"/api/v1/devices?device={device}")
        if row["state"] == state:
            return row
        await asyncio.sleep(0.01)
    raise AssertionError(f"{device} is {row['state']}, not {state}")


async def test_presence(tmp_path):
    """Online with the connection, offline within a second of its end, with the reason; a stop changes nothing."""
    async with gateway(tmp_path) as gw:
        async with gw.device("d") as ws:
            await receive(ws, "welcome")
            assert (await gw.json("/api/v1/devices"))[0]["state"] == "online"
        row = await state_of(gw, "d", "offline")
        assert row["reason"]
        ws = await gw.device("e")
        await receive(ws, "welcome")
    assert (await closing(ws))[0] == 1001
    async with gateway(tmp_path, heartbeat={"interval_s": 0.2, "timeout_s": 0.2}) as gw:
        rows = {row["device"]: row for row in await gw.json("/api/v1/devices")}
        assert (rows["e"]["state"], rows["e"]["confirmed"], rows["d"]["state"]) == ("online", False, "offline")
        assert "not seen" in (await state_of(gw, "e", "offline"))["reason"]


async def test_a_flood_of_pings_that_are_not_read_takes_no_memory(tmp_path):
    """Pongs are left out for a peer that reads none of them."""
    async with gateway(tmp_path) as gw, gw.device("d", ping_interval=None) as ws:
        await receive(ws, "welcome")
        ws.transport.pause_reading()
        ping = b"\x89\xfd" + bytes(4) + b"x" * 125
        (connection,) = gw.connections()
        for _ in range(200):
            ws.transport.write(ping * 500)
            await asyncio.sleep(0.001)
        await asyncio.sleep(0.2)
        assert connection.pending_bytes < 2**20


async def test_policy_close_is_for_the_rate_alone(tmp_path, monkeypatch):
    """A journal without room closes nobody with 1008: what comes behind is held, and the reminder is a notice."""
    monkeypatch.setattr("gateway.server.connection.REMIND_S", 0.0)
    async with gateway(tmp_path, limits={"policy": "close"}) as gw, gw.device("d") as ws:
        await receive(ws, "welcome")
        with full_journal(gw):
            await send(ws, {"seq": 1, "a": 1}, {"seq": 2, "a": 2}, {"seq": 3, "a": 3})
            assert (await receive(ws, "error"))["code"] == "overloaded"
            assert (await receive(ws, "throttled"))["seq"] == 1
        await send(ws, *({"seq": n, "a": n} for n in (1, 2, 3)))
        assert (await receive(ws, "ack"))["seq"] == 3
        ledger = await gw.ledger("d")
        assert (ledger["stored"], ledger["dropped"], ledger["throttled"]) == (3, 3, 0)


async def test_overload_that_lasts_closes_with_1013(tmp_path, monkeypatch):
    """After a while of nothing but overloaded the device is sent away, and told for how long; at once offline."""
    monkeypatch.setattr("gateway.server.connection.OVERLOAD_S", 0.2)
    async with gateway(tmp_path) as gw, gw.device("d") as ws:
        await receive(ws, "welcome")
        with full_journal(gw):
            await send(ws, {"seq": 1, "a": 1})
            assert (await receive(ws, "error"))["retry_after_ms"] > 0
            await asyncio.sleep(0.25)
            await send(ws, {"seq": 1, "a": 1})
            code, reason = await closing(ws)
        assert code == 1013
        assert 5_000 <= int(reason.removeprefix("retry_after_ms=")) <= 15_000
        assert (await gw.json("/api/v1/devices"))[0]["state"] == "offline"


async def test_one_accepted_reading_ends_an_overload(tmp_path, monkeypatch):
    """Only an unbroken overload counts towards 1013."""
    monkeypatch.setattr("gateway.server.connection.OVERLOAD_S", 0.2)
    async with gateway(tmp_path) as gw, gw.device("d") as ws:
        await receive(ws, "welcome")
        for seq in (1, 2, 3):
            with full_journal(gw):
                await send(ws, {"seq": seq, "a": 1})
                assert (await receive(ws, "error"))["code"] == "overloaded"
            await send(ws, {"seq": seq, "a": 1})
            await acked(ws, seq)
            await asyncio.sleep(0.15)


@contextmanager
def full_journal(gw):
    """The journal has no room for readings."""
    pipeline = gw.app.pipeline
    append = pipeline._append

    def refuse(item, *args):
        if isinstance(item, Reading | Mark):
            raise Overloaded("the disk is full", retry_after_ms=1000)
        return append(item, *args)

    pipeline._append = refuse
    try:
        yield
    finally:
        pipeline._append = append


async def test_policy_delay_tells_a_refusal_before_an_ack_covers_it(tmp_path, monkeypatch):
    """Also with policy delay a bad reading is held while the device does not read."""
    monkeypatch.setattr("gateway.server.connection.REPLIES_MAX", -1)
    async with gateway(tmp_path, limits={"policy": "delay"}) as gw, gw.device("d") as ws:
        await send(ws, {"seq": 1, "a": 1}, {"seq": 2, "a": [1]})
        await gw.rows("d", until=1)
        monkeypatch.setattr("gateway.server.connection.REPLIES_MAX", 65536)
        await send(ws, {"seq": 1, "a": 1}, {"seq": 2, "a": [1]}, {"seq": 3, "a": 3})
        assert (await receive(ws, "error"))["seq"] == 2
        await acked(ws, 3)


async def test_policy_delay_sees_a_close(tmp_path):
    """A device that closes while it is not read is offline within a second, and what it had sent is kept."""
    limits = {"device_rate": 10, "device_burst": 10, "policy": "delay"}
    async with gateway(tmp_path, limits=limits) as gw:
        async with gw.device("d") as ws:
            await receive(ws, "welcome")
            await send(ws, [{"seq": n, "a": n} for n in range(1, 201)], {"seq": 201, "a": 201})
            await acked(ws, 200)
            ws.transport.abort()
        await asyncio.sleep(1.0)
        (row,) = await gw.json("/api/v1/devices")
        assert row["state"] == "offline"


async def test_an_ack_that_had_to_wait_is_made_up(tmp_path, monkeypatch):
    """A device that was slow to read and then only waits for its ack gets it."""
    monkeypatch.setattr("gateway.server.connection.REPLIES_MAX", -1)
    async with gateway(tmp_path) as gw, gw.device("d") as ws:
        await send(ws, {"seq": 1, "a": 1})
        await gw.rows("d", until=1)
        await asyncio.sleep(0.1)
        monkeypatch.setattr("gateway.server.connection.REPLIES_MAX", 65536)
        await acked(ws, 1)


async def test_a_bad_reading_that_comes_again_is_a_duplicate(tmp_path):
    """It was decided: no second error, no token, and an ack."""
    async with gateway(tmp_path, limits={"device_rate": 0.01, "device_burst": 3}) as gw, gw.device("d") as ws:
        await receive(ws, "welcome")
        await send(ws, {"seq": 1, "a": [1]}, {"seq": 2, "a": 2})
        assert (await receive(ws))["type"] == "error"
        await acked(ws, 2)
        await send(ws, *[{"seq": 1, "a": [1]}] * 5, {"seq": 3, "a": 3})
        for _ in range(5):
            assert (await receive(ws)) == {"type": "ack", "seq": 2}
        await acked(ws, 3)
        ledger = await gw.ledger("d")
        assert (ledger["rejected"], ledger["duplicate"]) == (1, 5)


async def test_a_device_that_is_closed_is_offline_at_once(tmp_path):
    """Whether it answers the close or not: its reason is what it was closed for."""
    limits = {"device_rate": 1, "device_burst": 1, "policy": "close"}
    async with gateway(tmp_path, limits=limits) as gw, gw.device("d") as ws:
        await receive(ws, "welcome")
        ws.transport.pause_reading()
        await send(ws, {"a": 1}, {"a": 2})
        deadline = asyncio.get_running_loop().time() + 2
        while (row := (await gw.json("/api/v1/devices"))[0])["state"] != "offline":
            assert asyncio.get_running_loop().time() < deadline
            await asyncio.sleep(0.02)
        assert row["reason"] == "rate limit exceeded"
        ws.transport.resume_reading()


async def test_times_far_off(tmp_path):
    """By default flagged and shown; refused or corrected where the settings say so."""
    hour_ahead = time.time_ns() // 1_000_000 + 3_600_000
    async with gateway(tmp_path / "flag") as gw, gw.device("d") as ws:
        await receive(ws, "welcome")
        await send(ws, {"seq": 1, "ts": hour_ahead, "a": 1}, {"seq": 2, "ts": 1_000_000_000, "a": 1})
        await acked(ws, 2)
        (row,) = await gw.json("/api/v1/devices")
        assert (row["clock"]["old"], row["clock"]["future"]) == (1, 1)
        assert abs(row["clock"]["skew_ms"] - 3_600_000) < 10_000
    async with gateway(tmp_path / "refuse", clock={"future": "refuse", "old": "correct"}) as gw, gw.device("d") as ws:
        await receive(ws, "welcome")
        await send(ws, {"seq": 1, "ts": hour_ahead, "a": 1}, {"seq": 2, "ts": 1_000_000_000, "a": 2})
        error = await receive(ws)
        assert (error["code"], error["seq"]) == ("bad_time", 1)
        await acked(ws, 2)
        (row,) = await gw.rows("d", until=1)
        assert abs(row["time"] - time.time() * 1000) < 60_000


async def test_a_device_cannot_break_the_counts(tmp_path):
    """The greatest sequence numbers there are, again and again: counts stop at what a file can hold."""
    async with gateway(tmp_path) as gw:
        for session in ("a", "b", "c"):
            async with gw.device("d", f"?session={session}") as ws:
                await receive(ws, "welcome")
                await send(ws, {"seq": 1, "a": 1}, {"seq": 2**63 - 1, "a": 1})
                await acked(ws, 2**63 - 1)
        assert (await gw.ledger("d"))["missing"] == str(2**63 - 1)
    async with gateway(tmp_path) as gw:
        assert (await gw.ledger("d"))["stored"] == 6


async def test_a_silent_device_is_stale_until_it_speaks(tmp_path):
    """Three stated intervals without a message: stale, with the reason; the next message makes it online again."""
    async with gateway(tmp_path) as gw, gw.live() as live, gw.device("d") as ws:
        await receive(ws, "welcome")
        await receive(live, "hello")
        await send(ws, {"type": "describe", "interval_s": 0.1}, {"seq": 1, "a": 1})
        await acked(ws, 1)
        await send(live, {"type": "subscribe", "id": "m", "metrics": ["none"]})
        assert (await receive(live, "snapshot"))["devices"]["d"]["state"] == "online"
        stale = (await receive(live, "presence"))["devices"]["d"]
        assert stale["state"] == "stale"
        assert re.fullmatch(r"nothing for \d(\.\d)? s, expected every 0.1 s", stale["reason"])
        assert (await gw.json("/healthz"))["devices"]["stale"] == 1
        await send(ws, {"type": "heartbeat"})
        assert (await receive(live, "presence"))["devices"]["d"]["state"] == "online"
        await ws.close()
        assert (await receive(live, "presence"))["devices"]["d"]["state"] == "offline"


async def test_many_lost_at_once_are_one_event(tmp_path, caplog):
    """Twelve connections that end together are one line in the log and one problem in the health."""
    async with gateway(tmp_path) as gw:
        async with AsyncExitStack() as stack:
            connections = [await stack.enter_async_context(gw.device(f"d{number}")) for number in range(12)]
            for ws in connections:
                await receive(ws, "welcome")
            for ws in connections:
                ws.transport.abort()
        deadline = asyncio.get_running_loop().time() + 5
        while (await gw.json("/healthz"))["devices"]["offline"] < 12:
            assert asyncio.get_running_loop().time() < deadline
        problems = [problem["text"] for problem in (await gw.json("/healthz"))["problems"]]
        assert any(text.startswith("12 of 12 devices were lost within 5 s") for text in problems), problems
        assert caplog.text.count("were lost within") == 1


async def test_the_gateways_own_standstill_makes_nobody_stale(tmp_path):
    """A round of the watch that comes late begins anew for all: what waits in the sockets was not read yet."""
    async with gateway(tmp_path) as gw, gw.device("d") as ws:
        await receive(ws, "welcome")
        await send(ws, {"type": "describe", "interval_s": 0.1}, {"seq": 1, "a": 1})
        await acked(ws, 1)
        endpoint = gw.app.devices
        (device,) = endpoint.book
        now = time.monotonic() + 100
        endpoint.monotonic = lambda: now
        await endpoint.watch()
        assert device.status.state == "online"
        now += 2.5
        await endpoint.watch()
        assert device.status.state == "stale"


async def test_a_pause_for_the_rate_is_not_learned(tmp_path):
    """What a device could not say under policy delay is no pause of its own."""
    limits = {"device_rate": 10, "device_burst": 10, "policy": "delay"}
    async with gateway(tmp_path, limits=limits) as gw, gw.device("d") as ws:
        await receive(ws, "welcome")
        await send(ws, [{"seq": n, "a": n} for n in range(1, 31)], {"seq": 31, "a": 31})
        await acked(ws, 31)
        (device,) = gw.app.devices.book
        assert device.rhythm.usual == 0.0
