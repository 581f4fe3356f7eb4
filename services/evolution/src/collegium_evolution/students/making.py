"""Making a head of a tenant's verified samples: choose, fit, and look at what was held out.

One rule: what it is said to reach is measured on samples that nothing of it was fitted on.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Sequence
from typing import Final, NamedTuple

import numpy as np
from collegium_bus.embed import EmbedClient
from collegium_learning.distill.selecting import choose
from collegium_learning.heads.applying import Classifier
from collegium_learning.heads.head import LABEL_CHARS_MAX, Head, HeadError, digest_of, pack

from collegium_evolution.students.opened import Opened

# A label is met so often on average, or the domain's answers are no labels.
LABEL_OFTEN: Final = 4
LABEL_LEAST: Final = 2
TRAINED_MAX: Final = 20_000
EMBED_SECONDS: Final = 120.0
SEED: Final = 1


class Made(NamedTuple):
    """A head, its bytes and digest, and how often it was right on what was held out."""

    head: Head
    content: bytes
    digest: str
    trained: int
    held_out: int
    held_out_right: int


class Labelled(NamedTuple):
    """Questions with their labels, and whose task each was."""

    texts: list[str]
    labels: list[str]
    ids: list[str]


def labelled(samples: Sequence[Opened]) -> Labelled:
    """Returns the samples that are questions with labels; raises HeadError where the domain's answers are none."""
    plain = [
        (one.question, one.answer, one.known.task_id)
        for one in samples
        if one.question is not None and len(one.answer) <= LABEL_CHARS_MAX
    ]
    often = Counter(label for _, label, _ in plain)
    kept = [(text, label, task) for text, label, task in plain if often[label] >= LABEL_LEAST]
    labels = {label for _, label, _ in kept}
    if len(labels) < 2 or len(kept) < LABEL_OFTEN * len(labels) or 2 * len(kept) < len(samples):
        raise HeadError(
            f"{len(kept)} of {len(samples)} verified samples have {len(labels)} answers that recur: no labels to learn"
        )
    return Labelled([text for text, _, _ in kept], [label for _, label, _ in kept], [task for _, _, task in kept])


async def made(embed: EmbedClient, tenant: str, samples: Sequence[Opened]) -> Made:
    """Makes a head; raises HeadError where they do not make one, BusError where they cannot be embedded."""
    rows = labelled(samples)
    embedded = await embed.embed(tenant, rows.texts, timeout_seconds=EMBED_SECONDS)
    vectors = np.frombuffer(embedded.vectors, "<f4").reshape(len(rows.texts), embedded.dimensions)
    # Minutes of arithmetic at most, beside the loop; it lets go of the interpreter while it multiplies.
    return await asyncio.to_thread(_fitted, rows, vectors, embedded.model)


def _fitted(rows: Labelled, vectors: np.ndarray, embedder: str) -> Made:
    from collegium_learning.heads.fitting import fit  # noqa: PLC0415 - scikit-learn, which a start need not wait for

    lengths = np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
    chosen = choose(rows.texts, rows.ids, vectors / lengths, rows.labels, TRAINED_MAX)
    often = Counter(rows.labels[place] for place in chosen.trained)
    trained = [place for place in chosen.trained if often[rows.labels[place]] >= LABEL_LEAST]
    head = fit(
        [rows.texts[place] for place in trained],
        vectors[trained],
        [rows.labels[place] for place in trained],
        embedder=embedder,
        seed=SEED,
    )
    content = pack(head)
    serving = Classifier(head)
    right = sum(serving.tell(rows.texts[place], vectors[place]).best == rows.labels[place] for place in chosen.held_out)
    return Made(head, content, digest_of(content), len(trained), len(chosen.held_out), right)
