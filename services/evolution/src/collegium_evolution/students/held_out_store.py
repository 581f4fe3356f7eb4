"""The SQL of what fine-tuned models are still to be asked. One rule: of each model an item stands once, and is its
tenant's."""

# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
# (asyncpg has no types of its own)

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final, NamedTuple

# So often an item is asked, and after its n-th try without an answer that counts it waits n times so long: what failed
# by an outage is not worth less, and what no try answers ends.
TRIES_MAX: Final = 3
AGAIN_MS: Final = 3_600_000

_BEGIN: Final = """
INSERT INTO evolution.held_out (model, task_id, tenant, due_ms)
SELECT $1, unnest($3::text[]), $2, $4 ON CONFLICT DO NOTHING
"""
_COMPARED: Final = """
EXISTS (
    SELECT FROM evolution.pairs JOIN evolution.students AS made ON made.model = pairs.model
    WHERE pairs.tenant = item.tenant AND pairs.id = item.task_id AND pairs.model = item.model
          AND pairs.at_ms >= made.made_ms
)
"""
# What is taken at the same time elsewhere is seen to be once its lock is free.
_CLAIM: Final = f"""
UPDATE evolution.held_out AS claimed SET due_ms = $1::int8 + $2::int8
FROM (
    SELECT item.model, item.task_id, student.made_ms,
           row_number() OVER (PARTITION BY item.model ORDER BY item.due_ms, item.task_id) + (
               SELECT count(*) FROM evolution.held_out AS item
               WHERE item.model = student.model AND item.state = 'asked' AND item.asked_ms > $1::int8 - $4::int8
                     AND NOT {_COMPARED}
           ) AS place
    FROM evolution.held_out AS item
    JOIN evolution.students AS student ON student.model = item.model AND student.tenant = item.tenant
    WHERE item.state = 'waiting' AND item.due_ms <= $1::int8 AND student.state = 'serving' AND NOT {_COMPARED}
) AS due
WHERE due.place <= $3::int8 AND claimed.model = due.model AND claimed.task_id = due.task_id
      AND claimed.state = 'waiting' AND claimed.due_ms <= $1::int8
RETURNING claimed.model, claimed.task_id, claimed.tenant, due.made_ms, claimed.tries + 1
"""  # noqa: S608 - constants
_END: Final = f"""
UPDATE evolution.held_out AS item
SET state = CASE WHEN {_COMPARED} THEN 'compared' WHEN tries >= $3::int4 THEN 'unanswered' ELSE 'waiting' END,
    due_ms = $1::int8 + tries * $4::int8
WHERE state = 'asked' AND asked_ms <= $1::int8 - $2::int8
"""  # noqa: S608 - constants
_WAIT: Final = """
UPDATE evolution.held_out SET due_ms = $2, waits = $3
WHERE tenant = $1 AND ($4 = '' OR model = $4) AND ($5 = '' OR task_id = $5) AND state = 'waiting'
"""
_ASKED: Final = """
UPDATE evolution.held_out SET state = 'asked', waits = '', tries = $3, asked_ms = $4
WHERE model = $1 AND task_id = $2 AND state = 'waiting'
"""
_GONE: Final = "UPDATE evolution.held_out SET state = 'gone', waits = '' WHERE model = $1 AND task_id = $2"
_REPORT: Final = """
SELECT item.model, item.tenant, count(*) AS items,
       count(*) FILTER (WHERE item.state = 'gone') AS gone,
       count(*) FILTER (WHERE item.state = 'unanswered' AND pair.score IS NULL) AS unanswered,
       max(item.waits) AS waits,
       count(*) FILTER (WHERE pair.score IS NOT NULL) AS compared,
       count(*) FILTER (WHERE pair.score >= pair.other_score) AS as_good
FROM evolution.held_out AS item
LEFT JOIN evolution.students AS student ON student.model = item.model
LEFT JOIN LATERAL (
    SELECT score, other_score FROM evolution.pairs
    WHERE pairs.tenant = item.tenant AND pairs.id = item.task_id AND pairs.model = item.model
          AND pairs.at_ms >= coalesce(student.made_ms, 0)
    ORDER BY at_ms DESC LIMIT 1
) AS pair ON true
GROUP BY item.model, item.tenant ORDER BY item.model
"""


class Item(NamedTuple):
    """A held out task that a model, made at ``made_at_ms``, is to be asked for the ``number``-th time; whose both
    are."""

    model: str
    task_id: str
    tenant: str
    made_at_ms: int
    number: int


class Examined(NamedTuple):
    """How far a model has come: of its ``items`` some are ``gone``, some stayed ``unanswered`` and so many
    ``compared``, ``as_good`` of them told the same; ``waits`` says why the others were not asked yet, empty: they are
    on their way."""

    model: str
    tenant: str
    items: int
    gone: int
    unanswered: int
    compared: int
    as_good: int
    waits: str

    @property
    def line(self) -> str:
        """What a report says of it."""
        gone = f", {self.gone} gone" if self.gone else ""
        unanswered = f", {self.unanswered} unanswered" if self.unanswered else ""
        waits = f"; {self.waits}" if self.waits else ""
        return (
            f"{self.model} for {self.tenant}: {self.compared} of {self.items} held out compared,"
            f" {self.as_good} as the teacher{gone}{unanswered}{waits}"
        )


async def begin(pool: Any, model: str, tenant: str, tasks: Sequence[str], now_ms: int) -> None:
    """Keeps what a model is to be asked; what stands already stays."""
    await pool.execute(_BEGIN, model, tenant, list(tasks), now_ms)


async def claim(pool: Any, now_ms: int, lease_ms: int, limit: int, within_ms: int) -> list[Item]:
    """Takes items that are due, of models that serve; one whose taker dies is due again after the lease.

    Of each model at most ``limit`` are taken, or were asked ``within_ms`` and are not compared yet.
    """
    return [Item(*row) for row in await pool.fetch(_CLAIM, now_ms, lease_ms, limit, within_ms)]


async def end(pool: Any, now_ms: int, within_ms: int) -> None:
    """Looks at what was asked longer than ``within_ms`` ago: what is not compared waits for another try, or ends."""
    await pool.execute(_END, now_ms, within_ms, TRIES_MAX, AGAIN_MS)


async def wait(pool: Any, tenant: str, until_ms: int, why: str, model: str = "", task_id: str = "") -> None:
    """Puts off whatever is still to be asked of a tenant's ``model`` (empty: of all), and keeps why; ``task_id``: one
    item alone."""
    await pool.execute(_WAIT, tenant, until_ms, why, model, task_id)


async def asked(pool: Any, item: Item, now_ms: int) -> None:
    """Keeps that an item was asked."""
    await pool.execute(_ASKED, item.model, item.task_id, item.number, now_ms)


async def gone(pool: Any, item: Item) -> None:
    """Keeps that there is no item any more."""
    await pool.execute(_GONE, item.model, item.task_id)


async def report(pool: Any) -> list[Examined]:
    """Returns how far every model has come that is asked what it was not trained on."""
    return [Examined(**row) for row in await pool.fetch(_REPORT)]


async def drop(pool: Any, model: str) -> None:
    """Forgets what a model was to be asked."""
    await pool.execute("DELETE FROM evolution.held_out WHERE model = $1", model)
