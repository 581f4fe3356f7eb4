"""What operators name beside tenants: domains and models. One rule: what can be no name is refused at the door."""

from __future__ import annotations

from typing import Final, TypeVar

from collegium_gateway.errors import ApiError

DOMAIN_CHARS_MAX: Final = 64
MODEL_CHARS_MAX: Final = 256
Domain = TypeVar("Domain", str, "str | None")


def domain_of(named: Domain) -> Domain:
    """Returns the domain that is named, or none; raises ApiError for what is none."""
    if named is not None and (len(named) > DOMAIN_CHARS_MAX or not named.isprintable()):
        text = f"a domain has at most {DOMAIN_CHARS_MAX} characters, and no control character"
        raise ApiError("invalid_value", text, param="domain")
    return named


def model_of(named: str) -> str:
    """Returns the model that is named; raises ApiError for what can be none."""
    if len(named) > MODEL_CHARS_MAX or not named.isprintable():
        raise ApiError("not_found", "there is no model of this name", param="name")
    return named
