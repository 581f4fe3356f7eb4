"""Under what a tenant's points are kept: with its name in a field, and under a key made of tenant and id.

One rule: names of fields that begin with an underscore are the store's; points may not use them.
"""

from __future__ import annotations

import hashlib

TENANT_FIELD = "_tenant"
ID_FIELD = "_id"


def key_of(tenant: str, point_id: bytes) -> bytes:
    """Returns under what a tenant's point is kept: two tenants with the same id have two points."""
    return hashlib.blake2b(point_id, digest_size=16, key=tenant.encode()).digest()
