"""The flows in config/node-red: what they say, and, where Node-RED is installed, that they bring readings."""

from __future__ import annotations

import asyncio
import json
import os
import re
from asyncio.subprocess import DEVNULL, PIPE, STDOUT
from itertools import chain
from pathlib import Path
from typing import Any

import pytest

from gateway.auth import Tokens
from tests.running import acked, gateway, receive, send
from tests.servers import Missing, Mosquitto, free_port
from tools.toolkit.peers import node_red

FLOWS = Path(__file__).parents[2] / "config" / "node-red"
VALUE = re.compile(r"\[debug:values\]\s*(\{.*?\n\})", re.DOTALL)
READING = re.compile(r"\[debug:readings\]\s*(\{.*?\n\})", re.DOTALL)
WAIT_S = 60.0


def flow(name: str) -> list[dict[str, Any]]:
    """The nodes of a flow."""
    nodes: list[dict[str, Any]] = json.loads((FLOWS / name).read_text())
    return nodes


@pytest.mark.parametrize("name", sorted(path.name for path in FLOWS.iterdir()))
def test_a_flow_is_whole(name: str) -> None:
    """Every node that another one names is there, and nothing in it is secret."""
    nodes = {node["id"]: node for node in flow(name)}
    for node in nodes.values():
        named = [node.get("z"), node.get("broker"), node.get("client"), *chain(*node.get("wires", []))]
        where = [other for other in named if other and node["type"] != "mqtt-broker"]
        assert [other for other in where if other not in nodes] == [], node["id"]
        assert "credentials" not in node


async def test_node_red_reads_both(tmp_path: Path) -> None:
    """A reading comes out of each flow's last node: by the broker, and straight from the gateway."""
    try:
        command = node_red(tmp_path, free_port())
        broker = Mosquitto(tmp_path / "broker")
    except Missing as missing:
        pytest.skip(str(missing))
    with broker:
        url = f"mqtt://127.0.0.1:{broker.port}"
        (tmp_path / "state").mkdir()
        tokens = Tokens(tmp_path / "state" / "tokens.json")
        token = tokens.create(["live:read", "device:pump-1"])[1]
        authorization = f"Bearer {token}"
        async with (
            gateway(tmp_path / "state", mqtt={"url": url}, auth={"mode": "token"}) as running,
            running.device("pump-1", additional_headers={"Authorization": authorization}) as ws,
        ):
            await receive(ws, "welcome")
            nodes = flow("mqtt.json") + flow("live.json")
            for node in nodes:
                match node["type"]:
                    case "mqtt-broker":
                        node["port"] = str(broker.port)
                    case "websocket-client":
                        node["path"] = node["path"].replace("8080", str(running.port))
                    case "debug":
                        node["console"] = True
            (tmp_path / "flows.json").write_text(json.dumps(nodes))
            process = await asyncio.create_subprocess_exec(
                *command,
                stdin=DEVNULL,
                stdout=PIPE,
                stderr=STDOUT,
                env={**os.environ, "HOME": str(tmp_path), "GATEWAY_AUTHORIZATION": authorization},
            )
            said = ""
            sending = asyncio.create_task(_send(ws))
            try:
                assert process.stdout is not None
                async with asyncio.timeout(WAIT_S):
                    while not (VALUE.search(said) and READING.search(said)):
                        line = await process.stdout.readline()
                        assert line, said
                        said += line.decode()
            finally:
                sending.cancel()
                process.terminate()
                await process.communicate()
    values, readings = VALUE.search(said), READING.search(said)
    assert values is not None, said
    assert readings is not None, said
    for words in ("topic: 'pump-1/temperature'", "payload: 22.5"):
        assert words in values[1], values[1]
    for words in ("device: 'pump-1'", "temperature: 22.5"):
        assert words in readings[1], readings[1]


async def _send(ws: Any) -> None:
    for seq in range(1, 1000):
        await send(ws, {"seq": seq, "temperature": 22.5})
        await acked(ws, seq)
        await asyncio.sleep(0.2)
