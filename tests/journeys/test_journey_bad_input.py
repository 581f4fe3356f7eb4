"""Bad input of operators and strangers: a typed refusal, in the audit trail, and nothing changed."""

from __future__ import annotations

import asyncio
import base64
import json
import secrets
import time
from typing import Any, NamedTuple

import aiohttp
import jwt
import pytest
from collegium_contracts.audit import KEY_REFUSED, PLATFORM
from collegium_testing import eventually
from collegium_testing.platforms import PlatformProcess
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from yarl import URL

from tests.journeys.town import ISSUER, KEYS, SIGNING

pytestmark = pytest.mark.timeout(180)

CHAT = "/v1/chat/completions"
FOREIGN = Ed25519PrivateKey.generate()
ACME, GLOBEX = KEYS["acme"], KEYS["globex"]
GLOBEX_KEY_ID = GLOBEX.split("-")[2]
PRICE = "models/sim/price"
GOOD_PRICE = {"input_usd_per_mtok": "1"}


class Played(NamedTuple):
    """The platform, and the key of a member that administrates acme alone."""

    platform: PlatformProcess
    member: str


@pytest.fixture(scope="module")
def played(town: PlatformProcess) -> Played:
    return Played(town, asyncio.run(_member(town)))


async def _member(platform: PlatformProcess) -> str:
    async with session(platform, platform.admin_key) as operator:
        body = {"tenant": "acme", "scopes": ["chat", "tasks", "usage", "admin"], "role": "member"}
        async with operator.post("/v1/admin/keys", json=body) as response:
            assert response.status == 201, await response.text()
            key: str = (await response.json())["key"]
        budget = {"usd": "5"}
        for tenant in ("acme", "globex"):
            async with operator.put(f"/v1/admin/budgets/{tenant}/purse", json=budget) as response:
                assert response.status == 200

    async def let_in() -> bool:
        async with session(platform, key) as member, member.get("/v1/models") as response:
            return response.status == 200

    await eventually(let_in)
    return key


def session(platform: PlatformProcess, key: str) -> aiohttp.ClientSession:
    return aiohttp.ClientSession(platform.http, headers={"Authorization": f"Bearer {key}"} if key else None)


# When a key was used last, and what work under way does to a budget, are no administrative acts.
_MOVING = ("last_used_at", "captured_usd", "held_usd", "remaining_usd", "renews_at")


async def standing(platform: PlatformProcess) -> dict[str, Any]:
    """Everything that an administrative act could change."""
    found: dict[str, Any] = {}
    async with session(platform, platform.admin_key) as operator:
        for what in ("tenants", "keys", "projects", "budgets", "models", "tenants/acme/limits"):
            async with operator.get(f"/v1/admin/{what}") as response:
                assert response.status == 200
                answer = await response.json()
            rows: list[dict[str, Any]] = answer.get("data", [answer])
            if what == "models":
                rows = [{name: row[name] for name in ("name", "price")} for row in rows]
            found[what] = [{name: value for name, value in row.items() if name not in _MOVING} for row in rows]
        async with operator.get("/v1/admin/models/sim/prices") as response:
            found["prices"] = await response.json()
    return found


async def refused(platform: PlatformProcess, tenant: str, query: str, **wanted: str) -> dict[str, Any]:
    """Waits until the trail of a tenant holds a refusal with these fields."""
    async with session(platform, platform.admin_key) as operator:

        async def found() -> dict[str, Any] | None:
            params = f"tenant={tenant}&outcome=refused&limit=100&{query}"
            async with operator.get(f"/v1/admin/audit?{params}") as response:
                assert response.status == 200, await response.text()
                records = (await response.json())["data"]
            for one in records:
                if all(one.get(name) == value for name, value in wanted.items()):
                    return one
            return None

        record = await eventually(found, every_seconds=0.1)
    assert record is not None
    return record


class Bad(NamedTuple):
    """An act at fault: who does it, what it asks for, and how it is refused."""

    method: str
    path: str
    body: Any
    status: int
    code: str
    who: str = "operator"


BUDGET = "budgets/acme/bad"
ACT_WITHOUT_SCOPE = "tenants.create"
ACTS: dict[str, Bad] = {
    "a negative budget": Bad("PUT", BUDGET, {"usd": "-1"}, 400, "invalid_value"),
    "a budget of nothing": Bad("PUT", BUDGET, {"usd": "0"}, 400, "invalid_value"),
    "a huge budget": Bad("PUT", BUDGET, {"usd": "9000000.000000000001"}, 400, "invalid_value"),
    "a budget beyond any number": Bad("PUT", BUDGET, {"usd": "1e40"}, 400, "invalid_value"),
    "a budget with 13 decimals": Bad("PUT", BUDGET, {"usd": "0.0000000000001"}, 400, "invalid_value"),
    "a budget that is a float": Bad("PUT", BUDGET, {"usd": 0.1}, 400, "invalid_value"),
    "a budget that is no number": Bad("PUT", BUDGET, {"usd": "NaN"}, 400, "invalid_value"),
    "an endless budget": Bad("PUT", BUDGET, {"usd": "Infinity"}, 400, "invalid_value"),
    "a budget with a negative window": Bad("PUT", BUDGET, {"usd": "1", "window": "-1d"}, 400, "invalid_value"),
    "a standing budget made negative": Bad("PUT", "budgets/acme/purse", {"usd": "-1"}, 400, "invalid_value"),
    "a key's negative budget": Bad("POST", "keys", {"tenant": "acme", "budget": {"usd": "-1"}}, 400, "invalid_value"),
    "an unknown tier": Bad("POST", "tenants", {"id": "newcomer", "tier": "platinum"}, 400, "invalid_value"),
    "a change to an unknown tier": Bad("PATCH", "tenants/acme", {"tier": "platinum"}, 400, "invalid_value"),
    "a price with too many decimals": Bad(
        "POST", PRICE, {"cost": {"input_usd_per_mtok": "0.0000001"}}, 400, "invalid_price"
    ),
    "a negative price": Bad("POST", PRICE, {"cost": {"input_usd_per_mtok": "-1"}}, 400, "invalid_price"),
    "a negative markup": Bad("POST", PRICE, {"cost": GOOD_PRICE, "charge": {"markup": "-2"}}, 400, "invalid_price"),
    "a price of nothing": Bad("POST", PRICE, {"cost": {}}, 400, "invalid_price"),
    "a charge of nothing": Bad("POST", PRICE, {"cost": GOOD_PRICE, "charge": {}}, 400, "invalid_price"),
    "an empty price": Bad("POST", PRICE, {"cost": {"input_usd_per_mtok": ""}}, 400, "invalid_price"),
    "a version that is not scheduled": Bad("DELETE", "models/sim/prices/5000000000000", None, 404, "not_found"),
    "a version that has begun": Bad("DELETE", "models/sim/prices/1", None, 409, "price_overlap"),
    "no version at all": Bad("DELETE", "models/sim/prices/-1", None, 404, "not_found"),
    "overlapping prices": Bad("POST", PRICE, {"cost": GOOD_PRICE, "valid_from": "2020-01-01"}, 409, "price_overlap"),
    "a key of another tenant": Bad("POST", f"keys/{GLOBEX_KEY_ID}/revoke", None, 404, "not_found", "member"),
    "rotating another's key": Bad("POST", f"keys/{GLOBEX_KEY_ID}/rotate", None, 404, "not_found", "member"),
    "limits of another's key": Bad(
        "PUT", f"keys/{GLOBEX_KEY_ID}/limits", {"concurrency": 1}, 404, "not_found", "member"
    ),
    "a budget of another tenant": Bad("PUT", "budgets/globex/purse", {"usd": "1"}, 403, "insufficient_role", "member"),
    "a key for another tenant": Bad("POST", "keys", {"tenant": "globex"}, 403, "insufficient_role", "member"),
    "a project of another tenant": Bad(
        "POST", "projects/globex/default/archive", None, 403, "insufficient_role", "member"
    ),
    "suspending another tenant": Bad("POST", "tenants/globex/suspend", None, 403, "insufficient_role", "member"),
    "an owner's key made by a member": Bad(
        "POST", "keys", {"tenant": "acme", "scopes": ["admin"], "role": "owner"}, 400, "invalid_value", "member"
    ),
    "an act without the scope": Bad("POST", "tenants", {"id": "mine"}, 403, "insufficient_scope", "tenant"),
    "dots as a tenant": Bad("POST", "tenants", {"id": ".."}, 400, "invalid_value"),
    "a path as a tenant": Bad("POST", "tenants", {"id": "../acme"}, 400, "invalid_value"),
    "a wildcard as a tenant": Bad("POST", "tenants", {"id": "acme.>"}, 400, "invalid_value"),
    "a long tenant": Bad("POST", "tenants", {"id": "a" * 300}, 400, "invalid_value"),
    "a path in a budget's id": Bad("PUT", "budgets/acme/..%5C..%00", {"usd": "1"}, 400, "invalid_value"),
    "a wildcard in a budget's tenant": Bad("PUT", "budgets/%2A/purse", {"usd": "1"}, 400, "invalid_value"),
    "dots in a key's id": Bad("POST", "keys/..%00/revoke", None, 400, "invalid_value"),
    "dots in a tenant's id": Bad("PATCH", "tenants/%2E%2E%00", {"tier": "free"}, 400, "invalid_value"),
    "a path in a project's id": Bad("POST", "projects", {"tenant": "acme", "id": "../x"}, 400, "invalid_value"),
    "lines in a tenant": Bad("POST", "tenants", {"id": "x\r\nx-evil: 1"}, 400, "invalid_value"),
    "lines in a key's name": Bad("POST", "keys", {"tenant": "acme", "name": "a\r\nx-evil: 1"}, 400, "invalid_value"),
    "lines in a path": Bad("POST", "keys/a%0D%0Ax-evil:%201/revoke", None, 400, "invalid_value"),
    "no JSON": Bad("POST", "tenants", b"{", 400, "malformed_json"),
}


@pytest.mark.parametrize("name", ACTS)
async def test_an_act_at_fault_is_refused_told_and_changes_nothing(played: Played, name: str):
    platform, bad = played.platform, ACTS[name]
    before = await standing(platform)
    key, tenant = {
        "operator": (platform.admin_key, "operator"),
        "member": (played.member, "acme"),
        "tenant": (ACME, "acme"),
    }[bad.who]
    trace = secrets.token_hex(16)
    headers = {"traceparent": f"00-{trace}-{secrets.token_hex(8)}-00"}
    body: dict[str, Any] = {"data": bad.body} if isinstance(bad.body, bytes) else {"json": bad.body}
    async with session(platform, key) as asking:
        url = URL(f"{platform.http}/v1/admin/{bad.path}", encoded=True)
        async with asking.request(bad.method, url, headers=headers, **body) as response:
            error = (await response.json())["error"]
            assert (response.status, error["code"]) == (bad.status, bad.code), error
            assert error["message"]
            assert "x-evil" not in response.headers
    assert await standing(platform) == before
    if bad.who == "tenant":
        # Told once and then counted, so that it has no trace of its own.
        record = await refused(platform, tenant, f"action={ACT_WITHOUT_SCOPE}", reason=bad.code)
        assert record["details"]["path"] == url.path
        return
    record = await refused(platform, tenant, "", reason=bad.code, trace=trace)
    assert record["details"]["begun"], "what was to be done stood in the trail before it was tried"


def token(key: Any = SIGNING, kid: str = "one", **claims: Any) -> str:
    content = {"iss": ISSUER, "aud": "collegium", "sub": "ann", "exp": int(time.time()) + 86_400, "tenant": "acme"}
    return jwt.encode(content | {"scope": "chat admin"} | claims, key, algorithm="EdDSA", headers={"kid": kid})


def unsigned() -> str:
    head = base64.urlsafe_b64encode(b'{"alg":"none","typ":"JWT","kid":"one"}').rstrip(b"=").decode()
    return f"{head}.{token().split('.')[1]}."


TOKENS: dict[str, tuple[str, str]] = {
    "alg none": (unsigned(), "invalid_token"),
    "forged": (token(FOREIGN), "invalid_token"),
    "unknown kid": (token(kid="two"), "invalid_token"),
    "wrong audience": (token(aud="other"), "invalid_token"),
    "wrong issuer": (token(iss="https://evil.example.org/"), "invalid_token"),
    "another tenant": (token(tenant="globex"), "invalid_token"),
    "the operator": (token(tenant="operator"), "invalid_token"),
    "a path as tenant": (token(tenant="../acme"), "invalid_token"),
    "expired": (token(exp=int(time.time()) - 3600), "expired_token"),
    "a wrong secret": (ACME[:-1] + ("a" if ACME[-1] != "a" else "b"), "invalid_api_key"),
}


@pytest.mark.parametrize("name", TOKENS)
async def test_a_bearer_at_fault_is_refused_told_and_changes_nothing(played: Played, name: str):
    platform, (bearer, code) = played.platform, TOKENS[name]
    before = await standing(platform)
    body = {"model": "sim", "messages": [{"role": "user", "content": "hi"}]}
    async with session(platform, bearer) as stranger:
        for path, sent in ((CHAT, body), ("/v1/admin/tenants", {"id": "mine"})):
            async with stranger.post(path, json=sent) as response:
                error = (await response.json())["error"]
                assert (response.status, error["code"], error["type"]) == (401, code, "authentication_error")
                assert bearer not in error["message"]
    assert await standing(platform) == before
    # A key says whose it claims to be; of a token that is wrong nothing is believed.
    tenant = "acme" if code == "invalid_api_key" else PLATFORM
    record = await refused(platform, tenant, f"action={KEY_REFUSED}", reason=code)
    assert bearer not in json.dumps(record)


async def test_a_right_token_of_a_member_is_let_in(played: Played):
    async with session(played.platform, token()) as ann, ann.get("/v1/admin/tenants") as response:
        assert response.status == 200, "what is refused above is refused for its fault"
        assert [row["id"] for row in (await response.json())["data"]] == ["acme"]


READS = (
    "/v1/tasks/..%2F..%2Fadmin%2Ftenants",
    "/v1/tasks/tsk_%00",
    "/v1/tasks/%2A",
    "/v1/schedules/..%2Fx",
    "/v1/invoices/..%2F..%2Fetc%2Fpasswd",
    "/v1/admin/keys/..%2Ftenants",
    "/v1/admin/tenants/..%2Foperator",
    "/v1/admin/tenants/%2A/storage",
    "/v1/admin/budgets/acme/..%2F..%2Fglobex%2Fpurse",
    "/v1/admin/dead-letters/..%2F1",
    "/v1//admin//tenants",
    "/v1/../v1/admin/tenants/../keys/x%0d%0ax-evil:1",
)


@pytest.mark.parametrize("path", READS)
async def test_tricks_in_a_path_find_nothing(played: Played, path: str):
    platform = played.platform
    for key in (platform.admin_key, played.member):
        status, headers, body = await raw(platform, f"GET {path} HTTP/1.1", f"Authorization: Bearer {key}")
        assert status in (400, 403, 404), (status, body)
        assert json.loads(body)["error"]["code"] in ("invalid_value", "not_found", "insufficient_role"), body
        assert b"x-evil" not in headers


INJECTED = (
    "X-Request-Id: a\rx-evil: 1",
    "X-Request-Id: a\nx-evil: 1",
    "X-Request-Id: a\x00b",
    "X-Request-Id: é\x85x-evil: 1",
    "traceparent: 00-a\tx-evil: 1-01",
    "Idempotency-Key: a\x0bx-evil: 1",
    "Host: evil\r\n\tx-evil: 1",
)


@pytest.mark.parametrize("header", INJECTED)
async def test_a_header_of_a_request_makes_none_in_its_answer(played: Played, header: str):
    body = '{"model": "sim", "messages": [{"role": "user", "content": "hi"}]}'
    lines = (f"Authorization: Bearer {ACME}", "Content-Type: application/json", f"Content-Length: {len(body)}", header)
    status, headers, _ = await raw(played.platform, f"POST {CHAT} HTTP/1.1", *lines, body=body)
    assert status in (200, 400), headers
    names = [line.split(b":")[0].strip() for line in headers.split(b"\r\n")]
    assert b"x-evil" not in names, headers
    assert not any(byte in headers.replace(b"\r\n", b"") for byte in b"\r\n\x00"), headers


async def raw(platform: PlatformProcess, first: str, *lines: str, body: str = "") -> tuple[int, bytes, bytes]:
    """Sends bytes that no client library would; returns status, headers and body."""
    host = URL(platform.http)
    reader, writer = await asyncio.open_connection(host.host, host.port)
    try:
        head = "\r\n".join((first, "Host: collegium", "Connection: close", *lines)) + "\r\n\r\n"
        writer.write(head.encode("latin-1") + body.encode())
        await writer.drain()
        answer = await asyncio.wait_for(reader.read(), 20)
    finally:
        writer.close()
    headers, _, content = answer.partition(b"\r\n\r\n")
    if b"transfer-encoding: chunked" in headers.lower():
        content = content.partition(b"\r\n")[2].rpartition(b"\r\n0\r\n")[0]
    return int(headers.split(b" ", 2)[1]), headers.partition(b"\r\n")[2].lower(), content
