"""Which requests leave their plan to the router: those that name none, where novel questions are for several."""

from __future__ import annotations

import msgspec
import pytest
from collegium_contracts.envelope import IdentityKeyring
from collegium_contracts.money import Price
from collegium_contracts.worstcase import worst_picos
from collegium_gateway.admission.admission import asked_by_chat, asked_by_task, submission
from collegium_gateway.admission.opening import NOTHING_TRIED, with_open_plan
from collegium_gateway.admission.requests import decode_chat, decode_task, options_of, parse
from collegium_gateway.identity.principal import Principal
from collegium_gateway.people.terms import with_people
from collegium_settings.people import PeopleSettings
from collegium_settings.routing import RoutingSettings

WHO = Principal("acme", "blue", "key00001", frozenset(("chat",)))
PANEL = RoutingSettings(novel="panel")
MESSAGES = [{"role": "user", "content": "hello"}]


@pytest.fixture
def open_plan(model):
    price = Price(input_picos=1_000, output_picos=1_000)
    models = [model("cheap", price=price, charge=price), model("dear", price=price, charge=price)]

    def admit(routing: RoutingSettings = PANEL, *, collegium=None, is_task=False, tried=None, **fields):
        fields = {"model": "auto", "max_tokens": 100, **fields}
        if is_task:
            request = parse(decode_task, msgspec.json.encode({"input": "hello", **fields, **(collegium or {})}))
            asked = asked_by_task(request, options_of(request))
        else:
            body = {"messages": MESSAGES, **fields, "collegium": collegium or {}}
            asked = asked_by_chat(parse(decode_chat, msgspec.json.encode(body)))
        made = submission(
            asked, WHO, models, IdentityKeyring(), task_id="tsk_" + "1" * 26, reply="r1", now_ms=1_767_225_600_000
        )
        made = with_people(made, asked.options, PeopleSettings())
        known = NOTHING_TRIED if tried is None else lambda _task: tried
        return with_open_plan(made, asked, WHO, routing, models, known), models

    return admit


@pytest.mark.parametrize("is_task", [False, True])
def test_a_request_that_names_no_plan_is_open(open_plan, is_task):
    found, models = open_plan(is_task=is_task)
    assert (found.task.plan, found.task.open_to, found.panel_size) == ("auto", ["panel"], 3)
    single, _ = open_plan(RoutingSettings(), is_task=is_task)
    assert worst_picos(found, models) == 3 * worst_picos(single, models)


def test_without_the_setting_nothing_changes(open_plan):
    for routing in (RoutingSettings(), RoutingSettings(novel="panel", novel_tenants={"acme": "single"})):
        found, _ = open_plan(routing)
        assert (found.task.plan, found.task.open_to) == ("single", [])


def test_a_tenant_may_have_a_plan_of_its_own(open_plan):
    found, _ = open_plan(RoutingSettings(novel_tenants={"acme": "cascade", "globex": "panel"}, novel_members=5))
    assert (found.task.open_to, found.panel_size) == (["cascade"], 3)


@pytest.mark.parametrize(
    "fields",
    [
        {"collegium": {"plan": "single"}},
        {"collegium": {"plan": "panel"}},
        {"collegium": {"quality_min": 0.9}},
        {"collegium": {"approval": {"after": "client"}}},
        {"model": "dear"},
        {"stream": True},
        {"n": 2},
        {"tools": [{"type": "function", "function": {"name": "f"}}]},
    ],
)
def test_what_a_client_chose_and_what_cannot_be_compared_is_not_open(open_plan, fields):
    found, _ = open_plan(**fields)
    assert (found.task.open_to, found.task.plan != "auto") == ([], True)


def test_a_request_is_open_only_where_all_of_it_surely_costs_no_more_than_its_client_allows(open_plan):
    _, models = open_plan()
    one = worst_picos(open_plan(RoutingSettings())[0], models)

    def usd(picos: int) -> dict[str, str]:
        return {"budget_usd_max": f"{picos / 10**12:.12f}"}

    assert open_plan(collegium=usd(3 * one))[0].task.open_to == ["panel"]
    assert open_plan(collegium=usd(3 * one - 1))[0].task.open_to == []


def test_what_is_tried_is_held_for_beside_what_novel_questions_become(open_plan):
    tried = (["cascade", "panel"], 5)
    found, models = open_plan(RoutingSettings(), tried=tried)
    assert (found.task.open_to, found.panel_size) == (["single", "cascade", "panel"], 5)
    both, _ = open_plan(tried=(["panel"], 2))
    assert (both.task.open_to, both.panel_size) == (["panel"], 3)
    assert worst_picos(found, models) == 5 * worst_picos(open_plan(RoutingSettings())[0], models)
    assert open_plan(RoutingSettings(), tried=tried, stream=True)[0].task.open_to == []
