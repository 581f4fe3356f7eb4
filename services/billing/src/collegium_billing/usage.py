"""Usage reports: what may be asked, and how sums become figures.

Here: checking a question and assembling its answer. Not here: the sums, which ``store`` lets PostgreSQL make.
One rule: money stays an integer until it is written as a decimal string.

What the figures mean, for tasks settled and calls booked in [from, to):

- ``requests``: settled tasks that count: every completed one, and those failed or canceled that were charged for;
- tokens: of all settled tasks, over all their attempts;
- ``charged_usd``: what tenants are charged for settled tasks;
- ``cost_usd``: what all booked calls cost, waste included; ``wasted_usd``: those whose result settled nothing;
- ``saved_usd``: what the originals of reused answers were charged, once for every time that they were given again.

A task stands in the group of the model and rank that answered it (empty where none did), a call in that of the model
that was called. Under ``tag`` (``key=value``) a task counts once in each of its tags' groups and, without tags, under
the empty one; the totals count it once. A ``day`` is a date of UTC.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple

import msgspec
from collegium_contracts.money import picos_to_usd
from collegium_contracts.requests import UsageFigures, UsageReply, UsageRequest, UsageRow
from collegium_contracts.scope import AllTenants, AnyScope, Scope

from collegium_billing.errors import QuestionError
from collegium_billing.keys import is_tenant_id

GROUPS: Final = ("tenant", "project", "key", "model", "rank", "plan", "tag", "day")
DAY_MS: Final = 86_400_000
RANGE_DAYS_MAX: Final = 400  # a year and its comparison month; more is an export, not a report
ROWS_MAX: Final = 2_000  # what fits one reply of the broker (1 MB) with long group values
REPLY_BYTES_MAX: Final = 900_000
_UNIX_MS_MAX: Final = 253_402_300_799_000  # the year 9999, where timestamps end


class UsageQuery(msgspec.Struct, frozen=True):
    """A checked question: usage in [from, to) of a scope, by groups."""

    scope: AnyScope
    from_ms: int
    to_ms: int
    groups: tuple[str, ...]


class Sums(NamedTuple):
    """What PostgreSQL summed up for one group; money in pico-dollars."""

    group: tuple[str, ...]
    requests: int
    input_tokens: int
    cached_input_tokens: int
    output_tokens: int
    cost_picos: int
    wasted_picos: int
    charge_picos: int
    saved_picos: int = 0


def query(request: UsageRequest) -> UsageQuery:
    """Checks a question; raises QuestionError with the field at fault."""
    groups = tuple(dict.fromkeys(request.group_by))
    if unknown := [group for group in groups if group not in GROUPS]:
        raise _invalid("group_by", f"{unknown[0][:40]!r} is no group; accepted: {', '.join(GROUPS)}")
    if request.tenant is not None and not is_tenant_id(request.tenant):
        raise _invalid("tenant", "a tenant's id has 1 to 40 characters of a-z, 0-9 and -")
    if not 0 <= request.from_ms < request.to_ms <= _UNIX_MS_MAX:
        raise _invalid("from", "'from' must lie before 'to'")
    if request.to_ms - request.from_ms > RANGE_DAYS_MAX * DAY_MS:
        raise _invalid("from", f"at most {RANGE_DAYS_MAX} days are reported at once; ask for a shorter time")
    scope = AllTenants("a report over all tenants") if request.tenant is None else Scope(request.tenant)
    return UsageQuery(scope, request.from_ms, request.to_ms, groups)


def reply(asked: UsageQuery, rows: Sequence[Sums], totals: Sums) -> UsageReply:
    """Returns the report; raises QuestionError where it has more rows than one reply holds."""
    if len(rows) > ROWS_MAX:
        raise _invalid("group_by", f"the report has more than {ROWS_MAX} rows; ask for fewer groups or a shorter time")
    return UsageReply(
        rows=[
            UsageRow(group=dict(zip(asked.groups, row.group, strict=True)), figures=figures(row))
            for row in sorted(rows, key=lambda row: row.group)
        ],
        totals=figures(totals),
    )


def check_size(encoded_bytes: int) -> None:
    """Raises QuestionError where an encoded reply does not fit one message."""
    if encoded_bytes > REPLY_BYTES_MAX:
        raise _invalid("group_by", f"the answer has {encoded_bytes} bytes, more than one reply holds; ask for less")


def figures(sums: Sums) -> UsageFigures:
    """Returns the figures of one row."""
    return UsageFigures(
        requests=sums.requests,
        input_tokens=sums.input_tokens,
        cached_input_tokens=sums.cached_input_tokens,
        output_tokens=sums.output_tokens,
        cost_usd=picos_to_usd(sums.cost_picos),
        wasted_usd=picos_to_usd(sums.wasted_picos),
        charged_usd=picos_to_usd(sums.charge_picos),
        saved_usd=picos_to_usd(sums.saved_picos),
    )


def _invalid(param: str, message: str) -> QuestionError:
    return QuestionError("invalid_value", message, param)
