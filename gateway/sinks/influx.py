"""The InfluxDB sink: line protocol to ``/api/v2/write`` (PROTOCOL, section 7), one request a batch.

influxdb-client's synchronous write API does the request, in a worker thread: its batching writer drops a batch
after its own retries, and a dropped batch is a lost one.  One request at a time: while one hangs beyond its
time-out no other is begun, and the end of the process waits for none.  A batch written twice is the same points
once more, which the store knows.

What an answer means: 400, 413, 422 something in the batch will never be taken (``Refused``: the runner halves
it); 401, 403, 404 and other 4xx somebody has to change something (``Stopped``); 429, 5xx and no answer at all
the same later (``Unavailable``, ``Retry-After`` honoured).
"""

from __future__ import annotations

import asyncio
import email.utils
import json
import re
import time
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from influxdb_client.client.influxdb_client import InfluxDBClient
from influxdb_client.client.write_api import SYNCHRONOUS
from influxdb_client.rest import ApiException
from urllib3.exceptions import HTTPError
from urllib3.exceptions import ReadTimeoutError as SilenceError

from gateway.sinks.base import Refused, Stopped, Unavailable
from gateway.sinks.layouts.influx import Influx, Integer, never
from gateway.sinks.thread import start

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from gateway.reading import Batch
    from gateway.sinks.base import Key

__all__ = ["InfluxSink"]

LEAST_SECRET = 8  # characters of a token that no words hold by chance
GRACE_S = 2.0  # beyond the request's own time-out, which counts silence and not time
_OBJECT = re.compile(r"<?[\w.]+(\([^)]*\)| object at 0x[0-9a-f]+)>?: ")
_RESOLVE = re.compile(r"Failed to resolve '[^']*' \((.*)\)")  # the name stands before it already
_NUMBER = re.compile(r"\[Errno -?\d+\] ")
_HINTS = {
    401: "check GATEWAY_INFLUX__TOKEN",
    403: "the token may not write there; check GATEWAY_INFLUX__TOKEN and GATEWAY_INFLUX__BUCKET",
    404: "check GATEWAY_INFLUX__URL, GATEWAY_INFLUX__ORG and GATEWAY_INFLUX__BUCKET",
}


class InfluxSink:
    """See the module's text.  ``timeout_s`` bounds a request; ``integer`` is called from the worker thread."""

    refuses = True
    keeps_states = False

    def __init__(
        self,
        *,
        url: str,
        token: str,
        org: str,
        bucket: str,
        measurement: str = "telemetry",
        gzip: bool = False,
        timeout_s: float = 10.0,
        integer: Integer = never,
        name: str = "influx",
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.name = name
        self.lost: Callable[[], None] | None = None
        self._url, self._token, self._org, self._bucket = url, token, org, bucket
        self._where = _place(url)
        self._gzip = gzip
        self._timeout_s = timeout_s
        self._clock = clock
        self._layout = Influx(measurement, integer)
        self._client: Any = None  # influxdb-client is typed in parts only
        self._api: Any = None
        self._hanging: asyncio.Future[int] | None = None
        self._requests = self._bytes = 0

    async def open(self) -> None:
        """Make the client; nothing is sent yet."""
        if self._client is not None:
            return
        self._client = InfluxDBClient(
            self._url,
            token=self._token,
            org=self._org,
            timeout=int(self._timeout_s * 1000),
            enable_gzip=self._gzip,
            retries=False,
        )
        self._api = self._client.write_api(write_options=SYNCHRONOUS)

    async def ready(self) -> bool:
        """Always: each request stands for itself."""
        return False

    async def write(self, batch: Batch) -> int:
        """One request with all lines of the batch; see the module's text for what is raised when."""
        if not batch.readings:
            return batch.end
        if self._hanging is not None:
            if not self._hanging.done():
                raise Unavailable("the request before has not come back yet")
            self._hanging = None
        request = start(lambda: self._post(batch), f"sink-{self.name}")
        try:
            async with asyncio.timeout(self._timeout_s + GRACE_S):
                self._bytes += await asyncio.shield(request)
        except TimeoutError:
            self._hanging = request
            raise Unavailable(f"{self._where}: no answer within {self._timeout_s:g} s") from None
        except ApiException as error:
            raise self._meaning(error) from error
        except SilenceError:
            raise Unavailable(f"{self._where}: no answer within {self._timeout_s:g} s") from None
        except (HTTPError, OSError, ValueError) as error:
            raise Unavailable(f"{self._where}: {_words(error)}") from error
        finally:
            self._requests += 1
            if not request.done():
                self._hanging = request
        return batch.end

    async def state(self, changes: Mapping[Key, bytes | None]) -> None:
        """Never called."""

    async def tell(self, events: Sequence[tuple[Key, bytes]]) -> None:
        """Never called."""

    async def close(self) -> None:
        """Let go of the connection; a request that hangs ends by its own time-out, or with the process."""
        client, self._client, self._api = self._client, None, None
        if client is not None:
            client.close()

    def stats(self) -> dict[str, float]:
        """``requests`` tried, ``bytes`` of lines taken."""
        return {"requests": self._requests, "bytes": self._bytes}

    # -- in the worker thread --

    def _post(self, batch: Batch) -> int:
        body = "\n".join(self._layout.lines(batch.items)).encode()
        if body and self._api is not None:
            self._api.write(self._bucket, self._org, body, write_precision="ns")
        return len(body)

    # -- on the loop --

    def _meaning(self, error: ApiException) -> Exception:
        status = error.status or 0
        if not status:
            return Unavailable(f"{self._where}: {_words(error)}")
        text = f"HTTP {status}: {_body_text(error, self._token)}"
        if status in (400, 413, 422):
            return Refused(text)
        if status == 429 or status >= 500 or status == 408:
            headers: Any = error.headers or {}
            return Unavailable(text, retry_after_s=self._retry_after(headers.get("Retry-After")), reached=True)
        if 300 <= status < 500:
            return Stopped(text, hint=_HINTS.get(status, "check GATEWAY_INFLUX__URL"))
        return Unavailable(text, reached=True)

    def _retry_after(self, value: str | None) -> float | None:
        # RFC 9110, 10.2.3: seconds, or a date.
        if not value:
            return None
        if value.strip().isdigit():
            return float(value)
        try:
            return max(0.0, email.utils.parsedate_to_datetime(value).timestamp() - self._clock())
        except (TypeError, ValueError):
            return None


def _place(url: str) -> str:
    # As the MQTT sink names it; without a user's name and password, should somebody have written them there.
    netloc = urlsplit(url).netloc.rpartition("@")[2]
    return netloc or url


def _words(error: Exception) -> str:
    # urllib3 wraps the reason, and names its objects with their addresses.
    text = str(getattr(error, "reason", None) or error).strip() or type(error).__name__
    return " ".join(_NUMBER.sub("", _RESOLVE.sub(r"\1", _OBJECT.sub("", text))).split())[:300]


def _body_text(error: ApiException, secret: str) -> str:
    # {"code":"invalid","message":".."} of InfluxDB 2, {"error":".."} of InfluxDB 1 and 3, or text.  What stands between
    # may answer with what it was sent.
    body = error.body or error.reason or ""
    try:
        found = json.loads(body)
        body = str(found.get("message") or found.get("error") or body)
    except (ValueError, AttributeError, TypeError):
        pass
    text = str(body).replace(secret, "***") if len(secret) >= LEAST_SECRET else str(body)
    return " ".join(text.split())[:300]
