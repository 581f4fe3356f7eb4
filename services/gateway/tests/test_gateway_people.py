"""Whom a task asks, from its request and the operator's rules; who may answer; what is shown before others agreed."""

from __future__ import annotations

from typing import Any

import pytest
from collegium_bus.pauses import Waiting
from collegium_contracts.content import Answer, Choice, encode_content
from collegium_contracts.envelope import IdentityKeyring
from collegium_contracts.gates import GateRule
from collegium_contracts.messages import InputRequired, Sampling, TaskCompleted, TaskInput, TaskRef, TaskSubmitted
from collegium_contracts.money import Usage
from collegium_contracts.people import Question, numbered
from collegium_gateway.admission.requests import Approval, Options
from collegium_gateway.errors import ApiError
from collegium_gateway.identity.principal import Principal
from collegium_gateway.people.book import QuestionRow, Reachable, changes_of
from collegium_gateway.people.door import _reach
from collegium_gateway.people.terms import asked_by_gates, asks_first, with_people, with_rules
from collegium_gateway.people.views import waiting_view
from collegium_gateway.webhooks.values import pause_body
from collegium_settings.people import PeopleRuleSettings, PeopleSettings, QueueSettings

RING = IdentityKeyring()
QUEUES = {
    "experts": QueueSettings(labels=("law",)),
    "staff": QueueSettings(staff="tenant", tenants=("acme",)),
    "closed": QueueSettings(tenants=("globex",)),
}


def submitted(domain: str = "", **task: Any) -> TaskSubmitted:
    ref = TaskRef(
        id="tsk_" + "0" * 26, tenant="acme", created_at_ms=1, deadline_ms=2, model="auto", domain=domain, **task
    )
    return TaskSubmitted(task=ref, prompt=RING.seal("acme", b"[]"), sampling=Sampling(), prompt_bytes=2)


def people_of(options: Options, *rules: PeopleRuleSettings, domain: str = "", **settings: Any) -> Any:
    return with_people(submitted(domain), options, PeopleSettings(queues=QUEUES, rules=rules, **settings)).task.people


def test_who_asks_for_nobody_asks_nobody():
    assert people_of(Options()) is None
    assert people_of(Options(), PeopleRuleSettings(when="before", ask="client", tenants=("globex",))) is None
    assert people_of(Options(), PeopleRuleSettings(when="before", ask="client", domains=("law",))) is None


def test_a_request_and_the_operators_rules_ask_together_and_nobody_twice():
    rule = PeopleRuleSettings(when="before", ask="closed")
    asked = people_of(Options(approval=Approval(before=["client", "staff", "client"])), rule)
    assert [(one.id, one.of, one.queue) for one in asked.before] == [
        ("request-1", "client", ""), ("request-2", "tenant", "staff"), ("request-3", "operator", "closed"),
    ]  # fmt: skip
    assert not asked.at_answer


@pytest.mark.parametrize("name", ["closed", "nobody", ""])
def test_a_request_may_name_only_queues_that_are_open_to_its_tenant(name: str):
    with pytest.raises(ApiError) as refused:
        people_of(Options(approval=Approval(after=name)))
    assert refused.value.code == "unknown_queue"


def test_what_makes_a_model_unsure():
    asked = people_of(Options(ask_below=0.6), domain="tax")
    assert (asked.unsure.of, asked.unsure.kind, asked.below, asked.unsure.on_expiry) == (
        "client",
        "answer",
        0.6,
        "best",
    )
    assert people_of(Options(ask="experts")).below == 0.0
    rule = PeopleRuleSettings(when="unsure", ask="experts", below=0.8)
    both = people_of(Options(ask_below=0.6, ask="client"), rule, domain="tax")
    assert (both.unsure.queue, both.below, both.unsure.labels) == ("experts", 0.8, ["law", "tax"])


def test_how_long_and_what_then():
    asked = people_of(Options(approval=Approval(after="client"), input_expires_seconds=90, on_expiry="deny"))
    assert (asked.expires_ms, asked.after[0].on_expiry) == (90_000, "deny")
    settings = {"expires_seconds": 60, "on_expiry": "best"}
    asked = people_of(Options(approval=Approval(after="client")), **settings)
    assert (asked.expires_ms, asked.after[0].on_expiry) == (60_000, "best")


def test_rules_of_gates_ask_before_and_after():
    rule = GateRule(name="names-it", kind="topics", on=["request", "answer"], action="ask", ask="experts")
    settings = PeopleSettings(queues=QUEUES)
    after = with_rules(submitted(), [rule], settings, Options()).task.people
    assert after is not None
    assert after.rules["names-it"].queue == "experts"
    first = asked_by_gates(submitted(), [rule], settings)
    assert asks_first(first)
    assert first.task.people is not None
    assert [(one.id, one.rule) for one in first.task.people.before] == [("request-1", "names-it")]


def waiting(*questions: Question) -> Waiting:
    task = submitted(callback=True).task
    verdict = TaskCompleted(
        task=task, plan="single", stop_reason="completed", usage=Usage(), attempts=[], settled_at_ms=1,
        output=RING.seal("acme", encode_content(Answer([Choice("secret")]))),
    )  # fmt: skip
    pause = InputRequired(
        task=task, stage="answer", questions=numbered("answer", questions), at_ms=1, expires_at_ms=2, verdict=verdict
    )
    return Waiting(pause, "", {}, is_settled=False)


def test_a_client_sees_an_answer_before_others_agreed_only_where_nobody_else_has_to():
    own = waiting_view(waiting(Question(id="")), RING)
    assert own["candidate"][0]["text"] == "secret"
    shared = waiting_view(waiting(Question(id=""), Question(id="", of="operator", queue="experts")), RING)
    assert "secret" not in str(shared)
    assert b"secret" not in pause_body(waiting(Question(id="")).pause)


def who(tenant: str, *scopes: str, role: Any = "member") -> Principal:
    return Principal(tenant, "default", "key00001", frozenset(scopes), role=role)


@pytest.mark.parametrize(
    ("asker", "reach"),
    [
        (who("operator", "approvals", role="owner"), (None, ("operator",))),
        (who("operator", "admin", role="operator"), (None, ("operator",))),
        (who("acme", "approvals"), ("acme", ("tenant",))),
        (who("acme", "admin"), ("acme", ("tenant",))),
    ],
)
def test_whose_questions_somebody_sees(asker: Principal, reach: tuple[Any, ...]):
    found = _reach(asker)
    assert (found.tenant, found.whom) == reach


def test_a_reach_covers_its_own_alone():
    row = QuestionRow(
        task_id="t", question="answer-1", tenant="acme", stage="answer", kind="approval", whom="tenant", queue="staff",
        reason="requested", rule="", labels=[], state="open", created_at_ms=1, expires_at_ms=2,
    )  # fmt: skip
    assert Reachable("acme", ("tenant",)).covers(row)
    assert not Reachable("globex", ("tenant",)).covers(row)
    assert not Reachable(None, ("operator",)).covers(row)


def test_a_batch_about_nobody_changes_nothing():
    assert changes_of([submitted()]) is None
    pause = waiting(Question(id="")).pause
    given = TaskInput(
        tenant="acme", task_id=pause.task.id, question="answer-1", decision="approve", source="client", at_ms=3
    )
    changes = changes_of([pause, given])
    assert changes is not None
    assert (changes.paused, changes.given, changes.settled) == ([pause], [given], [])
