"""Scopes: what a token is good for.

::

    device:<glob>           may connect as a device whose name matches, and speak for it
    live:read[:<glob>]      may read states and readings, of all devices or of those that match
    live:command[:<glob>]   may send commands, to all devices or to those that match
    metrics                 may read /metrics

A glob has ``*`` and ``?`` (:mod:`gateway.globs`) and else only what a device's name may hold.  Pure.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Iterable
from functools import lru_cache

import msgspec

from ..errors import AuthError
from ..globs import any_of
from ..reading import is_device

__all__ = ["ALL_SCOPES", "ANYBODY", "MAX_SCOPES", "Grant", "certificate_grant", "check_scopes"]

MAX_SCOPES = 64  # of one token; one more is refused
ALL_SCOPES = ("device:*", "live:read", "live:command", "metrics")
ACCEPTED = "scopes are device:GLOB, live:read, live:read:GLOB, live:command, live:command:GLOB and metrics"

_glob = re.compile(r"[A-Za-z0-9*?][A-Za-z0-9_.:*?-]{0,63}", re.ASCII).fullmatch
_WITH_GLOB = ("live:command", "live:read", "device")
CERTIFICATE = "cert:"


class Grant(msgspec.Struct, frozen=True):
    """Who somebody is: ``id`` a token's, or ``cert:`` and a certificate's CN; ``expires`` in milliseconds.

    ``session``: the name of the browser's session that it comes from, if it does.
    """

    id: str
    scopes: tuple[str, ...]
    expires: int | None = None
    session: str = ""

    def may_device(self, name: str) -> bool:
        """Whether it may be, or speak for, the device of that name."""
        return _matcher(self.scopes, "device")(name)

    def may_read(self, device: str) -> bool:
        """Whether it may read that device."""
        return _matcher(self.scopes, "live:read")(device)

    def may_command(self, device: str) -> bool:
        """Whether it may send commands to that device."""
        return _matcher(self.scopes, "live:command")(device)

    @property
    def devices(self) -> tuple[str, ...]:
        """Globs of the devices that it may be; ``()``: none, ``("*",)``: all."""
        return _globs(self.scopes, "device")

    @property
    def reads(self) -> tuple[str, ...]:
        """Globs of the devices that it may read; ``()``: none, ``("*",)``: all."""
        return _globs(self.scopes, "live:read")

    @property
    def commands(self) -> tuple[str, ...]:
        """Globs of the devices that it may send commands to; ``()``: none, ``("*",)``: all."""
        return _globs(self.scopes, "live:command")

    @property
    def may_metrics(self) -> bool:
        """Whether it may read ``/metrics``."""
        return "metrics" in self.scopes


ANYBODY = Grant("anybody", ALL_SCOPES)
"""Where nobody is asked who they are (mode ``none``)."""


def certificate_grant(common_name: str, expires: int | None = None) -> Grant | None:
    """What a client certificate that was verified is good for; ``None`` where its CN is no device's name.

    ``expires``: when it does, in milliseconds.
    """
    if not is_device(common_name):  # neither * nor ? among it
        return None
    return Grant(CERTIFICATE + common_name, (f"device:{common_name}",), expires)


def check_scopes(scopes: Iterable[str]) -> tuple[str, ...]:
    """The scopes in their order, each once.  Raises :class:`AuthError` for none, too many, and what is no scope."""
    found = tuple(dict.fromkeys(scopes))
    if not found:
        raise AuthError("a token needs a scope", hint=ACCEPTED)
    if len(found) > MAX_SCOPES:
        raise AuthError(f"{len(found)} scopes are more than the {MAX_SCOPES} that a token may have", hint="use a glob")
    for scope in found:
        _check(scope)
    return found


def _check(scope: str) -> None:
    if scope in ("live:read", "live:command", "metrics"):
        return
    shown = repr(scope[:80])
    for kind in _WITH_GLOB:
        if scope == kind or scope == f"{kind}:":
            raise AuthError(f"{shown} names no device", hint=f"{kind}:pump-1, or with a glob, {kind}:pump-*")
        if scope.startswith(f"{kind}:"):
            if _glob(scope[len(kind) + 1 :]):
                return
            raise AuthError(
                f"{shown}: no device has such a name",
                hint="letters, digits and _ . : - with * for any characters and ? for one, 64 at most",
            )
    near = difflib.get_close_matches(scope[:80], ("live:read", "live:command", "metrics", "device:"), 1)
    raise AuthError(f"there is no scope {shown}" + (f"; {near[0]}?" if near else ""), hint=ACCEPTED)


@lru_cache(4096)
def _globs(scopes: tuple[str, ...], kind: str) -> tuple[str, ...]:
    found = []
    for scope in scopes:
        glob = "*" if scope == kind else scope.removeprefix(f"{kind}:")
        if glob == scope:
            continue
        if not glob.strip("*"):
            return ("*",)
        found.append(glob)
    return tuple(found)


@lru_cache(4096)
def _matcher(scopes: tuple[str, ...], kind: str) -> Callable[[str], bool]:
    return any_of(_globs(scopes, kind))
