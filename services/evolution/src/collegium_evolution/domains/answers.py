"""What is asked about discovered domains, and what is changed of them by hand: names and mergers.

One rule: an id stays what it is; a name is shown beside it, and a merger can be taken back.
"""

from __future__ import annotations

from typing import Final

import msgspec
from collegium_bus.errors import RequestRefusedError
from collegium_contracts import codec
from collegium_contracts.domain_requests import DomainMerge, DomainRename, DomainRow, DomainsAsk, DomainsReply
from collegium_contracts.envelope import Envelope
from collegium_contracts.messages import Message

from collegium_evolution.domains import domain_store
from collegium_evolution.domains.discovering import Topic, given
from collegium_evolution.domains.domain_store import StandingMap
from collegium_evolution.domains.rounds import DomainRounds, mapper_of

NAME_CHARS_MAX: Final = 64


class DomainAnswers:
    """Answers ``svc.evolution.domains``."""

    def __init__(self, rounds: DomainRounds) -> None:
        self._rounds = rounds
        self._pool = rounds.pool

    async def answer(self, asked: Message, _traceparent: str) -> Message:
        """Answers one question; raises RequestRefusedError ``not_found``, ``invalid_value`` or ``policy_conflict``."""
        match asked:
            case DomainsAsk():
                found = await domain_store.topics(self._pool, asked.tenant, asked.id)
                rows = [await self._shown(topic.row, sealed, words=asked.with_terms) for topic, sealed in found]
                return DomainsReply(rows=rows)
            case DomainRename():
                return DomainsReply(rows=[await self._rename(asked)])
            case DomainMerge():
                return DomainsReply(rows=[await self._merge(asked)])
            case _:
                raise RequestRefusedError("invalid_value", f"{type(asked).__name__} is not asked here")

    async def _shown(self, row: DomainRow, sealed: Envelope | None, *, words: bool) -> DomainRow:
        if not words:
            return row
        return msgspec.structs.replace(row, terms=await self._rounds.shown_terms(row.tenant, sealed))

    async def _rename(self, asked: DomainRename) -> DomainRow:
        if len(asked.name) > NAME_CHARS_MAX or not asked.name.isprintable():
            text = f"a name has at most {NAME_CHARS_MAX} characters that can be printed"
            raise RequestRefusedError("invalid_value", text, "name")
        topic, sealed, standing = await self._one(asked.id, asked.tenant)
        row = msgspec.structs.replace(topic.row, named=asked.name, by=asked.by)
        await self._keep(standing, [Topic(row, topic.number)], standing.value)
        return await self._shown(row, sealed, words=asked.with_terms)

    async def _merge(self, asked: DomainMerge) -> DomainRow:
        topic, sealed, standing = await self._one(asked.id, asked.tenant)
        into = "" if asked.into == asked.id else asked.into
        known = {one.row.id: one.row for one, _ in await domain_store.topics(self._pool, topic.row.tenant)}
        if into and into not in known:
            raise RequestRefusedError("not_found", f"there is no domain {into!r} of this tenant", "into")
        follows = {name: row.into for name, row in known.items()} | {asked.id: into}
        if given([into], follows)[0] == asked.id:
            raise RequestRefusedError("invalid_value", f"{into} is merged into {asked.id} itself", "into")
        mapper = mapper_of(standing)
        is_found = mapper is not None and asked.id in mapper.map.clusters
        state = "merged" if into else "live" if is_found else "retired"
        row = msgspec.structs.replace(topic.row, into=into, state=state, by=asked.by)
        value = standing.value
        if mapper is not None:
            domains = given(mapper.map.clusters, follows)
            value = codec.encode(msgspec.structs.replace(mapper.map, version=standing.version + 1, domains=domains))
        await self._keep(standing, [Topic(row, topic.number)], value)
        return await self._shown(row, sealed, words=asked.with_terms)

    async def _one(self, topic: str, tenant: str | None) -> tuple[Topic, Envelope | None, StandingMap]:
        found = await domain_store.topics(self._pool, tenant, topic) if topic else []
        for one, sealed in found:
            for standing in await domain_store.maps(self._pool, one.row.tenant):
                return one, sealed, standing
        raise RequestRefusedError("not_found", "there is no discovered domain of this id", "id")

    async def _keep(self, standing: StandingMap, topics: list[Topic], value: bytes) -> None:
        kept = StandingMap(standing.tenant, standing.version + 1, standing.rows, value)
        if not await domain_store.put(self._pool, kept, topics):
            raise RequestRefusedError("policy_conflict", "domains changed meanwhile; ask again", "id")
        if value is not standing.value and (mapper := mapper_of(kept)) is not None:
            await self._rounds.publish(mapper.map)
