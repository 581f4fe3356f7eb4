"""From pairs and the roster to decisions about ranks. Pure.

Each model is weighed in each domain twice over: for every tenant that told enough, for whom alone it counts, and for
all of them. Going up it is compared with models of higher ranks, going down with those of its own rank and above; what
cascades tell is left out there, because they go on with what is hard. One rule: no place is left without a model of the
rank that is taken away.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Final, NamedTuple

import msgspec
from collegium_contracts.parts import Rank
from collegium_contracts.ranks import applying, with_earned
from collegium_contracts.state import ModelRecord
from collegium_learning.ranks import falling, tenants, together
from collegium_learning.ranks.decisions import RANKS, Decision, Evidence, Rules, demotion, promotion
from collegium_learning.ranks.pairs import Pairs

from collegium_evolution.ranks.pair_store import Counted

# A tenant with fewer pairs in a domain is not decided for on its own: no step asks for less.
OWN_MIN: Final = 30
# A model whose rank was earned in so many domains, and in all where it was compared, has it everywhere.
DOMAINS_MIN: Final = 3


class Weighed(NamedTuple):
    """What is known of one model in one place, and which models its latest pairs are to be looked at with."""

    evidence: Evidence
    beside: tuple[str, ...]


def weigh(models: Sequence[ModelRecord], counted: Iterable[Counted]) -> list[Weighed]:
    """Returns the evidence of every model in every place where anything is known, in a fixed order."""
    roster = {model.name: model for model in models if model.enabled and model.kind == "chat"}
    by_place: dict[tuple[str, str], list[Counted]] = {}
    for one in counted:
        if one.model in roster and one.other in roster:
            by_place.setdefault((one.model, one.domain), []).append(one)
    found: list[Weighed] = []
    for name, domain in sorted(by_place):
        told = by_place[name, domain]
        own: dict[str, int] = {}
        for one in told:
            own[one.tenant] = own.get(one.tenant, 0) + one.wins + one.losses + one.ties
        scopes = ["", *sorted(tenant for tenant, pairs in own.items() if tenant and pairs >= OWN_MIN)]
        found += [_weighed(roster, roster[name], domain, scope, told) for scope in scopes]
    return found


def _weighed(
    roster: Mapping[str, ModelRecord], model: ModelRecord, domain: str, scope: str, told: Sequence[Counted]
) -> Weighed:
    mine = RANKS.index(applying(model, scope, domain))
    above: dict[str, Pairs] = {}
    beside: dict[str, Pairs] = {}
    others: set[str] = set()
    prices: list[tuple[int, int]] = []
    sure = 0
    for one in told:
        if scope and one.tenant != scope:
            continue
        other = roster[one.other]
        theirs = RANKS.index(applying(other, scope, domain))
        pairs = Pairs(wins=one.wins, losses=one.losses, ties=one.ties, score_sum=one.score_sum)
        if theirs > mine:
            above[one.tenant] = above.get(one.tenant, Pairs()).plus(pairs)
            prices.append((pairs.count, price_of(other)))
            sure += pairs.count if one.kind == "held_out" else 0
        if theirs >= mine and one.kind != "escalation":
            beside[one.tenant] = beside.get(one.tenant, Pairs()).plus(pairs)
            others.add(one.other)
    asked = sum(count for count, _ in prices)
    evidence = Evidence(
        model=model.name,
        domain=domain,
        rank=RANKS[mine],
        tenant=scope,
        above=above,
        beside=beside,
        sure=sure,
        price=price_of(model),
        price_above=sum(count * price for count, price in prices) / asked if asked else 0.0,
    )
    return Weighed(evidence, tuple(sorted(others)))


def price_of(model: ModelRecord) -> int:
    """Returns what stands for a model's price where two are compared: a token in and a token out."""
    return model.price.input_picos + model.price.output_picos + model.price.call_picos // 1_000


def lately(latest: Sequence[tuple[str, int]], scope: str, margin: float) -> float:
    """Returns how strongly the latest pairs speak against a model, for one tenant or without any one of them.

    ``latest`` are the pairs in order: whose they are, and 1, 0 or −1.
    """
    if scope:
        return falling.detector([won for tenant, won in latest if tenant == scope], margin)
    losses: dict[str, int] = {}
    for tenant, won in latest:
        losses[tenant] = losses.get(tenant, 0) - won
    if len(losses) < tenants.VOICES_MIN:
        return 0.0
    loudest = sorted(losses, key=lambda tenant: (-losses[tenant], tenant))[: tenants.SPEAKERS_MAX]
    return min(falling.detector([won for tenant, won in latest if tenant != one], margin) for one in loudest)


def decide(known: Sequence[Evidence], models: Sequence[ModelRecord], rules: Rules) -> list[Decision]:
    """Returns a decision for each piece of evidence, those that change something first.

    Of all that would change something only those stand that stand among so many comparisons; and a rank that nobody
    else would have in its place is not taken away.
    """
    decided = [_first(demotion(one, rules), promotion(one, rules)) for one in known]
    compared = [one for one in decided if one.pairs.count >= OWN_MIN or one.verdict != "stay"]
    stands = together.standing([math.log(max(one.odds, 1e-300)) for one in compared], rules.false_share)
    fallen = {id(one) for one, kept in zip(compared, stands, strict=True) if not kept}
    needed = together.threshold(len(compared), rules.false_share)
    ranks = {model.name: model for model in models if model.enabled and not model.drained}
    found: list[Decision] = []
    # For all before for one, so that nobody gets alone what everybody gets.
    in_order = sorted(
        decided, key=lambda one: (one.verdict == "stay", one.tenant != "", -one.odds, one.model, one.domain, one.tenant)
    )
    for one in in_order:
        if one.verdict != "stay" and id(one) in fallen:
            why = f"{one.odds:.3g} to one of {needed:.3g} that {len(compared)} comparisons at once ask for"
            one = _stays(one, why)
        elif one.tenant and one.model in ranks and _is_so(one, ranks[one.model]):
            one = _stays(one, f"{one.after} there already, as for all")
        elif one.verdict == "demote" and _is_last(one, ranks):
            one = _stays(one, f"nobody else is {one.before} there")
        if one.verdict != "stay" and one.model in ranks:
            moved = ranks[one.model]
            earned = with_earned(moved.earned, one.domain, one.tenant, one.after)
            ranks[one.model] = msgspec.structs.replace(moved, earned=earned)
        found.append(one)
    return found


def _is_so(one: Decision, model: ModelRecord) -> bool:
    return one.verdict != "stay" and applying(model, one.tenant, one.domain) == one.after


def _first(down: Decision, up: Decision) -> Decision:
    return up if down.verdict == "stay" else down


def _stays(one: Decision, why: str) -> Decision:
    return msgspec.structs.replace(one, verdict="stay", after=one.before, ground=None, missing=(*one.missing, why))


def _is_last(one: Decision, ranks: Mapping[str, ModelRecord]) -> bool:
    at_least = RANKS.index(one.before)
    return not any(
        RANKS.index(applying(model, one.tenant, one.domain)) >= at_least
        for model in ranks.values()
        if model.name != one.model and (not model.domains or one.domain in model.domains)
    )


def everywhere(model: ModelRecord, compared: Collection[str]) -> Rank | None:
    """Returns the rank that a model is to have overall, from those it earned for all; none where it stays.

    ``compared`` are the domains in which enough is known of it.
    """
    earned = {one.domain: RANKS.index(one.rank) for one in model.earned if not one.tenant}
    mine = RANKS.index(model.rank)
    higher = [rank for rank in earned.values() if rank > mine]
    if len(higher) < DOMAINS_MIN:
        return None
    lowest = min(earned.get(domain, mine) for domain in {*compared, *earned})
    return RANKS[lowest] if lowest > mine else None
