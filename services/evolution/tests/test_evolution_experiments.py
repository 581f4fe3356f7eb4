"""Experiments on a real database and broker: folded once, looked at, taken back, published, killed, erased."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import asyncpg
import msgspec
import pytest
from collegium_bus.errors import BrokerUnavailableError, RequestRefusedError
from collegium_bus.kv import Bucket
from collegium_contracts import codec
from collegium_contracts import subjects as s
from collegium_contracts.envelope import Envelope
from collegium_contracts.experiment_requests import (
    ExperimentAct,
    ExperimentCreate,
    ExperimentRow,
    ExperimentsAsk,
    FlagSet,
    FlagSwitch,
    HoldoutSet,
)
from collegium_contracts.experiments import (
    ARM_KEY_PREFIX,
    NOTHING,
    Change,
    Running,
    RunningFlag,
    Trial,
    arm_key,
    set_key,
)
from collegium_contracts.messages import Feedback
from collegium_contracts.money import Price
from collegium_contracts.parts import Probe
from collegium_contracts.policy_requests import PolicyRow
from collegium_contracts.probes import ProbeCompared
from collegium_contracts.routing import Route
from collegium_contracts.state import ModelRecord, Roster
from collegium_evolution.experiments import experiment_store, exposure_store
from collegium_evolution.experiments.answers import Experiments
from collegium_evolution.experiments.checking import check_draft
from collegium_evolution.experiments.exposures import asked_in, exposure_in
from collegium_evolution.policies import policy_store
from collegium_evolution.scoreboards.judging import outcome_of
from collegium_evolution.scoreboards.store import Folding, Store
from collegium_runtime.audit import Audit

Told = list[tuple[str, str, dict[str, Any]]]


@pytest.fixture
async def pool(database_url: str) -> AsyncIterator[asyncpg.Pool]:
    pool = await asyncpg.create_pool(database_url, min_size=1, max_size=4)
    yield pool
    await pool.close()


@pytest.fixture
async def stage(pool: asyncpg.Pool, platforms: Any, make: Any) -> AsyncIterator[Any]:
    platform = await platforms()
    told: Told = []

    async def tell(name: str, kind: str, about: dict[str, Any]) -> None:
        told.append((name, kind, about))

    free = Price()
    models = [
        ModelRecord(
            name=name, rank="student", pool="general", price=free, charge=free, max_output_tokens=9, context_tokens=99
        )
        for name in ("large", "small")
    ]
    roster = Roster(version=1, models=models)
    await Bucket(platform.connection, s.KV_MODELS).put(s.ROSTER_KEY, codec.encode(roster))
    audit = Audit.of(platform)
    yield Stage(platform, pool, make, Experiments(platform, pool, audit, tell), told)
    await audit.stop()


class Stage:
    """Evolution's room of experiments, and events as they come."""

    def __init__(self, platform: Any, pool: asyncpg.Pool, make: Any, room: Experiments, told: Told) -> None:
        self.pool, self.room, self.told = pool, room, told
        self.bucket = Bucket(platform.connection, s.KV_POLICY)
        self.store = Store(pool, "scoreboard")
        self._make = make
        self._sequence = 0

    async def ask(self, question: Any) -> Any:
        return (await self.room.answer(question, "")).rows

    async def begun(self, **fields: Any) -> ExperimentRow:
        extra = {name: fields.pop(name) for name in ("auto_stop",) if name in fields}
        wanted = {"id": "", "kind": "model", "control": NOTHING, "candidate": Change(model="small"), "tenant": "acme"}
        (row,) = await self.ask(ExperimentCreate(running=Running(**(wanted | fields)), name="n", by="k", **extra))
        return (await self.ask(ExperimentAct(id=row.running.id, act="start", by="k")))[0]

    async def published(self, tenant: str = "acme") -> Any:
        entry = await self.bucket.get(set_key(tenant))
        return codec.state.decode(entry.value) if entry is not None else None

    async def learned(self, version: int) -> None:
        """Keeps a version of acme's policy, learned by itself."""
        row = PolicyRow(
            tenant="acme", version=version, state="superseded", created_at_ms=version, rows=1, family="f",
            tolerance=0.1, why="",
        )  # fmt: skip
        await policy_store.put(self.pool, policy_store.Stored(row, b"policy %d" % version, version))

    async def armed(self) -> set[int]:
        """Returns the versions of acme's policy that routers can try."""
        entries = [one async for one in self.bucket.entries(f"{ARM_KEY_PREFIX}acme.*") if not one.deleted]
        assert all(one.value == b"policy " + one.key.rpartition(".")[2].encode() for one in entries)
        return {int(one.key.rpartition(".")[2]) for one in entries}

    async def ended(self, row: ExperimentRow, arm: str, count: int, *, score: float = 1.0, failing: int = 0) -> None:
        """Folds tasks of an arm with a word each, every batch twice."""
        events: list[Folding] = []
        for place in range(count):
            self._sequence += 2
            name = f"t{self._sequence}"
            task = self._make.task(name, tenant=row.running.tenant or "acme")
            trial = Trial(id=row.running.id, arm=arm, unit=name)  # type: ignore[arg-type]
            code = "upstream_error" if place < failing else ""
            settled = self._make.settled(task, [self._make.call(model="small", error_code=code)])
            settled = msgspec.structs.replace(settled, route=Route(model="small", rank="student", trial=trial))
            word = Feedback(id="f", task=task, source="client", score=score, at_ms=1, model="small", rank="student")
            for number, message in enumerate((settled, word)):
                stored_ns = 1_000 + self._sequence + number
                events.append(
                    Folding(
                        self._sequence + number,
                        stored_ns,
                        [],
                        outcome_of(message, stored_ns),
                        tenant=task.tenant,
                        exposure=exposure_in(message),
                        asked=asked_in(message),
                    )
                )
        # Words in a batch of their own too, as they come later in life.
        for batch in (events[: count // 2], events[count // 2 :], events):
            await self.store.fold(batch)


async def test_what_runs_is_published_one_surface_has_one_experiment_and_flags_are_killed(stage: Stage) -> None:
    first = await stage.begun()
    known = await stage.published()
    assert [one.id for one in known.experiments] == [first.running.id]
    with pytest.raises(RequestRefusedError) as refused:
        await stage.begun(domain="law")
    assert refused.value.code == "experiment_conflict"
    with pytest.raises(RequestRefusedError) as everybody:
        await stage.begun(tenant="")
    assert everybody.value.code == "experiment_conflict"
    await stage.begun(kind="prompt", candidate=_told(), model="large")
    await stage.ask(ExperimentAct(id=first.running.id, act="ramp", by="k", share=1.0))
    with pytest.raises(RequestRefusedError):
        await stage.ask(ExperimentAct(id=first.running.id, act="ramp", by="k", share=0.5))
    await stage.ask(ExperimentAct(id=first.running.id, act="stop", by="k", tenant="acme"))
    with pytest.raises(RequestRefusedError) as gone:
        await stage.ask(ExperimentAct(id=first.running.id, act="start", by="k"))
    assert gone.value.code == "experiment_state"
    with pytest.raises(RequestRefusedError) as foreign:
        await stage.ask(ExperimentAct(id=first.running.id, act="conclude", by="k", tenant="beta", winner="control"))
    assert foreign.value.code == "not_found"
    assert [one.kind for one in (await stage.published()).experiments] == ["prompt"]
    await _flags(stage)


async def _flags(stage: Stage) -> None:
    flag = RunningFlag(name="f1", kind="model", change=Change(model="small"), tenant="acme")
    await stage.ask(FlagSet(flag=flag, by="k"))
    await stage.ask(HoldoutSet(tenant="acme", share=0.1, by="k"))
    await stage.ask(FlagSwitch(tenant="acme", name="f1", to="killed", by="k"))
    known = await stage.published()
    assert (known.flags, known.holdout, known.killed) == ([], 0.1, False)
    await stage.ask(FlagSwitch(tenant="acme", name="f1", to="on", by="k"))
    await stage.ask(FlagSwitch(tenant="acme", to="killed", by="k"))
    known = await stage.published()
    assert ([one.name for one in known.flags], known.killed) == (["f1"], True)
    await stage.ask(FlagSwitch(tenant="acme", name="f1", to="removed", by="k"))
    with pytest.raises(RequestRefusedError) as gone:
        await stage.ask(FlagSwitch(tenant="acme", name="f1", to="killed", by="k"))
    assert gone.value.code == "not_found"
    await stage.bucket.put(set_key("acme"), b"\xff")
    await stage.room.changing.publishing.mend()
    assert (await stage.published()).killed


async def test_events_count_once_a_look_says_what_they_prove_and_a_winner_is_rolled_out(stage: Stage) -> None:
    row = await stage.begun(auto_stop=True)
    await stage.ended(row, "control", 40, score=0.0)
    await stage.ended(row, "candidate", 40, score=1.0)
    await stage.ended(row, "holdout", 6)
    (shown,) = await stage.ask(ExperimentsAsk(id=row.running.id))
    arms = {arm.arm: arm for arm in shown.look.arms}
    assert {name: (arm.tasks, arm.judged) for name, arm in arms.items()} == {
        "control": (40, 40), "candidate": (40, 40), "holdout": (6, 6),
    }  # fmt: skip
    assert (arms["control"].quality, arms["candidate"].quality) == (0.0, 1.0)
    assert shown.look.verdict == "better"
    await stage.room.watching.round()
    (after,) = await stage.ask(ExperimentsAsk(id=row.running.id))
    assert (after.state, after.winner) == ("concluded", "candidate")
    second = await stage.begun()
    name = second.running.id
    await stage.ask(ExperimentAct(id=name, act="conclude", by="k", winner="candidate", rollout=True))
    known = await stage.published()
    assert [(flag.name, flag.change.model, flag.share) for flag in known.flags] == [(name, "small", 1.0)]


async def test_a_candidate_that_fails_is_taken_back_by_itself_once_and_erasing_leaves_nothing(stage: Stage) -> None:
    row = await stage.begun()
    await stage.ended(row, "control", 60)
    await stage.ended(row, "candidate", 60, failing=60)
    await stage.room.watching.round()
    await stage.room.watching.round()
    (after,) = await stage.ask(ExperimentsAsk(id=row.running.id))
    assert (after.state, after.winner) == ("rolled_back", "control")
    assert "errors is worse than the guardrail" in after.changes[-1].reason
    assert (await stage.published()).experiments == []
    assert [kind for _, kind, _ in stage.told] == ["experiment.rolled_back"]
    # Its surface is free again; and a tenant that is erased leaves nothing.
    again = await stage.begun()
    await stage.ended(again, "control", 4)
    assert await stage.room.erase("acme") >= 6
    assert await stage.published() is None
    assert await experiment_store.running(stage.pool) == []
    assert (await exposure_store.told(stage.pool, again.running.id)).units == []


async def test_versions_of_a_policy_stand_as_long_as_something_names_them(stage: Stage) -> None:
    for version in (1, 2, 3):
        await stage.learned(version)
    flag = RunningFlag(name="f1", kind="policy", change=Change(policy_version=1), tenant="acme")
    await stage.ask(FlagSet(flag=flag, by="k"))
    tried = await stage.begun(kind="policy", control=Change(policy_version=3), candidate=Change(policy_version=2))
    assert await stage.armed() == {1, 2, 3}
    name = tried.running.id
    await stage.ask(ExperimentAct(id=name, act="conclude", by="k", winner="candidate", rollout=True))
    assert await stage.armed() == {1, 2}
    # What the bucket lost is put again.
    entry = await stage.bucket.get(arm_key("acme", 2))
    await stage.bucket.delete(arm_key("acme", 2), expected_revision=entry.revision)
    await stage.room.changing.publishing.mend()
    assert await stage.armed() == {1, 2}
    await stage.ask(FlagSwitch(tenant="acme", name="f1", to="killed", by="k"))
    assert await stage.armed() == {2}
    # A killed flag may be let go on again: its version is not pruned either, but what nothing names is.
    await stage.learned(policy_store.KEPT + 3)
    assert [await policy_store.version(stage.pool, "acme", version) is not None for version in (1, 2, 3)] == [
        True, True, False,
    ]  # fmt: skip
    await stage.ask(FlagSwitch(tenant="acme", name="f1", to="on", by="k"))
    assert await stage.armed() == {1, 2}


async def test_what_fails_for_one_experiment_keeps_no_other_from_its_guardrails(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = [await stage.begun(tenant=tenant) for tenant in ("acme", "beta")]
    for row in rows:
        await stage.ended(row, "control", 60)
        await stage.ended(row, "candidate", 60, failing=60)
    garbage = (
        "INSERT INTO evolution.experiments (id, tenant, state, created_ms, row) VALUES ('e', 'x', 'running', 1, $1)"
    )
    await stage.pool.execute(garbage, b"\xff")
    told, first = exposure_store.told, rows[0].running.id

    async def failing(pool: Any, experiment: str) -> Any:
        if experiment == first:
            raise ValueError("broken")
        return await told(pool, experiment)

    monkeypatch.setattr(exposure_store, "told", failing)
    await stage.room.watching.round()
    assert [row.running.id for row in await experiment_store.running(stage.pool)] == [first]
    assert await stage.room.changing.take_back("exp_gone", "it does harm") is None


async def test_a_rollback_is_told_while_the_broker_is_away_and_published_once_it_is_back(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    row = await stage.begun()
    changing = stage.room.changing
    with monkeypatch.context() as away:

        async def refusing(*_: Any, **__: Any) -> int:
            raise BrokerUnavailableError("away")

        away.setattr(Bucket, "put", refusing)
        assert await changing.take_back(row.running.id, "it does harm") is not None
    assert [kind for _, kind, _ in stage.told] == ["experiment.rolled_back"]
    assert (await stage.published()).experiments != []
    await changing.publishing.mend()
    assert (await stage.published()).experiments == []


async def test_no_older_set_follows_a_newer_and_publishing_waits_for_no_change(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    await stage.ask(HoldoutSet(tenant="acme", share=0.1, by="k"))
    publishing = stage.room.changing.publishing
    value, turns = publishing._value, iter((0.2, 0.3))

    async def meanwhile(tenant: str) -> Any:
        found = await value(tenant)
        if (share := next(turns, None)) is not None:
            await experiment_store.turn(stage.pool, tenant, holdout=share)
            await publishing.publish(tenant)
        return found

    monkeypatch.setattr(publishing, "_value", meanwhile)
    async with stage.pool.acquire() as connection, connection.transaction():
        await experiment_store.lock(connection)
        await asyncio.wait_for(publishing.publish("acme"), 60)
    assert (await stage.published()).holdout == 0.3


def test_a_question_asked_of_both_arms_tells_which_was_asked(make: Any) -> None:
    task = make.task("t1")
    compared = ProbeCompared(
        task=task, kind="trial", probe="p1", at_ms=3, model="large", rank="teacher", probe_model="small",
        probe_rank="student", probe_usage=make.call(model="small"), same=False,
        trial=Trial(id="exp_1", arm="candidate"),
    )  # fmt: skip
    assert asked_in(compared) == ("exp_1", task.tenant, task.id, "candidate", False, 3)
    probe = msgspec.structs.replace(task, probe=Probe(of="t0", kind="trial"))
    route = Route(model="small", rank="student", trial=Trial(id="exp_1", arm="control"))
    assert exposure_in(msgspec.structs.replace(make.settled(probe, []), route=route)) is None
    assert exposure_in(make.settled(task, [])) is None


@pytest.mark.parametrize(
    ("wanted", "code"),
    [
        ({"candidate": NOTHING}, "invalid_value"),
        ({"candidate": Change(model="nobody")}, "unknown_model"),
        ({"model": "large"}, "invalid_value"),
        ({"share": 0.0}, "invalid_value"),
        ({"kind": "policy", "candidate": Change(policy_version=9)}, "not_found"),
        ({"kind": "policy", "tenant": "", "candidate": Change(policy_version=9)}, "invalid_value"),
        ({"candidate": Change(model="small", policy_version=1)}, "invalid_value"),
        ({"kind": "plan", "candidate": Change(model="small", plan="panel")}, "invalid_value"),
        ({"kind": "plan", "candidate": Change(plan="panel", members=1)}, "invalid_value"),
        ({"kind": "plan", "candidate": Change(plan="panel"), "model": "large"}, "invalid_value"),
        ({"kind": "plan", "candidate": Change(plan="panel"), "interleave": 0.1}, "invalid_value"),
    ],
)
def test_what_could_not_be_carried_out_is_refused(wanted: dict[str, Any], code: str) -> None:
    fine = {"id": "", "kind": "model", "control": NOTHING, "candidate": Change(model="small"), "tenant": "acme"}
    check_draft(ExperimentCreate(running=Running(**fine), name="n", by="k"), {"large", "small"}, {1})
    with pytest.raises(RequestRefusedError) as refused:
        check_draft(ExperimentCreate(running=Running(**(fine | wanted)), name="n", by="k"), {"large", "small"}, {1})
    assert refused.value.code == code


def test_plans_are_tried_on_one_tenant_or_on_all() -> None:
    for tenant in ("acme", ""):
        one = Running(id="", kind="plan", control=NOTHING, candidate=Change(plan="cascade"), tenant=tenant)
        check_draft(ExperimentCreate(running=one, name="n", by="k"), {"large", "small"}, set())


def test_a_panel_counts_once_with_what_all_its_members_cost(make: Any) -> None:
    task = msgspec.structs.replace(make.task("t1"), plan="panel")
    route = Route(model="large", rank="teacher", trial=Trial(id="exp_1", arm="candidate", unit="u"))
    settled = make.settled(task, [make.call(number=number) for number in (1, 2, 3)])
    usage = msgspec.structs.replace(settled.usage, cost_usd_picos=13)
    found = exposure_in(msgspec.structs.replace(settled, plan="panel", route=route, usage=usage))
    assert (found.experiment, found.arm, found.cost_picos, found.failed) == ("exp_1", "candidate", 13.0, False)


def _told() -> Change:
    return Change(instruction=Envelope("k", b"n", b"sealed"), instruction_bytes=6, label="v2")


async def test_what_was_being_published_of_a_tenant_when_it_was_erased_does_not_stay(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    await stage.ask(HoldoutSet(tenant="acme", share=0.1, by="k"))
    publishing = stage.room.changing.publishing
    await publishing.erase("acme")
    put = publishing._bucket.put

    async def late(key: str, value: bytes, **fields: Any) -> int:
        monkeypatch.setattr(publishing._bucket, "put", put)
        await stage.room.erase("acme")
        return await put(key, value, **fields)

    monkeypatch.setattr(publishing._bucket, "put", late)
    await publishing.publish("acme")
    assert await publishing._bucket.get(set_key("acme")) is None
