"""Policies on a real broker: questions are looked at where a policy wants it, and tasks go on whatever comes of it."""

from __future__ import annotations

from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from collegium_bus.errors import RequestRefusedError, TooLargeError
from collegium_bus.kv import Bucket
from collegium_bus.shell import Answering
from collegium_contracts import codec
from collegium_contracts import subjects as s
from collegium_contracts.codec import encode
from collegium_contracts.envelope import Envelope
from collegium_contracts.errors import UndecodableMessageError
from collegium_contracts.messages import Message, RunAttempt
from collegium_contracts.policies import Cell, RoutingPolicy, routing_key
from collegium_contracts.policy_requests import FeaturesReply, FeaturesRequest
from collegium_learning.routing.features import pack
from collegium_router.choosing import seen as seeing
from collegium_router.choosing.seen import LOOK_BYTES_MAX, Sight
from collegium_router.queue.intake import Queued
from collegium_settings.models import PriceSettings
from collegium_settings.settings import RoutingSettings
from collegium_testing import eventually
from collegium_testing.platform import RunningPlatform

SEALED = Envelope("k", b"n", b"row")
# What the policy below goes by: such a question is nothing for the small one.
HARD = np.array([8.0, *[0.0] * 31], np.float32)
MODELS = ({"name": "large", "price": PriceSettings(call_usd=Decimal("0.001"))}, {"name": "small", "rank": "student"})


@pytest.fixture
def platform(clean_nats_url: str, tmp_path: Path) -> Callable[[], RunningPlatform]:
    return lambda: RunningPlatform(
        clean_nats_url, folder=tmp_path, services=("router",), models=MODELS, routing=RoutingSettings(exploration=0.0)
    )


def policy(version: int, *, embeds: bool) -> bytes:
    cells = [Cell(100, 0.9, 0.01), Cell(100, 0.9, 0.01)]
    weights = np.zeros((2, 33), "<f4")
    weights[1, 1] = -0.1
    return encode(
        RoutingPolicy(
            version=version,
            tenant="acme",
            created_at_ms=0,
            models=["large", "small"],
            everywhere=cells,
            family="full",
            linear=weights.tobytes(),
            stack=(1.0, 0.0),
            embeds=embeds,
            embedder="mini",
        )
    )


def queued(message: Any) -> Queued:
    nowhere: Any = None
    return Queued(message=message, shard=nowhere, subject="", sequence=1, traceparent="", replayed=False)


@pytest.mark.parametrize("error", [UndecodableMessageError("garbage"), TooLargeError("large"), RuntimeError("other")])
async def test_a_task_is_queued_whatever_comes_of_looking(error: Exception, submission: Any, monkeypatch: Any):
    async def failing(*_args: Any, **_fields: Any) -> Any:
        raise error

    monkeypatch.setattr(seeing, "ask", failing)
    accepted: list[Queued] = []
    platform: Any = SimpleNamespace(connection=None)
    sight = Sight(platform, lambda _tenant: True, accepted.append)
    one = queued(submission())
    assert sight.looks(one)
    await eventually(lambda: accepted == [one])
    assert sight.of(one.task.id) is None


def test_a_long_prompt_is_not_looked_at(submission: Any):
    platform: Any = SimpleNamespace(connection=None)
    sight = Sight(platform, lambda _tenant: True, lambda _queued: None)
    assert not sight.looks(queued(submission(prompt_bytes=LOOK_BYTES_MAX + 1)))


async def test_a_question_is_seen_where_its_tenants_policy_wants_it(platform: Callable[[], RunningPlatform]):
    asked: list[str] = []

    async def features(question: Message, _traceparent: str) -> Message:
        assert isinstance(question, FeaturesRequest)
        asked.append(question.tenant)
        if len(asked) > 1:
            raise RequestRefusedError("embedder_unavailable", "down")
        return FeaturesReply(embedder="mini", row=pack(HARD), sealed=SEALED)

    async with platform() as running:
        answering = Answering(running.connection, {s.SVC_CONTEXT_FEATURES: features})
        await answering.start()
        bucket = Bucket(running.connection, s.KV_POLICY)

        async def chosen(**fields: Any) -> RunAttempt:
            # Nothing ends here, so that a tier of few at a time would hold them up.
            task = await running.submit("who is asked?", tier="enterprise", **fields)

            async def dispatched() -> RunAttempt | None:
                for _, payload in await running.read(s.WORK, s.WORK_ALL):
                    run = codec.journey.decode(payload)
                    if isinstance(run, RunAttempt) and run.task.id == task.id:
                        return run
                return None

            return await eventually(dispatched)

        async def applied(version: int) -> RunAttempt:
            async def by_it() -> RunAttempt | None:
                run = await chosen(model="auto")
                return run if run.route is not None and run.route.policy_version == version else None

            return await eventually(by_it)

        assert (await chosen(model="auto")).route.reasons == ["no_policy"]
        await bucket.put(routing_key("acme"), policy(3, embeds=False))
        unseen = await applied(3)
        assert (unseen.attempt.model, unseen.route.reasons[-1], unseen.route.features) == ("small", "no_features", None)
        assert asked == []
        # Garbage changes nothing, the next version swaps at once.
        await bucket.put(routing_key("acme"), b"\xff garbage")
        await bucket.put(routing_key("acme"), policy(4, embeds=True))
        seen = await applied(4)
        assert (seen.attempt.model, seen.route.features, seen.route.embedder) == ("large", SEALED, "mini")
        down = await chosen(model="auto")
        assert (down.attempt.model, down.route.reasons[-1], down.route.features) == ("small", "no_features", None)
        count = len(asked)
        assert (await chosen(model="large")).route is None
        assert len(asked) == count
        await answering.stop()
