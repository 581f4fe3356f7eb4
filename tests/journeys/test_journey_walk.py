"""Every read and write path of memory, documents, search and cache, walked by a tenant that has nothing there.

What it asks is taken from the routes, the methods of gRPC, and the subjects that context answers: a new one of these
without a case fails. Meanwhile the questions are tapped on the broker, and each must be the walker's own.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, NamedTuple

import aiohttp
import grpc
import grpc.aio
import msgspec
import pytest
from collegium_bus.ask import ask
from collegium_bus.connection import Connection, connect
from collegium_bus.errors import RequestRefusedError
from collegium_contracts import journey
from collegium_contracts import memory_requests as q
from collegium_contracts import subjects as s
from collegium_contracts.envelope import Envelope
from collegium_contracts.knowledge import DocumentList, DocumentsReply, KnowledgeVersionGet, KnowledgeVersionReply
from collegium_contracts.likeness import LikenessStats, LikenessStatsReply
from collegium_contracts.policy_requests import FeaturesReply, FeaturesRequest
from collegium_gateway.http import openapi
from collegium_protocol.v1 import memory_pb2 as pb
from collegium_protocol.v1.memory_pb2_grpc import MemoriesStub
from collegium_testing import Behaviour, Rule, eventually

from tests.journeys.conftest import Knowing

pytestmark = pytest.mark.timeout(240)
CANARY = "walk-canary-51c7"
ABOUT = ("/v1/documents", "/v1/search", "/v1/cache", "/v1/memories", "/v1/contexts", "/v1/conversations")
QUESTION = "How does one water an orchid in a clay pot?"
# Context asks itself; the worker asks for vectors of what it was given to embed.
OWN = ("svc.vectors.",)
# What is every tenant's, and shown to operators alone: test_journey_isolation.py tries its routes.
OF_OPERATORS = {s.SVC_KNOWLEDGE_GENERATIONS}


class Case(NamedTuple):
    """What is asked of a route, and what may be answered."""

    path: str
    statuses: set[int]
    body: Any = None
    key: str = "globex"


GRANT = {"reader": "mine", "source": "shared"}
MINE = {"id": "{document}", "content": "Tulips stand in rows."}
# In this order; by method and route.
CASES: dict[tuple[str, str], list[Case]] = {
    ("post", "/v1/documents"): [Case("", {200, 202}, MINE)],
    ("put", "/v1/documents/{id}"): [Case("/{document}", {200, 202}, {"content": "Tulips stand in beds."})],
    ("get", "/v1/documents"): [Case("", {200}), Case("?limit=200&state=indexed", {200})],
    ("get", "/v1/documents/{id}"): [Case("/{document}", {200}), Case("/{second}", {404})],
    ("get", "/v1/documents/{id}/events"): [Case("/{second}/events", {404})],
    ("delete", "/v1/documents/{id}"): [Case("/{document}", {200}), Case("/{second}", {404})],
    ("post", "/v1/search"): [
        Case("", {200}, {"query": f"orchids bloom {CANARY}", "user": "walked", "explain": True, **more})
        for more in ({}, {"mode": "words"}, {"mode": "dense"}, {"filters": {"documents": ["{document}", "{second}"]}})
    ],
    ("get", "/v1/search/profiles/{user}"): [Case("/profiles/walked", {404})],
    ("put", "/v1/search/profiles/{user}"): [Case("/profiles/walked", {200}, {"tags": {"x": 2.0}})],
    ("delete", "/v1/search/profiles/{user}"): [Case("/profiles/walked", {200})],
    ("get", "/v1/cache"): [
        Case("", {200}, key="globex-admin"),
        Case("?tenant=acme", {403}, key="globex-admin"),
        Case("", {403}),
    ],
    ("delete", "/v1/cache"): [
        Case("?tenant=acme", {403}, key="globex-admin"),
        Case("", {200}, key="globex-admin"),
        Case("", {403}),
    ],
    ("post", "/v1/memories"): [Case("", {201}, {"text": "The walker was here.", "path": "shared"})],
    ("get", "/v1/memories"): [Case("?path=/&forgotten=true", {200}), Case("?path=shared&cursor={memory}", {200})],
    ("post", "/v1/memories/recall"): [
        Case("/recall", {200}, {"question": f"what was remembered {CANARY}", "path": path})
        for path in ("/", "shared", "mine")
    ],
    ("get", "/v1/memories/paths"): [Case("/paths", {200})],
    ("put", "/v1/memories/paths"): [Case("/paths", {200}, {"path": "shared", "off": True})],
    ("get", "/v1/memories/grants"): [Case("/grants", {200})],
    ("post", "/v1/memories/grants"): [Case("/grants", {201}, GRANT)],
    ("delete", "/v1/memories/grants/{id}"): [Case("/grants/{grant}", {404})],
    ("get", "/v1/memories/{id}"): [Case("/{memory}", {404})],
    ("get", "/v1/memories/{id}/explain"): [Case("/{memory}/explain?question=hello&path=/&task={task}", {404})],
    ("post", "/v1/memories/{id}/correct"): [Case("/{memory}/correct", {404}, {"text": "no"})],
    ("delete", "/v1/memories/{id}"): [Case("/{memory}", {404})],
    ("delete", "/v1/memories"): [Case("?path=shared", {200}), Case("?path=/", {200})],
    ("get", "/v1/contexts"): [Case("?limit=200", {200})],
    ("get", "/v1/contexts/{id}"): [Case("/walked", {404}), Case("/walked?version=1", {404})],
    ("get", "/v1/contexts/{id}/versions"): [Case("/walked/versions", {404})],
    ("put", "/v1/contexts/{id}"): [
        Case("/walked", {409}, {"fields": {}, "expected_version": 1}),
        Case("/walked", {201}, {"fields": {"said": "mine"}, "expected_version": 0}),
    ],
    ("patch", "/v1/contexts/{id}"): [Case("/walked", {200}, {"fields": {"more": 1}})],
    ("delete", "/v1/contexts/{id}"): [Case("/walked", {200})],
    ("get", "/v1/conversations"): [Case("?limit=200", {200})],
    ("get", "/v1/conversations/{id}"): [Case("/walked", {404})],
    ("delete", "/v1/conversations/{id}/turns/{task}"): [Case("/walked/turns/{task}", {404})],
    ("delete", "/v1/conversations/{id}"): [Case("/walked", {404})],
}
# What is not about context by its route, and asks context all the same: each of these is walked below.
CHATS = [
    {"messages": [{"role": "user", "content": "and now?"}], "collegium": {"conversation": "walked", "cache": "off"}},
    {
        "messages": [{"role": "user", "content": "What was remembered?"}],
        "collegium": {"memory": "shared", "cache": "off"},
    },
    {"messages": [{"role": "user", "content": f"{QUESTION} Please."}], "collegium": {"cache": "use"}},
    {"messages": [{"role": "user", "content": QUESTION}], "collegium": {"cache": "exact"}},
]
GRPC = {
    "Remember": pb.RememberRequest(text="The walker was here too.", path="walked"),
    "Recall": pb.RecallRequest(question=f"what was remembered {CANARY}", path="shared"),
    "Correct": pb.CorrectRequest(id="{memory}", text="no"),
    "Forget": pb.ForgetRequest(id="{memory}"),
    "Explain": pb.ExplainRequest(id="{memory}", question="hello", task="{task}"),
    "List": pb.ListMemoriesRequest(path="/", forgotten=True),
}
GRPC_MISSING = {"Correct", "Forget", "Explain"}


class Theirs(NamedTuple):
    """What acme has, by ids that may be guessed."""

    document: str
    second: str
    memory: str
    grant: str
    task: str


def answered_by_context() -> set[str]:
    """Every subject that context answers, from the contracts."""
    filters = [one.subject for one in journey.ASKS if one.answerer == "context"]
    names = {value for name, value in vars(s).items() if name.startswith("SVC_") and isinstance(value, str)}
    prefixes = tuple(one.rstrip("*>") for one in filters if not one.startswith(OWN))
    return {name for name in names if name.startswith(prefixes) and not name.endswith(("*", ">"))}


def test_every_route_about_context_has_a_case():
    paths: dict[str, Any] = openapi.document()["paths"]
    routes = {(method, path) for path, methods in paths.items() if path.startswith(ABOUT) for method in methods}
    assert set(CASES) == routes, "say in CASES what another tenant is answered on a new route"


def test_every_method_about_memory_has_a_case():
    methods = {method.name for one in pb.DESCRIPTOR.services_by_name.values() for method in one.methods}
    assert set(GRPC) == methods, "try a new method as another tenant"


@pytest.fixture
async def theirs(knowing: Knowing) -> Theirs:
    """Acme has something of everything, with the canary in it."""
    knowing.simulator.script(Rule(Behaviour(answer=f"Water it weekly {CANARY}.")))
    async with knowing.session() as http:
        for number, document in enumerate(("walked-doc", "walked-doc-2")):
            body = {"id": document, "content": f"Orchids bloom {number} {CANARY}.", "title": CANARY, "tags": [CANARY]}
            made = await call(http, "POST", "/v1/documents", body, {"Prefer": "wait=60"})
            assert made["state"] == "indexed", made
        await call(http, "PUT", "/v1/search/profiles/walked", {"tags": {CANARY: 2.0}})
        memory = await call(http, "POST", "/v1/memories", {"text": f"remembered {CANARY}", "path": "shared"})
        grant = await call(http, "POST", "/v1/memories/grants", {"reader": "mine", "source": "shared"})
        await call(http, "PUT", "/v1/memories/paths", {"path": f"of-{CANARY}", "inherits": False})
        await call(http, "PUT", "/v1/contexts/walked", {"fields": {"said": CANARY}})
        said = {"model": "sim", "messages": [{"role": "user", "content": f"hello {CANARY}"}]}
        options = {"conversation": "walked", "cache": "off"}
        told = await call(http, "POST", "/v1/chat/completions", {**said, "collegium": options})
        asked = {"model": "sim", "messages": [{"role": "user", "content": QUESTION}], "collegium": {"cache": "use"}}
        await call(http, "POST", "/v1/chat/completions", asked)
    async with knowing.session("acme-admin") as admin, knowing.session() as http:

        async def kept() -> bool:
            return (await call(admin, "GET", "/v1/cache"))["semantic"]["entries"] >= 1

        async def settled() -> bool:
            shown = (await call(http, "GET", "/v1/memories?path=/&forgotten=true&limit=200"))["data"]
            return all(one["indexed"] for one in shown)

        await eventually(kept)
        # What is shown changes by itself until the search knows of it.
        await eventually(settled)
    knowing.simulator.script()
    knowing.simulator.reset()
    return Theirs("walked-doc", "walked-doc-2", memory["id"], grant["id"], told["collegium"]["task_id"])


async def call(http: aiohttp.ClientSession, method: str, url: str, body: Any = None, headers: Any = None) -> Any:
    async with http.request(method, url, json=body, headers=headers) as response:
        assert response.status < 300, f"{method} {url}: {response.status} {await response.text()}"
        return await response.json()


def filled(value: Any, theirs: Theirs) -> Any:
    """Puts acme's ids where a case names them."""
    text = msgspec.json.encode(value).decode()
    for name, one in theirs._asdict().items():
        text = text.replace(f"{{{name}}}", one)
    return msgspec.json.decode(text)


async def shown_to_acme(knowing: Knowing, theirs: Theirs) -> dict[str, str]:
    """What every read path shows to whom it belongs."""
    found: dict[str, str] = {}
    async with knowing.session() as http, knowing.session("acme-admin") as admin:
        for (method, route), cases in CASES.items():
            for case in cases:
                if method != "get" or "=acme" in case.path or route.endswith("/events"):
                    continue
                url = base_of(route) + filled(case.path, theirs)
                async with (admin if route == "/v1/cache" else http).get(url) as response:
                    found[url] = f"{response.status} {await response.text()}"
        for mode in ("words", "dense", "hybrid"):
            # What was found before is kept; of another mode nothing is.
            body = {"query": "orchids bloom", "mode": mode}
            found[mode] = str((await call(http, "POST", "/v1/search", body))["data"])
        recalled = await call(http, "POST", "/v1/memories/recall", {"question": "remembered", "path": "mine"})
        found["recall"] = str([one["text"] for one in recalled["data"]])
    return found


def base_of(route: str) -> str:
    return next(one for one in ABOUT if route.startswith(one))


@asynccontextmanager
async def tapped(knowing: Knowing) -> AsyncIterator[list[tuple[str, str]]]:
    """Takes down the questions that context is asked: subject and tenant."""
    seen: list[tuple[str, str]] = []
    runtime = knowing.runtime
    seed = Path(runtime["credentials"]["operator"]).read_text().strip()  # noqa: ASYNC240 - a test's own file
    connection = await connect(runtime["nats"], "operator", nkey_seed=seed)

    def take(subject: bytes, _reply: bytes, payload: bytes, _headers: bytes | None) -> None:
        seen.append((subject.decode(), msgspec.msgpack.decode(payload)["tenant"]))

    for one in journey.ASKS:
        if one.answerer == "context" and not one.subject.startswith(OWN):
            connection.client.subscribe_raw(one.subject, take)
    try:
        await connection.flush()
        yield seen
        await connection.flush()
    finally:
        await connection.close()


async def test_no_path_of_context_shows_or_changes_anything_of_another_tenant(knowing: Knowing, theirs: Theirs):
    before = await shown_to_acme(knowing, theirs)
    assert all(CANARY in before[f"/v1/{one}"] for one in ("documents/walked-doc", "contexts/walked"))
    assert CANARY in before["recall"], "what is not there cannot be looked for in vain"
    assert all(CANARY in before[mode] for mode in ("words", "dense", "hybrid"))
    async with tapped(knowing) as questions:
        await _walk_http(knowing, theirs)
        await _walk_grpc(knowing, theirs)
        await _walk_chats(knowing)
        await _ask_directly(knowing)
    assert {tenant for _, tenant in questions} == {"globex"}, "every question was the walker's own"
    missing = answered_by_context() - OF_OPERATORS - {subject for subject, _ in questions}
    assert not missing, "walk what asks these, too"
    after = await shown_to_acme(knowing, theirs)
    assert {url: text for url, text in after.items() if text != before[url]} == {}


async def _walk_http(knowing: Knowing, theirs: Theirs) -> None:
    for (method, route), cases in CASES.items():
        for case in cases:
            url = base_of(route) + filled(case.path, theirs)
            headers = {"Prefer": "wait=60"} if route.startswith("/v1/documents") else {}
            async with (
                knowing.session(case.key) as http,
                http.request(method, url, json=filled(case.body, theirs), headers=headers) as response,
            ):
                text = await response.text()
            assert response.status in case.statuses, f"{method} {url}: {response.status} {text}"
            assert CANARY not in text, f"{method} {url}: {text}"


async def _walk_grpc(knowing: Knowing, theirs: Theirs) -> None:
    metadata = (("authorization", f"Bearer {knowing.keys['globex']}"),)
    async with grpc.aio.insecure_channel(knowing.platform.ready["grpc"]) as channel:
        stub = MemoriesStub(channel)
        for name, request in GRPC.items():
            for field, value in list(request.ListFields()):
                if isinstance(value, str):
                    setattr(request, field.name, filled(value, theirs))
            code = grpc.StatusCode.OK
            try:
                text = str(await getattr(stub, name)(request, metadata=metadata))
            except grpc.aio.AioRpcError as error:
                code, text = error.code(), str(error)
            assert code is (grpc.StatusCode.NOT_FOUND if name in GRPC_MISSING else grpc.StatusCode.OK), text
            assert CANARY not in text, f"{name}: {text}"


async def _walk_chats(knowing: Knowing) -> None:
    async with knowing.session("globex") as http:
        for body in CHATS:
            answer = await call(http, "POST", "/v1/chat/completions", {"model": "sim", **body})
            assert CANARY not in str(answer)
            assert not str(answer["collegium"].get("cache")).startswith("hit")
        await call(http, "POST", "/v1/embeddings", {"model": "auto", "input": [QUESTION]})
        await call(http, "DELETE", "/v1/conversations/walked")
    told = [message for request in knowing.simulator.counts().requests for message in request.messages]
    assert len(told) == len(CHATS), "no turn and no memory of another tenant was put before a question"

    async def kept() -> bool:
        async with knowing.session("globex-admin") as admin:
            return (await call(admin, "GET", "/v1/cache"))["semantic"]["entries"] >= 1

    await eventually(kept)


async def _ask_directly(knowing: Knowing) -> None:
    """What no route asks yet, asked as the services would that may."""
    async with as_gateway(knowing) as connection:
        question = KnowledgeVersionGet(tenant="globex")
        version = await ask(connection, s.SVC_KNOWLEDGE_VERSION, question, KnowledgeVersionReply, timeout_seconds=10)
        assert version.version > 0, "the walker's own document came and went"
    async with as_gateway(knowing, "router") as connection:
        # A prompt that is another's is sealed with a key that opens nothing of the walker's.
        strange = FeaturesRequest(tenant="globex", prompt=Envelope("dk-of-acme", b"", b"[]"))
        with pytest.raises(RequestRefusedError, match="key"):
            await ask(connection, s.SVC_CONTEXT_FEATURES, strange, FeaturesReply, timeout_seconds=10)


@asynccontextmanager
async def as_gateway(knowing: Knowing, service: str = "gateway") -> AsyncIterator[Connection]:
    seed = Path(knowing.runtime["credentials"][service]).read_text().strip()  # noqa: ASYNC240 - a test's own file
    connection = await connect(knowing.runtime["nats"], service, nkey_seed=seed)
    try:
        yield connection
    finally:
        await connection.close()


async def test_what_is_no_tenant_is_told_nothing(knowing: Knowing):
    async with as_gateway(knowing) as connection:
        for tenant in ("*", ">", "", "acme.globex", "ACME", "acme%", "a" * 41):
            for subject, question, reply in (
                (s.SVC_KNOWLEDGE_VERSION, KnowledgeVersionGet(tenant=tenant), KnowledgeVersionReply),
                (s.SVC_MEMORY_PATH_LIST, q.MemoryPathList(tenant=tenant), q.MemoryShown),
                (s.SVC_LIKENESS_STATS, LikenessStats(tenant=tenant), LikenessStatsReply),
                (s.SVC_KNOWLEDGE_DOCUMENT_LIST, DocumentList(tenant=tenant), DocumentsReply),
            ):
                with pytest.raises(RequestRefusedError, match="tenant"):
                    await ask(connection, subject, question, reply, timeout_seconds=10)
