"""What context refuses, by code."""

from __future__ import annotations

from collegium_contracts.errors import ContractError


class ContextError(ContractError):
    """A refusal of context; subclasses give the code of the catalogue."""
