"""What an endpoint was found to do when its model was registered. One rule: nothing that a model said stands here."""

from __future__ import annotations

from typing import Literal

import msgspec

ProbeName = Literal["chat", "usage", "stream", "tools", "json", "logprobs", "context"]
ProbeState = Literal["passed", "failed", "skipped"]


class ProbeFound(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One probe: what was tried of which of the model's endpoints (0: the first), and what came of it.

    ``needed``: the model is said to do it, or nothing goes without it. ``detail`` says in words what was amiss.
    """

    name: ProbeName
    state: ProbeState
    endpoint: int = 0
    needed: bool = True
    detail: str = ""
    duration_ms: int = 0
