"""Finding clusters in a process of its own: they are found while the interpreter is held, for seconds.

``found`` is the parent's side; the module run as a program is the child's: directions on standard input, clusters on
standard output. One rule: what a tenant's questions make of the child, the parent gets an answer or an error in time.
"""

from __future__ import annotations

import asyncio
import os
import sys
from asyncio.subprocess import DEVNULL
from typing import Final

import msgspec
import numpy as np
from collegium_children.child import start
from collegium_learning.domains.fitting import Found, find
from collegium_learning.routing.features import Floats

SECONDS_MAX: Final = 240.0


class FindingFailedError(RuntimeError):
    """Clusters could not be found in time; ``code`` is of the error catalogue."""

    code = "internal_error"


class _Asked(msgspec.Struct, frozen=True, array_like=True):
    rows: int
    directions: bytes


class _Told(msgspec.Struct, frozen=True, array_like=True):
    dimensions: tuple[int, int]
    places: bytes
    mean: bytes
    projection: bytes
    centroids: bytes
    reaches: list[float]


_encode = msgspec.msgpack.Encoder().encode
_decode_asked = msgspec.msgpack.Decoder(_Asked).decode
_decode_told = msgspec.msgpack.Decoder(_Told | None).decode


async def found(directions: Floats, *, seconds: float = SECONDS_MAX) -> Found | None:
    """Returns the clusters among questions; raises FindingFailedError where the process fails or takes too long."""
    child = await start(__name__, threads=1, words=DEVNULL)
    asked = _Asked(len(directions), directions.astype("<f4").tobytes())
    try:
        async with asyncio.timeout(seconds):
            said, _ = await child.converse(_encode(asked))
        told = _decode_told(said)
    except TimeoutError:
        raise FindingFailedError(f"{len(directions)} questions take longer than {seconds:.0f} seconds") from None
    except (msgspec.DecodeError, ValueError):
        raise FindingFailedError(f"the process that looks at {len(directions)} questions ended") from None
    finally:
        await child.end()
    return _clusters(told) if told is not None else None


def _clusters(told: _Told) -> Found:
    wide, near = told.dimensions
    return Found(
        np.frombuffer(told.places, "<i4"),
        np.frombuffer(told.mean, "<f4"),
        np.frombuffer(told.projection, "<f4").reshape(wide, near),
        np.frombuffer(told.centroids, "<f4").reshape(-1, near),
        told.reaches,
    )


def answered(asked: bytes) -> bytes:
    """Returns what the child says to what it is asked."""
    question = _decode_asked(asked)
    clusters = find(np.frombuffer(question.directions, "<f4").reshape(question.rows, -1))
    if clusters is None:
        return _encode(None)
    wide, near = clusters.projection.shape
    return _encode(
        _Told(
            (wide, near),
            clusters.places.astype("<i4").tobytes(),
            clusters.mean.astype("<f4").tobytes(),
            clusters.projection.astype("<f4").tobytes(),
            clusters.centroids.astype("<f4").tobytes(),
            clusters.reaches,
        )
    )


def _main() -> None:
    os.nice(5)
    sys.stdout.buffer.write(answered(sys.stdin.buffer.read()))


if __name__ == "__main__":
    _main()
