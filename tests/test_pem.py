"""PEM files: what is wrong with each, in words, and when certificates end."""

from __future__ import annotations

import subprocess
import time
from pathlib import Path

import pytest

from gateway import pem
from tests.certificates import Pair, issue

DAY = 86_400


def test_good_files_have_no_fault(ca: Pair, server: Pair) -> None:
    """With an authority for clients and without."""
    assert pem.faults(server.cert, server.key, ca.cert) == {}
    assert pem.faults(server.cert, server.key, None) == {}
    assert pem.faults(None, None, None) == {}


def test_one_without_the_other(ca: Pair, server: Pair) -> None:
    """A certificate needs its key, a key its certificate, an authority for clients both."""
    assert set(pem.faults(server.cert, None, None)) == {"key"}
    assert set(pem.faults(None, server.key, None)) == {"cert"}
    assert set(pem.faults(None, None, ca.cert)) == {"cert", "key"}


def test_a_key_of_another_certificate(directory: Path, ca: Pair, server: Pair) -> None:
    """It is the key that is named."""
    other = issue(directory, ca, "other")
    assert pem.faults(server.cert, other.key, None) == {
        "key": f"{other.key}: it is not the key of the certificate that stands first in its file"
    }


def test_an_encrypted_key(directory: Path, server: Pair) -> None:
    """Nobody is asked for a passphrase."""
    locked = directory / "locked.key"
    command = ["openssl", "pkey", "-in", str(server.key), "-aes256", "-passout", "pass:canary", "-out", str(locked)]
    subprocess.run(command, check=True, capture_output=True)
    assert "needs a passphrase" in pem.faults(server.cert, locked, None)["key"]


def test_what_is_no_pem(directory: Path, ca: Pair, server: Pair) -> None:
    """Each file is named with what is wrong with it, all at once; never what is in it."""
    rubbish, binary, broken, large = (directory / name for name in ("rubbish", "binary", "broken", "large"))
    rubbish.write_text("canary")
    binary.write_bytes(bytes(range(256)))
    broken.write_text("-----BEGIN CERTIFICATE-----\nY2FuYXJ5\n-----END CERTIFICATE-----\n")
    large.write_bytes(b" " * (2 << 20))
    key = directory / "broken.key"
    key.write_text("-----BEGIN PRIVATE KEY-----\nY2FuYXJ5\n-----END PRIVATE KEY-----\n")
    found = pem.faults(rubbish, binary, broken)
    assert set(found) == {"cert", "key", "client_ca"}
    assert "no PEM certificate" in found["cert"]
    assert "not a PEM file" in found["key"]
    assert "not a certificate" in found["client_ca"]
    assert "too large" in pem.faults(large, server.key, None)["cert"]
    assert set(pem.faults(server.cert, key, None)) == {"key"}
    assert "private key" in pem.faults(server.cert, server.cert, None)["key"]
    assert "canary" not in str(found)


def test_files_that_cannot_be_read(directory: Path, server: Pair) -> None:
    """Missing ones and directories say so."""
    assert "No such file" in pem.faults(directory / "none", server.key, None)["cert"]
    assert "Is a directory" in pem.faults(server.cert, directory, None)["key"]


def test_the_dates_of_a_chain(directory: Path, ca: Pair) -> None:
    """A chain holds as long as the one of it that ends first; expired ones are no fault."""
    now = time.time()
    short = issue(directory, ca, "short", days=7)
    found = pem.validity(pem.certificates(short.cert))
    assert found.ends == pytest.approx(now + 7 * DAY, abs=60)
    assert found.begins == pytest.approx(now, abs=60)
    chain = directory / "chain.pem"
    chain.write_text(issue(directory, ca, "long", days=20_000).cert.read_text())  # beyond 2049: another form of time
    assert pem.validity(pem.certificates(chain)).ends == pytest.approx(now + 20_000 * DAY, abs=60)
    chain.write_text(chain.read_text() + short.cert.read_text())
    assert pem.validity(pem.certificates(chain)).ends == pytest.approx(now + 7 * DAY, abs=60)
    expired = issue(directory, ca, "expired", days=-1)
    assert pem.validity(pem.certificates(expired.cert)).ends < now
    assert pem.faults(expired.cert, expired.key, None) == {}


@pytest.mark.parametrize("data", [b"", b"0", b"0\x82", b"\x30\x80", b"\x30\x02\x30\x00", b"\x30\xff" + b"\xff" * 200])
def test_rubbish_is_no_certificate(data: bytes) -> None:
    """Cut and made-up bytes end in a sentence."""
    with pytest.raises(ValueError, match="not a certificate"):
        pem.validity([data])
