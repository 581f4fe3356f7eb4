"""Who is asked about tasks: queues of questions, and the rules by which tasks of tenants come to them.

One rule: a queue says who answers it; nobody who submits a task can name anybody else.
"""

from __future__ import annotations

from typing import Annotated, Final, Literal

from msgspec import field

from collegium_settings.money import PICOS_PER_USD
from collegium_settings.scalars import DurationSeconds, Identifier, Ratio, Text, Usd, whole
from collegium_settings.section import Section

CLIENT: Final = "client"
OnExpiry = Literal["fail", "best", "deny"]
# What a task waits by is kept for three days.
EXPIRES_SECONDS_MAX: Final = 2 * 86_400
EXPIRES_SECONDS_MIN: Final = 1
CLAIM_SECONDS_MAX: Final = 86_400


class QueueSettings(Section, frozen=True, kw_only=True):
    """A queue of questions. ``staff``: the operator's people answer it, or those of the tenant whose task it is.

    ``tenants`` (none: all) may have it asked. ``claim`` is how long somebody who took a question has it for himself.
    ``usd`` is charged to the tenant where a person's own answer settles its task.
    """

    staff: Literal["operator", "tenant"] = "operator"
    tenants: tuple[Identifier, ...] = ()
    labels: tuple[Text, ...] = ()
    claim_seconds: DurationSeconds = 900
    usd: Usd | None = None


class PeopleRuleSettings(Section, frozen=True, kw_only=True):
    """Asks about tasks of ``tenants`` (none: all) unasked: ``before`` they begin, ``after`` they were answered, or
    where they are ``unsure``: below ``below``, or below the ``quality_min`` that they state."""

    when: Literal["before", "after", "unsure"]
    ask: Text
    tenants: tuple[Identifier, ...] = ()
    domains: tuple[Text, ...] = ()
    below: Ratio | None = None


class PeopleSettings(Section, frozen=True, kw_only=True):
    """How long a question stands, how many a tenant may have open, the queues, and the rules that ask unasked.

    ``on_expiry`` (none: ``best`` where a person is asked because a model is unsure, else ``fail``) is what follows when
    nobody answers in time.
    """

    expires_seconds: DurationSeconds = 86_400
    on_expiry: OnExpiry | None = None
    open_max: Annotated[int, whole(1, 100_000)] = 1_000
    queues: dict[str, QueueSettings] = field(default_factory=dict[str, QueueSettings])
    rules: tuple[PeopleRuleSettings, ...] = ()


def price_picos(queue: QueueSettings) -> int:
    """Returns what a person's own answer is charged (pico-dollars)."""
    return int(queue.usd * PICOS_PER_USD) if queue.usd is not None else 0
