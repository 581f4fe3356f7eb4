"""What a request may cost: read as it is written, promised as a bound, refused where it cannot be kept."""

from decimal import Decimal

import msgspec
import pytest
from collegium_contracts.envelope import IdentityKeyring
from collegium_contracts.money import Price
from collegium_contracts.students import StudentOf
from collegium_contracts.worstcase import affordable, worst_picos
from collegium_gateway.admission.admission import asked_by_chat, check_people, submission
from collegium_gateway.admission.requests import Options, decode_chat, parse
from collegium_gateway.errors import ApiError
from collegium_gateway.identity.principal import Principal
from collegium_gateway.people.terms import with_people
from collegium_settings.people import PeopleSettings, QueueSettings

WHO = Principal("acme", "blue", "key00001", frozenset(("chat",)))


@pytest.fixture
def admit(model):
    def priced(name: str, picos: int):
        price = Price(input_picos=picos, output_picos=picos)
        return model(name, price=price, charge=price)

    models = [priced("cheap", 1_000), priced("dear", 1_000_000)]

    def admit(model: str = "auto", **options):
        body = {"model": model, "max_tokens": 100, "messages": [{"role": "user", "content": "hello"}]}
        asked = asked_by_chat(parse(decode_chat, msgspec.json.encode({**body, "collegium": options})))
        made = submission(
            asked, WHO, models, IdentityKeyring(), task_id="tsk_" + "1" * 26, reply="r1", now_ms=1_767_225_600_000
        )
        return made, models

    return admit


def test_a_budget_bounds_what_is_held(admit):
    free, models = admit()
    bound, _ = admit(budget_usd_max="0.000001")
    assert worst_picos(free, models) > 10**8
    assert bound.task.cost_max_picos == 10**6
    assert 0 < worst_picos(bound, models) <= 10**6


@pytest.mark.parametrize(
    "options",
    [
        {"budget_usd_max": "0.000000000001"},
        {"model": "dear", "budget_usd_max": "0.000001"},
        {"plan": "panel", "budget_usd_max": "0.000001"},
    ],
)
def test_what_cannot_be_kept_is_refused_with_what_would_do(admit, options):
    with pytest.raises(ApiError) as raised:
        admit(**options)
    assert raised.value.code == "budget_too_small"
    assert "USD" in str(raised.value)


@pytest.mark.parametrize("plan", ["single", "panel"])
def test_a_paid_person_counts_against_what_a_request_may_cost(admit, plan):
    made, models = admit(plan=plan, budget_usd_max="1")
    check_people(made, models, WHO)
    queues = {"experts": QueueSettings(usd=Decimal("0.9999999"))}
    asking = with_people(made, Options(ask_below=0.9, ask="experts"), PeopleSettings(queues=queues))
    assert asking.task.people is not None
    assert asking.task.people.unsure is not None
    with pytest.raises(ApiError) as raised:
        check_people(asking, models, WHO)
    assert raised.value.code == "budget_too_small"
    if plan == "single":
        assert affordable(made, models) == models
        assert affordable(asking, models) == []


def test_a_prompt_student_is_held_for_what_it_shows_too(admit, model):
    made, _ = admit()
    long = msgspec.structs.replace(made, prompt_bytes=10_000)
    base = model("base", price=Price(input_picos=1), charge=Price(input_picos=1), context_tokens=1_000)
    student = StudentOf(kind="prompt", tenants=["acme"], base="base", prompt_bytes=900)
    shown = msgspec.structs.replace(base, name="shown", student=student, context_tokens=1_000 - 301)
    assert worst_picos(long, [shown]) == worst_picos(long, [base]) == 1_000


def test_a_plan_of_several_is_let_go_where_all_of_it_fits(admit):
    assert admit(plan="panel", budget_usd_max="1")[0].task.plan == "panel"
