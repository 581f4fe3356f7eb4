"""What follows from what rules found: blocked, changed, or noted. Pure.

Rules are looked at in their order, and the first that blocks gives its name. What is to be changed is taken out of the
text together: places that overlap become one. Words that are kept for the answer stand in a vault under a token that
the model sees in their place; tokens are made of the task's own random letters, so no two tasks share one and nobody
can guess one. One rule: a rule that was to change a text and cannot, blocks.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final, Literal

import msgspec
from collegium_contracts.gates import GateRule, Point, reference

from collegium_gates.configured import version_of
from collegium_gates.finding import Findings, Found
from collegium_gates.units import Change, Unit, changed

Result = Literal["blocked", "redacted", "tokenised", "flagged", "asked", "failed_closed", "failed_open"]

# More would be a list of persons, and no question about them; it also bounds how much longer a prompt becomes.
MAX_TOKENS: Final = 200
TOKEN: Final = re.compile(r"<[A-Z]{2,12}_\d{1,3}_[a-z0-9]{4}>")
MAX_TOKEN_CHARACTERS: Final = 22
# How much longer than it was a prompt may become by tokens and marks.
MAX_GROWTH_BYTES: Final = MAX_TOKENS * MAX_TOKEN_CHARACTERS


class Outcome(msgspec.Struct, frozen=True):
    """How one rule ended: what it found, or why it could not be evaluated."""

    rule: GateRule
    findings: Findings | None = None
    failure: str = ""


class Decision(msgspec.Struct, frozen=True):
    """What one rule did, as it is recorded: never what it read."""

    rule: str
    reference: str
    kind: str
    point: Point
    result: Result
    reason: str
    count: int = 1

    @property
    def blocks(self) -> bool:
        """Whether nothing goes on."""
        return self.result in ("blocked", "failed_closed")


class Verdict(msgspec.Struct, frozen=True):
    """What follows for a request or an answer: every decision, and by unit the changes to make."""

    decisions: list[Decision] = []
    changes: dict[int, list[Change]] = {}
    vault: dict[str, str] = {}

    @property
    def asked(self) -> list[str]:
        """The rules that want a person to look at it, each once, in their order."""
        return list(dict.fromkeys(one.rule for one in self.decisions if one.result == "asked"))

    @property
    def block(self) -> Decision | None:
        """The first decision that blocks, or none."""
        return next((one for one in self.decisions if one.blocks), None)


def decide(outcomes: Iterable[Outcome], units: Sequence[Unit], point: Point, salt: str) -> Verdict:
    """Returns what follows from outcomes, in their order; ``salt`` are four random letters."""
    decisions: list[Decision] = []
    marked: list[tuple[Found, bool]] = []
    for outcome in outcomes:
        decision = _decision(outcome, units, point)
        if decision is None:
            continue
        decisions.append(decision)
        if decision.result in ("redacted", "tokenised") and outcome.findings is not None:
            marked += [(place, decision.result == "tokenised") for place in outcome.findings.places]
    if any(one.blocks for one in decisions):
        return Verdict(decisions)
    vault = _Vault(salt)
    changes: dict[int, list[Change]] = {}
    for number in sorted({place.unit for place, _ in marked}):
        places = [(place, keeps) for place, keeps in marked if place.unit == number]
        changes[number] = [vault.change(units[number], *one) for one in _joined(places)]
    if len(vault.words) > MAX_TOKENS:
        first = next(one for one in decisions if one.result == "tokenised")
        full = msgspec.structs.replace(
            first, result="blocked", reason=f"more than {MAX_TOKENS} different words to hide"
        )
        return Verdict([*(one for one in decisions if one is not first), full])
    return Verdict(decisions, changes, vault.words)


def _decision(outcome: Outcome, units: Sequence[Unit], point: Point) -> Decision | None:
    rule, findings = outcome.rule, outcome.findings

    def made(result: Result, reason: str, count: int = 1) -> Decision:
        name = reference(rule.name, version_of(rule))
        return Decision(rule.name, name, rule.kind, point, result, reason, count)

    if findings is None:
        return made("failed_closed" if rule.required else "failed_open", outcome.failure)
    if not findings.reason:
        return None
    count = max(1, len({(place.unit, place.start) for place in findings.places}))
    match rule.action:
        case "flag":
            return made("flagged", findings.reason, count)
        case "ask":
            return made("asked", findings.reason, count)
        case "redact" | "tokenise":
            if findings.is_whole or any(not units[place.unit].segments for place in findings.places):
                return made("blocked", f"{findings.reason}; it stands where nothing can be taken out", count)
            return made("redacted" if rule.action == "redact" else "tokenised", findings.reason, count)
        case _:
            return made("blocked", findings.reason, count)


def _joined(places: list[tuple[Found, bool]]) -> list[tuple[int, int, str, bool]]:
    """Returns places in order, those that overlap as one; what is to be taken out for good is not kept."""
    joined: list[tuple[int, int, str, bool]] = []
    for place, keeps in sorted(places, key=lambda one: (one[0].start, -one[0].end)):
        if joined and place.start < joined[-1][1]:
            start, end, label, kept = joined[-1]
            joined[-1] = (start, max(end, place.end), label, kept and keeps)
        elif place.end > place.start:
            joined.append((place.start, place.end, place.label, keeps))
    return joined


class _Vault:
    """Gives the same words the same token."""

    def __init__(self, salt: str) -> None:
        self._salt = salt
        self._tokens: dict[str, str] = {}
        self.words: dict[str, str] = {}

    def change(self, unit: Unit, start: int, end: int, label: str, keeps: bool) -> Change:
        """Returns what to put in place of some words."""
        name = re.sub(r"[^A-Z]", "", label.upper())[:12] or "TEXT"
        if not keeps:
            return Change(start, end, f"[{name}]")
        words = unit.text[start:end]
        token = self._tokens.get(words)
        if token is None:
            token = self._tokens[words] = f"<{name}_{len(self._tokens) + 1}_{self._salt}>"
            self.words[token] = words
        return Change(start, end, token)


def apply(messages: Any, units: Sequence[Unit], verdict: Verdict) -> None:
    """Writes a verdict's changes into the messages that the units were read from."""
    for number, changes in verdict.changes.items():
        changed(messages, units[number], changes)


def applied(text: str, changes: Sequence[Change]) -> str:
    """Returns a text with changes, which are in order and do not overlap."""
    for change in reversed(changes):
        text = text[: change.start] + change.text + text[change.end :]
    return text


def restored(text: str, vault: Mapping[str, str]) -> str:
    """Returns a text with the words of a vault in the place of their tokens."""
    if not vault or "<" not in text:
        return text
    return TOKEN.sub(lambda found: vault.get(found.group(), found.group()), text)


def restored_json(text: str, vault: Mapping[str, str]) -> str:
    """Returns JSON text with the words of a vault, escaped as they must be within its strings."""
    if not vault or "<" not in text:
        return text
    escaped = {token: json.dumps(words, ensure_ascii=False)[1:-1] for token, words in vault.items()}
    return TOKEN.sub(lambda found: escaped.get(found.group(), found.group()), text)
