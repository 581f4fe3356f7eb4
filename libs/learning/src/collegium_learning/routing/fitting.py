"""From outcomes to a policy. Pure.

Means of domains are shrunk as much as held-out outcomes ask for; what is left is fitted by a ridge over questions' rows
and by the nearest questions, and both are weighed by how well they foretell what they were not fitted to. Where rows
have outcomes of several models, it is their differences that are weighed: a question that is hard for all says nothing
about who should answer it. One rule: whatever is chosen by outcomes is chosen by outcomes that were held out.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final, NamedTuple

import msgspec
import numpy as np
from collegium_contracts.policies import Cell, Family, RoutingPolicy

from collegium_learning.routing.features import directions
from collegium_learning.routing.lessons import Doubles, Lessons, Places, Truths, domain_places, folds
from collegium_learning.routing.predicting import Predictor, unit

# How many outcomes everywhere weigh against a domain's own.
SHRINKS: Final = (1.0, 3.0, 10.0, 30.0, 100.0)
RIDGES: Final = (100.0, 300.0, 1_000.0, 3_000.0)
NEAR_DIMENSIONS: Final = 128
# A model with fewer outcomes than this is not told apart from all of them by rows.
LINEAR_ROWS_MIN: Final = 60
# The weights of the two parts before anything is known of them, and how sure that is.
_STACK_PRIOR, _STACK_SD = 0.5, 0.5
_STACK_MAX = 1.5
# Outcomes at the mean of all models that a model's own weigh against.
_MODEL_ROWS = 4.0
_TINY = 1e-9


class Shape(NamedTuple):
    """How a policy is fitted: what shrinks domains, the ridge, the weights of the two parts, and earlier questions
    kept.
    """

    shrink: float = 30.0
    ridge: float = 1_000.0
    stack: tuple[float, float] = (0.0, 0.0)
    bank_max: int = 3_000


class Fitted(NamedTuple):
    """A policy, and what was expected of each model for each lesson without its own outcome."""

    policy: RoutingPolicy
    held_out: Mapping[Family, Doubles]


def fit(lessons: Lessons, *, seed: int, bank_max: int = 3_000, blank: RoutingPolicy | None = None) -> Fitted:
    """Fits a policy; ``blank`` gives what is not fitted (version, tenant, tolerance). ValueError without rows."""
    if not lessons.size or not lessons.models:
        raise ValueError("nothing to fit a policy to")
    start = blank or RoutingPolicy(version=1, tenant="", created_at_ms=0, models=[], everywhere=[])
    splits = folds(lessons.size, seed) if lessons.size > 1 else []
    shrink = _shrink(lessons, splits)
    ridge, stack, expected = _stacked(lessons, splits, shrink, bank_max)
    shape = Shape(shrink, ridge, stack, bank_max)
    policy = fit_shape(lessons, shape, seed, start)
    means = np.full(lessons.scores.shape, np.nan)
    for rest, held in splits:
        means[held] = _means(lessons.scores[rest])
    return Fitted(policy, {"mean": means, "domain": expected[0], "full": expected[1]})


def fit_shape(lessons: Lessons, shape: Shape, seed: int, start: RoutingPolicy) -> RoutingPolicy:
    """Fits a policy of a given shape."""
    everywhere, domains = _cells(lessons, shape.shrink)
    placed = [cell.mean for cell in everywhere]
    named = {name: [cell.mean for cell in cells] for name, cells in domains.items()}
    base = np.array([named.get(name, placed) for name in lessons.domains])
    policy = msgspec.structs.replace(
        start,
        models=list(lessons.models),
        everywhere=everywhere,
        domains=domains,
        rows=lessons.size,
        reference=lessons.beside.reference if lessons.beside is not None else "",
        family="full" if lessons.has_row.any() else "domain",
        stack=shape.stack,
        **_linear(lessons, base, shape.ridge),
        **_bank(lessons, base, shape.bank_max, seed),
    )
    return msgspec.structs.replace(policy, novel_below=_novelty(policy))


def _means(scores: Doubles) -> Doubles:
    """The mean of each model (columns), shrunk a little towards that of all."""
    seen = ~np.isnan(scores)
    overall = scores[seen].mean() if seen.any() else 0.5
    total = np.where(seen, scores, 0.0).sum(axis=0)
    return (total + _MODEL_ROWS * overall) / (seen.sum(axis=0) + _MODEL_ROWS)


def _cells(lessons: Lessons, shrink: float) -> tuple[list[Cell], dict[str, list[Cell]]]:
    scores, seen = lessons.scores, ~np.isnan(lessons.scores)
    told = seen if lessons.told is None else lessons.told
    means, words = _means(scores), told.sum(axis=0)
    spread = _spread(means, words)
    of_model = np.sqrt(spread / (words + _MODEL_ROWS))
    costs, seconds = _averages(lessons.costs_usd), _averages(lessons.seconds)
    gaps = _Gaps(lessons, shrink)
    # Somewhere new a model may differ from everywhere by as much as domains do.
    elsewhere = np.sqrt(spread / shrink + of_model**2)
    everywhere = _as_cells(seen.sum(axis=0), means, elsewhere, costs, seconds, gaps.elsewhere)
    names, places = domain_places(lessons.domains)
    found: dict[str, list[Cell]] = {}
    for number, name in enumerate(names):
        here = places == number
        there = seen[here]
        rows, heard = there.sum(axis=0), told[here].sum(axis=0)
        mean = (np.where(there, scores[here], 0.0).sum(axis=0) + shrink * means) / (rows + shrink)
        own_spread = np.where(heard > 0, _spread(mean, heard), spread)
        sd = np.sqrt(own_spread / (heard + shrink) + (shrink / (heard + shrink) * of_model) ** 2)
        own = _averages(lessons.costs_usd[here], costs), _averages(lessons.seconds[here], seconds)
        found[name] = _as_cells(rows, mean, sd, *own, gaps.within(here))
    return everywhere, found


def _spread(means: Doubles, words: Places) -> Doubles:
    # A share of right ones near 0 or 1 is no surer than few words allow.
    return np.maximum(means * (1 - means), 1.0 / (words + 4.0))


class _Gaps:
    """How unsure models' differences to the reference are: by questions that both answered, in a domain or new ones."""

    def __init__(self, lessons: Lessons, shrink: float) -> None:
        beside, count = lessons.beside, len(lessons.models)
        self._known = beside is not None
        self._shrink = shrink
        self.elsewhere: Doubles = np.zeros(count)
        if beside is None:
            return
        gains = lessons.scores[:, [lessons.models.index(beside.reference)]] - lessons.scores
        self._both = ~np.isnan(gains)
        both = self._both.sum(axis=0)
        mean = np.where(self._both, gains, 0.0).sum(axis=0) / np.maximum(both, 1)
        squares = np.where(self._both, (gains - mean) ** 2, 0.0).sum(axis=0)
        self._spread = (squares + 1.0) / np.maximum(both, 1)
        self._everywhere = np.array(beside.sd)
        self.elsewhere = np.where(self._everywhere > 0, np.sqrt(self._spread / shrink + self._everywhere**2), 0.0)

    def within(self, here: Truths) -> Doubles:
        """Returns them for a domain's rows; zeros where nothing is known of differences."""
        if not self._known:
            return self.elsewhere
        weight = self._both[here].sum(axis=0) + self._shrink
        sd = np.sqrt(self._spread / weight + (self._shrink / weight * self._everywhere) ** 2)
        return np.where(self._everywhere > 0, sd, 0.0)


def _as_cells(rows: Places, mean: Doubles, sd: Doubles, costs: Doubles, seconds: Doubles, gaps: Doubles) -> list[Cell]:
    return [
        Cell(
            int(rows[at]),
            float(mean[at]),
            float(sd[at]),
            float(costs[at]) * 1e12,
            float(seconds[at]),
            float(gaps[at]),
        )
        for at in range(len(rows))
    ]


def _averages(values: Doubles, otherwise: Doubles | None = None) -> Doubles:
    """The mean of each column of what was seen, a little held to ``otherwise``; 0 where nothing was."""
    seen = ~np.isnan(values)
    count, total = seen.sum(axis=0), np.where(seen, values, 0.0).sum(axis=0)
    if otherwise is None:
        return np.where(count > 0, total / np.maximum(count, 1), 0.0)
    return (total + 2.0 * otherwise) / (count + 2.0)


def _shrink(lessons: Lessons, splits: Sequence[tuple[Places, Places]]) -> float:
    """Returns how much domains are shrunk: as foretells the differences of held-out rows best."""
    errors = dict.fromkeys(SHRINKS, 0.0)
    for rest, held in splits:
        for shrink in SHRINKS:
            left = _differences(lessons.scores[held] - _base(lessons, rest, held, shrink))
            errors[shrink] += float(np.nansum(left**2))
    return min(SHRINKS, key=lambda shrink: (errors[shrink], -shrink)) if splits else SHRINKS[-1]


def _base(lessons: Lessons, rest: Places, held: Places, shrink: float) -> Doubles:
    """The domains' means of some lessons, for others."""
    names, places = domain_places(lessons.domains)
    scores = lessons.scores[rest]
    seen = ~np.isnan(scores)
    means = _means(scores)
    sums, counts = np.zeros((len(names), scores.shape[1])), np.zeros((len(names), scores.shape[1]))
    np.add.at(sums, places[rest], np.where(seen, scores, 0.0))
    np.add.at(counts, places[rest], seen)
    return ((sums + shrink * means) / (counts + shrink))[places[held]]


def _differences(rest: Doubles) -> Doubles:
    """Takes the mean of a row out of it where several models were seen; a single one stays as it is."""
    seen = (~np.isnan(rest)).sum(axis=1, keepdims=True)
    mean = np.nansum(rest, axis=1, keepdims=True) / np.maximum(seen, 1)
    return np.where(seen > 1, rest - mean, rest)


def _stacked(
    lessons: Lessons, splits: Sequence[tuple[Places, Places]], shrink: float, bank_max: int
) -> tuple[float, tuple[float, float], tuple[Doubles, Doubles]]:
    """Returns the ridge, the weights of the parts, and what was expected of held-out rows by domain and in full."""
    shape = lessons.scores.shape
    base, near = np.full(shape, np.nan), np.zeros(shape)
    along = {ridge: np.zeros(shape) for ridge in RIDGES}
    for number, (rest, held) in enumerate(splits):
        base[held] = _base(lessons, rest, held, shrink)
        looking = held[lessons.has_row[held]]
        if not len(looking):
            continue
        known = lessons.at(rest)
        own = _base(lessons, rest, rest, shrink)
        blank = RoutingPolicy(version=1, tenant="", created_at_ms=0, models=list(lessons.models), everywhere=[])
        cells = [Cell() for _ in lessons.models]
        solved = _Ridges(known, own)
        for ridge in RIDGES:
            part = solved.at(ridge)
            if part.size:
                along[ridge][looking] = lessons.rows[looking] @ part[:, 1:].T + part[:, 0]
        banked = msgspec.structs.replace(blank, everywhere=cells, **_bank(known, own, bank_max, number))
        near[looking] = Predictor(banked).parts_many(lessons.rows[looking])[1]
    if not splits or not lessons.has_row.any():
        return RIDGES[-1], (0.0, 0.0), (base, base)
    seen = ~np.isnan(lessons.scores) & lessons.has_row[:, None]
    target = _differences(np.where(seen, lessons.scores - base, np.nan))
    best: tuple[float, float, tuple[float, float]] | None = None
    for ridge in RIDGES:
        weights, error = _weigh(along[ridge], near, target, seen)
        if best is None or error < best[0]:
            best = (error, ridge, weights)
    assert best is not None, "there are ridges"
    _, ridge, weights = best
    return ridge, weights, (base, base + weights[0] * along[ridge] + weights[1] * near)


def _weigh(along: Doubles, near: Doubles, target: Doubles, seen: Truths) -> tuple[tuple[float, float], float]:
    """Returns the weights of two parts that come nearest to a target, none below zero, and what is left of it."""
    first, second = _differences(np.where(seen, along, np.nan)), _differences(np.where(seen, near, np.nan))
    known = ~np.isnan(target)
    terms = np.column_stack([first[known], second[known]])
    left = target[known]
    held = float(left.var()) / _STACK_SD**2 if len(left) else 1.0
    prior = np.full(2, _STACK_PRIOR)
    weights = prior + np.linalg.solve(terms.T @ terms + max(held, _TINY) * np.eye(2), terms.T @ (left - terms @ prior))
    weights = np.clip(weights, 0.0, _STACK_MAX)
    error = float(((left - terms @ weights) ** 2).sum())
    return (float(weights[0]), float(weights[1])), error


class _Ridges:
    """Ridges of what is left of scores over rows, solved for any strength by one decomposition each."""

    def __init__(self, lessons: Lessons, base: Doubles) -> None:
        self._count = len(lessons.models)
        self._width = lessons.rows.shape[1]
        self._groups: list[tuple[list[int], Doubles, Doubles, Doubles, Doubles, Doubles]] = []
        seen = ~np.isnan(lessons.scores) & lessons.has_row[:, None]
        groups: dict[bytes, list[int]] = {}
        for model in range(self._count):
            if seen[:, model].sum() >= LINEAR_ROWS_MIN:
                groups.setdefault(seen[:, model].tobytes(), []).append(model)
        for models in groups.values():
            here = seen[:, models[0]]
            rows, left = lessons.rows[here].astype(np.float64), (lessons.scores - base)[here][:, models]
            centre, mean = rows.mean(axis=0), left.mean(axis=0)
            rows -= centre
            values, vectors = np.linalg.eigh(rows.T @ rows)
            self._groups.append((models, centre, mean, values, vectors, vectors.T @ (rows.T @ (left - mean))))

    def at(self, ridge: float) -> Doubles:
        """Returns an intercept and a weight for each number of a row, by model; empty where nothing could be fitted."""
        if not self._groups:
            return np.zeros((0, 0))
        found = np.zeros((self._count, 1 + self._width))
        for models, centre, mean, values, vectors, along in self._groups:
            weights = vectors @ (along / (np.maximum(values, 0.0) + ridge)[:, None])
            found[models, 1:] = weights.T
            found[models, 0] = mean - centre @ weights
        return found


def _linear(lessons: Lessons, base: Doubles, ridge: float) -> dict[str, bytes]:
    return {"linear": _Ridges(lessons, base).at(ridge).astype("<f4").tobytes()}


def _bank(lessons: Lessons, base: Doubles, bank_max: int, seed: int) -> dict[str, object]:
    """Returns the earlier questions that are kept, in fewer dimensions; the newest where there are too many."""
    useful = np.flatnonzero(lessons.has_row & (~np.isnan(lessons.scores)).any(axis=1))[-bank_max:]
    if len(useful) < NEAR_DIMENSIONS // 4:
        return {"bank": b"", "bank_rest": b"", "projection": b"", "near_dimensions": 0}
    pointing = unit(directions(lessons.rows[useful]))
    wide = min(NEAR_DIMENSIONS, pointing.shape[1])
    # Not centred: likeness is a cosine, before as after.
    _, vectors = np.linalg.eigh((pointing.T @ pointing).astype(np.float64))
    projection = np.ascontiguousarray(vectors[:, ::-1][:, :wide]).astype("<f4")
    rows = unit(pointing @ projection)
    scale = float(np.abs(rows).max()) / 127 or 1.0
    rest = (lessons.scores - base)[useful].astype("<f2")
    return {
        "bank": np.rint(rows / np.float32(scale)).astype(np.int8).tobytes(),
        "bank_scale": scale,
        "bank_rest": rest.tobytes(),
        "projection": projection.tobytes(),
        "near_dimensions": wide,
    }


def _novelty(policy: RoutingPolicy, quantile: float = 0.01) -> float:
    """Returns the likeness to their nearest other question that all but one in a hundred of the kept ones have."""
    if not policy.bank:
        return -1.0
    bank = np.frombuffer(policy.bank, np.int8).reshape(-1, policy.near_dimensions).astype(np.float32)
    bank = unit(bank)
    some = bank[:: max(1, len(bank) // 1_000)]
    likeness = some @ bank.T
    # The nearest of all is the question itself.
    second = np.partition(likeness, -2, axis=1)[:, -2]
    return float(np.quantile(second, quantile)) - 0.02
