"""Where a callback may go: the rules for its URL and for the addresses behind it. Pure.

The URL is checked at the door, where an address written out in it is refused too; what a name leads to is checked when
the connection is made (webhook_client.py), because a name may lead elsewhere by then. One rule: an address is allowed
when it is known to be public, never because it is not known to be private.
"""

from __future__ import annotations

import hashlib
import re
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network

from yarl import URL

from collegium_gateway.errors import ApiError

PARAM = "callback_url"
# What browsers, proxies and servers are known to carry.
MAX_URL_CHARS = 2048
# Digits of a receiver's name: enough that two receivers do not share one by accident.
_RECEIVER_CHARS = 24

_ENDS_IN_NUMBER = re.compile(r"(^|\.)(\d+|0[xX][0-9a-fA-F]*)\.?$")
_UNSAFE = re.compile(r"[\x00-\x20\x7f]")
_PUBLIC_V6 = ip_network("2000::/3")
_NAT64 = ip_network("64:ff9b::/96")
# Set aside by IANA, and called global by some versions of Python: protocol assignments, the anycast address of 6to4
# relays, documentation.
_SET_ASIDE_V4 = (ip_network("192.0.0.0/24"), ip_network("192.88.99.0/24"))
_SET_ASIDE_V6 = (ip_network("3fff::/20"),)


def check_url(text: str, *, allow_private: bool) -> URL:
    """Returns a callback's URL; raises ApiError ``invalid_value`` or ``callback_address_refused``."""
    if len(text) > MAX_URL_CHARS:
        raise _invalid(f"may have at most {MAX_URL_CHARS} characters")
    if _UNSAFE.search(text):
        raise _invalid("must not hold spaces or control characters")
    try:
        url = URL(text)
    except ValueError:
        raise _invalid("is not a URL") from None
    if url.scheme not in ("http", "https"):
        raise _invalid("must start with http:// or https://")
    host = url.raw_host
    if not host or url.port == 0:
        raise _invalid("must name a host, and no port 0")
    if url.raw_user is not None or url.raw_password is not None:
        raise _invalid("must not hold a user name or a password; receivers check the signature")
    if url.raw_fragment:
        raise _invalid("must not have a fragment, which is never sent")
    _check_host(host, allow_private=allow_private)
    return url


def is_refused(address: str) -> bool:
    """Tells whether a numeric address (IPv4 or IPv6, as text) is anything but a public one."""
    return not _is_public(ip_address(address))


def receiver_of(tenant: str, url: URL) -> str:
    """Names a tenant's receiver: the same for all its callbacks to one host and port, and telling neither."""
    text = f"{tenant}\n{url.raw_host}:{url.port}"
    return hashlib.sha256(text.encode()).hexdigest()[:_RECEIVER_CHARS]


def literal_of(host: str) -> IPv4Address | IPv6Address | None:
    """Returns the address that a URL's host writes out; none where it is a name.

    Raises ValueError for spellings that some resolvers read as an address (``127.1``, ``0x7f000001``, ``127.0.0.1.``).
    """
    if ":" not in host and _ENDS_IN_NUMBER.search(host) is None:
        return None
    return ip_address(host)


def _check_host(host: str, *, allow_private: bool) -> None:
    try:
        address = literal_of(host)
    except ValueError:
        raise _invalid("names a host that is neither a name nor a plain address") from None
    name = host.removesuffix(".").lower()
    local = name == "localhost" or name.endswith(".localhost")
    if not allow_private and (local or (address is not None and not _is_public(address))):
        raise ApiError(
            "callback_address_refused",
            f"{PARAM} leads to an address that is not public;"
            " an operator may allow such addresses (webhooks.allow_private_addresses)",
            param=PARAM,
        )


def _is_public(address: IPv4Address | IPv6Address) -> bool:
    if isinstance(address, IPv4Address):
        plain = address.is_global and not address.is_multicast and not address.is_reserved
        return plain and not any(address in network for network in _SET_ASIDE_V4)
    inner = _inner(address)
    if inner is not None:
        return _is_public(inner)
    return address in _PUBLIC_V6 and address.is_global and not any(address in network for network in _SET_ASIDE_V6)


def _inner(address: IPv6Address) -> IPv4Address | None:
    """Returns the IPv4 address that a packet to this one ends at: IPv4-mapped, 6to4, NAT64."""
    if address in _NAT64:
        return IPv4Address(int(address) & 0xFFFFFFFF)
    return address.ipv4_mapped or address.sixtofour


def _invalid(what: str) -> ApiError:
    return ApiError("invalid_value", f"{PARAM} {what}", param=PARAM)
