"""Cascades and panels through router, workers and consensus: who is asked, when it ends, what it comes to."""

from __future__ import annotations

from collections.abc import Callable
from decimal import Decimal
from pathlib import Path

import pytest
from collegium_contracts.messages import AttemptAsked, TaskCompleted
from collegium_settings import PriceSettings
from collegium_testing import Behaviour, Rule
from collegium_testing.platform import RunningPlatform

SERVICES = ("consensus", "router", "worker-pool")
PRICES = {"small": "1", "little": "2", "middle": "10", "large": "100"}
RANKS = {"small": "student", "little": "student", "middle": "ta", "large": "teacher"}


def school(*names: str) -> list[dict]:
    return [
        {"name": name, "rank": RANKS[name], "price": PriceSettings(input_usd_per_mtok=Decimal(PRICES[name]), output_usd_per_mtok=Decimal(1))}
        for name in names or RANKS
    ]


@pytest.fixture
def platform(clean_nats_url: str, tmp_path: Path) -> Callable[..., RunningPlatform]:
    def make(*models: dict) -> RunningPlatform:
        return RunningPlatform(clean_nats_url, folder=tmp_path, services=SERVICES, models=models or school())

    return make


def says(**answers: str) -> list[Rule]:
    return [Rule(Behaviour(answer=text), model=model) for model, text in answers.items()]


async def test_a_cascade_climbs_to_the_teacher(platform: Callable[..., RunningPlatform]):
    async with platform() as running:
        running.sim.script(*says(small="a", little="b", middle="c", large="c"))
        task = await running.submit("hello", plan="cascade")
        settled = await running.settled(task)
        assert isinstance(settled, TaskCompleted), settled
        assert [call.model for call in settled.attempts] == ["small", "little", "middle", "large"]
        asked = [event for event in await running.events(task) if isinstance(event, AttemptAsked)]
        print(settled.confidence, asked)
        assert 0
