"""How long turns of conversations are kept, on a real database."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import asyncpg
import msgspec
import pytest
from collegium_context.memory import summaries
from collegium_context.memory.parts import MemoryParts
from collegium_context.memory.summaries import DAY_MS
from collegium_context.store import Store, TurnRow
from collegium_contracts import memory_requests as q
from collegium_contracts import subjects as s
from collegium_contracts.envelope import IdentityKeyring
from collegium_contracts.scope import Scope
from collegium_settings import Settings
from collegium_settings.settings import MemorySettings
from collegium_store import open_pool
from collegium_testing import eventually

NOW_MS = 1_767_225_600_000
KEYRING = IdentityKeyring()


class Fresh:
    """A fold that is always up to date."""

    async def wait(self, _tenant: str) -> None:
        """Waits for nothing."""


class World:
    """Turns of two tenants over a pool, and a clock."""

    def __init__(self, platform: Any, pool: asyncpg.Pool) -> None:
        self.platform, self.pool, self.now_ms = platform, pool, NOW_MS
        platform.now_ms = lambda: self.now_ms
        nobody: Any = None
        fresh: Any = Fresh()
        model: Any = type("Model", (), {"model": "none"})()
        self.parts = MemoryParts(platform, pool, nobody, model, fresh)

    def keep(self, days: int) -> None:
        """Replaces the configuration, as a reload does."""
        self.platform.settings = Settings(memory=MemorySettings(conversation_days=days))

    async def say(self, number: int, age_ms: int, tenant: str = "acme", conversation: str = "c1") -> str:
        task = f"tsk_{number:026}"
        body = msgspec.json.encode([{"role": "user", "content": f"said {number}"}])
        row = TurnRow(task, tenant, conversation, number, "identity", b"", body, 1, len(body), self.now_ms - age_ms)
        await Store(self.pool).add([row])
        return task

    async def kept(self) -> list[int]:
        rows = await self.pool.fetch("SELECT task_id FROM context.turns ORDER BY task_id")
        return [int(row["task_id"].removeprefix("tsk_")) for row in rows]

    async def sweep(self) -> int:
        return await self.parts._upkeep.sweep()

    async def ask(self, subject: str, question: Any) -> Any:
        return msgspec.json.decode((await self.parts.handlers()[subject](question, "")).content.body)  # pyright: ignore[reportAttributeAccessIssue]


@pytest.fixture
async def world(platforms: Any, database_url: str) -> AsyncIterator[World]:
    pool = await open_pool(database_url, application_name="test")
    world = World(await platforms(), pool)
    yield world
    await world.parts.stop()
    await pool.close()


async def test_turns_are_let_go_when_they_are_older_than_the_configured_days(world: World):
    world.keep(30)
    for number, age_ms in enumerate((0, 29 * DAY_MS, 30 * DAY_MS, 30 * DAY_MS + 1, 400 * DAY_MS)):
        await world.say(number, age_ms)
    await world.say(5, 31 * DAY_MS, tenant="globex")
    await world.say(6, DAY_MS, tenant="globex")
    assert await world.sweep() == 3
    assert await world.kept() == [0, 1, 2, 6], "of every tenant, from the first moment beyond"
    world.now_ms += 1
    assert await world.sweep() == 1
    assert await world.kept() == [0, 1, 6]
    newest = await Store(world.pool).newest(Scope("acme").at("c1"), max_messages=10, max_bytes=10_000)
    assert (len(newest.turns), newest.is_cut) == (2, False), "what is gone is not told of either"


async def test_without_a_number_of_days_nothing_is_let_go(world: World):
    world.keep(0)
    await world.say(1, 4_000 * DAY_MS)
    assert await world.sweep() == 0
    assert await world.kept() == [1]


async def test_a_conversation_whose_turns_are_all_gone_is_gone(world: World):
    world.keep(7)
    await world.say(1, 8 * DAY_MS, conversation="old")
    await world.say(2, 0, conversation="new")
    await world.sweep()
    listed = await world.ask(s.SVC_MEMORY_CONVERSATION_LIST, q.ConversationList(tenant="acme"))
    assert [one["id"] for one in listed["data"]] == ["new"]
    with pytest.raises(Exception, match="no conversation old"):
        await world.ask(s.SVC_MEMORY_CONVERSATION_GET, q.ConversationGet(tenant="acme", id="old"))


async def test_more_turns_than_go_at_once_go_in_one_sweep(world: World, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(summaries, "SWEEP_AT_ONCE", 3)
    world.keep(1)
    for number in range(8):
        await world.say(number, 2 * DAY_MS)
    assert await world.sweep() == 8
    assert await world.kept() == []


async def test_a_changed_number_of_days_holds_from_the_next_sweep_on_and_takes_summaries_along(world: World):
    world.keep(0)
    await world.say(1, 10 * DAY_MS)
    await world.say(2, 10 * DAY_MS)
    await world.say(3, 0)
    assert await world.parts.summaries.make_some() == 3
    scope = Scope("acme").at("c1")
    assert "said 1" in await world.parts.summaries.of(scope, 3, window_bytes=10_000)
    world.keep(9)
    await world.parts.start()

    async def swept() -> bool:
        return await world.kept() == [3]

    await eventually(swept)
    assert await world.parts.summaries.of(scope, 3, window_bytes=10_000) == ""
    counted = await world.pool.fetchval("SELECT coalesce(sum(octet_length(body)), 0) FROM context.turns")
    assert counted == len(msgspec.json.encode([{"role": "user", "content": "said 3"}]))
