"""Gate rules as they travel: what a rule is, and which rules a task passes.

A rule is named by ``name@version``, where the version is made of everything that it says; so whoever meets the name in
a task, however late, evaluates the same rule. What the rules do stands in libs/gates. One rule: no secret stands in a
rule.
"""

from __future__ import annotations

from typing import Final, Literal

import msgspec

from collegium_contracts.base import Message
from collegium_contracts.envelope import Envelope

Point = Literal["request", "answer", "tool", "knowledge"]
GateAction = Literal["block", "redact", "tokenise", "flag", "ask"]
GateKind = Literal[
    "age", "toxicity", "pii", "names", "injection", "topics", "schema", "citations", "regex", "http", "llm",
]  # fmt: skip
Trust = Literal["request", "jwt", "tenant"]

# The code of a task that a rule ended; its client is told the rule's name instead.
GATE_BLOCKED: Final = "gate_blocked"


class GateRule(Message, frozen=True, kw_only=True, omit_defaults=True):
    """One rule; the value under ``<name>.<version>`` in the bucket ``gates``, written once.

    ``on`` says where it applies. A rule that is ``required`` and cannot be evaluated blocks; any other one lets pass.
    ``timeout_ms`` is the longest that it may take. What follows are the parameters of its kind: see
    docs/operate/gates.md. ``schema`` is JSON. ``ask``: whom a rule of the action ``ask`` asks, the client or a queue.
    """

    name: str
    kind: GateKind
    on: list[Point]
    action: GateAction = "block"
    required: bool = True
    timeout_ms: int = 1_000
    normalise: bool = True
    roles: list[str] = []
    minimum: int = 0
    trust: list[Trust] = []
    claim: str = ""
    threshold: float = 0.0
    entities: list[str] = []
    deny: list[str] = []
    allow: list[str] = []
    patterns: list[str] = []
    schema: bytes = b""
    sources: list[str] = []
    url: str = ""
    ask: str = ""
    model: str = ""
    criteria: str = ""


class Gated(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Which rules a task still has to pass, as ``name@version``, in their order.

    ``vault`` seals JSON: what stands in place of a client's words in the prompt, and the words (``{token: words}``).
    """

    rules: list[str] = []
    vault: Envelope | None = None


def reference(name: str, version: str) -> str:
    """Returns how a rule is named in a task."""
    return f"{name}@{version}"
