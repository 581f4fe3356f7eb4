"""Evaluating a rule on units: which room answers for a kind, and which kinds are light. Pure but for their libraries.

Light rules are evaluated where they are asked; the others, and light ones on long texts, in a process of their own. One
rule: a rule sees the texts of the roles that it is for, and no others.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from collegium_contracts.gates import GateKind, GateRule

from collegium_gates.errors import RuleUnusableError
from collegium_gates.finding import NOTHING, Findings, Reading
from collegium_gates.kinds import citations, injection, names, patterns, pii, schema, topics, toxicity
from collegium_gates.units import Unit

# Up to so many characters a light rule takes a few milliseconds.
LIGHT_CHARACTERS: Final = 4_000
LIGHT: Final[frozenset[GateKind]] = frozenset({"citations", "pii", "regex", "topics"})
# Rules that say nothing of a part of an answer: they wait for the whole.
WHOLE: Final[frozenset[GateKind]] = frozenset({"citations", "http", "llm", "schema"})

_KINDS: Final[dict[GateKind, Callable[[GateRule, list[Reading]], Findings]]] = {
    "citations": citations.evaluate,
    "injection": injection.evaluate,
    "names": names.evaluate,
    "pii": pii.evaluate,
    "regex": patterns.evaluate,
    "schema": schema.evaluate,
    "topics": topics.evaluate,
    "toxicity": toxicity.evaluate,
}


def evaluate(rule: GateRule, read: list[Reading]) -> Findings:
    """Returns what a rule finds; raises RuleUnusableError, and whatever its library raises."""
    kind = _KINDS.get(rule.kind)
    if kind is None:
        raise RuleUnusableError(f"the kind {rule.kind} is not evaluated on texts")
    meant = [reading for reading in read if not rule.roles or not reading.unit.role or reading.unit.role in rule.roles]
    return kind(rule, meant) if meant else NOTHING


def prepare(rule: GateRule) -> None:
    """Loads what a rule needs; raises RuleUnusableError."""
    match rule.kind:
        case "toxicity":
            toxicity.model()
        case "injection":
            injection.scanner()
            injection.evaluate(rule, [Reading(0, Unit("a text"))])
        case "names":
            names.analyzer()
        case _:
            pass


def is_light(rule: GateRule, characters: int) -> bool:
    """Whether a rule may be evaluated where it is asked."""
    return rule.kind in LIGHT and characters <= LIGHT_CHARACTERS
