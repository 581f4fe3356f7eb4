"""Every path but context's, walked by a tenant that looks for another's data; one without a case fails.

Memory, documents, search and cache are walked in test_journey_walk.py.
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from typing import Any, NamedTuple

import aiohttp
import grpc
import grpc.aio
import pytest
from collegium_gateway.grpc.server import SERVICES
from collegium_gateway.http import openapi
from collegium_protocol.v1 import chat_pb2, tasks_pb2
from collegium_protocol.v1.chat_pb2_grpc import ChatStub
from collegium_protocol.v1.tasks_pb2_grpc import TasksStub
from collegium_testing import Behaviour, Rule, eventually

from tests.conftest import Stage
from tests.journeys import test_journey_walk as walk

pytestmark = pytest.mark.timeout(180)
CANARY = "isolation-canary-7f3a"


class Theirs(NamedTuple):
    """What the other tenant has: ids that may be guessed, and texts that may be seen nowhere."""

    task: str
    schedule: str
    secret: str
    key_id: str
    document: str
    memory: str
    grant: str


# For each GET route: what is asked, and what may be answered. None: nothing of any tenant stands there.
GET_CASES: dict[str, tuple[tuple[str, ...], set[int]]] = {
    "/v1/models": (("",), {200}),
    "/v1/tasks": (("", "?limit=200", "?state=completed", "?cursor={cursor}"), {200, 400}),
    "/v1/tasks/{id}": (("{task}",), {404}),
    "/v1/tasks/{id}/events": (("{task}",), {404}),
    "/v1/tasks/{id}/webhook": (("{task}",), {404}),
    "/v1/webhooks/secret": (("",), {200}),
    "/v1/schedules": (("",), {200}),
    "/v1/schedules/{id}": (("{schedule}",), {404}),
    "/v1/documents": (("", "?limit=200", "?state=indexed"), {200}),
    "/v1/documents/{id}": (("{document}",), {404}),
    "/v1/documents/{id}/events": (("{document}",), {404}),
    "/v1/search/profiles/{user}": (("shared-user",), {404}),
    "/v1/cache": (("", "?tenant=acme"), {403}),
    "/v1/memories": (("", "?path=/&forgotten=true&limit=200", "?path=shared", "?cursor={memory}"), {200}),
    "/v1/memories/paths": (("",), {200}),
    "/v1/memories/grants": (("",), {200}),
    "/v1/memories/{id}": (("{memory}",), {404}),
    "/v1/memories/{id}/explain": (("{memory}", "{memory}?question=hello&path=/"), {404}),
    "/v1/contexts": (("", "?limit=200"), {200}),
    "/v1/contexts/{id}": (("shared-name", "shared-name?version=1"), {404}),
    "/v1/contexts/{id}/versions": (("shared-name",), {404}),
    "/v1/admin/experiments": (("", "?tenant=acme"), {403}),
    "/v1/admin/experiments/{id}": (("exp_0",), {403}),
    "/v1/admin/flags": (("", "?tenant=acme"), {403}),
    "/v1/admin/students": (("", "?tenant=acme"), {403}),
    "/v1/admin/students/{name}": (("head.acme.x",), {403}),
    "/v1/admin/domains": (("", "?tenant=acme"), {403}),
    "/v1/admin/domains/{id}": (("topic-0a1b2c3d",), {403}),
    "/v1/admin/samples": (("", "?tenant=acme"), {403}),
    "/v1/admin/distill/{id}": (("a:1:b?tenant=acme",), {403}),
    "/v1/admin/gates": (("",), {403}),
    "/v1/admin/approvals": (("", "?tenant=acme&state=open"), {403}),
    "/v1/admin/approvals/{id}": (("{task}.request-1",), {403}),
    "/v1/admin/gates/report": (("", "?details=1", "?tenant=acme"), {403}),
    "/v1/admin/tenants/{id}/gates": (("acme",), {403}),
    "/v1/conversations": (("", "?limit=200"), {200}),
    "/v1/conversations/{id}": (("shared-name",), {404}),
    "/v1/usage": (("?group_by=tenant,key,tag", "?group_by=tenant&tenant=acme", "?group_by=tag&format=csv"), {200, 403}),
    "/v1/requests": (("", "?limit=1000&format=csv", "?key=acmekey00001", "?tenant=acme"), {200, 403}),
    "/v1/invoices": (("", "?tenant=acme"), {200, 403}),
    "/v1/invoices/{id}": (("inv-acme-2024-02", "inv-acme-2024-02?format=html"), {404}),
    "/v1/admin/models": (("",), {403}),
    "/v1/admin/models/{name}": (("sim",), {403}),
    "/v1/admin/possible-spend": (("", "?tenant=acme"), {403}),
    "/v1/admin/tenants": (("",), {403}),
    "/v1/admin/tenants/{id}/erasure": (("acme",), {403}),
    "/v1/admin/tenants/{id}/data-keys": (("acme",), {403}),
    "/v1/admin/search-index": (("",), {403}),
    "/v1/admin/encryption": (("",), {403}),
    "/v1/admin/tenants/{id}": (("acme",), {403}),
    "/v1/admin/tenants/{id}/storage": (("acme",), {403}),
    "/v1/admin/tenants/{id}/limits": (("acme",), {403}),
    "/v1/admin/projects": (("", "?tenant=acme"), {403}),
    "/v1/admin/keys": (("", "?tenant=acme"), {403}),
    "/v1/admin/keys/{id}": (("acmekey00001",), {403}),
    "/v1/admin/keys/{id}/limits": (("acmekey00001",), {403}),
    "/v1/admin/budgets": (("", "?tenant=acme"), {403}),
    "/v1/admin/budgets/{tenant}/{id}": (("any",), {403}),
    "/v1/admin/ledger/audit": (("",), {403}),
    "/v1/admin/ledger/calls": (("",), {403}),
    "/v1/admin/models/{name}/prices": (("sim",), {403}),
    "/v1/admin/scoreboard": (("", "?tenant=acme"), {403}),
    "/v1/admin/ranks": (("", "?tenant=acme"), {403}),
    "/v1/admin/gaps": (("", "?tenant=acme"), {403}),
    "/v1/admin/policies": (("", "?tenant=acme"), {403}),
    "/v1/admin/policies/{tenant}": (("acme",), {403}),
    "/v1/admin/evolution": (("",), {403}),
    "/v1/admin/evolution/{id}": (("cyc_0",), {403}),
    "/v1/admin/audit": (("", "?tenant=acme"), {403}),
    "/v1/admin/audit/verify": (("", "?tenant=acme"), {403}),
    "/v1/admin/audit/export": (("?tenant=acme",), {403}),
    "/v1/admin/tasks/{id}/ladder": (("{task}",), {403}),
    "/v1/admin/dead-letters": (("", "?tenant=acme"), {403}),
    "/v1/admin/dead-letters/{id}": (("1",), {403}),
    "/health/live": (("",), {200}),
    "/health/ready": (("",), {200}),
    "/metrics": (("",), {200}),
}
# What changes by id, asked for another's id: all of it meets nothing.
CHANGES = (
    ("POST", "/v1/tasks/{task}/cancel"),
    ("POST", "/v1/tasks/{task}/retry"),
    ("POST", "/v1/tasks/{task}/feedback"),
    ("POST", "/v1/tasks/{task}/input"),
    ("POST", "/v1/schedules/{schedule}/pause"),
    ("POST", "/v1/schedules/{schedule}/resume"),
    ("DELETE", "/v1/schedules/{schedule}"),
    ("DELETE", "/v1/documents/{document}"),
    ("DELETE", "/v1/memories/{memory}"),
    ("DELETE", "/v1/memories/grants/{grant}"),
    ("DELETE", "/v1/contexts/shared-name"),
    ("DELETE", "/v1/conversations/shared-name"),
    ("DELETE", "/v1/conversations/shared-name/turns/{task}"),
)
BODIES = {"/v1/tasks/{task}/feedback": {"score": 1.0}, "/v1/tasks/{task}/input": {"decision": "approve"}}
# What makes something of the asker's own and names nothing that stands.
MAKES = {
    ("post", "/v1/chat/completions"),
    ("post", "/v1/embeddings"),
    ("post", "/v1/tasks"),
    ("post", "/v1/schedules"),
    ("post", "/v1/webhooks/secret/rotate"),
}
GRPC_CASES = {
    "Tasks.Submit",
    "Tasks.Get",
    "Tasks.List",
    "Tasks.Cancel",
    "Tasks.Feedback",
    "Tasks.ProvideInput",
    "Tasks.Watch",
    "Chat.Complete",
    "Chat.Stream",
}


@pytest.fixture
async def theirs(stage: Stage) -> AsyncIterator[Theirs]:
    """What acme has; its prompts and answers, its tags and its schedule hold the canary."""
    stage.simulator.script(Rule(Behaviour(answer=f"answer {CANARY}")))
    async with stage.session() as http:
        chat = {
            "model": "sim",
            "messages": [{"role": "user", "content": f"hello {CANARY}"}],
            "collegium": {"conversation": "shared-name", "tags": {"who": CANARY}, "cache": "off"},
        }
        async with http.post("/v1/chat/completions", json=chat) as response:
            assert response.status == 200, await response.text()
            assert CANARY in await response.text()
        body = {"model": "sim", "input": f"task {CANARY}"}
        async with http.post("/v1/tasks", json=body, headers={"Prefer": "wait=20"}) as response:
            task = (await response.json())["id"]
        schedule = {"cron": "0 3 1 1 *", "name": CANARY, "task": {"model": "sim", "input": CANARY}}
        async with http.post("/v1/schedules", json=schedule) as response:
            assert response.status == 201, await response.text()
            schedule_id = (await response.json())["id"]
        document_id = "doc-of-acme-7f3a"
        document = {"id": document_id, "content": f"Orchids bloom {CANARY}.", "title": CANARY, "tags": [CANARY]}
        async with http.post("/v1/documents", json=document, headers={"Prefer": "wait=60"}) as response:
            assert (await response.json())["state"] == "indexed", await response.text()
        async with http.put("/v1/search/profiles/shared-user", json={"tags": {CANARY: 2.0}}) as response:
            assert response.status == 200, await response.text()
        remembered = {"text": f"remembered {CANARY}", "path": "shared", "source": {"user": CANARY}}
        async with http.post("/v1/memories", json=remembered) as response:
            assert response.status in (200, 201), await response.text()
            memory = (await response.json())["id"]
        async with http.put("/v1/contexts/shared-name", json={"fields": {"said": CANARY}}) as response:
            assert response.status in (200, 201), await response.text()
        granted = {"reader": CANARY, "source": "shared"}
        async with http.post("/v1/memories/grants", json=granted) as response:
            assert response.status in (200, 201), await response.text()
            grant = (await response.json())["id"]
        async with http.put("/v1/memories/paths", json={"path": CANARY, "inherits": False}) as response:
            assert response.status == 200, await response.text()
        async with http.get("/v1/webhooks/secret") as response:
            secret = (await response.json())["secret"]

        async def listed() -> bool:
            async with http.get("/v1/tasks") as response:
                return task in await response.text()

        async def booked() -> bool:
            async with http.get("/v1/usage?group_by=tag") as response:
                return CANARY in await response.text()

        await eventually(listed)
        await eventually(booked)
    yield Theirs(task, schedule_id, secret, stage.key.split("-")[2], document_id, memory, grant)
    async with stage.session() as http, http.delete(f"/v1/schedules/{schedule_id}") as response:
        assert response.status in (200, 204), await response.text()


def leaks(text: str, theirs: Theirs) -> list[str]:
    return [one for one in (CANARY, *theirs) if one in text]


def test_every_get_route_has_a_case():
    paths = {path for path, operations in openapi.document()["paths"].items() if "get" in operations}
    assert set(GET_CASES) == paths, "say in GET_CASES what another tenant is answered on a new route"


def test_every_grpc_method_has_a_case():
    methods = {
        f"{service.name}.{method.name}"
        for file in (tasks_pb2.DESCRIPTOR, chat_pb2.DESCRIPTOR)
        for service in file.services_by_name.values()
        for method in service.methods
    }
    assert methods == GRPC_CASES, "try a new method as another tenant"
    walked = {one.full_name for one in walk.pb.DESCRIPTOR.services_by_name.values()}
    assert {*SERVICES} - walked == {"collegium.v1.Tasks", "collegium.v1.Chat"}, "try a new service as another tenant"


def changing() -> set[tuple[str, str]]:
    paths: dict[str, Any] = openapi.document()["paths"]
    return {(method, path) for path, methods in paths.items() for method in methods if method != "get"}


def test_every_route_that_changes_something_has_a_case():
    tried = {(method.lower(), re.sub(r"\{\w+\}", "{}", path)) for method, path in CHANGES}
    left = {
        (method, path)
        for method, path in changing() - MAKES
        if not path.startswith((*walk.ABOUT, "/v1/admin")) and (method, re.sub(r"\{\w+\}", "{}", path)) not in tried
    }
    assert left == set(), "say in CHANGES what becomes of another tenant's id, or in test_journey_walk.py"


async def test_no_administration_is_open_to_a_key_that_does_not_administrate(stage: Stage):
    async with stage.session(stage.other_key) as http:
        for method, path in sorted(changing()):
            if path.startswith("/v1/admin"):
                url = path.replace("{tenant}", "acme").replace("{name}", "sim").replace("{id}", "acme")
                async with http.request(method, url, json={}) as response:
                    assert response.status == 403, f"{method} {url}: {response.status} {await response.text()}"


async def test_no_get_route_shows_anything_of_another_tenant(stage: Stage, theirs: Theirs):
    cursor = await _cursor(stage)
    async with stage.session(stage.other_key) as http:
        for path, (wanted, allowed) in GET_CASES.items():
            for one in wanted:
                filled = one.format(**theirs._asdict(), cursor=cursor)
                own = path.replace("{tenant}", "acme").replace("{name}", "{id}").replace("{user}", "{id}")
                # What follows a path's id is asked for before the query.
                name, _, query = filled.partition("?")
                url = own.replace("{id}", name) + (f"?{query}" if query else "") if "{id}" in own else f"{own}{filled}"
                async with http.get(url) as response:
                    text = await response.text()
                    assert response.status in allowed, f"{url}: {response.status} {text}"
                    # The id that was asked for may stand in the refusal.
                    named = [name for name in ("task", "memory", "document") if f"{{{name}}}" in one]
                    asked = getattr(theirs, named[0]) if named else theirs.schedule
                    assert not leaks(text.replace(asked, "") if response.status == 404 else text, theirs), url


async def _cursor(stage: Stage) -> str:
    """A place in acme's own list, for the other tenant to try."""
    async with stage.session() as http, http.get("/v1/tasks?limit=1") as response:
        return (await response.json()).get("next_cursor") or ""


async def test_nothing_of_another_tenant_is_changed_by_its_id(stage: Stage, theirs: Theirs):
    async with stage.session(stage.other_key) as http:
        for method, path in CHANGES:
            url = path.format(**theirs._asdict())
            async with http.request(method, url, json=BODIES.get(path)) as response:
                assert response.status == 404, f"{method} {url}: {response.status} {await response.text()}"
    async with stage.session() as http, http.get(f"/v1/schedules/{theirs.schedule}") as response:
        shown = await response.json()
        assert (response.status, shown["state"]) == (200, "active")


async def test_a_search_finds_nothing_of_another_tenant(stage: Stage, theirs: Theirs):
    async with stage.session(stage.other_key) as http:
        for more in ({}, {"mode": "words"}, {"mode": "dense"}, {"filters": {"documents": [theirs.document]}}):
            body = {"query": f"orchids bloom {CANARY}", "user": "shared-user", "explain": True, **more}
            async with http.post("/v1/search", json=body) as response:
                found = await response.json()
                assert (response.status, found["data"]) == (200, []), found
        # The same id is another document.
        mine = {"id": theirs.document, "content": "Tulips."}
        async with http.post("/v1/documents", json=mine, headers={"Prefer": "wait=60"}) as response:
            assert (await response.json())["state"] == "indexed", await response.text()
        async with http.delete(f"/v1/documents/{theirs.document}") as response:
            assert response.status == 200, await response.text()
    async with stage.session() as http, http.post("/v1/search", json={"query": "orchids"}) as response:
        assert [one["document"] for one in (await response.json())["data"]] == [theirs.document]


async def test_a_conversation_of_the_same_name_is_another_one(stage: Stage, theirs: Theirs):
    stage.simulator.script()
    stage.simulator.reset()
    body = {"model": "sim", "messages": [{"role": "user", "content": "and now?"}]}
    body["collegium"] = {"conversation": "shared-name", "cache": "off"}  # pyright: ignore[reportArgumentType]
    async with stage.session(stage.other_key) as http, http.post("/v1/chat/completions", json=body) as response:
        assert response.status == 200
        assert not leaks(await response.text(), theirs)
        usage: dict[str, Any] = (await response.json())["usage"]
    assert usage["prompt_tokens"] < 8, "no turn of another tenant was put before the question"


async def test_no_grpc_method_shows_anything_of_another_tenant(stage: Stage, theirs: Theirs):
    metadata = (("authorization", f"Bearer {stage.other_key}"),)
    stage.simulator.script()
    asked = chat_pb2.ChatRequest(model="sim", messages=[chat_pb2.ChatMessage(role="user", content="hello")])
    async with grpc.aio.insecure_channel(stage.platform.ready["grpc"]) as channel:
        tasks, chats = TasksStub(channel), ChatStub(channel)
        for ask in (
            lambda: tasks.Get(tasks_pb2.GetRequest(id=theirs.task), metadata=metadata),
            lambda: tasks.Cancel(tasks_pb2.CancelRequest(id=theirs.task), metadata=metadata),
            lambda: tasks.Feedback(tasks_pb2.FeedbackRequest(id=theirs.task, score=1), metadata=metadata),
            lambda: tasks.ProvideInput(
                tasks_pb2.ProvideInputRequest(id=theirs.task, decision="approve"), metadata=metadata
            ),
            lambda: tasks.Watch(tasks_pb2.WatchRequest(id=theirs.task), metadata=metadata).read(),
        ):
            with pytest.raises(grpc.aio.AioRpcError) as error:
                await ask()
            assert error.value.code() == grpc.StatusCode.NOT_FOUND
            assert not leaks(str(error.value).replace(theirs.task, ""), theirs)
        shown = [
            await tasks.List(tasks_pb2.ListRequest(limit=200), metadata=metadata),
            await tasks.Submit(tasks_pb2.SubmitRequest(model="sim", input="hi", wait_seconds=10), metadata=metadata),
            await chats.Complete(asked, metadata=metadata),
        ]
        shown += [chunk async for chunk in chats.Stream(asked, metadata=metadata)]
    for message in shown:
        assert not leaks(str(message), theirs)


async def test_the_canary_is_found_where_it_belongs(stage: Stage, theirs: Theirs):
    """Without this, a walk that sees nothing anywhere would pass."""
    async with stage.session() as http:
        memory = (f"/v1/memories/{theirs.memory}", "/v1/memories", "/v1/memories/paths", "/v1/memories/grants")
        kept = ("/v1/documents", "/v1/contexts/shared-name", "/v1/conversations/shared-name")
        for url in (
            *memory,
            *kept,
            f"/v1/tasks/{theirs.task}",
            "/v1/tasks",
            "/v1/schedules",
            "/v1/usage?group_by=tag",
            "/v1/requests",
        ):
            assert CANARY in await _text(http, url), url


async def _text(http: aiohttp.ClientSession, url: str) -> str:
    async with http.get(url) as response:
        return await response.text()
