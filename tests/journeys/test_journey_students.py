"""A tenant that agrees is learned from: its verified answers become a head, which answers it without a model, and no
other; what it said can be taken out by it alone, and goes with it."""

from __future__ import annotations

import asyncio
from typing import Any

import aiohttp
import msgspec
import pytest
from collegium_testing import Behaviour, Rule, eventually

from tests.conftest import Stage

TENANT = "learner"
DOMAIN = "support desk"
ASKED = {
    "refund": ["i want my money back", "please refund the order", "can i get a refund", "return the payment to me"],
    "delivery": ["where is my parcel", "the parcel has not arrived", "track my delivery", "when will it be delivered"],
    "login": ["i cannot log in", "my password is wrong", "reset my password", "the login page shows an error"],
}
TAILS = ("", " now", " please help", " since monday", " today", " thank you")
TAUGHT = len(TAILS) * sum(map(len, ASKED.values()))
# Never taught, and well within what was: tasks' ids draw which samples are held out, and with that how unlike them a
# question may be before the head is not sure of it.
NEW = "i want my money back please"


class Learned:
    """The tenant's key and its head, once it was made."""

    def __init__(self, key: str, head: dict[str, Any]) -> None:
        self.key = key
        self.head = head


async def ask(http: aiohttp.ClientSession, text: str, model: str = "sim", **more: Any) -> tuple[int, dict[str, Any]]:
    body = {
        "model": model,
        "messages": [{"role": "user", "content": text}],
        "collegium": {"cache": "off", "domain": DOMAIN},
        **more,
    }
    async with http.post("/v1/chat/completions", json=body) as reply:
        return reply.status, await reply.json()


async def called(http: aiohttp.ClientSession, method: str, path: str, body: Any = None) -> tuple[int, Any]:
    async with http.request(method, path, json=body) as reply:
        return reply.status, await reply.json()


async def teach(http: aiohttp.ClientSession) -> None:
    """Asks every question of the teacher and says that it was right."""

    async def one(text: str, label: str) -> None:
        status, said = await ask(http, text)
        assert (status, said["choices"][0]["message"]["content"]) == (200, label), said
        task = said["collegium"]["task_id"]
        status, _ = await called(http, "POST", f"/v1/tasks/{task}/feedback", {"score": 1.0})
        assert status == 201

    await asyncio.gather(
        *(one(text + tail, label) for label, texts in ASKED.items() for text in texts for tail in TAILS)
    )


@pytest.fixture(scope="module")
def learned() -> dict[str, Learned]:
    return {}


@pytest.fixture
async def learner(stage: Stage, learned: dict[str, Learned]) -> Learned:
    """The tenant with its head, made once."""
    rules = [Rule(Behaviour(answer=label), match=text) for label, texts in ASKED.items() for text in texts]
    stage.simulator.script(*rules)
    if TENANT not in learned:
        learned[TENANT] = await _learn(stage)
        stage.simulator.reset()
        stage.simulator.script(*rules)
    return learned[TENANT]


async def _learn(stage: Stage) -> Learned:
    async with stage.session(stage.platform.admin_key) as operator:
        assert (await called(operator, "POST", "/v1/admin/tenants", {"id": TENANT, "tier": "pro"}))[0] == 201
        scopes = {"tenant": TENANT, "scopes": ["admin", "chat", "tasks", "usage"]}
        status, made = await called(operator, "POST", "/v1/admin/keys", scopes)
        assert status == 201, made
        key = made["key"]

        async def let_in() -> bool:
            async with stage.session(key) as http:
                return (await called(http, "GET", "/v1/models"))[0] == 200

        await eventually(let_in)
        async with stage.session(key) as http:
            assert (await ask(http, "track my delivery before anybody agreed"))[0] == 200
            status, refusal = await called(http, "POST", "/v1/admin/students", {"domain": DOMAIN})
            assert (status, refusal["error"]["code"]) == (409, "too_few_samples")
            status, tenant = await called(operator, "PATCH", f"/v1/admin/tenants/{TENANT}", {"learning_collect": True})
            assert (status, tenant["learning"]["collect"]) == (200, True)
            await eventually(lambda: _collects(http), every_seconds=0.2)
            await teach(http)

            async def enough() -> bool:
                _, samples = await called(http, "GET", "/v1/admin/samples")
                rows = [row for row in samples["data"] if row["domain"] == DOMAIN]
                return bool(rows) and rows[0]["verified"] >= TAUGHT

            await eventually(enough)
            status, row = await called(http, "POST", "/v1/admin/students", {"domain": DOMAIN})
            assert (status, row["state"]) == (202, "training"), row
            name = row["name"]
            _, listed = await called(http, "GET", "/v1/admin/students")
            assert [one["name"] for one in listed["data"]] == [name], "a spawn is seen at once"

            async def serving() -> dict[str, Any] | None:
                _, shown = await called(http, "GET", f"/v1/admin/students/{name}")
                assert shown["state"] != "failed", shown
                return shown if shown["state"] == "serving" else None

            return Learned(key, await eventually(serving))


async def _collects(http: aiohttp.ClientSession) -> bool:
    """Whether gateways know that the tenant agreed: an answer of now becomes a sample."""
    status, _ = await ask(http, "track my delivery once more")
    assert status == 200
    _, samples = await called(http, "GET", "/v1/admin/samples")
    return bool(samples["data"])


async def test_a_head_answers_its_tenant_without_a_model_and_is_booked(stage: Stage, learner: Learned):
    name = learner.head["name"]
    calls = stage.simulator.counts().totals.started
    async with stage.session(learner.key) as http:

        async def answered() -> dict[str, Any] | None:
            status, said = await ask(http, NEW, name)
            assert status == 200, said
            return said

        said = await eventually(answered)
        assert said["choices"][0]["message"]["content"] == "refund"
        about = said["collegium"]
        assert (about["model"], about["rank"], about["attempts"]) == (name, "student", 1)
        assert about["confidence"] > learner.head["confidence_min"]
        assert float(about["cost_usd"]) == 0
        assert stage.simulator.counts().totals.started == calls

        async def booked() -> bool:
            _, usage = await called(http, "GET", "/v1/usage?group_by=model")
            rows = [row for row in usage["data"] if row["model"] == name]
            return bool(rows) and rows[0]["requests"] >= 1 and rows[0]["input_tokens"] > 0

        await eventually(booked)


async def test_what_a_head_is_not_sure_of_it_says_and_auto_asks_the_teacher(stage: Stage, learner: Learned):
    name = learner.head["name"]
    stage.simulator.script(Rule(Behaviour(answer="something else")))
    async with stage.session(learner.key) as http:
        status, refusal = await ask(http, "what is the capital of france and how old is the moon", name)
        assert (status, refusal["error"]["code"]) == (422, "head_unsure"), refusal
        status, said = await ask(http, "please refund this order", "auto")
        assert (status, said["collegium"]["model"]) == (200, "sim"), "a student earns its place first"


async def test_a_prompt_shows_its_base_verified_answers_first_at_its_price_and_to_its_tenant_alone(
    stage: Stage, learner: Learned
):
    stage.simulator.reset()
    stage.simulator.script(Rule(Behaviour(transcript=True)))
    async with stage.session(learner.key) as http, stage.session() as other:
        wanted = {"domain": DOMAIN, "kind": "prompt", "base": "nobody"}
        status, refusal = await called(http, "POST", "/v1/admin/students", wanted)
        assert (status, refusal["error"]["param"]) == (422, "base"), refusal
        status, row = await called(http, "POST", "/v1/admin/students", wanted | {"base": "sim"})
        assert (status, row["state"], row["kind"], row["base"]) == (202, "training", "prompt", "sim"), row
        name = row["name"]
        _, listed = await called(http, "GET", "/v1/admin/students")
        assert name in [one["name"] for one in listed["data"]], "a spawn is seen at once"

        async def answered() -> str | None:
            _, shown = await called(http, "GET", f"/v1/admin/students/{name}")
            assert shown["state"] != "failed", shown
            status, said = await ask(http, NEW, name)
            return said["choices"][0]["message"]["content"] if status == 200 else None

        sent = (await eventually(answered)).split("\n")
        assert sent[0].startswith("system: Answer as the examples")
        assert sent[-1] == f"user: {NEW}"
        shown = sent[1:-1]
        assert len(shown) >= 2 * 3, shown
        assert all(line.startswith("user: ") for line in shown[::2])
        assert {line.removeprefix("assistant: ") for line in shown[1::2]} <= set(ASKED)

        status, said = await ask(http, NEW, name)
        assert (said["collegium"]["model"], said["collegium"]["rank"]) == (name, "student")
        status, plain = await ask(http, NEW, "sim")
        assert plain["usage"]["prompt_tokens"] < said["usage"]["prompt_tokens"]
        status, refusal = await ask(other, NEW, name)
        assert (status, refusal["error"]["code"]) == (400, "unknown_model")
        status, said = await ask(http, "please refund this order", "auto")
        assert said["collegium"]["model"] == "sim", "a student earns its place first"


async def test_no_other_tenant_sees_it_or_is_answered(stage: Stage, learner: Learned):
    name = learner.head["name"]
    async with stage.session() as http:
        status, refusal = await ask(http, "please refund this order", name)
        assert (status, refusal["error"]["code"]) == (400, "unknown_model")
        _, models = await called(http, "GET", "/v1/models")
        assert name not in [model["id"] for model in models["data"]]
    async with stage.session(learner.key) as http:
        _, models = await called(http, "GET", "/v1/models")
        assert name in [model["id"] for model in models["data"]]
        status, refusal = await called(http, "GET", "/v1/admin/students?tenant=acme")
        assert (status, refusal["error"]["code"]) == (403, "insufficient_role")


async def test_its_samples_leave_the_platform_by_its_own_key_alone(stage: Stage, learner: Learned):
    async with stage.session(learner.key) as http, stage.session(stage.platform.admin_key) as operator:
        status, made = await called(http, "POST", "/v1/admin/distill", {"domain": DOMAIN})
        assert status == 201, made
        assert made["rows"] > 30
        async with http.get(f"/v1/admin/distill/{made['id']}") as reply:
            lines = [msgspec.json.decode(line) for line in (await reply.text()).splitlines()]
        assert len(lines) == made["rows"]
        assert {line["messages"][-1]["content"] for line in lines} == set(ASKED)
        assert all(line["metadata"]["consent_ms"] > 0 and line["metadata"]["licence"] for line in lines)
        status, _ = await called(operator, "GET", f"/v1/admin/distill/{made['id']}?tenant=acme")
        assert status == 404


async def test_a_model_fine_tuned_on_an_export_is_a_student_of_its_tenant(stage: Stage, learner: Learned):
    name = "tuned.learner-1"
    async with stage.session(learner.key) as http, stage.session(stage.platform.admin_key) as operator:
        export = {"domain": DOMAIN, "format": "openai", "evaluation": ["i cannot log in"]}
        status, made = await called(http, "POST", "/v1/admin/distill", export)
        assert status == 201, made
        manifest = made["manifest"]
        assert (manifest["rows"], manifest["domain"], manifest["tenant"]) == (made["rows"], DOMAIN, TENANT)
        assert manifest["consent_ms"]["first"] > 0
        assert manifest["licences"]
        assert made["left_out"]["like_evaluation"] >= 1
        async with http.get(f"/v1/admin/distill/{made['id']}") as reply:
            assert {tuple(msgspec.json.decode(line)) for line in (await reply.read()).splitlines()} == {("messages",)}
        model = {
            "name": name,
            "base_url": stage.simulator.base_url,
            "key": "sim",
            "price": {"input_usd_per_mtok": "0.1", "output_usd_per_mtok": "0.1"},
        }
        body = {"export": made["export"], "model": model, "tenant": TENANT}
        status, refusal = await called(http, "POST", "/v1/admin/students/register", body)
        assert (status, refusal["error"]["code"]) == (403, "insufficient_role"), (
            "the operator's keys are not a tenant's"
        )
        status, refusal = await called(operator, "POST", "/v1/admin/students/register", body | {"tenant": "acme"})
        assert (status, refusal["error"]["code"]) == (404, "not_found"), "and no export is another tenant's"
        status, student = await called(operator, "POST", "/v1/admin/students/register", body)
        assert status == 201, student
        assert (student["kind"], student["domain"], student["samples"]) == ("endpoint", DOMAIN, made["rows"])

        async def answers() -> bool:
            status, said = await ask(http, NEW, name)
            return status == 200 and said["collegium"]["rank"] == "student"

        await eventually(answers)
        status, said = await ask(http, "please refund this order at once", "auto")
        assert (status, said["collegium"]["model"]) == (200, "sim"), "it earns its place first"
        async with stage.session() as stranger:
            status, refusal = await ask(stranger, NEW, name)
            assert (status, refusal["error"]["code"]) == (400, "unknown_model")
        status, retired = await called(operator, "POST", f"/v1/admin/students/{name}/retire")
        assert (status, retired["state"]) == (200, "retired")
        status, _ = await called(operator, "GET", f"/v1/admin/models/{name}")
        assert status == 404


async def test_it_goes_with_its_tenant(stage: Stage, learner: Learned):
    name = learner.head["name"]
    async with stage.session(stage.platform.admin_key) as operator:
        status, _ = await called(operator, "DELETE", f"/v1/admin/tenants/{TENANT}")
        assert status == 200
        body = {"confirm": TENANT}
        status, _ = await called(operator, "POST", f"/v1/admin/tenants/{TENANT}/erasure", body)
        assert status in (200, 202)

        async def gone() -> bool:
            _, students = await called(operator, "GET", f"/v1/admin/students?tenant={TENANT}")
            _, samples = await called(operator, "GET", f"/v1/admin/samples?tenant={TENANT}")
            _, models = await called(operator, "GET", "/v1/admin/models")
            return (
                not students["data"]
                and not samples["data"]
                and not [
                    one for one in models["data"] if one["name"] == name or one["name"].startswith(f"prompt.{TENANT}.")
                ]
            )

        await eventually(gone)
