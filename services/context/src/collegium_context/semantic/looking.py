"""The live cache: finds the entries near a question, decides, and keeps what a model answered.

Vectors lie in the vector store, questions and answers sealed in PostgreSQL; an entry is found only within its tenant
and scope, where everything that must be equal is. One rule: whoever looks is never kept from asking a model; what
cannot be told in time is a miss.
"""

from __future__ import annotations

import asyncio
import hashlib
import random
import uuid
from collections.abc import Awaitable, Callable
from typing import NamedTuple

import msgspec
import numpy as np
import structlog
from collegium_contracts import codec
from collegium_contracts.content import decode_answer
from collegium_contracts.envelope import Envelope, Keyring, held
from collegium_contracts.likeness import LikenessDecision
from collegium_contracts.scope import Scope
from collegium_contracts.state import CachedAnswer
from collegium_store import is_transient

from collegium_context.embedding.interface import Embedder, Vectors, space_of
from collegium_context.semantic.answers import SEEN_CHARACTERS, are_same
from collegium_context.semantic.cacheable import not_cached
from collegium_context.semantic.features import NEIGHBOURS, Compared, Neighbour, compare
from collegium_context.semantic.policy import Calibration, Candidate, Limits, decide, weigh
from collegium_context.semantic.store import Kept, LikenessStore, NewEntry, Seen
from collegium_context.semantic.turns import Question, Turn, question_of
from collegium_context.semantic.words import read
from collegium_context.vectors.interface import CollectionSpec, Equals, PayloadValue, Point, VectorStore, Where

log = structlog.get_logger(__name__)

# Entries with the nearest one's answer that are opened and compared; each costs some tens of microseconds.
# What collections of answers are called, whichever embedder's vectors they hold.
COLLECTIONS = "answers-"
OPENED_MAX = 5
# Answers that a new one is compared with to find its group.
GROUPED_MAX = 4

_encode_turns = msgspec.json.Encoder().encode
_decode_turns = msgspec.json.Decoder(list[Turn]).decode

Version = Callable[[Scope], Awaitable[int]]


class Looked(NamedTuple):
    """What a look came to: the decision, and the entry that it is about."""

    decision: LikenessDecision
    entry: Kept | None = None
    candidate: Candidate | None = None


class _Asked(NamedTuple):
    scope: Scope
    shape: str
    turns: tuple[Turn, ...]
    vectors: Vectors


class _Near(NamedTuple):
    neighbours: list[Neighbour]
    entries: list[Kept]


class Likeness:
    """Answers of before for questions that are alike."""

    def __init__(
        self,
        store: LikenessStore,
        vectors: VectorStore,
        embedder: Embedder,
        keyring: Keyring,
        version: Version,
        calibration: Calibration,
        limits: Limits,
        now_ms: Callable[[], int],
        rng: random.Random | None = None,
    ) -> None:
        self._store = store
        self._vectors = vectors
        self._embedder = embedder
        self._keyring = keyring
        self._version = version
        self._calibration = calibration
        self.limits = limits
        self._now_ms = now_ms
        self._rng = rng or random.Random()  # noqa: S311 - which answers are explored is no secret
        self._is_made = False
        self._counting: set[asyncio.Task[None]] = set()

    @property
    def spec(self) -> CollectionSpec:
        """The collection that is asked; raises EmbedderUnavailableError while the length of vectors is not known."""
        return collection_of(self._embedder)

    async def make(self) -> None:
        """Makes the collection where it is missing; raises VectorStoreError or EmbedderUnavailableError."""
        if not self._is_made:
            await self._vectors.ensure(self.spec)
            self._is_made = True

    async def look(self, tenant: str, project: str, setting: bytes, prompt: Envelope) -> Looked:
        """Decides whether an entry answers a question."""
        asked = await self._asked(tenant, project, setting, prompt)
        if asked is None:
            return Looked("not_cached")
        near, seen = await asyncio.gather(self._near(asked), self._store.seen_of(asked.scope))
        found = self._candidate(asked, near)
        if found is None:
            return Looked("call")
        compared, entry = found
        candidate = weigh(self._calibration, self.limits, compared, near.neighbours, entry.evidence, seen)
        decision = decide(candidate, self._rng.random())
        if decision == "serve":
            # Counted beside the answer: whoever asked waits for no statistics.
            counting = asyncio.create_task(self._count(asked.scope), name="count-served")
            self._counting.add(counting)
            counting.add_done_callback(self._counting.discard)
        return Looked(decision, entry, candidate)

    async def settle(self) -> None:
        """Waits until what was served is counted."""
        await asyncio.gather(*self._counting, return_exceptions=True)

    async def _count(self, scope: Scope) -> None:
        try:
            await self._store.add(scope, Seen(served=1))
        except Exception as error:
            if not is_transient(error):
                raise
            log.info("a served answer is not counted", tenant=scope.tenant, error=type(error).__name__)

    async def keep(
        self, tenant: str, project: str, setting: bytes, prompt: Envelope, answer: CachedAnswer, expires_at_ms: int,
        *, explored: bool,
    ) -> tuple[bool, bool | None]:  # fmt: skip
        """Keeps an answer that a model just made; returns whether it did, and whether a standing answer was the same.

        None where there was none to compare with.
        """
        asked = await self._asked(tenant, project, setting, prompt)
        if asked is None or not (text := await self._text_of(tenant, answer)):
            return False, None
        near = await self._near(asked)
        same = await self._same_as(tenant, text, near)
        judged = await self._learn(asked, near, same, explored=explored)
        group = next((entry.group for entry, is_same in same.values() if is_same), None)
        sealed = self._keyring.seal(tenant, _encode_turns(asked.turns))
        new = str(uuid.uuid4())
        entry = NewEntry(
            new, answer.digest, group or new, answer.task_id, sealed, asked.vectors.astype(np.float16).tobytes(),
            codec.encode(answer), answer.stored_at_ms, expires_at_ms,
        )  # fmt: skip
        standing = await self._store.put(asked.scope, entry)
        if standing is None:
            return False, judged
        payload: dict[str, PayloadValue] = {"scope": asked.scope.path[0], "shape": asked.shape}
        point = Point(standing, asked.vectors[-1], payload=payload)
        await self.make()
        await self._vectors.upsert(Scope(tenant), self.spec.name, [point])
        return True, judged

    async def say_wrong(self, tenant: str, task_id: str) -> bool:
        """Notes that an answer which was given again was wrong, by the task that had made it; false where none stands.

        Its entry, and its scope, become more careful at once.
        """
        return await self._store.say_wrong(Scope(tenant), task_id)

    async def _asked(self, tenant: str, project: str, setting: bytes, prompt: Envelope) -> _Asked | None:
        await held(self._keyring, tenant, prompt)
        question = question_of(self._keyring.open(tenant, prompt))
        if question is None or not_cached(question.turns) is not None:
            return None
        texts = [turn.text for turn in question.turns]
        vectors, version = await asyncio.gather(
            self._embedder.embed(texts, scope=Scope(tenant)), self._version(Scope(tenant))
        )
        scope = Scope(tenant).at(scope_of(project, setting, question, version, space_of(self._embedder)))
        return _Asked(scope, ".".join(turn.role for turn in question.turns), question.turns, vectors)

    async def _near(self, asked: _Asked) -> _Near:
        where = Where(must=(Equals("scope", (asked.scope.path[0],)), Equals("shape", (asked.shape,))))
        await self.make()
        looked = await self._vectors.look(
            Scope(asked.scope.tenant), self.spec.name, vector=asked.vectors[-1], where=where, limit=NEIGHBOURS
        )
        if not looked.dense:
            return _Near([], [])
        entries = await self._store.entries(asked.scope, [hit.id for hit in looked.dense], self._now_ms())
        found = [(hit, entries[hit.id]) for hit in looked.dense if hit.id in entries]
        return _Near([Neighbour(hit.score, entry.group) for hit, entry in found], [entry for _, entry in found])

    def _candidate(self, asked: _Asked, near: _Near) -> tuple[Compared, Kept] | None:
        """Returns the nearest entry; where a veto is against it, one with the same answer that none is against."""
        first: tuple[Compared, Kept] | None = None
        reads = [read(turn.text) for turn in asked.turns]
        for entry in [one for one in near.entries if one.group == near.entries[0].group][:OPENED_MAX]:
            turns = _decode_turns(self._keyring.open(asked.scope.tenant, entry.question))
            kept = np.frombuffer(entry.vectors, dtype=np.float16).reshape(len(turns), -1).astype(np.float32)
            cosines = [float(cosine) for cosine in (kept * asked.vectors).sum(axis=1)]
            compared = compare(reads, [read(turn.text) for turn in turns], cosines)
            if not compared.vetoes:
                return (compared if first is None else Compared(compared.vetoes, first[0].row)), entry
            first = first or (compared, entry)
        return first

    async def _text_of(self, tenant: str, answer: CachedAnswer) -> str | None:
        """Returns an answer's text; none where it is more than one text."""
        await held(self._keyring, tenant, answer.output)
        choices = decode_answer(self._keyring.open(tenant, answer.output)).choices
        if len(choices) != 1 or choices[0].tool_calls or not choices[0].text:
            return None
        return choices[0].text

    async def _same_as(self, tenant: str, text: str, near: _Near) -> dict[str, tuple[Kept, bool]]:
        """Compares an answer with the nearest ones, one of each group; returns them by group."""
        groups: dict[str, Kept] = {}
        for entry in near.entries:
            if len(groups) < GROUPED_MAX:
                groups.setdefault(entry.group, entry)
        answers = {group: codec.state.decode(entry.answer) for group, entry in groups.items()}
        texts = {
            group: await self._text_of(tenant, answer)
            for group, answer in answers.items()
            if isinstance(answer, CachedAnswer)
        }
        known = {group: one for group, one in texts.items() if one is not None}
        if not known:
            return {}
        seen = [one[:SEEN_CHARACTERS] for one in (text, *known.values())]
        vectors = await self._embedder.embed(seen, scope=Scope(tenant))
        return {
            group: (groups[group], are_same(text, one, vectors[0], vector))
            for (group, one), vector in zip(known.items(), vectors[1:], strict=True)
        }

    async def _learn(
        self, asked: _Asked, near: _Near, same: dict[str, tuple[Kept, bool]], *, explored: bool
    ) -> bool | None:
        """Adds to the evidence how the candidate of this question would have done; returns that, or none."""
        found = self._candidate(asked, near)
        if found is None or found[1].group not in same:
            return None
        compared, entry = found
        candidate = weigh(
            self._calibration,
            self.limits,
            compared,
            near.neighbours,
            entry.evidence,
            await self._store.seen_of(asked.scope),
        )
        if candidate is None:
            return None
        is_same = same[entry.group][1]
        seen = Seen(
            compared=int(candidate.is_near),
            wrong=int(candidate.is_near and not is_same),
            expected=candidate.risk if candidate.is_near else 0.0,
            explored=int(explored),
            explored_wrong=int(explored and not is_same),
        )
        about = entry.id if candidate.is_near else ""
        await self._store.add(asked.scope, seen, about, candidate.risk, is_wrong=not is_same)
        return is_same


def scope_of(project: str, setting: bytes, question: Question, version: int, model: str) -> str:
    """Returns what entries must have in common, as a hash in hex."""
    parts = (1, project, setting, question.setting, version, model)
    return hashlib.sha256(msgspec.msgpack.encode(parts)).hexdigest()


def collection_of(embedder: Embedder) -> CollectionSpec:
    """Returns the collection of an embedder's vectors."""
    name = hashlib.blake2s(space_of(embedder).encode(), digest_size=6).hexdigest()
    return CollectionSpec(
        name=f"{COLLECTIONS}{name}", dimensions=embedder.dimensions, keyword_fields=("scope", "shape"), has_words=False
    )
