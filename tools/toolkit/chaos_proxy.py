"""A TCP proxy in front of an MQTT broker that cuts, delays, throttles and swallows, as told.

Only what the broker sends is looked into: PUBACKs are counted and can be cut in two (2.2: a packet is a byte of type
and flags, the remaining length in up to four bytes of seven bits, the rest).
"""

from __future__ import annotations

import asyncio
import contextlib

from .chaos_device import HOST

__all__ = ["Proxy"]

PUBACK = 4
PIECE = 4096


class Proxy:
    """Set the attributes at any time; they hold for every connection, also for those that stand."""

    def __init__(self, broker_port: int) -> None:
        self._broker_port = broker_port
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._writers: set[asyncio.StreamWriter] = set()
        self.port = 0
        self.cut_after_pubacks = 0
        """So many more PUBACKs go through; of the next one only half does, and both connections are reset."""
        self.delay_s = 0.0
        """What the broker sends comes so much later."""
        self.bytes_per_s = 0
        """Of what the gateway sends; 0: as many as there are."""
        self.swallows = False
        """Nothing goes through, in either direction, and connections stand."""
        self.refuses = False
        """New connections are reset at once."""
        self.connections = 0
        self.cuts = 0

    async def __aenter__(self) -> Proxy:
        self._server = await asyncio.start_server(self._serve, HOST, 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._server is not None
        self._server.close()
        self.reset()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def heal(self) -> None:
        """Let everything through."""
        self.cut_after_pubacks = self.bytes_per_s = 0
        self.delay_s = 0.0
        self.swallows = self.refuses = False

    def reset(self) -> None:
        """Reset all connections."""
        for writer in self._writers:
            writer.transport.abort()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        if self.refuses:
            writer.transport.abort()
            return
        try:
            far_reader, far_writer = await asyncio.open_connection(HOST, self._broker_port)
        except OSError:
            writer.transport.abort()
            return
        both = {writer, far_writer}
        self._writers |= both
        tasks = {
            asyncio.ensure_future(self._up(reader, far_writer)),
            asyncio.ensure_future(self._down(far_reader, writer)),
        }
        self._tasks |= tasks
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            self._tasks -= tasks
            for one in both:
                one.transport.abort()
            self._writers -= both

    async def _up(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError):
            while data := await reader.read(PIECE):
                await self._open()
                if self.bytes_per_s:
                    await asyncio.sleep(len(data) / self.bytes_per_s)
                writer.write(data)
                await writer.drain()

    async def _down(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            while True:
                packet = await _packet(reader)
                await self._open()
                if self.delay_s:
                    await asyncio.sleep(self.delay_s)
                if packet[0] >> 4 == PUBACK and self.cut_after_pubacks:
                    self.cut_after_pubacks -= 1
                    if not self.cut_after_pubacks:
                        writer.write(packet[: len(packet) // 2])
                        await writer.drain()
                        self.cuts += 1
                        return
                writer.write(packet)
                await writer.drain()

    async def _open(self) -> None:
        while self.swallows:  # noqa: ASYNC110 (told by whoever sets it, at any time)
            await asyncio.sleep(0.02)


async def _packet(reader: asyncio.StreamReader) -> bytes:
    head = await reader.readexactly(2)
    while head[-1] & 0x80:
        head += await reader.readexactly(1)
    size = sum((byte & 0x7F) << 7 * index for index, byte in enumerate(head[1:]))
    return head + await reader.readexactly(size)
