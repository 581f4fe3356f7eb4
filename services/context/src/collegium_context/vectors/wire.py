"""What travels between the embedded store's clients and the process that owns its folder.

Points go as columns (ids, vectors and word weights each in one run of bytes), because thousands of small objects cost
more than what they hold. The same columns are what the journal keeps. One rule: nothing here holds readable text
beyond the payload's own values.
"""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from typing import cast

import msgspec
import numpy as np
from collegium_contracts.base import Message
from collegium_contracts.codec import Codec

from collegium_context.vectors import words as bm25
from collegium_context.vectors.interface import (
    CollectionSpec,
    InvalidQuestionError,
    PayloadValue,
    Point,
    Vector,
    Where,
    WrongDimensionError,
)
from collegium_context.vectors.words import Sparse

ID_BYTES = 16
Payload = dict[str, PayloadValue]


class Rows(msgspec.Struct, frozen=True, array_like=True):
    """Points as columns. ``vector_rows`` and ``word_rows`` name the rows that have one; ``word_ends`` closes each row.

    ``vectors`` is float32, ``word_indices`` uint32, ``word_values`` float32, all little-endian.
    """

    ids: bytes
    payloads: list[Payload]
    vector_rows: list[int]
    vectors: bytes
    word_rows: list[int]
    word_ends: list[int]
    word_indices: bytes
    word_values: bytes

    def __len__(self) -> int:
        return len(self.payloads)


class Put(Message, frozen=True, kw_only=True):
    """Adds or replaces points; parts of a ``batch`` take effect together, when its last part is here."""

    collection: str
    tenant: str
    rows: Rows
    batch: str = ""
    part: int = 0
    parts: int = 1


class Drop(Message, frozen=True, kw_only=True):
    """Removes points by id (16 bytes each) or by filter."""

    collection: str
    tenant: str
    ids: bytes = b""
    where: Where | None = None


class Look(Message, frozen=True, kw_only=True):
    """Asks for the nearest points by vector (float32) and by words."""

    collection: str
    tenant: str
    vector: bytes | None = None
    words: Sparse | None = None
    where: Where | None = None
    limit: int = 10
    with_vectors: bool = False


class Count(Message, frozen=True, kw_only=True):
    """Asks how many points of a tenant there are."""

    collection: str
    tenant: str
    where: Where | None = None


class Ensure(Message, frozen=True, kw_only=True):
    """Makes a collection where it is missing."""

    spec: CollectionSpec


class Describe(Message, frozen=True, kw_only=True):
    """Asks how a collection was made."""

    collection: str


class Forget(Message, frozen=True, kw_only=True):
    """Removes a tenant from everything."""

    tenant: str


class Unmake(Message, frozen=True, kw_only=True):
    """Takes a collection away with its snapshots."""

    collection: str


class Ask(Message, frozen=True, kw_only=True):
    """An operator's question: a verb and what it is about."""

    verb: str
    collection: str = ""
    name: str = ""
    quantized: bool | None = None


class Done(Message, frozen=True, kw_only=True):
    """It is done, and durable; ``count`` says how many where something was counted."""

    count: int = 0


class Described(Message, frozen=True, kw_only=True):
    """A collection as it was made."""

    spec: CollectionSpec


class FoundPoint(msgspec.Struct, frozen=True, array_like=True):
    """A point that a question found, sent once whatever found it."""

    id: bytes
    payload: Payload
    vector: bytes | None = None


class Found(Message, frozen=True, kw_only=True):
    """The points, and both lists as places in them with scores, best first."""

    points: list[FoundPoint]
    dense: list[tuple[int, float]] = []
    words: list[tuple[int, float]] = []


class Told(Message, frozen=True, kw_only=True):
    """An operator's answer, as JSON."""

    body: bytes


class Failed(Message, frozen=True, kw_only=True):
    """The owner refused; ``code`` is one of the interface's errors."""

    code: str
    message: str


Question = Put | Drop | Look | Count | Ensure | Describe | Forget | Unmake | Ask
Answer = Done | Described | Found | Told | Failed
question: Codec[Question] = Codec(Question)
answer: Codec[Answer] = Codec(Answer)


def id_bytes(text: str) -> bytes:
    """Returns a point's id as bytes; raises InvalidQuestionError for what is no UUID."""
    try:
        return uuid.UUID(text).bytes
    except ValueError:
        raise InvalidQuestionError(f"the id of a point is a UUID, not {text!r}") from None


def id_text(raw: bytes) -> str:
    """Returns a point's id as it is written."""
    return str(uuid.UUID(bytes=raw))


def vector_bytes(vector: Vector, dimensions: int) -> bytes:
    """Returns a vector as bytes; raises WrongDimensionError, or InvalidQuestionError where a number is not finite."""
    array = np.ascontiguousarray(vector, dtype="<f4")
    if array.shape != (dimensions,):
        raise WrongDimensionError(f"the collection has {dimensions} dimensions, the vector {array.shape}")
    if not np.isfinite(array).all():
        raise InvalidQuestionError("a vector holds a number that is not finite")
    return array.tobytes()


def check_payload(point: Point) -> None:
    """Raises InvalidQuestionError where a payload uses a name of the store's."""
    if any(name.startswith("_") for name in point.payload):
        raise InvalidQuestionError(f"point {point.id}: names of fields that begin with an underscore are the store's")


def make_rows(points: Sequence[Point], spec: CollectionSpec) -> Rows:
    """Puts points into columns; raises WrongDimensionError and InvalidQuestionError."""
    vector_rows: list[int] = []
    word_rows: list[int] = []
    word_ends: list[int] = []
    vectors: list[bytes] = []
    indices: list[int] = []
    values: list[float] = []
    for row, point in enumerate(points):
        check_payload(point)
        if point.vector is not None:
            vector_rows.append(row)
            vectors.append(vector_bytes(point.vector, spec.dimensions))
        if point.words and spec.has_words:
            sparse = bm25.of_document(point.words, spec.language, spec.average_words)
            indices += sparse.indices
            values += sparse.values
            word_rows.append(row)
            word_ends.append(len(indices))
    return Rows(
        ids=b"".join(id_bytes(point.id) for point in points),
        payloads=[point.payload for point in points],
        vector_rows=vector_rows,
        vectors=b"".join(vectors),
        word_rows=word_rows,
        word_ends=word_ends,
        word_indices=np.array(indices, dtype="<u4").tobytes(),
        word_values=np.array(values, dtype="<f4").tobytes(),
    )


def vector_lists(rows: Rows) -> dict[int, list[float]]:
    """Returns the vectors by row."""
    if not rows.vector_rows:
        return {}
    matrix = np.frombuffer(rows.vectors, dtype="<f4").reshape(len(rows.vector_rows), -1)
    return dict(zip(rows.vector_rows, cast("list[list[float]]", matrix.tolist()), strict=True))


def word_lists(rows: Rows) -> dict[int, Sparse]:
    """Returns the word weights by row."""
    indices = cast("list[int]", np.frombuffer(rows.word_indices, dtype="<u4").tolist())
    values = cast("list[float]", np.frombuffer(rows.word_values, dtype="<f4").tolist())
    made: dict[int, Sparse] = {}
    start = 0
    for row, end in zip(rows.word_rows, rows.word_ends, strict=True):
        made[row] = Sparse(indices[start:end], values[start:end])
        start = end
    return made


def take(rows: Rows, chosen: Sequence[int]) -> Rows:
    """Returns some of the rows, in order."""
    if len(chosen) == len(rows):
        return rows
    size = len(rows.vectors) // len(rows.vector_rows) if rows.vector_rows else 0
    vector_place = {row: place for place, row in enumerate(rows.vector_rows)}
    word_place = {row: place for place, row in enumerate(rows.word_rows)}
    vector_rows: list[int] = []
    vectors: list[bytes] = []
    word_rows: list[int] = []
    word_ends: list[int] = []
    indices: list[bytes] = []
    values: list[bytes] = []
    end = 0
    for number, row in enumerate(chosen):
        if (place := vector_place.get(row)) is not None:
            vector_rows.append(number)
            vectors.append(rows.vectors[place * size : (place + 1) * size])
        if (place := word_place.get(row)) is not None:
            first, last = (rows.word_ends[place - 1] if place else 0), rows.word_ends[place]
            word_rows.append(number)
            end += last - first
            word_ends.append(end)
            indices.append(rows.word_indices[4 * first : 4 * last])
            values.append(rows.word_values[4 * first : 4 * last])
    return Rows(
        ids=b"".join(rows.ids[row * ID_BYTES : (row + 1) * ID_BYTES] for row in chosen),
        payloads=[rows.payloads[row] for row in chosen],
        vector_rows=vector_rows,
        vectors=b"".join(vectors),
        word_rows=word_rows,
        word_ends=word_ends,
        word_indices=b"".join(indices),
        word_values=b"".join(values),
    )
