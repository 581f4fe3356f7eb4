"""Answers to questions that are only alike: who may have them, asking context for one, telling it of a new one.

Context decides; this gateway waits for it for a moment and no longer. What it could not be told, because it or this
process was away, is asked again by whoever comes next. One rule: the cache never makes a request fail, nor wait for
more than LOOK_SECONDS.
"""

from __future__ import annotations

import asyncio
from typing import Any, Final

import structlog
from collegium_bus.ask import ask
from collegium_bus.errors import BusError, RequestRefusedError
from collegium_contracts import subjects as s
from collegium_contracts.errors import ContractError
from collegium_contracts.likeness import LikenessKeep, LikenessKept, LikenessLook, LikenessLooked
from collegium_contracts.messages import TaskSubmitted
from collegium_contracts.state import CachedAnswer
from collegium_runtime.platform import Platform
from collegium_settings import Settings

from collegium_gateway.admission.admission import AUTO, Asked
from collegium_gateway.identity.directory import Directory
from collegium_gateway.identity.principal import Principal
from collegium_gateway.reuse import cachekey
from collegium_gateway.reuse import reusing as reuse

log = structlog.get_logger(__name__)

LOOK_SECONDS: Final = 0.06
KEEP_SECONDS: Final = 5.0
# Answers on their way to context; beyond it one is not kept, which costs a later hit and nothing else.
MAX_KEEPING: Final = 256
# Longer prompts are not compared (context's turns.py), so they are not sent.
MAX_PROMPT_BYTES: Final = 64 * 1024
# After so many looks in a row that came to nothing context is taken to be away, and for a second nobody waits for it.
MAX_FAILED: Final = 3
PAUSE_SECONDS: Final = 1.0
# Why a look came to nothing, as clients are told.
AWAY: Final = frozenset({"embedder_unavailable", "vector_store_unavailable"})
NO_ANSWER: Final = "context_unavailable"


class Likeness:
    """Questions alike, for all chats of this gateway."""

    def __init__(self, platform: Platform, directory: Directory) -> None:
        self.platform = platform
        self._directory = directory
        self._opted: dict[str, bool] = {}
        self._keeping: set[asyncio.Task[None]] = set()
        self._paused_until = 0.0
        self._failed = 0
        self._reason = NO_ANSWER
        self._use(platform.settings)
        platform.on_settings.append(self._follow)

    async def stop(self) -> None:
        """Lets what is on its way to context arrive."""
        await asyncio.gather(*self._keeping, return_exceptions=True)

    def of(self, principal: Principal, asked: Asked, submitted: TaskSubmitted) -> Alike | None:
        """Returns what a chat may do with answers to questions alike; none where neither it nor its tenant opted in."""
        cache = asked.options.cache
        if cache == "exact" or (cache in (None, "refresh") and not self._is_on(principal.tenant)):
            return None
        if len(asked.messages) > MAX_PROMPT_BYTES:
            return None
        setting = cachekey.setting(
            principal.tenant, asked, self._policy(principal, asked), cachekey.rules_of(submitted.task)
        )
        return None if setting is None else Alike(self, submitted, setting, asked.options.domain)

    async def ask(self, question: LikenessLook) -> LikenessLooked | str:
        """Asks context; the reason (a code) where it cannot tell in time, or was away a moment ago."""
        now = asyncio.get_running_loop().time()
        if now < self._paused_until:
            return self._reason
        try:
            looked = await ask(
                self.platform.connection,
                s.SVC_LIKENESS_LOOK,
                question,
                LikenessLooked,
                timeout_seconds=LOOK_SECONDS,
            )
        except (BusError, ContractError) as error:
            self._failed += 1
            refused = isinstance(error, RequestRefusedError) and error.code in AWAY
            self._reason = error.code if refused else NO_ANSWER
            if self._failed >= MAX_FAILED:
                self._paused_until = now + PAUSE_SECONDS
            self.platform.metrics.cache_requests["semantic_late"].inc()
            log.info("no look for questions alike", tenant=question.tenant, error=type(error).__name__)
            return self._reason
        self._failed = 0
        return looked

    def tell(self, kept: LikenessKeep) -> None:
        """Tells context of a new answer, beside the request."""
        if len(self._keeping) < MAX_KEEPING:
            task = asyncio.create_task(self._tell(kept), name="keep-answer")
            self._keeping.add(task)
            task.add_done_callback(self._keeping.discard)

    def ttl_seconds(self, domain: str) -> int:
        """How long an answer is kept: as its domain has it, or all."""
        cache = self.platform.settings.cache
        return cache.semantic_ttls_seconds.get(domain, cache.semantic_ttl_seconds)

    async def _tell(self, kept: LikenessKeep) -> None:
        try:
            await ask(self.platform.connection, s.SVC_LIKENESS_KEEP, kept, LikenessKept, timeout_seconds=KEEP_SECONDS)
        except (BusError, ContractError) as error:
            log.info("an answer is not kept for questions alike", tenant=kept.tenant, error=type(error).__name__)

    def _is_on(self, tenant: str) -> bool:
        return self._opted.get(tenant, self.platform.settings.cache.semantic)

    async def _follow(self, settings: Settings) -> None:
        self._use(settings)

    def _use(self, settings: Settings) -> None:
        chosen = {tenant.id: tenant.cache.semantic for tenant in settings.tenants}
        self._opted = {tenant: on for tenant, on in chosen.items() if on is not None}

    def _policy(self, principal: Principal, asked: Asked) -> tuple[Any, ...]:
        """What else decides over an answer: what the key may ask, and which models there are to answer."""
        could = [
            (model.name, model.rank, model.pool, model.max_output_tokens, sorted(model.labels.items()))
            for model in self._directory.models
            if model.enabled
            and asked.model in (model.name, AUTO)
            and (not principal.models or model.name in principal.models)
        ]
        made_of = self._directory.contents.get(asked.model)
        return (principal.tier, sorted(principal.models), sorted(could), *([made_of] if made_of else []))


class Alike:
    """One chat's look for an answer to a question alike, and what it tells of its own.

    ``degraded`` is the code that says why the look could not be taken; empty where it was.
    """

    def __init__(self, likeness: Likeness, submitted: TaskSubmitted, setting: bytes, domain: str) -> None:
        self._likeness = likeness
        self._submitted = submitted
        self._setting = setting
        self._domain = domain
        self._explored = False
        self._is_cached = True
        self.degraded = ""

    async def look(self) -> CachedAnswer | None:
        """Returns an answer that may be given, or none."""
        task = self._submitted.task
        looked = await self._likeness.ask(
            LikenessLook(tenant=task.tenant, project=task.project, setting=self._setting, prompt=self._submitted.prompt)
        )
        if isinstance(looked, str):
            self.degraded = looked
            return None
        self._likeness.platform.metrics.cache_requests[f"semantic_{looked.decision}"].inc()
        self._is_cached = looked.decision != "not_cached"
        self._explored = looked.decision == "explore"
        answer = looked.answer
        return answer if looked.decision == "serve" and answer is not None and answer.tenant == task.tenant else None

    def keep(self, answer: CachedAnswer) -> None:
        """Tells context of the answer that was made for this chat, where it is whole."""
        platform = self._likeness.platform
        if not self._is_cached or not reuse.is_whole(answer, platform.keyring):
            return
        task = self._submitted.task
        self._likeness.tell(
            LikenessKeep(
                tenant=task.tenant,
                project=task.project,
                setting=self._setting,
                prompt=self._submitted.prompt,
                answer=answer,
                expires_at_ms=platform.now_ms() + self._likeness.ttl_seconds(self._domain) * 1000,
                explored=self._explored,
            )
        )
