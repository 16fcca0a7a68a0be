"""PEM files of TLS: whether a server can use them, why not in words, and from when until when a certificate holds.

Dates are read from the certificate itself (RFC 5280, 4.1), by the few rules of DER that they need (X.690)::

    Certificate    SEQUENCE { tbsCertificate SEQUENCE { [0] version, serialNumber INTEGER, signature SEQUENCE,
                   issuer SEQUENCE, validity SEQUENCE { notBefore Time, notAfter Time }, .. } .. }
    Time           UTCTime 17 "YYMMDDHHMMSSZ" (years 1950 to 2049), or GeneralizedTime 18 "YYYYMMDDHHMMSSZ"

No private key is ever part of a text.
"""

from __future__ import annotations

import contextlib
import re
import ssl
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

__all__ = ["Encrypted", "Validity", "certificates", "faults", "no_password", "validity"]

_SEQUENCE, _VERSION, _UTC_TIME, _GENERALIZED_TIME = 0x30, 0xA0, 0x17, 0x18
_blocks = re.compile(r"-----BEGIN CERTIFICATE-----.+?-----END CERTIFICATE-----", re.DOTALL).findall
_key = re.compile(r"-----BEGIN ([A-Z0-9]+ )*PRIVATE KEY-----").search
FILE_BYTES = 1 << 20  # a larger file is none of these

# What OpenSSL says, in words; anything else is given as it is.
_WORDS = {
    "KEY_VALUES_MISMATCH": "it is not the key of the certificate that stands first in its file",
    "EE_KEY_TOO_SMALL": "its key is too short to be safe",
    "CA_KEY_TOO_SMALL": "an authority's key is too short to be safe",
    "CA_MD_TOO_WEAK": "it is signed by a digest that is not safe any more",
    "UNKNOWN_KEY_TYPE": "its kind of key cannot be used",
}
_OF_KEY = {"KEY_VALUES_MISMATCH", "UNKNOWN_KEY_TYPE", "BAD_DECRYPT", "NO_PRIVATE_KEY_ASSIGNED"}


class Encrypted(ValueError):
    """A private key that needs a passphrase, which a service has nobody to ask for."""


class Validity(NamedTuple):
    """Seconds since the epoch, between which all certificates of a chain hold."""

    begins: float
    ends: float


def no_password() -> str:
    """For ``load_cert_chain``, which would ask on the terminal; raises :class:`Encrypted`."""
    raise Encrypted("it needs a passphrase: give one without (openssl pkey -in KEY -out NEW)")


def certificates(path: Path) -> list[bytes]:
    """The certificates of a PEM file in DER, in their order.

    Raises ``OSError`` where it cannot be read and ``ValueError`` where it is none, in words.
    """
    found = _blocks(_text(path))
    if not found:
        raise ValueError("there is no PEM certificate in it")
    try:
        return [ssl.PEM_cert_to_DER_cert(block) for block in found]
    except ValueError:
        raise ValueError("what it has is not a PEM certificate") from None


def validity(chain: list[bytes]) -> Validity:
    """When all of ``chain`` hold.  Raises ``ValueError`` for what is no certificate."""
    times = [_times(der) for der in chain]
    return Validity(max(begins for begins, _ in times), min(ends for _, ends in times))


def faults(cert: Path | None, key: Path | None, client_ca: Path | None) -> dict[str, str]:
    """What is wrong with the files that a server is to use, by the argument's name, in words; empty if they can."""
    found: dict[str, str] = {}
    if cert is None and (key is not None or client_ca is not None):
        found["cert"] = "without it there is no TLS: give the server's certificate, its chain behind it"
    if key is None and (cert is not None or client_ca is not None):
        found["key"] = "without it there is no TLS: give the certificate's private key"
    if cert is not None:
        _note(found, "cert", cert, lambda: validity(certificates(cert)))
    if key is not None:
        _note(found, "key", key, lambda: _check_key(key))
    if client_ca is not None:
        _note(found, "client_ca", client_ca, lambda: validity(certificates(client_ca)))
    if cert is not None and key is not None and not found.keys() & {"cert", "key"}:
        _note_pair(found, cert, key)
    if client_ca is not None and "client_ca" not in found:
        try:
            ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_verify_locations(client_ca)
        except (OSError, ValueError) as error:
            found["client_ca"] = f"{client_ca}: {_words(error)}"
    return found


def _note(found: dict[str, str], name: str, path: Path, look: object) -> None:
    assert callable(look)
    try:
        look()
    except OSError as error:
        found[name] = f"{path}: {error.strerror or error}"
    except ValueError as error:
        found[name] = f"{path}: {error}"


def _check_key(path: Path) -> None:
    if not _key(_text(path)):
        raise ValueError("there is no PEM private key in it")


def _note_pair(found: dict[str, str], cert: Path, key: Path) -> None:
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(cert, key, password=no_password)
    except Encrypted as error:
        found["key"] = f"{key}: {error}"
    except (OSError, ValueError) as error:  # SSLError among them
        name = "cert"
        with contextlib.suppress(OSError, ValueError):
            # The certificate alone says whose fault it is.
            ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(cadata=_text(cert))
            name = "key"
        reason = getattr(error, "reason", None)
        name = "key" if reason in _OF_KEY else "cert" if reason in _WORDS else name
        found[name] = f"{key if name == 'key' else cert}: {_words(error)}"


def _words(error: Exception) -> str:
    reason = getattr(error, "reason", None)
    if isinstance(error, ssl.SSLError):
        known = _WORDS.get(reason or "")
        return known or f"it cannot be used ({(reason or 'not a PEM file').replace('_', ' ').lower()})"
    return str(getattr(error, "strerror", None) or error)


def _text(path: Path) -> str:
    """Raises ``OSError``, and ``ValueError`` where it is no text."""
    with open(path, "rb") as file:
        data = file.read(FILE_BYTES + 1)
    if len(data) > FILE_BYTES:
        raise ValueError("it is too large for a PEM file")
    try:
        return data.decode()
    except UnicodeDecodeError:
        raise ValueError("it is not a PEM file (DER? openssl x509 -inform DER makes one)") from None


# -- DER -----------------------------------------------------------------------------------------------------------


def _times(der: bytes) -> tuple[float, float]:
    try:
        certificate = _children(_value(der, 0)[1])
        fields = _children(certificate[0][1])
        if fields[0][0] == _VERSION:
            del fields[0]
        tag, validity_field = fields[3]
        begins, ends = _children(validity_field)[:2]
        if tag != _SEQUENCE:
            raise ValueError
        return _time(*begins), _time(*ends)
    except (IndexError, ValueError):
        raise ValueError("what it has is not a certificate") from None


def _children(data: bytes) -> list[tuple[int, bytes]]:
    """Tags and contents of all values in ``data``."""
    found = []
    at = 0
    while at < len(data):
        tag, content, at = _value(data, at)
        found.append((tag, content))
    return found


def _value(data: bytes, at: int) -> tuple[int, bytes, int]:
    """Tag, content, and where the next value begins (X.690, 8.1)."""
    tag, size = data[at], data[at + 1]
    at += 2
    if size & 0x80:
        octets = size & 0x7F
        size = int.from_bytes(data[at : at + octets], "big")
        at += octets
    if at + size > len(data):
        raise ValueError
    return tag, data[at : at + size], at + size


def _time(tag: int, content: bytes) -> float:
    text = content.decode("ascii")
    if tag == _UTC_TIME:
        text = ("19" if text[:2] >= "50" else "20") + text
    elif tag != _GENERALIZED_TIME:
        raise ValueError
    return datetime.strptime(text, "%Y%m%d%H%M%SZ").replace(tzinfo=UTC).timestamp()
