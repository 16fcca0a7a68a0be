"""Devices that knocked: they named themselves and were not let in.

In memory only, and never a secret: of what a device presented its SHA-256 is kept, with which it can be let in by its
name (it becomes that device's token), and whose first digits tell two strangers of one name apart.

Bounds: :data:`MAX_KNOCKS` in all and :data:`MAX_PER_ADDRESS` of one address, at either the one longest silent goes.
"""

from __future__ import annotations

import hashlib
import re
import threading
import time
from collections.abc import Callable

import msgspec

from ..errors import AuthError
from ..reading import is_device

__all__ = ["MAX_KNOCKS", "Knock", "Knocks"]

MAX_KNOCKS = 100
MAX_PER_ADDRESS = 20
LEAST_SECRET = 20  # characters of a secret of a device's own that can become its token
LEAST_DIFFERENT = 8  # of them
FINGERPRINT = 12  # hex digits
NONE = "none"  # names, where one has to be chosen, the knock that presented no secret

_own_secret = re.compile(rf"[!-~]{{{LEAST_SECRET},256}}", re.ASCII).fullmatch


class Knock(msgspec.Struct, frozen=True):
    """``fingerprint`` is empty where it presented nothing that could become its token; times in milliseconds."""

    device: str
    fingerprint: str
    first: int
    last: int
    count: int
    address: str
    sha256: str = ""

    def __repr__(self) -> str:
        return f"Knock({self.device!r}, {self.fingerprint!r}, count={self.count}, address={self.address!r})"

    def shown(self) -> dict[str, object]:
        """For people and for JSON."""
        return {
            "device": self.device,
            "fingerprint": self.fingerprint,
            "first": self.first,
            "last": self.last,
            "count": self.count,
            "address": self.address,
        }


class Knocks:
    """``known`` says of a secret's SHA-256 whether it is, or was, another token's: such a one is never taken."""

    def __init__(self, now: Callable[[], float] = time.time, known: Callable[[str], bool] = lambda _: False) -> None:
        self._now = now
        self._known = known
        self._lock = threading.Lock()  # knocks come on the loop, letting in writes a file in a thread
        self._knocks: dict[tuple[str, str], Knock] = {}  # the one longest silent first

    def __len__(self) -> int:
        return len(self._knocks)

    def knock(self, device: str, secret: str, address: str) -> None:
        """A stranger who calls itself ``device`` presented ``secret`` (may be empty) and was refused."""
        if not is_device(device):
            return
        sha256 = ""
        if _own_secret(secret) and len(set(secret)) >= LEAST_DIFFERENT:
            sha256 = hashlib.sha256(secret.encode()).hexdigest()
            if self._known(sha256):
                sha256 = ""
        fingerprint = sha256[:FINGERPRINT]
        now = int(self._now() * 1000)
        with self._lock:
            before = self._knocks.pop((device, fingerprint), None)
            if before is None:
                self._make_room(address)
            first, count = (before.first, before.count) if before is not None else (now, 0)
            self._knocks[device, fingerprint] = Knock(device, fingerprint, first, now, count + 1, address, sha256)

    def _make_room(self, address: str) -> None:
        of_address = [key for key, knock in self._knocks.items() if knock.address == address]
        if len(of_address) >= MAX_PER_ADDRESS:
            del self._knocks[of_address[0]]
        elif len(self._knocks) >= MAX_KNOCKS:
            del self._knocks[next(iter(self._knocks))]

    def list(self) -> list[Knock]:
        """Those that knocked, the last one first."""
        with self._lock:
            return [*reversed(self._knocks.values())]

    def choose(self, device: str, fingerprint: str = "") -> Knock:
        """The knock of that name, and, where there are several, of the fingerprint that so begins.

        Raises :class:`AuthError` where there is none, or not one alone.
        """
        found = [knock for knock in self.list() if knock.device == device]
        if not found:
            raise AuthError(
                f"no unknown device called {device[:64]!r} has knocked",
                hint="`gateway devices --pending` lists those that have; `gateway token create NAME` makes a token",
            )
        if fingerprint:
            found = [knock for knock in found if (knock.fingerprint or NONE).startswith(fingerprint.lower())]
        if len(found) == 1:
            return found[0]
        if not found:
            raise AuthError(
                f"{device!r} has not knocked with that fingerprint", hint="`gateway devices --pending` lists them"
            )
        which = ", ".join(f"{knock.fingerprint or NONE} from {knock.address}" for knock in found)
        raise AuthError(
            f"{len(found)} that call themselves {device!r} have knocked: {which}",
            hint="see which of them is yours, and name it with --fingerprint",
        )

    def forget(self, device: str) -> None:
        """It was let in."""
        with self._lock:
            for key in [key for key in self._knocks if key[0] == device]:
                del self._knocks[key]
