"""What others ask of evolution: scores, ranks, rounds, gaps, policies, students and experiments.

One rule: a question is checked here, whoever asks; what a tenant may see is the asker's to say.
"""

from __future__ import annotations

import os
from typing import Final

import asyncpg
from collegium_bus.errors import BusError, RequestRefusedError
from collegium_bus.kv import Bucket
from collegium_bus.shell import Handler
from collegium_contracts import codec, ids
from collegium_contracts import subjects as s
from collegium_contracts.evolution import (
    CycleRun,
    CyclesAsk,
    CyclesReply,
    GapsAsk,
    GapsReply,
    RankChangeAsk,
    RankHistoryAsk,
    RankHistoryReply,
    RankRollbackAsk,
    ScoreboardAsk,
)
from collegium_contracts.messages import Message
from collegium_contracts.policies import OPERATOR
from collegium_contracts.state import Roster
from collegium_runtime.platform import Platform
from collegium_store import is_transient

from collegium_evolution.cycles import cycle_store
from collegium_evolution.cycles.planning import brief
from collegium_evolution.cycles.running import Cycles
from collegium_evolution.domains.answers import DomainAnswers
from collegium_evolution.experiments.answers import Experiments
from collegium_evolution.gaps import gap_store
from collegium_evolution.policies.rounds import PolicyRounds
from collegium_evolution.ranks import change_store
from collegium_evolution.ranks.changing import Changing
from collegium_evolution.scoreboards import looking
from collegium_evolution.scoreboards.scoring import DOMAIN_CHARS_MAX
from collegium_evolution.students.answers import StudentAnswers

REASON_CHARS_MAX: Final = 300
HALF_LIFE_DAYS_MAX: Final = 365.0


class Answers:
    """Answers ``svc.evolution.*``."""

    def __init__(
        self,
        platform: Platform,
        pool: asyncpg.Pool,
        changing: Changing,
        cycles: Cycles,
        policies: PolicyRounds,
        students: StudentAnswers,
        domains: DomainAnswers,
        experiments: Experiments,
    ) -> None:
        self._platform = platform
        self._models = Bucket(platform.connection, s.KV_MODELS)
        self._pool = pool
        self._changing = changing
        self._cycles = cycles
        self._policies = policies
        self._students = students
        self._domains = domains
        self._experiments = experiments

    def handlers(self) -> dict[str, Handler]:
        """Returns who answers each subject."""
        return {
            s.SVC_EVOLUTION_BOARD: self._guarded(self._board),
            s.SVC_EVOLUTION_RANKS: self._guarded(self._ranks),
            s.SVC_EVOLUTION_CYCLES: self._guarded(self._rounds),
            s.SVC_EVOLUTION_GAPS: self._guarded(self._gaps),
            s.SVC_EVOLUTION_POLICIES: self._guarded(self._policies.answer),
            s.SVC_EVOLUTION_STUDENTS: self._guarded(self._students.answer),
            s.SVC_EVOLUTION_DOMAINS: self._guarded(self._domains.answer),
            s.SVC_EVOLUTION_EXPERIMENTS: self._guarded(self._experiments.answer),
        }

    def _guarded(self, handler: Handler) -> Handler:
        async def answer(question: Message, traceparent: str) -> Message:
            _check_tenant(question)
            try:
                return await handler(question, traceparent)
            except RequestRefusedError:
                raise
            except BusError as error:
                raise RequestRefusedError(
                    "broker_unavailable", "the router or the broker does not answer; ask again"
                ) from error
            except asyncpg.CharacterNotInRepertoireError as error:
                raise RequestRefusedError("invalid_value", "the question holds a NUL, which no table takes") from error
            except Exception as error:
                if not is_transient(error):
                    raise
                raise RequestRefusedError("evolution_unavailable", "evolution's database is away; ask again") from error

        return answer

    async def _board(self, asked: Message, _traceparent: str) -> Message:
        if not isinstance(asked, ScoreboardAsk):
            raise _unexpected(asked)
        if not 0 <= asked.half_life_days <= HALF_LIFE_DAYS_MAX:
            text = f"a half-life is at most {HALF_LIFE_DAYS_MAX:.0f} days"
            raise RequestRefusedError("invalid_value", text, "half_life_days")
        default = float(self._platform.settings.evolution.half_life_days)
        return await looking.look(self._pool, asked, default, self._platform.now_ms())

    async def _ranks(self, asked: Message, _traceparent: str) -> Message:
        now_ms = self._platform.now_ms()
        change_id = "rch_" + ids.task_id(now_ms, os.urandom(10))[4:]
        match asked:
            case RankHistoryAsk():
                rows = await change_store.history(self._pool, asked.model, asked.tenant, asked.limit)
                return RankHistoryReply(rows=rows)
            case RankChangeAsk():
                _check(asked)
                await self._check_model(asked.model)
                return RankHistoryReply(rows=[await self._changing.set(asked, change_id, now_ms)])
            case RankRollbackAsk():
                _check(asked)
                return RankHistoryReply(rows=[await self._changing.roll_back(asked, change_id, now_ms)])
            case _:
                raise _unexpected(asked)

    async def _check_model(self, name: str) -> None:
        """Raises RequestRefusedError for a model that is not in the roster: no decision is kept about one."""
        entry = await self._models.get(s.ROSTER_KEY)
        roster = codec.state.decode(entry.value) if entry is not None else None
        if isinstance(roster, Roster) and all(model.name != name for model in roster.models):
            raise RequestRefusedError("not_found", "there is no model of this name", "model")

    async def _rounds(self, asked: Message, _traceparent: str) -> Message:
        if isinstance(asked, CycleRun):
            return CyclesReply(rows=[await self._cycles.demand(asked.by)])
        if not isinstance(asked, CyclesAsk):
            raise _unexpected(asked)
        if not asked.id:
            return CyclesReply(rows=[brief(row) for row in await cycle_store.cycles(self._pool, asked.limit)])
        found = await cycle_store.cycle(self._pool, asked.id)
        if found is None:
            raise RequestRefusedError("not_found", "there is no round of learning of this id", "id")
        return CyclesReply(rows=[found])

    async def _gaps(self, asked: Message, _traceparent: str) -> Message:
        if not isinstance(asked, GapsAsk):
            raise _unexpected(asked)
        rows = await gap_store.gaps(self._pool, asked.tenant, asked.limit)
        return GapsReply(rows=rows, at_ms=self._platform.now_ms())


def _check_tenant(question: Message) -> None:
    """Raises RequestRefusedError where a tenant is named that can be none; what it names becomes subjects and keys."""
    for part in (question, getattr(question, "running", None), getattr(question, "flag", None)):
        named = getattr(part, "tenant", None)
        if named and named != OPERATOR and ids.TENANT_ID.match(named) is None:
            text = "a tenant's id has 1 to 40 characters of a-z, 0-9 and -"
            raise RequestRefusedError("invalid_value", text, "tenant")


def _check(asked: RankChangeAsk | RankRollbackAsk) -> None:
    if asked.domain is None and asked.tenant:
        raise RequestRefusedError("invalid_value", "an overall rank is one of all tenants; name a domain", "tenant")
    if asked.domain is not None and (len(asked.domain) > DOMAIN_CHARS_MAX or "\x00" in asked.domain):
        raise RequestRefusedError("invalid_value", f"a domain has at most {DOMAIN_CHARS_MAX} characters", "domain")
    if len(asked.reason) > REASON_CHARS_MAX or "\x00" in asked.reason:
        raise RequestRefusedError("invalid_value", f"a reason has at most {REASON_CHARS_MAX} characters", "reason")


def _unexpected(asked: Message) -> RequestRefusedError:
    return RequestRefusedError("invalid_value", f"{type(asked).__name__} is not asked here")
