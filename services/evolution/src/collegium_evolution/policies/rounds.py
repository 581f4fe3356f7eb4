"""The policy step of a round of learning: for every tenant that was heard since, a policy, compared and made live.

Also answers what is asked of policies. Fitting runs in a thread of its own; it may be begun twice, and the table takes
one. One rule: what fails for one tenant is noted and stops nobody else's.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import msgspec
import structlog
from collegium_bus.errors import RequestRefusedError
from collegium_bus.kv import Bucket
from collegium_contracts import codec
from collegium_contracts import subjects as s
from collegium_contracts.messages import Message
from collegium_contracts.policies import OPERATOR, RoutingPolicy
from collegium_contracts.policy_requests import PoliciesAsk, PoliciesReply, PolicyRelease, PolicyRollback, PolicyRow
from collegium_contracts.state import Roster
from collegium_learning.domains.mapping import Mapper
from collegium_runtime.failpoints import failpoint
from collegium_runtime.platform import Platform

from collegium_evolution.policies import decided_store, fitting, policy_store
from collegium_evolution.policies.gathering import gathered
from collegium_evolution.policies.publishing import Publishing
from collegium_evolution.policies.views import row_of

log = structlog.get_logger(__name__)

# A call of ordinary size, to compare prices by.
_PROMPT_TOKENS, _ANSWER_TOKENS = 250, 300
_PICOS = 10**12


# The discovered domains of a tenant; none where there are none.
MapperOf = Callable[[str], Awaitable[Mapper | None]]


class PolicyRounds:
    """Makes policies; ``mapper_of`` says of which discovered domain questions are that named none."""

    def __init__(self, platform: Platform, pool: Any, mapper_of: MapperOf | None = None) -> None:
        self._mapper_of = mapper_of
        self._platform = platform
        self._pool = pool
        self._models = Bucket(platform.connection, s.KV_MODELS)
        self._publishing = Publishing(pool, Bucket(platform.connection, s.KV_POLICY), platform.now_ms)

    async def run(self, cycle: str = "") -> list[str]:
        """Fits and publishes now; returns a line for each tenant whose policy changed or did not and why.

        What an earlier try of this round had made already is told as it was, and not made again.
        """
        await self._publishing.mend()
        roster = await self._roster()
        live = {stored.row.tenant: stored for stored in await policy_store.live(self._pool)}
        known = await policy_store.heard(self._pool)
        lines = [_line(row) for row in await policy_store.of_cycle(self._pool, cycle)]
        for tenant, heard_ns in (await decided_store.heard(self._pool)).items():
            if known.get(tenant, -1) >= heard_ns:
                continue
            if tenant in live and live[tenant].row.pinned:
                lines.append(f"{tenant}: version {live[tenant].row.version} was chosen by an operator and stays")
                continue
            try:
                standing = self._decoded(live[tenant].value) if tenant in live else None
                lines.extend(await self._fit(tenant, heard_ns, roster, standing, cycle))
            except Exception as error:  # what fails for one tenant must not keep the others from their policies
                log.error("policy not made", tenant=tenant, exc_info=error)
                lines.append(f"{tenant}: not made, {type(error).__name__}")
        lines.extend(await self._fit_operators(live.get(OPERATOR), cycle))
        await decided_store.prune(self._pool, self._platform.now_ms())
        return lines

    async def answer(self, asked: Message, _traceparent: str) -> Message:
        """Answers ``svc.evolution.policies``."""
        match asked:
            case PoliciesAsk(history=True, tenant=str(tenant)):
                return PoliciesReply(rows=await policy_store.history(self._pool, tenant, asked.limit))
            case PoliciesAsk():
                return PoliciesReply(rows=[one.row for one in await policy_store.live(self._pool, asked.tenant)])
            case PolicyRollback():
                return PoliciesReply(rows=[await self._publishing.roll_back(asked)])
            case PolicyRelease():
                return PoliciesReply(rows=[await self._publishing.release(asked)])
            case _:
                raise RequestRefusedError("invalid_value", f"{type(asked).__name__} is not asked here")

    async def erase(self, tenant: str) -> int:
        """Removes what stands of a tenant; returns how many rows and values that were."""
        return await decided_store.erase(self._pool, tenant) + await self._publishing.erase(tenant)

    async def _fit(
        self, tenant: str, heard_ns: int, roster: dict[str, fitting.Priced], standing: RoutingPolicy | None, cycle: str
    ) -> list[str]:
        judged = await decided_store.judged(self._pool, tenant)
        if sum((one.score is not None) + len(one.again) for one in judged) < fitting.ROWS_MIN:
            return []
        mapper = await self._mapper_of(tenant) if self._mapper_of is not None else None
        lessons = await gathered(self._platform.keyring, tenant, judged, mapper)
        routing = self._platform.settings.routing
        blank = msgspec.structs.replace(await self._blank(tenant), tolerance=routing.tolerance)
        failpoint("evolution.before-fit")
        verdict = await asyncio.to_thread(
            fitting.next_policy, lessons, roster, standing, blank, blank.version, routing.trial_share
        )
        state = "live" if verdict.is_live else "refused"
        row = row_of(verdict.policy, state, verdict.why, cycle=cycle, compared=verdict.compared)
        failpoint("evolution.after-fit")
        if not await self._publishing.keep(verdict.policy, row, heard_ns):
            return []
        log.info("policy made", tenant=tenant, version=row.version, state=state, rows=row.rows)
        return [_line(row)]

    async def _fit_operators(self, live: policy_store.Stored | None, cycle: str) -> list[str]:
        if live is not None and live.row.pinned:
            return []
        blank = await self._blank(OPERATOR)
        policy = fitting.operators_policy(await decided_store.means(self._pool), blank)
        if policy is None or (live is not None and policy.rows == live.row.rows):
            return []
        row = row_of(policy, "live", "medians of tenants' means", cycle=cycle)
        return [_line(row)] if await self._publishing.keep(policy, row, 0) else []

    async def _blank(self, tenant: str) -> RoutingPolicy:
        version = await policy_store.next_version(self._pool, tenant)
        now_ms = self._platform.now_ms()
        return RoutingPolicy(version=version, tenant=tenant, created_at_ms=now_ms, models=[], everywhere=[])

    async def _roster(self) -> dict[str, fitting.Priced]:
        entry = await self._models.get(s.ROSTER_KEY)
        roster = codec.state.decode(entry.value) if entry is not None else None
        if not isinstance(roster, Roster):
            return {}
        return {
            model.name: fitting.Priced(
                model.rank,
                (
                    model.price.input_picos * _PROMPT_TOKENS
                    + model.price.output_picos * _ANSWER_TOKENS
                    + model.price.call_picos
                )
                / _PICOS,
            )
            for model in roster.models
        }

    def _decoded(self, value: bytes) -> RoutingPolicy | None:
        policy = msgspec.convert(codec.state.decode(value), RoutingPolicy)
        return policy if policy.models else None


def _line(row: PolicyRow) -> str:
    if row.tenant == OPERATOR:
        return f"everybody else: version {row.version}"
    state = "refused" if row.state == "refused" else "live"
    return f"{row.tenant}: version {row.version} of {row.rows} outcomes is {state}: {row.why}"
