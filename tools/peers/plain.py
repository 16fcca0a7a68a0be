"""The job of tools/bench as it is written first with ``websockets`` and paho: to the broker, QoS 0 (what ``publish``
does unasked), and to every dashboard.
"""

import asyncio
import json
import sys

import paho.mqtt.client as mqtt
from websockets.asyncio.server import ServerConnection, broadcast, serve

PORT, BROKER_PORT = map(int, sys.argv[1:])

broker = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2)
dashboards: set[ServerConnection] = set()


async def handle(ws: ServerConnection) -> None:
    assert ws.request is not None
    _, kind, *rest = ws.request.path.split("/")
    if kind == "dashboards":
        dashboards.add(ws)
        await ws.wait_closed()
        dashboards.discard(ws)
        return
    device = rest[0]
    async for message in ws:
        text = json.dumps({"device": device, **json.loads(message)})
        broker.publish(f"bench/{device}/telemetry", text)
        broadcast(dashboards, text)


async def main() -> None:
    broker.connect("127.0.0.1", BROKER_PORT)
    broker.loop_start()
    async with serve(handle, "127.0.0.1", PORT) as server:
        await server.serve_forever()


asyncio.run(main())
