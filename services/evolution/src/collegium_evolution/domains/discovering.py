"""From clusters to domains: the ids they had or new ones, a map for routers, and what is told of each. Pure.

One rule: an id is never used for another domain, and one that was not found again stays known by its name.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import msgspec
from collegium_contracts.domain_requests import DomainRow
from collegium_contracts.domains import DomainMap, is_topic, topic_id
from collegium_learning.domains.fitting import Found
from collegium_learning.domains.keeping import kept
from collegium_learning.domains.mapping import Mapper
from collegium_learning.routing.features import Floats


class Topic(NamedTuple):
    """A domain as it is kept: what is shown of it, and its number among its tenant's."""

    row: DomainRow
    number: int


class Discovered(NamedTuple):
    """The next map, every domain as it stands then, and the cluster of each question (empty: none)."""

    map: DomainMap
    topics: list[Topic]
    clusters: list[str]


def earlier(before: Mapper | None, embedder: str, directions: Floats, labels: Sequence[str]) -> list[str]:
    """Returns which former cluster each question is of: by the map that stood, or by what it was labelled as."""
    if before is not None and before.map.embedder == embedder and directions.shape[1] == before.map.dimensions:
        return before.clusters_of(directions)
    return [label if is_topic(label) else "" for label in labels]


def discovered(
    tenant: str, found: Found, former: Sequence[str], known: Sequence[Topic], embedder: str, version: int, now_ms: int
) -> Discovered:
    """Names clusters, keeps what is known of those that were there before, and retires those that were not found."""
    ids = kept(found.places, len(found.centroids), former)
    number = max((one.number for one in known), default=0)
    numbers = {one.row.id: one.number for one in known}
    for at, name in enumerate(ids):
        if not name:
            number += 1
            ids[at] = topic_id(tenant, number)
            numbers[ids[at]] = number
    sizes = Counter(int(place) for place in found.places)
    of = len(found.places)
    standing = {one.row.id: one.row for one in known}
    rows: dict[str, DomainRow] = {}
    for at, name in enumerate(ids):
        before = standing.get(name) or DomainRow(
            id=name, tenant=tenant, state="live", questions=0, of_questions=0, first_at_ms=now_ms, last_at_ms=now_ms
        )
        state = "merged" if before.into else "live"
        rows[name] = msgspec.structs.replace(
            before, state=state, questions=sizes[at], of_questions=of, last_at_ms=now_ms
        )
    domains = given(ids, {name: row.into for name, row in (standing | rows).items()})
    for name, row in standing.items():
        if name not in rows:
            is_gone = row.state != "merged" and name not in domains
            rows[name] = msgspec.structs.replace(row, state="retired") if is_gone else row
    wide, near = found.projection.shape
    made = DomainMap(
        tenant=tenant,
        version=version,
        created_at_ms=now_ms,
        embedder=embedder,
        dimensions=wide,
        near_dimensions=near,
        mean=found.mean.astype("<f4").tobytes(),
        projection=found.projection.astype("<f4").tobytes(),
        centroids=found.centroids.astype("<f4").tobytes(),
        reaches=found.reaches,
        clusters=ids,
        domains=domains,
    )
    topics = [Topic(row, numbers[name]) for name, row in rows.items()]
    return Discovered(made, topics, [ids[place] if place >= 0 else "" for place in found.places.tolist()])


def given(clusters: Sequence[str], into: Mapping[str, str]) -> list[str]:
    """Returns the domain that each cluster's questions are given, where somebody merged some into others."""
    found: list[str] = []
    for name in clusters:
        seen = {name}
        while (further := into.get(name, "")) and further not in seen:
            seen.add(further)
            name = further
        found.append(name)
    return found


def as_domain(domain: str, mapper: Mapper | None) -> str:
    """Returns what a domain that a task was given is now, where it was merged into another since."""
    if mapper is None or not is_topic(domain) or domain not in mapper.map.clusters:
        return domain
    return mapper.map.domains[mapper.map.clusters.index(domain)]
