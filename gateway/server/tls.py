"""TLS of the listener: its context, made from PEM files, made anew on request, and when its certificate ends.

TLS 1.2 and newer; with 1.2 only suites with forward secrecy and authenticated encryption; no compression (RFC 7457,
2.6) and no renegotiation (2.8).  With an authority for clients a certificate is asked for and need not be given:
whoever gives one that the authority has not signed does not get through.

A context is never changed: a handshake that has begun ends with the one that it began with, and one that cannot be made
leaves the one in use.
"""

from __future__ import annotations

import logging
import ssl
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

from .. import pem
from ..errors import ConfigError

__all__ = ["Files", "Tls", "make_context", "read_files"]

log = logging.getLogger(__name__)

SOON_S = 30 * 86_400.0  # before its end a certificate is spoken of
CIPHERS = "ECDHE+AESGCM:ECDHE+CHACHA20"


def make_context(cert: Path, key: Path, client_ca: Path | None) -> ssl.SSLContext:
    """A server's context.  Raises :class:`ConfigError` that names every fault of the files, a line each."""
    if faults := pem.faults(cert, key, client_ca):
        raise ConfigError("\n".join(f"GATEWAY_TLS__{name.upper()}: {words}" for name, words in faults.items()))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_ciphers(CIPHERS)
    context.options |= ssl.OP_NO_COMPRESSION | ssl.OP_NO_RENEGOTIATION | ssl.OP_CIPHER_SERVER_PREFERENCE
    context.set_alpn_protocols(["http/1.1"])  # RFC 7301: WebSocket over HTTP/2 is not spoken here
    try:
        context.load_cert_chain(cert, key, password=pem.no_password)
        if client_ca is not None:
            context.load_verify_locations(client_ca)
            context.verify_mode = ssl.CERT_OPTIONAL
    except (OSError, ValueError) as error:  # changed since it was looked at
        raise ConfigError(f"GATEWAY_TLS__CERT: {cert}: {error}") from error
    return context


class Files(NamedTuple):
    """What was read at once: the context, the server's certificates and those (DER) that sign clients'."""

    cert: Path
    context: ssl.SSLContext
    chain: list[bytes]
    valid: pem.Validity
    authorities: frozenset[bytes]


def read_files(cert: Path, key: Path, client_ca: Path | None = None) -> Files:
    """Read the files, and see that they can be used.  Raises :class:`ConfigError` as :func:`make_context` does."""
    context = make_context(cert, key, client_ca)
    try:
        chain = pem.certificates(cert)
        authorities = frozenset(pem.certificates(client_ca) if client_ca is not None else ())
        return Files(cert, context, chain, pem.validity(chain), authorities)
    except (OSError, ValueError) as error:  # changed since it was looked at
        raise ConfigError(f"GATEWAY_TLS__CERT: {cert}: {error}") from error


class Tls:
    """The files in use, and what is to be said of them.  Raises :class:`ConfigError` as :func:`make_context` does."""

    def __init__(
        self, cert: Path, key: Path, client_ca: Path | None = None, *, now: Callable[[], float] = time.time
    ) -> None:
        self._now = now
        self._files = read_files(cert, key, client_ca)
        self._warn()

    def use(self, files: Files) -> list[str]:
        """Use these from now on, which may be the same with another content; the settings whose have another."""
        before, self._files = self._files, files
        self._warn()
        return [
            *(["GATEWAY_TLS__CERT"] if files.chain != before.chain else []),
            *(["GATEWAY_TLS__CLIENT_CA"] if files.authorities != before.authorities else []),
        ]

    @property
    def context(self) -> ssl.SSLContext:
        """For new connections."""
        return self._files.context

    @property
    def authorities(self) -> frozenset[bytes]:
        """The certificates (DER) of those that sign clients'."""
        return self._files.authorities

    def _warn(self) -> None:
        if problem := self._problem():
            cert = self._files.cert
            log.warning("%s: %s", cert, problem, extra={"event": "certificate", "path": cert, "reason": problem})

    @property
    def expires_in_s(self) -> float:
        """Seconds until the certificate, or the first of its chain, ends; negative since then."""
        return self._files.valid.ends - self._now()

    def problems(self) -> Iterator[tuple[str, str]]:
        """What is wrong, each with what to do."""
        if problem := self._problem():
            yield (
                f"{problem[:1].upper()}{problem[1:]}.",
                "Renew it, then `systemctl reload gateway` (SIGHUP): no connection is dropped.",
            )

    def _problem(self) -> str:
        left = self.expires_in_s
        if left <= 0:
            return f"the TLS certificate has expired {_since(-left)} ago: clients refuse it"
        if self._files.valid.begins > self._now():
            return "the TLS certificate is not valid yet: is this machine's clock right?"
        return f"the TLS certificate expires in {_since(left)}" if left < SOON_S else ""

    def stats(self) -> dict[str, float]:
        """Flat numbers."""
        return {"expires_in_s": self.expires_in_s}


def _since(seconds: float) -> str:
    for size, word in ((86_400, "day"), (3600, "hour"), (60, "minute")):
        if seconds >= size:
            count = int(seconds // size)
            return f"{count} {word}{'s' if count > 1 else ''}"
    return "a moment"
