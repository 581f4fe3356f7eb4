"""What a policy expects of each model for a question: a quality from 0 to 1, and how unsure it is. Pure; numpy alone.

The domain's mean, shrunk towards the model's everywhere; what a linear model of the question's row adds to it; and what
the nearest earlier questions differ from theirs. One rule: what a question's row would tell is left out where there is
none, and what is left stands by itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple

import numpy as np
from collegium_contracts.policies import LAYOUT, Cell, RoutingPolicy

from collegium_learning.routing.features import TRAITS, Floats, directions
from collegium_learning.routing.lessons import Doubles

NEAREST: Final = 15
# How many questions a domain's mean weighs against the neighbours'.
NEAR_ROWS: Final = 30.0
_BLOCK: Final = 1_000


class Expected(NamedTuple):
    """Of each model: the quality, its standard deviation, a call's cost (dollars) and seconds, and outcomes seen here.

    ``beside_sd`` is how unsure its difference to the policy's reference is, 0 where that is not known.
    ``nearest`` is the likeness to the nearest earlier question; none where there is no row or none is kept.
    """

    quality: Doubles
    sd: Doubles
    cost_usd: Doubles
    seconds: Doubles
    seen: Doubles
    beside_sd: Doubles
    nearest: float | None = None


class Table(NamedTuple):
    """The cells of one domain, as columns."""

    mean: Doubles
    sd: Doubles
    cost_usd: Doubles
    seconds: Doubles
    seen: Doubles
    beside_sd: Doubles


class UnknownLayoutError(ValueError):
    """A policy whose arrays do not fit each other, or of a later layout."""


class Predictor:
    """A policy, ready to be applied; raises UnknownLayoutError where its arrays do not fit or hold no numbers."""

    def __init__(self, policy: RoutingPolicy) -> None:
        count = len(policy.models)
        if policy.layout != LAYOUT or not count or len(policy.everywhere) != count:
            raise UnknownLayoutError(f"policy {policy.version} of layout {policy.layout} for {count} models")
        if any(len(cells) != count for cells in policy.domains.values()):
            raise UnknownLayoutError(f"policy {policy.version}: a domain has not a cell for each of {count} models")
        if not np.isfinite([*policy.stack, policy.tolerance, policy.caution, policy.novel_below]).all():
            raise UnknownLayoutError(f"policy {policy.version}: weights that are no numbers")
        self.policy = policy
        self.places = {name: place for place, name in enumerate(policy.models)}
        self._everywhere = _table(policy.everywhere)
        is_mean = policy.family == "mean"
        self._domains = {} if is_mean else {name: _table(cells) for name, cells in policy.domains.items()}
        self._linear = _array(policy.linear, count)
        self._bank, self._projection, self._rest = _bank(policy, count)
        self.width = self._linear.shape[1] - 1 if self._linear.size else 0
        # How long a question's row is; of any length where nothing goes by it.
        self._row_width = self.width
        if len(self._bank):
            self._row_width = self._projection.shape[1] + len(TRAITS)
            if self.width not in (0, self._row_width):
                raise UnknownLayoutError(f"policy {policy.version}: rows of {self.width} and of {self._row_width}")
        self.sees_rows = policy.family == "full" and (self.width > 0 or len(self._bank) > 0)

    def expect(self, domain: str, row: Floats | None) -> Expected:
        """Returns what is expected for one question."""
        table = self._domains.get(domain, self._everywhere)
        quality, nearest = table.mean, None
        if row is not None and self.sees_rows and len(row) == self._row_width:
            added, likeness = self._beyond(row[None, :])
            quality = quality + added[0]
            nearest = float(likeness[0]) if len(self._bank) else None
        return Expected(quality, table.sd, table.cost_usd, table.seconds, table.seen, table.beside_sd, nearest)

    def expect_many(self, domains: Sequence[str], rows: Floats) -> Doubles:
        """Returns the quality of each model (columns) for questions that all have a row."""
        base = self.base_many(domains)
        if not self.sees_rows:
            return base
        for start in range(0, len(base), _BLOCK):
            block = slice(start, start + _BLOCK)
            base[block] += self._beyond(rows[block])[0]
        return base

    def base_many(self, domains: Sequence[str]) -> Doubles:
        """Returns the means of questions' domains."""
        return np.array([self._domains.get(name, self._everywhere).mean for name in domains])

    def parts_many(self, rows: Floats) -> tuple[Doubles, Doubles]:
        """Returns what the linear model and what the neighbours add, unweighted."""
        near = [self._near(rows[start : start + _BLOCK])[0] for start in range(0, len(rows), _BLOCK)]
        shape = (len(rows), len(self.policy.models))
        return self._along(rows), np.concatenate(near) if near and len(self._bank) else np.zeros(shape)

    def _beyond(self, rows: Floats) -> tuple[Doubles, Doubles]:
        along, near = self.policy.stack
        added = np.zeros((len(rows), len(self.policy.models)))
        if along and self.width:
            added += along * self._along(rows)
        rest, likeness = self._near(rows) if len(self._bank) else (added, np.zeros(len(rows)))
        return (added + near * rest if near and len(self._bank) else added), likeness

    def _along(self, rows: Floats) -> Doubles:
        if not self.width:
            return np.zeros((len(rows), len(self.policy.models)))
        return (_times(rows, self._linear[:, 1:]) + self._linear[:, 0]).astype(np.float64)

    def _near(self, rows: Floats) -> tuple[Doubles, Doubles]:
        """Returns the neighbours' rest and the likeness to the nearest one."""
        if not len(self._bank):
            return np.zeros((len(rows), len(self.policy.models))), np.zeros(len(rows))
        looking = unit(_times(directions(rows), self._projection))
        likeness = _times(looking, self._bank)
        count = min(NEAREST, len(self._bank))
        nearest = np.argpartition(likeness, len(self._bank) - count, axis=1)[:, -count:]
        rest = self._rest[nearest]
        seen = ~np.isnan(rest)
        added = np.where(seen, rest, 0.0).sum(axis=1) / (seen.sum(axis=1) + NEAR_ROWS)
        return added, np.take_along_axis(likeness, nearest, axis=1).max(axis=1).astype(np.float64)


def unit(rows: Floats) -> Floats:
    """Returns rows of length one."""
    return (rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-9)).astype(np.float32)


def _times(rows: Floats, others: Floats) -> Floats:
    """Returns the products of rows with others' rows.

    A single one without BLAS: its threads wait for each other longer than the sum takes, on a machine with other work.
    """
    if len(rows) == 1:
        return np.einsum("ij,j->i", others, rows[0])[None, :]
    return rows @ others.T


def _table(cells: Sequence[Cell]) -> Table:
    columns = np.array(
        [(one.mean, one.sd, one.cost_usd_picos / 1e12, one.seconds, one.rows, one.beside_sd) for one in cells]
    )
    if not np.isfinite(columns).all():
        raise UnknownLayoutError("cells that are no numbers")
    return Table(*(columns[:, place] for place in range(columns.shape[1])))


def _array(data: bytes, count: int) -> Floats:
    try:
        found = np.frombuffer(data, "<f4").astype(np.float32).reshape(count, -1)
    except ValueError as error:
        raise UnknownLayoutError(f"{len(data)} bytes are no {count} rows") from error
    if not np.isfinite(found).all():
        raise UnknownLayoutError("weights that are no numbers")
    return found


def _bank(policy: RoutingPolicy, count: int) -> tuple[Floats, Floats, Doubles]:
    none = np.zeros((0, 0), np.float32)
    if not policy.bank:
        return none, none, np.zeros((0, count))
    wide = policy.near_dimensions
    if not np.isfinite(policy.bank_scale):
        raise UnknownLayoutError(f"policy {policy.version}: a scale that is no number")
    if wide < 1 or len(policy.bank) % wide or len(policy.projection) % (4 * wide):
        raise UnknownLayoutError(f"policy {policy.version}: {len(policy.bank)} bytes are no rows of {wide}")
    bank = np.frombuffer(policy.bank, np.int8).reshape(-1, wide).astype(np.float32) * np.float32(policy.bank_scale)
    rest = np.frombuffer(policy.bank_rest, "<f2")
    if len(rest) != len(bank) * count:
        raise UnknownLayoutError(f"policy {policy.version}: {len(rest)} outcomes for {len(bank)} questions")
    projection = np.frombuffer(policy.projection, "<f4").astype(np.float32).reshape(-1, wide)
    # What was not seen is no number in ``rest``; nothing else is.
    if np.isinf(rest).any() or not np.isfinite(projection).all():
        raise UnknownLayoutError(f"policy {policy.version}: neighbours that are no numbers")
    return unit(bank), np.ascontiguousarray(projection.T), rest.reshape(-1, count).astype(np.float64)
