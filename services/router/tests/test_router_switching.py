"""Ranks by domain and tenant, and drained models: the next decision takes them, a restart keeps them."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import msgspec
import pytest
from collegium_bus.errors import RequestRefusedError, TooLargeError
from collegium_bus.kv import Entry
from collegium_contracts.codec import encode, reply
from collegium_contracts.errors import TaskError
from collegium_contracts.evolution import ModelSwitch
from collegium_contracts.messages import TaskRef
from collegium_contracts.ranks import applying, as_ranked
from collegium_contracts.requests import Refused
from collegium_contracts.state import Roster
from collegium_router.choosing.plan import eligible
from collegium_router.roster import switching
from collegium_router.roster.fleet_models import Models
from collegium_router.roster.roster import merge
from collegium_router.roster.switching import ModelAnswers, ranked, switched
from hypothesis import given
from hypothesis import strategies as st

RANKS = st.sampled_from(["student", "ta", "teacher"])
NAMES = st.sampled_from(["", "maths", "law"])
TENANTS = st.sampled_from(["", "acme", "globex"])


def task(domain: str, tenant: str = "acme", model: str = "auto") -> TaskRef:
    return TaskRef(id="tsk_1", tenant=tenant, created_at_ms=0, deadline_ms=1, model=model, domain=domain)


def first(models: list[Any], about: TaskRef) -> tuple[str, str]:
    found = eligible(about, 10, Models(models))
    assert not isinstance(found, TaskError)
    return found[0].name, found[0].rank


def test_an_earned_rank_counts_in_its_domain_for_its_tenant_and_nowhere_else(model: Any) -> None:
    small = ranked(ranked(model("small"), "ta", "maths", ""), "teacher", "maths", "acme")
    assert [applying(small, *where) for where in (("acme", "maths"), ("globex", "maths"), ("acme", "law"))] == [
        "teacher", "ta", "student",
    ]  # fmt: skip
    big = model("big", rank="ta", price=msgspec.structs.replace(model("x").price, input_picos=9))
    assert first([small, big], task("maths")) == ("small", "teacher")
    assert first([small, big], task("maths", "globex")) == ("small", "ta")
    assert first([small, big], task("law")) == ("big", "ta")
    assert first([small], task("maths", model="small")) == ("small", "teacher")


@given(st.lists(st.tuples(NAMES, TENANTS, st.one_of(st.none(), RANKS)), max_size=12))
def test_of_each_domain_and_tenant_the_last_word_stands(changes: list[tuple[str, str, Any]]) -> None:
    from collegium_contracts.money import Price
    from collegium_contracts.state import ModelRecord

    free = Price()
    standing = ModelRecord(
        name="m", rank="student", pool="general", price=free, charge=free, max_output_tokens=1, context_tokens=1
    )
    last: dict[tuple[str, str], Any] = {}
    for domain, tenant, rank in changes:
        standing = ranked(standing, rank, domain, tenant)
        last[domain, tenant] = rank
        assert ranked(standing, rank, domain, tenant) is standing
    assert {(one.domain, one.tenant): one.rank for one in standing.earned} == {
        key: rank for key, rank in last.items() if rank is not None
    }
    for (domain, tenant), rank in last.items():
        if rank is not None:
            assert applying(standing, tenant, domain) == rank == as_ranked(standing, tenant, domain).rank


def test_a_restart_keeps_earned_ranks_and_what_was_drained(model: Any) -> None:
    standing = switched(ranked(model("a"), "teacher", "maths", ""), drained=True)
    roster = Roster(version=3, models=[standing])
    assert merge(roster, [model("a")], 5) is roster
    moved = merge(roster, [model("a", pool="gpu")], 5).models[0]
    assert (moved.pool, moved.earned, moved.drained) == ("gpu", standing.earned, True)


def test_a_drained_model_gets_no_work_and_its_fallback_does(model: Any) -> None:
    named = switched(model("a", fallbacks=["b"]), drained=True)
    models = [named, model("b")]
    assert first(models, task("", model="a"))[0] == "b"
    assert first(models, task(""))[0] == "b"
    alone = eligible(task("", model="a"), 10, Models([named]))
    assert isinstance(alone, TaskError)
    assert alone.code == "no_eligible_model"
    assert first([switched(named, drained=False)], task(""))[0] == "a"


def test_more_ranks_than_the_roster_has_room_for_are_refused(model: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(switching, "EARNED_MAX", 2)
    full = ranked(ranked(model("a"), "ta", "one", ""), "ta", "two", "")
    with pytest.raises(RequestRefusedError) as refused:
        ranked(full, "ta", "three", "")
    assert refused.value.code == "too_many_ranks"
    assert ranked(full, "teacher", "two", "").earned[1].rank == "teacher"


async def test_a_roster_that_the_broker_does_not_take_is_refused_as_too_large(model: Any) -> None:
    answered: list[bytes] = []

    class Full:
        async def get(self, key: str) -> Entry:
            return Entry(key, encode(Roster(version=1, models=[model("small")])), 1)

        async def put(self, *_args: Any, **_fields: Any) -> int:
            raise TooLargeError("over a megabyte")

    connection: Any = SimpleNamespace(publish=lambda _subject, payload: answered.append(payload))
    bucket: Any = Full()
    answers = ModelAnswers(connection, bucket, lambda: 0)
    await answers._answer("reply", encode(ModelSwitch(model="small", drained=True)))
    (refused,) = [reply.decode(payload) for payload in answered]
    assert isinstance(refused, Refused)
    assert refused.code == "roster_too_large"
