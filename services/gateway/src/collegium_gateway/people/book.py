"""The read model of questions in PostgreSQL, ``gateway.questions``, and the claims of those who work on them.

Questions and answers come from EVENTS and may come twice; a claim is a lease in the database's time. One rule: every
statement that returns questions names whose they may be.
"""

# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
# (asyncpg has no types of its own)

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Final

import asyncpg
import msgspec
from collegium_contracts.messages import InputRequired, Message, Settled, TaskInput

_NOW_MS: Final = "(extract(epoch FROM clock_timestamp()) * 1000)::bigint"
_COLUMNS: Final = (
    "task_id, question, tenant, stage, kind, whom, queue, reason, rule, labels, state, created_at_ms, expires_at_ms,"
    " answered_at_ms, decision, answered_by,"
    f" CASE WHEN claimed_until_ms > {_NOW_MS} THEN claimed_by END AS claimed_by,"
    f" CASE WHEN claimed_until_ms > {_NOW_MS} THEN claimed_until_ms END AS claimed_until_ms"
)
_OPEN: Final = """
INSERT INTO gateway.questions (task_id, question, tenant, stage, kind, whom, queue, reason, rule, labels, state,
                               created_at_ms, expires_at_ms)
SELECT task_id, question, tenant, stage, kind, whom, queue, reason, rule,
       string_to_array(labels, chr(31)), 'open', created_at_ms, expires_at_ms
FROM unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::text[], $6::text[], $7::text[], $8::text[], $9::text[],
            $10::text[], $11::bigint[], $12::bigint[])
     AS asked (task_id, question, tenant, stage, kind, whom, queue, reason, rule, labels, created_at_ms, expires_at_ms)
ON CONFLICT (task_id, question) DO NOTHING
"""
_ANSWER: Final = """
UPDATE gateway.questions AS asked
SET state = CASE WHEN given.decision = 'expire' THEN 'expired' ELSE 'answered' END,
    decision = given.decision, answered_by = given.by, answered_at_ms = given.at_ms,
    claimed_by = NULL, claimed_until_ms = NULL
FROM unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::bigint[])
     AS given (task_id, question, decision, by, at_ms)
WHERE asked.task_id = given.task_id AND asked.question = given.question AND asked.state IN ('open', 'closed')
"""
_CLOSE: Final = """
UPDATE gateway.questions SET state = 'closed', claimed_by = NULL, claimed_until_ms = NULL
WHERE task_id = ANY($1::text[]) AND state = 'open'
"""
# $1 whose (none: every tenant's), $2 by whom they are answered, $3 queues, $4 labels (none: any).
_REACH: Final = """
($1::text IS NULL OR tenant = $1) AND whom = ANY($2::text[]) AND ($3::text[] IS NULL OR queue = ANY($3))
AND ($4::text[] IS NULL OR labels && $4)
"""
_PAGE: Final = f"""
SELECT {_COLUMNS} FROM gateway.questions
WHERE {_REACH} AND ($5::text IS NULL OR state = $5) AND (created_at_ms, task_id, question) > ($6, $7, $8)
ORDER BY created_at_ms, task_id, question LIMIT $9
"""  # noqa: S608 - constants
_NEXT: Final = f"""
UPDATE gateway.questions SET claimed_by = $5, claimed_until_ms = {_NOW_MS} + $6, claims = claims + 1
WHERE (task_id, question) IN (
    SELECT task_id, question FROM gateway.questions
    WHERE {_REACH} AND state = 'open' AND expires_at_ms > {_NOW_MS}
          AND (claimed_until_ms IS NULL OR claimed_until_ms <= {_NOW_MS})
    ORDER BY created_at_ms, task_id, question LIMIT 1 FOR UPDATE SKIP LOCKED
)
RETURNING {_COLUMNS}
"""  # noqa: S608 - constants
_CLAIM: Final = f"""
UPDATE gateway.questions SET claimed_by = $3, claimed_until_ms = {_NOW_MS} + $4, claims = claims + 1
WHERE task_id = $1 AND question = $2 AND state = 'open'
      AND (claimed_until_ms IS NULL OR claimed_until_ms <= {_NOW_MS} OR claimed_by = $3)
RETURNING {_COLUMNS}
"""  # noqa: S608 - constants
_RETURN: Final = f"""
UPDATE gateway.questions SET claimed_by = NULL, claimed_until_ms = NULL
WHERE task_id = $1 AND question = $2 AND state = 'open' AND ($3::text IS NULL OR claimed_by = $3)
RETURNING {_COLUMNS}
"""  # noqa: S608 - constants
# By whom it was looked at ($3, none: by anybody) nobody else works on it, and it stands where it was seen ($4).
_MOVE: Final = f"""
UPDATE gateway.questions SET queue = $5, whom = $6, labels = $7, claimed_by = NULL, claimed_until_ms = NULL
WHERE task_id = $1 AND question = $2 AND state = 'open' AND queue = $4
      AND ($3::text IS NULL OR claimed_until_ms IS NULL OR claimed_until_ms <= {_NOW_MS} OR claimed_by = $3)
RETURNING {_COLUMNS}
"""  # noqa: S608 - constants


class QuestionRow(msgspec.Struct, frozen=True, kw_only=True):
    """One question as it stands; a claim that has ended is none."""

    task_id: str
    question: str
    tenant: str
    stage: str
    kind: str
    whom: str
    queue: str
    reason: str
    rule: str
    labels: list[str]
    state: str
    created_at_ms: int
    expires_at_ms: int
    answered_at_ms: int | None = None
    decision: str | None = None
    answered_by: str | None = None
    claimed_by: str | None = None
    claimed_until_ms: int | None = None


class Reachable(msgspec.Struct, frozen=True):
    """Which questions somebody may see: of one tenant (none: of all), answered by these, of these queues and labels."""

    tenant: str | None
    whom: tuple[str, ...]
    queues: tuple[str, ...] | None = None
    labels: tuple[str, ...] | None = None

    @property
    def arguments(self) -> list[Any]:
        """As the statements take it."""
        return [
            self.tenant,
            list(self.whom),
            list(self.queues) if self.queues is not None else None,
            list(self.labels) if self.labels is not None else None,
        ]

    def covers(self, row: QuestionRow) -> bool:
        """Whether a question is among them, whatever its queue and labels."""
        return self.tenant in (None, row.tenant) and row.whom in self.whom


class PeopleChanges(msgspec.Struct, frozen=True):
    """What a batch of events changes: pauses, answers, and tasks that settled."""

    paused: list[InputRequired]
    given: list[TaskInput]
    settled: list[str]


def changes_of(messages: Iterable[Message]) -> PeopleChanges | None:
    """Returns what a batch changes; none where nobody is asked about any task of it."""
    paused: list[InputRequired] = []
    given: list[TaskInput] = []
    settled: list[str] = []
    for message in messages:
        if isinstance(message, Settled):
            if message.task.people is not None:
                settled.append(message.task.id)
        elif isinstance(message, InputRequired):
            paused.append(message)
        elif isinstance(message, TaskInput):
            given.append(message)
    return PeopleChanges(paused, given, settled) if paused or given or settled else None


async def apply_changes(connection: Any, changes: PeopleChanges) -> None:
    """Writes what a batch changes; safe to do twice."""
    if changes.paused:
        asked = [(one, question) for one in changes.paused for question in one.questions]
        await connection.execute(
            _OPEN,
            [one.task.id for one, _ in asked],
            [question.id for _, question in asked],
            [one.task.tenant for one, _ in asked],
            [one.stage for one, _ in asked],
            [question.kind for _, question in asked],
            [question.of for _, question in asked],
            [question.queue for _, question in asked],
            [question.reason for _, question in asked],
            [question.rule for _, question in asked],
            ["\x1f".join(label.replace("\x00", "") for label in question.labels) for _, question in asked],
            [one.at_ms for one, _ in asked],
            [one.expires_at_ms for one, _ in asked],
        )
    if changes.given:
        await connection.execute(
            _ANSWER,
            [one.task_id for one in changes.given],
            [one.question for one in changes.given],
            [one.decision for one in changes.given],
            [one.by for one in changes.given],
            [one.at_ms for one in changes.given],
        )
    if changes.settled:
        await connection.execute(_CLOSE, changes.settled)


class QuestionBook:
    """Reads and claims questions."""

    def __init__(self, pool: asyncpg.Pool) -> None:
        self._pool = pool

    async def open_of(self, tenant: str) -> int:
        """Returns how many questions about a tenant's tasks are open."""
        return await self._pool.fetchval(
            "SELECT count(*) FROM gateway.questions WHERE tenant = $1 AND state = 'open'", tenant
        )

    async def get(self, task_id: str, question: str) -> QuestionRow | None:
        """Returns a question, whoever's it is: the caller checks."""
        record = await self._pool.fetchrow(
            f"SELECT {_COLUMNS} FROM gateway.questions WHERE task_id = $1 AND question = $2",  # noqa: S608 - constant
            task_id,
            question,
        )
        return _row(record)

    async def page(
        self, reach: Reachable, *, state: str | None, after: tuple[int, str, str], limit: int
    ) -> list[QuestionRow]:
        """Returns questions, oldest first, after a position."""
        records = await self._pool.fetch(_PAGE, *reach.arguments, state, *after, limit)
        return [QuestionRow(**dict(record)) for record in records]

    async def take_next(self, reach: Reachable, by: str, lease_ms: int) -> QuestionRow | None:
        """Claims the oldest open question that nobody works on, or none."""
        return _row(await self._pool.fetchrow(_NEXT, *reach.arguments, by, lease_ms))

    async def claim(self, task_id: str, question: str, by: str, lease_ms: int) -> QuestionRow | None:
        """Claims a question, or renews one's claim; none where it is not open, or another's."""
        return _row(await self._pool.fetchrow(_CLAIM, task_id, question, by, lease_ms))

    async def give_back(self, task_id: str, question: str, by: str | None) -> QuestionRow | None:
        """Ends a claim (``by`` none: whoever's it is); none where it is not one's own."""
        return _row(await self._pool.fetchrow(_RETURN, task_id, question, by))

    async def move(
        self, row: QuestionRow, by: str | None, queue: str, whom: str, labels: Sequence[str]
    ) -> QuestionRow | None:
        """Puts a question into another queue, in nobody's hands; none where it is not open any more, another's, or
        was moved meanwhile. With ``by`` none it is taken out of any hands."""
        record = await self._pool.fetchrow(_MOVE, row.task_id, row.question, by, row.queue, queue, whom, list(labels))
        return _row(record)

    async def due(self, limit: int) -> Sequence[tuple[str, str, str, str]]:
        """Returns tenant, task, question and queue of those whose time is over."""
        records = await self._pool.fetch(
            "SELECT tenant, task_id, question, queue FROM gateway.questions"  # noqa: S608 - constants
            f" WHERE state = 'open' AND expires_at_ms <= {_NOW_MS} ORDER BY expires_at_ms LIMIT $1",
            limit,
        )
        return [tuple(record) for record in records]


def _row(record: asyncpg.Record | None) -> QuestionRow | None:
    return QuestionRow(**dict(record)) if record is not None else None
