"""``eval domains``: whether what is discovered is what people named, and whether it stays the same as more is asked.

Rows are texts with their classes. Domains are found in a part of them, as evolution finds them, and the others are
assigned by the map, as routers do. One rule: the class of a row reaches no decision.
"""

from __future__ import annotations

import argparse
import itertools
import time
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from collegium_contracts.domains import DomainMap
from collegium_learning.domains.fitting import ROWS_MIN, find
from collegium_learning.domains.keeping import kept
from collegium_learning.domains.mapping import Mapper
from sklearn.metrics import adjusted_rand_score, v_measure_score

from collegium_cli.eval.embedding import Embedded
from collegium_cli.eval.head import OUT_OF_SCOPE
from collegium_cli.eval.reading import EvaluationError, rows_of, tell, write

# A part that no fit sees, and by how much the others grow from fit to fit.
MEASURED_SHARE = 0.2
GROWN = 1.5
FIRST_ROWS = 1_000
ASSIGNED = 1_000


class Fit(NamedTuple):
    """One fit: its map with ids that stay, how many of the ids before it were kept, and how long it took."""

    mapper: Mapper
    rows: int
    kept_of: tuple[int, int] | None
    seconds: float


def main(options: argparse.Namespace) -> int:
    """Measures, and writes one object."""
    rows = [row for row in rows_of(options.data) if isinstance(row.get("text"), str) and row.get("class")]
    draw = np.random.default_rng(options.seed)
    rows = [rows[place] for place in draw.permutation(len(rows))[: options.rows or len(rows)]]
    measured = round(len(rows) * MEASURED_SHARE)
    if len(rows) - measured < ROWS_MIN:
        raise EvaluationError(f"{options.data} holds fewer than {ROWS_MIN} rows to find domains in")
    embedded = Embedded()
    embedded.add([row["text"] for row in rows])
    seen = np.stack([embedded[row["text"]] for row in rows]).astype(np.float32)
    classes = [str(row["class"]) for row in rows]
    fits = _grown(seen[measured:])
    figures = [_figures(fit, seen[:measured], classes[:measured]) for fit in fits]
    for at, (before, after) in enumerate(itertools.pairwise(fits), 1):
        figures[at] |= _stayed(before, after, seen[:measured])
    write({"rows": len(rows), "classes": len(set(classes)), "measured_on": measured, "fits": figures})
    return 0


def _grown(seen: np.ndarray) -> list[Fit]:
    fits: list[Fit] = []
    number, rows, before = 0, min(FIRST_ROWS, len(seen)), None
    while True:
        began = time.perf_counter()
        found = find(seen[:rows])
        if found is None:
            raise EvaluationError(f"{rows} rows show no domains")
        former = before.clusters_of(seen[:rows]) if before is not None else [""] * rows
        ids = kept(found.places, len(found.centroids), former)
        stayed = (sum(map(bool, ids)), len(before.map.clusters)) if before is not None else None
        number, ids = _numbered(ids, number)
        wide, near = found.projection.shape
        before = Mapper(
            DomainMap(
                tenant="eval", version=1, created_at_ms=0, dimensions=wide, near_dimensions=near,
                mean=found.mean.tobytes(), projection=found.projection.tobytes(),
                centroids=found.centroids.tobytes(), reaches=found.reaches, clusters=ids, domains=ids,
            )
        )  # fmt: skip
        fits.append(Fit(before, rows, stayed, time.perf_counter() - began))
        tell(f"{rows} rows: {len(ids)} domains in {fits[-1].seconds:.1f} s")
        if rows == len(seen):
            return fits
        rows = len(seen) if rows * GROWN * GROWN > len(seen) else round(rows * GROWN)


def _numbered(ids: Sequence[str], number: int) -> tuple[int, list[str]]:
    named: list[str] = []
    for name in ids:
        number += not name
        named.append(name or f"topic-{number}")
    return number, named


def _figures(fit: Fit, seen: np.ndarray, classes: Sequence[str]) -> dict[str, Any]:
    began = time.perf_counter()
    for row in seen[:ASSIGNED]:
        fit.mapper.places(row[None])
    assigned_ms = (time.perf_counter() - began) * 1000 / min(len(seen), ASSIGNED)
    given = fit.mapper.clusters_of(seen)
    own = [place for place, name in enumerate(classes) if name != OUT_OF_SCOPE]
    strange = [place for place, name in enumerate(classes) if name == OUT_OF_SCOPE]
    assigned = [place for place in own if given[place]]
    named, told = [classes[place] for place in own], [given[place] for place in own]
    few, few_told = [classes[place] for place in assigned], [given[place] for place in assigned]
    return {
        "fitted_on": fit.rows,
        "domains": len(fit.mapper.map.clusters),
        "unassigned": round(1 - len(assigned) / len(own), 4),
        "unassigned_out_of_scope": round(sum(not given[place] for place in strange) / len(strange), 4)
        if strange
        else None,
        "v_measure": round(float(v_measure_score(named, told)), 4),
        "adjusted_rand": round(float(adjusted_rand_score(named, told)), 4),
        "v_measure_of_assigned": round(float(v_measure_score(few, few_told)), 4),
        "adjusted_rand_of_assigned": round(float(adjusted_rand_score(few, few_told)), 4),
        "fit_s": round(fit.seconds, 2),
        "assign_ms": round(assigned_ms, 4),
    }


def _stayed(before: Fit, after: Fit, seen: np.ndarray) -> dict[str, Any]:
    """How many ids were kept, and how many questions that both fits assign have the id that they had."""
    pairs = zip(before.mapper.clusters_of(seen), after.mapper.clusters_of(seen), strict=True)
    both = [(one, other) for one, other in pairs if one and other]
    assert after.kept_of is not None, "there was a fit before"
    return {
        "ids_kept": round(after.kept_of[0] / after.kept_of[1], 4),
        "questions_that_stayed": round(sum(one == other for one, other in both) / max(1, len(both)), 4),
    }
