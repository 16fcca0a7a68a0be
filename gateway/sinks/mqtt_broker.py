"""A broker as one client of ours knows it: where it is, who we are there, and the connection, if there is one."""

from __future__ import annotations

import ssl
import time
from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import unquote, urlsplit

from gateway.sinks.base import Unavailable
from gateway.sinks.lookup import Lookup
from gateway.sinks.mqtt_link import Link, connect

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from gateway.sinks.mqtt_link import MakeWill

__all__ = ["HISTORICAL_S", "Address", "Broker", "parse_url"]

# Well beyond what a commit, a batch's delay and a broker that takes its time add up to; and short enough that after
# any outage that a person notices the backlog is marked.
HISTORICAL_S = 10

# Two clients with one id push each other out, and not every broker says so (mosquitto 2.0 just closes): so many
# connections in a row that lasted less than SHORT_S make us wait.
SHORT_LIVES = 3
SHORT_S = 5.0
SHORT_WAIT_S = 30.0


class Address(NamedTuple):
    """Where a broker is, and who we are there."""

    host: str
    port: int
    tls: bool
    username: str
    password: str


def parse_url(url: str) -> Address:
    """The parts of ``mqtt[s]://[user[:password]@]host[:port]``.

    Raises ``ValueError`` in words, without the password.
    """
    parts = urlsplit(url)
    if parts.scheme not in ("mqtt", "mqtts"):
        raise ValueError("must begin with mqtt:// or mqtts://")
    try:
        port = parts.port
    except ValueError:
        raise ValueError("the port must be a number from 1 to 65535") from None
    if not parts.hostname:
        raise ValueError("names no host")
    if port == 0:
        raise ValueError("the port must be a number from 1 to 65535")
    if parts.path not in ("", "/") or parts.query or parts.fragment:
        raise ValueError("must end after host and port")
    tls = parts.scheme == "mqtts"
    return Address(
        parts.hostname,
        port or (8883 if tls else 1883),
        tls,
        unquote(parts.username or ""),
        unquote(parts.password or ""),
    )


class Broker:
    """``link`` is the connection, closed or not, or None.

    ``client_id`` has to be ours alone on the broker.  ``username`` and ``password`` go before those in ``url``.  ``ca``
    is a file of certificates trusted in place of the system's.  ``window`` bounds the publishes under way, together
    with the broker's Receive Maximum.  Raises ``ValueError`` for a URL that is none, ``OSError`` for a ``ca`` that
    cannot be read.
    """

    def __init__(
        self,
        *,
        url: str,
        client_id: str,
        username: str = "",
        password: str = "",
        ca: Path | None = None,
        window: int = 100,
        keepalive_s: int = 15,
        ack_s: float = 60.0,
        connect_s: float = 10.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.link: Link | None = None
        self._address = address = parse_url(url)
        self._username = username or address.username
        self._password = password or address.password
        self._tls = ssl.create_default_context(cafile=ca) if address.tls else None
        self._client_id = client_id
        self._window = window
        self._keepalive_s, self._ack_s, self._connect_s = keepalive_s, ack_s, connect_s
        self._clock = clock
        self.lookup = Lookup(address.host, address.port)
        self._connects = self._publishes = self._short_lives = 0

    def open_link(self) -> Link:
        """The connection; raises ``Unavailable`` where there is none."""
        if self.link is None:
            raise Unavailable("not connected")
        return self.link

    async def renew(self, will: MakeWill | None, lost: Callable[[], None] | None) -> Link | None:
        """Connect where we are not connected: the new connection, whose end calls ``lost``; None where one lasts.

        What ended the connection before is raised first, if nobody was told: its reason may ask for patience.
        """
        if self.link is not None:
            if self.link.closed is None:
                return None
            error, told = self.link.closed, self.link.told
            self._short_lives = self._short_lives + 1 if self.link.lasted < SHORT_S else 0
            self.forget()
            if self._short_lives >= SHORT_LIVES and isinstance(error, Unavailable):
                hint = f"does another client use the id {self._client_id}? Each gateway needs its own GATEWAY_ID"
                raise Unavailable(f"{error}, again and again", retry_after_s=SHORT_WAIT_S, hint=hint)
            if not told:
                raise error
        link = await connect(
            self._address.host,
            self._address.port,
            self.lookup,
            client_id=self._client_id,
            username=self._username,
            password=self._password,
            tls=self._tls,
            keepalive_s=self._keepalive_s,
            ack_s=self._ack_s,
            window=self._window,
            will=will,
            timeout_s=self._connect_s,
            clock=self._clock,
        )
        self.link = link
        link.on_closed = lost
        self._connects += 1
        return link

    def forget(self) -> None:
        """The connection is done with."""
        if self.link is not None:
            self._publishes += self.link.publishes
            self.link.on_closed = None
            self.link = None

    def stats(self) -> dict[str, float]:
        """``connected`` (0 or 1), ``connects``, ``publishes``."""
        link = self.link
        return {
            "connected": float(link is not None and link.closed is None),
            "connects": self._connects,
            "publishes": self._publishes + (link.publishes if link is not None else 0),
        }
