"""Errors of the configuration.

    SettingsError         the configuration cannot be used; holds every problem that was found
    UnpricedModelError    a model has no price, and none is published for its address

One rule: a problem says where, what was read and what is accepted, and never shows a secret.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple


class Problem(NamedTuple):
    """One thing wrong: the path of the key (``models[0].price``), what was read (secrets masked), what is accepted."""

    path: str
    read: str
    accepted: str

    def __str__(self) -> str:
        return f"{self.path}: read {self.read}; accepted: {self.accepted}"


class SettingsError(Exception):
    """The configuration cannot be used. ``problems`` holds at least one :class:`Problem`; ``code`` is stable."""

    code = "invalid_settings"

    def __init__(self, problems: Sequence[Problem]) -> None:
        self.problems = tuple(problems)
        lines = "\n".join(f"  {problem}" for problem in self.problems)
        super().__init__(f"the configuration cannot be used:\n{lines}")


class UnpricedModelError(Exception):
    """A model has no price of its own and none is published for its address; ``code`` is stable."""

    code = "unpriced_model"
