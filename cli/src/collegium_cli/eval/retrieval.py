"""``eval retrieval``: how well the documents of a corpus are found by words, by vectors, and by both as they are fused.

What decides is what serves: the same stems, the same fusion, the same rule for the dense side's weight, fed with the
questions in their order. One rule: what is relevant to a question is looked at after its lists are made.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from collegium_context.documents.generations import AVERAGE_WORDS
from collegium_context.embedding.bundled import MiniLm, runs
from collegium_context.embedding.interface import EmbedderUnavailableError
from collegium_context.search.fusion import fused
from collegium_context.search.measures import ndcg, recall
from collegium_context.search.tuning import DEFAULT_WEIGHT, Agreements, fitted_weight

from collegium_cli.eval.lexical import Lexical
from collegium_cli.eval.reading import RESAMPLED, EvaluationError, median, rows_of, tell, write

DEPTH = 100
SIDES = ("bm25", "dense", "hybrid")
THREADS = 2
_TENANT = "evaluation"


class Found(NamedTuple):
    """One thing that a side found."""

    id: str
    score: float


class Question(NamedTuple):
    """A question and the documents that are relevant to it."""

    text: str
    relevant: frozenset[str]


class Corpus:
    """Documents with both of their indexes."""

    def __init__(self, ids: list[str], texts: list[str], vectors: np.ndarray) -> None:
        self._ids = ids
        self._vectors = vectors
        self._lexical = Lexical(texts, AVERAGE_WORDS)

    def by_words(self, question: str) -> list[Found]:
        """Returns what BM25 finds, best first."""
        return self._first(self._lexical.scores(question), above=0.0)

    def by_vector(self, vector: np.ndarray) -> list[Found]:
        """Returns what is nearest, best first."""
        return self._first(self._vectors @ vector, above=-1.0)

    def _first(self, scores: np.ndarray, above: float) -> list[Found]:
        places = np.argsort(-scores, kind="stable")[:DEPTH]
        return [Found(self._ids[place], float(scores[place])) for place in places if scores[place] > above]


def main(options: argparse.Namespace) -> int:
    """Measures, and writes the figures."""
    try:
        model = MiniLm()
    except EmbedderUnavailableError as error:
        raise EvaluationError(str(error)) from None
    documents = list(rows_of(options.corpus))
    texts = [f"{row.get('title') or ''} {row['text']}".strip() for row in documents]
    began = time.perf_counter()
    corpus = Corpus([str(row["id"]) for row in documents], texts, embedded(model, texts))
    index_seconds = time.perf_counter() - began
    questions = questions_of(options.data)
    fixed = None
    if options.train is not None:
        trained = questions_of(options.train)
        fixed = fitted(corpus, trained, embedded(model, [one.text for one in trained]))
    figures = measured(corpus, questions, model, fixed, options.seed)
    figures["index_s"] = {"value": index_seconds, "low": index_seconds, "high": index_seconds}
    write(figures)
    return 0


def questions_of(path: Path) -> list[Question]:
    """Reads questions; those to which nothing is relevant are left out: no ranking of theirs is better."""
    made: list[Question] = []
    for row in rows_of(path):
        try:
            relevant = frozenset(str(one) for one, gain in row["qrels"].items() if gain > 0)
            made.append(Question(str(row["text"]), relevant))
        except (KeyError, AttributeError, TypeError) as error:
            raise EvaluationError(f"{path}: a row is no question with its qrels ({error})") from None
    return [one for one in made if one.relevant]


def embedded(model: MiniLm, texts: list[str]) -> np.ndarray:
    """Embeds texts on both cores."""
    vectors = np.zeros((len(texts), 384), np.float32)
    batches: list[list[int]] = runs(texts)
    done, told = 0, time.monotonic()
    with ThreadPoolExecutor(THREADS) as pool:
        encoded = pool.map(lambda run: unit(model.encode([texts[place] for place in run]).vectors), batches)
        for run, found in zip(batches, encoded, strict=True):
            vectors[run] = found
            done += len(run)
            if time.monotonic() - told > 10:
                told = time.monotonic()
                tell(f"embedded {done} of {len(texts)} texts")
    return vectors


def unit(rows: np.ndarray) -> np.ndarray:
    """Returns rows of length one, as they are kept and compared."""
    return rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12)


def fitted(corpus: Corpus, questions: Sequence[Question], vectors: np.ndarray) -> float:
    """Returns the weight for labelled questions, by cross-validation against the rule that needs no labels."""
    lists = [
        (corpus.by_vector(vector), corpus.by_words(one.text)) for one, vector in zip(questions, vectors, strict=True)
    ]
    agreements = Agreements()
    for dense, words in lists:
        agreements.see(_TENANT, dense, words)
    weight = fitted_weight(
        len(questions),
        lambda place, weight: ndcg([one.id for one in fused(*lists[place], weight)], questions[place].relevant),
        agreements.of(_TENANT).weight,
    )
    tell(f"the dense side weighs {weight:.3f} after {len(questions)} labelled questions")
    return weight


def measured(
    corpus: Corpus, questions: Sequence[Question], model: Any, fixed: float | None, seed: int
) -> dict[str, Any]:
    """Asks every question and returns the figures; ``fixed`` is a fitted weight, none the label-free rule."""
    gains: dict[str, list[float]] = {side: [] for side in SIDES}
    recalls: dict[str, list[float]] = {side: [] for side in SIDES}
    milliseconds: list[float] = []
    agreements = Agreements()
    for one in questions:
        began = time.perf_counter()
        dense = corpus.by_vector(unit(model.encode([one.text]).vectors)[0])
        words = corpus.by_words(one.text)
        agreements.see(_TENANT, dense, words)
        both = fused(dense, words, agreements.of(_TENANT).weight if fixed is None else fixed)
        milliseconds.append((time.perf_counter() - began) * 1000)
        for side, ranked in zip(SIDES, (words, dense, both), strict=True):
            ids = [found.id for found in ranked]
            gains[side].append(ndcg(ids, one.relevant))
            recalls[side].append(recall(ids, one.relevant, DEPTH))
    weight = agreements.of(_TENANT).weight if fixed is None else fixed
    tell(f"the dense side weighed {weight:.3f} at the end (at the beginning {DEFAULT_WEIGHT})")
    return {
        "ndcg10": {side: mean(values, seed) for side, values in gains.items()},
        "recall100": {side: mean(values, seed) for side, values in recalls.items()},
        "query_ms_p50": median(milliseconds, seed),
        "questions": len(questions),
    }


def mean(values: Sequence[float], seed: int) -> dict[str, float]:
    """Returns a mean with its bootstrap interval (95 %)."""
    if not values:
        return {"value": 0.0, "low": 0.0, "high": 0.0}
    sample = np.asarray(values, dtype=np.float64)
    drawn = np.random.default_rng(seed).choice(sample, size=(RESAMPLED, len(sample))).mean(axis=1)
    low, high = np.percentile(drawn, [2.5, 97.5])
    return {"value": round(float(sample.mean()), 4), "low": round(float(low), 4), "high": round(float(high), 4)}
