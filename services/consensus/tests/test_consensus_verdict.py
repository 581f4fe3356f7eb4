"""What a plan comes to, and the message it becomes."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from collegium_consensus.course import Settle, Terms, Why, close
from collegium_consensus.course import judge as judgement_of
from collegium_consensus.members import Member, seen
from collegium_consensus.verdict import decide
from collegium_contracts.content import Answer, Choice, decode_answer
from collegium_contracts.experiments import Trial
from collegium_contracts.messages import AttemptAnswered, AttemptEnded, TaskCanceled, TaskCompleted, TaskFailed
from collegium_contracts.routing import Route
from collegium_learning.answers import said
from hypothesis import given
from hypothesis import strategies as st


def said_by(answers: Any) -> dict[int, str]:
    return {number: said(answer) for number, answer in answers.items()}


def opened(members: list[AttemptEnded]) -> dict[int, Answer]:
    return {
        member.attempt.number: decode_answer(member.answer.body)
        for member in members
        if isinstance(member, AttemptAnswered)
    }


def judge(make: Any, members: list[AttemptEnded], answers: dict[int, Answer] | None = None, **terms: Any) -> Any:
    """Settles members of which nobody is out."""
    answers = opened(members) if answers is None else answers
    ends = seen([Member(member, place, "") for place, member in enumerate(members)], said_by(answers))
    of = Terms(**({"plan": "panel", "of": len(members), "deadline_ms": make.now_ms + 50_000} | terms))
    codes = {end.error_code for end in ends}
    why: Why = "canceled" if "canceled" in codes else "deadline" if "deadline_exceeded" in codes else "decided"
    return decide(members, answers, Settle(why, judgement_of(ends, of)), make.now_ms)


def test_most_votes_win(make: Any) -> None:
    members = [make.answered(1, "Lyon"), make.answered(2, "Paris"), make.answered(3, "**paris**")]
    settled = judge(make, members)
    assert isinstance(settled, TaskCompleted)
    assert (settled.model, settled.output, settled.turn) == ("m2", members[1].answer, members[1].turn)
    assert 0.5 < settled.confidence < 1
    assert settled.stop_reason == "completed"
    assert [call.number for call in settled.attempts] == [1, 2, 3]


def test_a_tie_goes_to_the_lowest_attempt(make: Any) -> None:
    members = [make.answered(number, text, of=4) for number, text in enumerate(["b", "a", "a", "b"], 1)]
    settled = judge(make, members)
    assert (settled.model, settled.stop_reason) == ("m1", "completed")


def test_without_two_that_agree_the_first_answer_stands_as_no_majority(make: Any) -> None:
    settled = judge(make, [make.failed(1), make.answered(2, "a"), make.answered(3, "b")])
    assert isinstance(settled, TaskCompleted)
    assert (settled.model, settled.stop_reason) == ("m2", "no_majority")
    assert settled.confidence < 0.5


@pytest.mark.parametrize(
    ("finish", "reason"), [("stop", "completed"), ("length", "length"), ("content_filter", "content_filter")]
)
def test_the_stop_reason_is_the_winners(make: Any, finish: str, reason: str) -> None:
    members = [make.answered(1, "a", finish=finish), make.answered(2, "a"), make.failed(3)]
    assert judge(make, members).stop_reason == reason


def test_all_failed_is_no_verdict(make: Any) -> None:
    settled = judge(make, [make.failed(1), make.failed(2, "upstream_error"), make.failed(3)])
    assert isinstance(settled, TaskFailed)
    assert (settled.error.code, settled.stop_reason) == ("no_verdict", "failed")
    assert "upstream_error, upstream_timeout" in settled.error.message
    assert (settled.usage.cost_usd_picos, settled.usage.charge_usd_picos) == (30, 0)


def test_where_a_rule_stopped_every_answer_its_client_is_told_which(make: Any) -> None:
    def blocked(number: int) -> AttemptEnded:
        failed = make.failed(number, "gate_blocked")
        return msgspec.structs.replace(failed, error=msgspec.structs.replace(failed.error, gate="no-names"))

    settled = judge(make, [blocked(1), blocked(2)])
    assert isinstance(settled, TaskFailed)
    assert (settled.stop_reason, settled.error.code, settled.error.gate) == ("gate", "gate_blocked", "no-names")
    mixed = judge(make, [blocked(1), make.failed(2)])
    assert (mixed.stop_reason, mixed.error.code) == ("failed", "no_verdict")


def test_a_deadline_without_an_answer_is_a_deadline(make: Any) -> None:
    settled = judge(make, [make.failed(1), make.failed(2, "deadline_exceeded"), make.failed(3)])
    assert isinstance(settled, TaskFailed)
    assert (settled.error.code, settled.stop_reason) == ("deadline_exceeded", "deadline")


def test_time_that_is_over_gives_the_best_that_there_is(make: Any) -> None:
    members = [make.answered(1, "a"), make.answered(2, "b"), make.failed(3, "deadline_exceeded")]
    settled = judge(make, members)
    assert isinstance(settled, TaskCompleted)
    assert (settled.model, settled.stop_reason) == ("m1", "deadline")
    ends = seen([Member(members[0], 1, "")], said_by(opened(members)))
    early = decide(members[:1], opened(members), close(ends, Terms("panel", 3, make.now_ms)), make.now_ms)
    assert (early.model, early.stop_reason, len(early.attempts)) == ("m1", "deadline", 1)


def test_a_quality_that_was_stated_and_not_reached_is_told(make: Any) -> None:
    for wanted, reason in ((0.0, "completed"), (0.5, "completed"), (0.99, "below_quality")):
        task = make.task(plan="cascade", quality_min=wanted)
        members = [make.answered(number, "a", of=2, task=task) for number in (1, 2)]
        settled = judge(make, members, plan="cascade", threshold=wanted)
        assert (settled.model, settled.stop_reason) == ("m1", reason)


def test_a_canceled_member_cancels_the_task_and_keeps_what_was_answered(make: Any) -> None:
    members = [make.answered(1, "a"), make.failed(2, "canceled"), make.failed(3, "upstream_error")]
    settled = judge(make, members)
    assert isinstance(settled, TaskCanceled)
    assert settled.partial == members[0].answer
    # The answer and what was generated until the cancellation, and not the upstream's failure.
    assert settled.usage.charge_usd_picos == 24


def test_an_answer_that_cannot_be_read_does_not_vote(make: Any) -> None:
    members = [make.answered(1, "a"), make.answered(2, "b"), make.answered(3, "b")]
    answers = opened(members)
    del answers[1]
    assert judge(make, members, answers).model == "m2"


def test_none_that_can_be_read_is_no_verdict(make: Any) -> None:
    settled = judge(make, [make.answered(1, "a", of=1)], {})
    assert isinstance(settled, TaskFailed)
    assert settled.error.code == "no_verdict"


def test_a_wasted_call_costs_and_is_not_charged(make: Any) -> None:
    wasted = msgspec.structs.replace(make.answered(3, "a"), call=msgspec.structs.replace(make.call(3), wasted=True))
    settled = judge(make, [make.answered(1, "a"), make.answered(2, "a"), wasted])
    assert (settled.usage.cost_usd_picos, settled.usage.charge_usd_picos) == (30, 24)


def test_tool_calls_agree_without_their_ids_and_whatever_the_order_of_their_arguments() -> None:
    def calling(call_id: str, arguments: str) -> Answer:
        call = {"id": call_id, "type": "function", "function": {"name": "find", "arguments": arguments}}
        return Answer([Choice(finish_reason="tool_calls", tool_calls=[msgspec.Raw(msgspec.json.encode(call))])])

    first, second = calling("a", '{"x":1,"y":"z"}'), calling("b", '{"y": "z", "x": 1}')
    assert said(first) == said(second)
    assert said(first) != said(calling("c", '{"x":2,"y":"z"}'))
    assert said(first) != said(calling("d", "[" * 100_000))
    assert said(first) != said(calling("e", "not json"))


@given(st.lists(st.sampled_from(["a", "b", "c", "A.", " b "]), min_size=1, max_size=9))
def test_the_winner_is_in_the_largest_camp_and_the_first_of_it(make: Any, answers: list[str]) -> None:
    settled = judge(make, [make.answered(number, text, of=len(answers)) for number, text in enumerate(answers, 1)])
    votes = [text.strip(" .").lower() for text in answers]
    largest = max(votes.count(one) for one in votes)
    first = next(number for number, one in enumerate(votes, 1) if votes.count(one) == largest)
    assert settled.model == f"m{first}"


def test_those_who_give_up_do_not_agree_with_each_other(make: Any) -> None:
    gave_up = "I'm sorry, I cannot answer that."
    settled = judge(make, [make.answered(1, gave_up), make.answered(2, gave_up), make.answered(3, "Paris")])
    assert (settled.model, settled.stop_reason) == ("m3", "no_majority")
    settled = judge(make, [make.answered(1, gave_up, of=2), make.answered(2, gave_up, of=2)])
    assert isinstance(settled, TaskCompleted), "what was said is given, whatever it is worth"
    assert settled.model == "m1"


@given(data=st.data(), outcomes=st.lists(st.sampled_from(["a", "b", "!upstream_error", "!canceled"]), min_size=1))
def test_the_order_of_members_does_not_matter(make: Any, data: st.DataObject, outcomes: list[str]) -> None:
    members = [
        make.failed(number, outcome[1:], of=len(outcomes))
        if outcome.startswith("!")
        else make.answered(number, outcome, of=len(outcomes))
        for number, outcome in enumerate(outcomes, 1)
    ]
    shuffled = data.draw(st.permutations(members))
    settled = judge(make, members)
    assert judge(make, shuffled) == settled
    assert 0 <= settled.usage.charge_usd_picos <= sum(member.call.usage.charge_usd_picos for member in members)
    assert settled.usage.cost_usd_picos == sum(member.call.usage.cost_usd_picos for member in members)


def test_a_plan_that_is_tried_says_so_once_by_its_first_member_whoever_wins(make: Any) -> None:
    tried = Route(model="m1", rank="teacher", trial=Trial(id="exp_1", arm="candidate"))
    plain = Route(model="m3", rank="student", reasons=["member"])
    routes = {1: tried, 2: msgspec.structs.replace(tried, model="m2"), 3: plain}
    said = {1: "Lyon", 2: "Paris", 3: "Paris"}
    members = [msgspec.structs.replace(make.answered(one, said[one]), route=route) for one, route in routes.items()]
    settled = judge(make, members)
    assert (settled.model, settled.route) == ("m2", tried)
    assert judge(make, list(reversed(members))).route == tried
    broken = msgspec.structs.replace(make.failed(1), route=tried)
    assert judge(make, [broken, *members[1:]]).route == tried
    assert judge(make, [msgspec.structs.replace(one, route=plain) for one in members]).route is None
