"""The law of open holds: each is of a live task, and none outlasts its task or its time."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import pytest
from collegium_billing.books.auditing import Auditor, LawWatch
from collegium_billing.books.laws import HOLDS_LIVE
from collegium_billing.books.ledger_store import LedgerStore
from collegium_billing.errors import QuestionError
from collegium_billing.holds.law import GRACE_MS, Life, broken
from collegium_billing.holds.witness import HoldWitness
from collegium_bus.holding import Holds
from collegium_bus.kv import Bucket
from collegium_contracts import codec, ids
from collegium_contracts import subjects as s
from collegium_contracts.ledger import LedgerAudit, LedgerAuditReply
from collegium_contracts.messages import TaskAccepted
from collegium_contracts.requests import HoldAsk, OpenHold, QueueReply
from collegium_contracts.state import BudgetRecord, TenantRecord
from collegium_telemetry import names
from collegium_telemetry.metrics import Metrics
from collegium_testing.eventually import eventually
from hypothesis import given
from hypothesis import strategies as st

NOW = 1_767_225_600_000  # 2026-01-01T00:00:00Z
TENANT = "acme"


def hold(task: str = "t1", *, expires_in_ms: int = 60_000) -> OpenHold:
    return OpenHold(task=task, tenant=TENANT, picos=5 * 10**11, expires_at_ms=NOW + expires_in_ms)


def test_a_hold_of_a_live_task_breaks_nothing() -> None:
    assert broken([hold()], {"t1": "live"}, NOW) == []
    assert broken([hold()], {}, NOW) == [], "of what was not looked up nothing is said"


def test_each_breach_is_told_with_its_hold() -> None:
    holds = [hold("t1"), hold("t2"), hold("t3", expires_in_ms=-GRACE_MS - 1)]
    lives: dict[str, Life] = {"t1": "settled", "t2": "unknown", "t3": "live"}
    assert broken(holds, lives, NOW) == [
        "acme/t1: the hold of 0.5 USD is of a task that settled",
        "acme/t2: the hold of 0.5 USD is of a task that is neither queued nor running nor settled",
        "acme/t3: the hold of 0.5 USD is over its time",
    ]


lives = st.sampled_from(["settled", "live", "unknown"])


@given(st.lists(st.tuples(lives, st.integers(-2 * GRACE_MS, 2 * GRACE_MS)), max_size=20))
def test_every_hold_is_told_of_once_at_most_and_exactly_where_it_is_dead(told: list[tuple[Life, int]]) -> None:
    holds = [hold(f"t{number}", expires_in_ms=left) for number, (_, left) in enumerate(told)]
    found = broken(holds, {f"t{number}": life for number, (life, _) in enumerate(told)}, NOW)
    dead = [f"t{n}" for n, (life, left) in enumerate(told) if life != "live" or left < -GRACE_MS]
    assert [one.partition(":")[0] for one in found] == [f"{TENANT}/{task}" for task in dead]


def now_ms() -> int:
    return time.time_ns() // 1_000_000


def task_id(number: int) -> str:
    return f"tsk_{number:0>26}"


@pytest.fixture
async def law(world: Any, monkeypatch: pytest.MonkeyPatch) -> Callable[[], Any]:
    """Billing with four open holds, no grace, and a queue in which only the third's task waits."""
    monkeypatch.setattr("collegium_billing.holds.witness.GRACE_MS", 0)
    budget = BudgetRecord(id="b", scope="tenant", limit_picos=1_000, window_seconds=3600)
    record = TenantRecord(id=TENANT, tier="enterprise", budgets=[budget])
    await Bucket(world.gateway, s.KV_TENANTS).put(TENANT, codec.encode(record))
    app = await world.billing()
    door = Holds(world.gateway)
    for number in (1, 2, 3, 4):
        ask = HoldAsk(task=task_id(number), tenant=TENANT, picos=10, expires_at_ms=now_ms() + 60_000)
        assert not (await door.ask(ask)).code
    router = await world.connect("router")

    def answer(_subject: bytes, reply: bytes, payload: bytes, _block: bytes | None) -> None:
        asked: Any = codec.request.decode(payload)
        position = 1 if asked.task == task_id(3) else 0
        router.publish(reply.decode(), codec.encode(QueueReply(position=position, queued=1, at_ms=now_ms())))

    router.client.subscribe_raw(s.queue_of_shard(ids.shard_of(TENANT)), answer)
    witness = HoldWitness(app._platform, world.pool)

    async def violations() -> list[str]:
        return await witness.violations(now_ms() + 1)

    return violations


async def test_a_hold_without_a_live_task_is_found(world: Any, law: Callable[[], Any], make: Any) -> None:
    """The first was accepted, the second settled in the books, the third is queued, of the fourth nobody knows."""
    accepted = make.task("1", tenant=TENANT)
    await world.worker.publish(
        s.task_changed(TENANT, accepted.id), codec.encode(TaskAccepted(task=accepted, at_ms=NOW)), message_id="a"
    )
    await world.pool.execute(
        "INSERT INTO billing.tasks (task_id, tenant, project, key_id, state, model, rank, plan, tags, settled_at,"
        " input_tokens, output_tokens, cached_input_tokens, reasoning_tokens, estimated, charge_picos, stop_reason)"
        " VALUES ($1, 'acme', 'default', '', 'completed', 'm', 'student', 'single', '{}',"
        " now() - interval '5 minutes', 0, 0, 0, 0, false, 0, 'completed')",
        task_id(2),
    )

    async def found() -> list[str] | None:
        told = await law()
        return told if len(told) == 2 else None

    settled, lost = sorted(await eventually(found))
    assert settled.startswith(f"acme/{task_id(2)}: ")
    assert settled.endswith("of a task that settled")
    assert lost.startswith(f"acme/{task_id(4)}: ")

    now = now_ms()
    reply = await world.ask(s.SVC_BILLING_LEDGER_AUDIT, LedgerAudit(from_ms=now - 1000, to_ms=now), LedgerAuditReply)
    assert next(one.violations for one in reply.laws if one.name == HOLDS_LIVE) == 2
    reply = await world.ask(s.SVC_BILLING_LEDGER_AUDIT, LedgerAudit(from_ms=1, to_ms=now - 10**6), LedgerAuditReply)
    assert HOLDS_LIVE not in {one.name for one in reply.laws}, "what was held then is not known now"


async def test_the_law_is_kept_once_every_task_has_settled(world: Any, law: Callable[[], Any], make: Any) -> None:
    for number in (1, 2, 3, 4):
        await world.publish(make.settled(make.task(str(number), tenant=TENANT), []))

    async def kept() -> bool:
        return await law() == []

    await eventually(kept)


class Silent:
    """Nobody who knows answers."""

    async def violations(self, now_ms: int) -> list[str]:
        raise QuestionError("billing_unavailable", f"nobody answers at {now_ms}")


class Wrong:
    """One hold is dead."""

    async def violations(self, now_ms: int) -> list[str]:
        return [f"acme/t{now_ms}"]


async def test_the_live_check_has_the_law_as_a_metric_and_is_no_check_where_it_cannot_be_told(
    world: Any, make: Any
) -> None:
    async def absent(_sequence: int) -> str | None:
        return None

    metrics = Metrics("billing")
    store = LedgerStore(world.pool)
    await LawWatch(Auditor(store, absent, Wrong()), metrics, lambda: make.now_ms).check()
    assert f'{names.METRIC_LAW_VIOLATIONS}{{law="{HOLDS_LIVE}"}} 1.0' in metrics.render().decode()
    silent = Metrics("billing")
    with pytest.raises(QuestionError):
        await LawWatch(Auditor(store, absent, Silent()), silent, lambda: make.now_ms).check()
    assert f"{names.METRIC_LAWS_CHECKED} 0.0" in silent.render().decode()
