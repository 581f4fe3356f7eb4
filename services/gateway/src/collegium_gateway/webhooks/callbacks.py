"""Where a callback may go: the rules for its URL and for the addresses behind it. Pure.

The URL is checked at the door, where an address written out in it is refused too; what a name leads to is checked when
the connection is made (webhook_client.py), because a name may lead elsewhere by then. One rule: an address is allowed
when it is known to be public, never because it is not known to be private.
"""

from __future__ import annotations

import hashlib
import re

from collegium_contracts.addresses import is_local
from yarl import URL

from collegium_gateway.errors import ApiError

PARAM = "callback_url"
# What browsers, proxies and servers are known to carry.
MAX_URL_CHARS = 2048
# Digits of a receiver's name: enough that two receivers do not share one by accident.
_RECEIVER_CHARS = 24

_UNSAFE = re.compile(r"[\x00-\x20\x7f]")


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


def receiver_of(tenant: str, url: URL) -> str:
    """Names a tenant's receiver: the same for all its callbacks to one host and port, and telling neither."""
    text = f"{tenant}\n{url.raw_host}:{url.port}"
    return hashlib.sha256(text.encode()).hexdigest()[:_RECEIVER_CHARS]


def _check_host(host: str, *, allow_private: bool) -> None:
    try:
        local = is_local(host)
    except ValueError:
        raise _invalid("names a host that is neither a name nor a plain address") from None
    if local and not allow_private:
        raise ApiError(
            "callback_address_refused",
            f"{PARAM} leads to an address that is not public;"
            " an operator may allow such addresses (webhooks.allow_private_addresses)",
            param=PARAM,
        )


def _invalid(what: str) -> ApiError:
    return ApiError("invalid_value", f"{PARAM} {what}", param=PARAM)
