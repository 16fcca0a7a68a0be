"""Tokens: made, revoked, rotated, verified; and the browser sessions that are traded for them.

A token is ``<id>.<43 characters of base64url>``: 12 hex digits that name it, and 256 random bits that nobody can guess,
so that a plain SHA-256 of it gives nothing away.  A session is ``<id>.<issued>-<digits>.<signature>``, the signature an
HMAC-SHA256 over what stands before it and the token's hash: it ends with its token, when it is ended, and after
:data:`SESSION_S` at the latest.

What is verified is answered from memory; what changes is on disk, synced, before it is in force.  What ends is in force
at once, also where the disk takes nothing: then it is tried again until it is there.  Verifying belongs to
the loop; the methods that write may be called from any thread, one at a time goes on, and ``call`` carries their news
to where :attr:`Tokens.on_change` are to be called.  When a token was last used is written at most once a minute, and
then only where it was not used within the hour before: a scraper must not wear a flash card out.
"""

from __future__ import annotations

import hashlib
import hmac
import logging
import secrets
import threading
import time
from collections.abc import Callable, Iterable
from pathlib import Path

import msgspec

from ..errors import AuthError
from ..reserve import Reserve
from .knocks import Knocks
from .scopes import ANYBODY, CERTIFICATE, Grant, check_scopes
from .sessions import SESSION_S, Ended, issued_at
from .tokenfile import MAX_GONE, Content, Record, TokenFile, read_key

__all__ = ["MAX_TOKENS", "SESSION_S", "NotKept", "Record", "Tokens"]

MAX_TOKENS = 10_000  # one more is refused
MAX_NAME = 128
MAX_TOKEN_CHARACTERS = 512  # what is longer is no token
MAX_EXPIRES_S = 100 * 366 * 86_400
AHEAD_S = 300  # by how much a session may be of later, after the clock was set back
SAVE_S = 60.0
USE_KEPT_MS = 3_600_000

log = logging.getLogger(__name__)


class NotKept(AuthError):
    """A token has ended here, and the file does not say so: not for whoever reads that.  ``reason`` says why."""

    def __init__(self, id: str, reason: str) -> None:
        super().__init__(
            f"token {id} is revoked, until a restart: its file could not be written ({reason})",
            hint="make room on the disk: the gateway tries again once a minute, and when it stops",
        )
        self.id = id
        self.reason = reason


class _State(msgspec.Struct, frozen=True):
    """Replaced whole, so that the loop never sees half of a change."""

    records: dict[str, Record]
    own: dict[str, Record]  # by hash: devices' own secrets have no id in them
    gone: tuple[str, ...] = ()
    hashes: frozenset[str] = frozenset()  # of all these
    ended: Ended = Ended()


class Tokens:
    """The tokens in the file ``path``; ``now`` gives seconds.  ``load()`` comes first.

    ``pending``: unknown devices that knocked.  ``on_change``: called after every change; ``call`` is handed each of
    these calls (the daemon gives the loop's ``call_soon_threadsafe``).  ``reserve``: room that may be taken on a full
    disk for what ends a token.
    """

    def __init__(
        self,
        path: Path,
        now: Callable[[], float] = time.time,
        *,
        call: Callable[[Callable[[], None]], object] | None = None,
        reserve: Reserve | None = None,
    ) -> None:
        self._file = TokenFile(path)
        self._key_path = path.with_name("session-key")
        self._now = now
        self._call = call or (lambda function: function())
        self._lock = threading.RLock()
        self._state = _State({}, {})
        self._used: dict[str, int] = {}  # what is not written yet; at most as many as there are tokens
        self._saved = now()
        self._reserve = reserve
        self._behind = False  # the file lacks something that has ended
        self._owed: dict[str, Record] = {}  # were revoked and still stand in the file: no more than that has
        self._key: bytes | None = None
        self.on_change: list[Callable[[], None]] = []
        self.pending = Knocks(now, self._known)

    def __len__(self) -> int:
        return len(self._state.records)

    @property
    def owing(self) -> int:
        """How many tokens were revoked that would be good again after a restart, since the disk took nothing."""
        return len(self._owed)

    def __repr__(self) -> str:
        return f"Tokens({str(self._file.path)!r}, {len(self)} tokens)"

    # -- the file ----------------------------------------------------------------------------------------------------

    def load(self, *, sessions: bool = False) -> None:
        """Read the file, and the key that signs sessions, which with ``sessions`` is made where there is none.

        Raises :class:`AuthError` where the file is damaged, of a later version, or cannot be read; after a first
        ``load`` what was in force stays so.
        """
        with self._lock:
            content = self._file.read()
            self._key = self._read_key(make=sessions)
            hashes = {record.sha256 for record in self._owed.values()}
            records = [record for record in content.tokens if record.sha256 not in hashes]
            self._state = _state(records, [*content.gone, *hashes], content.ended.joined(self._state.ended))
            self._changed()

    def reload(self) -> bool:
        """:meth:`load` where somebody else has changed the file since; whether that was so."""
        with self._lock:  # what is being written by us was not changed by somebody else
            if not self._file.changed():
                return False
            self.load()
            return True

    def save_if_due(self) -> None:
        """Write when tokens were last used, where it is time to, and what has ended and is not written yet.

        Blocks for a sync; what fails is logged."""
        now = self._now()
        if 0 <= now - self._saved < SAVE_S:
            return
        self._saved = now
        records, used = self._state.records, dict(self._used)
        if self._behind or any(
            ms - (records[id].last_used or 0) >= USE_KEPT_MS for id, ms in used.items() if id in records
        ):
            self._save()

    def close(self) -> None:
        """Write when tokens were last used."""
        if self._used or self._behind:
            self._save()

    def _save(self) -> None:
        try:
            with self._lock:
                self._put(self._state.records.values(), self._state.gone, take_room=bool(self._owed))
        except (OSError, AuthError) as error:
            what = "what has ended" if self._behind else "when tokens were last used"
            log.warning("%s cannot be saved, and is tried again: %s", what, error, extra={"event": "access_changed"})

    def _put(self, records: Iterable[Record], gone: Iterable[str], *, take_room: bool = False) -> None:
        """Write, then put in force; under the lock.  Raises ``OSError`` and :class:`AuthError`.

        ``take_room``: on a full disk that which was set aside.
        """
        used = dict(self._used)
        written = [_with_use(record, used.get(record.id)) for record in records]
        kept = [*gone][-MAX_GONE:]
        ended = self._state.ended
        content = Content(written, kept, ended)
        try:
            self._file.write(content)
        except OSError:
            if not take_room or self._reserve is None or not self._reserve.release():
                raise
            self._file.write(content)
            self._reserve.make()
        self._behind = False
        self._owed.clear()
        self._state = _state(written, kept, ended)
        of = self._state.records
        for id, ms in used.items():
            # What was used meanwhile waits for the next time; of what has ended nothing is kept.
            if id not in of or self._used.get(id) == ms:
                self._used.pop(id, None)

    def _changed(self) -> None:
        for function in self.on_change:
            self._call(function)

    # -- what operators do -------------------------------------------------------------------------------------------

    def list(self) -> list[Record]:
        """All of them, the oldest first."""
        used = self._used
        return [_with_use(record, used.get(record.id)) for record in self._state.records.values()]

    def create(self, scopes: Iterable[str], *, name: str = "", expires_s: float | None = None) -> tuple[Record, str]:
        """A new token, and itself, which nobody can be told again.

        Raises :class:`AuthError` for scopes, names or times that are none, and at :data:`MAX_TOKENS`; ``OSError``.
        """
        granted = check_scopes(scopes)
        _check_name(name)
        with self._lock:
            return self._add(granted, name, self._expiry(expires_s))

    def revoke(self, id: str) -> Record:
        """End it, and every connection and session that it let in: at once, whatever the disk does.

        Raises :class:`AuthError`, and :class:`NotKept` where it has ended and the file could not be written: once more
        then tries that again.
        """
        with self._lock:
            state = self._state
            others = list(state.records.values())
            record = self._owed.get(id)
            if record is None:
                record = self._find(id)
                others.remove(record)
                self._state = _state(others, (*state.gone, record.sha256), state.ended)
                self._owed[id] = record
                self._behind = True
                self._changed()
            try:
                self._put(others, self._state.gone, take_room=True)
            except (OSError, AuthError) as error:
                raise NotKept(record.id, getattr(error, "strerror", None) or str(error)) from error
            return record

    def rotate(self, id: str, *, expires_s: float | None = None) -> tuple[Record, str]:
        """Another token, of another id, in the place of this one, which ends at once; as long-lived as it was.

        Raises :class:`AuthError`, ``OSError``.
        """
        with self._lock:
            record = self._find(id)
            if expires_s is None and record.expires is not None:
                expires_s = max(1.0, (record.expires - record.created) / 1000)
            return self._add(record.scopes, record.name, self._expiry(expires_s), instead=record)

    def admit(self, device: str, fingerprint: str = "") -> tuple[Record, str]:
        """Let in a device that knocked, as itself alone.

        A secret of its own that it presented becomes its token, and the string is empty; else it is a new token, for
        the device to be given.  Raises :class:`AuthError` where no such device knocked, or several; ``OSError``.
        """
        knock = self.pending.choose(device, fingerprint)
        scopes = (f"device:{device}",)
        with self._lock:
            if knock.sha256 and not self._known(knock.sha256):
                record = self._made(scopes, device, None, sha256=knock.sha256)
                self._put([*self._state.records.values(), record], self._state.gone)
                self._changed()
                token = ""
            else:
                record, token = self._add(scopes, device, None)
        self.pending.forget(device)
        return record, token

    def _add(
        self, scopes: tuple[str, ...], name: str, expires: int | None, *, instead: Record | None = None
    ) -> tuple[Record, str]:
        record = self._made(scopes, name, expires, instead=instead)
        token = f"{record.id}.{secrets.token_urlsafe(32)}"
        record = msgspec.structs.replace(record, sha256=_hash(token))
        others = [other for other in self._state.records.values() if other is not instead]
        gone = (*self._state.gone, *([instead.sha256] if instead else ()))
        self._put([*others, record], gone, take_room=instead is not None)
        self._changed()
        return record, token

    def _made(
        self,
        scopes: tuple[str, ...],
        name: str,
        expires: int | None,
        *,
        sha256: str = "",
        instead: Record | None = None,
    ) -> Record:
        records = self._state.records
        if len(records) >= MAX_TOKENS and instead is None:
            raise AuthError(
                f"there are {len(records):,} tokens, and no more than {MAX_TOKENS:,} are kept",
                hint="revoke some (`gateway token list`), or give devices of one kind a token with a glob",
            )
        id = secrets.token_hex(6)
        while id in records:
            id = secrets.token_hex(6)
        return Record(id, name, scopes, int(self._now() * 1000), expires, sha256, own=bool(sha256))

    def _find(self, id: str) -> Record:
        record = self._state.records.get(id)
        if record is None:
            # Who hands over a whole token by mistake is not answered with it: it may stand in a log.
            shown = repr(id.partition(".")[0][:32])
            raise AuthError(f"there is no token {shown}", hint="`gateway token list` shows their ids")
        return record

    def _expiry(self, expires_s: float | None) -> int | None:
        if expires_s is None:
            return None
        if not 1 <= expires_s <= MAX_EXPIRES_S:
            raise AuthError("a token lives for a second at least and a hundred years at most", hint="such as 90d")
        return int((self._now() + expires_s) * 1000)

    def _known(self, sha256: str) -> bool:
        return sha256 in self._state.hashes

    # -- who is it ---------------------------------------------------------------------------------------------------

    def verify(self, token: str) -> Grant | None:
        """Who presents it; ``None`` for one that is none, was revoked or rotated, or has expired."""
        if not token or len(token) > MAX_TOKEN_CHARACTERS or not token.isascii():
            return None
        state = self._state
        digest = _hash(token)
        record = state.records.get(token.partition(".")[0]) or state.own.get(digest)
        if record is None or not hmac.compare_digest(record.sha256, digest):
            return None
        return self._granted(record)

    def alive(self, grant_id: str) -> bool:
        """Whether what that grant was given for still holds: neither revoked, rotated nor expired.

        Certificates always do: they are looked at when they are presented; and so does ``ANYBODY``.
        """
        if grant_id.startswith(CERTIFICATE) or grant_id == ANYBODY.id:
            return True
        record = self._state.records.get(grant_id)
        return record is not None and (record.expires is None or self._now() * 1000 < record.expires)

    def holds(self, grant: Grant) -> bool:
        """As :meth:`alive`, and the session that it comes from has not been ended."""
        return self.alive(grant.id) and not (grant.session and self._state.ended.covers(grant.session))

    def _granted(self, record: Record, until: int | None = None, session: str = "") -> Grant | None:
        """``until``: what else ends it, in milliseconds."""
        now = int(self._now() * 1000)
        ends = [end for end in (record.expires, until) if end is not None]
        expires = min(ends, default=None)
        if expires is not None and now >= expires:
            return None
        self._used[record.id] = now
        return Grant(record.id, record.scopes, expires, session)

    # -- browsers ----------------------------------------------------------------------------------------------------

    def mint_session(self, grant: Grant, now: float | None = None) -> str:
        """A session of whom a token let in, from ``now`` (seconds) on.

        Raises :class:`AuthError` where the grant's token has ended, or was none.
        """
        record = self._state.records.get(grant.id)
        if record is None:
            raise AuthError("there is no such token any more")
        if self._key is None:
            self._key = self._read_key(make=True)
        assert self._key is not None
        session = f"{record.id}.{int(self._now() if now is None else now)}-{secrets.randbelow(10**9):09}"
        return f"{session}.{_signature(self._key, record, session)}"

    def verify_session(self, cookie: str) -> Grant | None:
        """Whose session it is; ``None`` for one that is none, or has ended."""
        if self._key is None or len(cookie) > MAX_TOKEN_CHARACTERS or not cookie.isascii():
            return None
        session, _, signature = cookie.rpartition(".")
        record = self._state.records.get(session.partition(".")[0])
        issued = issued_at(session)
        if record is None or issued < 0:
            return None
        if not hmac.compare_digest(_signature(self._key, record, session), signature):
            return None
        if issued > self._now() + AHEAD_S or self._state.ended.covers(session):
            return None
        return self._granted(record, (issued + SESSION_S) * 1000, session)

    def end_session(self, cookie: str) -> None:
        """End it, and every connection that it let in, nothing else of its token; nothing where it is none.

        Blocks for a sync.  It is in force at once; what cannot be written is logged, and tried again.
        """
        with self._lock:
            grant = self.verify_session(cookie)
            if grant is None:
                return
            state = self._state
            ended = state.ended.plus(grant.session, self._now(), state.records)
            self._state = msgspec.structs.replace(state, ended=ended)
            self._behind = True
            self._changed()
            self._save()

    def _read_key(self, *, make: bool) -> bytes | None:
        try:
            return read_key(self._key_path, make=make)
        except OSError as error:
            raise AuthError(
                f"{self._key_path} cannot be used: {error.strerror}", hint="see that the state directory can be written"
            ) from None


def _state(records: Iterable[Record], gone: Iterable[str], ended: Ended) -> _State:
    by_id = {record.id: record for record in records}
    own = {record.sha256: record for record in by_id.values() if record.own}
    gone = tuple(gone)
    return _State(by_id, own, gone, frozenset([*gone, *(record.sha256 for record in by_id.values())]), ended)


def _with_use(record: Record, used: int | None) -> Record:
    if used is None or used <= (record.last_used or 0):
        return record
    return msgspec.structs.replace(record, last_used=used)


def _check_name(name: str) -> None:
    if len(name) > MAX_NAME or not name.isprintable():
        raise AuthError(f"a token's name has {MAX_NAME} characters at most, all printable")


def _hash(token: str) -> str:
    return hashlib.sha256(token.encode()).hexdigest()


def _signature(key: bytes, record: Record, session: str) -> str:
    return hmac.digest(key, f"{session}.{record.sha256}".encode(), "sha256").hex()
