"""The clients for programs without an event loop: scripts, notebooks, threads.

::

    with DeviceClient("ws://127.0.0.1:8080", "pump-1") as device:
        device.send({"temperature": 22.5})

    with LiveClient("ws://127.0.0.1:8080") as live:
        live.subscribe(devices=["pump-*"])
        for event in live:
            print(event)

Thin: each client is the one of :mod:`gateway.client` on an event loop of its own, in a thread of its own;
options and exceptions are those.  Safe to call from several threads.  Callbacks (``on_command`` and the rest)
run in that thread and must not call back into the client here.
"""

from __future__ import annotations

import asyncio
import threading
from typing import TYPE_CHECKING, Any, Self, TypeVar

from . import device as device_module
from . import live as live_module
from .errors import ClientClosed

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterator, Mapping
    from types import TracebackType

    from ..reading import Value
    from .checks import Time
    from .device import Stats
    from .events import Event

__all__ = ["DeviceClient", "LiveClient"]

T = TypeVar("T")


class _Thread:
    """An event loop in a daemon thread."""

    def __init__(self, name: str) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._loop.run_forever()
        self._loop.close()

    def wait(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """The coroutine's result; cancelled where the caller is interrupted."""
        if self._loop.is_closed():
            coroutine.close()
            raise ClientClosed("closed by this side")
        future = asyncio.run_coroutine_threadsafe(coroutine, self._loop)
        try:
            return future.result()
        except BaseException:
            future.cancel()
            raise

    def call(self, function: Callable[[], T]) -> T:
        """The function's result, called on the loop."""

        async def run() -> T:
            return function()

        return self.wait(run())

    def stop(self) -> None:
        """End the loop and the thread; harmless when ended."""
        if self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join()


class DeviceClient:
    """:class:`gateway.client.DeviceClient`, blocking; it takes the same options."""

    def __init__(self, url: str, device: str, **options: Any) -> None:
        self._client = device_module.DeviceClient(url, device, **options)
        self._thread = _Thread(f"device {device}")
        self._thread.call(self._client.start)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self._thread.wait(self._client.__aexit__(kind, error, trace))
        finally:
            self._thread.stop()

    def send(
        self,
        values: Mapping[str, Value | None],
        ts: Time | None = None,
        *,
        device: str | None = None,
        wait: bool = True,
    ) -> int:
        """Hand over one reading; see :meth:`gateway.client.DeviceClient.send`."""
        return self._thread.wait(self._client.send(values, ts, device=device, wait=wait))

    def drain(self, timeout: float | None = None) -> bool:
        """Wait until all is decided; see :meth:`gateway.client.DeviceClient.drain`."""
        return self._thread.wait(self._client.drain(timeout))

    def connected(self, timeout: float | None = None) -> None:
        """Wait for the welcome; see :meth:`gateway.client.DeviceClient.connected`."""
        self._thread.wait(self._client.connected(timeout))

    def describe(self, **description: Any) -> None:
        """Say what this device is; see :meth:`gateway.client.DeviceClient.describe`."""
        self._thread.call(lambda: self._client.describe(**description))

    def heartbeat(self) -> None:
        """Say that there is nothing to report."""
        self._thread.call(self._client.heartbeat)

    @property
    def stats(self) -> Stats:
        """The counts at this moment."""
        return self._client.stats

    @property
    def state(self) -> str:
        """``connecting``, ``online``, ``waiting`` or ``closed``."""
        return self._client.state

    def close(self) -> None:
        """Close without waiting for acks."""
        try:
            self._thread.wait(self._client.close())
        except ClientClosed:
            return
        self._thread.stop()


class LiveClient:
    """:class:`gateway.client.LiveClient`, blocking; it takes the same options."""

    def __init__(self, url: str, **options: Any) -> None:
        self._client = live_module.LiveClient(url, **options)
        self._thread = _Thread("live feed")
        self._thread.call(self._client.start)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def subscribe(self, id: str = "main", **options: Any) -> None:
        """Subscribe; see :meth:`gateway.client.LiveClient.subscribe`."""
        self._thread.call(lambda: self._client.subscribe(id, **options))

    def unsubscribe(self, id: str = "main") -> None:
        """End a subscription."""
        self._thread.call(lambda: self._client.unsubscribe(id))

    def connected(self, timeout: float | None = None) -> None:
        """Wait for the hello; see :meth:`gateway.client.LiveClient.connected`."""
        self._thread.wait(self._client.connected(timeout))

    def __iter__(self) -> Iterator[Event]:
        while True:
            try:
                event = self.next()
            except ClientClosed as closed:
                if closed.code:
                    raise
                return
            assert event is not None
            yield event

    def next(self, timeout: float | None = None) -> Event | None:
        """The next event; ``None`` when ``timeout`` seconds bring none."""
        return self._thread.wait(self._next(timeout))

    async def _next(self, timeout: float | None) -> Event | None:
        try:
            async with asyncio.timeout(timeout):
                return await self._client.next()
        except TimeoutError:
            return None

    def command(self, device: str, name: str, params: Mapping[str, object] | None = None, **options: Any) -> Any:
        """Have a device do something; see :meth:`gateway.client.LiveClient.command`."""
        return self._thread.wait(self._client.command(device, name, params, **options))

    def close(self) -> None:
        """Close the connection."""
        try:
            self._thread.wait(self._client.close())
        except ClientClosed:
            return
        self._thread.stop()
