"""The journey ladder: order, ages, ways from the journey table, columns, and nothing of the contents."""

from __future__ import annotations

import msgspec
from collegium_cli.tasks.ladder import of_task, table
from collegium_contracts.envelope import Envelope
from collegium_contracts.errors import TaskError
from collegium_contracts.journey import HOPS
from collegium_contracts.ladder import ladder
from collegium_contracts.messages import (
    AttemptAnswered,
    AttemptAsked,
    AttemptDiscarded,
    AttemptFailed,
    AttemptRef,
    AttemptStarted,
    AttemptUsage,
    CancelRequested,
    JourneyMessage,
    TaskCompleted,
    TaskDispatched,
    TaskFailed,
    TaskRef,
)
from collegium_contracts.money import Price, Usage
from collegium_contracts.routing import Route

CREATED_MS = 1_000_000
TASK = TaskRef(id="tsk_1", tenant="acme", created_at_ms=CREATED_MS, deadline_ms=CREATED_MS + 50_000, model="auto")
ATTEMPT = AttemptRef(
    number=2, of=3, model="glm-4.5", rank="ta", pool="general", price=Price(1, 1), charge=Price(1, 1), plan="panel"
)
CALL = AttemptUsage(
    number=2,
    delivery=1,
    model="glm-4.5",
    rank="ta",
    usage=Usage(input_tokens=7, output_tokens=5, cost_usd_picos=630_000),
    duration_ms=420,
)
SECRET = Envelope("identity", b"", b"a private answer")

STARTED = AttemptStarted(task=TASK, attempt=ATTEMPT, delivery=1, worker="w", at_ms=0)
ANSWERED = AttemptAnswered(task=TASK, attempt=ATTEMPT, answer=SECRET, call=CALL, at_ms=0)
COMPLETED = TaskCompleted(
    task=TASK,
    plan="panel",
    stop_reason="completed",
    usage=Usage(input_tokens=21, output_tokens=15, cost_usd_picos=1_890_000),
    attempts=[CALL],
    settled_at_ms=0,
    model="glm-4.5",
    rank="ta",
    confidence=2 / 3,
    output=SECRET,
)


def the_only_rung(message: JourneyMessage):
    (rung,) = ladder([(1, CREATED_MS, message)])
    return rung


def test_rungs_stand_in_stream_order_with_ages_since_the_tasks_creation() -> None:
    rungs = ladder([(9, CREATED_MS + 500, COMPLETED), (3, CREATED_MS + 2, STARTED), (5, CREATED_MS + 450, ANSWERED)])
    assert [(rung.sequence, rung.age_ms, rung.message) for rung in rungs] == [
        (3, 2, "AttemptStarted"),
        (5, 450, "AttemptAnswered"),
        (9, 500, "TaskCompleted"),
    ]


def test_a_broker_whose_clock_is_behind_makes_no_negative_age() -> None:
    (rung,) = ladder([(1, CREATED_MS - 40, STARTED)])
    assert rung.age_ms == 0


def test_hop_and_way_are_the_journey_tables() -> None:
    hop = next(hop for hop in HOPS if "AttemptStarted" in hop.messages)
    rung = the_only_rung(STARTED)
    assert rung.hop == hop.number
    assert rung.way == f"{'/'.join(hop.senders)} → {', '.join(hop.receivers)}"


def test_a_settled_message_is_shown_as_the_stored_hop_not_as_the_notification() -> None:
    assert the_only_rung(COMPLETED).hop == 6


def test_an_answered_attempt_shows_attempt_model_rank_cost_and_verdict() -> None:
    rung = the_only_rung(ANSWERED)
    found = (rung.attempt, rung.model, rung.rank, rung.cost_usd, rung.verdict)
    assert found == (2, "glm-4.5", "ta", "0.00000063", "answered")


def test_a_failed_attempt_shows_its_error_code_as_verdict() -> None:
    error = TaskError(code="upstream_timeout", message="the endpoint said something private")
    rung = the_only_rung(AttemptFailed(task=TASK, attempt=ATTEMPT, error=error, call=CALL, at_ms=0))
    assert rung.verdict == "upstream_timeout"
    assert "private" not in table([rung])


def test_a_discarded_call_shows_what_it_cost() -> None:
    rung = the_only_rung(AttemptDiscarded(task=TASK, attempt=ATTEMPT, call=CALL, at_ms=0))
    assert (rung.verdict, rung.cost_usd) == ("discarded", "0.00000063")


def test_the_settled_rung_shows_the_tasks_cost_stop_reason_and_agreement() -> None:
    rung = the_only_rung(COMPLETED)
    assert (rung.cost_usd, rung.verdict, rung.attempt) == ("0.00000189", "completed", 0)
    assert "confidence 67%" in rung.says


def test_a_failed_task_names_its_code() -> None:
    failed = TaskFailed(
        task=TASK,
        plan="single",
        stop_reason="deadline",
        usage=Usage(),
        attempts=[],
        settled_at_ms=0,
        error=TaskError(code="deadline", message="too late"),
    )
    rung = the_only_rung(failed)
    assert rung.verdict == "deadline"
    assert "deadline" in rung.says


def test_a_dispatch_names_its_models_once() -> None:
    dispatched = TaskDispatched(task=TASK, plan="panel", models=["a", "a", "b"], at_ms=0)
    rung = the_only_rung(dispatched)
    assert (rung.model, rung.says) == ("a, b", "plan panel, 3 attempt(s)")


def test_a_plan_that_may_ask_on_says_so_and_why_it_did() -> None:
    begun = TaskDispatched(task=TASK, plan="cascade", models=["a", "b"], at_ms=0, of=4)
    assert the_only_rung(begun).says == "plan cascade, 2 of at most 4 attempts at first"
    chosen = msgspec.structs.replace(begun, task=msgspec.structs.replace(TASK, plan_reason="novel"))
    assert the_only_rung(chosen).says.endswith("; chosen by the platform: unlike anything known")
    asked = AttemptAsked(task=TASK, number=3, of=4, plan="cascade", at_ms=1, rank="ta", reason="confidence")
    known = msgspec.structs.replace(asked, confidence=0.47, threshold=0.7)
    rung = the_only_rung(known)
    assert (rung.hop, rung.attempt, rung.rank) == (4, 3, "ta")
    assert rung.says == "not confident enough, confidence 47%, wanted 70%"
    assert the_only_rung(msgspec.structs.replace(asked, reason="failure")).says == "no answer"


def test_a_cancellation_shows_its_reason() -> None:
    canceled = CancelRequested(task_id="tsk_1", tenant="acme", at_ms=0, reason="client_disconnected")
    assert the_only_rung(canceled).verdict == "client_disconnected"


def test_contents_are_never_shown() -> None:
    assert "private" not in table(ladder([(1, CREATED_MS, ANSWERED), (2, CREATED_MS, COMPLETED)]))


def test_the_table_has_a_line_for_each_rung_under_aligned_heads() -> None:
    head, *lines = table(ladder([(1, CREATED_MS, STARTED), (2, CREATED_MS + 12_345, COMPLETED)])).splitlines()
    assert len(lines) == 2
    assert all(line[head.index("message") :].startswith(("AttemptStarted", "TaskCompleted")) for line in lines)


def test_the_end_says_why_this_model():
    route = Route(
        model="glm-4.5",
        rank="ta",
        domain="law",
        policy_version=3,
        policy_of="tenant",
        propensity=0.985,
        reasons=["good_enough", "of_a_later_version"],
        quality=0.9,
        gain=0.015,
        features=SECRET,
    )
    said = the_only_rung(msgspec.structs.replace(COMPLETED, route=route)).says
    assert said.endswith(
        "why glm-4.5: the cheapest that is expected to be as good; of_a_later_version"
        " (tenant policy 3, domain law, expected 90%, +1.5% by the best, chance 0.98)"
    )
    assert "private" not in said
    first = msgspec.structs.replace(ANSWERED, route=Route(model="m", rank="ta", reasons=["no_policy"]))
    assert the_only_rung(first).says.endswith("why m: no policy stands: the highest rank that may answer")


def test_what_a_task_shows_becomes_a_short_ladder_without_ages_of_its_calls():
    call = {
        "number": 1,
        "model": "glm-4.5",
        "rank": "ta",
        "duration_ms": 420,
        "succeeded": True,
        "error": None,
        "wasted": False,
        "usage": {"input_tokens": 7, "output_tokens": 5, "cost_usd": "0.00000063"},
    }
    task = {
        "state": "completed",
        "created_at": "2026-01-01T00:00:00.000Z",
        "settled_at": "2026-01-01T00:00:01.500Z",
        "stop_reason": "completed",
        "attempts": [call, {**call, "number": 2, "wasted": True}, {**call, "succeeded": False, "error": "deadline"}],
        "collegium": {"plan": "panel", "model": "glm-4.5", "rank": "ta", "cost_usd": "0.00000189", "confidence": 0.7},
    }
    rungs = of_task(task)
    assert [rung.hop for rung in rungs] == [1, 3, 3, 3, 6]
    assert [rung.age_ms for rung in rungs] == [0, None, None, None, 1500]
    assert [rung.verdict for rung in rungs[1:]] == ["answered", "discarded", "deadline", "completed"]
    assert rungs[1].says == "420 ms, 7+5 tokens"
    assert (rungs[-1].cost_usd, rungs[-1].says) == ("0.00000189", "plan panel, confidence 70%")
    waiting = {**task, "state": "submitted", "settled_at": None, "attempts": [], "collegium": None}
    assert [rung.message for rung in of_task(waiting)] == ["TaskSubmitted"]
    assert "None" not in table(rungs)
