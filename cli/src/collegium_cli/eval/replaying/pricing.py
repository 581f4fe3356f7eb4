"""What the models of a pool cost, and with which rank each begins. Pure but for reading the files.

The teacher is the best single model of ``--train`` (without it: of the pool itself), the hardest one to compare with;
who costs at most a fifth of it begins as a student, others as TAs. A table of prices may say ranks itself. One rule:
whatever was assumed is printed with the figures.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

from collegium_testing.simulator import pool
from collegium_testing.simulator.pool import PoolRow, Prices
from collegium_testing.simulator.script import ScriptError

from collegium_cli.eval.reading import EvaluationError

STUDENT_PRICE_RATIO: Final = 0.2
RANKS: Final = ("student", "ta", "teacher")


class Pool(NamedTuple):
    """A pool ready to be served: its rows, and of each model its prices and first rank; one model is the teacher."""

    rows: Sequence[PoolRow]
    prices: Mapping[str, Prices]
    ranks: Mapping[str, str]
    teacher: str

    @property
    def answer_tokens_max(self) -> int:
        """The longest answer that was recorded: what is asked for at most, which bounds what a call may cost."""
        return max(one.completion_tokens for row in self.rows for one in row.outcomes.values())

    def cost_usd(self, row: PoolRow, model: str) -> float:
        """Returns what billing books for a model's answer to a row."""
        return pool.cost_usd(row.outcomes[model], self.prices[model])


def read(data: Path, train: Path | None, table: Path | None, models: Sequence[str]) -> Pool:
    """Reads a pool; ``models`` (none: all) are those that stand in it. Raises EvaluationError."""
    try:
        raw = pool.read_pool(data)
        known = pool.read_pool(train) if train is not None else raw
        names = list(models) or pool.models_of(raw)
        if missing := sorted(set(names) - set(pool.models_of(raw))):
            raise EvaluationError(f"no row has an outcome of {', '.join(missing)}; there are: {pool.models_of(raw)}")
        given = pool.read_prices(table) if table is not None else {}
        priced = given if given else pool.stated_prices(raw, names)
        if lacking := sorted(set(names) - set(priced)):
            raise EvaluationError(f"{table} has no prices of {', '.join(lacking)}")
    except (ScriptError, OSError) as error:
        raise EvaluationError(str(error)) from None
    if len(names) < 1:
        raise EvaluationError("a pool has at least one model")
    prices = {name: priced[name] for name in names}
    ranks, teacher = _ranked(pool.rows_of(known, prices), prices)
    return Pool(pool.rows_of(raw, prices), prices, ranks, teacher)


def _ranked(rows: Sequence[PoolRow], prices: Mapping[str, Prices]) -> tuple[dict[str, str], str]:
    wrong = {name: price.rank for name, price in prices.items() if price.rank not in (None, *RANKS)}
    if wrong:
        raise EvaluationError(f"no rank: {wrong}; accepted: {', '.join(RANKS)}")
    quality = {name: sum(row.outcomes[name].score for row in rows) / len(rows) for name in prices}
    cost = {name: sum(pool.cost_usd(row.outcomes[name], prices[name]) for row in rows) for name in prices}
    named = [name for name, price in prices.items() if price.rank == "teacher"]
    teacher = max(named or prices, key=lambda name: (quality[name], -cost[name], name))
    ranks = {name: price.rank or _rank(cost[name], cost[teacher]) for name, price in prices.items()}
    return {**ranks, teacher: "teacher"}, teacher


def _rank(cost: float, of_teacher: float) -> str:
    return "student" if cost <= STUDENT_PRICE_RATIO * of_teacher else "ta"


def check_cascade(of: Pool) -> None:
    """Raises EvaluationError for a pool that no cascade can be replayed on.

    A cascade asks two models of its weakest rank, or its only one twice; of a model one answer is recorded, which would
    always agree with itself.
    """
    weakest = next(rank for rank in RANKS if rank in of.ranks.values())
    names = [name for name, rank in of.ranks.items() if rank == weakest]
    if len(names) < 2 or weakest == RANKS[-1]:
        raise EvaluationError(
            f"a cascade compares two models of its weakest rank below the teacher's; here it has {', '.join(names)} "
            f"({weakest}): give two cheap models one rank in --prices"
        )


def table_of(of: Pool) -> dict[str, Any]:
    """Returns prices and ranks as they are printed and as the simulator reads them."""
    return {
        name: {
            "rank": of.ranks[name],
            "input_usd_per_mtok": price.input_usd_per_mtok,
            "output_usd_per_mtok": price.output_usd_per_mtok,
            "call_usd": price.call_usd,
        }
        for name, price in of.prices.items()
    }
