"""Heads and prompts in a worker on a real broker: loaded as the roster names them, and what becomes of bad ones."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from collegium_bus.claims import ClaimStore
from collegium_bus.kv import Bucket
from collegium_contracts import codec
from collegium_contracts import subjects as s
from collegium_contracts.content import ChatMessage, encode_content
from collegium_contracts.embedding import EmbedReply, EmbedRequest, decode_texts
from collegium_contracts.messages import AttemptRef, RunAttempt
from collegium_contracts.money import Price
from collegium_contracts.state import ModelRecord, Roster
from collegium_contracts.students import StudentOf
from collegium_learning.heads.fitting import fit
from collegium_learning.heads.head import pack
from collegium_learning.prompts import prompt
from collegium_testing import eventually
from collegium_testing.platform import RunningPlatform
from collegium_worker_pool.students.heads import Heads
from collegium_worker_pool.students.prompts import Prompts
from collegium_worker_pool.upstream.failures import CallFailed
from msgspec import msgpack

NAME = "head.acme.desk"
TENANTS = ("acme", "globex", "granted")
WORDS = {"refund": ["money back", "refund it", "return the money"], "login": ["log in", "password", "sign in"]}


def vector_of(text: str) -> np.ndarray:
    total = np.zeros(8, np.float32)
    for word in text.split():
        total += np.random.default_rng(sum(word.encode())).normal(size=8).astype(np.float32)
    return total


def fitted() -> bytes:
    rows = [(f"{text} {tail}", label) for label, texts in WORDS.items() for text in texts
            for tail in ("please", "now", "today", "again")]  # fmt: skip
    texts, labels = [text for text, _ in rows], [label for _, label in rows]
    return pack(fit(texts, np.stack([vector_of(text) for text in texts]), labels, embedder="e", seed=1))


class Desk:
    """A worker's heads, whose content a test puts where evolution would."""

    def __init__(self, platform: RunningPlatform) -> None:
        self.platform = platform
        self.heads: Heads = platform.app("worker-pool").heads
        self.prompts: Prompts = platform.app("worker-pool").prompts
        self._models = Bucket(platform.connection, s.KV_MODELS)
        self._store = ClaimStore(platform.connection, s.STUDENTS_BUCKET)

    async def put(self, content: bytes, *, owner: str = "acme", purpose: str = f"student:{NAME}") -> str:
        sealed = self.platform.keyring.seal(owner, content, purpose)
        return await self._store.put(msgpack.encode(sealed))

    async def name(self, claim: str, *tenants: str, confidence: float = 0.5) -> None:
        student = StudentOf(kind="head", tenants=list(tenants or ("acme",)), content=claim, confidence=confidence)
        free = Price()
        model = ModelRecord(
            name=NAME, rank="student", pool="general", price=free, charge=free, max_output_tokens=10,
            context_tokens=1000, student=student,
        )  # fmt: skip
        await self._models.put(s.ROSTER_KEY, codec.encode(Roster(version=1, models=[model])))

    async def name_prompt(self, claim: str, *tenants: str) -> None:
        student = StudentOf(kind="prompt", tenants=list(tenants or ("acme",)), content=claim, base="small")
        free = Price()
        model = ModelRecord(
            name=PROMPT, rank="student", pool="general", price=free, charge=free, max_output_tokens=10,
            context_tokens=1000, student=student,
        )  # fmt: skip
        await self._models.put(s.ROSTER_KEY, codec.encode(Roster(version=1, models=[model])))

    async def shown(self, tenant: str = "acme") -> list[str]:
        """What is shown before a task of a tenant; loading what is new has ended."""
        await asyncio.gather(*self.prompts._loading.values())
        return await self.prompts.shown(self.run("anything", tenant, PROMPT))

    def count_fetches(self) -> list[str]:
        """Counts from now on the claims that the heads fetch."""
        fetched: list[str] = []
        store: Any = self.heads._store
        get = store.get

        async def counted(claim: str) -> bytes:
            fetched.append(claim)
            return await get(claim)

        store.get = counted
        return fetched

    async def read_again(self) -> None:
        """What the watch does every minute: the roster is told again as it stands."""
        entry = await self._models.get(s.ROSTER_KEY)
        assert entry is not None
        self.heads._learn(entry)
        await asyncio.gather(*self.heads._loading.values())

    def run(self, text: str, tenant: str, model: str) -> RunAttempt:
        submitted = self.platform.submission(text, tenant=tenant)
        attempt = AttemptRef(
            number=1, of=1, model=model, rank="student", pool="general", price=Price(), charge=Price()
        )  # fmt: skip
        return RunAttempt(
            task=submitted.task, attempt=attempt, prompt=submitted.prompt, sampling=submitted.sampling, prompt_bytes=10
        )

    async def ask(self, text: str, tenant: str = "acme") -> Any:
        return await self.heads.answer(self.run(text, tenant, NAME), encode_content([ChatMessage("user", text)]), None)

    async def code(self, text: str, tenant: str = "acme") -> str:
        with pytest.raises(CallFailed) as failed:
            await self.ask(text, tenant)
        return failed.value.error.code


@pytest.fixture
async def desk(clean_nats_url: str, tmp_path: Path) -> AsyncIterator[Desk]:
    async with RunningPlatform(clean_nats_url, folder=tmp_path, services=("worker-pool",), tenants=TENANTS) as platform:
        connection = platform.connection

        def embed(_subject: bytes, reply: bytes, payload: bytes, _block: bytes | None) -> None:
            asked = codec.request.decode(payload)
            assert isinstance(asked, EmbedRequest)
            texts = decode_texts(platform.keyring.open(asked.tenant, asked.texts))
            vectors = b"".join(vector_of(text).astype("<f4").tobytes() for text in texts)
            answer = EmbedReply(model="e", dimensions=8, vectors=vectors, tokens=[3] * len(texts))
            connection.publish(reply.decode(), codec.encode(answer))

        subscription = connection.client.subscribe_raw(s.SVC_EMBED_TEXTS, embed)
        desk = Desk(platform)
        yield desk
        connection.client.unsubscribe_raw(subscription)


async def test_a_head_answers_as_the_roster_names_it_and_bad_content_leaves_the_last_good(desk: Desk):
    good = await desk.put(await asyncio.to_thread(fitted))
    await desk.name(good, "acme", "granted")
    await eventually(lambda: desk.heads.endpoint(NAME) is not None)
    said = await desk.ask("refund the money please")
    assert (said.answer.choices[0].text, said.usage.prompt_tokens, said.usage.completion_tokens) == ("refund", 3, 1)
    assert 0.5 < said.confidence <= 1.0
    assert (await desk.ask("refund the money please", "granted")).confidence == said.confidence
    assert await desk.code("refund the money please", "globex") == "unknown_model"

    harmful = [
        await desk.put(b"no head at all"),
        await desk.put(await asyncio.to_thread(fitted), purpose="something else"),
        await desk.put(await asyncio.to_thread(fitted), owner="globex"),
        "f" * 32 + ":5:" + "0" * 64,
        "not a claim",
    ]
    for claim in harmful:
        await desk.name(claim)
        await eventually(lambda claim=claim: desk.heads.named(NAME) == claim)
        assert (await desk.ask("refund the money please")).confidence == said.confidence, claim

    await desk.name(good, confidence=1.0)
    await eventually(lambda: desk.heads.named(NAME) == good)
    assert await desk.code("nothing of the kind whatsoever") == "head_unsure"


async def test_without_a_good_head_nothing_answers_and_it_says_so(desk: Desk):
    await desk.name(await desk.put(b"garbage"))
    await eventually(lambda: desk.heads.endpoint(NAME) is not None)
    assert await desk.code("refund") == "head_unavailable"


async def test_a_head_is_fetched_when_first_asked_and_then_only_what_changed(desk: Desk):
    content = await asyncio.to_thread(fitted)
    good, anew, bad = await desk.put(content), await desk.put(content), await desk.put(b"no head")
    fetched = desk.count_fetches()
    await desk.name(good)
    await eventually(lambda: desk.heads.named(NAME) == good)
    await desk.read_again()
    assert fetched == [], "nobody asked"
    await desk.ask("refund the money please")
    await desk.read_again()
    assert fetched == [good]
    desk.heads._loaded.clear()
    await desk.read_again()
    assert fetched == [good], "one that made room stays away until it is asked"
    await desk.ask("refund the money please")
    assert fetched == [good, good]
    for claim in (anew, bad):
        await desk.name(claim)
        await eventually(lambda claim=claim: desk.heads.named(NAME) == claim)
        for _ in range(3):
            await desk.read_again()
    assert fetched == [good, good, anew, bad]
    desk.heads._loaded.clear()
    assert await desk.code("refund") == "head_unavailable"
    assert fetched[-1:] == [bad], "what is no head is not fetched again"
    assert len(fetched) == 4
    await desk.name(good)
    await eventually(lambda: desk.heads.named(NAME) == good)
    await desk.ask("refund the money please")
    assert len(fetched) == 5


PROMPT = "prompt.acme.desk"


async def test_a_prompt_is_shown_for_the_tenants_it_is_named_for_and_bad_content_leaves_the_last_good(desk: Desk):
    prompts = desk.prompts
    purpose = f"student:{PROMPT}"
    content = prompt.pack(prompt.Prompt(base="small", instruction="be brief", exemplars=[prompt.Exemplar("q", "a")]))
    good = await desk.put(content, purpose=purpose)
    await desk.name_prompt(good, "acme", "granted")
    await eventually(lambda: prompts.named(PROMPT) == good)
    assert await desk.shown() == await desk.shown("granted") == ["be brief", "q", "a"]
    assert prompts.tokens(PROMPT) > 0
    assert (prompts.base(PROMPT), prompts.base("other")) == ("small", "other")
    with pytest.raises(CallFailed) as failed:
        await desk.shown("globex")
    assert failed.value.error.code == "unknown_model"

    other = prompt.pack(prompt.Prompt(base="large", instruction="be long", exemplars=[prompt.Exemplar("q", "a")]))
    for claim in (
        await desk.put(b"no prompt", purpose=purpose),
        await desk.put(content),
        await desk.put(content, owner="globex", purpose=purpose),
        await desk.put(other, purpose=purpose),
    ):
        await desk.name_prompt(claim)
        await eventually(lambda claim=claim: prompts.named(PROMPT) == claim)
        assert await desk.shown() == ["be brief", "q", "a"], claim
    await desk.name(good)
    await eventually(lambda: not prompts.named(PROMPT))
    assert await desk.shown() == [], "what the roster does not name is shown to nobody"
