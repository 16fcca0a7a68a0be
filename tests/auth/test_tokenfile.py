"""The file of tokens: what is in it, what never is, and what becomes of one that cannot be used."""

from __future__ import annotations

import json
import os
import stat
from pathlib import Path

import pytest

from gateway.auth import NotKept
from gateway.auth.tokenfile import MAX_GONE, Content, TokenFile
from gateway.errors import AuthError
from tests.auth.support import tokens_in

FIXTURE = Path(__file__).parent / "fixtures" / "tokens-1.json"
FIXTURE_TOKEN = "0123456789ab.AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"


def test_no_secret_is_in_a_file_or_in_words(tmp_path: Path) -> None:
    """Neither the token nor its random part stands in any file; no hash or token in any ``repr``."""
    own = "the-device's-own+secret-1"
    tokens = tokens_in(tmp_path)
    record, token = tokens.create(["live:read"], name="x")
    tokens.pending.knock("pump-1", own, "10.0.0.7")
    said = [repr(tokens.pending.list()), json.dumps([knock.shown() for knock in tokens.pending.list()])]
    hashes = [record.sha256, tokens.pending.list()[0].sha256]
    tokens.admit("pump-1")
    _, rotated = tokens.rotate(record.id)
    grant = tokens.verify(rotated)
    assert grant is not None
    cookie = tokens.mint_session(grant)
    secrets = [token, token.split(".")[1], rotated, rotated.split(".")[1], own, cookie, cookie.split(".")[2]]
    for path in tmp_path.iterdir():
        data = path.read_bytes()
        assert not [secret for secret in secrets if secret.encode() in data], path
    said += [repr(tokens), repr(tokens.list()), repr(record), repr(grant), str(record)]
    said += [json.dumps([row.shown() for row in tokens.list()])]
    hashes += [row.sha256 for row in tokens.list()]
    for words in said:
        assert not [secret for secret in [*secrets, *hashes] if secret in words]


def test_the_file_is_of_its_owner_alone(tmp_path: Path) -> None:
    """Whatever the umask, also where something else of the temporary name was left; and it is valid JSON."""
    old = os.umask(0)
    try:
        (tmp_path / "tokens.json.tmp").write_text("left")
        os.chmod(tmp_path / "tokens.json.tmp", 0o666)
        tokens_in(tmp_path).create(["metrics"])
    finally:
        os.umask(old)
    assert {path.name: path.stat().st_mode & 0o777 for path in tmp_path.iterdir()} == {
        "tokens.json": 0o600,
        "session-key": 0o600,
    }
    assert json.loads((tmp_path / "tokens.json").read_text())["version"] == 1


@pytest.mark.skipif(os.geteuid() != 0, reason="root alone gives files away")
def test_what_root_writes_is_the_directory_s_owner_s(tmp_path: Path) -> None:
    """So that the gateway, which runs as another user, can read it."""
    os.chown(tmp_path, 12345, 54321)
    tokens_in(tmp_path).create(["metrics"])
    for name in ("tokens.json", "session-key"):
        status = (tmp_path / name).stat()
        assert (status.st_uid, status.st_gid, status.st_mode & 0o777) == (12345, 54321, 0o600)


def test_a_link_is_not_followed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither read nor written through."""
    tokens_in(tmp_path)  # makes the key
    (tmp_path / "elsewhere").write_text("precious")
    (tmp_path / "tokens.json").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(AuthError, match="cannot be read"):
        tokens_in(tmp_path)
    (tmp_path / "tokens.json").unlink()
    (tmp_path / "tokens.json.tmp").symlink_to(tmp_path / "elsewhere")
    with monkeypatch.context() as racing:
        racing.setattr("gateway.auth.tokenfile.remove", lambda path: None)  # it was laid there just now
        with pytest.raises(FileExistsError):
            tokens_in(tmp_path).create(["metrics"])
    tokens_in(tmp_path).create(["metrics"])
    assert (tmp_path / "elsewhere").read_text() == "precious"


def test_a_file_that_others_could_read_is_made_private(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """And the log says that they could."""
    tokens_in(tmp_path).create(["metrics"])
    (tmp_path / "tokens.json").chmod(0o644)
    tokens = tokens_in(tmp_path)
    assert (tmp_path / "tokens.json").stat().st_mode & 0o777 == 0o600
    assert "could be read by others" in caplog.text
    tokens.create(["metrics"])


def test_damage_is_refused_and_kept(tmp_path: Path) -> None:
    """Any byte that is changed, any end that is missing: refused with a hint, and the file stays as it is."""
    tokens = tokens_in(tmp_path)
    tokens.create(["device:pump-*"], name="pumps")
    whole = (tmp_path / "tokens.json").read_bytes().rstrip(b"\n")
    before = tokens.list()
    for at in range(len(whole)):
        for damaged in (whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :], whole[:at]):
            (tmp_path / "tokens.json").write_bytes(damaged)
            with pytest.raises(AuthError) as refused:
                tokens_in(tmp_path)
            assert refused.value.hint
            assert (tmp_path / "tokens.json").read_bytes() == damaged
    with pytest.raises(AuthError):
        tokens.load()
    assert tokens.list() == before
    with pytest.raises(AuthError, match="changed by somebody else"):
        tokens.create(["metrics"])
    assert (tmp_path / "tokens.json").read_bytes() == damaged


@pytest.mark.parametrize("data", [b"", b"{}", b"[]", b"null", b"\xff", b"[" * 100_000, b'{"version":1,"tokens":[]}'])
def test_what_is_no_such_file_is_refused(tmp_path: Path, data: bytes) -> None:
    """Whatever it is."""
    (tmp_path / "tokens.json").write_bytes(data)
    with pytest.raises(AuthError, match="damaged"):
        tokens_in(tmp_path)


def test_a_later_version_is_refused_and_kept(tmp_path: Path) -> None:
    """However it may look."""
    data = b'{"version": 2, "something": "else"}'
    (tmp_path / "tokens.json").write_bytes(data)
    with pytest.raises(AuthError, match="of version 2"):
        tokens_in(tmp_path)
    assert (tmp_path / "tokens.json").read_bytes() == data


def test_version_1_is_read(tmp_path: Path) -> None:
    """A file that the first version wrote."""
    (tmp_path / "tokens.json").write_bytes(FIXTURE.read_bytes())
    (tmp_path / "tokens.json").chmod(0o600)
    grant = tokens_in(tmp_path).verify(FIXTURE_TOKEN)
    assert grant is not None
    assert grant.scopes == ("device:pump-*", "live:read")


def test_another_hand_is_not_overwritten(tmp_path: Path) -> None:
    """A copy put back, or a file removed, while a gateway runs, is not written over; loading takes it."""
    tokens = tokens_in(tmp_path)
    tokens.create(["metrics"])
    other = tokens_in(tmp_path)
    other.create(["live:read"])
    with pytest.raises(AuthError, match="changed by somebody else"):
        tokens.create(["metrics"])
    tokens.load()
    tokens.create(["metrics"])
    assert len(tokens) == 3
    (tmp_path / "tokens.json").unlink()
    with pytest.raises(AuthError, match="changed by somebody else"):
        tokens.revoke(tokens.list()[0].id)
    tokens.save_if_due()
    assert tokens.reload()
    assert len(tokens) == 0
    assert not tokens.reload()


def test_a_disk_that_fails_changes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What could not be written is not in force, but for what ends a token, and once the disk works it can be."""
    tokens = tokens_in(tmp_path)
    record, token = tokens.create(["metrics"])
    told: list[None] = []
    tokens.on_change.append(lambda: told.append(None))

    def fail(fd: int) -> None:
        raise OSError(5, "Input/output error")

    with monkeypatch.context() as broken:
        broken.setattr(os, "fsync", fail)
        with pytest.raises(OSError, match="Input/output"):
            tokens.rotate(record.id)
        with pytest.raises(OSError, match="Input/output"):
            tokens.create(["metrics"])
    assert tokens.verify(token) is not None
    assert not told
    tokens.revoke(record.id)
    assert tokens.verify(token) is None


def test_a_directory_that_cannot_be_synced_does_not_lock_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What had been replaced by then is taken for the gateway's own, and can be written again."""
    tokens = tokens_in(tmp_path)
    record, _ = tokens.create(["metrics"])

    def fail(directory: Path) -> None:
        raise OSError(5, "Input/output error")

    with monkeypatch.context() as broken:
        broken.setattr("gateway.auth.tokenfile.sync_directory", fail)
        for _ in range(2):
            with pytest.raises(NotKept, match="Input/output"):
                tokens.revoke(record.id)
    tokens.revoke(record.id)
    assert len(tokens_in(tmp_path)) == 0


def test_what_was_revoked_is_remembered_up_to_a_bound(tmp_path: Path) -> None:
    """The newest of them."""
    file = TokenFile(tmp_path / "tokens.json")
    file.write(Content([], [f"{number:064}" for number in range(MAX_GONE)]))
    tokens = tokens_in(tmp_path)
    record, _ = tokens.create(["metrics"])
    tokens.revoke(record.id)
    gone = TokenFile(tmp_path / "tokens.json").read().gone
    assert (len(gone), gone[0], gone[-1]) == (MAX_GONE, f"{1:064}", record.sha256)


def test_a_change_is_on_disk_before_it_is_in_force(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The new file is synced, then takes the old one's place, then the directory is synced, then it counts."""
    tokens = tokens_in(tmp_path)
    steps: list[str] = []
    fsync, replace = os.fsync, os.replace

    def synced(fd: int) -> None:
        fsync(fd)
        steps.append("directory" if stat.S_ISDIR(os.fstat(fd).st_mode) else "file")

    def replaced(source: Path, target: Path) -> None:
        replace(source, target)
        steps.append("replace")

    monkeypatch.setattr(os, "fsync", synced)
    monkeypatch.setattr(os, "replace", replaced)
    tokens.on_change.append(lambda: steps.append(f"{len(tokens)} in force"))
    tokens.create(["metrics"])
    assert steps == ["file", "replace", "directory", "1 in force"]
