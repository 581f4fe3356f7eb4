"""Prompt students in the roster: at their base's price and bounds, under their own name and rank."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from collegium_bus.errors import RequestRefusedError
from collegium_contracts import codec
from collegium_contracts.callnote import CallNote
from collegium_contracts.money import Price
from collegium_contracts.state import ModelRecord, Roster
from collegium_contracts.students import StudentIntroduce, StudentOf
from collegium_contracts.worstcase import worst_picos
from collegium_router.choosing.plan import Fleet, Planned, Wait, make_plan
from collegium_router.limits.permits import AttemptKey, Permit, Permits
from collegium_router.limits.quota import Size
from collegium_router.limits.resources import Resources
from collegium_router.roster.bases import with_bases
from collegium_router.roster.fleet_models import Models
from collegium_router.roster.roster import merge
from collegium_router.roster.students import introduced, retired

NAME = "prompt.acme.desk-0a0a0a0a"
PROMPT = StudentOf(kind="prompt", tenants=["acme"], content="claim", base="small", prompt_bytes=3_000)


def model(name: str, price: int = 1, **fields: Any) -> ModelRecord:
    paid = Price(input_picos=price, output_picos=price)
    values: dict[str, Any] = {"rank": "ta", "pool": "p", "max_output_tokens": 100, "context_tokens": 8_000} | fields
    return ModelRecord(name=name, price=paid, charge=paid, **values)


def asked(**student: Any) -> StudentIntroduce:
    return StudentIntroduce(
        model=NAME, domain="desk", student=msgspec.structs.replace(PROMPT, **student), models_max=2, domain_max=1
    )


def taken(roster: Roster, question: StudentIntroduce) -> Roster:
    """The roster as it is written."""
    anew = introduced(roster, question, 7)
    return msgspec.structs.replace(anew, models=with_bases(anew.models))


ROSTER = Roster(version=1, models=[model("small", 3, tokens_per_window=50), model("large", 30, rank="teacher")])


def test_a_prompt_is_its_base_under_its_own_name_rank_and_domain():
    prompt = taken(ROSTER, asked()).models[-1]
    assert (prompt.name, prompt.rank, prompt.domains, prompt.enabled) == (NAME, "student", ["desk"], True)
    assert (prompt.price, prompt.pool, prompt.max_output_tokens, prompt.tokens_per_window) == (
        ROSTER.models[0].price, "p", 100, 50,
    )  # fmt: skip
    assert prompt.context_tokens == 8_000 - 1_001
    assert prompt.student == PROMPT


@pytest.mark.parametrize("base", ["", "nobody", NAME, "embedder", "gone"])
def test_whom_nothing_can_be_shown_is_no_base(base: str):
    models = [*ROSTER.models, model("embedder", kind="embedding"), model("gone", enabled=False)]
    with pytest.raises(RequestRefusedError) as refused:
        introduced(Roster(version=1, models=models), asked(base=base), 7)
    assert (refused.value.code, refused.value.param) == ("not_found", "base")


def test_it_follows_its_bases_price_and_goes_with_it():
    roster = taken(ROSTER, asked())
    dearer = [model("small", 5), *roster.models[1:]]
    assert with_bases(dearer)[-1].price.input_picos == 5
    promoted = [*roster.models[:2], msgspec.structs.replace(roster.models[2], rank="ta", drained=True)]
    assert [(one.rank, one.drained) for one in with_bases(promoted)[-1:]] == [("ta", True)]
    assert not with_bases(roster.models[1:])[-1].enabled
    merged = merge(roster, ROSTER.models[1:], 9)
    assert {one.name: one.enabled for one in merged.models} == {"large": True, NAME: False, "small": False}
    again = merge(merged, ROSTER.models, 10)
    assert {one.name: one.enabled for one in again.models} == {"large": True, NAME: True, "small": True}
    assert retired(roster, _retire()).models == ROSTER.models


def _retire() -> Any:
    return type("Retire", (), {"model": NAME})()


def test_a_drained_base_is_asked_by_nobody_and_its_student_comes_back_with_it():
    roster = taken(ROSTER, asked())
    drained = [msgspec.structs.replace(roster.models[0], drained=True), *roster.models[1:]]
    written = with_bases(drained)
    assert not written[-1].drained
    assert Models(written)[NAME].drained
    assert not Models(with_bases(roster.models))[NAME].drained


def test_limits_count_prompts_and_heads_together():
    head = StudentOf(kind="head", tenants=["acme"], content="c")
    roster = Roster(version=1, models=[*ROSTER.models, model("head.acme.x", student=head, domains=["desk"])])
    with pytest.raises(RequestRefusedError) as refused:
        introduced(roster, asked(), 7)
    assert refused.value.code == "too_many_students"


def test_a_hold_covers_what_a_prompt_adds_and_domains_that_are_yet_to_be_found(submission: Any):
    base = model("small", 3, context_tokens=100_000)
    roster = [base, model(NAME, 3, context_tokens=100_000, student=PROMPT, domains=["topic-0a0a0a0a"])]
    without = worst_picos(submission(), roster[:1])
    assert worst_picos(submission(), roster) == without + 3_000 * 3
    assert worst_picos(submission(domain="law"), roster) == without


def test_a_prompt_counts_against_what_its_base_may_be_asked_upstream():
    permits = Permits()
    resources = Resources(permits, lambda name: 2 if name == "model small" else 10_000, lambda: 1)
    small = model("small", 3, tokens_per_window=1_000, token_window_seconds=60, concurrency=2)
    roster = taken(Roster(version=1, models=[small]), asked())
    assert resources.use_roster(codec.encode(roster))
    student, quotas = resources.models[NAME], resources.quotas
    assert list(quotas.limited) == ["small"]
    assert [name for name in resources.needs({}) if "prompt" in name] == []
    permits.take(Permit(AttemptKey("t1", 1, 1), "acme", "small", "p", 1, 0, 300))
    assert resources.has_room(student)
    permits.take(Permit(AttemptKey("t2", 1, 1), "acme", NAME, "p", 1, 0, 300))
    assert not resources.has_room(student)
    assert not resources.has_room(small)
    quotas.use_book(quotas.begin_book())
    size = Size(40, 100)
    assert quotas.has_room(student, size, 1)
    quotas.hear(1, 1, CallNote(NAME, 350, 5))
    assert not quotas.has_room(student, size, 1)
    assert not quotas.has_room(small, size, 1)
    permits.give_back("t2")
    assert (permits.by_model, permits.tokens_by_model["small"]) == ({"small": 1}, 300)


def test_a_prompt_waits_while_its_base_is_left_alone(submission: Any):
    models = Models(taken(ROSTER, asked()).models)
    until = {"small": 5}
    fleet = Fleet(models, {}, until, lambda _model, _pool: True, 1)
    waiting = make_plan(submission(NAME, domain="desk"), fleet)
    assert waiting == Wait(5, is_open=True)
    assert isinstance(make_plan(submission(NAME, domain="desk"), fleet._replace(now_ms=5)), Planned)
