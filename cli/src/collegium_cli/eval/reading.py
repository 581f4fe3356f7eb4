"""Reading recorded rows, and writing figures. One rule: a figure is a value with an interval, and says of what."""

from __future__ import annotations

import gzip
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from collegium_context.semantic.risk import interval

RESAMPLED = 1_000


class EvaluationError(Exception):
    """What cannot be measured, and why."""


def rows_of(path: Path) -> Iterator[dict[str, Any]]:
    """Yields the objects of a file of JSON Lines, gzipped or not; raises :class:`EvaluationError`."""
    try:
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as lines:
            for number, line in enumerate(lines, 1):
                if line.strip():
                    try:
                        yield msgspec.json.decode(line, type=dict[str, Any])
                    except msgspec.DecodeError as error:
                        raise EvaluationError(f"{path}, line {number}: {error}") from None
    except OSError as error:
        raise EvaluationError(f"{path}: {error.strerror or error}") from None


def rate(events: int, trials: int) -> dict[str, float]:
    """Returns a rate with its Clopper–Pearson interval (95 %); 0 of 0 is 0, between 0 and 1."""
    low, high = interval(events, trials)
    return {"value": round(events / trials if trials else 0.0, 6), "low": round(low, 6), "high": round(high, 6)}


def median(values: Sequence[float], seed: int) -> dict[str, float]:
    """Returns a median with its bootstrap interval (95 %)."""
    if not values:
        return {"value": 0.0, "low": 0.0, "high": 0.0}
    sample = np.asarray(values, dtype=np.float64)
    drawn = np.random.default_rng(seed).choice(sample, size=(RESAMPLED, min(len(sample), 2_000)))
    low, high = np.percentile(np.median(drawn, axis=1), [2.5, 97.5])
    return {"value": round(float(np.median(sample)), 4), "low": round(float(low), 4), "high": round(float(high), 4)}


def tell(text: str) -> None:
    """Tells how far it is."""
    print(text, file=sys.stderr, flush=True)


def write(figures: dict[str, Any]) -> None:
    """Writes the one object."""
    sys.stdout.write(msgspec.json.encode(figures).decode() + "\n")
