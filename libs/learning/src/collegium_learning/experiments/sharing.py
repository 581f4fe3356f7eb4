"""What is known of an experiment of several tenants where no tenant's words decide alone. Pure.

Of such an experiment each tenant says words, and one that makes them up must not decide for the others. So what words
would end, the guardrail of quality or a verdict, has to stand where all that any one tenant told is left out, whoever
that is. Leaving out only asks for more, so an equal candidate is taken back no more often than the level says. What
the platform measured itself, errors, refusals, slowness and cost, is nobody's word, and harm to the one large tenant is
harm: those guardrails go by everything. Where one tenant alone takes part it decides for itself. One rule: the figures
shown are of everybody.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Final

import msgspec

from collegium_learning.experiments.looking import Found, Terms, Unit, Word, look

# What words decide about; all else was measured.
_TOLD: Final = "quality"
# Tenants that are left out in turn: so many of those that pull the candidate down most, up most, and that say most.
LEFT_OUT_OF_EACH: Final = 4


def look_shared(units: Sequence[Unit], words: Sequence[Word], terms: Terms) -> Found:
    """Returns what is known of an experiment of all tenants, from units and words in order of arrival.

    A guardrail of quality or a verdict that rests on one tenant ends nothing; the guardrail says so.
    """
    found = look(units, words, terms)
    if len({word.tenant for word in words} | {unit.tenant for unit in units}) < 2:
        return found
    is_breached, verdict = any(one.metric == _TOLD for one in found.breached), found.verdict
    for tenant in _weightiest(words):
        if not is_breached and verdict == "open":
            break
        rest = look(
            [unit for unit in units if unit.tenant != tenant], [word for word in words if word.tenant != tenant], terms
        )
        is_breached &= any(one.metric == _TOLD for one in rest.breached)
        verdict = verdict if rest.verdict == verdict else "open"
    effects = [
        msgspec.structs.replace(one, breached=False, rests_on_one=True)
        if one.metric == _TOLD and one.breached and not is_breached
        else one
        for one in found.effects
    ]
    return found._replace(effects=effects, verdict=verdict)


def _weightiest(words: Sequence[Word]) -> list[str]:
    """Returns the tenants on whose words a verdict may rest, each once; what rests on anybody rests on one of them."""
    arms = Counter(word.is_candidate for word in words)
    scores = [min(max(word.score, 0.0), 1.0) for word in words]
    mean = sum(scores) / max(1, len(scores))
    pulls: dict[str, float] = {}
    for word, score in zip(words, scores, strict=True):
        pull = (score - mean) / arms[word.is_candidate] * (1 if word.is_candidate else -1)
        pulls[word.tenant] = pulls.get(word.tenant, 0.0) + pull
    ordered = sorted(pulls, key=lambda tenant: pulls[tenant])
    saying = Counter(word.tenant for word in words).most_common(LEFT_OUT_OF_EACH)
    down, up = ordered[:LEFT_OUT_OF_EACH], ordered[-LEFT_OUT_OF_EACH:]
    return list(dict.fromkeys([*down, *reversed(up), *(tenant for tenant, _ in saying)]))
