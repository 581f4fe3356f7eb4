"""``eval router``: recorded outcomes through what the router expects and decides.

With ``--weak`` and ``--strong`` it measures how well the gain of the strong one is foretold, and how often the weak one
may answer with a proven bound on the loss; with ``--models all`` it chooses among all models that the rows have. One
rule: no outcome of a row that is measured reaches what is decided about it.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from collegium_learning.routing.certifying import LOSSES, prove
from collegium_learning.routing.choosing import Candidate, Draw, Wants, decide
from collegium_learning.routing.features import EMBEDDED_CHARS, row_of, traits
from collegium_learning.routing.fitting import Fitted, fit
from collegium_learning.routing.lessons import Doubles, Lessons
from collegium_learning.routing.predicting import Predictor
from collegium_learning.routing.trading import traded

from collegium_cli.eval.embedding import Embedded
from collegium_cli.eval.panels import Row, domain_of, mean_of, read_rows
from collegium_cli.eval.reading import RESAMPLED, EvaluationError, tell, write

# What a router can look through in well under a millisecond.
BANK_MAX = 6_000
TIMED = 2_000
_HALF, _MOST = 0.5, 0.8


class Known(NamedTuple):
    """Recorded rows as they are learned from or measured: what is seen of them, and their texts."""

    lessons: Lessons
    texts: tuple[str, ...]


def main(options: argparse.Namespace) -> int:
    """Measures, and prints one object."""
    train, data = read_rows(options.train, ("id", "outcomes")), read_rows(options.data, ("id", "outcomes"))
    models = _models(options, train, data)
    embedded = Embedded()
    embedded.add([_text(row)[:EMBEDDED_CHARS] for row in (*train, *data)])
    known, asked = (lessons_of(rows, models, embedded) for rows in (train, data))
    if options.models == "all":
        write(measured_all(known, asked, options.loss_max, options.seed))
    elif options.splits:
        write(split_many(joined(known, asked), options.splits, options.seed))
    else:
        write(measured_pair(known, asked, options.seed))
    return 0


def _models(options: argparse.Namespace, train: Sequence[Row], data: Sequence[Row]) -> tuple[str, ...]:
    found = {name for row in (*train, *data) for name in row["outcomes"]}
    if options.models == "all":
        return tuple(sorted(found))
    if not options.weak or not options.strong:
        raise EvaluationError("give --weak and --strong, or --models all")
    for name in (options.weak, options.strong):
        if name not in found:
            raise EvaluationError(f"no row has an outcome of {name!r}; there are: {', '.join(sorted(found))}")
    return options.weak, options.strong


def _text(row: Row) -> str:
    return str(row.get("input") or "")


def lessons_of(rows: Sequence[Row], models: tuple[str, ...], embedded: Embedded) -> Known:
    """Reads rows; a model without an outcome was wrong, a cost or time that was not recorded is none."""
    shape = (len(rows), len(models))
    scores, costs, seconds = np.zeros(shape), np.full(shape, np.nan), np.full(shape, np.nan)
    for at, row in enumerate(rows):
        for place, model in enumerate(models):
            outcome = row["outcomes"].get(model)
            if outcome is not None:
                scores[at, place] = float(outcome.get("score") or 0.0)
                costs[at, place] = _number(outcome.get("cost_usd"))
                seconds[at, place] = _number(outcome.get("latency_s"))
    texts = tuple(_text(row) for row in rows)
    seen = np.array([row_of(embedded[text[:EMBEDDED_CHARS]], traits(text)) for text in texts], np.float32)
    domains = tuple(domain_of(row) for row in rows)
    return Known(Lessons(models, domains, seen, np.ones(len(rows), bool), scores, costs, seconds), texts)


def _number(value: Any) -> float:
    return float("nan") if value is None else float(value)


def joined(first: Known, second: Known) -> Known:
    """Returns both as one."""
    one, two = first.lessons, second.lessons
    lessons = Lessons(
        one.models,
        one.domains + two.domains,
        np.concatenate([one.rows, two.rows]),
        np.concatenate([one.has_row, two.has_row]),
        np.concatenate([one.scores, two.scores]),
        np.concatenate([one.costs_usd, two.costs_usd]),
        np.concatenate([one.seconds, two.seconds]),
    )
    return Known(lessons, first.texts + second.texts)


def learned(known: Lessons, seed: int) -> tuple[Fitted, Lessons]:
    """Fits a policy to rows in an order drawn at random, and returns both."""
    shuffled = known.at(np.random.default_rng(seed).permutation(known.size))
    return fit(shuffled, seed=seed, bank_max=BANK_MAX), shuffled


def measured_pair(known: Known, asked: Known, seed: int) -> dict[str, Any]:
    """Returns the figures of a weak and a strong model."""
    began = time.perf_counter()
    fitted, shuffled = learned(known.lessons, seed)
    tell(f"fitted to {shuffled.size} rows in {time.perf_counter() - began:.1f} s, weights {fitted.policy.stack}")
    predictor, lessons = Predictor(fitted.policy), asked.lessons
    expected = predictor.expect_many(lessons.domains, lessons.rows)
    gains, lost = expected[:, 1] - expected[:, 0], lessons.scores[:, 1] - lessons.scores[:, 0]
    decided = _decision_ms(predictor, asked)
    return {
        **_recovered(gains, lost, seed),
        "accuracy_weak": mean_of(lessons.scores[:, 0].tolist(), seed),
        "accuracy_strong": mean_of(lessons.scores[:, 1].tolist(), seed),
        "decision_ms_p50": _percentile(decided, 50, seed),
        "decision_ms_p99": _percentile(decided, 99, seed),
        "certified": {f"{loss:.2f}": _certified(fitted, shuffled, gains, lost, loss, seed) for loss in LOSSES},
        "rows": lessons.size,
    }


def _recovered(gains: Doubles, lost: Doubles, seed: int) -> dict[str, Any]:
    """The area under the recovered gap and the shares of strong calls that recover half and most of it."""
    # Rows that are expected alike are taken in no order of theirs.
    ties = np.random.default_rng(seed).random(len(gains))
    ordered = lost[np.lexsort((ties, -gains))]
    drawn = np.random.default_rng(seed)
    even = np.full(len(ordered), 1.0 / max(1, len(ordered)))
    samples = [_curve(ordered, drawn.multinomial(len(ordered), even)) for _ in range(RESAMPLED)]
    whole = _curve(ordered, np.ones(len(ordered), np.int64))
    figures: dict[str, Any] = {}
    for place, name in enumerate(("apgr", "cpt50", "cpt80")):
        low, high = np.percentile([sample[place] for sample in samples], [2.5, 97.5])
        figures[name] = {"value": round(whole[place], 4), "low": round(float(low), 4), "high": round(float(high), 4)}
    return figures


def _curve(ordered: Doubles, times: np.ndarray) -> tuple[float, float, float]:
    """APGR, CPT50 and CPT80 of losses in the order in which the strong model is asked, each so many times."""
    recovered = np.concatenate([[0.0], np.cumsum(ordered * times)])
    share = np.concatenate([[0.0], np.cumsum(times)]) / max(1, times.sum())
    if recovered[-1] <= 0.0:
        return 0.0, 1.0, 1.0
    recovered = recovered / recovered[-1]
    area = float(((recovered[1:] + recovered[:-1]) / 2 * np.diff(share)).sum())
    half, most = (float(share[int(np.argmax(recovered >= part))]) for part in (_HALF, _MOST))
    return area, half, most


def _certified(
    fitted: Fitted, shuffled: Lessons, gains: Doubles, lost: Doubles, loss: float, seed: int
) -> dict[str, Any]:
    to_weak = _to_weak(fitted, shuffled, gains, loss)
    shares = mean_of(to_weak.astype(float).tolist(), seed)
    return {"weak_share": shares, "loss": mean_of(np.where(to_weak, lost, 0.0).tolist(), seed)}


def _to_weak(fitted: Fitted, shuffled: Lessons, gains: Doubles, loss: float) -> np.ndarray:
    weak, strong = shuffled.models
    held = fitted.held_out["full"]
    lost = shuffled.scores[:, 1] - shuffled.scores[:, 0]
    proof = prove(weak, strong, held[:, 1] - held[:, 0], lost, loss)
    return gains <= proof.gain_max if proof is not None else np.zeros(len(gains), bool)


def _decision_ms(predictor: Predictor, asked: Known) -> list[float]:
    """Decides rows one by one as a router does, their texts' traits included and their embedding not."""
    weak, strong = predictor.policy.models
    candidates = (Candidate(weak, "student", 1.0), Candidate(strong, "teacher", 2.0))
    taken: list[float] = []
    for at in range(min(TIMED, len(asked.texts))):
        row = asked.lessons.rows[at]
        began = time.perf_counter()
        traits(asked.texts[at])
        expected = predictor.expect(asked.lessons.domains[at], row)
        decide(predictor, expected, candidates, Wants(), Draw(0.5, 0.03))
        taken.append((time.perf_counter() - began) * 1000)
    return taken


def _percentile(values: Sequence[float], percent: float, seed: int) -> dict[str, float]:
    sample = np.asarray(values, float)
    drawn = np.random.default_rng(seed).choice(sample, size=(RESAMPLED, len(sample)))
    low, high = np.percentile(np.percentile(drawn, percent, axis=1), [2.5, 97.5])
    value = float(np.percentile(sample, percent))
    return {"value": round(value, 4), "low": round(float(low), 4), "high": round(float(high), 4)}


def split_many(known: Known, splits: int, seed: int) -> dict[str, Any]:
    """Halves rows at random, learns on one half and measures on the other, so many times."""
    drawn = np.random.default_rng(seed)
    areas: list[float] = []
    held: dict[str, list[tuple[float, float]]] = {f"{loss:.2f}": [] for loss in LOSSES}
    for number in range(splits):
        order = drawn.permutation(known.lessons.size)
        rest, others = known.lessons.at(order[::2]), known.lessons.at(order[1::2])
        fitted = fit(rest, seed=seed + number, bank_max=BANK_MAX)
        expected = Predictor(fitted.policy).expect_many(others.domains, others.rows)
        gains, lost = expected[:, 1] - expected[:, 0], others.scores[:, 1] - others.scores[:, 0]
        ties = drawn.random(len(gains))
        areas.append(_curve(lost[np.lexsort((ties, -gains))], np.ones(len(lost), np.int64))[0])
        for loss in LOSSES:
            to_weak = _to_weak(fitted, rest, gains, loss)
            held[f"{loss:.2f}"].append((float(to_weak.mean()), float(np.where(to_weak, lost, 0.0).mean())))
        tell(f"split {number + 1} of {splits}: APGR {areas[-1]:.4f}")
    certified = {
        loss: {
            "weak_share": mean_of([share for share, _ in found], seed),
            "loss": mean_of([lost for _, lost in found], seed),
            "holds": sum(lost <= float(loss) for _, lost in found),
        }
        for loss, found in held.items()
    }
    return {"splits": splits, "apgr": mean_of(areas, seed), "certified": certified}


def measured_all(known: Known, asked: Known, loss_max: float, seed: int) -> dict[str, Any]:
    """Returns the figures of choosing among all models."""
    fitted, shuffled = learned(known.lessons, seed)
    trade = traded(fitted, shuffled, loss_max)
    tell(f"learned from {shuffled.size} rows: {trade}")
    lessons = asked.lessons
    chosen = trade.choose(fitted.policy, lessons.domains, lessons.rows)
    base = lessons.models.index(trade.baseline)
    rows = np.arange(lessons.size)
    scores, costs = lessons.scores[rows, chosen], lessons.costs_usd[rows, chosen]
    priced = ~np.isnan(costs) & ~np.isnan(lessons.costs_usd[:, base])
    spent, instead = costs[priced], lessons.costs_usd[priced, base]
    return {
        "baseline_model": trade.baseline,
        "baseline_accuracy": mean_of(lessons.scores[:, base].tolist(), seed),
        "accuracy": mean_of(scores.tolist(), seed),
        "loss": mean_of((lessons.scores[:, base] - scores).tolist(), seed),
        "cost_usd": _total(spent, seed),
        "baseline_cost_usd": _total(instead, seed),
        "saving": _saving(spent, instead, seed),
        "share": {
            model: mean_of((chosen == place).astype(float).tolist(), seed) for place, model in enumerate(lessons.models)
        },
        "loss_max": loss_max,
        "family": trade.family,
        "tolerance": trade.tolerance,
        "rows": lessons.size,
        "rows_without_cost": int((~priced).sum()),
    }


def _total(costs: Doubles, seed: int) -> dict[str, float]:
    mean = mean_of(costs.tolist(), seed)
    if not len(costs):
        return mean
    drawn = np.random.default_rng(seed)
    sums = [float(drawn.choice(costs, len(costs)).sum()) for _ in range(RESAMPLED)]
    low, high = np.percentile(sums, [2.5, 97.5])
    return {"value": round(float(costs.sum()), 8), "low": round(float(low), 8), "high": round(float(high), 8)}


def _saving(spent: Doubles, instead: Doubles, seed: int) -> dict[str, float]:
    """The share of the baseline's cost that was not spent; 0 where nothing costs anything."""
    if not len(spent) or instead.sum() <= 0.0:
        return {"value": 0.0, "low": 0.0, "high": 0.0}
    drawn = np.random.default_rng(seed)
    samples: list[float] = []
    for _ in range(RESAMPLED):
        places = drawn.integers(0, len(spent), len(spent))
        samples.append(1.0 - float(spent[places].sum()) / max(float(instead[places].sum()), 1e-18))
    low, high = np.percentile(samples, [2.5, 97.5])
    value = 1.0 - float(spent.sum() / instead.sum())
    return {"value": round(value, 4), "low": round(float(low), 4), "high": round(float(high), 4)}
