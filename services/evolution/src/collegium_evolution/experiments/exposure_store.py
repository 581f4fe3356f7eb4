"""The SQL of tasks that were part of experiments. One rule: a task stands once, and its first word stays its word."""

# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
# (asyncpg has no types of its own)

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final, NamedTuple

from collegium_contracts.experiment_requests import ArmFigures
from collegium_learning.experiments.looking import Unit, Word

from collegium_evolution.experiments.exposures import Asked, Exposure
from collegium_evolution.scoreboards.judging import Outcome, OutcomeKey

# Units whose first task or word counts in the test; later ones are in the figures alone.
UNITS_MAX: Final = 50_000
KEPT_MS: Final = 180 * 86_400_000
# A word that says surely right.
RIGHT_FROM: Final = 0.75

_ADD: Final = """
INSERT INTO evolution.trial_tasks (
    experiment, arm, unit, tenant, task_id, at_ms, failed, refused, duration_ms, cost_picos, score, word_number
)
SELECT new.experiment, new.arm, new.unit, new.tenant, new.task_id, new.at_ms, new.failed, new.refused, new.duration_ms,
       new.cost_picos, word.score, CASE WHEN word.score IS NOT NULL THEN nextval('evolution.trial_words') END
FROM unnest(
    $1::text[], $2::text[], $3::text[], $4::text[], $5::text[], $6::int8[], $7::bool[], $8::bool[], $9::int8[],
    $10::float8[]
) WITH ORDINALITY AS new (
    experiment, arm, unit, tenant, task_id, at_ms, failed, refused, duration_ms, cost_picos, place
)
LEFT JOIN LATERAL (
    SELECT outcomes.score FROM evolution.outcomes
    WHERE outcomes.tenant = new.tenant AND outcomes.task_id = new.task_id ORDER BY outcomes.stored_ns LIMIT 1
) AS word ON true
ORDER BY new.place
ON CONFLICT DO NOTHING
"""
_SAY: Final = """
UPDATE evolution.trial_tasks AS standing SET score = new.score, word_number = nextval('evolution.trial_words')
FROM unnest($1::text[], $2::text[], $3::float8[]) AS new (tenant, task_id, score)
WHERE standing.tenant = new.tenant AND standing.task_id = new.task_id AND standing.score IS NULL
"""
_ASKED: Final = """
INSERT INTO evolution.trial_pairs (experiment, tenant, task_id, asked, same, at_ms)
SELECT * FROM unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::bool[], $6::int8[]) ON CONFLICT DO NOTHING
"""
_UNITS: Final = """
SELECT arm, failed, refused, duration_ms, cost_picos, tenant FROM (
    SELECT DISTINCT ON (unit) number, arm, failed, refused, duration_ms, cost_picos, tenant FROM evolution.trial_tasks
    WHERE experiment = $1 AND arm IN ('control', 'candidate') ORDER BY unit, number
) AS firsts ORDER BY number LIMIT $2
"""
_WORDS: Final = """
SELECT arm, score, tenant FROM (
    SELECT DISTINCT ON (unit) word_number, arm, score, tenant FROM evolution.trial_tasks
    WHERE experiment = $1 AND arm IN ('control', 'candidate') AND word_number IS NOT NULL ORDER BY unit, word_number
) AS firsts ORDER BY word_number LIMIT $2
"""
_FIGURES: Final = """
SELECT arm, count(*) AS tasks, count(DISTINCT unit) AS units, count(DISTINCT unit) FILTER (WHERE score IS NOT NULL)
       AS judged, avg(score)::float8 AS quality, avg(failed::int)::float8 AS errors, avg(refused::int)::float8
       AS refusals, percentile_cont(0.95) WITHIN GROUP (ORDER BY duration_ms)::float8 AS p95_ms,
       avg(cost_picos)::float8 AS cost_usd_picos
FROM evolution.trial_tasks WHERE experiment = $1 GROUP BY arm ORDER BY arm DESC
"""
_PAIRS: Final = """
SELECT count(*) AS asked, count(*) FILTER (WHERE pairs.same) AS same,
       count(*) FILTER (WHERE NOT pairs.same AND tasks.score >= $2 AND tasks.arm = 'candidate') AS candidate_won,
       count(*) FILTER (WHERE NOT pairs.same AND tasks.score >= $2 AND tasks.arm = 'control') AS control_won
FROM evolution.trial_pairs AS pairs LEFT JOIN evolution.trial_tasks AS tasks USING (tenant, task_id)
WHERE pairs.experiment = $1
"""
_NEWEST: Final = """
SELECT coalesce(max(number), 0) + coalesce(max(word_number), 0) FROM evolution.trial_tasks WHERE experiment = $1
"""


class Told(NamedTuple):
    """What is known of an experiment's tasks: first tasks and first words of units in order of arrival, and figures.

    ``pairs`` counts questions that both arms answered: all, alike, and those that the candidate, or control, won.
    """

    units: list[Unit]
    words: list[Word]
    arms: list[ArmFigures]
    pairs: tuple[int, int, int, int]


async def add(connection: Any, exposures: Sequence[Exposure], asked: Sequence[Asked]) -> None:
    """Adds tasks with the first word about them that is known, and questions that both arms answered."""
    if exposures:
        await connection.execute(_ADD, *_columns(exposures))
    if asked:
        await connection.execute(_ASKED, *_columns(asked))


async def say(connection: Any, outcomes: Sequence[tuple[OutcomeKey, Outcome]]) -> None:
    """Notes words about tasks that none was known about; of several the one that was stored first."""
    first: dict[tuple[str, str], Outcome] = {}
    for key, outcome in outcomes:
        standing = first.get((key.tenant, key.task_id))
        if standing is None or outcome.stored_ns < standing.stored_ns:
            first[key.tenant, key.task_id] = outcome
    if first:
        rows = [(*key, first[key].score) for key in sorted(first, key=lambda key: first[key].stored_ns)]
        await connection.execute(_SAY, *_columns(rows))


async def newest(pool: Any, experiment: str) -> int:
    """Returns a number that grows with whatever is told of an experiment."""
    return await pool.fetchval(_NEWEST, experiment)


async def told(pool: Any, experiment: str) -> Told:
    """Returns what is known of an experiment's tasks."""
    units = [
        Unit(
            row["arm"] == "candidate",
            row["failed"],
            row["refused"],
            row["duration_ms"],
            row["cost_picos"],
            row["tenant"],
        )
        for row in await pool.fetch(_UNITS, experiment, UNITS_MAX)
    ]
    words = [
        Word(row["arm"] == "candidate", row["score"], row["tenant"])
        for row in await pool.fetch(_WORDS, experiment, UNITS_MAX)
    ]
    arms = [ArmFigures(**dict(row)) for row in await pool.fetch(_FIGURES, experiment)]
    pairs = await pool.fetchrow(_PAIRS, experiment, RIGHT_FROM)
    return Told(units, words, arms, tuple(pairs))


async def prune(pool: Any, now_ms: int) -> None:
    """Forgets tasks and questions that are too old to be looked at."""
    for table in ("trial_tasks", "trial_pairs"):
        await pool.execute(f"DELETE FROM evolution.{table} WHERE at_ms < $1", now_ms - KEPT_MS)  # noqa: S608 - two names


async def erase(pool: Any, tenant: str) -> int:
    """Removes what stands of a tenant's tasks and returns how many rows that was."""
    removed = 0
    for table in ("trial_tasks", "trial_pairs"):
        status: str = await pool.execute(f"DELETE FROM evolution.{table} WHERE tenant = $1", tenant)  # noqa: S608 - as above
        removed += int(status.rpartition(" ")[2])
    return removed


def _columns(rows: Sequence[Sequence[Any]]) -> list[list[Any]]:
    return [list(column) for column in zip(*rows, strict=True)]
