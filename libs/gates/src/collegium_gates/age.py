"""Age: whether somebody vouches that a user is old enough. Pure.

A user's age is told by the request (``verified: {"age": 25}``: the client vouches), by a claim of the user's token (its
issuer vouches), or by the tenant's record (the operator vouches for all of the tenant's users). A claim is an age, or a
date of birth as ``YYYY-MM-DD``. One rule: a source that the rule does not trust is not looked at, and without a trusted
source that says enough the user is too young.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date
from typing import Any

import msgspec
from collegium_contracts.gates import GateRule

from collegium_gates.finding import NOTHING, Findings


class Vouched(msgspec.Struct, frozen=True):
    """What is said of the user: by the request, by the token's claims, by the tenant's record."""

    request: Mapping[str, Any] = {}
    claims: Mapping[str, Any] = {}
    tenant: Mapping[str, Any] = {}


def evaluate(rule: GateRule, vouched: Vouched, today: date) -> Findings:
    """Finds nothing where a trusted source says that the user is old enough."""
    ages = {
        "request": _years(vouched.request.get("age"), today),
        "jwt": _years(vouched.claims.get(rule.claim), today),
        "tenant": _years(vouched.tenant.get("age"), today),
    }
    said = [age for source in rule.trust if (age := ages[source]) is not None]
    if any(age >= rule.minimum for age in said):
        return NOTHING
    why = "the verified age is below" if said else f"none of {', '.join(rule.trust)} verifies"
    return Findings(f"{why} {rule.minimum} years", is_whole=True)


def _years(said: Any, today: date) -> float | None:
    match said:
        case bool():
            return None
        case int() | float() if 0 <= said <= 150:
            return said
        case str() if said.isascii() and said.isdecimal() and len(said) <= 3:
            return int(said)
        case str() if len(said) == 10:
            try:
                born = date.fromisoformat(said)
            except ValueError:
                return None
            return today.year - born.year - ((today.month, today.day) < (born.month, born.day))
        case _:
            return None
