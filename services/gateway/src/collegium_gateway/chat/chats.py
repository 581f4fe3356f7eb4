"""Chats and the answers that others got before: a chat is answered from what is kept, or asked, and then kept.

In order: this gateway's memory, a call for the same that is under way here, what all gateways share, for those who
opted in an answer to a question that is alike (likeness.py), a model. While no model can be asked, tenants that allow
it get what is too old otherwise, marked so. One rule: a miss waits for nothing that it would not wait for without a
cache.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from typing import Final

import msgspec
from collegium_contracts.messages import SettledMessage, TaskCompleted, TaskSubmitted
from collegium_contracts.parts import CacheResult
from collegium_contracts.state import CachedAnswer
from collegium_runtime.platform import Platform
from collegium_settings.settings import CacheSettings
from collegium_telemetry.hop import Hop

from collegium_gateway.admission.admission import Asked
from collegium_gateway.admission.holding import OnRates
from collegium_gateway.chat.flights import Flights
from collegium_gateway.errors import ApiError
from collegium_gateway.identity.directory import Directory
from collegium_gateway.identity.principal import Principal
from collegium_gateway.reuse import cachekey, trials
from collegium_gateway.reuse import reusing as reuse
from collegium_gateway.reuse.answermemory import AnswerMemory
from collegium_gateway.reuse.answershelf import AnswerShelf
from collegium_gateway.reuse.likeness import Alike, Likeness
from collegium_gateway.reuse.reusebook import ReuseBook
from collegium_gateway.tasks.application import Tasks
from collegium_gateway.tasks.livetext import Piece

# Whoever waited for two calls that failed makes its own: a queue of failures would outlast its deadline.
MAX_FOLLOWED: Final = 2


class Chats:
    """Begins chats."""

    def __init__(self, platform: Platform, directory: Directory, tasks: Tasks) -> None:
        self.platform = platform
        self.directory = directory
        self.tasks = tasks
        self.memory = AnswerMemory()
        self.shelf = AnswerShelf(platform.connection, self._replaced, self.memory.drop_tenant)
        self.flights = Flights()
        self.book = ReuseBook(platform)
        self.likeness = Likeness(platform, directory)
        self.trials = directory.trials

    def start(self) -> None:
        """Begins to follow the shared answers and to tell of reused ones."""
        self.shelf.start()
        self.book.start()

    async def stop(self) -> None:
        """Stops following, and tells of what was reused."""
        await self.likeness.stop()
        await self.shelf.stop()
        await self.book.stop()
        await self.tasks.admission.hits.stop()

    @property
    def settings(self) -> CacheSettings:
        """The settings as they are now."""
        return self.platform.settings.cache

    def begin(self, principal: Principal, asked: Asked, submitted: TaskSubmitted) -> Chat:
        """Returns a checked request as a chat; nothing is looked for or sent yet."""
        digest, arm = None, ""
        asks = submitted.task.people is not None or self.tasks.gating.asks(submitted.task)
        if (
            not asks
            and self.settings.exact
            and asked.options.cache != "off"
            and not cachekey.has_answer_of_its_own(asked)
        ):
            arm = self.trials.arm_of(submitted.task)
            digest = cachekey.digest(
                principal.tenant,
                asked,
                knowledge=self.directory.contents.get(asked.model, ""),
                gates=cachekey.rules_of(submitted.task),
                arm=arm,
            )
        if digest is None:
            self.count("off")
            return Chat(self, submitted, None)
        reads = asked.options.cache != "refresh" and not self.book.is_full
        stale_seconds = self.settings.stale_ttl_seconds if principal.stale_answers else 0
        # What a rule takes out of a question may be all that tells it from another.
        is_rewritten = self.tasks.gating.rewrites(submitted.task)
        alike = None if is_rewritten or arm else self.likeness.of(principal, asked, submitted)
        return Chat(self, submitted, digest, reads=reads, stale_seconds=stale_seconds, alike=alike, arm=arm)

    def count(self, result: str) -> None:
        """Counts a look into the cache."""
        self.platform.metrics.cache_requests[result].inc()

    def keep(self, digest: bytes, settled: SettledMessage) -> CachedAnswer | None:
        """Returns a task's answer, and keeps it where it is fit for it, here and for the other gateways."""
        answer = reuse.answer_of(digest, settled, self.platform.now_ms())
        if answer is not None and reuse.is_whole(answer, self.platform.keyring):
            self._remember(answer)
            self.shelf.put(answer)
        return answer

    async def fetch(self, tenant: str, digest: bytes) -> CachedAnswer | None:
        """Returns an answer that another gateway keeps, and keeps it here too."""
        kept = await self.shelf.get(tenant, digest)
        if kept is not None:
            self._remember(kept)
        return kept

    def _remember(self, kept: CachedAnswer) -> None:
        self.memory.put(kept, max_bytes=self.settings.memory_bytes, max_entries=self.settings.entries_max)

    def _replaced(self, digest: bytes, task_id: str) -> None:
        """Another gateway has a newer answer: the one here is no longer the one to give."""
        standing = self.memory.get(digest)
        if standing is not None and standing.task_id != task_id:
            self.memory.drop(digest)


class Chat:
    """One chat. Once it has an answer, ``submitted.task`` says what came of the look for one."""

    def __init__(
        self,
        chats: Chats,
        submitted: TaskSubmitted,
        digest: bytes | None,
        *,
        reads: bool = False,
        stale_seconds: int = 0,
        alike: Alike | None = None,
        arm: str = "",
    ) -> None:
        self._chats = chats
        self._digest = digest
        self._reads = reads
        self._stale_seconds = stale_seconds
        self._alike = alike
        self._arm = arm
        self._leads = False
        self._answer: CachedAnswer | None = None
        # What is given again instead of an answer of its own.
        self.given: TaskCompleted | None = None
        self.submitted = submitted

    async def complete(self, hop: Hop, on_rates: OnRates | None = None) -> SettledMessage:
        """Returns the terminal message: of a reused answer, or of the task that was submitted for it."""
        try:
            if (reused := await self._reused(hop, on_rates)) is not None:
                return reused
            settled = await self._chats.tasks.complete(self.submitted, hop, on_rates=on_rates)
            self._settled(settled)
            return settled
        finally:
            self._land()

    async def stream(self, hop: Hop, on_rates: OnRates | None = None) -> AsyncGenerator[Piece, None]:
        """Yields the answer's text, then its terminal message; see :meth:`Tasks.stream` for who goes away."""
        try:
            if (reused := await self._reused(hop, on_rates)) is not None:
                for piece in reuse.pieces(reused, self._chats.platform.keyring):
                    yield piece
                return
            live = self._chats.tasks.stream(self.submitted, hop, told=self._settled, on_rates=on_rates)
            try:
                async for piece in live:
                    yield piece
            finally:
                await live.aclose()
        finally:
            self._land()

    @property
    def cache_degraded(self) -> str:
        """Why no answer to a question alike could be looked for (a code); empty where nothing kept from it."""
        return self._alike.degraded if self._alike is not None else ""

    async def _reused(self, hop: Hop, on_rates: OnRates | None) -> TaskCompleted | None:
        """Returns the answer to give again, or none where this chat is to be asked."""
        digest = self._digest
        if digest is None:
            return None
        kept = await self._find(digest) if self._reads else None
        if kept is None and self._reads and self._alike is not None:
            # Whoever waits for this chat gets the same answer, and learns by its key that it is another's.
            kept = self._answer = await self._alike.look()
        if kept is not None:
            # The answer passed its rules when it was made; this request has still to pass its own.
            await self._chats.tasks.gating.check(self.submitted)
            await self._chats.tasks.admission.count(self.submitted.task, on_rates)
            return self._give(kept, hop.trace_id)
        self._chats.count("miss")
        task = msgspec.structs.replace(self.submitted.task, cache="miss")
        self.submitted = msgspec.structs.replace(self.submitted, task=task)
        return None

    async def _find(self, digest: bytes) -> CachedAnswer | None:
        chats, task = self._chats, self.submitted.task
        for _ in range(MAX_FOLLOWED + 1):
            kept = chats.memory.get(digest)
            if kept is not None and self._may_give(kept.stored_at_ms):
                return kept
            if chats.flights.lead(digest):
                self._leads = True
                stored_at_ms = chats.shelf.stored_at_ms(digest)
                if stored_at_ms is None or not self._may_give(stored_at_ms):
                    return None
                kept = await chats.fetch(task.tenant, digest)
                if kept is not None and self._may_give(kept.stored_at_ms):
                    self._answer = kept
                return self._answer
            try:
                seconds = max(0, task.deadline_ms - chats.platform.now_ms()) / 1000
                kept = await chats.flights.follow(digest, seconds)
            except TimeoutError:
                text = "the same question, asked before, was not answered in time; ask again"
                raise ApiError("deadline_exceeded", text) from None
            if kept is not None:
                return kept
        return None

    def _may_give(self, stored_at_ms: int) -> bool:
        """Whether an answer of this time may be given: fresh, or stale while nobody can make a new one."""
        chats, now = self._chats, self._chats.platform.now_ms()
        stale_ms = now - stored_at_ms - chats.settings.exact_ttl_seconds * 1000
        if stale_ms < 0:
            return True
        if stale_ms >= self._stale_seconds * 1000:
            return False
        submitted, directory = self.submitted, chats.directory
        return reuse.nobody_can_answer(
            submitted.task, submitted.prompt_bytes, directory.models, directory.breakers, now
        )

    def _give(self, kept: CachedAnswer, trace_id: str) -> TaskCompleted:
        chats, now = self._chats, self._chats.platform.now_ms()
        is_exact = kept.digest == self._digest
        is_stale = is_exact and now - kept.stored_at_ms >= chats.settings.exact_ttl_seconds * 1000
        result: CacheResult = "hit_exact" if is_exact else "hit_semantic"
        given = reuse.given_again(self.submitted.task, kept, now, is_stale=is_stale, result=result)
        self.submitted = msgspec.structs.replace(self.submitted, task=given.task)
        self.given = given
        chats.book.note(given, trace_id)
        chats.count("stale" if is_stale else result)
        return given

    def _settled(self, settled: SettledMessage | None) -> None:
        """Keeps the answer, and gives it to those who wait: none of them waits for this chat's client to read it."""
        if self._digest is not None and settled is not None and trials.told(settled) == self._arm:
            self._answer = self._chats.keep(self._digest, settled)
            if self._alike is not None and self._answer is not None:
                self._alike.keep(self._answer)
        self._land()

    def _land(self) -> None:
        """Ends the flight that this chat leads, with its answer where it has one."""
        if self._leads and self._digest is not None:
            self._leads = False
            self._chats.flights.land(self._digest, self._answer)
