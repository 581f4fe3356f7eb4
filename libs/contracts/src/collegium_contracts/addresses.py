"""Which numeric addresses are public, and which address a URL's host writes out. Pure.

One rule: an address is allowed when it is known to be public, never because it is not known to be private.
"""

from __future__ import annotations

import re
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network

_ENDS_IN_NUMBER = re.compile(r"(^|\.)(\d+|0[xX][0-9a-fA-F]*)\.?$")
_PUBLIC_V6 = ip_network("2000::/3")
_NAT64 = ip_network("64:ff9b::/96")
# Set aside by IANA, and called global by some versions of Python: protocol assignments, the anycast address of 6to4
# relays, documentation.
_SET_ASIDE_V4 = (ip_network("192.0.0.0/24"), ip_network("192.88.99.0/24"))
_SET_ASIDE_V6 = (ip_network("3fff::/20"),)


def is_refused(address: str) -> bool:
    """Tells whether a numeric address (IPv4 or IPv6, as text) is anything but a public one."""
    return not is_public(ip_address(address))


def literal_of(host: str) -> IPv4Address | IPv6Address | None:
    """Returns the address that a URL's host writes out; none where it is a name.

    Raises ValueError for spellings that some resolvers read as an address (``127.1``, ``0x7f000001``, ``127.0.0.1.``).
    """
    if ":" not in host and _ENDS_IN_NUMBER.search(host) is None:
        return None
    return ip_address(host)


def is_local(host: str) -> bool:
    """Tells whether a host's name means this machine, or the address it writes out is not public.

    Raises ValueError where it is neither a name nor a plain address.
    """
    address = literal_of(host)
    name = host.removesuffix(".").lower()
    return name == "localhost" or name.endswith(".localhost") or (address is not None and not is_public(address))


def is_public(address: IPv4Address | IPv6Address) -> bool:
    """Tells whether an address is known to be public."""
    if isinstance(address, IPv4Address):
        plain = address.is_global and not address.is_multicast and not address.is_reserved
        return plain and not any(address in network for network in _SET_ASIDE_V4)
    inner = _inner(address)
    if inner is not None:
        return is_public(inner)
    return address in _PUBLIC_V6 and address.is_global and not any(address in network for network in _SET_ASIDE_V6)


def _inner(address: IPv6Address) -> IPv4Address | None:
    """Returns the IPv4 address that a packet to this one ends at: IPv4-mapped, 6to4, NAT64."""
    if address in _NAT64:
        return IPv4Address(int(address) & 0xFFFFFFFF)
    return address.ipv4_mapped or address.sixtofour
