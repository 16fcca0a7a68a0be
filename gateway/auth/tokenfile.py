"""The file of tokens, replaced whole, and the key that signs browser sessions.

Layout of version 1 of ``tokens.json``::

    {"version": 1, "crc32": "<8 hex digits>", "tokens": {"tokens": [record, ..], "gone": ["<sha256>", ..],
        "ended": {"sessions": ["<name>", ..], "before": {"<id>": <seconds>, ..}}}}

``crc32`` is that of the bytes of the value of ``tokens`` as they stand there.  No token can be had from it: a record
holds its SHA-256.  ``gone``: the hashes of the newest :data:`MAX_GONE` that were revoked or rotated, so that what was
taken from somebody is never let in again.  ``ended``: sessions that ended before their time (:mod:`.sessions`); files
of before have none.  A later version keeps ``version``.

Both files are of their owner alone (mode 0600); written by root they are the state directory's owner's.  Unlike what
can be made anew from the journal, a damaged file of tokens is never put aside: without it everybody would be locked
out, or, worse, what was revoked forgotten.  It is left as it is, and the start refused.
"""

from __future__ import annotations

import contextlib
import logging
import os
import secrets
import stat
import zlib
from pathlib import Path

import msgspec

from ..aside import remove, sync_directory
from ..errors import AuthError
from .sessions import Ended

__all__ = ["MAX_GONE", "Content", "Record", "TokenFile", "read_key"]

VERSION = 1
MAX_GONE = 1_000  # at the bound the oldest are forgotten
KEY_BYTES = 32

log = logging.getLogger(__name__)


class Record(msgspec.Struct, frozen=True):
    """What is kept of a token; times in milliseconds, ``expires`` and ``last_used`` ``None`` for never.

    ``own``: a device's own secret that was let in, not one of the gateway's making.
    """

    id: str
    name: str
    scopes: tuple[str, ...]
    created: int
    expires: int | None
    sha256: str
    last_used: int | None = None
    own: bool = False

    def __repr__(self) -> str:
        return f"Record({self.id!r}, {self.name!r}, {self.scopes!r})"

    def shown(self) -> dict[str, object]:
        """For people and for JSON: all but the hash."""
        return {
            "id": self.id,
            "name": self.name,
            "scopes": self.scopes,
            "created": self.created,
            "expires": self.expires,
            "last_used": self.last_used,
        }


class Content(msgspec.Struct, frozen=True):
    """All that the file holds."""

    tokens: list[Record] = []
    gone: list[str] = []
    ended: Ended = Ended()


class _Version(msgspec.Struct):
    version: int


class _File(msgspec.Struct):
    version: int
    crc32: str
    tokens: msgspec.Raw


_encode = msgspec.json.Encoder().encode
_Stamp = tuple[int, int, int]


class TokenFile:
    """The file at ``path``; one process at a time writes it, which holds the state directory's lock."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._stamp: _Stamp | None = None

    def read(self) -> Content:
        """What it holds; nothing where there is no file.  Raises :class:`AuthError` where it cannot be used."""
        try:
            fd = os.open(self.path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        except FileNotFoundError:
            self._stamp = None
            return Content()
        except OSError as error:
            raise self._unusable(error) from None
        with open(fd, "rb") as file:
            try:
                data = file.read()
                status = os.fstat(fd)
            except OSError as error:
                raise self._unusable(error) from None
            self._keep_private(fd, status)
        content = self._decode(data)
        self._stamp = _stamp_of(status)
        return content

    def changed(self) -> bool:
        """Whether somebody else has replaced, edited or removed it since it was read or written."""
        try:
            return _stamp_of(self.path.lstat()) != self._stamp
        except OSError:
            return self._stamp is not None

    def write(self, content: Content) -> None:
        """Replace it, so that after a crash it is the old or the new one, whole.

        Raises ``OSError``, and :class:`AuthError` where another hand changed it, which is not overwritten.
        """
        if self.changed():
            raise AuthError(
                f"{self.path} was changed by somebody else than the gateway that uses it",
                hint="reload the gateway (SIGHUP), which reads it, or put the old one back",
            )
        tokens = _encode(content)
        data = _encode({"version": VERSION, "crc32": _crc(tokens), "tokens": msgspec.Raw(tokens)})
        self._stamp = replace_private(self.path, data + b"\n")
        sync_directory(self.path.parent)

    def _decode(self, data: bytes) -> Content:
        try:
            version = msgspec.json.decode(data, type=_Version).version
            if version > VERSION:
                raise AuthError(
                    f"{self.path} is of version {version}, this program reads {VERSION}",
                    hint="start the version of the gateway that wrote it",
                )
            file = msgspec.json.decode(data, type=_File)
            if version != VERSION or _crc(bytes(file.tokens)) != file.crc32:
                raise self._damaged("its checksum does not match")
            return msgspec.json.decode(file.tokens, type=Content)
        except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
            words = str(error) if isinstance(error, msgspec.ValidationError) else "it is no JSON"
            raise self._damaged(words) from None

    def _damaged(self, words: str) -> AuthError:
        return AuthError(
            f"{self.path} is damaged: {words}",
            hint="put back a copy of it; without one move it away and make every token anew (`gateway token create`)",
        )

    def _unusable(self, error: OSError) -> AuthError:
        return AuthError(
            f"{self.path} cannot be read: {error.strerror}",
            hint=f"it has to be a file of the user that the gateway runs as (chown --reference {self.path.parent})",
        )

    def _keep_private(self, fd: int, status: os.stat_result) -> None:
        if stat.S_IMODE(status.st_mode) & 0o077:
            log.warning("%s could be read by others: its mode is 0600 now", self.path)
            with contextlib.suppress(OSError):
                os.fchmod(fd, 0o600)


def read_key(path: Path, *, make: bool) -> bytes | None:
    """The key that signs sessions; made where there is none, or a damaged one, and ``make`` is set.

    A new key ends every session.  Raises ``OSError``.
    """
    with contextlib.suppress(FileNotFoundError):
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        with open(fd, "rb") as file:
            key = file.read(KEY_BYTES + 1)
        if len(key) == KEY_BYTES:
            return key
        extra = {"event": "file_aside", "path": path}
        log.warning("%s is damaged: made anew, everybody at a browser logs in again", path, extra=extra)
    if not make:
        return None
    key = secrets.token_bytes(KEY_BYTES)
    replace_private(path, key)
    sync_directory(path.parent)
    return key


def replace_private(path: Path, data: bytes) -> _Stamp:
    """Put a file of the directory's owner alone in the place of another.  Raises ``OSError``."""
    temporary = path.with_name(path.name + ".tmp")
    remove(temporary)
    # Made anew, never followed: whoever owns the directory cannot have root write elsewhere.
    fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    with open(fd, "wb") as file:
        owner = path.parent.stat()
        if os.geteuid() == 0 and (owner.st_uid, owner.st_gid) != (0, 0):
            os.fchown(fd, owner.st_uid, owner.st_gid)
        file.write(data)
        file.flush()
        os.fsync(fd)
        status = os.fstat(fd)
    os.replace(temporary, path)
    return _stamp_of(status)


def _stamp_of(status: os.stat_result) -> _Stamp:
    return status.st_ino, status.st_mtime_ns, status.st_size


def _crc(data: bytes) -> str:
    return f"{zlib.crc32(data):08x}"
