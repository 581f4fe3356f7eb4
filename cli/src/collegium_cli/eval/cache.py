"""``collegium eval cache``: recorded streams and pairs through the decisions of the semantic cache.

Learns on ``--train`` (default: the calibration that the platform ships) and measures on ``--data``. One rule: no label
of a row that is measured reaches the decision on it, and none of a row that was served reaches any.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from collegium_context.semantic.features import Compared, compare
from collegium_context.semantic.learning import learn_pairs, learn_stream
from collegium_context.semantic.policy import Calibration, Evidence, Limits, weigh
from collegium_context.semantic.replay import Asked, Replay
from collegium_context.semantic.shipped import shipped, write_calibration
from collegium_context.semantic.turns import turns_of
from collegium_context.semantic.words import read

from collegium_cli.eval.embedding import Embedded
from collegium_cli.eval.reading import EvaluationError, median, rate, rows_of, tell, write

Row = dict[str, Any]

# What nobody asked before has this class, and no two of it are the same.
NEW_CLASS = "oos"
TRAIN_ROWS_MAX = 20_000
SPLIT_ROWS_MAX = 4_000
# Other rows' questions that a question is compared with, to learn what is far apart: not the very nearest, which may
# mean the same, and none that is nearly equal.
UNLIKE_FROM, UNLIKE_TO, UNLIKE_COSINE = 2, 8, 0.9


def main(options: argparse.Namespace) -> int:
    """Measures, and prints one object."""
    data = list(rows_of(options.data))
    if not data:
        raise EvaluationError(f"{options.data} holds no rows")
    embedded = Embedded()
    if options.splits:
        write(split_many(data, embedded, options.wrong_max, options.splits, options.seed))
        return 0
    calibration = shipped()
    if options.train is not None:
        calibration = learned(list(rows_of(options.train)), embedded, calibration, options.wrong_max, options.seed)
    limits = Limits.of(calibration, options.wrong_max)
    tell(f"limits: {limits}")
    write(measured(data, embedded, calibration, limits, options.seed)[0])
    if options.write is not None:
        write_calibration(options.write, calibration, _named(options.train))
    return 0


def learned(rows: Sequence[Row], embedded: Embedded, base: Calibration, wrong_max: float, seed: int) -> Calibration:
    """Returns what a recording teaches."""
    if not rows:
        return base
    if "text" in rows[0]:
        return learn_stream(stream(rows[:TRAIN_ROWS_MAX], embedded), base, wrong_max, seed, time.perf_counter)
    pairs = compared_pairs(rows, embedded)
    kept = [(pair, row) for pair, row in zip(pairs, rows, strict=True) if pair is not None]
    wrong = np.array([1.0 - row["same"] for _, row in kept])
    return learn_pairs([pair for pair, _ in kept], wrong, unlike_pairs(rows, embedded), base, seed)


def measured(
    rows: Sequence[Row], embedded: Embedded, calibration: Calibration, limits: Limits, seed: int
) -> tuple[dict[str, Any], int, int]:
    """Returns the figures, the served rows and the wrong ones among them."""
    if "text" in rows[0]:
        return _stream(rows, embedded, calibration, limits, seed)
    return _pairs(rows, embedded, calibration, limits)


def _stream(
    rows: Sequence[Row], embedded: Embedded, calibration: Calibration, limits: Limits, seed: int
) -> tuple[dict[str, Any], int, int]:
    asked = stream(rows, embedded)
    rng = np.random.default_rng(seed)
    cache = Replay(len(asked[0].vector), calibration, limits, rng, clock=time.perf_counter)
    outcomes = [cache.ask(one) for one in asked]
    hits = sum(one.served for one in outcomes)
    wrong = sum(one.served and one.wrong for one in outcomes)
    figures = {
        "hit_rate": rate(hits, len(rows)),
        "wrong_among_hits": rate(wrong, hits),
        "embed_ms_p50": median(embedded.milliseconds, seed),
        "lookup_ms_p50": median([one.look_seconds * 1000 for one in outcomes], seed),
        "rows": len(rows),
    }
    return figures, hits, wrong


def _pairs(
    rows: Sequence[Row], embedded: Embedded, calibration: Calibration, limits: Limits
) -> tuple[dict[str, Any], int, int]:
    pairs = compared_pairs(rows, embedded)
    served = [_is_served(pair, calibration, limits) for pair in pairs]

    def shares(same: int) -> dict[str, Any]:
        chosen = [(row["category"], was) for row, was in zip(rows, served, strict=True) if row["same"] == same]
        named = {
            name: [was for category, was in chosen if category == name] for name in dict.fromkeys(c for c, _ in chosen)
        }
        return {name: rate(sum(of), len(of)) for name, of in {"all": [was for _, was in chosen], **named}.items()}

    wrong = sum(was and not row["same"] for row, was in zip(rows, served, strict=True))
    return {"served_same": shares(1), "served_different": shares(0), "rows": len(rows)}, sum(served), wrong


def _is_served(pair: Compared | None, calibration: Calibration, limits: Limits) -> bool:
    if pair is None:
        return False
    candidate = weigh(calibration, limits, pair, [], Evidence(), Evidence())
    return candidate is not None and candidate.fits


def stream(rows: Sequence[Row], embedded: Embedded) -> list[Asked]:
    """Returns the rows of a stream; a row of the class of new things has an answer of its own."""
    embedded.add([row["text"] for row in rows])
    return [
        Asked(read(row["text"]), embedded[row["text"]], row["id"] if row["class"] == NEW_CLASS else ("", row["class"]))
        for row in rows
    ]


def compared_pairs(rows: Sequence[Row], embedded: Embedded) -> list[Compared | None]:
    """Compares each row's questions; none where they are conversations of another shape."""
    return [_compared(turns_of(row["a"]), turns_of(row["b"]), embedded) for row in _embed(rows, embedded)]


def unlike_pairs(rows: Sequence[Row], embedded: Embedded) -> list[Compared]:
    """Compares each question with some of other rows."""
    kept, asked = [turns_of(row["a"]) for row in rows], [turns_of(row["b"]) for row in rows]
    cosines = (
        np.array([embedded[turns[-1].text] for turns in asked])
        @ np.array([embedded[turns[-1].text] for turns in kept]).T
    )
    found: list[Compared] = []
    for index, near in enumerate(np.argsort(-cosines, axis=1)):
        others = [int(other) for other in near if kept[other] != kept[index] and cosines[index, other] < UNLIKE_COSINE]
        for other in others[UNLIKE_FROM:UNLIKE_TO]:
            pair = _compared(kept[other], asked[index], embedded)
            if pair is not None:
                found.append(pair)
    return found


def _embed(rows: Sequence[Row], embedded: Embedded) -> Sequence[Row]:
    embedded.add([turn.text for row in rows for side in ("a", "b") for turn in turns_of(row[side])])
    return rows


def _compared(kept: Sequence[Any], asked: Sequence[Any], embedded: Embedded) -> Compared | None:
    if [turn.role for turn in kept] != [turn.role for turn in asked]:
        return None
    cosines = [float(embedded[a.text] @ embedded[b.text]) for a, b in zip(kept, asked, strict=True)]
    return compare([read(turn.text) for turn in asked], [read(turn.text) for turn in kept], cosines)


def split_many(data: Sequence[Row], embedded: Embedded, wrong_max: float, splits: int, seed: int) -> dict[str, Any]:
    """Halves the rows again and again: learns on one half what the bound promises, and looks at the other half.

    For pairs, the promise is about different questions: the share of them that is served.
    """
    rng = np.random.default_rng(seed)
    rates: list[float] = []
    hit_rates: list[float] = []
    for number in range(splits):
        order = rng.permutation(len(data))[: 2 * SPLIT_ROWS_MAX]
        middle = len(order) // 2
        left, right = ([data[int(index)] for index in part] for part in (order[:middle], order[middle:]))
        base = shipped()
        calibration = learned(left, embedded, base, wrong_max, seed + number)
        figures, served, wrong = measured(
            right, embedded, calibration, Limits.of(calibration, wrong_max), seed + number
        )
        is_stream = "text" in data[0]
        among = served if is_stream else sum(not row["same"] for row in right)
        rates.append(wrong / among if among else 0.0)
        hit_rates.append((figures["hit_rate"] if is_stream else figures["served_same"]["all"])["value"])
        tell(f"split {number + 1}: served {hit_rates[-1]:.3f}, wrong {rates[-1]:.4f}")
    held = sum(one <= wrong_max for one in rates)
    return {
        "splits": splits,
        "wrong_max": wrong_max,
        "bound_held": rate(held, splits),
        "wrong_mean": round(float(np.mean(rates)), 6),
        "wrong_most": round(max(rates), 6),
        "served_mean": round(float(np.mean(hit_rates)), 6),
    }


def _named(train: Path | None) -> str:
    return "" if train is None else train.name.partition(".")[0]
