"""What must hold of gates: a kind, what it needs and nothing that it does not take, patterns and schemas that compile.

One rule: a rule that could never be evaluated stops the start, not the first request.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any, Final

from collegium_settings.errors import Problem
from collegium_settings.gates import BUNDLED, GENERAL, KINDS, GateSettings, rules_of
from collegium_settings.settings import Settings

MAX_RULES: Final = 200
MAX_PATTERN_CHARACTERS: Final = 2_000
_NAME: Final = re.compile(r"[a-z][a-z0-9_\-]{0,63}\Z")
_ENTITIES: Final = {
    "pii": ("EMAIL", "IBAN", "CARD", "SSN", "PHONE", "IP"),
    "names": ("PERSON", "LOCATION", "NRP", "ORGANIZATION"),
}


def check_gates(settings: Settings) -> Iterable[Problem]:
    """Yields what is wrong with the gates, and with the names of gates that tenants have."""
    if len(settings.gates) > MAX_RULES:
        yield Problem("gates", f"{len(settings.gates)} rules", f"at most {MAX_RULES}")
    merged = rules_of(settings.gates)
    for name in settings.gates:
        path = f"gates.{name}"
        if _NAME.match(name) is None:
            yield Problem(path, repr(name), "a name of 1 to 64 of a-z, 0-9, _ and -, a letter first")
        yield from _rule(path, merged[name])
    for number, tenant in enumerate(settings.tenants):
        for place, name in enumerate(tenant.gates):
            if name not in merged:
                yield Problem(f"tenants[{number}].gates[{place}]", repr(name), "one of " + ", ".join(sorted(merged)))


def _rule(path: str, rule: GateSettings) -> Iterable[Problem]:
    if rule.kind is None:
        accepted = f"one of {', '.join(KINDS)}; without a kind only for {', '.join(BUNDLED)}"
        yield Problem(f"{path}.kind", "nothing", accepted)
        return
    kind = KINDS[rule.kind]
    allowed = {*GENERAL, *kind.fields}
    for name in GateSettings.__struct_fields__:
        if name not in allowed and getattr(rule, name) not in (None, {}):
            yield Problem(f"{path}.{name}", "a value", f"nothing: the kind {rule.kind} takes {', '.join(kind.fields)}")
    for one in rule.at or ():
        if one not in kind.at:
            yield Problem(f"{path}.at", repr(one), f"one of {', '.join(kind.at)} for the kind {rule.kind}")
    if rule.action is not None and rule.action not in kind.actions:
        accepted = f"one of {', '.join(kind.actions)} for the kind {rule.kind}"
        yield Problem(f"{path}.action", repr(rule.action), accepted)
    if rule.at == ():
        yield Problem(f"{path}.at", "[]", f"at least one of {', '.join(kind.at)}")
    if kind.needs and not any(getattr(rule, name) for name in kind.needs):
        yield Problem(f"{path}.{kind.needs[0]}", "nothing", f"a value: the kind {rule.kind} needs it")
    if rule.action == "tokenise" and (rule.at or kind.default_at) != ("request",):
        accepted = "[request]: what is put in place of words there is put back in the answer"
        yield Problem(f"{path}.at", ", ".join(rule.at or kind.default_at), accepted)
    yield from _values(path, rule)


def _values(path: str, rule: GateSettings) -> Iterable[Problem]:
    known = _ENTITIES.get(rule.kind or "", ())
    for place, entity in enumerate(rule.entities or ()):
        if known and entity not in known:
            yield Problem(f"{path}.entities[{place}]", repr(entity), "one of " + ", ".join(known))
    if rule.trust == ():
        yield Problem(f"{path}.trust", "[]", "at least one of request, jwt, tenant")
    if rule.kind == "age" and rule.minimum is not None and rule.minimum > 150:
        yield Problem(f"{path}.minimum", str(rule.minimum), "an age of at most 150")
    for name, phrases in (("deny", rule.deny), ("allow", rule.allow)):
        for place, phrase in enumerate(phrases or ()):
            if not any(one.isalnum() for one in phrase):
                yield Problem(f"{path}.{name}[{place}]", repr(phrase), "a phrase with letters")
    for place, pattern in enumerate(rule.patterns or ()):
        if (problem := _pattern_problem(pattern)) is not None:
            yield Problem(f"{path}.patterns[{place}]", problem, "a pattern of RE2, which matches no empty text")
    if rule.schema and (problem := _schema_problem(rule.schema)) is not None:
        yield Problem(f"{path}.schema", problem, "a JSON Schema")


def _pattern_problem(pattern: str) -> str | None:
    import re2  # noqa: PLC0415  # pyright: ignore[reportMissingTypeStubs] - only a configuration with patterns needs it

    if len(pattern) > MAX_PATTERN_CHARACTERS:
        return f"{len(pattern)} characters"
    options: Any = re2.Options()
    options.log_errors = False
    try:
        compiled: Any = re2.compile(pattern, options)
    except re2.error as error:
        why: Any = error.args[0] if error.args else error
        return why.decode(errors="replace") if isinstance(why, bytes) else str(why)
    return "a pattern that matches everything" if compiled.fullmatch("") is not None else None


def _schema_problem(schema: dict[str, Any]) -> str | None:
    from jsonschema import SchemaError  # noqa: PLC0415 - as above
    from jsonschema.validators import validator_for  # noqa: PLC0415

    try:
        kind: Any = validator_for(schema)
        kind.check_schema(schema)
    except SchemaError as error:
        return error.message[:200]
    return None
