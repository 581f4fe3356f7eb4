"""Usage reports: what may be asked, and how sums become figures.

Here: checking a question and assembling its answer. Not here: the sums, which ``store`` lets PostgreSQL make.
One rule: money stays an integer until it is written as a decimal string.

What the figures mean, for tasks settled and calls booked in [from, to):

- ``requests``: settled tasks that count: every completed one, and those failed or canceled that were charged for;
- tokens: of all settled tasks, over all their attempts; ``cached_input_tokens`` and ``cache_write_tokens`` are among
  the input, ``reasoning_tokens`` among the output;
- ``charged_usd``: what tenants are charged for settled tasks;
- ``cost_usd``: what all booked calls cost, waste included; ``wasted_usd``: those whose result settled nothing;
- ``margin_usd``: charged less cost; below zero where calls cost more than was charged;
- ``saved_usd``: what routing and reused answers saved. Routing: for completed tasks whose model was left to the
  platform (``auto``) and that a rank below the teachers answered, the charge that the cheapest teacher of the roster
  would have had for the answer's tokens, less the charge; which teacher and how much is pinned when the task is booked,
  and it may be below zero. Reused answers: what their originals were charged, once for every time that they were given
  again; such a task was routed nowhere, and counts as nothing else.

A task stands in the group of the model and rank that answered it (empty where none did), a call in that of the model
that was called. Under ``tag`` (``key=value``) a task counts once in each of its tags' groups and, without tags, under
the empty one; the totals count it once. A ``day`` is a date of UTC. A group all of whose figures are zero is left out.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Final, NamedTuple

import msgspec
from collegium_contracts.money import picos_to_usd
from collegium_contracts.requests import UsageFigures, UsageReply, UsageRequest, UsageRow
from collegium_contracts.scope import AllTenants, AnyScope, Scope

from collegium_billing.books.sums import DAY_MS, DAY_SECONDS, HOUR_MS, HOUR_SECONDS
from collegium_billing.errors import QuestionError
from collegium_billing.identity.keys import is_tenant_id

GROUPS: Final = ("tenant", "project", "key", "model", "rank", "plan", "tag", "day")
RANGE_DAYS_MAX: Final = 400  # a year and its comparison month; more is an export, not a report
ROWS_MAX: Final = 2_000  # what fits one reply of the broker (1 MB) with long group values
REPLY_BYTES_MAX: Final = 900_000
_UNIX_MS_MAX: Final = 253_402_300_799_000  # the year 9999, where timestamps end


class UsageQuery(msgspec.Struct, frozen=True):
    """A checked question: usage in [from, to) of a scope, by groups; of one project or lineage of keys where named."""

    scope: AnyScope
    from_ms: int
    to_ms: int
    groups: tuple[str, ...]
    project: str | None = None
    key_id: str | None = None


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
    saved_picos: int
    cache_write_tokens: int
    reasoning_tokens: int


class Part(NamedTuple):
    """A part of a report: the sums of so many seconds each that begin in [from, to), or the rows of it (0 seconds).

    Where ``sign`` is -1 the part is taken away from the others.
    """

    seconds: int
    from_ms: int
    to_ms: int
    sign: int = 1


def parts(from_ms: int, to_ms: int, now_ms: int) -> list[Part]:
    """Returns what makes up [from, to): whole days, the hours of days that the bounds cut, the rows of hours they cut.

    A cut day or hour is read by its parts, or as a whole less the parts of its other side, whichever is less time; the
    future counts for nothing, so that a report up to now reads hardly a row.
    """
    made: list[Part] = []
    begin, end = _whole(made, 0, HOUR_MS, from_ms, to_ms, now_ms)
    begin, end = _whole(made, HOUR_SECONDS, DAY_MS, begin, end, now_ms)
    made.append(Part(DAY_SECONDS, begin, end))
    return [part for part in made if part.from_ms < part.to_ms]


def _whole(made: list[Part], seconds: int, unit_ms: int, from_ms: int, to_ms: int, now_ms: int) -> tuple[int, int]:
    """Adds the smaller parts of units that the bounds cut; returns from where to where whole units are left to read."""
    first, last = from_ms - from_ms % unit_ms, to_ms - to_ms % unit_ms
    if first == last and from_ms != first:
        made.append(Part(seconds, from_ms, to_ms))
        return first, first
    begin, end = from_ms, to_ms
    if from_ms != first:
        ends = first + unit_ms
        by_parts = _past(from_ms, ends, now_ms) <= _past(first, from_ms, now_ms)
        made.append(Part(seconds, from_ms, ends) if by_parts else Part(seconds, first, from_ms, -1))
        begin = ends if by_parts else first
    if to_ms != last:
        ends = last + unit_ms
        by_parts = _past(last, to_ms, now_ms) <= _past(to_ms, ends, now_ms)
        made.append(Part(seconds, last, to_ms) if by_parts else Part(seconds, to_ms, ends, -1))
        end = last if by_parts else ends
    return begin, end


def _past(from_ms: int, to_ms: int, now_ms: int) -> int:
    """Returns how much of a time lies before now."""
    return min(to_ms, now_ms) - min(from_ms, now_ms)


def check_parts(made_of: Sequence[Part], horizon_ms: int | None) -> None:
    """Raises QuestionError where a part needs rows from before ``horizon_ms``, which were purged."""
    if horizon_ms is None:
        return
    for part in made_of:
        if part.seconds == 0 and part.from_ms < horizon_ms:
            kept = datetime.fromtimestamp(horizon_ms / 1000, UTC).isoformat().replace("+00:00", "Z")
            raise _invalid("from", f"before {kept} usage is kept by the hour; let 'from' and 'to' be full hours")


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


def added(rows: Sequence[Sums]) -> Sums:
    """Returns the sum of rows, of no group."""
    return Sums((), *(sum(values) for values in zip(*(row[1:] for row in rows), strict=True)) if rows else (0,) * 10)


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
        cache_write_tokens=sums.cache_write_tokens,
        reasoning_tokens=sums.reasoning_tokens,
        cost_usd=picos_to_usd(sums.cost_picos),
        wasted_usd=picos_to_usd(sums.wasted_picos),
        charged_usd=picos_to_usd(sums.charge_picos),
        saved_usd=picos_to_usd(sums.saved_picos),
        margin_usd=picos_to_usd(sums.charge_picos - sums.cost_picos),
    )


def _invalid(param: str, message: str) -> QuestionError:
    return QuestionError("invalid_value", message, param)
