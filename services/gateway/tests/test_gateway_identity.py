"""Who may do what, from the admin API to the doors of two gateways, on a real broker and database."""

from __future__ import annotations

import json
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import grpc
import jwt
import pytest
from collegium_protocol.v1 import chat_pb2, chat_pb2_grpc
from collegium_settings.settings import JwtIssuerSettings, JwtSettings
from collegium_testing.eventually import eventually
from collegium_testing.platform import RunningPlatform
from cryptography.hazmat.primitives.asymmetric import ed25519

CHAT = "/v1/chat/completions"
ISSUER = "https://login.example.org/"
SIGNING = ed25519.Ed25519PrivateKey.generate()
KEY_SET = json.dumps(
    {"keys": [{**jwt.get_algorithm_by_name("EdDSA").to_jwk(SIGNING.public_key(), as_dict=True), "kid": "one"}]}
)
ISSUERS = JwtSettings(issuers=(JwtIssuerSettings(issuer=ISSUER, audience="collegium", jwks=KEY_SET),))


class Doors:
    """Two gateways over one billing, and the operator's hands."""

    def __init__(self, platform: RunningPlatform, folder: Path) -> None:
        self.platform = platform
        self.http = [f"http://127.0.0.1:{self._app(number).port}" for number in (0, 1)]
        self.owner = (folder / "admin.key").read_text().strip()

    def _app(self, number: int) -> Any:
        hosted = [one for one in self.platform._hosted if one.platform.service == "gateway"]
        return hosted[number].app

    def app(self, number: int = 0) -> Any:
        return self._app(number)

    async def call(
        self, method: str, path: str, body: Any = None, *, key: str | None = None, gateway: int = 0, **headers: str
    ) -> tuple[int, Any]:
        """Status and body of one request."""
        sent = {"authorization": f"Bearer {key or self.owner}", **headers}
        async with (
            aiohttp.ClientSession() as session,
            session.request(method, self.http[gateway] + path, json=body, headers=sent) as response,
        ):
            return response.status, await response.json()

    async def admin(self, method: str, path: str, body: Any = None, *, key: str | None = None) -> Any:
        """The body of a request of the admin API that succeeds."""
        status, answer = await self.call(method, f"/v1/admin/{path}", body, key=key)
        assert status in (200, 201), answer
        return answer

    async def refused(
        self, method: str, path: str, body: Any = None, *, key: str | None = None
    ) -> tuple[int, str, Any]:
        """Status, code and field of a refusal."""
        status, answer = await self.call(method, f"/v1/admin/{path}", body, key=key)
        assert status >= 400, answer
        return status, answer["error"]["code"], answer["error"]["param"]

    async def key(self, tenant: str = "initech", **fields: Any) -> tuple[str, str]:
        """A new key's id and text, known to both gateways."""
        made = await self.admin("POST", "keys", {"tenant": tenant, "scopes": ["chat", "tasks", "usage"], **fields})
        await self.known(made["key"])
        return made["id"], made["key"]

    async def known(self, key: str) -> None:
        """Waits until both gateways know a key, by a request that changes nothing and needs no scope to be told so."""
        for gateway in (0, 1):

            async def is_known(gateway: int = gateway) -> bool:
                return (await self.call("GET", "/v1/models", key=key, gateway=gateway))[0] in (200, 403)

            await eventually(is_known)

    async def chat(self, key: str, model: str = "sim", gateway: int = 0) -> tuple[int, str]:
        """Status of one chat, and the code of its refusal."""
        body = {"model": model, "messages": [{"role": "user", "content": "hi"}]}
        status, answer = await self.call("POST", CHAT, body, key=key, gateway=gateway)
        return status, answer["error"]["code"] if "error" in answer else ""


@pytest.fixture
async def doors(clean_nats_url: str, database_url: str, tmp_path: Path) -> AsyncIterator[Doors]:
    services = ("billing", "router", "worker-pool", "gateway")
    models = ({"name": "sim"}, {"name": "zed", "rank": "student"})
    async with RunningPlatform(
        clean_nats_url, database_url, folder=tmp_path, services=services, models=models, jwt=ISSUERS
    ) as platform:
        await platform.start("gateway")
        made = Doors(platform, tmp_path)
        await made.known(made.owner)
        await made.admin("POST", "tenants", {"id": "initech", "tier": "pro"})
        yield made


def token(**claims: Any) -> str:
    content = {"iss": ISSUER, "aud": "collegium", "sub": "ann", "exp": int(time.time()) + 60, "tenant": "initech"}
    return jwt.encode(content | {"scope": "chat"} | claims, SIGNING, algorithm="EdDSA", headers={"kid": "one"})


async def test_a_revoked_key_is_refused_by_every_gateway_within_a_second(doors: Doors):
    slowest = 0.0
    for _ in range(5):
        key_id, key = await doors.key()
        assert [(await doors.chat(key, gateway=number))[0] for number in (0, 1)] == [200, 200]
        await doors.admin("POST", f"keys/{key_id}/revoke")
        answered = time.monotonic()
        for number in (0, 1):

            async def is_refused(number: int = number, key: str = key) -> bool:
                return (await doors.chat(key, gateway=number)) == (401, "invalid_api_key")

            await eventually(is_refused, every_seconds=0.01)
        slowest = max(slowest, time.monotonic() - answered)
    assert slowest < 1


async def test_a_key_asks_only_the_models_of_its_list(doors: Doors):
    key_id, key = await doors.key(models=["zed"])
    body = {"model": "sim", "messages": [{"role": "user", "content": "hi"}]}
    status, answer = await doors.call("POST", CHAT, body, key=key)
    assert (status, answer["error"]["code"], answer["error"]["type"]) == (403, "model_not_allowed", "permission_error")
    assert key_id in answer["error"]["message"]
    assert "sim" in answer["error"]["message"]
    assert (await doors.chat(key, "zed"))[0] == 200
    status, answer = await doors.call("POST", CHAT, {**body, "model": "auto"}, key=key)
    assert (status, answer["model"]) == (200, "zed"), "auto chooses among what the key may ask"
    status, answer = await doors.call("GET", "/v1/models", key=key)
    assert [model["id"] for model in answer["data"]] == ["zed", "auto"]
    status, answer = await doors.call("POST", "/v1/tasks", {"input": "x", "model": "sim"}, key=key)
    assert answer["error"]["code"] == "model_not_allowed"


async def test_an_expired_key_and_a_rotated_one_end_in_time(doors: Doors):
    ends = time.time() + 1.5
    stamp = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(ends)) + f".{int(ends % 1 * 1000):03}Z"
    _, key = await doors.key(expires_at=stamp)
    old_id, old = await doors.key()
    made = await doors.admin("POST", f"keys/{old_id}/rotate", {"grace": "2s"})
    await doors.known(made["key"])
    assert (await doors.chat(old))[0] == (await doors.chat(made["key"]))[0] == 200, "both within the grace"
    for ending in (key, old):

        async def is_refused(ending: str = ending) -> bool:
            return (await doors.chat(ending)) == (401, "invalid_api_key")

        await eventually(is_refused, every_seconds=0.05)
    assert (await doors.chat(made["key"]))[0] == 200


async def test_a_suspended_tenant_is_refused_until_it_is_resumed_and_a_deleted_one_for_good(doors: Doors):
    _, key = await doors.key()
    bearer = token()

    async def says(expected: tuple[int, str], who: str) -> None:
        for number in (0, 1):

            async def so(number: int = number) -> bool:
                return (await doors.chat(who, gateway=number)) == expected

            await eventually(so, every_seconds=0.01)

    assert (await doors.admin("POST", "tenants/initech/suspend"))["state"] == "suspended"
    await says((403, "tenant_suspended"), key)
    await says((403, "tenant_suspended"), bearer)
    await doors.admin("POST", "tenants/initech/resume")
    await says((200, ""), key)
    await doors.admin("DELETE", "tenants/initech")
    await says((401, "invalid_api_key"), key)
    await says((401, "invalid_token"), bearer)


async def test_a_token_is_a_key_on_both_doors(doors: Doors):
    bearer = token()
    assert (await doors.chat(bearer))[0] == 200
    assert (await doors.call("POST", "/v1/tasks", {"input": "x"}, key=bearer))[1]["error"][
        "code"
    ] == "insufficient_scope"
    assert (await doors.chat(token(aud="other"))) == (401, "invalid_token")
    assert (await doors.chat(token(exp=1))) == (401, "expired_token")
    async with grpc.aio.insecure_channel(f"127.0.0.1:{doors.app().grpc.port}") as channel:
        stub = chat_pb2_grpc.ChatStub(channel)
        asked = chat_pb2.ChatRequest(model="sim", messages=[chat_pb2.ChatMessage(role="user", content="hi")])
        await stub.Complete(asked, metadata=(("authorization", f"Bearer {token(sub='bob')}"),))
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await stub.Complete(asked, metadata=(("authorization", f"Bearer {token(iss='x')}"),))
        assert refused.value.code() == grpc.StatusCode.UNAUTHENTICATED


async def test_what_was_used_is_told(doors: Doors):
    key_id, key = await doors.key()
    assert (await doors.chat(key))[0] == 200
    for number in (0, 1):
        await doors.app(number)._key_use.report()
    assert (await doors.admin("GET", f"keys/{key_id}"))["last_used_at"] is not None


async def test_a_member_administrates_its_own_tenant_alone(doors: Doors):
    await doors.admin("POST", "tenants", {"id": "umbrella"})
    foreign, _ = await doors.key("umbrella")
    _, member = await doors.key(scopes=["admin", "chat"])
    assert [one["id"] for one in (await doors.admin("GET", "tenants", key=member))["data"]] == ["initech"]
    assert {one["tenant"] for one in (await doors.admin("GET", "keys", key=member))["data"]} == {"initech"}
    await doors.admin("POST", "projects", {"tenant": "initech", "id": "web"}, key=member)
    made = await doors.admin("POST", "keys", {"tenant": "initech", "project": "web", "scopes": ["chat"]}, key=member)
    await doors.admin("PUT", f"keys/{made['id']}/limits", {"requests_per_minute": 5}, key=member)
    await doors.admin("POST", f"keys/{made['id']}/rotate", key=member)
    for method, path, body, expected in (
        ("POST", f"keys/{foreign}/revoke", None, (404, "not_found")),
        ("POST", f"keys/{foreign}/rotate", {}, (404, "not_found")),
        ("GET", f"keys/{foreign}", None, (404, "not_found")),
        ("GET", f"keys/{foreign}/limits", None, (404, "not_found")),
        ("PUT", f"keys/{foreign}/limits", {}, (404, "not_found")),
        ("GET", "keys?tenant=umbrella", None, (403, "insufficient_role")),
        ("GET", "keys?tenant=absent", None, (403, "insufficient_role")),
        ("GET", "projects?tenant=umbrella", None, (403, "insufficient_role")),
        ("GET", "budgets?tenant=umbrella", None, (403, "insufficient_role")),
        ("GET", "budgets/umbrella/tenant", None, (403, "insufficient_role")),
        ("GET", "tenants/umbrella", None, (403, "insufficient_role")),
        ("GET", "tenants/umbrella/limits", None, (403, "insufficient_role")),
        ("GET", "possible-spend?tenant=umbrella", None, (403, "insufficient_role")),
        ("POST", "keys", {"tenant": "umbrella"}, (403, "insufficient_role")),
        ("POST", "keys", {"tenant": "initech", "scopes": ["usage"]}, (403, "insufficient_role")),
        ("POST", "keys", {"tenant": "initech", "scopes": ["admin"], "role": "owner"}, (400, "invalid_value")),
        ("POST", "projects", {"tenant": "umbrella", "id": "x"}, (403, "insufficient_role")),
        ("POST", "projects/umbrella/default/archive", None, (403, "insufficient_role")),
        ("POST", "tenants", {"id": "mine"}, (403, "insufficient_role")),
        ("DELETE", "tenants/initech", None, (403, "insufficient_role")),
        ("PUT", "budgets/initech/tenant", {"usd": "1"}, (403, "insufficient_role")),
        ("PUT", "tenants/initech/limits", {}, (403, "insufficient_role")),
    ):
        assert (await doors.refused(method, path, body, key=member))[:2] == expected, path


async def test_operators_and_auditors_have_their_bounds(doors: Doors):
    _, operator = await doors.key("operator", scopes=["admin"], role="operator")
    _, auditor = await doors.key("operator", scopes=["admin"], role="auditor")
    owner_id = doors.owner.split("-")[2]
    assert await doors.refused("POST", f"keys/{owner_id}/revoke", key=operator) == (403, "insufficient_role", None)
    new_owner = {"tenant": "operator", "scopes": ["admin"]}
    assert (await doors.refused("POST", "keys", new_owner, key=operator))[:2] == (403, "insufficient_role")
    assert (await doors.refused("DELETE", "tenants/initech", key=operator))[:2] == (403, "insufficient_role")
    await doors.admin("PUT", "budgets/initech/tenant", {"usd": "5"}, key=operator)
    assert (await doors.admin("GET", "budgets", key=auditor))["data"][0]["usd"] == "5"
    assert (await doors.refused("DELETE", "budgets/initech/tenant", key=auditor))[:2] == (403, "insufficient_role")


async def test_budgets_and_limits_go_round_and_reach_the_gateways(doors: Doors):
    body = {"usd": "25.000000000001", "window": "calendar_month", "alert_percents": [80]}
    made = await doors.admin("PUT", "budgets/initech/tenant", body)
    shown = await doors.admin("GET", "budgets/initech/tenant")
    standing = {"captured_usd", "held_usd", "remaining_usd", "renews_at"}
    assert {name: made[name] for name in made.keys() - standing} == {
        name: shown[name] for name in shown.keys() - standing
    }
    assert (made["usd"], made["window"], made["alert_percents"]) == ("25.000000000001", "calendar_month", [80])
    await doors.admin("PUT", "tenants/initech/limits", {"requests_per_minute": 60, "token_window": "1h"})
    shown = await doors.admin("GET", "tenants/initech")
    assert shown["limits"]["requests_per_minute"] == 60
    assert shown["quotas"]["features"] == ["basic", "custom_students"]

    def published() -> bool:
        record = doors.app(1)._directory.keys.record("initech")
        return record is not None and bool(record.budgets) and record.limits is not None

    await eventually(published)
    await doors.admin("DELETE", "tenants/initech/limits")
    await doors.admin("DELETE", "budgets/initech/tenant")
    assert (await doors.admin("GET", "tenants/initech/limits"))["limits"] is None
    assert (await doors.refused("GET", "budgets/initech/tenant"))[:2] == (404, "not_found")


async def test_a_tenants_settings_are_set_and_reach_the_gateways(doors: Doors):
    assert (await doors.admin("GET", "tenants/initech"))["cache"] == {"stale": False}
    changed = await doors.admin("PATCH", "tenants/initech", {"cache_stale": True})
    assert (changed["cache"], changed["tier"], changed["pool"]) == ({"stale": True}, "pro", None)

    def published() -> bool:
        record = doors.app(1)._directory.keys.record("initech")
        return record is not None and record.stale_answers

    await eventually(published)
    assert (await doors.admin("PATCH", "tenants/initech", {"tier": "pro"}))["cache"] == {"stale": True}
    assert (await doors.admin("PATCH", "tenants/initech", {"cache_stale": False}))["cache"] == {"stale": False}
    assert await doors.refused("PATCH", "tenants/initech", {"pool": "nowhere"}) == (400, "invalid_value", "pool")
    assert await doors.refused("PATCH", "tenants/initech", {}) == (400, "invalid_value", "tier")


BUDGET = "budgets/initech/tenant"
BAD = [
    ("PUT", BUDGET, {"usd": "-1"}, (400, "invalid_value", "usd")),
    ("PUT", BUDGET, {"usd": "0"}, (400, "invalid_value", "usd")),
    ("PUT", BUDGET, {"usd": "1" + "0" * 30}, (400, "invalid_value", "usd")),
    ("PUT", BUDGET, {"usd": "0.0000000000001"}, (400, "invalid_value", "usd")),
    ("PUT", BUDGET, {"usd": 25}, (400, "invalid_value", "usd")),
    ("PUT", BUDGET, {"usd": "1", "window": "soon"}, (400, "invalid_value", "window")),
    ("PUT", BUDGET, {"usd": "1", "alert_percents": [10**30]}, (400, "invalid_value", None)),
    ("PUT", "budgets/initech/%2e%2e%2fx", {"usd": "1"}, (404, "not_found", None)),
    ("PUT", "budgets/..%5cinitech/x", {"usd": "1"}, (400, "invalid_value", "tenant")),
    ("PUT", "budgets/initech/a%0d%0ab", {"usd": "1"}, (400, "invalid_value", "id")),
    ("POST", "tenants", {"id": "x", "tier": "gold"}, (400, "invalid_value", "tier")),
    ("POST", "tenants", {"id": "../etc"}, (400, "invalid_value", "tenant")),
    ("POST", "tenants", {"id": "a\r\nset-cookie: x"}, (400, "invalid_value", "tenant")),
    ("POST", "tenants", {"id": "a.b>"}, (400, "invalid_value", "tenant")),
    ("PATCH", "tenants/initech", {"tier": "gold"}, (400, "invalid_value", "tier")),
    ("PATCH", "tenants/absent", {"tier": "pro"}, (404, "not_found", "tenant")),
    ("GET", "tenants/%2e%2e", None, (404, "not_found", None)),
    ("POST", "keys", {"tenant": "initech", "project": "absent"}, (404, "not_found", "project")),
    ("POST", "keys", {"tenant": "initech", "name": "a\r\nb"}, (400, "invalid_value", "name")),
    ("POST", "keys", {"tenant": "initech", "expires_at": "yesterday"}, (400, "invalid_value", "expires_at")),
    ("POST", "keys", {"tenant": "initech", "limits": {"concurrency": 10**20}}, (400, "invalid_value", None)),
    ("POST", "keys/..%00/revoke", None, (400, "invalid_value", "key_id")),
    ("POST", "keys/operatorx/rotate", {"grace": "-1d"}, (400, "invalid_value", "grace")),
    ("PUT", "keys/absent000/limits", {"concurrency": 1}, (404, "not_found", "key_id")),
    ("GET", "keys?tenant=*", None, (400, "invalid_value", "tenant")),
]


async def test_bad_input_is_refused_by_type_and_changes_nothing(doors: Doors):
    async def everything() -> list[Any]:
        return [await doors.admin("GET", what) for what in ("tenants", "keys", "projects", "budgets")]

    before = await everything()
    for method, path, body, expected in BAD:
        status, code, param = await doors.refused(method, path, body)
        assert (status, code) == expected[:2], (path, body)
        assert expected[2] in (None, param), (path, body)
    assert await everything() == before
