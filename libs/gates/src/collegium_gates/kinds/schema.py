"""Answers that must be JSON of a given shape, by JSON Schema (2020-12 unless the schema names another draft).

A reference leads within the schema and nowhere else. One rule: an answer is JSON as a whole, with nothing before or
after it, except the fence of a code block.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Any, Final

import msgspec
from collegium_contracts.gates import GateRule
from jsonschema import SchemaError, ValidationError
from jsonschema.protocols import Validator
from jsonschema.validators import validator_for
from referencing.exceptions import Unresolvable

from collegium_gates.errors import RuleFailedError, RuleUnusableError
from collegium_gates.finding import NOTHING, Findings, Reading

_FENCE: Final = re.compile(r"\A\s*```(?:json)?\s*\n(.*)\n```\s*\Z", re.DOTALL)


@lru_cache(maxsize=64)
def compiled(schema: bytes) -> Validator:
    """Returns a schema made ready; raises RuleUnusableError."""
    try:
        read: Any = msgspec.json.decode(schema)
        kind: Any = validator_for(read)
        kind.check_schema(read)
    except (msgspec.DecodeError, SchemaError) as error:
        why = error.message if isinstance(error, SchemaError) else str(error)
        raise RuleUnusableError(f"no JSON Schema: {why[:200]}") from None
    return kind(read)


def evaluate(rule: GateRule, read: list[Reading]) -> Findings:
    """Says so where a text is no JSON of the rule's shape."""
    validator = compiled(rule.schema)
    for reading in read:
        fenced = _FENCE.match(reading.unit.text)
        try:
            value: Any = msgspec.json.decode(fenced[1] if fenced else reading.unit.text)
        except (msgspec.DecodeError, RecursionError):
            return Findings("no JSON", is_whole=True)
        try:
            problem = next(iter(validator.iter_errors(value)), None)
        except (Unresolvable, RecursionError) as error:
            raise RuleFailedError(f"the schema cannot be followed: {type(error).__name__}") from None
        if isinstance(problem, ValidationError):
            # The path is of the answer's own keys: how deep it is may be told, what it says may not.
            depth = len(problem.absolute_path)
            return Findings(f"not of the schema: {problem.validator}, {depth} levels deep", is_whole=True)
    return NOTHING
