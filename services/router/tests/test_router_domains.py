"""Discovered domains in the router: given to tasks that name none, never changed, and the last good map stays."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import msgspec
import numpy as np
import pytest
from collegium_contracts.codec import encode
from collegium_contracts.domains import DomainMap, map_key
from collegium_contracts.envelope import Envelope
from collegium_contracts.policy_requests import FeaturesReply
from collegium_learning.routing.features import TRAITS, pack, row_of
from collegium_router.choosing import seen as seeing
from collegium_router.choosing.domains import Domains
from collegium_router.choosing.policies import Aims, Policies
from collegium_router.choosing.seen import Seen, Sight
from collegium_router.queue.intake import Queued
from collegium_testing import eventually

SEALED = Envelope("k", b"n", b"row")
MAP = DomainMap(
    tenant="acme", version=1, created_at_ms=0, embedder="mini", dimensions=2, near_dimensions=2,
    mean=np.zeros(2, "<f4").tobytes(), projection=np.eye(2, dtype="<f4").tobytes(),
    centroids=np.eye(2, dtype="<f4").tobytes(), reaches=[0.9, 0.9], clusters=["topic-a", "topic-b"],
    domains=["topic-a", "topic-a"],
)  # fmt: skip


def seen(*direction: float, embedder: str = "mini") -> Seen:
    return Seen(embedder, row_of(np.array(direction, np.float32), np.zeros(len(TRAITS), np.float32)), SEALED)


@pytest.fixture
def domains() -> Domains:
    found = Domains()
    found.use(map_key("acme"), encode(MAP), 1)
    return found


def test_a_task_that_names_no_domain_is_given_that_of_its_question(domains: Domains, submission: Any):
    task = submission()
    assert domains.given(task, seen(1, 0)).task.domain == "topic-a"
    assert domains.given(task, seen(0, 1)).task.domain == "topic-a", "it was merged"
    assert domains.given(task, seen(1, 1)) is task, "too far from both"
    assert domains.given(task, seen(1, 0, embedder="large")) is task
    named = submission(domain="law")
    assert domains.given(named, seen(1, 0)) is named
    other = submission(tenant="globex")
    assert domains.given(other, seen(1, 0)) is other


def test_what_cannot_be_read_leaves_the_last_good_map(domains: Domains, submission: Any):
    broken = msgspec.structs.replace(MAP, reaches=[0.9])
    for revision, value in enumerate((b"garbage", encode(broken), encode(msgspec.structs.replace(MAP, tenant="x"))), 2):
        domains.use(map_key("acme"), value, revision)
        domains.use(map_key("acme"), value, revision)
    assert domains.refused == 3
    assert domains.given(submission(), seen(1, 0)).task.domain == "topic-a"
    domains.forget(map_key("acme"))
    assert not domains.wants("acme")


def test_a_map_alone_is_reason_to_look_at_questions():
    policies = Policies(Aims())
    assert not policies.embeds("acme")
    policies.use(map_key("acme"), encode(MAP), 1)
    assert policies.embeds("acme")
    assert not policies.embeds("globex")
    policies.use(map_key("acme"), b"garbage", 2)
    assert policies.refused == 1
    policies.forget(map_key("acme"))
    assert not policies.embeds("acme")


async def test_a_task_is_queued_with_the_domain_its_question_was_found_to_be_of(
    domains: Domains, submission: Any, monkeypatch: Any
):
    async def answering(*_args: Any, **_fields: Any) -> FeaturesReply:
        return FeaturesReply(embedder="mini", row=pack(seen(1, 0).row), sealed=SEALED)

    monkeypatch.setattr(seeing, "ask", answering)
    accepted: list[Queued] = []
    platform: Any = SimpleNamespace(connection=None)
    sight = Sight(platform, domains.wants, accepted.append, domains.given)
    nowhere: Any = None
    for message in (submission(), submission(domain="law"), submission(tenant="globex")):
        queued = Queued(message=message, shard=nowhere, subject="", sequence=1, traceparent="", replayed=False)
        if not sight.looks(queued):
            accepted.append(queued)
            continue
        await eventually(lambda queued=queued: queued in accepted)
    assert sorted((one.task.tenant, one.task.domain) for one in accepted) == [
        ("acme", "law"), ("acme", "topic-a"), ("globex", ""),
    ]  # fmt: skip
