"""What commands do with tokens, and with devices that knocked: control commands of the running gateway.

The same code serves ``gateway token`` where none runs, on the file in the state directory.  A token is in the answer to
the one request that made it, and nowhere else.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping
from typing import Annotated, Any

import msgspec

from ..auth import NotKept, Record, Tokens
from .control import Command, Params

__all__ = ["TokenDesk"]

log = logging.getLogger(__name__)


class _Create(msgspec.Struct, forbid_unknown_fields=True):
    scopes: tuple[str, ...]
    name: str = ""
    expires_s: Annotated[float, msgspec.Meta(gt=0)] | None = None


class _Id(msgspec.Struct, forbid_unknown_fields=True):
    id: str


class _Admit(msgspec.Struct, forbid_unknown_fields=True):
    device: str
    fingerprint: str = ""


class _Nothing(msgspec.Struct, forbid_unknown_fields=True):
    pass


class TokenDesk:
    """``facts``: what else to say with answers, of where devices connect and whether they are asked for a token."""

    def __init__(self, tokens: Tokens, facts: Callable[[], Mapping[str, Any]] = dict) -> None:
        self._tokens = tokens
        self._facts = facts
        self.commands: dict[str, Command] = {
            "token-create": self.create,
            "token-list": self.list,
            "token-revoke": self.revoke,
            "token-rotate": self.rotate,
            "pending": self.pending,
            "admit": self.admit,
        }

    async def create(self, params: Params) -> object:
        """A new token, told this once; raises :class:`~gateway.errors.AuthError`."""
        asked = msgspec.convert(params, _Create)
        record, token = await asyncio.to_thread(
            self._tokens.create, asked.scopes, name=asked.name, expires_s=asked.expires_s
        )
        _log("made", record)
        return self._answer(record, token)

    async def list(self, params: Params) -> object:
        """All tokens' records, the oldest first."""
        msgspec.convert(params, _Nothing)
        return {"tokens": [record.shown() for record in self._tokens.list()], **self._facts()}

    async def revoke(self, params: Params) -> object:
        """End a token; its record.  Raises :class:`NotKept` where it has ended, until a restart alone."""
        asked = msgspec.convert(params, _Id)
        try:
            record = await asyncio.to_thread(self._tokens.revoke, asked.id)
        except NotKept as error:
            log.error("%s", error, extra={"event": "access_changed", "token": error.id, "reason": error.reason})
            raise
        _log("revoked", record)
        return record.shown()

    async def rotate(self, params: Params) -> object:
        """Another token in its place, told this once."""
        asked = msgspec.convert(params, _Id)
        record, token = await asyncio.to_thread(self._tokens.rotate, asked.id)
        _log("replaced by another", record)
        return self._answer(record, token)

    async def pending(self, params: Params) -> object:
        """Unknown devices that knocked, the last one first."""
        msgspec.convert(params, _Nothing)
        return {"knocks": [knock.shown() for knock in self._tokens.pending.list()], **self._facts()}

    async def admit(self, params: Params) -> object:
        """Let one of them in; ``token`` is empty where it goes on with the secret that it presented.

        ``others`` are the ids of further tokens that are good for that very device.
        """
        asked = msgspec.convert(params, _Admit)
        record, token = await asyncio.to_thread(self._tokens.admit, asked.device, asked.fingerprint)
        _log("made: its device was let in", record)
        scope = f"device:{asked.device}"
        others = [other.id for other in self._tokens.list() if scope in other.scopes and other.id != record.id]
        return {**self._answer(record, token), "others": others}

    def _answer(self, record: Record, token: str) -> dict[str, object]:
        return {**record.shown(), "token": token, **self._facts()}


def _log(what: str, record: Record) -> None:
    scopes = " ".join(record.scopes)
    log.info(
        "token %s (%s; %s) was %s",
        *(record.id, record.name or "no name", scopes, what),
        extra={"event": "access_changed", "reason": what, "token": record.id},
    )
