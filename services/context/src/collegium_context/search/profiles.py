"""Who asks ranks with: a user's factors over tags and fields. Pure.

One rule: a profile moves what was found up or down, and never adds to it or takes from it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from collegium_contracts.knowledge import FieldValue, ProfileWeights

FACTOR_MIN, FACTOR_MAX = 0.1, 10.0
ENTRIES_MAX = 200


def problem_of(weights: ProfileWeights) -> str:
    """Says what is wrong with a profile; empty where nothing is."""
    factors = [*weights.tags.values(), *(one for values in weights.fields.values() for one in values.values())]
    if len(factors) > ENTRIES_MAX:
        return f"a profile has at most {ENTRIES_MAX} factors"
    if any(not FACTOR_MIN <= factor <= FACTOR_MAX for factor in factors):
        return f"a factor is from {FACTOR_MIN} to {FACTOR_MAX:g}"
    return ""


def factor_of(weights: ProfileWeights, tags: Sequence[str], fields: Mapping[str, FieldValue]) -> float:
    """Returns the product of the factors that apply, bounded as one factor is."""
    factor = 1.0
    for tag in tags:
        factor *= weights.tags.get(tag, 1.0)
    for name, value in fields.items():
        factor *= weights.fields.get(name, {}).get(value_text(value), 1.0)
    return min(FACTOR_MAX, max(FACTOR_MIN, factor))


def value_text(value: FieldValue) -> str:
    """Writes a field's value as a profile and a filter name it: JSON's words for true and false, whole numbers bare."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return str(value)
