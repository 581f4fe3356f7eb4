"""Errors of the gates.

    GateError
    ├── UnknownRuleError      a name that no rule has
    ├── RuleUnusableError     a rule that cannot be made ready: a pattern that does not compile, a missing library
    └── RuleFailedError       a rule that threw, took too long, or whose process or endpoint is away

A rule that fails is no verdict: what follows from it is said in ``deciding``. One rule: a message names the rule and
shows nothing of the text.
"""

from __future__ import annotations


class GateError(Exception):
    """Base of the errors of this package; ``code`` is stable."""

    code = "gate_error"


class UnknownRuleError(GateError):
    """There is no rule of this name or version."""

    code = "unknown_gate"

    def __init__(self, name: str) -> None:
        super().__init__(f"there is no gate {name[:64]!r}")
        self.name = name


class RuleUnusableError(GateError):
    """The rule cannot be evaluated here, now or later."""

    code = "gate_unusable"


class RuleFailedError(GateError):
    """The rule was not evaluated this time; the message says why."""

    code = "gate_failed"
