"""The gates of the configuration: rules by name, the rules that exist without being named, and what each kind takes.

Not here: what a kind does (libs/gates; docs/operate/gates.md tells of each). One rule: an address that a rule asks is
given here, by the operator, and nowhere else.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Final, Literal, NamedTuple

import msgspec
from msgspec import field

from collegium_settings.scalars import Flag, HiddenText, HttpUrl, ModelName, Ratio, Text, number, whole
from collegium_settings.section import Section

Kind = Literal["age", "toxicity", "pii", "names", "injection", "topics", "schema", "citations", "regex", "http", "llm"]
Point = Literal["request", "answer", "tool", "knowledge"]
Action = Literal["block", "redact", "tokenise", "flag", "ask"]


class GateSettings(Section, frozen=True, kw_only=True):
    """One rule; None: as the bundled rule of this name has it, or its kind. ``everyone``: for all tenants, unasked.

    Where it applies is ``at``, because ``on`` is a truth value in YAML.
    """

    kind: Kind | None = None
    at: tuple[Point, ...] | None = None
    action: Action | None = None
    everyone: Flag = True
    required: Flag | None = None
    timeout_seconds: Annotated[float, number(0.01, 60)] | None = None
    normalise: Flag | None = None
    roles: tuple[Literal["system", "developer", "user", "assistant", "tool", "function", "parameters"], ...] | None = (
        None
    )
    minimum: Annotated[int, whole(1, 1_000)] | None = None
    trust: tuple[Literal["request", "jwt", "tenant"], ...] | None = None
    claim: Text | None = None
    threshold: Ratio | None = None
    entities: tuple[Text, ...] | None = None
    deny: tuple[Text, ...] | None = None
    allow: tuple[Text, ...] | None = None
    patterns: tuple[Text, ...] | None = None
    schema: dict[str, Any] = field(default_factory=dict[str, Any])
    sources: tuple[Text, ...] | None = None
    url: HttpUrl | None = None
    ask: Text | None = None
    model: ModelName | None = None
    criteria: Text | None = None
    api_key: HiddenText | None = None


class KindOf(NamedTuple):
    """What a kind takes: where it may apply (and does, unless told), its actions, its own fields, those it needs one
    of, and how long it may take."""

    at: tuple[Point, ...]
    default_at: tuple[Point, ...]
    actions: tuple[Action, ...]
    fields: tuple[str, ...] = ()
    needs: tuple[str, ...] = ()
    timeout_seconds: float = 1.0
    normalises: bool = True


_ALL: Final[tuple[Point, ...]] = ("request", "answer", "tool", "knowledge")
_PLACES: Final[tuple[Action, ...]] = ("block", "redact", "flag", "ask")
_HIDING: Final[tuple[Action, ...]] = ("block", "redact", "tokenise", "flag", "ask")
_WHOLE: Final[tuple[Action, ...]] = ("block", "flag", "ask")
_TEXT: Final = ("normalise", "roles")

KINDS: Final[dict[str, KindOf]] = {
    "age": KindOf(("request",), ("request",), ("block", "flag"), ("minimum", "trust", "claim"), normalises=False),
    "toxicity": KindOf(_ALL, ("request", "answer"), _PLACES, (*_TEXT, "threshold")),
    "pii": KindOf(_ALL, ("request", "answer"), _HIDING, (*_TEXT, "entities")),
    "names": KindOf(
        _ALL, ("request",), _HIDING, (*_TEXT, "entities", "threshold"), timeout_seconds=2.0, normalises=False
    ),
    "injection": KindOf(_ALL, ("request", "tool", "knowledge"), _WHOLE, (*_TEXT, "threshold")),
    "topics": KindOf(_ALL, ("request", "answer"), _PLACES, (*_TEXT, "deny", "allow"), ("deny", "allow")),
    "schema": KindOf(("answer", "tool"), ("answer",), _WHOLE, ("schema",), ("schema",), normalises=False),
    "citations": KindOf(("answer",), ("answer",), _WHOLE, ("minimum", "sources"), normalises=False),
    "regex": KindOf(_ALL, ("request", "answer"), _PLACES, (*_TEXT, "patterns"), ("patterns",)),
    "http": KindOf(
        _ALL,
        ("request", "answer"),
        _WHOLE,
        ("roles", "url", "api_key"),
        ("url",),
        timeout_seconds=3.0,
        normalises=False,
    ),
    "llm": KindOf(
        ("request", "answer"),
        ("request",),
        _WHOLE,
        ("roles", "model", "criteria"),
        ("criteria",),
        timeout_seconds=10.0,
        normalises=False,
    ),
}
GENERAL: Final = ("kind", "at", "action", "everyone", "required", "timeout_seconds", "ask")

# Rules that tenants and requests may name without any configuration; they apply to nobody unasked.
BUNDLED: Final[Mapping[str, GateSettings]] = {
    "age_18": GateSettings(kind="age", minimum=18),
    "age_21": GateSettings(kind="age", minimum=21),
    "toxicity": GateSettings(kind="toxicity"),
    "pii_block": GateSettings(kind="pii"),
    "pii_redact": GateSettings(kind="pii", action="redact"),
    "pii_tokenise": GateSettings(kind="pii", action="tokenise", at=("request",)),
    "names_tokenise": GateSettings(kind="names", action="tokenise"),
    "prompt_injection": GateSettings(kind="injection", roles=("user", "tool", "function")),
    "citations": GateSettings(kind="citations", minimum=1),
}


def rules_of(configured: Mapping[str, GateSettings]) -> dict[str, GateSettings]:
    """Returns all rules by name, those of the configuration first and in its order; what it leaves out of a bundled
    rule is the bundled rule's."""
    merged = {name: _over(BUNDLED.get(name), own) for name, own in configured.items()}
    return {**merged, **{name: rule for name, rule in BUNDLED.items() if name not in merged}}


def _over(base: GateSettings | None, own: GateSettings) -> GateSettings:
    if base is None or own.kind not in (None, base.kind):
        return own
    given = {name: value for name in GateSettings.__struct_fields__ if (value := getattr(own, name)) not in (None, {})}
    return msgspec.structs.replace(base, **given)
