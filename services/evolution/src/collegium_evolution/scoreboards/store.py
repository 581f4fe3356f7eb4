"""The scores of all time in PostgreSQL, and which events are in them: one transaction a batch for all rooms.

Which events were folded is kept exactly and in little room: a position up to which everything was, and the single
events after it. The position follows the consumer's acknowledgements, so what is kept singly is what was folded after
the oldest event still unacknowledged. An event is known by its sequence and the time it was stored, so that a stream
made anew, whose sequences begin again, is not taken for the old one. One rule: scores and the marks of their events
change in one transaction.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from typing import Any, NamedTuple

import asyncpg
from collegium_contracts.state import ModelScore
from collegium_runtime.failpoints import failpoint

from collegium_evolution.calibration.cases import Kept
from collegium_evolution.calibration.store import keep
from collegium_evolution.cycles import cycle_store
from collegium_evolution.experiments import exposure_store
from collegium_evolution.experiments.exposures import Asked, Exposure
from collegium_evolution.gaps import gap_store
from collegium_evolution.policies import decided_store
from collegium_evolution.policies.decided import Decided
from collegium_evolution.ranks import change_store, pair_store
from collegium_evolution.ranks.pairing import ComparedPair
from collegium_evolution.scoreboards import window_store
from collegium_evolution.scoreboards.histogram import quantile_ms
from collegium_evolution.scoreboards.judging import Outcome, OutcomeKey, changes, last_words
from collegium_evolution.scoreboards.scoring import Call, ScoreKey, Sum, add_up
from collegium_evolution.scoreboards.windows import (
    DomainKey,
    DomainSum,
    WindowKey,
    WindowSum,
    hour_of,
    of_calls,
    of_words,
)
from collegium_evolution.students import sample_store
from collegium_evolution.students.samples import Sample
from collegium_evolution.students.tries import Try

# Domains are the clients' words; those of a tenant beyond so many are scored together.
DOMAINS_MAX = 500
OTHER_DOMAINS = "(other)"
# The scoreboard stays far below what one value of a bucket may hold.
BOARD_ROWS_MAX = 500
_INT64_MAX = 2**63 - 1

_POSITION = "SELECT sequence, stored_ns FROM evolution.position WHERE durable = $1 FOR UPDATE"
_MARK = """
INSERT INTO evolution.folded (sequence, stored_ns) SELECT * FROM unnest($1::int8[], $2::int8[])
ON CONFLICT DO NOTHING RETURNING sequence, stored_ns
"""
_ADD_SCORES = """
INSERT INTO evolution.scores AS standing (
    model, domain, rank, calls, succeeded, duration_ms_total, cost_picos, last_at
)
SELECT model, domain, rank, calls, succeeded, duration_ms_total, cost_picos::numeric,
       timestamptz 'epoch' + last_at_ms * interval '1 millisecond'
FROM unnest(
    $1::text[], $2::text[], $3::text[], $4::int8[], $5::int8[], $6::int8[], $7::text[], $8::int8[]
) AS new (model, domain, rank, calls, succeeded, duration_ms_total, cost_picos, last_at_ms)
ON CONFLICT (model, domain, rank) DO UPDATE
SET calls = standing.calls + excluded.calls,
    succeeded = standing.succeeded + excluded.succeeded,
    duration_ms_total = standing.duration_ms_total + excluded.duration_ms_total,
    cost_picos = standing.cost_picos + excluded.cost_picos,
    last_at = greatest(standing.last_at, excluded.last_at)
"""
_ADD_DURATIONS = """
INSERT INTO evolution.durations AS standing (model, domain, rank, bucket, calls)
SELECT * FROM unnest($1::text[], $2::text[], $3::text[], $4::int4[], $5::int8[])
ON CONFLICT (model, domain, rank, bucket) DO UPDATE SET calls = standing.calls + excluded.calls
"""
_OUTCOMES = """
SELECT tenant, task_id, source, model, domain, rank, score, stored_ns FROM evolution.outcomes
WHERE (tenant, task_id, source) IN (SELECT * FROM unnest($1::text[], $2::text[], $3::text[]))
"""
_SAY = """
INSERT INTO evolution.outcomes AS standing (tenant, task_id, source, model, domain, rank, score, stored_ns)
SELECT * FROM unnest(
    $1::text[], $2::text[], $3::text[], $4::text[], $5::text[], $6::text[], $7::float8[], $8::int8[]
)
ON CONFLICT (tenant, task_id, source) DO UPDATE
SET model = excluded.model, domain = excluded.domain, rank = excluded.rank, score = excluded.score,
    stored_ns = excluded.stored_ns
"""
_ADD_JUDGED = """
INSERT INTO evolution.scores AS standing (
    model, domain, rank, calls, succeeded, duration_ms_total, cost_picos, last_at, judged, score_sum
)
SELECT model, domain, rank, 0, 0, 0, 0, timestamptz 'epoch', judged, score_sum
FROM unnest($1::text[], $2::text[], $3::text[], $4::int8[], $5::float8[])
    AS new (model, domain, rank, judged, score_sum)
ON CONFLICT (model, domain, rank) DO UPDATE
SET judged = standing.judged + excluded.judged, score_sum = standing.score_sum + excluded.score_sum
"""
_ADVANCE = """
WITH newest AS (
    SELECT max(stored_ns) AS stored_ns FROM evolution.folded WHERE sequence <= $2
), moved AS (
    UPDATE evolution.position SET sequence = $2, stored_ns = newest.stored_ns
    FROM newest WHERE durable = $1 AND newest.stored_ns > position.stored_ns
    RETURNING position.sequence, position.stored_ns
)
DELETE FROM evolution.folded USING moved
WHERE folded.sequence <= moved.sequence AND folded.stored_ns <= moved.stored_ns
"""
_NEWEST = """
SELECT sequence FROM (
    SELECT sequence, stored_ns FROM evolution.position WHERE durable = $1
    UNION ALL SELECT sequence, stored_ns FROM evolution.folded
) AS marks ORDER BY stored_ns DESC LIMIT 1
"""
_SCORES = """
SELECT model, domain, rank, calls, succeeded, duration_ms_total, cost_picos,
       (extract(epoch FROM last_at) * 1000)::int8 AS last_at_ms, judged, score_sum
FROM evolution.scores ORDER BY calls DESC, model, domain, rank LIMIT $1
"""
_DURATIONS = """
SELECT model, domain, rank, bucket, calls FROM evolution.durations
WHERE (model, domain, rank) IN (SELECT * FROM unnest($1::text[], $2::text[], $3::text[]))
"""


class Folding(NamedTuple):
    """One event to fold: where it stands, when it was stored there (Unix nanoseconds), the calls it counts, and the
    word about an answer that it brings, and the answer that is kept of it; whose task it is of, what it settles, which
    answers it compares, how its answer was chosen, what may be learned from it, what it tells of an experiment, and
    what was tried beside it."""

    sequence: int
    stored_ns: int
    calls: Sequence[Call]
    outcome: tuple[OutcomeKey, Outcome] | None = None
    kept: Kept | None = None
    tenant: str = ""
    settles: tuple[str, DomainSum] | None = None
    pairs: Sequence[ComparedPair] = ()
    decided: Decided | None = None
    sample: Sample | None = None
    exposure: Exposure | None = None
    asked: Asked | None = None
    tried: Try | None = None

    @property
    def counts(self) -> bool:
        """Whether it adds anything."""
        adds = (
            self.outcome, self.kept, self.settles, self.decided, self.sample, self.exposure, self.asked, self.tried,
        )  # fmt: skip
        return bool(self.calls or self.pairs) or any(one is not None for one in adds)


class Board(NamedTuple):
    """The scores with most calls first, and the sequence of the newest event in them."""

    scores: list[ModelScore]
    folded_sequence: int


class Store:
    """Evolution's tables over one pool, for the folds of one durable consumer."""

    def __init__(self, pool: asyncpg.Pool, durable: str) -> None:
        self._pool = pool
        self._durable = durable
        self._domains: defaultdict[str, set[str]] = defaultdict(set)

    async def fold(self, events: Sequence[Folding]) -> int:
        """Adds events to the scores in one transaction and returns how many were new; the others change nothing.

        Raises asyncpg.DataError where PostgreSQL cannot hold a value; nothing of the batch is folded then.
        """
        async with self._pool.acquire() as connection, connection.transaction():
            # Locks out other folds and the clearing of marks, so that no mark goes between here and the insertion.
            position = await connection.fetchrow(_POSITION, self._durable)
            fresh = await self._mark(connection, events, tuple(position))
            await self._add_fresh(connection, fresh)
            await keep(connection, [event.kept for event in fresh if event.kept is not None])
            await decided_store.add(connection, [event.decided for event in fresh if event.decided is not None])
            await sample_store.add(connection, [event.sample for event in fresh if event.sample is not None])
            await _tried(connection, fresh)
            await sample_store.add_tries(connection, [event.tried for event in fresh if event.tried is not None])
            failpoint("evolution.before-commit")
        failpoint("evolution.after-commit")
        return len(fresh)

    async def _add_fresh(self, connection: Any, fresh: Sequence[Folding]) -> None:
        """Adds events to the scores of all time, to those by hour, and to the pairs."""
        kept = await self._kept_domains(connection, _domains_of(fresh))
        fresh = [_renamed(event, kept[event.tenant]) for event in fresh]
        await self._add(connection, add_up(call for event in fresh for call in event.calls))
        by_hour: dict[WindowKey, WindowSum] = {}
        by_domain: dict[DomainKey, DomainSum] = {}
        for event in fresh:
            hour = hour_of(event.stored_ns)
            of_calls(by_hour, event.tenant, event.calls, hour)
            if event.settles is not None:
                domain, told = event.settles
                key = DomainKey(event.tenant, domain, hour)
                by_domain[key] = by_domain.get(key, DomainSum()).plus(told)
        words = last_words(event.outcome for event in fresh if event.outcome is not None)
        await self._judge(connection, words, by_hour)
        await window_store.add(connection, by_hour, by_domain)
        await pair_store.add(connection, [one for event in fresh for one in event.pairs])

    async def _mark(self, connection: Any, events: Sequence[Folding], position: tuple[int, int]) -> list[Folding]:
        after = {
            (event.sequence, event.stored_ns): event
            for event in events
            if event.sequence > position[0] or event.stored_ns > position[1]
        }
        if not after:
            return []
        rows = await connection.fetch(_MARK, *_columns(sorted(after)))
        return [after[row["sequence"], row["stored_ns"]] for row in rows]

    async def _kept_domains(self, connection: Any, domains: Mapping[str, Collection[str]]) -> dict[str, dict[str, str]]:
        """Says under which domain each is stored, by tenant: a tenant's new ones beyond its limit go together."""
        known = self._domains
        looked = [
            tenant for tenant, some in domains.items()
            if len(known[tenant]) < DOMAINS_MAX and not set(some) <= known[tenant]
        ]  # fmt: skip
        if looked:
            for tenant, domain in await window_store.named(connection, looked):
                if domain != OTHER_DOMAINS:
                    known[tenant].add(domain)
        kept: dict[str, dict[str, str]] = {}
        for tenant, some in domains.items():
            room = max(0, DOMAINS_MAX - len(known[tenant]))
            new = [domain for domain in sorted(some) if domain not in known[tenant]]
            kept[tenant] = {domain: domain for domain in some} | dict.fromkeys(new[room:], OTHER_DOMAINS)
        return kept

    async def _judge(
        self, connection: Any, told: Mapping[OutcomeKey, Outcome], by_hour: dict[WindowKey, WindowSum]
    ) -> None:
        if not told:
            return
        rows = await connection.fetch(_OUTCOMES, *_columns(sorted(told)))
        standing = {
            OutcomeKey(*tuple(row)[:3]): Outcome(ScoreKey(*tuple(row)[3:6]), row["score"], row["stored_ns"])
            for row in rows
        }
        newer, sums = changes(standing, told)
        if newer:
            said = [(*key, *newer[key].key, newer[key].score, newer[key].stored_ns) for key in sorted(newer)]
            await connection.execute(_SAY, *_columns(said))
            await connection.execute(_ADD_JUDGED, *_columns([(*key, *sums[key]) for key in sorted(sums)]))
            of_words(by_hour, standing, newer)

    async def erase(self, tenant: str) -> int:
        """Removes what is a tenant's alone and returns how many rows that was; sums over all tenants stay."""
        status: str = await self._pool.execute("DELETE FROM evolution.outcomes WHERE tenant = $1", tenant)
        removed = int(status.rpartition(" ")[2])
        for room in (window_store, pair_store, change_store, gap_store, cycle_store):
            removed += await room.erase(self._pool, tenant)
        return removed

    async def _add(self, connection: Any, sums: Mapping[ScoreKey, Sum]) -> None:
        scores: list[tuple[Any, ...]] = []
        durations: list[tuple[Any, ...]] = []
        for key, total in sorted(sums.items(), key=lambda one: one[0]):
            cost = str(total.cost_picos)
            scores.append((*key, total.calls, total.succeeded, total.duration_ms_total, cost, total.last_at_ms))
            durations.extend((*key, bucket, total.durations[bucket]) for bucket in sorted(total.durations))
        if scores:
            await connection.execute(_ADD_SCORES, *_columns(scores))
        if durations:
            await connection.execute(_ADD_DURATIONS, *_columns(durations))

    async def advance(self, acknowledged: int) -> None:
        """Moves the position to a sequence up to which every event is acknowledged, and drops the marks before it."""
        await self._pool.execute(_ADVANCE, self._durable, acknowledged)

    async def marks(self) -> int:
        """Returns how many single events are marked as folded."""
        return await self._pool.fetchval("SELECT count(*) FROM evolution.folded")

    async def board(self) -> Board:
        """Returns the scoreboard of one moment: at most BOARD_ROWS_MAX scores."""
        async with (
            self._pool.acquire() as connection,
            connection.transaction(isolation="repeatable_read", readonly=True),
        ):
            newest: int | None = await connection.fetchval(_NEWEST, self._durable)
            rows = await connection.fetch(_SCORES, BOARD_ROWS_MAX)
            keys = [ScoreKey(row["model"], row["domain"], row["rank"]) for row in rows]
            found = await connection.fetch(_DURATIONS, *_columns(keys)) if keys else []
        counts: defaultdict[ScoreKey, dict[int, int]] = defaultdict(dict)
        for row in found:
            counts[ScoreKey(row["model"], row["domain"], row["rank"])][row["bucket"]] = row["calls"]
        scores = [_score(row, counts[key]) for key, row in zip(keys, rows, strict=True)]
        return Board(scores, newest or 0)


async def _tried(connection: Any, fresh: Sequence[Folding]) -> None:
    """Adds what events tell of experiments; after their words, so that the words of one batch find their tasks."""
    exposures = [event.exposure for event in fresh if event.exposure is not None]
    await exposure_store.add(connection, exposures, [event.asked for event in fresh if event.asked is not None])
    await exposure_store.say(connection, [event.outcome for event in fresh if event.outcome is not None])


def _domains_of(events: Sequence[Folding]) -> dict[str, set[str]]:
    """Returns the domains that events name, by tenant."""
    found: defaultdict[str, set[str]] = defaultdict(set)
    for event in events:
        named = found[event.tenant]
        named |= {call.key.domain for call in event.calls} | {one.domain for one in event.pairs}
        if event.settles is not None:
            named.add(event.settles[0])
        if event.outcome is not None:
            named.add(event.outcome[1].key.domain)
    return found


def _renamed(event: Folding, kept: Mapping[str, str]) -> Folding:
    """Returns an event under the domains that it is stored under."""
    if all(domain == name for domain, name in kept.items()):
        return event

    def key_of(key: ScoreKey) -> ScoreKey:
        return key._replace(domain=kept[key.domain])

    outcome, settles = event.outcome, event.settles
    return event._replace(
        calls=[call._replace(key=key_of(call.key)) for call in event.calls],
        outcome=(outcome[0], outcome[1]._replace(key=key_of(outcome[1].key))) if outcome is not None else None,
        settles=(kept[settles[0]], settles[1]) if settles is not None else None,
        pairs=[one._replace(domain=kept[one.domain]) for one in event.pairs],
    )


def _score(row: asyncpg.Record, durations: Mapping[int, int]) -> ModelScore:
    fields = dict(row)
    cost = min(int(fields.pop("cost_picos")), _INT64_MAX)
    return ModelScore(**fields, cost_usd_picos=cost, duration_ms_p50=quantile_ms(durations, 0.5))


def _columns(rows: Sequence[Sequence[Any]]) -> list[list[Any]]:
    return [list(column) for column in zip(*rows, strict=True)]
