"""Replies kept for a key: the book of claims and the sealer on a real broker, with work that a test can hold."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import pytest
from collegium_bus import topology
from collegium_bus.kv import Bucket
from collegium_contracts.envelope import UnknownKeyError
from collegium_contracts.journey import Bucket as DeclaredBucket
from collegium_contracts.state import DataKeysRecord, WrappedKey
from collegium_gateway.admission.claimbook import ClaimBook
from collegium_gateway.admission.idempotency import FOR_REPLIES, FOR_TASKS, Patience, claim_name
from collegium_gateway.errors import ApiError
from collegium_gateway.http import keyed_replies
from collegium_gateway.http.keyed_replies import KeyedReplies, Reply
from collegium_gateway.identity.principal import Principal
from collegium_gateway.tasks.keyed import Asking
from collegium_runtime.keyring import TenantKeyring
from collegium_testing import eventually
from collegium_testing.platform import RunningPlatform

IMPATIENT = Patience(stale_seconds=0.3, wait_seconds=1.0, believes_clocks=False)
OPERATOR = Principal("acme", "default", "key1", frozenset({"admin"}))
ASKING = Asking("k", "POST", "/v1/admin/keys", b"{}")


async def _learn_nothing(_tenant: str) -> None: ...


def _keyring() -> TenantKeyring:
    ring = TenantKeyring(lambda _tenant, key: key.wrapped, _learn_nothing, lambda: 0)
    key = WrappedKey(id="dk1", wrapped_by="", nonce=b"", wrapped=bytes(32), created_at_ms=0)
    ring.take(DataKeysRecord(tenant="acme", keys=[key]))
    return ring


@pytest.fixture
async def replies(clean_nats_url: str, tmp_path: Path) -> AsyncIterator[KeyedReplies]:
    async with RunningPlatform(clean_nats_url, folder=tmp_path, services=("router",)) as running:
        book = ClaimBook(running.hosted("router").platform)
        yield KeyedReplies(book, _keyring())


class Work:
    """Work that counts its runs and answers when it is let go."""

    def __init__(self, *statuses: int) -> None:
        self.runs = 0
        self.go = asyncio.Event()
        self.go.set()
        self._statuses = statuses

    async def __call__(self) -> Reply:
        self.runs += 1
        run = self.runs
        await self.go.wait()
        status = self._statuses[min(run, len(self._statuses)) - 1]
        return Reply(status, [(b"location", b"/x")], b"sk-clg-secret %d" % run)


async def test_a_reply_is_kept_sealed(replies: KeyedReplies):
    work = Work(201)
    first = await replies.answer(OPERATOR, ASKING, work)
    again = await replies.answer(OPERATOR, ASKING, work)
    assert (first[0], first[1], again[1], work.runs) == (again[0], False, True, 1)
    entry = await replies._book._bucket.get(claim_name("acme", "k"))
    assert entry is not None
    assert b"secret" not in entry.value


@pytest.mark.parametrize("status", [400, 401, 403, 429, 500, 503])
async def test_a_reply_that_is_not_kept_leaves_the_key_free(replies: KeyedReplies, status: int):
    work = Work(status, 200)
    assert (await replies.answer(OPERATOR, ASKING, work))[0].status == status
    assert (await replies.answer(OPERATOR, Asking("k", "POST", "/other", b""), work))[0].status == 200


async def test_work_that_raises_leaves_the_key_free(replies: KeyedReplies):
    async def broken() -> Reply:
        raise ApiError("billing_unavailable", "away")

    with pytest.raises(ApiError, match="away"):
        await replies.answer(OPERATOR, ASKING, broken)
    assert (await replies.answer(OPERATOR, ASKING, Work(200)))[1] is False


async def test_a_kept_reply_is_for_keys_that_could_have_asked(replies: KeyedReplies):
    await replies.answer(OPERATOR, ASKING, Work(200))
    narrow = Principal("acme", "default", "key2", frozenset({"chat"}))
    with pytest.raises(ApiError) as refused:
        await replies.answer(narrow, ASKING, Work(200))
    assert refused.value.code == "insufficient_scope"


async def test_a_second_request_waits_for_the_first_ones_reply(replies: KeyedReplies):
    work = Work(200)
    work.go.clear()
    first = asyncio.create_task(replies.answer(OPERATOR, ASKING, work))
    await eventually(lambda: work.runs == 1)
    second = asyncio.create_task(replies.answer(OPERATOR, ASKING, work))
    work.go.set()
    assert (await first)[0] == (await second)[0]
    assert ((await second)[1], work.runs) == (True, 1)


async def test_a_renewed_claim_is_not_taken_over_and_the_wait_is_bounded(
    replies: KeyedReplies, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(keyed_replies, "FOR_REPLIES", IMPATIENT)
    monkeypatch.setattr(keyed_replies, "RENEW_SECONDS", 0.05)
    work = Work(200)
    work.go.clear()
    first = asyncio.create_task(replies.answer(OPERATOR, ASKING, work))
    await eventually(lambda: work.runs == 1)
    with pytest.raises(ApiError) as refused:
        await replies.answer(OPERATOR, ASKING, work)
    assert (refused.value.code, refused.value.retry_after_seconds) == ("idempotency_in_progress", 2)
    work.go.set()
    assert ((await first)[1], work.runs) == (False, 1)
    assert (await replies.answer(OPERATOR, ASKING, work))[1] is True


async def test_a_holder_that_died_is_taken_over(replies: KeyedReplies, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(keyed_replies, "FOR_REPLIES", IMPATIENT)
    work = Work(200)
    work.go.clear()
    died = asyncio.create_task(replies.answer(OPERATOR, ASKING, work))
    await eventually(lambda: work.runs == 1)
    died.cancel()
    await asyncio.gather(died, return_exceptions=True)
    work.go.set()
    reply, replayed = await replies.answer(OPERATOR, ASKING, work)
    assert (reply.body, replayed, work.runs) == (b"sk-clg-secret 2", False, 2)


async def test_a_reply_too_long_to_keep_is_given_once(replies: KeyedReplies, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(keyed_replies, "MAX_REPLY_BYTES", 5)
    work = Work(200)
    assert (await replies.answer(OPERATOR, ASKING, work))[0].body == b"sk-clg-secret 1"
    with pytest.raises(ApiError, match="is not kept"):
        await replies.answer(OPERATOR, ASKING, work)
    assert work.runs == 1


async def test_a_key_that_has_expired_is_claimed_anew(replies: KeyedReplies, monkeypatch: pytest.MonkeyPatch):
    """A short-lived bucket of the same shape: after a value's age the broker has forgotten it, and create works."""
    connection = replies._book._platform.connection
    declared = DeclaredBucket(name="brief", writers=(), readers=(), ttl_seconds=1)
    config = topology.bucket_config(declared, replicas=1)
    made = msgspec.json.decode(await connection.api("STREAM.CREATE.KV_brief", msgspec.json.encode(config)))
    assert "error" not in made
    monkeypatch.setattr(replies._book, "_bucket", Bucket(connection, "brief"))
    book = replies._book
    first = await book.begin("acme", "k", b"f", FOR_TASKS)
    attached = await book.begin("acme", "k", b"f", FOR_REPLIES) if await book.advance(first, "stored") else None
    assert attached is not None
    assert (attached.held, attached.claim.task_id) == (False, first.claim.task_id)

    async def expired() -> bool:
        return await book._bucket.get(claim_name("acme", "k")) is None

    await eventually(expired)
    second = await book.begin("acme", "k", b"another request", FOR_TASKS)
    assert (second.held, second.taken_over) == (True, False)
    assert second.claim.task_id != first.claim.task_id


async def test_a_lost_acknowledgement_is_not_another_request(replies: KeyedReplies):
    book = replies._book
    begun = await book.begin("acme", "k", b"f", FOR_TASKS)
    # What a retried publish meets whose first try was stored: its own value.
    assert await book._put(begun.name, begun.claim, 0) == begun.revision
    renewed = await book.advance(begun, "claimed")
    assert renewed is not None
    stored = await book.advance(begun, "stored")
    assert stored is not None, "the holder's own earlier write does not refuse it"
    assert stored.revision > renewed.revision


async def test_without_a_key_to_seal_with_nothing_is_done(replies: KeyedReplies):
    unsealed = KeyedReplies(replies._book, TenantKeyring(lambda _tenant, key: key.wrapped, _learn_nothing, lambda: 0))
    work = Work(200)
    with pytest.raises(UnknownKeyError, match="acme"):
        await unsealed.answer(OPERATOR, ASKING, work)
    assert work.runs == 0
