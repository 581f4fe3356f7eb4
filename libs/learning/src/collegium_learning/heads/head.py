"""A head as it travels: labels, raw numbers, and what its probabilities were calibrated to. Pure.

Arrays are little-endian: rarities, weights and middles float16, biases float32. One rule: what does not fit together,
is not finite, or is larger than a head may be, is refused as a whole.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from typing import Final

import msgspec
import numpy as np

LABELS_MAX: Final = 1_000
LABEL_CHARS_MAX: Final = 512
DIMENSIONS_MAX: Final = 4_096
SLOTS_MAX: Final = 1 << 16
# What knows no middles is to refuse a head whose limit counts them.
WITH_MIDDLES: Final = 2
# Of each label, on average; fewer where as many do not fit beside the rest.
MIDDLES_MAX: Final = 4
# A thousand labels on the slots that are fitted, without middles: what a worker keeps in memory of one head.
BYTES_MAX: Final = 32 * 1024 * 1024
# What lengths of numbers may take more than those of none.
_LENGTHS: Final = 64
_HALF = np.dtype("<f2")
_SINGLE = np.dtype("<f4")


class HeadError(ValueError):
    """Bytes are no head, or texts and labels make none; ``code`` is of the error catalogue."""

    code = "invalid_head"


class Head(msgspec.Struct, frozen=True, kw_only=True):
    """A trained head.

    ``embedder`` names whose vectors of ``dimensions`` it was fitted on; ``word_rarity`` and ``letter_rarity`` are one
    number a slot; ``weights`` are (dimensions + word slots + letter slots) × labels, row by row; ``view_scale`` is the
    length of each hashed view beside the vector's one. Probabilities are softmax(logits / ``temperature``). How
    familiar a text is are its strongest logit and ``scope_weight`` × its cosine to the nearest of ``middles`` (rows of
    ``dimensions`` numbers of length one; none: the logit alone). It is of the head's kind with the probability
    sigmoid(``scope_slope`` × that + ``scope_bias``), and is taken for one of its kind where that reaches
    ``scope_logit``. ``out_of_scope`` (empty: none) is the label that is given to all others. ``samples`` it was
    fitted on, and what it reached on texts that were held out. Of ``version`` 1 are those without middles.
    """

    version: int = 1
    labels: list[str]
    embedder: str
    dimensions: int
    word_rarity: bytes
    letter_rarity: bytes
    weights: bytes
    biases: bytes
    view_scale: float = 0.5
    temperature: float = 1.0
    scope_logit: float = 0.0
    scope_slope: float = 0.0
    scope_bias: float = 20.0
    scope_weight: float = 0.0
    middles: bytes = b""
    out_of_scope: str = ""
    samples: int = 0
    held_out: int = 0
    held_out_right: int = 0


class Arrays(msgspec.Struct, frozen=True):
    """A head's numbers: ``dense`` float32 (dimensions, labels), ``words`` and ``letters`` float16 (slots, labels).

    ``middles`` are float32 (rows, dimensions).
    """

    dense: np.ndarray
    words: np.ndarray
    letters: np.ndarray
    biases: np.ndarray
    word_rarity: np.ndarray
    letter_rarity: np.ndarray
    middles: np.ndarray


_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(Head).decode


def pack(head: Head) -> bytes:
    """Returns the bytes of a head; raises HeadError where it is not one that can be read again."""
    arrays_of(head)
    content = _encode(head)
    if len(content) > BYTES_MAX:
        raise HeadError(f"a head of {len(content)} bytes is larger than {BYTES_MAX}: it has too many labels")
    return content


def middles_that_fit(bare: Head, slots: int, texts: Iterable[int]) -> int:
    """Returns how many middles a label may have so that a head stays below BYTES_MAX: four, two, one or none.

    ``bare`` is the head without its numbers, ``slots`` how many are hashed to, ``texts`` how many each label has, which
    are the most middles that it has. Raises HeadError where the rest alone is too large.
    """
    half, labels, counts = _HALF.itemsize, len(bare.labels), tuple(texts)
    rest = len(_encode(bare)) + _LENGTHS + half * slots + (half * (bare.dimensions + slots) + _SINGLE.itemsize) * labels
    for most in (MIDDLES_MAX, MIDDLES_MAX // 2, 1, 0):
        size = rest + half * bare.dimensions * sum(min(most, count) for count in counts)
        if size <= BYTES_MAX:
            return most
    raise HeadError(f"a head of {rest} bytes is larger than {BYTES_MAX}: it has too many labels")


def unpack(content: bytes) -> Head:
    """Reads the bytes of a head; raises HeadError on anything else."""
    if len(content) > BYTES_MAX:
        raise HeadError(f"{len(content)} bytes are more than a head's {BYTES_MAX}")
    try:
        head = _decode(content)
    except msgspec.DecodeError as error:
        raise HeadError(f"{len(content)} bytes are no head: {error}") from None
    arrays_of(head)
    return head


def digest_of(content: bytes) -> str:
    """Returns the SHA-256 by which a head is known, in hex."""
    return hashlib.sha256(content).hexdigest()


def arrays_of(head: Head) -> Arrays:
    """Returns a head's numbers; raises HeadError where they do not fit together or are not finite."""
    if head.version not in (1, WITH_MIDDLES):
        raise HeadError(f"a head of version {head.version} is not known here")
    labels = len(head.labels)
    if not 2 <= labels <= LABELS_MAX or len(set(head.labels)) != labels:
        raise HeadError(f"a head has 2 to {LABELS_MAX} labels, each once, not {labels}")
    if any(not label or len(label) > LABEL_CHARS_MAX for label in head.labels):
        raise HeadError(f"a label has 1 to {LABEL_CHARS_MAX} characters")
    if not 1 <= head.dimensions <= DIMENSIONS_MAX:
        raise HeadError(f"a head's vectors have 1 to {DIMENSIONS_MAX} numbers, not {head.dimensions}")
    numbers = (
        head.view_scale, head.temperature, head.scope_logit, head.scope_slope, head.scope_bias, head.scope_weight
    )  # fmt: skip
    if not np.all(np.isfinite(numbers)) or head.temperature <= 0 or head.scope_slope < 0:
        raise HeadError("a head's calibration is of finite numbers, its temperature above zero")
    words, letters = (_read(content, _HALF) for content in (head.word_rarity, head.letter_rarity))
    if not (0 < len(words) <= SLOTS_MAX and 0 < len(letters) <= SLOTS_MAX):
        raise HeadError(f"a head has at most {SLOTS_MAX} slots of words and of letters, and one of each")
    weights, middles = (_read(content, _HALF) for content in (head.weights, head.middles))
    biases = _read(head.biases, _SINGLE)
    rows = head.dimensions + len(words) + len(letters)
    if len(weights) != rows * labels or len(biases) != labels:
        raise HeadError(f"{len(weights)} weights and {len(biases)} biases are not {rows} rows of {labels} labels")
    if len(middles) % head.dimensions or len(middles) > MIDDLES_MAX * labels * head.dimensions:
        raise HeadError(f"{len(middles)} numbers are no middles of {labels} labels in {head.dimensions} dimensions")
    table = weights.reshape(rows, labels)
    middle = head.dimensions + len(words)
    return Arrays(
        dense=table[: head.dimensions].astype(np.float32),
        words=table[head.dimensions : middle],
        letters=table[middle:],
        biases=biases,
        word_rarity=words.astype(np.float32),
        letter_rarity=letters.astype(np.float32),
        middles=middles.reshape(-1, head.dimensions).astype(np.float32),
    )


def _read(content: bytes, kind: np.dtype) -> np.ndarray:
    if len(content) % kind.itemsize:
        raise HeadError(f"{len(content)} bytes are no numbers of {kind.itemsize} bytes")
    found = np.frombuffer(content, kind)
    if not np.all(np.isfinite(found)):
        raise HeadError("a head's numbers are finite")
    return found
