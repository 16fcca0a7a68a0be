"""Certificates for tests, made by openssl: authorities, servers, clients, expired and nearly expired ones."""

from __future__ import annotations

import ssl
import subprocess
from pathlib import Path
from typing import NamedTuple

import pytest

__all__ = ["Pair", "authority", "issue", "trusting"]


class Pair(NamedTuple):
    """PEM files of a certificate and its private key."""

    cert: Path
    key: Path


def _openssl(*words: str) -> None:
    try:
        subprocess.run(["openssl", *words], check=True, capture_output=True, timeout=30)
    except FileNotFoundError:
        pytest.skip("openssl is not on this machine.")


KEY = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]


def authority(directory: Path, name: str = "ca") -> Pair:
    """An authority of a test's own."""
    pair = Pair(directory / f"{name}.pem", directory / f"{name}.key")
    _openssl(
        "req", "-x509", *KEY, "-keyout", str(pair.key), "-out", str(pair.cert), "-days", "30", "-subj", f"/CN={name}"
    )
    return pair


def issue(
    directory: Path, by: Pair, name: str = "localhost", *, file: str | None = None, days: int = 90, client: bool = False
) -> Pair:
    """A certificate whose CN (and, for a server, DNS name beside 127.0.0.1) is ``name``; expired with ``days=-1``."""
    file = file or name
    pair = Pair(directory / f"{file}.pem", directory / f"{file}.key")
    request, extensions = directory / f"{file}.csr", directory / f"{file}.ext"
    names = f"subjectAltName=DNS:{name},IP:127.0.0.1\n" if not client else ""
    extensions.write_text(f"{names}extendedKeyUsage={'clientAuth' if client else 'serverAuth'}\n")
    _openssl("req", "-new", *KEY, "-keyout", str(pair.key), "-out", str(request), "-subj", f"/CN={name}")
    sign = ["-CA", str(by.cert), "-CAkey", str(by.key), "-CAcreateserial", "-days", str(days)]
    _openssl("x509", "-req", "-in", str(request), *sign, "-extfile", str(extensions), "-out", str(pair.cert))
    return pair


def trusting(ca: Pair, client: Pair | None = None) -> ssl.SSLContext:
    """A client's context that trusts ``ca`` alone and shows ``client``'s certificate."""
    context = ssl.create_default_context(cafile=str(ca.cert))
    if client is not None:
        context.load_cert_chain(client.cert, client.key)
    return context
