"""``tools/toolkit``: what measures the gateway, held against other programs' idea of the protocols."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from websockets.frames import Frame, Opcode
from websockets.server import ServerProtocol

from gateway.codecs import CODECS
from tests.servers import Mosquitto
from tools.toolkit import frames, job, load, proc
from tools.toolkit.mqtt import Subscriber


@pytest.mark.parametrize("size", [0, 1, 125, 126, 65_535])
def test_a_server_reads_what_the_clients_frame_holds(size: int) -> None:
    """The handshake and a masked frame of any size are understood by the websockets library."""
    payload = os.urandom(size)
    server = ServerProtocol()
    server.receive_data(frames.upgrade_request("127.0.0.1:1", "/v1/devices/a?session=s"))
    (request,) = server.events_received()
    server.send_response(server.accept(request))
    server.receive_data(frames.client_frame(payload, frames.BINARY))
    (frame,) = server.events_received()
    assert (frame.opcode, frame.data) == (Opcode.BINARY, payload)


@pytest.mark.parametrize("cut", [1, 2, 3, 7, 100_000])
def test_frames_of_a_server_are_read_however_they_are_cut(cut: int) -> None:
    """Frames of every length form come out whole and in order, whatever pieces the network made of them."""
    payloads = [b"", b"x" * 125, b"y" * 126, b"z" * 65_536]
    stream = b"".join(Frame(Opcode.TEXT, payload).serialize(mask=False) for payload in payloads)
    reader = frames.FrameReader()
    found = []
    for at in range(0, len(stream), cut):
        found += reader.feed(stream[at : at + cut])
    assert found == [(frames.TEXT, payload) for payload in payloads]


class _Wire:
    """A transport that keeps what is written."""

    def __init__(self) -> None:
        self.sent: list[bytes] = []

    def write(self, data: bytes) -> None:
        self.sent.append(data)

    def set_write_buffer_limits(self, high: int) -> None:
        pass


def server_frame(text: bytes) -> bytes:
    return Frame(Opcode.TEXT, text).serialize(mask=False)


async def test_a_refused_reading_is_sent_again_from_there() -> None:
    """After ``throttled`` a device goes on from the refused sequence number, and is not counted as sending more."""
    meter = load.Meter()
    wire: Any = _Wire()
    device = load.Device("h", "a", meter, load.samples())
    device.connection_made(wire)
    device.data_received(b"HTTP/1.1 101 Switching Protocols\r\n\r\n" + server_frame(b'{"type":"welcome"}'))
    await device.opened
    for _ in range(3):
        assert device.send(0.0, 1)
    device.data_received(server_frame(b'{"type":"ack","seq":1}'))
    device.data_received(server_frame(b'{"type":"throttled","seq":2,"dropped":2,"retry_after_ms":0}'))
    assert device.next == 2
    device._held_until = 0.0
    assert device.send(0.0, 1)
    assert device.send(0.0, 1)
    device.data_received(server_frame(b'{"type":"ack","seq":3}'))
    assert (meter.sent, meter.acked, meter.throttled) == (3, 3, 1)
    assert len(wire.sent) == 6


@pytest.mark.parametrize("senml", [False, True])
async def test_several_readings_make_one_message(senml: bool) -> None:
    """The gateway's own codec finds the readings in it, in order and a millisecond apart, also after a refusal."""
    codec = CODECS["gateway.v1.senml-json" if senml else "gateway.v1.json"]
    meter = load.Meter()
    wire: Any = _Wire()
    device = load.Device("h", "a", meter, load.samples(), readings=3, senml=senml)
    device.connection_made(wire)
    device.send(2.5, 1_764_000_000_002)
    device.next = 2
    device.send(2.5, 1_764_000_000_003)
    assert meter.sent == 4
    server = ServerProtocol()
    server.receive_data(wire.sent[0])
    (request,) = server.events_received()
    server.send_response(server.accept(request))
    server.receive_data(b"".join(wire.sent[1:]))
    for frame, first in zip(server.events_received(), (0, 1), strict=True):
        readings: list[Any] = codec.decode(frame.data.decode())
        assert [round(one.time / 1e6) for one in readings] == [1_764_000_000_000 + first + n for n in range(3)]
        assert [one.seq for one in readings] == ([0] * 3 if senml else [first + 1, first + 2, first + 3])
        assert all(one.values.keys() == {"temperature", "humidity", "pressure", "sent"} for one in readings)
        assert all(one.values["sent"] == 2.5 for one in readings)


async def test_the_subscriber_gets_every_message(mosquitto: Mosquitto) -> None:
    """Messages published at QoS 1, long ones too, arrive once each at the subscriber."""
    got: list[bytes] = []
    payloads = [b"x" * size for size in (0, 1, 200, 20_000)]
    all_there = asyncio.Event()

    def take(topic: bytes, payload: bytes) -> None:
        assert topic == b"gateway/a/telemetry"
        got.append(payload)
        if len(got) == len(payloads):
            all_there.set()

    subscriber = Subscriber("gateway/+/telemetry", take)
    await asyncio.get_running_loop().create_connection(lambda: subscriber, "127.0.0.1", mosquitto.port)
    await asyncio.wait_for(subscriber.subscribed, 5)
    body = b""
    for number, payload in enumerate(payloads, 1):
        topic = b"gateway/a/telemetry"
        rest = len(topic).to_bytes(2, "big") + topic + number.to_bytes(2, "big") + payload
        size, left = b"", len(rest)
        while True:
            size += bytes((left & 0x7F | (0x80 if left > 0x7F else 0),))
            left >>= 7
            if not left:
                break
        body += b"\x32" + size + rest
    reader, writer = await asyncio.open_connection("127.0.0.1", mosquitto.port)
    writer.write(b"\x10\x0c\x00\x04MQTT\x04\x02\x00\x00\x00\x00" + body)
    async with asyncio.timeout(5):
        await reader.readexactly(4 + 4 * len(payloads))
        await all_there.wait()
    writer.close()
    subscriber.close()
    await asyncio.sleep(0)
    assert got == payloads


def test_a_process_and_its_children_are_measured(tmp_path: Path) -> None:
    """CPU time, memory and written bytes of a process include those of its children."""
    program = (
        "import os,sys,time\n"
        "if os.fork() == 0:\n"
        "    end = time.process_time() + 0.2\n"
        "    while time.process_time() < end: pass\n"
        f"    f = os.open({str(tmp_path / 'x')!r}, os.O_CREAT | os.O_WRONLY)\n"
        "    os.write(f, b'x' * 100_000)\n"
        "    os.fdatasync(f)\n"
        "    print('ready', flush=True)\n"
        "time.sleep(60)\n"
    )
    process = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE)
    assert process.stdout is not None
    try:
        assert process.stdout.readline() == b"ready\n"
        family = proc.tree(process.pid)
        assert len(family) == 2
        assert proc.cpu_seconds(process.pid) >= 0.15
        assert proc.resident_bytes(process.pid) > proc.resident_bytes(family[1]) > 1_000_000
        assert proc.written_bytes(process.pid) >= proc.written_bytes(family[1])
    finally:
        for pid in reversed(proc.tree(process.pid)):
            os.kill(pid, 9)
        process.wait()
        process.stdout.close()


def test_percentiles() -> None:
    """The median and the 99th of a hundred, in milliseconds."""
    assert job._percentiles(job.array("d")) == (0.0, 0.0)
    assert job._percentiles(job.array("d", [0.001 * n for n in range(1, 101)])) == (51.0, 100.0)
