"""From the configuration to rules: each with its version, those for everyone, and those that a tenant or request names.

One rule: a rule's version is made of everything that it says and of ENGINE, so the same name and version never mean two
things.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from typing import Final

import msgspec
from collegium_contracts.gates import GateRule, Point, Trust, reference
from collegium_settings.gates import KINDS, GateSettings, rules_of

from collegium_gates.errors import UnknownRuleError

# Whoever changes what a kind finds changes this, so that an answer that was kept under the old rules is not given.
ENGINE: Final = 1
DEFAULT_AGE: Final = 21
_EVERYONE_TRUSTS: Final[list[Trust]] = ["request", "jwt", "tenant"]
_encode = msgspec.msgpack.Encoder(order="sorted").encode


class Registry:
    """The rules of one configuration, by name; ``everyone`` are the names of those that apply unasked."""

    def __init__(self, configured: Mapping[str, GateSettings]) -> None:
        named = rules_of(configured)
        self.rules = {name: rule_of(name, settings) for name, settings in named.items()}
        self.everyone = tuple(name for name in configured if named[name].everyone)
        self.references = {name: reference(name, version_of(rule)) for name, rule in self.rules.items()}
        self.by_reference = {self.references[name]: rule for name, rule in self.rules.items()}
        self.keys = {name: one.api_key.reveal() for name, one in named.items() if one.api_key is not None}

    def named(self, names: Iterable[str]) -> list[str]:
        """Returns references of the rules for everyone and of those named, each once, in this order.

        Raises UnknownRuleError.
        """
        found: list[str] = []
        for name in dict.fromkeys((*self.everyone, *names)):
            if name not in self.references:
                raise UnknownRuleError(name)
            found.append(self.references[name])
        return found


def rule_of(name: str, settings: GateSettings) -> GateRule:
    """Returns a rule as it travels."""
    assert settings.kind is not None, "a configuration was checked"
    kind = KINDS[settings.kind]
    is_age = settings.kind == "age"
    return GateRule(
        name=name,
        kind=settings.kind,
        on=list(settings.at or kind.default_at),
        action=settings.action or "block",
        required=settings.required is not False,
        timeout_ms=round((settings.timeout_seconds or kind.timeout_seconds) * 1000),
        normalise=kind.normalises if settings.normalise is None else settings.normalise,
        roles=list(settings.roles or ()),
        minimum=settings.minimum or (DEFAULT_AGE if is_age else 0),
        trust=list(settings.trust or (_EVERYONE_TRUSTS if is_age else ())),
        claim=settings.claim or ("age" if is_age else ""),
        threshold=settings.threshold or 0.0,
        entities=list(settings.entities or ()),
        deny=list(settings.deny or ()),
        allow=list(settings.allow or ()),
        patterns=list(settings.patterns or ()),
        schema=msgspec.json.encode(settings.schema, order="sorted") if settings.schema else b"",
        sources=list(settings.sources or ()),
        url=settings.url or "",
        model=settings.model or "",
        criteria=settings.criteria or "",
        ask=(settings.ask or "client") if settings.action == "ask" else "",
    )


def version_of(rule: GateRule) -> str:
    """Returns a rule's version: 8 hexadecimal digits."""
    return hashlib.sha256(_encode((ENGINE, rule))).hexdigest()[:8]


def applying(rules: Iterable[GateRule], point: Point) -> list[GateRule]:
    """Returns the rules that apply at a point."""
    return [rule for rule in rules if point in rule.on]
