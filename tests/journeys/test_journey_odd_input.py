"""What no name, number or time may be, at every door: a typed refusal, and a connection that goes on."""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import aiohttp
import grpc
import grpc.aio
import pytest
from collegium_gateway.http import openapi
from collegium_protocol.v1 import memory_pb2, tasks_pb2
from collegium_protocol.v1.memory_pb2_grpc import MemoriesStub
from collegium_protocol.v1.tasks_pb2_grpc import TasksStub
from collegium_testing.platforms import PlatformProcess
from yarl import URL

from tests.journeys.town import KEYS

pytestmark = pytest.mark.timeout(180)

NUL = "a\0b"
BIG = 2**64
HUGE = 10**300


class Caller:
    """One connection with a key; whatever closes it is seen."""

    def __init__(self, base: str, session: aiohttp.ClientSession) -> None:
        self._base = base
        self._session = session
        self.connections = 0

    async def __call__(self, method: str, path: str, body: Any = None) -> tuple[int, dict[str, Any]]:
        data = json.dumps(body).encode() if body is not None else None
        url = URL(f"{self._base}{path}", encoded=True)
        async with self._session.request(method, url, data=data) as response:
            text = await response.read()
            content = json.loads(text) if "json" in response.headers.get("content-type", "") else {}
            return response.status, content.get("error", {}) if isinstance(content, dict) else {}


@contextlib.asynccontextmanager
async def calling(platform: PlatformProcess, key: str) -> AsyncIterator[Caller]:
    tracing, callers = aiohttp.TraceConfig(), list[Caller]()

    async def opened(*_: Any) -> None:
        callers[0].connections += 1

    tracing.on_connection_create_end.append(opened)
    headers = {"Authorization": f"Bearer {key}", "Content-Type": "application/json"}
    connector = aiohttp.TCPConnector(limit=1)
    async with aiohttp.ClientSession(headers=headers, connector=connector, trace_configs=[tracing]) as session:
        callers.append(Caller(platform.http, session))
        yield callers[0]


@pytest.fixture
async def callers(town: PlatformProcess) -> AsyncIterator[dict[str, Caller]]:
    async with calling(town, town.admin_key) as operator, calling(town, KEYS["timed"]) as tenant:
        yield {"operator": operator, "tenant": tenant}


@pytest.fixture
def tenant(callers: dict[str, Caller]) -> Caller:
    return callers["tenant"]


def parameters() -> list[tuple[str, str, str]]:
    """Every method and path of the document with NUL in one place: (method, path, what holds it)."""
    found: list[tuple[str, str, str]] = []
    for path, methods in openapi.document()["paths"].items():
        for method, operation in methods.items():
            filled = re.sub(r"{\w+}", "x", path)
            for one in operation.get("parameters", ()):
                name = one["name"]
                if one["in"] == "path":
                    given = re.sub(r"{\w+}", "x", path.replace("{" + name + "}", "%00"))
                    found.append((method.upper(), given, name))
                    found.append((method.upper(), given.replace("%00", "x%00y"), name))
                elif one["in"] == "query":
                    found.append((method.upper(), f"{filled}?{name}=%00", name))
                    found.append((method.upper(), f"{filled}?{name}=x%00", name))
    return found


@pytest.mark.parametrize("who", ["operator", "tenant"])
async def test_nul_in_a_path_or_a_query_is_refused_at_every_route(callers: dict[str, Caller], who: str):
    call = callers[who]
    asked = parameters()
    assert len(asked) > 250
    for method, path, name in asked:
        body = {} if method in ("POST", "PUT", "PATCH") else None
        status, error = await call(method, path, body)
        assert status in (400, 401, 403, 404, 405), (method, path, status, error)
        assert error["code"], (method, path)
        if status == 400:
            assert error["param"] == ("key_id" if path.startswith("/v1/admin/keys/") else name)
    assert call.connections == 1, "no refusal costs the connection"


async def test_other_control_characters_are_refused_in_paths_and_lines_are_text_in_queries(tenant: Caller):
    for path in ("/v1/memories?path=%1B", "/v1/tasks?%00=1"):
        status, error = await tenant("GET", path)
        assert (status, error["code"]) == (400, "invalid_value"), path
    for path in ("/v1/tasks/a%0Ab/webhook", "/v1/memories/%7F", "/v1/contexts/%00"):
        assert (await tenant("GET", path))[0] == 404, path
        assert (await tenant("DELETE", path.removesuffix("/webhook")))[0] in (400, 405), path
    assert (await tenant("GET", "/v1/memories/x?question=a%0Ab%09c"))[0] == 404


NAMES: list[tuple[str, str, str, Any, str | None]] = [
    ("tenant", "POST", "/v1/memories", {"text": "x", "path": "p", "kind": NUL}, "kind"),
    ("tenant", "POST", "/v1/memories", {"text": "x", "path": "p", "source": {"user": NUL}}, "source.user"),
    ("tenant", "POST", "/v1/memories/recall", {"question": "x", "kinds": ["a", NUL]}, "kinds[1]"),
    ("tenant", "POST", "/v1/documents", {"content": "x", "tags": [NUL]}, "tags[0]"),
    ("tenant", "POST", "/v1/documents", {"content": "x", "id": NUL}, "id"),
    ("tenant", "POST", "/v1/search", {"query": "x", "filters": {"tags": [NUL]}}, "filters.tags[0]"),
    ("tenant", "POST", "/v1/tasks", {"input": "x", "model": "sim", "tags": {"a": NUL}}, "tags.a"),
    ("tenant", "POST", "/v1/tasks", {"input": "x", "model": "sim", "tags": {NUL: "a"}}, "tags"),
    ("tenant", "POST", "/v1/tasks", {"input": "x", "model": "sim", "domain": NUL}, "domain"),
    ("tenant", "POST", "/v1/schedules", {"cron": "@daily", "name": NUL, "task": {"input": "x"}}, "name"),
    (
        "tenant", "POST", "/v1/chat/completions",
        {"model": "sim", "messages": [{"role": "user", "content": "x"}], "collegium": {"domain": NUL}},
        "collegium.domain",
    ),
    ("operator", "POST", "/v1/admin/approvals/claim", {"queues": [NUL]}, "queues[0]"),
    ("operator", "POST", "/v1/admin/students", {"domain": NUL}, "domain"),
    ("operator", "POST", "/v1/admin/students/register", {"export": NUL}, None),
    ("operator", "POST", "/v1/admin/keys", {"tenant": "timed", "name": NUL}, "name"),
    ("operator", "PUT", "/v1/admin/tenants/timed/gates", {"gates": [NUL]}, "gates[0]"),
    ("operator", "PUT", "/v1/admin/flags/n-1", {"kind": "plan", "change": {}, "domain": NUL}, "domain"),
]  # fmt: skip


@pytest.mark.parametrize(("who", "method", "path", "body", "param"), NAMES)
async def test_nul_in_a_name_of_a_body_is_refused(
    callers: dict[str, Caller], who: str, method: str, path: str, body: Any, param: str | None
):
    status, error = await callers[who](method, path, body)
    assert (status, error["code"]) == (400, "invalid_value"), error
    if param is not None:
        assert error["param"] == param


async def test_what_people_write_may_hold_nul(tenant: Caller):
    messages = [{"role": "user", "content": NUL}]
    assert (await tenant("POST", "/v1/chat/completions", {"model": "sim", "messages": messages}))[0] == 200
    assert (await tenant("POST", "/v1/tasks", {"model": "sim", "input": NUL}))[0] == 202
    assert (await tenant("POST", "/v1/memories", {"text": NUL, "path": "nul"}))[0] == 201
    assert (await tenant("PUT", "/v1/contexts/nul", {"fields": {"a": NUL}}))[0] in (200, 201)


async def test_nul_over_grpc_is_refused_too(town: PlatformProcess):
    metadata = (("authorization", f"Bearer {KEYS['timed']}"),)
    async with grpc.aio.insecure_channel(town.ready["grpc"]) as channel:
        tasks, memories = TasksStub(channel), MemoriesStub(channel)
        calls: list[tuple[Callable[..., Awaitable[Any]], Any]] = [
            (tasks.Get, tasks_pb2.GetRequest(id=NUL)),
            (tasks.List, tasks_pb2.ListRequest(cursor="MS4A")),
            (tasks.List, tasks_pb2.ListRequest(cursor="OTk5OTk5OTk5OTk5OTk5OTk5OTk5OTk5LnRza194")),
            (tasks.Cancel, tasks_pb2.CancelRequest(id=NUL)),
            (tasks.Feedback, tasks_pb2.FeedbackRequest(id=NUL, score=1)),
            (tasks.ProvideInput, tasks_pb2.ProvideInputRequest(id=NUL, decision="approve", question=NUL)),
            (tasks.Submit, tasks_pb2.SubmitRequest(input="x", model="sim", domain=NUL)),
            (memories.Remember, memory_pb2.RememberRequest(text="x", path="p", kind=NUL)),
            (memories.Recall, memory_pb2.RecallRequest(question="x", path="p", kinds=[NUL])),
            (memories.Correct, memory_pb2.CorrectRequest(id=NUL, text="x")),
            (memories.Forget, memory_pb2.ForgetRequest(id=NUL)),
            (memories.Forget, memory_pb2.ForgetRequest(path=NUL)),
            (memories.Explain, memory_pb2.ExplainRequest(id=NUL)),
            (memories.List, memory_pb2.ListMemoriesRequest(path="p", cursor=NUL)),
        ]
        for method, request in calls:
            with pytest.raises(grpc.aio.AioRpcError) as error:
                await method(request, metadata=metadata)
            assert error.value.code() in (grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.NOT_FOUND), request


NUMBERS: list[tuple[str, str, str, Any, int]] = [
    ("tenant", "PUT", "/v1/contexts/n1", {"fields": {}, "expected_version": BIG}, 400),
    ("tenant", "PATCH", "/v1/contexts/n1", {"fields": {}, "expected_version": BIG}, 400),
    ("tenant", "PUT", "/v1/contexts/n1", {"fields": {}, "expected_version": 2**63}, 409),
    ("tenant", "PUT", "/v1/contexts/n1", {"fields": {"a": [{"b": HUGE}]}}, 400),
    ("tenant", "DELETE", f"/v1/contexts/n1?expected_version={BIG}", None, 400),
    ("tenant", "GET", f"/v1/contexts/n1?version={BIG}", None, 400),
    ("tenant", "GET", "/v1/contexts/n1?version=999999999999", None, 404),
    ("tenant", "GET", "/v1/conversations/n1?cursor=999999999999", None, 200),
    ("tenant", "POST", "/v1/memories/recall", {"question": "x", "limit": BIG}, 400),
    ("tenant", "POST", "/v1/memories/recall", {"question": "x", "max_tokens": HUGE}, 400),
    ("tenant", "POST", "/v1/documents", {"content": "x y q1", "fields": {"k": HUGE}}, 400),
    ("tenant", "POST", "/v1/documents", {"content": "x y q1", "fields": {"k": -HUGE}}, 400),
    ("tenant", "PUT", "/v1/documents/n1", {"content": "x y q1", "fields": {"k": BIG}}, 400),
    ("tenant", "POST", "/v1/search", {"query": "x", "filters": {"fields": {"k": HUGE}}}, 400),
    ("tenant", "POST", "/v1/search", {"query": "x", "limit": HUGE}, 400),
    ("tenant", "POST", "/v1/tasks", {"input": "x", "model": "sim", "max_tokens": HUGE}, 400),
    ("tenant", "POST", "/v1/tasks", {"input": "x", "model": "sim", "seed": BIG}, 400),
    ("tenant", "POST", "/v1/tasks", {"input": "x", "model": "sim", "panel_size": HUGE}, 400),
    ("operator", "PUT", "/v1/admin/flags/n-1", {"kind": "plan", "change": {"members": BIG}, "tenant": "timed"}, 400),
    ("operator", "PUT", "/v1/admin/tenants/timed/gates", {"gates": [], "verified": {"age": BIG}}, 400),
    ("operator", "POST", "/v1/admin/dead-letters/requeue", {"ids": [HUGE], "dry_run": True}, 400),
    ("operator", "GET", "/v1/admin/dead-letters?since=9999-12-31T23:59:59-23:59", None, 200),
    ("operator", "GET", "/v1/admin/dead-letters?since=0001-01-01T00:00:00%2B23:59", None, 200),
    ("operator", "GET", "/v1/admin/audit?from=9999-12-31T23:59:59-23:59", None, 200),
    ("operator", "GET", "/v1/admin/audit?to=0001-01-01T00:00:00%2B23:59", None, 200),
    ("operator", "GET", "/v1/admin/audit?tenant=timed&from=9999-12-31T23:59:59-23:59&to=9999-01-01", None, 200),
    ("operator", "GET", "/v1/admin/gates/report?to=9999-12-31T23:59:59-23:59", None, 200),
    ("operator", "GET", "/v1/admin/ledger/calls?from=9999-12-31T23:59:59-23:59", None, 400),
    ("tenant", "GET", "/v1/requests?from=9999-12-31T23:59:59-23:59", None, 400),
    ("tenant", "GET", "/v1/usage?to=9999-12-31T23:59:59-23:59", None, 400),
    ("tenant", "GET", "/v1/tasks?since=9999-12-31T23:59:59-23:59", None, 200),
]


@pytest.mark.parametrize(("who", "method", "path", "body", "expected"), NUMBERS)
async def test_numbers_and_times_beyond_any_store_are_refused_or_match_nothing(
    callers: dict[str, Caller], who: str, method: str, path: str, body: Any, expected: int
):
    status, error = await callers[who](method, path, body)
    assert status == expected, error
    if expected == 400:
        assert error["code"] == "invalid_value"
