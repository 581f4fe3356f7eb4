"""What is known of models beside what the roster says of them: ranks that they earned, how their endpoints are,
and whether they are asked at all.

Not here: the roster itself (state.py), and which rank applies to a task (ranks.py). One rule: as for all state, nothing
here is a secret.
"""

from __future__ import annotations

from typing import Literal

import msgspec

from collegium_contracts.base import Message
from collegium_contracts.parts import Rank
from collegium_contracts.probing import ProbeFound


class EarnedRank(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The rank that a model earned in one domain (empty: where none is stated), for one tenant or (empty) for all."""

    domain: str
    rank: Rank
    tenant: str = ""


HealthState = Literal["ok", "unauthorized", "unlisted", "unreachable"]


class EndpointHealth(Message, frozen=True, kw_only=True):
    """How a model's endpoint was found when it was last looked at; a value of its own in the bucket ``breakers``.

    ``state``: ``ok``, ``unauthorized`` (it refuses the key), ``unlisted`` (it does not know the model) or
    ``unreachable``. ``context_tokens`` (0: it does not say) is what it says of the model. ``since_ms`` is when it was
    first found so. Of a model with several endpoints ``endpoints`` says how each is, and ``state`` how the best is.
    """

    model: str
    state: HealthState
    at_ms: int
    since_ms: int
    duration_ms: int = 0
    context_tokens: int = 0
    endpoints: list[HealthState] = []


class RegisteredModel(Message, frozen=True, kw_only=True):
    """A model that an operator added; the value under the model's key in the bucket ``endpoints``.

    ``spec`` is the JSON of one entry of ``models:``, with a key's name in the place of a key. ``found`` is what the
    endpoints did when it was said last, ``forced`` whether it was taken although something failed.
    """

    model: str
    spec: bytes
    at_ms: int
    by: str = ""
    forced: bool = False
    found: list[ProbeFound] = []
    probe_usd_picos: int = 0


class Breaker(Message, frozen=True, kw_only=True):
    """The circuit breaker of one model's endpoint; the value under the model's key in the bucket ``breakers``.

    ``failures_ms`` are the times of late failures (Unix ms). ``open_until_ms`` above 0: the breaker opened, and lets
    nothing through before that time; afterwards one probe, which ``probe_until_ms`` marks as taken.
    """

    model: str
    failures_ms: list[int] = []
    open_until_ms: int = 0
    probe_until_ms: int = 0
