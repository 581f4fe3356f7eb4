"""``eval head``: how often a trained head is right, and how long it takes. What decides is what serves.

Learns on ``--train`` and measures on ``--data``; with ``--splits`` on random parts of one file, again and again. One
rule: the class of a row that is measured reaches the decision on none.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from collegium_learning.heads.applying import Classifier, Told
from collegium_learning.heads.fitting import fit
from collegium_learning.heads.head import HeadError, pack, unpack
from sklearn.model_selection import train_test_split

from collegium_cli.eval.embedding import Embedded
from collegium_cli.eval.reading import EvaluationError, median, rate, rows_of, tell, write

Row = dict[str, Any]

# What is asked here is of none of the classes.
OUT_OF_SCOPE = "oos"
MEASURED_SHARE = 0.25
BINS = 10


class Measured(NamedTuple):
    """What a head said of rows, how long each answer took (milliseconds), and how the head was made."""

    rows: Sequence[Row]
    told: list[Told]
    milliseconds: list[float]
    fit_seconds: float
    head_bytes: int
    trained: int


def main(options: argparse.Namespace) -> int:
    """Measures, and writes one object."""
    data = _read(options.data)
    train = _read(options.train) if options.train is not None else []
    embedded = Embedded()
    embedded.add([row["text"] for row in (*train, *data)])
    try:
        if options.splits:
            write(_many(data, embedded, options.splits, options.seed))
            return 0
        if not train:
            raise EvaluationError("--train or --splits is needed")
        measured = _measured(train, data, embedded, options.seed)
    except HeadError as error:
        raise EvaluationError(str(error)) from None
    write(_figures(measured, embedded, options.seed))
    return 0


def _read(path: Any) -> list[Row]:
    rows = [row for row in rows_of(path) if isinstance(row.get("text"), str) and isinstance(row.get("class"), str)]
    if not rows:
        raise EvaluationError(f"{path} holds no rows of a text and its class")
    return rows


def _measured(train: Sequence[Row], data: Sequence[Row], embedded: Embedded, seed: int) -> Measured:
    texts, labels = [row["text"] for row in train], [row["class"] for row in train]
    began = time.perf_counter()
    vectors = np.stack([embedded[text] for text in texts]).astype(np.float32)
    head = fit(texts, vectors, labels, embedder="bundled", seed=seed, out_of_scope=OUT_OF_SCOPE)
    fit_seconds = time.perf_counter() - began
    content = pack(head)
    serving = Classifier(unpack(content))
    told, milliseconds = list[Told](), list[float]()
    for row in data:
        vector = embedded[row["text"]]
        asked = time.perf_counter()
        told.append(serving.tell(row["text"], vector))
        milliseconds.append((time.perf_counter() - asked) * 1000)
    return Measured(data, told, milliseconds, fit_seconds, len(content), len(train))


def _figures(measured: Measured, embedded: Embedded, seed: int) -> dict[str, Any]:
    own = [(row, told) for row, told in zip(measured.rows, measured.told, strict=True) if row["class"] != OUT_OF_SCOPE]
    right = [_is_right(row, told) for row, told in zip(measured.rows, measured.told, strict=True)]
    strange = [told for row, told in zip(measured.rows, measured.told, strict=True) if row["class"] == OUT_OF_SCOPE]
    return {
        "accuracy": rate(sum(right), len(right)),
        "accuracy_in_scope": rate(sum(told.best == row["class"] for row, told in own), len(own)),
        "accuracy_in_scope_kept": rate(sum(_is_right(row, told) for row, told in own), len(own)),
        "out_of_scope_recognised": rate(sum(not told.is_in_scope for told in strange), len(strange)),
        "ece": _ece([told.confidence for told in measured.told], right),
        "answer_ms_p50": median(measured.milliseconds, seed),
        "answer_ms_p99": round(float(np.percentile(measured.milliseconds, 99)), 4),
        "embed_ms_p50": median(embedded.milliseconds, seed),
        "fit_s": round(measured.fit_seconds, 2),
        "head_bytes": measured.head_bytes,
        "trained_on": measured.trained,
        "rows": len(measured.rows),
        "classes": len({row["class"] for row, _ in own}),
    }


def _is_right(row: Row, told: Told) -> bool:
    """Whether a row's class is given; of one out of scope, whether none of the classes is."""
    return not told.is_in_scope if row["class"] == OUT_OF_SCOPE else told.is_in_scope and told.label == row["class"]


def _ece(confidences: Sequence[float], right: Sequence[bool]) -> float:
    sure, were = np.array(confidences), np.array(right, float)
    bins = np.minimum((sure * BINS).astype(int), BINS - 1)
    gaps = [abs(sure[bins == one].mean() - were[bins == one].mean()) * (bins == one).mean() for one in set(bins)]
    return round(float(sum(gaps)), 4)


def _many(data: Sequence[Row], embedded: Embedded, splits: int, seed: int) -> dict[str, Any]:
    """Measures on a random quarter what the rest taught, so often; means with the lowest and highest."""
    named = [row["class"] for row in data]
    found: list[dict[str, Any]] = []
    for number in range(splits):
        places = train_test_split(
            np.arange(len(data)), test_size=MEASURED_SHARE, random_state=seed + number, stratify=named
        )
        train, rows = ([data[int(place)] for place in part] for part in places)
        found.append(_figures(_measured(train, rows, embedded, seed + number), embedded, seed))
        tell(f"split {number + 1}: {found[-1]['accuracy_in_scope']['value']:.4f} in {found[-1]['fit_s']} s")
    spread = ("accuracy", "accuracy_in_scope", "accuracy_in_scope_kept", "out_of_scope_recognised")
    figures: dict[str, Any] = {"splits": splits, "rows": found[0]["rows"], "trained_on": found[0]["trained_on"]}
    for name in spread:
        figures[name] = _spread([one[name]["value"] for one in found])
    for name in ("ece", "answer_ms_p99", "fit_s", "head_bytes"):
        figures[name] = _spread([one[name] for one in found])
    figures["answer_ms_p50"] = found[0]["answer_ms_p50"]
    figures["embed_ms_p50"] = found[0]["embed_ms_p50"]
    return figures


def _spread(values: Sequence[float]) -> dict[str, float]:
    return {"value": round(float(np.mean(values)), 4), "low": min(values), "high": max(values)}
