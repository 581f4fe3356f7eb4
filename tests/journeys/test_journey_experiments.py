"""A prompt tried on a running platform: users keep their arm, a look tells, a kill switch ends it."""

from __future__ import annotations

from typing import Any

import aiohttp
import pytest
from collegium_testing import eventually

pytestmark = pytest.mark.timeout(240)

EXPERIMENTS, FLAGS, DOMAIN = "/v1/admin/experiments", "/v1/admin/flags", "trial-journey"
TOLD = " ".join(["Answer in one short sentence."] * 20)
USERS = [f"user-{number}" for number in range(12)]


async def asked(session: aiohttp.ClientSession, user: str, text: str) -> tuple[int, str]:
    """Asks as a user; returns the prompt's tokens and the task's id."""
    body = {
        "model": "auto",
        "max_tokens": 8,
        "messages": [{"role": "user", "content": text}],
        "collegium": {"domain": DOMAIN, "tags": {"user": user}},
    }
    async with session.post("/v1/chat/completions", json=body) as response:
        answer = await response.json()
        assert response.status == 200, answer
        return answer["usage"]["prompt_tokens"], answer["collegium"]["task_id"]


async def sent(session: aiohttp.ClientSession, method: str, path: str, body: Any = None, status: int = 200) -> Any:
    async with session.request(method, path, json=body) as response:
        answer = await response.json()
        assert response.status == status, answer
        return answer


async def test_a_prompt_is_tried_looked_at_and_killed(stage):
    draft = {
        "name": "short answers", "kind": "prompt", "tenant": "acme", "domain": DOMAIN, "unit": "user",
        "candidate": {"instruction": TOLD, "label": "v1"},
    }  # fmt: skip
    async with stage.session(stage.platform.admin_key) as operator, stage.session() as client:
        plain, _ = await asked(client, USERS[0], "what is asked before anything runs?")
        drafted = await sent(operator, "POST", EXPERIMENTS, draft, 201)
        assert TOLD not in str(drafted)
        path = f"{EXPERIMENTS}/{drafted['id']}"
        try:
            await sent(operator, "POST", f"{path}/start")
            await _runs(operator, client, path, drafted["id"])
            await sent(operator, "POST", f"{FLAGS}/kill", {"tenant": "acme", "reason": "a drill"})

            async def is_off() -> bool:
                tokens = {(await asked(client, user, f"is it off, {user}?"))[0] for user in USERS}
                return max(tokens) < plain + len(TOLD) // 8

            await eventually(is_off)
        finally:
            await sent(operator, "POST", f"{path}/stop", {"reason": "the journey is over"})
            await sent(operator, "POST", f"{FLAGS}/revive", {"tenant": "acme"})
        ended = await sent(operator, "GET", path)
        assert (ended["state"], ended["changes"][-1]["reason"]) == ("stopped", "the journey is over")
        async with stage.session(stage.other_key) as stranger:
            await sent(stranger, "GET", path, status=403)


async def _runs(operator: aiohttp.ClientSession, client: aiohttp.ClientSession, path: str, name: str) -> None:
    """Both arms are seen, users keep theirs, words are told of them, and nothing else may run beside."""

    async def both() -> bool:
        tokens = [(await asked(client, user, f"which arm, {user}?"))[0] for user in USERS]
        return max(tokens) > min(tokens) + len(TOLD) // 8

    await eventually(both)
    first = [await asked(client, user, "what is the same for all of them?") for user in USERS]
    again = [await asked(client, user, "what is the same for all of them?") for user in USERS]
    assert len({tokens for tokens, _ in first}) == 2, first
    assert [tokens for tokens, _ in again] == [tokens for tokens, _ in first]
    for _, task in first:
        await sent(client, "POST", f"/v1/tasks/{task}/feedback", {"score": 1.0}, 201)
    longest = max(tokens for tokens, _ in first)
    given = sum(tokens == longest for tokens, _ in first)

    async def told() -> bool:
        look = (await sent(operator, "GET", path))["look"]
        judged = {arm["arm"]: arm["judged"] for arm in look["arms"]}
        return judged == {"control": len(USERS) - given, "candidate": given}

    await eventually(told)
    draft = {"name": "beside it", "kind": "model", "candidate": {"model": "sim"}, "tenant": "acme"}
    second = await sent(operator, "POST", EXPERIMENTS, draft, 201)
    refused = await sent(operator, "POST", f"{EXPERIMENTS}/{second['id']}/start", status=409)
    assert refused["error"]["code"] == "experiment_conflict"
    assert name in refused["error"]["message"]
    await sent(operator, "POST", f"{EXPERIMENTS}/{second['id']}/stop")
