"""Asking fine-tuned models what their export held out, beside the teachers' verified answers.

What an export holds out no line of it tells. Once the model made of it serves, each of those items is asked of it as a
probe (ADR 0021): the router that owns the tenant's work asks within the budget of learning, consensus compares, and the
fold makes a pair of what came of it, so that the same test promotes it which promotes every model. One rule: an item is
answered once by a model, and only asked while its answer is still a verified one of a teacher.
"""

from __future__ import annotations

import asyncio
import hashlib
import random
from collections.abc import Iterable, Mapping
from typing import Final

import asyncpg
import structlog
from collegium_bus.ask import ask
from collegium_bus.errors import BusError
from collegium_bus.kv import Bucket
from collegium_contracts import codec, ids
from collegium_contracts import subjects as s
from collegium_contracts.ranks import applying
from collegium_contracts.state import ModelRecord, Roster
from collegium_contracts.students import HeldOutAsk, HeldOutReply
from collegium_learning.probing.sampling import HELD_OUT_DELAY_MS, HELD_OUT_MS
from collegium_learning.ranks.decisions import RANKS, STEPS
from collegium_runtime.platform import Platform
from msgspec import msgpack

from collegium_evolution.students import held_out_store
from collegium_evolution.students.held_out_store import Item
from collegium_evolution.students.sample_store import Known, SampleStore

log = structlog.get_logger(__name__)

ROUND_SECONDS: Final = 5.0
# So many of a model at once and no more: they go behind all other work, and each waits for a worker there.
AT_ONCE: Final = 20
# By then a question was answered, compared and folded, or will not be.
WITHIN_MS: Final = HELD_OUT_DELAY_MS + HELD_OUT_MS + 60_000
LEASE_MS: Final = 60_000
# What the budget of learning does not cover is tried again when more may have been earned.
UNCOVERED_MS: Final = 60_000
UNASKED_MS: Final = 600_000
# More tell hardly more: 500 pairs prove a margin of .05 many times over.
ITEMS_MAX: Final = 500
# Where so many were said to be right by somebody, what a teacher was merely sure of is not asked: it is the easy part.
TOLD_MIN: Final = STEPS["ta"].pairs
ASK_SECONDS: Final = 5.0
TOKENS_MIN: Final = 64
TOKENS_MAX: Final = 4_096
WAITS: Final = {
    "not_covered": "the others wait for the budget of learning",
    "not_allowed": "the tenant does not allow probes",
    "no_model": "the model may not be asked now",
}
NO_TEACHER: Final = "some wait for who answered them, no enabled model of a higher rank now"
_encode = msgpack.Encoder().encode


def chosen(held: Iterable[Known]) -> list[str]:
    """Returns the tasks that a model made of an export is asked: teachers' answers, at most ITEMS_MAX. Pure.

    Those alone that somebody said were right, where there are enough. Drawn by a hash of their ids, so that the same
    are drawn whoever asks.
    """
    taught = [one for one in held if one.rank == "teacher"]
    told = {one.task_id for one in taught if one.told}
    tasks = told if len(told) >= TOLD_MIN else {one.task_id for one in taught}
    return sorted(tasks, key=lambda task: hashlib.sha256(f"held out\x00{task}".encode()).digest())[:ITEMS_MAX]


def stands_above(models: Mapping[str, ModelRecord], gave: str, item: Item, domain: str) -> bool:
    """Whether what a model says beside who ``gave`` an answer counts for the model: see ranks/weighing.py. Pure."""
    other, model = models.get(gave), models.get(item.model)
    if other is None or not other.enabled or other.kind != "chat":
        return False
    # Whether the model itself may be asked the router knows.
    mine = RANKS.index(applying(model, item.tenant, domain)) if model is not None else 0
    return RANKS.index(applying(other, item.tenant, domain)) > mine


def question_of(item: Item, known: Known, answer: str) -> HeldOutAsk:
    """Returns what the router is asked; ``answer`` claims the sealed answer. Pure."""
    # An answer as long again as the one that stands is cut off: it is none that says the same.
    tokens = max(TOKENS_MIN, min(TOKENS_MAX, len(known.answer.body)))
    return HeldOutAsk(
        tenant=item.tenant,
        of=item.task_id,
        model=item.model,
        domain=known.domain,
        tier=known.tier,
        prompt=known.prompt,
        answer=answer,
        gave=known.model,
        gave_rank=known.rank,
        max_tokens=tokens,
        made_at_ms=item.made_at_ms,
        number=item.number,
    )


class Examining:
    """Asks what is due; ``start`` and ``stop`` bracket its life."""

    def __init__(self, platform: Platform, pool: asyncpg.Pool, samples: SampleStore) -> None:
        self._platform = platform
        self._pool = pool
        self._samples = samples
        self._models = Bucket(platform.connection, s.KV_MODELS)
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begins asking."""
        self._task = asyncio.create_task(self._run(), name="students-examine")

    async def stop(self) -> None:
        """Stops; what was not asked is asked by the next."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def look(self) -> None:
        """Asks what is due; raises BusError where a router or the broker does not answer."""
        now_ms = self._platform.now_ms()
        await held_out_store.end(self._pool, now_ms, WITHIN_MS)
        items = await held_out_store.claim(self._pool, now_ms, LEASE_MS, AT_ONCE, WITHIN_MS)
        models = await self._roster() if items else {}
        put_off: set[tuple[str, str]] = set()
        for item in items:
            if not put_off & {(item.tenant, ""), (item.tenant, item.model)}:
                put_off |= await self._ask(item, models)

    async def _roster(self) -> dict[str, ModelRecord]:
        entry = await self._models.get(s.ROSTER_KEY)
        roster = codec.state.decode(entry.value) if entry is not None else None
        return {model.name: model for model in roster.models} if isinstance(roster, Roster) else {}

    async def _ask(self, item: Item, models: Mapping[str, ModelRecord]) -> set[tuple[str, str]]:
        """Asks one item; returns of which tenant, and of which model of it (empty: of all), the others are put off."""
        known = await self._samples.verified_of(item.tenant, item.task_id)
        if known is None or known.rank != "teacher":
            await held_out_store.gone(self._pool, item)
            return set()
        if not stands_above(models, known.model, item, known.domain):
            until_ms = self._platform.now_ms() + UNASKED_MS
            await held_out_store.wait(self._pool, item.tenant, until_ms, NO_TEACHER, item.model, item.task_id)
            return set()
        answer = await self._platform.claims.put(_encode(known.answer))
        subject = s.probes_of_shard(ids.shard_of(item.tenant))
        question = question_of(item, known, answer)
        reply = await ask(self._platform.connection, subject, question, HeldOutReply, timeout_seconds=ASK_SECONDS)
        if reply.state == "taken":
            await held_out_store.asked(self._pool, item, self._platform.now_ms())
            return set()
        wait_ms = UNCOVERED_MS if reply.state == "not_covered" else UNASKED_MS
        until_ms = self._platform.now_ms() + wait_ms
        only = item.model if reply.state == "no_model" else ""
        await held_out_store.wait(self._pool, item.tenant, until_ms, WAITS[reply.state], only)
        log.info("held out items wait", model=item.model, tenant=item.tenant, state=reply.state)
        return {(item.tenant, only)}

    async def _run(self) -> None:
        while True:
            try:
                await self.look()
            except (BusError, asyncpg.PostgresError, OSError) as error:
                log.warning("held out items not asked, trying again", error=type(error).__name__)
            except Exception:  # a round that failed must not end the rounds
                log.exception("held out items not asked")
            await asyncio.sleep(ROUND_SECONDS * random.uniform(0.8, 1.2))  # noqa: S311 - jitter
