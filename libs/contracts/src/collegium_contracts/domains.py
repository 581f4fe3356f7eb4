"""Domains that were discovered: what routers assign tasks by.

Evolution fits a tenant's map over its own questions' rows and writes it to the bucket ``policy``; routers watch and
apply it to tasks that name no domain. It is numbers and neutral ids alone: an id names no word, and no two tenants
have the same one, so that nothing that is counted by domain mixes tenants. One rule: a reader that does not know the
layout of a map keeps the last one that it knew.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from typing import Final

from collegium_contracts.base import Message

LAYOUT: Final = 1
# Where maps stand in the bucket ``policy``.
MAP_PREFIX: Final = "domains."
# How ids of discovered domains begin; no configured label should.
TOPIC_PREFIX: Final = "topic-"
# What terms of a domain are sealed for.
TERMS_PURPOSE: Final = "domain.terms"


class DomainMap(Message, frozen=True, kw_only=True):
    """A tenant's discovered domains; the value under ``domains.<tenant>`` in the bucket ``policy``.

    A question's embedding by ``embedder`` (``dimensions`` numbers, length one), less ``mean``, times ``projection``
    (float32, dimensions by ``near_dimensions``) and of length one, is of the domain of the nearest of ``centroids``
    (float32, clusters by near_dimensions, length one), where it is at least as like it (cosine) as that one's of
    ``reaches``. ``clusters`` are the centroids' own ids and ``domains`` the ids that are given, which differ where
    somebody merged. Without clusters nothing is assigned.
    """

    tenant: str
    version: int
    created_at_ms: int
    embedder: str = ""
    layout: int = LAYOUT
    dimensions: int = 0
    near_dimensions: int = 0
    mean: bytes = b""
    projection: bytes = b""
    centroids: bytes = b""
    reaches: list[float] = []
    clusters: list[str] = []
    domains: list[str] = []


def map_key(tenant: str) -> str:
    """Returns the key of a tenant's map in the bucket ``policy``."""
    return MAP_PREFIX + tenant


def topic_id(tenant: str, number: int) -> str:
    """Returns the id of a tenant's domain by its number, the same for the same and, but for chance, for no other."""
    return TOPIC_PREFIX + hashlib.sha256(f"{tenant}\x00{number}".encode()).hexdigest()[:8]


def is_topic(domain: str) -> bool:
    """Whether a domain's name is that of a discovered one."""
    return domain.startswith(TOPIC_PREFIX)


def any_topic(domains: Iterable[str]) -> bool:
    """Whether any of these is a discovered domain's id."""
    return any(map(is_topic, domains))
