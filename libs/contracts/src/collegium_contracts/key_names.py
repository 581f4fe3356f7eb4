"""Keys of what gateways and context keep by digest; handed on by subjects.py.

One rule: a key begins with its tenant, so that what belongs to one is found by its beginning.
"""

from __future__ import annotations

from collegium_contracts.ids import tenant_token


def cache_key(tenant: str, digest: bytes) -> str:
    """Key of an answer in the bucket of answers; its last token is ``digest`` in hex."""
    return f"{tenant_token(tenant)}.{digest.hex()}"


def embedding_key(tenant: str, digest: bytes) -> str:
    """Key of a text's vector in the bucket of vectors; its last token is ``digest`` in hex."""
    return f"{tenant_token(tenant)}.{digest.hex()}"


def cache_cleared(tenant: str) -> str:
    """Key that is written in the bucket of answers when a tenant's were removed."""
    return f"{tenant_token(tenant)}.cleared"
