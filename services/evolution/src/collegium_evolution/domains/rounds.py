"""The part of a round that discovers domains: in each tenant's newest questions, once enough new ones were asked.

The table says which map stands, the bucket is made to say the same. One rule: what fails for one tenant is noted and
stops nobody else's.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any, Final

import numpy as np
import structlog
from collegium_bus.errors import BusError
from collegium_bus.kv import Bucket
from collegium_bus.slices import in_slices
from collegium_contracts import codec
from collegium_contracts import subjects as s
from collegium_contracts.domains import TERMS_PURPOSE, DomainMap, map_key
from collegium_contracts.envelope import Envelope, UnknownKeyError, held
from collegium_contracts.errors import ContractError
from collegium_contracts.routing import FEATURES_PURPOSE
from collegium_learning.domains.fitting import ROWS_MAX, ROWS_MIN
from collegium_learning.domains.mapping import MapError, Mapper
from collegium_learning.domains.naming import terms
from collegium_learning.routing.features import Floats, directions, unpack
from collegium_runtime.platform import Platform
from msgspec import msgpack

from collegium_evolution.domains import domain_store
from collegium_evolution.domains.child import found
from collegium_evolution.domains.discovering import discovered, earlier
from collegium_evolution.domains.domain_store import Asked, StandingMap
from collegium_evolution.gaps.clusters import Question, known_of
from collegium_evolution.gaps.finding import Known
from collegium_evolution.students.opened import opened
from collegium_evolution.students.sample_store import SampleStore

log = structlog.get_logger(__name__)

# Domains are looked for anew once so many questions were asked since, as a share of those that were looked at then.
GROWN: Final = 0.2
# Questions of a domain whose words are looked at.
NAMED_BY_MAX: Final = 100
_encode_terms = msgpack.Encoder().encode


class DomainRounds:
    """Discovers domains and publishes their maps."""

    def __init__(self, platform: Platform, pool: Any) -> None:
        self._platform = platform
        self._pool = pool
        self._bucket = Bucket(platform.connection, s.KV_POLICY)
        self._samples = SampleStore(pool, platform.settings.evolution.min_teacher_confidence)

    async def run(self, _cycle: str = "") -> list[str]:
        """Looks for domains now; returns a line for each tenant whose domains were looked for."""
        standing = {one.tenant: one for one in await domain_store.maps(self._pool)}
        await self._mend(standing.values())
        lines: list[str] = []
        for tenant, rows in (await domain_store.counts(self._pool, ROWS_MIN)).items():
            before = standing.get(tenant)
            try:
                if before is not None and not await self._is_grown(before):
                    continue
                lines.extend(await self._discover(tenant, rows, before))
            except Exception as error:  # what fails for one tenant must not keep the others from their domains
                log.error("domains not discovered", tenant=tenant, exc_info=error)
                lines.append(f"{tenant}: domains not looked for, {type(error).__name__}")
        return lines

    async def mapper(self, tenant: str) -> Mapper | None:
        """Returns what says of which domain a tenant's questions are; none where none were discovered."""
        for standing in await domain_store.maps(self._pool, tenant):
            return mapper_of(standing)
        return None

    async def clusters_since(self, since_ms: int) -> dict[str, list[Known]]:
        """Returns what is known of tenants' discovered domains by what was asked since then (Unix ms)."""
        found: dict[str, list[Known]] = {}
        for standing in await domain_store.maps(self._pool):
            try:
                known = await self._known(standing, since_ms)
            except Exception as error:  # what fails for one tenant must not keep the others' gaps from being found
                log.error("domains not looked through", tenant=standing.tenant, exc_info=error)
                continue
            if known is not None:
                found[standing.tenant] = known
        return found

    async def _known(self, standing: StandingMap, since_ms: int) -> list[Known] | None:
        mapper = mapper_of(standing)
        asked = await domain_store.asked(self._pool, standing.tenant, ROWS_MAX, since_ms)
        embedder, kept, seen = await self._opened(standing.tenant, asked)
        if mapper is None or not kept or embedder != mapper.map.embedder:
            return None
        questions = [Question(one.domain, one.cost_picos, one.score, one.confidence) for one in kept]
        return known_of(standing.tenant, questions, mapper.domains_of(seen))

    async def publish(self, value: DomainMap) -> None:
        """Writes a map to the bucket; the table has it already."""
        await self._bucket.put(map_key(value.tenant), codec.encode(value))

    async def shown_terms(self, tenant: str, sealed: Envelope | None) -> list[str]:
        """Opens the terms of a domain; none where their key is gone."""
        if sealed is None:
            return []
        try:
            await held(self._platform.keyring, tenant, sealed)
            return msgpack.decode(self._platform.keyring.open(tenant, sealed, TERMS_PURPOSE), type=list[str])
        except (UnknownKeyError, ValueError):
            return []

    @property
    def pool(self) -> Any:
        """The database."""
        return self._pool

    def now_ms(self) -> int:
        """The time."""
        return self._platform.now_ms()

    async def erase(self, tenant: str) -> int:
        """Removes a tenant's domains from table and bucket; returns how many rows and values that were."""
        removed = await domain_store.erase(self._pool, tenant)
        standing = await self._bucket.get(map_key(tenant))
        if standing is not None:
            await self._bucket.delete(map_key(tenant), expected_revision=standing.revision)
            await self._bucket.remove(map_key(tenant), revision=standing.revision)
            removed += 1
        return removed

    async def _mend(self, standing: Any) -> None:
        """Writes what the bucket lacks or holds otherwise, after a process that ended between the two."""
        for one in standing:
            try:
                entry = await self._bucket.get(map_key(one.tenant))
            except ContractError:
                entry = None
            try:
                if entry is None or entry.value != one.value:
                    await self._bucket.put(map_key(one.tenant), one.value)
            except BusError as error:
                log.error("map of domains not mended", tenant=one.tenant, error=str(error))

    async def _is_grown(self, standing: StandingMap) -> bool:
        """Says whether enough was asked since a map was made; one that cannot be read is made anew."""
        mapper = mapper_of(standing)
        if mapper is None:
            return True
        # Not how many there are: what is old is pruned, so that at a steady pace there are always as many.
        new = await domain_store.asked_since(self._pool, standing.tenant, mapper.map.created_at_ms)
        return new >= GROWN * min(standing.rows, ROWS_MAX)

    async def _discover(self, tenant: str, rows: int, standing: StandingMap | None) -> list[str]:
        asked = await domain_store.asked(self._pool, tenant, ROWS_MAX)
        embedder, kept, seen = await self._opened(tenant, asked)
        if len(kept) < ROWS_MIN:
            return []
        clusters = await found(seen)
        if clusters is None:
            return [f"{tenant}: {len(kept)} questions show no domains"]
        before = mapper_of(standing) if standing is not None else None
        former = earlier(before, embedder, seen, [one.domain for one in kept])
        known = [topic for topic, _ in await domain_store.topics(self._pool, tenant)]
        version = standing.version + 1 if standing is not None else 1
        made = discovered(tenant, clusters, former, known, embedder, version, self._platform.now_ms())
        sealed = await self._terms(tenant, kept, made.clusters)
        kept_map = StandingMap(tenant, version, rows, codec.encode(made.map))
        if not await domain_store.put(self._pool, kept_map, made.topics, sealed):
            return []
        await self.publish(made.map)
        new = sum(topic.row.first_at_ms == topic.row.last_at_ms for topic in made.topics if topic.row.state == "live")
        none = sum(not one for one in made.clusters) / len(made.clusters)
        log.info("domains discovered", tenant=tenant, version=version, domains=len(made.map.clusters), new=new)
        return [
            f"{tenant}: {len(made.map.clusters)} domains in {len(kept)} questions, {new} of them new;"
            f" {none:.0%} of the questions are of none"
        ]

    async def _opened(self, tenant: str, asked: Sequence[Asked]) -> tuple[str, list[Asked], Floats]:
        """Returns the newest embedder, and the questions that have a row of it, with their directions."""
        keyring = self._platform.keyring
        rows: list[tuple[Asked, Floats]] = []
        async for some in in_slices(asked):
            for one in some:
                try:
                    await held(keyring, tenant, one.features)
                    row = unpack(keyring.open(tenant, one.features, FEATURES_PURPOSE))
                except UnknownKeyError:
                    continue
                if row is not None:
                    rows.append((one, row))
        if not rows:
            return "", [], np.zeros((0, 0), np.float32)
        newest = (rows[0][0].embedder, len(rows[0][1]))
        fitting = [(one, row) for one, row in rows if (one.embedder, len(row)) == newest]
        seen = directions(np.stack([row for _, row in fitting]))
        lengths = np.maximum(np.linalg.norm(seen, axis=1, keepdims=True), 1e-9)
        return newest[0], [one for one, _ in fitting], (seen / lengths).astype(np.float32)

    async def _terms(self, tenant: str, asked: Sequence[Asked], clusters: Sequence[str]) -> dict[str, Envelope]:
        """Returns the words that tell domains apart, sealed; none of a tenant whose words are not collected."""
        of: dict[str, str] = {}
        looked_at: Counter[str] = Counter()
        for one, cluster in zip(asked, clusters, strict=True):
            if cluster and looked_at[cluster] < NAMED_BY_MAX:
                looked_at[cluster] += 1
                of[one.task_id] = cluster
        samples = await self._samples.of_tasks(tenant, list(of))
        texts: dict[str, list[str]] = {}
        for sample in await opened(self._platform.keyring, tenant, samples):
            if sample.question is not None:
                texts.setdefault(of[sample.known.task_id], []).append(sample.question)
        keyring = self._platform.keyring
        return {
            cluster: keyring.seal(tenant, _encode_terms(words), TERMS_PURPOSE)
            for cluster, words in terms(texts).items()
            if words
        }


def mapper_of(standing: StandingMap) -> Mapper | None:
    """Returns a stored map, ready to be applied; none where it cannot be read."""
    try:
        value = codec.state.decode(standing.value)
        return Mapper(value) if isinstance(value, DomainMap) else None
    except (ContractError, MapError) as error:
        log.error("map of domains unreadable", tenant=standing.tenant, version=standing.version, error=str(error))
        return None
