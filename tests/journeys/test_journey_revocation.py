"""A key that was revoked, and a token of a tenant that was suspended, open no door of any gateway a second later."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import AsyncExitStack
from typing import Any, NamedTuple

import aiohttp
import grpc.aio
import jwt
import pytest
from collegium_protocol.v1.chat_pb2 import ChatMessage, ChatRequest
from collegium_protocol.v1.chat_pb2_grpc import ChatStub
from collegium_protocol.v1.tasks_pb2 import SubmitRequest
from collegium_protocol.v1.tasks_pb2_grpc import TasksStub
from collegium_testing import eventually
from collegium_testing.platforms import PlatformProcess

from tests.journeys.town import ISSUER_FOR_ALL, SIGNING

pytestmark = pytest.mark.timeout(180)

CHAT = "/v1/chat/completions"
BOUND_SECONDS = 1.0
WATCHED_SECONDS = 2.5
PAUSE_SECONDS = 0.05
MESSAGES = [{"role": "user", "content": "hi"}]

Call = Callable[[], Awaitable[bool]]


class Gateway(NamedTuple):
    """The addresses of one replica."""

    http: str
    grpc: str


class Try(NamedTuple):
    """One request: when it was sent (seconds of the monotonic clock), and whether it was let in."""

    sent_at: float
    let_in: bool


@pytest.fixture(scope="module")
def platform(town: PlatformProcess) -> PlatformProcess:
    return town


@pytest.fixture(scope="module")
def gateways(platform: PlatformProcess) -> Iterator[list[Gateway]]:
    with platform.serving("gateway") as second:
        yield [Gateway(one["http"], one["grpc"]) for one in (platform.ready, second.ready)]


async def doors_of(stack: AsyncExitStack, gateways: list[Gateway], bearer: str) -> dict[str, Call]:
    """Every way to ask for something with a bearer, at every gateway; each says whether it was let in."""
    doors: dict[str, Call] = {}
    for number, gateway in enumerate(gateways):
        headers = {"Authorization": f"Bearer {bearer}"}
        session = await stack.enter_async_context(aiohttp.ClientSession(gateway.http, headers=headers))
        channel = await stack.enter_async_context(grpc.aio.insecure_channel(gateway.grpc))
        metadata = (("authorization", f"Bearer {bearer}"),)
        chat = ChatRequest(model="sim", messages=[ChatMessage(role="user", content="hi")])
        submit = SubmitRequest(model="sim", messages=[ChatMessage(role="user", content="hi")])

        async def post(path: str, body: dict[str, Any], session: aiohttp.ClientSession = session) -> bool:
            async with session.post(path, json=body) as response:
                await response.read()
                assert response.status in (200, 202, 401, 403), response.status
                return response.status < 400

        async def told(asking: Awaitable[Any]) -> bool:
            try:
                await asking
            except grpc.aio.AioRpcError as error:
                if error.code() not in (grpc.StatusCode.UNAUTHENTICATED, grpc.StatusCode.PERMISSION_DENIED):
                    raise
                return False
            return True

        async def all_of(stream: Any) -> None:
            async for _ in stream:
                pass

        chats, tasks = ChatStub(channel), TasksStub(channel)
        body = {"model": "sim", "messages": MESSAGES}
        doors |= {
            f"chat {number}": lambda post=post, body=body: post(CHAT, body),
            f"streamed chat {number}": lambda post=post, body=body: post(CHAT, {**body, "stream": True}),
            f"task {number}": lambda post=post: post("/v1/tasks", {"model": "sim", "input": "hi"}),
            f"rpc chat {number}": lambda told=told, chats=chats, chat=chat, metadata=metadata: told(
                chats.Complete(chat, metadata=metadata)
            ),
            f"rpc stream {number}": lambda told=told, chats=chats, chat=chat, metadata=metadata, all_of=all_of: told(
                all_of(chats.Stream(chat, metadata=metadata))
            ),
            f"rpc task {number}": lambda told=told, tasks=tasks, submit=submit, metadata=metadata: told(
                tasks.Submit(submit, metadata=metadata)
            ),
        }
    return doors


async def keep_trying(door: Call, tries: list[Try], until: asyncio.Event) -> None:
    while not until.is_set():
        sent_at = time.monotonic()
        tries.append(Try(sent_at, await door()))
        await asyncio.sleep(PAUSE_SECONDS)


async def none_opens_after(
    gateways: list[Gateway], bearer: str, shut: Callable[[], Awaitable[None]]
) -> dict[str, list[Try]]:
    """Knocks at every door all the time; after ``shut`` has been answered none may open to what is sent a second later.

    Returns the tries by door.
    """
    async with AsyncExitStack() as stack:
        doors = await doors_of(stack, gateways, bearer)
        for door in doors.values():
            await eventually(door)
        tries: dict[str, list[Try]] = {name: [] for name in doors}
        over = asyncio.Event()
        async with asyncio.TaskGroup() as group:
            for name, door in doors.items():
                group.create_task(keep_trying(door, tries[name], over))
            await eventually(lambda: all(len(made) > 3 for made in tries.values()))
            await shut()
            answered = time.monotonic()
            await eventually(
                lambda: all(made[-1].sent_at > answered + WATCHED_SECONDS for made in tries.values()),
                deadline_seconds=30,
            )
            over.set()
    for name, made in tries.items():
        assert made[0].let_in, name
        late = [one.sent_at - answered for one in made if one.let_in and one.sent_at >= answered + BOUND_SECONDS]
        assert late == [], f"{name} was open {late} s after the answer"
        assert not made[-1].let_in, name
    return tries


async def test_a_revoked_key_opens_no_door_of_any_gateway(platform: PlatformProcess, gateways: list[Gateway]):
    headers = {"Authorization": f"Bearer {platform.admin_key}"}
    async with aiohttp.ClientSession(platform.http, headers=headers) as operator:
        body = {"tenant": "doors", "scopes": ["chat", "tasks"]}
        async with operator.post("/v1/admin/keys", json=body) as response:
            made = await response.json()

        async def revoke() -> None:
            async with operator.post(f"/v1/admin/keys/{made['id']}/revoke") as response:
                assert response.status == 200

        await none_opens_after(gateways, made["key"], revoke)


async def test_a_token_of_a_suspended_tenant_opens_none_either(platform: PlatformProcess, gateways: list[Gateway]):
    headers = {"Authorization": f"Bearer {platform.admin_key}"}
    claims = {
        "iss": ISSUER_FOR_ALL,
        "aud": "collegium",
        "sub": "ann",
        "exp": int(time.time()) + 600,
        "tenant": "initech",
    }
    token = jwt.encode(claims | {"scope": "chat tasks"}, SIGNING, algorithm="EdDSA", headers={"kid": "one"})
    async with aiohttp.ClientSession(platform.http, headers=headers) as operator:
        async with operator.post("/v1/admin/tenants", json={"id": "initech", "tier": "pro"}) as response:
            assert response.status == 201

        async def known() -> bool:
            sent = {"Authorization": f"Bearer {token}"}
            for gateway in gateways:
                async with aiohttp.ClientSession(gateway.http, headers=sent) as ann, ann.get("/v1/models") as response:
                    if response.status != 200:
                        return False
            return True

        await eventually(known)

        async def suspend() -> None:
            async with operator.post("/v1/admin/tenants/initech/suspend") as response:
                assert response.status == 200

        await none_opens_after(gateways, token, suspend)
