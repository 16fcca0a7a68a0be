"""Who is at the other end of a connection, by the address that asyncio gives."""

from __future__ import annotations

import ipaddress

__all__ = ["address_of", "ip_of", "is_local"]


def address_of(remote: object) -> str:
    """The host of a peer's address; empty on a Unix socket."""
    return str(remote[0]) if isinstance(remote, tuple) and remote else ""


def ip_of(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    """The host as an address, that of IPv4 in IPv6's clothes as itself; None where it is none."""
    try:
        address = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return None
    mapped = address.ipv4_mapped if address.version == 6 else None
    return mapped or address


def is_local(remote: object) -> bool:
    """Whether the peer is on this machine."""
    host = address_of(remote)
    if not host:
        return True
    address = ip_of(host)
    return address is not None and address.is_loopback
