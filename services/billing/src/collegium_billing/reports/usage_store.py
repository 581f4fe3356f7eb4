"""Usage reports in PostgreSQL: whole days and hours from the sums, ragged edges from the rows.

Not here: what may be asked and what figures mean (usage), which parts a report is made of (usage.parts). One rule: all
parts of a report are read in one snapshot, so that it equals what the rows alone would give.
"""

# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
# (asyncpg has no types of its own)

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import asyncpg  # pyright: ignore[reportMissingTypeStubs] - it has none
from collegium_contracts.scope import tenant_of

from collegium_billing.reports.usage import ROWS_MAX, Part, Sums, UsageQuery, added, check_parts, parts

# Shorter than a caller waits for its answer.
REPORT_SECONDS = 4.0

_HORIZON = "SELECT (extract(epoch FROM horizon) * 1000)::int8 FROM billing.purges"

# The only expressions that a report may group by; requests name them and never spell them.
_GROUPS = {
    "tenant": "tenant",
    "project": "project",
    "key": "key_id",
    "model": "model",
    "rank": "rank",
    "plan": "plan",
    "tag": "coalesce(tag.key || '=' || tag.value, '')",
    "day": "to_char({at} AT TIME ZONE 'UTC', 'YYYY-MM-DD')",
}
_FIGURES = (
    "requests", "input_tokens", "cached_input_tokens", "output_tokens", "cost", "wasted", "charge", "saved",
    "cache_write_tokens", "reasoning_tokens",
)  # fmt: skip
# Figures of each source, in the order of _FIGURES; none is a sum that the source does not have.
_TASKS = (
    "count(*) FILTER (WHERE state = 'completed' OR charge_picos > 0)",
    "sum(input_tokens)",
    "sum(cached_input_tokens)",
    "sum(output_tokens)",
    "0",
    "0",
    "sum(charge_picos)",
    "coalesce(sum(reference_picos - charge_picos) FILTER (WHERE reference_model <> ''), 0) + sum(saved_picos)",
    "sum(cache_write_tokens)",
    "sum(reasoning_tokens)",
)
_CALLS = (
    "0", "0", "0", "0", "sum(cost_picos)", "coalesce(sum(cost_picos) FILTER (WHERE wasted), 0)", "0", "0", "0", "0",
)  # fmt: skip
_SUMS = (
    "sum(requests)",
    "sum(input_tokens)",
    "sum(cached_input_tokens)",
    "sum(output_tokens)",
    "sum(cost_picos)",
    "sum(wasted_picos)",
    "sum(charge_picos)",
    "sum(saved_picos)",
    "sum(cache_write_tokens)",
    "sum(reasoning_tokens)",
)


class UsageStore:
    """Reports over one pool."""

    def __init__(self, pool: asyncpg.Pool) -> None:
        self._pool = pool

    async def usage(self, asked: UsageQuery, now_ms: int) -> tuple[list[Sums], Sums]:
        """Returns the sums by group (at most ROWS_MAX + 1 rows) and the totals, of one moment.

        Raises TimeoutError after REPORT_SECONDS, and QuestionError where rows that it needs were purged.
        """
        made_of = parts(asked.from_ms, asked.to_ms, now_ms)
        async with (
            asyncio.timeout(REPORT_SECONDS),
            self._pool.acquire() as connection,
            connection.transaction(isolation="repeatable_read", readonly=True),
        ):
            # A plan for any bounds would expect as much of the shortest edge as of the longest.
            await connection.execute("SET LOCAL plan_cache_mode = force_custom_plan")
            check_parts(made_of, await connection.fetchval(_HORIZON))
            rows: list[Sums] | None = None
            if asked.groups:
                found = await connection.fetch(statement(asked.groups, made_of), *_arguments(asked, made_of))
                rows = [_sums(row, len(asked.groups)) for row in found]
                # A task with several tags stands in several groups; otherwise groups add up, unless they were cut.
                if "tag" not in asked.groups and len(rows) <= ROWS_MAX:
                    return rows, added(rows)
            found = await connection.fetch(statement((), made_of), *_arguments(asked, made_of))
            totals = _sums(found[0], 0)
            return rows if rows is not None else [totals], totals


def _arguments(asked: UsageQuery, made_of: Sequence[Part]) -> list[Any]:
    of = (tenant_of(asked.scope), asked.project, asked.key_id)
    return [*of, *(bound for part in made_of for bound in (part.from_ms, part.to_ms))]


def statement(groups: Sequence[str], made_of: Sequence[Part]) -> str:
    """Writes a report's statement: its parts side by side, then their sum.

    Its arguments are tenant, project and key (none: of all) and, for each part, its two bounds.
    """
    names = [f"group_{number}" for number in range(len(groups))]
    lead = "".join(f"{name}, " for name in names)
    by = f"GROUP BY {', '.join(names)}" if names else ""
    selects: list[str] = []
    for number, part in enumerate(made_of):
        first = 4 + 2 * number
        if part.seconds:
            bounds = f"seconds = {part.seconds} AND {_between('begins_at', first)}"
            selects.append(_select(groups, names, "billing.usage_sums", "begins_at", _SUMS, bounds, part.sign))
        else:
            settled, called = _between("settled_at", first), _between("at", first)
            selects.append(_select(groups, names, "billing.tasks", "settled_at", _TASKS, settled, part.sign))
            selects.append(_select(groups, names, "billing.attempts", "at", _CALLS, called, part.sign))
    totals = ", ".join(f"coalesce(sum({figure}), 0)" for figure in _FIGURES)
    # Taking an edge away leaves groups of nothing, and the sums keep none.
    having = f"HAVING {' OR '.join(f'sum({name}) <> 0' for name in _FIGURES)}" if names else ""
    return f"""
    SELECT {lead} {totals}
    FROM ({" UNION ALL ".join(selects)}) AS parts {by} {having} LIMIT {ROWS_MAX + 1}
    """  # noqa: S608 - made of this module's constants alone


def _select(
    groups: Sequence[str], names: Sequence[str], table: str, at: str, figures: Sequence[str], bounds: str, sign: int
) -> str:
    tag = "LEFT JOIN LATERAL jsonb_each_text(tags) AS tag ON true" if "tag" in groups else ""
    lead = "".join(f"{_GROUPS[group].format(at=at)} AS {name}, " for group, name in zip(groups, names, strict=True))
    columns = ", ".join(f"{sign} * ({figure}) AS {name}" for figure, name in zip(figures, _FIGURES, strict=True))
    by = f"GROUP BY {', '.join(names)}" if names else ""
    return f"""
    SELECT {lead} {columns}
    FROM {table} {tag} WHERE {bounds} AND ($1::text IS NULL OR tenant = $1)
      AND ($2::text IS NULL OR project = $2) AND ($3::text IS NULL OR key_id = $3
           OR key_id IN (SELECT id FROM billing.keys WHERE lineage = $3)) {by}
    """  # noqa: S608 - made of this module's constants alone


def _between(column: str, first: int) -> str:
    return (
        f"{column} >= timestamptz 'epoch' + ${first}::int8 * interval '1 millisecond'"
        f" AND {column} < timestamptz 'epoch' + ${first + 1}::int8 * interval '1 millisecond'"
    )


def _sums(row: asyncpg.Record, groups: int) -> Sums:
    values = tuple(row)
    return Sums(values[:groups], *(int(value) for value in values[groups:]))
