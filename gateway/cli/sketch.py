"""Small programs for devices, with the gateway's address and a token in them.

The templates are files beside this module, named by language; ``@NAME@`` stands for a literal of that language (or, of
``@PORT@``, for digits).  What is put there is checked to hold nothing but plain characters, and escaped all the same.
"""

from __future__ import annotations

import ipaddress
import re
import socket
from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from ..errors import GatewayError

__all__ = ["LANGUAGES", "Target", "authority", "render", "target_of"]


class _Language(NamedTuple):
    """``own_trust``: where it runs there are authorities that are trusted already."""

    template: str
    tls: bool
    own_trust: bool = False


LANGUAGES = {
    "arduino": _Language("arduino.ino.in", tls=True),
    "python": _Language("python.py.in", tls=True, own_trust=True),
    "micropython": _Language("micropython.py.in", tls=True),
    "c": _Language("c.c.in", tls=False),
}
SCHEMES = {"ws": False, "http": False, "wss": True, "https": True}
NOWHERE = "192.0.2.1"  # of no machine (RFC 5737): nothing is sent there

_host = re.compile(r"[A-Za-z0-9]([A-Za-z0-9.-]{0,251}[A-Za-z0-9])?", re.ASCII).fullmatch
_path = re.compile(r"(/[A-Za-z0-9._~-]+)*", re.ASCII).fullmatch
_certificate = re.compile(r"-----BEGIN CERTIFICATE-----[A-Za-z0-9+/=\s]+-----END CERTIFICATE-----", re.ASCII)
_placeholder = re.compile(r"@([A-Z]+)@")


class Target(NamedTuple):
    """Where a device connects; ``base`` comes before ``/v1/devices/``."""

    host: str
    port: int
    tls: bool
    base: str

    @property
    def url(self) -> str:
        """``ws://host:port`` and what comes before ``/v1``."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{'wss' if self.tls else 'ws'}://{host}:{self.port}{self.base}"

    @property
    def here_only(self) -> bool:
        """Whether it is this machine, as it sees itself."""
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return self.host == "localhost"


def target_of(url: str | None, listen: Mapping[str, Any] | None) -> Target:
    """The address that ``url`` names, else the one of where the gateway listens as its network sees it.

    Raises :class:`GatewayError` for a URL that is none, and where nothing tells the address.
    """
    if url is not None:
        return _parsed(url)
    if listen is None or not listen["port"]:
        raise GatewayError("where the gateway listens is not known", hint="name its address with --url ws://HOST:PORT")
    return Target(_seen_as(listen["host"]), listen["port"], listen["tls"], "")


def _parsed(url: str) -> Target:
    hint = "such as ws://192.168.1.5:8080 or wss://gateway.example"
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        raise GatewayError(f"--url: {error}", hint=hint) from None
    host = parts.hostname or ""
    if parts.scheme not in SCHEMES or not (_host(host) or _is_ipv6(host)) or port == 0:
        raise GatewayError("--url: not an address of a gateway", hint=hint)
    if parts.username is not None or parts.query or parts.fragment:
        raise GatewayError("--url: no user, query or fragment belongs there", hint=hint)
    base = parts.path.rstrip("/")
    if not _path(base):
        raise GatewayError("--url: its path has other characters than letters, digits and . _ ~ -", hint=hint)
    tls = SCHEMES[parts.scheme]
    return Target(host, port or (443 if tls else 80), tls, base)


def _is_ipv6(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).version == 6 and "%" not in host
    except ValueError:
        return False


def _seen_as(host: str) -> str:
    """The address of who listens on all of them: the one that this machine would send from."""
    if host not in ("0.0.0.0", "::", ""):
        return host
    try:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            sock.connect((NOWHERE, 9))  # UDP: no more than a route is looked up
            address: str = sock.getsockname()[0]
            return address
    except OSError:
        return socket.gethostname()


def authority(path: Path) -> str:
    """The certificates of a PEM file; raises :class:`GatewayError`."""
    try:
        text = path.read_text("ascii")
    except (OSError, UnicodeDecodeError) as error:
        raise GatewayError(f"--ca: {path} cannot be read: {getattr(error, 'strerror', 'it is no text')}") from None
    found = _certificate.findall(text)
    if not found:
        raise GatewayError(f"--ca: there is no certificate in {path}", hint="it has to be a PEM file")
    return "\n".join([*found, ""])


def render(language: str, target: Target, device: str, token: str, ca: str = "") -> str:
    """The program; ``ca`` is the authority (PEM) that signed the gateway's certificate.

    Raises :class:`GatewayError` where the language cannot reach the address.
    """
    template, tls, own_trust = LANGUAGES[language]
    if target.tls and tls and not own_trust and not ca:
        raise GatewayError(
            f"the {language} program needs to know who signed the gateway's certificate",
            hint="name the authority's PEM file with --ca; of a certificate that signed itself, its own",
        )
    if target.tls and not tls:
        others = ", ".join(name for name, other in LANGUAGES.items() if other.tls)
        raise GatewayError(
            f"the {language} program has no TLS, and {target.url} needs it",
            hint=f"choose {others}; or have a TLS proxy such as stunnel beside it, and name that with --url ws://..",
        )
    values = {
        "HOST": target.host,
        "PATH": f"{target.base}/v1/devices/{device}",
        "URL": f"{target.url}/v1/devices/{device}",
        "DEVICE": device,
        "TOKEN": token,
        "CA": ca,
    }
    literals = {key: _literal(language, value) for key, value in values.items()}
    literals |= {"PORT": str(target.port), "TLS": _truth(language, target.tls)}
    text = files(__package__).joinpath("sketches", template).read_text("utf-8")
    return _placeholder.sub(lambda found: literals[found[1]], text)


def _literal(language: str, text: str) -> str:
    """``text`` as a string of the language, in ASCII."""
    if language in ("python", "micropython"):
        return '"' + "".join(_python(character) for character in text) + '"'
    return '"' + "".join(_c(byte) for byte in text.encode()) + '"'


def _python(character: str) -> str:
    if character in '"\\':
        return "\\" + character
    return character if " " <= character <= "~" else f"\\U{ord(character):08x}"


def _c(byte: int) -> str:
    # Octal, which ends after three digits whatever follows; a question mark could begin a trigraph.
    plain = 0x20 <= byte <= 0x7E and byte not in b'"\\?'
    return chr(byte) if plain else f"\\{byte:03o}"


def _truth(language: str, value: bool) -> str:
    if language in ("python", "micropython"):
        return str(value)
    return "1" if value else "0"
