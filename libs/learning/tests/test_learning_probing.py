"""Which settled work is asked again: a task's id decides, the settled message says of whom, and money bounds it."""

from __future__ import annotations

from typing import Any

from collegium_contracts import ids
from collegium_contracts.envelope import Envelope
from collegium_contracts.messages import Sampling, TaskCompleted, TaskRef, TaskSubmitted
from collegium_contracts.money import Price, Usage
from collegium_contracts.parts import Probe, Reuse
from collegium_contracts.state import ModelRecord
from collegium_contracts.students import StudentOf
from collegium_learning.probing import Allowance, asked_of, can_be_probed, drawn, is_drawn, probe_of
from hypothesis import given
from hypothesis import strategies as st

NOW_MS = 1_767_225_600_000
SEALED = Envelope("identity", b"", b"[]")


def submitted(number: int = 1, sampling: Sampling | None = None, **task: Any) -> TaskSubmitted:
    values: dict[str, Any] = {
        "id": ids.task_id(NOW_MS, number.to_bytes(10, "big")),
        "tenant": "acme",
        "created_at_ms": NOW_MS,
        "deadline_ms": NOW_MS + 50_000,
        "model": "auto",
        "plan": "single",
        "reply": "gw1",
        "tags": {"team": "x"},
    }
    return TaskSubmitted(
        task=TaskRef(**(values | task)), prompt=SEALED, sampling=sampling or Sampling(stream=True), prompt_bytes=9
    )


def model(name: str, rank: Any, price: int = 1, **fields: Any) -> ModelRecord:
    prices = Price(input_picos=price, output_picos=price)
    return ModelRecord(
        name=name, rank=rank, pool="general", price=prices, charge=prices, max_output_tokens=9, context_tokens=99,
        **fields,
    )  # fmt: skip


def settled(rank: str, name: str = "m", **task: Any) -> TaskCompleted:
    return TaskCompleted(
        task=submitted(**task).task, plan="single", stop_reason="completed", usage=Usage(), attempts=[],
        settled_at_ms=NOW_MS, model=name, rank=rank, output=SEALED,
    )  # fmt: skip


FLEET = {
    one.name: one
    for one in (
        model("s1", "student"), model("s2", "student"), model("mid", "ta"), model("dear", "teacher", 9),
        model("fair", "teacher", 3), model("law", "teacher", domains=["law"]),
        model("off", "teacher", 0, enabled=False),
    )
}  # fmt: skip


def test_draws_are_a_tasks_own_and_even():
    names = [ids.task_id(NOW_MS, number.to_bytes(10, "big")) for number in range(4_000)]
    for share in (0.02, 0.5):
        taken = sum(is_drawn(name, "audit", share) for name in names)
        assert abs(taken / len(names) - share) < 4 * (share * (1 - share) / len(names)) ** 0.5
    assert [drawn(name, "audit") for name in names[:9]] == [drawn(name, "audit") for name in names[:9]]
    # Audits and shadows are drawn apart from each other.
    both = sum(is_drawn(name, "audit", 0.5) and is_drawn(name, "shadow", 0.5) for name in names)
    assert 0.2 < both / len(names) < 0.3
    assert not any(is_drawn(name, "audit", 0.0) for name in names)
    assert all(is_drawn(name, "audit", 1.0) for name in names)


def test_what_is_not_the_same_question_again_is_not_asked_again():
    assert can_be_probed(submitted())
    assert can_be_probed(submitted(plan="cascade"))
    for other in (
        submitted(conversation="c"), submitted(memory="project/p"), submitted(plan="panel"),
        submitted(kind="embedding"), submitted(sampling=Sampling(n=2)), submitted(probe=Probe(of="x")),
    ):  # fmt: skip
        assert not can_be_probed(other)


def test_a_probe_asks_the_same_for_nobody_who_waits():
    asked = submitted(callback=True, quality_min=0.5, hold_expires_ms=7, model="named")
    probe = probe_of(asked, Probe(of=asked.task.id, kind="audit"), NOW_MS + 5, 60_000)
    task = probe.task
    assert (probe.prompt, task.tenant, task.project, task.domain) == (asked.prompt, "acme", "default", "")
    assert (task.plan, probe.panel_size, task.priority, task.reply, task.callback) == ("panel", 1, "low", "", False)
    assert task.hold_expires_ms == task.quality_min == 0
    assert not probe.sampling.stream
    assert task.not_before_ms == NOW_MS + 5 + 60_000
    assert task.deadline_ms - task.not_before_ms == 50_000
    assert ids.TASK_ID.match(task.id)
    assert task.id != asked.task.id
    assert probe_of(asked, Probe(of=asked.task.id, kind="audit"), NOW_MS + 99, 1).task.id == task.id
    assert probe_of(asked, Probe(of=asked.task.id, kind="shadow"), NOW_MS + 5, 1).task.id != task.id
    assert not can_be_probed(probe)


def test_an_audit_asks_the_cheapest_teacher_about_what_no_teacher_said():
    audit = Probe(of="x", kind="audit")
    assert asked_of(audit, settled("student"), FLEET) == "fair"
    assert asked_of(audit, settled("ta", domain="law"), FLEET) == "law"
    assert asked_of(audit, settled("teacher"), FLEET) == ""
    assert asked_of(audit, settled("student", models=["s1", "dear"]), FLEET) == "dear"
    assert asked_of(audit, settled("student"), {"s1": FLEET["s1"]}) == ""
    assert asked_of(audit, settled("student", reused=Reuse(original="y")), FLEET) == ""


def test_a_shadow_asks_each_of_those_below_the_teachers():
    shadow = Probe(of="x", kind="shadow")
    asked = {asked_of(shadow, settled("teacher", "dear", number=number), FLEET) for number in range(60)}
    assert asked == {"s1", "s2", "mid"}
    assert asked_of(shadow, settled("student"), FLEET) == ""
    assert asked_of(shadow, settled("teacher", models=["dear"]), FLEET) == ""


def test_shadows_look_mostly_at_who_may_be_good_enough_and_never_at_who_costs_more():
    shadow, fleet = Probe(of="x", kind="shadow"), {**FLEET, "lux": model("lux", "ta", 99)}
    asked = [asked_of(shadow, settled("teacher", "dear", number=one), fleet, ["mid"]) for one in range(200)]
    assert set(asked) == {"s1", "s2", "mid"}
    assert asked.count("mid") > 160
    assert {asked_of(shadow, settled("teacher", "dear", number=one), fleet, ["gone"]) for one in range(60)} == {
        "s1", "s2", "mid",
    }  # fmt: skip


def test_a_student_is_asked_in_the_shadow_for_its_own_tenants_alone():
    shadow, tenants = Probe(of="x", kind="shadow"), ["globex"]
    fleet = {"h": model("h", "student", student=StudentOf(kind="head", tenants=tenants)), "dear": FLEET["dear"]}
    assert asked_of(shadow, settled("teacher", "dear"), fleet) == ""
    assert asked_of(shadow, settled("teacher", "dear", tenant="globex"), fleet) == "h"


@given(
    st.lists(
        st.one_of(st.tuples(st.just("earn"), st.integers(0, 10**6)), st.tuples(st.just("spend"), st.integers(0, 10**6)))
    )
)
def test_probes_never_cost_more_than_their_share(moves: list[tuple[str, int]]):
    allowance = Allowance(0.1)
    earned = spent = 0
    for number, (move, picos) in enumerate(moves):
        if move == "earn":
            allowance.earn(picos)
            earned += picos
        elif allowance.spend(str(number), picos, NOW_MS):
            spent += picos
        assert spent <= 0.1 * earned + 1e-6


def test_what_a_probe_did_not_cost_is_given_back_once():
    allowance = Allowance(0.5)
    allowance.earn(200)
    assert allowance.spend("a", 90, NOW_MS)
    assert allowance.spend("a", 90, NOW_MS)
    assert not allowance.spend("b", 20, NOW_MS)
    allowance.ended("x", 0)
    allowance.ended("a", 30)
    allowance.ended("a", 0)
    assert allowance.spend("b", 70, NOW_MS)
    assert not allowance.spend("c", 1, NOW_MS)
    # An endpoint that used more than it may has not more to give back.
    allowance.ended("b", 1_000)
    assert not allowance.spend("c", 1, NOW_MS)


def test_a_probe_that_was_never_heard_of_stays_spent_and_is_remembered_no_longer():
    allowance = Allowance(1.0)
    allowance.earn(100)
    assert allowance.spend("a", 60, NOW_MS + 1)
    assert allowance.spend("b", 30, NOW_MS + 2)
    allowance.forget(NOW_MS + 1)
    earned, spent, out = allowance.kept()
    assert (earned, spent, list(out)) == (100.0, 90, ["b"])
    allowance.ended("a", 0)
    assert not allowance.spend("c", 11, NOW_MS + 3)


def test_free_work_may_be_probed_by_free_models():
    allowance = Allowance(0.0)
    assert allowance.spend("a", 0, NOW_MS)
    assert not allowance.spend("b", 1, NOW_MS)
