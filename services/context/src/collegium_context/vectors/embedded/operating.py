"""What operators ask of the embedded store: how it stands, snapshots, generations.

One rule: what takes long answers when it is done, and may be asked again.
"""

from __future__ import annotations

import secrets
import time
from typing import Any

import msgspec

from collegium_context.vectors import wire
from collegium_context.vectors.embedded import snapshots
from collegium_context.vectors.embedded.collection import Collection
from collegium_context.vectors.embedded.engine import Engine
from collegium_context.vectors.embedded.jobs import Jobs
from collegium_context.vectors.interface import InvalidQuestionError


class Operator:
    """Answers operators; ``name`` in a question is a snapshot or a generation."""

    def __init__(self, engine: Engine, jobs: Jobs) -> None:
        self._engine = engine
        self._jobs = jobs
        # Tells this process from the one before and the one after it.
        self._owner = secrets.token_hex(8)

    async def do(self, question: wire.Ask) -> Any:
        """Does what a verb says; raises InvalidQuestionError for an unknown one."""
        if question.verb == "status":
            return self._status()
        collection = self._engine.collection(question.collection)
        match question.verb:
            case "snapshot":
                return snapshots.take(self._engine.folder, collection, question.name, time.time_ns() // 1_000_000)
            case "snapshots":
                return snapshots.listed(self._engine.folder, question.collection)
            case "forget-snapshot":
                snapshots.remove(self._engine.folder, question.collection, question.name)
                return {"removed": question.name}
            case "restore":
                found = snapshots.find(self._engine.folder, question.collection, question.name)
                return {"generation": await self._jobs.restore(collection, found)}
            case "reindex":
                return {"generation": await self._reindex(collection, question)}
            case "switch":
                before = collection.state.serving
                collection.switch(question.name)
                return {"serving": question.name, "before": before}
            case "discard":
                collection.discard(question.name)
                return {"discarded": question.name}
            case _:
                raise InvalidQuestionError(f"{question.verb!r} is not asked here")

    async def _reindex(self, collection: Collection, question: wire.Ask) -> str:
        spec = collection.spec
        if question.quantized is not None:
            spec = msgspec.structs.replace(spec, quantized=question.quantized)
        return await self._jobs.reindex(collection, spec)

    def _status(self) -> dict[str, Any]:
        jobs = self._jobs
        return {
            "owner": self._owner,
            "collections": {name: _standing(one) for name, one in self._engine.collections.items()},
            "indexing": {
                "waiting_points": jobs.waiting_points,
                "running": jobs.running,
                "is_due": jobs.is_due,
                "done": jobs.done,
                "failed": jobs.failed,
            },
        }


def _standing(collection: Collection) -> dict[str, Any]:
    return {
        "serving": collection.state.serving,
        "dimensions": collection.spec.dimensions,
        "generations": {
            name: {
                "whole": generation.state.is_whole,
                "quantized": generation.state.spec.quantized,
                "points": sum(shelf.points for shelf in generation.shelves),
                "parts": sum(len(shelf.parts) for shelf in generation.shelves),
                "built_points": sum(
                    part.points - part.gone for shelf in generation.shelves for part in shelf.parts if part.is_built
                ),
                "own_shelves": generation.state.tenants,
            }
            for name, generation in collection.generations.items()
        },
    }
