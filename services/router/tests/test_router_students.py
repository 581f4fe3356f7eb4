"""Students in the roster: for their tenants alone, within limits, and asked by nobody before they earned it."""

from __future__ import annotations

from typing import Any

import pytest
from collegium_bus.errors import RequestRefusedError
from collegium_contracts.errors import TaskError
from collegium_contracts.messages import TaskRef
from collegium_contracts.state import Roster
from collegium_contracts.students import StudentIntroduce, StudentOf, StudentRetire
from collegium_router.choosing.plan import eligible
from collegium_router.roster.fleet_models import Models
from collegium_router.roster.roster import merge
from collegium_router.roster.students import introduced, retired
from collegium_router.roster.switching import ranked

NOW_MS = 1_767_225_600_000


def asked(name: str = "head.acme.x", tenant: str = "acme", content: str = "c", **more: Any) -> StudentIntroduce:
    fields: dict[str, Any] = {"domain": "desk", "models_max": 5, "domain_max": 2} | more
    grants = fields.pop("grants", [])
    return StudentIntroduce(
        model=name, student=StudentOf(kind="head", tenants=[tenant, *grants], content=content), **fields
    )


def names(roster: Roster, tenant: str, model: str = "auto") -> list[str] | str:
    task = TaskRef(id="tsk_1", tenant=tenant, created_at_ms=0, deadline_ms=1, model=model, domain="desk")
    found = eligible(task, 10, Models(roster.models))
    return found.code if isinstance(found, TaskError) else [one.name for one in found]


@pytest.fixture
def roster(model: Any) -> Roster:
    return Roster(version=1, models=[model("big", rank="teacher")])


def test_a_student_answers_its_tenant_by_name_and_those_it_was_granted_to(roster: Roster) -> None:
    made = introduced(roster, asked(grants=["globex"]), NOW_MS)
    assert made.version == 2
    assert names(made, "acme", "head.acme.x") == ["head.acme.x"]
    assert names(made, "globex", "head.acme.x") == ["head.acme.x"]
    assert names(made, "other", "head.acme.x") == "unknown_model"


def test_nobody_who_does_not_name_it_is_given_it_before_it_earned_a_rank_there(roster: Roster) -> None:
    made = introduced(roster, asked(), NOW_MS)
    assert names(made, "acme") == ["big"]
    models = [ranked(one, "ta", "desk", "acme") if one.student is not None else one for one in made.models]
    earned = Roster(version=3, models=models)
    assert names(earned, "acme") == ["big", "head.acme.x"]
    assert names(earned, "other") == ["big"]


def test_a_tenants_task_does_not_look_through_the_students_of_others(roster: Roster) -> None:
    for number in range(50):
        roster = introduced(roster, asked(f"head.t{number}.x", f"t{number}", grants=["granted", f"t{number}"]), NOW_MS)
    models = Models(roster.models)
    assert [one.name for one in models.offered("t7")] == ["big", "head.t7.x"]
    assert len(list(models.offered("granted"))) == 51
    assert [one.name for one in models.offered("other")] == ["big"]


def test_new_content_takes_the_place_of_the_old_and_the_same_changes_nothing(roster: Roster) -> None:
    made = introduced(roster, asked(), NOW_MS)
    assert introduced(made, asked(), NOW_MS) is made
    again = introduced(made, asked(content="d"), NOW_MS)
    assert [one.student.content for one in again.models if one.student is not None] == ["d"]


@pytest.mark.parametrize(
    ("wanted", "code"),
    [
        (asked("big"), "already_exists"),
        (asked(tenant="globex"), "already_exists"),
        (asked("head.acme.y", models_max=1), "too_many_students"),
        (asked("head.acme.y", domain_max=1), "too_many_students"),
    ],
)
def test_names_and_limits_are_kept(roster: Roster, wanted: StudentIntroduce, code: str) -> None:
    made = introduced(roster, asked(), NOW_MS)
    with pytest.raises(RequestRefusedError) as refused:
        introduced(made, wanted, NOW_MS)
    assert refused.value.code == code
    assert introduced(made, asked("head.acme.y", domain="other", domain_max=1), NOW_MS).version == 3


def test_a_retired_student_is_gone_and_no_other_model_is(roster: Roster) -> None:
    made = introduced(roster, asked(), NOW_MS)
    assert retired(made, StudentRetire(model="big")) is made
    left = retired(made, StudentRetire(model="head.acme.x"))
    assert [one.name for one in left.models] == ["big"]
    assert retired(left, StudentRetire(model="head.acme.x")) is left


def test_a_restart_keeps_students_although_no_file_names_them(roster: Roster) -> None:
    made = introduced(roster, asked(), NOW_MS)
    assert merge(made, roster.models, NOW_MS) is made
