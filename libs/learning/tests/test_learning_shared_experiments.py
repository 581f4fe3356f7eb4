"""Experiments of several tenants: what one says ends nothing, what all say does, and what was measured does."""

from __future__ import annotations

import numpy as np
import pytest
from collegium_contracts.experiments import Guardrails
from collegium_learning.experiments import sharing
from collegium_learning.experiments.looking import Terms, Unit, Word, look
from collegium_learning.experiments.sharing import look_shared

TERMS = Terms(0.05, 0.02, Guardrails())


def words(tenant: str, count: int, control: float, candidate: float, seed: int) -> list[Word]:
    rng = np.random.default_rng(seed)
    given = rng.random(count) < 0.5
    right = rng.random(count) < np.where(given, candidate, control)
    return [Word(bool(one), float(word), tenant) for one, word in zip(given, right, strict=True)]


def mixed(*parts: list[Word]) -> list[Word]:
    told = [word for part in parts for word in part]
    return [told[place] for place in np.random.default_rng(9).permutation(len(told))]


def failing(tenant: str, count: int, share: float, seed: int) -> list[Unit]:
    rng = np.random.default_rng(seed)
    return [
        Unit(given, bool(rng.random() < (share if given else 0.0)), False, 100.0, 1.0, tenant)
        for given in (rng.random(count) < 0.5).tolist()
    ]


def test_one_tenant_that_makes_up_its_words_takes_nothing_back_and_decides_nothing():
    told = mixed(words("liar", 900, 1.0, 0.0, 1), words("a", 300, 0.8, 0.8, 2), words("b", 300, 0.8, 0.8, 3))
    alone = look([], told, TERMS)
    assert ([one.metric for one in alone.breached], alone.verdict) == (["quality"], "worse")
    found = look_shared([], told, TERMS)
    assert (found.breached, found.verdict) == ([], "open")
    quality = found.effects[0]
    assert (quality.rests_on_one, quality.value) == (True, alone.effects[0].value), "the figures stay everybody's"


def test_what_was_measured_is_taken_back_though_one_tenant_alone_meets_it():
    for others in (1, 800):
        told = failing("large", 5_000, 0.3, 1) + failing("small", others, 0.0, 2)
        found = look_shared(told, [], TERMS)
        assert [(one.metric, one.rests_on_one) for one in found.breached] == [("errors", False)]
    slow = [unit._replace(failed=False, duration_ms=900.0 if unit.failed else 100.0) for unit in told]
    assert [one.metric for one in look_shared(slow, [], TERMS).breached] == ["slow"]


def test_words_of_one_tenant_take_nothing_back_beside_what_was_measured():
    units = failing("large", 1_000, 0.3, 1) + failing("small", 1, 0.0, 2)
    found = look_shared(units, words("large", 900, 1.0, 0.0, 3), TERMS)
    assert [(one.metric, one.breached, one.rests_on_one) for one in found.effects[:2]] == [
        ("quality", False, True), ("errors", True, False),
    ]  # fmt: skip


def test_a_liar_is_found_in_few_looks_also_where_many_say_more(monkeypatch: pytest.MonkeyPatch):
    honest = [words(f"t{seed}", 400 if seed < 5 else 2, 0.8, 0.8, seed) for seed in range(60)]
    told = mixed(*honest, *([Word(True, 0.0, "liar"), Word(False, 1.0, "liar")] * 18 for _ in range(10)))
    looks = []
    monkeypatch.setattr(sharing, "look", lambda *asked: looks.append(1) or look(*asked))
    assert [one.metric for one in look([], told, TERMS).breached] == ["quality"]
    assert look_shared([], told, TERMS).breached == []
    harmed = mixed(*(words(f"t{seed}", 40, 0.9, 0.5, seed) for seed in range(60)))
    looks.clear()
    assert [one.metric for one in look_shared([], harmed, TERMS).breached] == ["quality"]
    assert len(looks) <= 1 + 3 * sharing.LEFT_OUT_OF_EACH


def test_harm_that_several_tenants_tell_of_is_taken_back():
    told = mixed(*(words(name, 400, 0.9, 0.5, seed) for seed, name in enumerate(("a", "b", "c"))))
    found = look_shared([], told, TERMS)
    assert ([one.metric for one in found.breached], found.verdict) == (["quality"], "worse")
    better = mixed(*(words(name, 1_500, 0.6, 0.8, seed) for seed, name in enumerate(("a", "b", "c"))))
    assert look_shared([], better, TERMS).verdict == "better"


def test_where_one_tenant_alone_takes_part_it_decides_for_itself():
    told = words("a", 900, 0.9, 0.4, 1)
    assert look_shared([], told, TERMS) == look([], told, TERMS)
    # Others who take part and say nothing are others all the same.
    silent = failing("b", 50, 0.0, 2)
    assert look_shared(silent, told, TERMS).breached == []
