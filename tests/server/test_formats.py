"""Every format of devices over a real socket: what is sent can be read in the history, replies come in its form."""

from __future__ import annotations

import json
import time
import tomllib
from pathlib import Path
from typing import Any

import cbor2
import msgspec
import pytest
from websockets.exceptions import ConnectionClosed

from gateway.codecs import SUBPROTOCOLS
from tests.running import Running, gateway

ROOT = Path(__file__).parents[2]
SENML = [{"bn": "urn:dev:ow:10e2:", "n": "temperature", "u": "Cel", "v": 22.5}, {"n": "door", "t": -5, "vb": True}]
SENML_CBOR = [{-2: "urn:dev:ow:10e2:", 0: "temperature", 1: "Cel", 2: 22.5}, {0: "door", 6: -5, 4: True}]
MODEL = {"seq": 1, "values": {"temperature": 22.5, "door": True}}
VALUES = {"temperature": 22.5, "door": True}
SENML_VALUES = {"urn:dev:ow:10e2:temperature": 22.5, "urn:dev:ow:10e2:door": True}
LINE = "room,place=boiler\\ room temperature=22.5,door=true"
LINE_VALUES = {"room/place.boiler:20room/temperature": 22.5, "room/place.boiler:20room/door": True}
# ThingsBoard's device API: times in milliseconds, one or several.
THINGSBOARD = [{"ts": 1764000000000, "values": {"temperature": 22.5}}, {"door": True}]

SENT: list[tuple[str, str | bytes, dict[str, Any]]] = [
    ("gateway.v1.json", json.dumps(MODEL), VALUES),
    ("gateway.v1.json", json.dumps(THINGSBOARD), VALUES),
    ("gateway.v1.msgpack", msgspec.msgpack.encode(MODEL), VALUES),
    ("gateway.v1.cbor", cbor2.dumps(MODEL), VALUES),
    ("gateway.v1.senml-json", json.dumps(SENML), SENML_VALUES),
    ("gateway.v1.senml-cbor", cbor2.dumps(SENML_CBOR), SENML_VALUES),
    ("gateway.v1.influx", LINE, LINE_VALUES),
    ("gateway.v1.influx", LINE.encode(), LINE_VALUES),
]


def reply(data: str | bytes, subprotocol: str) -> dict[str, Any]:
    """A reply, in the form that the subprotocol has."""
    if subprotocol.endswith("cbor"):
        found: dict[str, Any] = cbor2.loads(data)  # type: ignore[arg-type]
    elif subprotocol.endswith("msgpack"):
        found = msgspec.msgpack.decode(data)
    else:
        assert isinstance(data, str)
        found = json.loads(data)
    return found


async def history(running: Running, count: int) -> dict[str, Any]:
    return {row["metric"]: row["value"] for row in await running.rows("pump-1", until=count)}


@pytest.mark.parametrize("offered", [True, False], ids=["offered", "in the address"])
@pytest.mark.parametrize(("subprotocol", "data", "values"), SENT, ids=range(len(SENT)))
async def test_each_format(
    tmp_path: Path, subprotocol: str, data: str | bytes, values: dict[str, Any], offered: bool
) -> None:
    """It is welcomed in its form, and stored; the subprotocol may stand in the address instead."""
    query, options = ("", {"subprotocols": [subprotocol]}) if offered else (f"?format={subprotocol}", {})
    async with gateway(tmp_path) as running, running.device("pump-1", query, **options) as pump:
        assert reply(await pump.recv(), subprotocol)["type"] == "welcome"
        await pump.send(data)
        if b"seq" in (data if isinstance(data, bytes) else data.encode()):
            assert reply(await pump.recv(), subprotocol) == {"type": "ack", "seq": 1}
        assert await history(running, len(values)) == values
        assert (await running.ledger("pump-1"))["rejected"] == 0


async def test_the_wrong_kind_of_frame(tmp_path: Path) -> None:
    """It ends the connection with 1003 where the subprotocol has one kind alone."""
    async with gateway(tmp_path) as running:
        for subprotocol in SUBPROTOCOLS:
            if subprotocol == "gateway.v1.influx":
                continue
            binary = subprotocol.endswith(("cbor", "msgpack"))
            async with running.device("pump-1", subprotocols=[subprotocol]) as pump:
                await pump.recv()
                await pump.send("{}" if binary else b"{}")
                with pytest.raises(ConnectionClosed) as closed:
                    await pump.recv()
                assert closed.value.rcvd is not None
                assert closed.value.rcvd.code == 1003


async def test_units_of_senml_are_kept(tmp_path: Path) -> None:
    """They become a part of the description, beside what the device had said, and are journalled once."""
    async with gateway(tmp_path) as running:
        async with running.device("pump-1") as pump:
            await pump.send('{"type":"describe","name":"Pump","metrics":{"a:t":{"class":"temperature","unit":"K"}}}')
            await pump.send('{"seq":1,"values":{}}')
            await pump.recv()
        async with running.device("pump-1", subprotocols=["gateway.v1.senml-json"]) as pump:
            pack = [{"bn": "a:", "n": "t", "u": "Cel", "v": 20}, {"n": "v", "u": "V", "v": 5}]
            for _ in range(3):
                await pump.send(json.dumps(pack))
            await running.rows("pump-1", until=6)
        (row,) = await running.json("/api/v1/devices")
        assert row["name"] == "Pump"
        assert row["metrics"] == {"a:t": {"class": "temperature", "unit": "Cel"}, "a:v": {"unit": "V"}}


async def test_times_from_now_on(tmp_path: Path) -> None:
    """A SenML time in the past is counted from the receipt."""
    async with gateway(tmp_path) as running:
        before = time.time() * 1000
        async with running.device("pump-1", subprotocols=["gateway.v1.senml-json"]) as pump:
            await pump.send(json.dumps([{"n": "t", "t": -5, "v": 1}]))
            (row,) = await running.rows("pump-1", until=1)
        assert before - 5001 <= row["time"] <= time.time() * 1000 - 5000


async def test_one_bad_record_is_told(tmp_path: Path) -> None:
    """By its name and index; the rest of the pack is kept, and the ledger adds up."""
    async with gateway(tmp_path) as running:
        async with running.device("pump-1", subprotocols=["gateway.v1.senml-json"]) as pump:
            await pump.recv()
            await pump.send(json.dumps([{"bn": "a:", "n": "t", "v": 1}, {"n": "sum", "s": 5}, {"n": "u", "v": 2}]))
            error = json.loads(await pump.recv())
            assert (error["code"], error["index"], "a:sum" in error["detail"]) == ("bad_value", 1, True)
            assert await history(running, 2) == {"a:t": 1, "a:u": 2}
        assert (await running.ledger("pump-1"))["rejected"] == 1


def test_telegraf_is_told_an_address_of_ours() -> None:
    """The example is a configuration, and its address names a format that there is."""
    (output,) = tomllib.loads((ROOT / "config" / "telegraf-device.conf").read_text())["outputs"]["websocket"]
    assert output["url"].rpartition("format=")[2] in SUBPROTOCOLS
    assert output["data_format"] == "influx"


async def test_telegrafs_batch_is_one_message_that_is_taken(tmp_path: Path) -> None:
    """Telegraf does not learn of what is refused: its batches fit the defaults, also in long lines."""
    (output,) = tomllib.loads((ROOT / "config" / "telegraf-device.conf").read_text())["outputs"]["websocket"]
    lines = output["metric_batch_size"]
    fields = ",".join(f"usage_of_something_{field}=98.23456789012" for field in range(14))
    batch = "".join(f"cpu,cpu=cpu{i % 16},host=server01.example.com {fields} {time.time_ns()}\n" for i in range(lines))
    assert len(batch) > 550 * lines
    async with gateway(tmp_path) as running:
        async with running.device("telegraf", f"?{output['url'].rpartition('?')[2]}") as telegraf:
            await telegraf.recv()
            await telegraf.send(batch)
            await running.rows("telegraf", until=14 * lines)
        assert (await running.ledger("telegraf"))["stored"] == lines
