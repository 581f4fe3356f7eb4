"""Fitting a head on texts, their vectors and their labels: seconds for ten thousand. Pure; needs scikit-learn.

The regression is multinomial with a ridge, minimised by L-BFGS. The temperature and the limit of what is the head's
kind come from a fifth of the texts that a first fit does not see; then all are fitted, beginning where that fit ended.
Texts labelled out of scope are no class of their own: a class would need examples of everything else there is. One
rule: no number that promises something was fitted on the texts that it is measured on.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple

import msgspec
import numpy as np
from scipy import optimize, sparse
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import train_test_split

from collegium_learning.heads.features import counted, weighed
from collegium_learning.heads.head import LABELS_MAX, WITH_MIDDLES, Head, HeadError, middles_that_fit

WORD_SLOTS: Final = 1 << 12
LETTER_SLOTS: Final = 1 << 13
VIEW_SCALE: Final = 0.5
# The inverse ridge: of 3, 10, 30 and 100 the best on both sets of intents that heads are measured on, though little
# depends on it.
STRENGTH: Final = 30.0
TEXTS_MAX: Final = 100_000
TEXTS_MIN: Final = 8
HELD_OUT: Final = 0.2
# Without examples of anything else, so many of its own kind may be taken for strangers.
STRANGERS: Final = 0.005
# How often somebody asks for something else, where the examples cannot say.
OUT_OF_SCOPE_SHARE: Final = 0.25
# What being near what a label's texts are like counts for, beside the strongest logit. Measured: with 5 and 20
# strangers are told no better.
SCOPE_WEIGHT: Final = 10.0
_MIDDLE_ROUNDS: Final = 8
_ROUNDS: Final = 80
_GRADIENT: Final = 1e-4


class Views(NamedTuple):
    """Texts as numbers: vectors float32 (texts, dimensions) and hashed views, sparse float32 (texts, slots)."""

    dense: np.ndarray
    hashed: sparse.csr_matrix


class _Fitted(NamedTuple):
    dense: np.ndarray
    hashed: np.ndarray
    biases: np.ndarray

    def logits(self, views: Views) -> np.ndarray:
        return views.dense @ self.dense + views.hashed @ self.hashed + self.biases


def fit(
    texts: Sequence[str],
    vectors: np.ndarray,
    labels: Sequence[str],
    *,
    embedder: str,
    seed: int,
    out_of_scope: str = "",
    out_of_scope_share: float = OUT_OF_SCOPE_SHARE,
) -> Head:
    """Fits a head; ``vectors`` are float (texts, dimensions).

    Texts labelled ``out_of_scope`` (where it is not empty) say what is none of its kind, and it answers them with that
    label. Raises HeadError where there are fewer than two other labels, or not twice each on average, and, before it
    fits anything, where the head would be too large.
    """
    _check(texts, vectors, labels)
    named = np.array(labels, dtype=object)
    is_stranger = named == out_of_scope if out_of_scope else np.zeros(len(named), bool)
    own = np.flatnonzero(~is_stranger)
    names, classes = np.unique(named[own].astype(str), return_inverse=True)
    if not 2 <= len(names) <= LABELS_MAX or len(own) < max(TEXTS_MIN, 2 * len(names)):
        raise HeadError(f"{len(own)} texts of {len(names)} labels make no head: two labels, and two texts of each")
    bare = Head(
        version=WITH_MIDDLES,
        labels=[str(name) for name in names],
        embedder=embedder,
        dimensions=vectors.shape[1],
        word_rarity=b"",
        letter_rarity=b"",
        weights=b"",
        biases=b"",
        view_scale=VIEW_SCALE,
        out_of_scope=out_of_scope if is_stranger.any() else "",
        samples=len(texts),
    )
    most = middles_that_fit(bare, WORD_SLOTS + LETTER_SLOTS, np.bincount(classes).tolist())
    rarities = [np.frombuffer(one.astype("<f2").tobytes(), "<f2") for one in _rarities(texts)]
    views = _views(texts, vectors, rarities)
    kept, held = _parts(classes, seed)
    first = _minimise(_rows(views, own[kept]), classes[kept], len(names))
    near = middles_of(views.dense[own[kept]], classes[kept], len(names), seed, most)
    seen, strange = first.logits(_rows(views, own[held])), np.flatnonzero(is_stranger)
    is_right = seen.argmax(axis=1) == classes[held]
    others = _familiar(first.logits(_rows(views, strange)), views.dense[strange], near) if len(strange) else None
    scope = _scope(_familiar(seen, views.dense[own[held]], near), is_right, others, out_of_scope_share)
    final = _minimise(_rows(views, own), classes, len(names), first)
    right = int(is_right.sum())
    return msgspec.structs.replace(
        bare,
        version=WITH_MIDDLES if most else 1,
        word_rarity=rarities[0].tobytes(),
        letter_rarity=rarities[1].tobytes(),
        weights=np.concatenate([final.dense, final.hashed]).astype("<f2").tobytes(),
        biases=final.biases.astype("<f4").tobytes(),
        temperature=_temperature(seen, classes[held]),
        scope_logit=scope[0],
        scope_slope=scope[1],
        scope_bias=scope[2],
        scope_weight=SCOPE_WEIGHT if most else 0.0,
        middles=middles_of(views.dense[own], classes, len(names), seed, most).astype("<f2").tobytes(),
        held_out=len(held),
        held_out_right=right,
    )


def _check(texts: Sequence[str], vectors: np.ndarray, labels: Sequence[str]) -> None:
    if not len(texts) == len(labels) == len(vectors) or vectors.ndim != 2:
        raise HeadError(f"{len(texts)} texts, {len(labels)} labels and {vectors.shape} vectors do not go together")
    if not 0 < len(texts) <= TEXTS_MAX:
        raise HeadError(f"a head is fitted on at most {TEXTS_MAX} texts, not {len(texts)}")
    if not np.all(np.isfinite(vectors)):
        raise HeadError("vectors are of finite numbers")


def _rarities(texts: Sequence[str]) -> list[np.ndarray]:
    """Returns how rare each slot is, 1 + log((1 + texts) / (1 + texts with it))."""
    met = [np.zeros(WORD_SLOTS, np.float32), np.zeros(LETTER_SLOTS, np.float32)]
    for text in texts:
        for found, counts in zip(met, counted(text, WORD_SLOTS, LETTER_SLOTS), strict=True):
            found[list(counts)] += 1
    return [1 + np.log((1 + len(texts)) / (1 + found)) for found in met]


def _views(texts: Sequence[str], vectors: np.ndarray, rarities: Sequence[np.ndarray]) -> Views:
    words, letters = (rarity.astype(np.float32) for rarity in rarities)
    ends, columns, numbers = [0], list[np.ndarray](), list[np.ndarray]()
    for text in texts:
        counts = counted(text, WORD_SLOTS, LETTER_SLOTS)
        for begin, count, rarity in ((0, counts[0], words), (WORD_SLOTS, counts[1], letters)):
            slots, weights = weighed(count, rarity, VIEW_SCALE)
            columns.append(slots + begin)
            numbers.append(weights)
        ends.append(ends[-1] + len(columns[-1]) + len(columns[-2]))
    hashed = sparse.csr_matrix(
        (np.concatenate(numbers).astype(np.float32), np.concatenate(columns), np.array(ends)),
        shape=(len(texts), WORD_SLOTS + LETTER_SLOTS),
    )
    return Views(np.ascontiguousarray(vectors, np.float32), hashed)


def _rows(views: Views, places: np.ndarray) -> Views:
    return Views(views.dense[places], views.hashed[places])


def _parts(classes: np.ndarray, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Splits places into those a first fit sees, every class among them, and those it does not."""
    everything = np.arange(len(classes))
    often = np.bincount(classes)
    held_count = max(round(len(classes) * HELD_OUT), 1)
    if often.min() >= 2 and held_count >= len(often) and len(classes) - held_count >= len(often):
        kept, held = train_test_split(everything, test_size=held_count, random_state=seed, stratify=classes)
        return np.asarray(kept), np.asarray(held)
    order = np.random.default_rng(seed).permutation(len(classes))
    firsts = {int(classes[place]): int(place) for place in reversed(order)}
    spare = [int(place) for place in order if firsts[int(classes[place])] != place]
    held = np.array(spare[:held_count])
    return np.setdiff1d(everything, held), held


def _minimise(views: Views, classes: np.ndarray, count: int, begin: _Fitted | None = None) -> _Fitted:
    """Minimises mean cross-entropy + |weights|² / (2 · STRENGTH · texts)."""
    texts, dimensions = views.dense.shape
    slots = WORD_SLOTS + LETTER_SLOTS
    back = views.hashed.T.tocsr()
    wanted = np.zeros((texts, count), np.float32)
    wanted[np.arange(texts), classes] = 1
    ridge = np.float32(1 / (STRENGTH * texts))

    def split(flat: np.ndarray) -> _Fitted:
        table = flat.astype(np.float32).reshape(dimensions + slots + 1, count)
        return _Fitted(table[:dimensions], table[dimensions:-1], table[-1])

    def value(flat: np.ndarray) -> tuple[float, np.ndarray]:
        at = split(flat)
        logits = at.logits(views)
        logits -= logits.max(axis=1, keepdims=True)
        exponents = np.exp(logits)
        sums = exponents.sum(axis=1, keepdims=True)
        loss = float((np.log(sums)[:, 0] - logits[np.arange(texts), classes]).mean(dtype=np.float64))
        error = (exponents / sums - wanted) / np.float32(texts)
        gradient = np.concatenate(
            [views.dense.T @ error + ridge * at.dense, back @ error + ridge * at.hashed, error.sum(axis=0)[None]]
        )
        loss += 0.5 * float(ridge) * (float((at.dense**2).sum()) + float((at.hashed**2).sum()))
        return loss, gradient.astype(np.float64).ravel()

    start = np.zeros((dimensions + slots + 1, count))
    if begin is not None:
        start[:] = np.concatenate([begin.dense, begin.hashed, begin.biases[None]])
    found = optimize.minimize(
        value, start.ravel(), jac=True, method="L-BFGS-B", options={"maxiter": _ROUNDS, "gtol": _GRADIENT, "maxcor": 5}
    )
    return split(found.x)


def _loss(logits: np.ndarray, classes: np.ndarray, temperature: float = 1.0) -> float:
    scaled = logits / temperature
    scaled = scaled - scaled.max(axis=1, keepdims=True)
    return float((np.log(np.exp(scaled).sum(axis=1)) - scaled[np.arange(len(classes)), classes]).mean())


def _temperature(logits: np.ndarray, classes: np.ndarray) -> float:
    """Returns by what the logits are divided so that probabilities are those met."""
    found = optimize.minimize_scalar(
        lambda log: _loss(logits, classes, float(np.exp(log))), bounds=(-3.0, 3.0), method="bounded"
    )
    return float(np.exp(found.x))


def middles_of(dense: np.ndarray, classes: np.ndarray, count: int, seed: int, most: int) -> np.ndarray:
    """Returns up to ``most`` directions of length one for each label, among which its texts lie (k-means)."""
    if not most:
        return np.zeros((0, dense.shape[1]), np.float32)
    directions = _unit(dense)
    drawn, found = np.random.default_rng(seed), list[np.ndarray]()
    for label in range(count):
        own = directions[classes == label]
        middles = own[drawn.choice(len(own), min(most, len(own)), replace=False)]
        for _ in range(_MIDDLE_ROUNDS):
            nearest = (own @ middles.T).argmax(axis=1)
            met = [own[nearest == at].mean(axis=0) if (nearest == at).any() else middles[at] for at in
                   range(len(middles))]  # fmt: skip
            middles = _unit(np.stack(met))
        found.append(middles)
    return np.concatenate(found)


def _unit(rows: np.ndarray) -> np.ndarray:
    return rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-9)


def _familiar(logits: np.ndarray, dense: np.ndarray, middles: np.ndarray) -> np.ndarray:
    """Returns how familiar texts are: their strongest logit, and how near they are to what a label's texts are like."""
    if not len(middles):
        return logits.max(axis=1)
    return logits.max(axis=1) + SCOPE_WEIGHT * (_unit(dense) @ middles.T).max(axis=1)


def _scope(
    familiar: np.ndarray, right: np.ndarray, others: np.ndarray | None, share: float
) -> tuple[float, float, float]:
    """Returns how familiar a text is from which on it is of the head's kind, and the slope and bias of how probably.

    ``familiar`` are texts of its kind, of which ``right`` are named right. With ``others``, examples of strangers:
    where most is right if ``share`` of what is asked were such. Without: below what nearly all of its kind reach,
    and nothing above it is doubted.
    """
    if others is None or not len(others):
        return float(np.quantile(familiar, STRANGERS)), 0.0, 20.0
    limits = np.unique(np.concatenate([familiar, others]))
    gains = [(1 - share) * float((right & (familiar >= at)).mean()) + share * float((others < at).mean())
             for at in limits]  # fmt: skip
    limit = float(limits[int(np.argmax(gains))])
    both = np.concatenate([familiar, others])[:, None]
    is_own = np.concatenate([np.ones(len(familiar)), np.zeros(len(others))])
    weights = np.where(is_own == 1, (1 - share) / len(familiar), share / len(others)) * len(is_own)
    learned = LogisticRegression(C=10.0).fit(both, is_own, sample_weight=weights)
    return limit, max(0.0, float(learned.coef_[0, 0])), float(learned.intercept_[0])
