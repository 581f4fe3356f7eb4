"""What answers say: by the type that was asked for, and of free text by what it means.

The type stands in the request (``answer``, ``labels``, ``response_format``), which the router's note of the plan's
beginning holds; a domain may have one by configuration. Free text is compared by vectors where context gives them in
time, and word by word where it does not: then fewer answers agree, and more are asked. One rule: whoever reads the same
answers finds the same camps, unless context is away.
"""

from __future__ import annotations

import asyncio
import struct
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from typing import Final, NamedTuple

import msgspec
import structlog
from collegium_bus.embed import EmbedClient
from collegium_bus.errors import BusError
from collegium_contracts.content import Answer
from collegium_contracts.embedding import FLOAT_BYTES
from collegium_contracts.envelope import UnknownKeyError, held
from collegium_contracts.messages import Sampling, TaskRef
from collegium_contracts.parts import JudgeMode
from collegium_contracts.wording import words_opened
from collegium_learning.answers import said
from collegium_learning.answers.clusters import clustered, meant
from collegium_learning.answers.shapes import TEXT, Shape, shape_of
from collegium_runtime.platform import Platform

from collegium_consensus.inputs import begun

log = structlog.get_logger(__name__)

# A client waits for the verdict; context answers within some tens of milliseconds where it is there.
EMBED_SECONDS: Final = 1.5
# Running plans whose types are remembered; of others they are read again.
SHAPES_MAX: Final = 10_000


class Wanted(NamedTuple):
    """What a task wants of its answers: their type, and how a panel that stays undecided is judged."""

    shape: Shape
    judge: JudgeMode | None = None


class Reading:
    """Reads answers."""

    def __init__(self, platform: Platform) -> None:
        self._platform = platform
        self._embedding = EmbedClient(platform.connection, platform.keyring)
        self._wanted: OrderedDict[str, Wanted] = OrderedDict()

    async def wanted(self, task: TaskRef) -> Wanted:
        """Returns what a task wants of its answers; raises BusError where it cannot be read now."""
        known = self._wanted.get(task.id)
        if known is not None:
            return known
        beginning = await begun(self._platform, task)
        submitted = beginning[0].submitted if beginning is not None else None
        shape = await self._stated(task, submitted.sampling) if submitted is not None else None
        if shape is None:
            shape = Shape(self._platform.settings.routing.answer_types.get(task.domain, "text"))
        found = self._wanted[task.id] = Wanted(shape, submitted.judge if submitted is not None else None)
        while len(self._wanted) > SHAPES_MAX:
            self._wanted.popitem(last=False)
        return found

    async def keys(self, task: TaskRef, shape: Shape, answers: Mapping[int, Answer]) -> dict[int, str]:
        """Returns a key for each answer by number: equal for those that say the same, empty for what says nothing."""
        keys = {number: said(answer, shape.kind, shape.labels) for number, answer in answers.items()}
        texts = {number: key for number, key in keys.items() if meant(key)} if shape.kind == "text" else {}
        if len(set(texts.values())) < 2:
            return keys
        try:
            vectors = await self._vectors(task, sorted(set(texts.values())))
        except (BusError, UnknownKeyError, TimeoutError) as error:
            log.info("answers compared word by word", task=task.id, error=type(error).__name__)
            return keys
        return keys | clustered(texts, lambda wanted: [vectors[text] for text in wanted])

    async def _vectors(self, task: TaskRef, texts: Sequence[str]) -> dict[str, Sequence[float]]:
        async with asyncio.timeout(EMBED_SECONDS):
            wanted = [meant(text) for text in texts]
            embedded = await self._embedding.embed(task.tenant, wanted, timeout_seconds=EMBED_SECONDS)
        width = embedded.dimensions * FLOAT_BYTES
        read = struct.Struct(f"<{embedded.dimensions}f").unpack_from
        return {meant(text): read(embedded.vectors, place * width) for place, text in enumerate(texts)}

    async def _stated(self, task: TaskRef, sampling: Sampling) -> Shape | None:
        keyring = self._platform.keyring
        try:
            await held(keyring, task.tenant, sampling.words)
            shape = shape_of(words_opened(keyring, task.tenant, sampling))
        except (UnknownKeyError, msgspec.DecodeError, ValueError) as error:
            log.warning("type of answer cannot be read", task=task.id, error=type(error).__name__)
            return TEXT
        return shape
