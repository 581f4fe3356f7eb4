"""Every metric that is promised has samples once the platform was used, as a scrape of its services sees it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import aiohttp
import msgspec
from collegium_testing import eventually
from collegium_testing.platforms import close_breakers
from collegium_testing.simulator import Behaviour, Rule
from prometheus_client.parser import text_string_to_metric_families

from tests.conftest import LoopThread, Stage

CHAT, EMBEDDINGS = "/v1/chat/completions", "/v1/embeddings"
EMBEDDER = "all-minilm-l6-v2"
DURATION, TOKENS = "gen_ai_client_operation_duration_seconds", "gen_ai_client_token_usage"
FIRST_TOKEN, HEALTH = "gen_ai_server_time_to_first_token_seconds", "collegium_model_health"
OF_CALLS = (DURATION, TOKENS, FIRST_TOKEN, HEALTH)
# Who shows what telemetry promises, besides what is of calls.
PROMISED = {
    "collegium_tasks_total": {"gateway"},
    "collegium_task_duration_seconds_count": {"gateway"},
    "collegium_overhead_seconds_count": {"gateway"},
    "collegium_cache_requests_total": {"gateway"},
    "collegium_cost_usd_total": {"billing"},
    "collegium_queue_depth": {"router", "worker-pool", "consensus", "context", "evolution", "billing"},
}
CHATS = {
    "gen_ai_operation_name": "chat",
    "gen_ai_provider_name": "openai-compatible",
    "gen_ai_request_model": "sim",
}


class Scraped:
    """What one scrape of a service showed."""

    def __init__(self, text: str) -> None:
        self.text = text
        self._samples = [one for family in text_string_to_metric_families(text) for one in family.samples]

    def sum(self, name: str, labels: Mapping[str, str] | None = None) -> float:
        """Adds up the samples of a name that have these labels, whatever their others say."""
        wanted = (labels or {}).items()
        return sum(one.value for one in self._samples if one.name == name and wanted <= one.labels.items())

    def has(self, name: str) -> bool:
        """Whether a name has samples, and one of them is not zero."""
        return any(one.name == name and one.value for one in self._samples)

    def shows(self, name: str) -> bool:
        """Whether a name has samples."""
        return any(one.name == name for one in self._samples)


async def scrape(stage: Stage) -> dict[str, Scraped]:
    runtime: dict[str, Any] = msgspec.json.decode((stage.platform.folder / "runtime.json").read_bytes())
    found: dict[str, Scraped] = {}
    async with aiohttp.ClientSession() as http:
        for service, port in runtime["admin_ports"].items():
            async with http.get(f"http://127.0.0.1:{port}/metrics") as reply:
                assert reply.status == 200
                found[service] = Scraped(await reply.text())
    return found


async def workers(stage: Stage) -> Scraped:
    return (await scrape(stage))["worker-pool"]


async def post(stage: Stage, path: str, **body: Any) -> int:
    async with stage.session() as session, session.post(path, json=body) as response:
        await response.read()
        return response.status


async def chat(stage: Stage, **body: Any) -> int:
    return await post(stage, CHAT, model="sim", messages=[{"role": "user", "content": "What is promised?"}], **body)


async def test_calls_have_their_duration_their_tokens_and_their_first_token(stage: Stage):
    before = await workers(stage)

    async def grew(name: str, by: float, **labels: str) -> Scraped:
        """Waits until a name has grown by so much: a call is counted a moment before or after it is answered."""

        async def seen() -> Scraped | None:
            now = await workers(stage)
            return now if now.sum(name, CHATS | labels) >= before.sum(name, CHATS | labels) + by else None

        return await eventually(seen)

    stage.simulator.script(Rule(Behaviour(answer="That it is counted.")))
    assert await chat(stage) == 200
    now = await grew(f"{DURATION}_count", 1, error_type="", gen_ai_response_model="sim")
    for kind in ("input", "output"):
        labels = CHATS | {"gen_ai_token_type": kind, "gen_ai_response_model": "sim"}
        assert now.sum(f"{TOKENS}_count", labels) >= before.sum(f"{TOKENS}_count", labels) + 1
        assert now.sum(f"{TOKENS}_sum", labels) >= before.sum(f"{TOKENS}_sum", labels) + 3

    streamed = now.sum(f"{FIRST_TOKEN}_sum", CHATS)
    stage.simulator.script(Rule(Behaviour(answer="That it is timed.", delay_ms=50)))
    assert await chat(stage, stream=True) == 200
    now = await grew(f"{FIRST_TOKEN}_count", 1, gen_ai_response_model="sim")
    assert now.sum(f"{FIRST_TOKEN}_sum", CHATS) >= streamed + 0.05

    refused = now.sum(f"{DURATION}_count", CHATS | {"error_type": "upstream_rejected"})
    stage.simulator.script(Rule(Behaviour(status=422)))
    assert await chat(stage) >= 400
    now = await grew(f"{DURATION}_count", 1, error_type="upstream_rejected")
    assert now.sum(f"{DURATION}_count", CHATS | {"error_type": "upstream_rejected"}) > refused


async def test_embeddings_are_an_operation_of_their_own(stage: Stage):
    embedded = {"gen_ai_operation_name": "embeddings", "gen_ai_request_model": EMBEDDER}
    before = (await workers(stage)).sum(f"{DURATION}_count", embedded)
    assert await post(stage, EMBEDDINGS, model=EMBEDDER, input="How much is this?") == 200

    async def counted() -> Scraped | None:
        now = await workers(stage)
        return now if now.sum(f"{DURATION}_count", embedded) > before else None

    now = await eventually(counted)
    assert now.sum(f"{TOKENS}_sum", embedded | {"gen_ai_token_type": "input"}) > 0
    assert not now.sum(f"{TOKENS}_count", embedded | {"gen_ai_token_type": "output"})


async def test_a_models_health_falls_while_it_fails_and_comes_back(stage: Stage, loop_thread: LoopThread):
    async def reaches(right: Callable[[float], bool]) -> None:
        async def seen() -> bool:
            now = await workers(stage)
            return now.shows(HEALTH) and right(now.sum(HEALTH, {"model": "sim"}))

        await eventually(seen)

    await reaches(lambda health: health == 1)
    stage.simulator.script(Rule(Behaviour(status=500), times=1), Rule(Behaviour(answer="again")))
    assert await chat(stage) == 200
    await reaches(lambda health: 0 < health < 1)
    stage.simulator.script(Rule(Behaviour(status=500)))

    async def opened() -> bool:
        assert await chat(stage, collegium={"deadline_seconds": 5}) >= 500
        return (await workers(stage)).sum(HEALTH, {"model": "sim"}) == 0

    await eventually(opened)
    stage.simulator.script()
    loop_thread.run(close_breakers(stage.platform))
    await reaches(lambda health: health == 1)


async def test_all_that_is_promised_has_samples_and_none_is_named_where_it_is_not_measured(stage: Stage):
    stage.simulator.script(Rule(Behaviour(answer="yes")))
    assert await chat(stage) == 200
    assert await chat(stage, stream=True) == 200

    async def complete() -> dict[str, Scraped] | None:
        found = await scrape(stage)
        lacking = [
            (name, service)
            for name, services in PROMISED.items()
            for service in services
            # What waits is zero where nothing waits.
            if not (found[service].shows if name == "collegium_queue_depth" else found[service].has)(name)
        ]
        return None if lacking else found

    found = await eventually(complete)
    for service, scraped in found.items():
        for name in OF_CALLS:
            assert (name in scraped.text) == (service == "worker-pool"), (service, name)
