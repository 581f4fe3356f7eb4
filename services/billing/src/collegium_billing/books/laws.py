"""The money laws: what must hold of books and ledger at every moment, each as a statement that finds where it does not.

They run as tests, in billing every few minutes over what is recent, and by ``collegium billing audit`` over all. Every
statement takes a time from which ($1) and one to which ($2) things happened, and returns a row of one text for each
violation. One rule: a law is read from what is stored alone, never from how it came there.

Rows of settled tasks and booked calls are purged after a time, the sums over them by the hour and the ledger are not.
What rows say is therefore compared row by row as long as they are kept, and by the hour, from the sums, for good: for
each full hour of the time that is asked for. A law that needs the rows says so.

One law is about the present alone and read from the owners of holds (holdlaw.py): what they hold is no row.
"""

from __future__ import annotations

from typing import Final, NamedTuple

ARCHIVE_GAPS: Final = "archive_has_no_gap"
HOLDS_LIVE: Final = "hold_has_live_task"


class Law(NamedTuple):
    """A law: its name (a metric's label), what it says, and the statement that finds violations."""

    name: str
    meaning: str
    sql: str


LAWS: Final[tuple[Law, ...]] = (
    Law(
        "transaction_sums_to_zero",
        "a transaction has two entries or more, and they sum to zero",
        """
        SELECT event_id FROM billing.transactions LEFT JOIN billing.entries ON transaction = id
        WHERE at >= $1 AND at < $2 GROUP BY id HAVING count(line) < 2 OR sum(amount_picos) <> 0
        """,
    ),
    Law(
        "ledger_sums_to_zero",
        "all entries together sum to zero, those of no transaction too",
        """
        SELECT 'entries sum to ' || sum(amount_picos) FROM billing.entries
        WHERE transaction BETWEEN (SELECT min(id) FROM billing.transactions WHERE at >= $1 AND at < $2)
                              AND (SELECT max(id) FROM billing.transactions WHERE at >= $1 AND at < $2)
        HAVING sum(amount_picos) <> 0
        """,
    ),
    Law(
        "one_charge_per_task",
        "a task is charged once at most",
        """
        SELECT task FROM billing.transactions JOIN billing.entries ON transaction = id AND line = 1
        WHERE at >= $1 AND at < $2 AND kind = 'charge' GROUP BY task HAVING count(*) > 1
        """,
    ),
    Law(
        "charge_is_in_ledger",
        "what a settled task is charged is what its tenant owes for it: by the task while it is kept, and by the hour",
        """
        SELECT task_id FROM billing.tasks AS booked
        LEFT JOIN billing.transactions AS posted ON event_id = 'charge/' || task_id
        LEFT JOIN billing.entries AS owed
               ON transaction = id AND account = 'tenant/' || booked.tenant || '/receivable'
        WHERE settled_at >= $1 AND settled_at < $2 AND charge_picos <> coalesce(amount_picos, 0)
        UNION ALL
        SELECT concat_ws('/', 'hour', to_char(begins_at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24"Z"'), tenant, project,
                         key_id, model)
        FROM (
            SELECT begins_at, tenant, project, key_id, coalesce(nullif(model, ''), '-') AS model,
                   charge_picos AS more
            FROM billing.usage_sums
            WHERE seconds = 3600 AND begins_at >= $1 AND begins_at + interval '1 hour' <= $2
            UNION ALL
            SELECT date_trunc('hour', at, 'UTC'), posted.tenant, project, key_id, model, -amount_picos
            FROM billing.transactions AS posted
            LEFT JOIN billing.entries ON transaction = posted.id
                  AND account = 'tenant/' || posted.tenant || '/receivable'
            WHERE kind = 'charge' AND at >= date_trunc('hour', $1 + interval '1 hour' - interval '1 us', 'UTC')
              AND at < date_trunc('hour', $2, 'UTC')
        ) AS both_sides GROUP BY begins_at, tenant, project, key_id, model HAVING sum(more) <> 0
        """,
    ),
    Law(
        "cost_is_in_ledger",
        "what a booked call cost is owed to its provider, as waste where it served nobody: by the call while it is"
        " kept, and by the hour",
        """
        SELECT concat_ws('/', task_id, attempt, delivery) FROM (
            SELECT task_id, attempt, delivery, cost_picos, wasted,
                   'provider/' || coalesce(nullif(model, ''), '-') || '/payable' AS payable,
                   'waste/' || coalesce(nullif(model, ''), '-') AS waste
            FROM billing.attempts WHERE at >= $1 AND at < $2
        ) AS booked
        LEFT JOIN billing.transactions AS called ON called.event_id = concat_ws('/', 'call', task_id, attempt, delivery)
        LEFT JOIN billing.entries AS owed ON owed.transaction = called.id AND owed.account = payable
        LEFT JOIN billing.transactions AS verdict
               ON verdict.event_id = concat_ws('/', 'waste', task_id, attempt, delivery)
        LEFT JOIN billing.entries AS lost ON lost.transaction = verdict.id AND lost.account = waste
        WHERE cost_picos <> -coalesce(owed.amount_picos, 0)
           OR CASE WHEN wasted THEN cost_picos ELSE 0 END <> coalesce(lost.amount_picos, 0)
        UNION ALL
        SELECT concat_ws('/', 'hour', to_char(begins_at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24"Z"'), tenant, project,
                         key_id, model)
        FROM (
            SELECT begins_at, tenant, project, key_id, coalesce(nullif(model, ''), '-') AS model,
                   cost_picos AS cost, wasted_picos AS lost
            FROM billing.usage_sums
            WHERE seconds = 3600 AND begins_at >= $1 AND begins_at + interval '1 hour' <= $2
            UNION ALL
            SELECT begins_at, tenant, project, key_id, model, -cost_picos, -wasted_picos
            FROM billing.sums_moved WHERE begins_at >= $1 AND begins_at + interval '1 hour' <= $2
            UNION ALL
            SELECT date_trunc('hour', at, 'UTC'), posted.tenant, project, key_id, model,
                   CASE WHEN kind = 'call' THEN amount_picos ELSE 0 END,
                   CASE WHEN kind = 'waste' THEN -amount_picos ELSE 0 END
            FROM billing.transactions AS posted
            JOIN billing.entries ON transaction = posted.id
             AND account = CASE WHEN kind = 'call' THEN 'provider/' || model || '/payable' ELSE 'waste/' || model END
            WHERE kind IN ('call', 'waste')
              AND at >= date_trunc('hour', $1 + interval '1 hour' - interval '1 us', 'UTC')
              AND at < date_trunc('hour', $2, 'UTC')
        ) AS both_sides GROUP BY begins_at, tenant, project, key_id, model HAVING sum(cost) <> 0 OR sum(lost) <> 0
        """,
    ),
    Law(
        "usage_times_price_is_cost",
        "what a call cost is its tokens by class times the prices of the version it was pinned to, and nothing where it"
        " gave no usage: of the call while it is kept, and of its transaction",
        """
        SELECT what FROM (
            SELECT what, model, price_version, picos, input_tokens, output_tokens,
                   least(cached_input_tokens, input_tokens) AS cached,
                   least(cache_write_tokens, input_tokens - least(cached_input_tokens, input_tokens)) AS written,
                   least(reasoning_tokens, output_tokens) AS reasoned
            FROM (
                SELECT concat_ws('/', task_id, attempt, delivery) AS what, model, price_version, cost_picos AS picos,
                       input_tokens, output_tokens, cached_input_tokens, cache_write_tokens, reasoning_tokens
                FROM billing.attempts WHERE at >= $1 AND at < $2 AND price_version > 0
                UNION
                SELECT substr(event_id, length('call/') + 1), model, price_version, -amount_picos,
                       input_tokens, output_tokens, cached_input_tokens, cache_write_tokens, reasoning_tokens
                FROM billing.transactions AS posted
                JOIN billing.entries ON transaction = posted.id AND account = 'provider/' || model || '/payable'
                WHERE at >= $1 AND at < $2 AND kind = 'call' AND price_version > 0
            ) AS both_sides
        ) AS booked
        LEFT JOIN billing.prices ON prices.model = booked.model AND version = price_version
        WHERE cost IS NULL OR NOT (picos = 0 AND input_tokens + output_tokens = 0) AND picos <>
              (input_tokens - cached - written) * (cost->>'input')::numeric + cached * (cost->>'cached_input')::numeric
            + written * (cost->>'cache_write')::numeric + (output_tokens - reasoned) * (cost->>'output')::numeric
            + reasoned * (cost->>'reasoning')::numeric + (cost->>'call')::numeric
        GROUP BY what
        """,
    ),
    Law(
        "charged_within_booked",
        "a task that called models is charged no more than its booked calls come to at the prices of their versions"
        " (tasks that are kept: requests.retention_days)",
        """
        SELECT task_id FROM (
            SELECT called.task_id, charge_picos, bool_and(charge IS NOT NULL) AS is_known, sum(
                (input_tokens - cached - written) * (charge->>'input')::numeric
                + cached * (charge->>'cached_input')::numeric + written * (charge->>'cache_write')::numeric
                + (output_tokens - reasoned) * (charge->>'output')::numeric
                + reasoned * (charge->>'reasoning')::numeric + (charge->>'call')::numeric) AS charges
            FROM (SELECT task_id, charge_picos FROM billing.tasks WHERE settled_at >= $1 AND settled_at < $2) AS settled
            JOIN (
                SELECT task_id, model, price_version, input_tokens, output_tokens,
                       least(cached_input_tokens, input_tokens) AS cached,
                       least(cache_write_tokens, input_tokens - least(cached_input_tokens, input_tokens)) AS written,
                       least(reasoning_tokens, output_tokens) AS reasoned
                FROM billing.attempts
            ) AS called USING (task_id)
            LEFT JOIN billing.prices ON prices.model = called.model AND version = price_version
            GROUP BY called.task_id, charge_picos
        ) AS summed WHERE is_known AND charge_picos > charges
        """,
    ),
    Law(
        "tenant_is_known",
        "every entry is of a tenant that stands",
        """
        SELECT DISTINCT tenant FROM billing.transactions AS posted WHERE at >= $1 AND at < $2
        AND NOT EXISTS (SELECT FROM billing.tenants WHERE tenants.id = posted.tenant)
        """,
    ),
    Law(
        "correction_is_in_ledger",
        "every correction is posted, with its amount",
        """
        SELECT made.id FROM billing.corrections AS made
        LEFT JOIN billing.transactions AS posted ON event_id = 'correction/' || made.id
        LEFT JOIN billing.entries AS owed ON transaction = posted.id AND line = 1
        WHERE made.at >= $1 AND made.at < $2 AND made.amount_picos <> coalesce(owed.amount_picos, 0)
        """,
    ),
    Law(
        ARCHIVE_GAPS,
        "between two archived events no event of the stream is missing from the books",
        """
        SELECT before + 1 || '-' || sequence - 1 FROM (
            SELECT sequence, lag(sequence) OVER (ORDER BY sequence) AS before
            FROM archive.events WHERE stream = 'EVENTS' AND at >= $1 AND at < $2
        ) AS pairs WHERE sequence > before + 1
        """,
    ),
)

HOLDS: Final = Law(
    HOLDS_LIVE, "every open hold is of a task that is queued or runs, and none outlasts its task or its time", ""
)
