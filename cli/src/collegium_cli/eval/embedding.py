"""Vectors for recorded texts, by the bundled embedder on both cores. One rule: a text is embedded once."""

from __future__ import annotations

import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from collegium_context.embedding.bundled import MiniLm, runs
from collegium_context.embedding.interface import EmbedderUnavailableError

from collegium_cli.eval.reading import EvaluationError, tell

THREADS = 2
TIMED = 200


class Embedded:
    """Texts with their vectors; ``milliseconds`` are what single texts took."""

    def __init__(self) -> None:
        try:
            self._model = MiniLm()
        except EmbedderUnavailableError as error:
            raise EvaluationError(str(error)) from None
        self._vectors: dict[str, np.ndarray] = {}
        self.milliseconds: list[float] = []

    def __getitem__(self, text: str) -> np.ndarray:
        return self._vectors[text]

    def add(self, texts: Sequence[str]) -> None:
        """Embeds what is not embedded yet."""
        new = [text for text in dict.fromkeys(texts) if text not in self._vectors]
        for text in new[:: max(1, len(new) // TIMED)][: TIMED - len(self.milliseconds)]:
            began = time.perf_counter()
            self._model.encode([text])
            self.milliseconds.append((time.perf_counter() - began) * 1000)
        batches = [[new[index] for index in run] for run in runs(new)]
        with ThreadPoolExecutor(THREADS) as pool:
            for number, (batch, counted) in enumerate(zip(batches, pool.map(self._model.encode, batches), strict=True)):
                self._vectors.update(zip(batch, _unit(counted.vectors), strict=True))
                if number % 200 == 199:
                    tell(f"embedded {len(self._vectors)} texts")


def _unit(rows: np.ndarray) -> np.ndarray:
    """Returns rows of length one, of numbers as the live embedder keeps them."""
    for kept_as in (np.float16, np.float32):
        rows = rows.astype(np.float32)
        rows = (rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), np.float32(1e-12))).astype(kept_as)
    return rows
