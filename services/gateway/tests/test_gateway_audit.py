"""Administrative acts, refusals and uses of keys in the audit trail, over HTTP and on real parts."""

from __future__ import annotations

import hashlib
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import msgspec
import pytest
from collegium_bus.kv import Bucket
from collegium_contracts import audit as a
from collegium_contracts import codec
from collegium_contracts import subjects as s
from collegium_contracts.audit_chain import ChainCheck
from collegium_contracts.audit_export import read_lines
from collegium_contracts.ids import API_KEY
from collegium_contracts.state import KeyRecord, TenantRecord
from collegium_gateway.operating.audit_acts import Act, act_of, concerned, reply_of, told
from collegium_testing import eventually
from collegium_testing.platform import RunningPlatform
from collegium_testing.platforms import make_key

SERVICES = ("billing", "router", "worker-pool", "gateway")


class Door:
    """Sessions of an operator, of two tenants' administrators and of a plain user."""

    def __init__(self, platform: RunningPlatform, sessions: dict[str, aiohttp.ClientSession]) -> None:
        self.platform = platform
        self.sessions = sessions

    async def call(self, who: str, method: str, path: str, status: int, **fields: Any) -> Any:
        async with self.sessions[who].request(method, path, **fields) as response:
            text = await response.text()
            assert response.status == status, text
            return json.loads(text) if response.content_type == "application/json" else text

    async def trail(self, who: str = "operator", query: str = "") -> list[dict[str, Any]]:
        return (await self.call(who, "GET", f"/v1/admin/audit?limit=500{query}", 200))["data"]

    async def told(self, tenant: str, action: str, outcome: str, *, count: int = 1) -> list[dict[str, Any]]:
        """Waits until so many records of a kind stand, and returns them, newest first."""

        async def found() -> list[dict[str, Any]]:
            records = await self.trail(query=f"&tenant={tenant}&action={action}&outcome={outcome}")
            return records if len(records) >= count else []

        return await eventually(found)


async def introduce(platform: RunningPlatform, tenant: str, scopes: list[str]) -> str:
    """Adds a tenant with one key as billing would publish it."""
    key = make_key(tenant.replace("-", ""))
    match = API_KEY.match(key)
    assert match is not None
    record = KeyRecord(id=match[1], secret_sha256=hashlib.sha256(match[2].encode()).hexdigest(), scopes=scopes)
    bucket = Bucket(platform.connection, s.KV_TENANTS)
    await bucket.put(tenant, codec.encode(TenantRecord(id=tenant, tier="pro", keys=[record])))
    return key


@pytest.fixture
async def door(clean_nats_url: str, database_url: str, tmp_path: Path) -> AsyncIterator[Door]:
    async with RunningPlatform(clean_nats_url, database_url, folder=tmp_path, services=SERVICES) as platform:
        operator = (tmp_path / "admin.key").read_text().strip()
        keys = {
            "operator": operator,
            "acme": await introduce(platform, "acme", ["audit"]),
            "globex": await introduce(platform, "globex", ["admin"]),
            "user": await introduce(platform, "plain", ["chat", "tasks"]),
            "nobody": make_key("nobody"),
        }
        sessions = {
            who: aiohttp.ClientSession(platform.http, headers={"Authorization": f"Bearer {key}"})
            for who, key in keys.items()
        }
        book = platform.app("gateway")._keys
        await eventually(lambda: {"acme", "globex", "plain"} <= set(book.tenants()))
        yield Door(platform, sessions)
        for session in sessions.values():
            await session.close()


async def test_an_act_is_recorded_before_and_after_it_is_done_and_tells_no_secret(door: Door) -> None:
    await door.call("operator", "POST", "/v1/admin/tenants", 201, json={"id": "initech", "tier": "pro"})
    made = await door.call(
        "operator", "POST", "/v1/admin/keys", 201, json={"tenant": "initech", "scopes": ["chat"], "name": "ci"}
    )
    [begun] = await door.told("operator", "keys.create", "begun")
    [done] = await door.told("operator", "keys.create", "done")
    [concerned] = await door.told("initech", "keys.create", "done")
    assert begun["seq"] < done["seq"]
    assert done["details"]["begun"] == concerned["details"]["begun"] == begun["id"]
    assert done["object"] == made["id"]
    assert done["details"]["tenant"] == "initech"
    assert (done["details"]["scopes"], done["details"]["name"]) == ("chat", "ci")
    assert concerned["details"]["actor_tenant"] == "operator"
    [created] = await door.told("initech", "tenants.create", "done")
    assert created["object"] == "initech"
    secret = made["key"].rpartition("-")[2]
    rows = await door.platform.connection.api(f"STREAM.INFO.{s.AUDIT}")
    assert secret not in json.dumps(await door.trail()) + rows.decode()
    verdict = await door.call("operator", "GET", "/v1/admin/audit/verify", 200)
    assert (verdict["holds"], verdict["next_cursor"]) == (True, None)


BAD = [
    ("POST", "/v1/admin/tenants", {"id": "x", "tier": "platinum"}, 400, "tenants.create", "invalid_value"),
    ("POST", "/v1/admin/tenants", {"id": "../x"}, 400, "tenants.create", "invalid_value"),
    ("POST", "/v1/admin/tenants", b"{", 400, "tenants.create", "malformed_json"),
    ("POST", "/v1/admin/keys/..%2f..%2fx/revoke", None, 404, "keys.revoke", "not_found"),
    ("POST", "/v1/admin/keys/nosuchkey/revoke", None, 404, "keys.revoke", "not_found"),
    ("POST", "/v1/admin/keys", {"tenant": "nosuch"}, 404, "keys.create", "not_found"),
    ("DELETE", "/v1/admin/tenants", None, 405, "tenants.delete", "method_not_allowed"),
    ("PUT", "/v1/admin/invented/thing", {"id": 1}, 404, "invented.set", "not_found"),
]


@pytest.mark.parametrize(("method", "path", "body", "status", "action", "code"), BAD, ids=lambda one: str(one)[:24])
async def test_a_refused_act_is_recorded_and_changes_nothing(
    door: Door, method: str, path: str, body: Any, status: int, action: str, code: str
) -> None:
    before = await door.call("operator", "GET", "/v1/admin/keys", 200)
    fields = {"data": body} if isinstance(body, bytes) else {"json": body} if body is not None else {}
    await door.call("operator", method, path, status, **fields)
    [refused] = await door.told("operator", action, "refused")
    [begun] = await door.told("operator", action, "begun")
    assert (refused["reason"], refused["details"]["begun"]) == (code, begun["id"])
    assert await door.call("operator", "GET", "/v1/admin/keys", 200) == before


async def test_acts_of_those_who_may_not_are_told_once_and_counted(door: Door) -> None:
    for _ in range(5):
        await door.call("user", "POST", "/v1/admin/tenants", 403, json={"id": "mine"})
    [refused] = await door.told("plain", "tenants.create", "refused")
    assert (refused["reason"], refused["count"]) == ("insufficient_scope", 1)
    assert refused["details"]["id"] == "mine"
    await door.platform.stop(door.platform.hosted("gateway"))
    await door.platform.start("gateway")
    for session in door.sessions.values():
        session._base_url = session._base_url.with_port(door.platform.app("gateway").port)
    await eventually(lambda: door.platform.app("gateway").readiness()["directory"])
    counts = [one["count"] for one in await door.told("plain", "tenants.create", "refused", count=2)]
    assert sorted(counts) == [1, 4]
    assert all(one["id"] != "mine" for one in (await door.call("operator", "GET", "/v1/admin/tenants", 200))["data"])


async def test_keys_are_told_of_at_first_use_and_when_they_are_refused(door: Door) -> None:
    for _ in range(3):
        await door.call("user", "GET", "/v1/models", 200)
    [used] = await door.told("plain", a.KEY_USED, "done")
    assert used["details"]["address"] == "127.0.0.1"
    for _ in range(4):
        await door.call("nobody", "POST", "/v1/chat/completions", 401, json={})
    await door.call("nobody", "POST", "/v1/admin/tenants", 401, json={"id": "x"})
    [refused] = await door.told(a.PLATFORM, a.KEY_REFUSED, "refused")
    assert (refused["reason"], refused["details"]["path"]) == ("invalid_api_key", "/v1/chat/completions")
    wrong = door.sessions["user"].headers["Authorization"][:-4] + "zzzz"
    async with aiohttp.ClientSession(door.platform.http, headers={"Authorization": wrong}) as session:
        await session.get("/v1/models")
    [guessed] = await door.told("plain", a.KEY_REFUSED, "refused")
    assert guessed["object"] == used["object"]


async def test_a_tenants_auditor_and_administrator_see_their_own_trail_alone(door: Door) -> None:
    for tenant in ("initech", "hooli"):
        await door.call("operator", "POST", "/v1/admin/tenants", 201, json={"id": tenant})
    await door.call("user", "GET", "/v1/models", 200)
    await door.call("acme", "GET", "/v1/models", 403)
    await door.call("globex", "GET", "/v1/models", 403)
    await door.told("acme", a.KEY_USED, "done")
    await door.told("globex", a.KEY_USED, "done")
    assert {one["tenant"] for one in await door.trail()} >= {"acme", "globex", "operator", "initech", "plain"}
    for who in ("acme", "globex"):
        assert {one["tenant"] for one in await door.trail(who)} == {who}
        own = await door.call(who, "GET", "/v1/admin/audit/verify", 200)
        assert [one["tenant"] for one in own["data"]] == [who]
        assert f'"tenant":"{who}"' in await door.call(who, "GET", "/v1/admin/audit/export", 200)
        for other in {"acme", "globex", "operator", a.PLATFORM} - {who}:
            for path in ("", "/verify", "/export"):
                await door.call(who, "GET", f"/v1/admin/audit{path}?tenant={other}", 404)
    for path in ("", "/verify", "/export"):
        await door.call("user", "GET", f"/v1/admin/audit{path}", 403)
        await door.call("nobody", "GET", f"/v1/admin/audit{path}", 401)


@pytest.mark.parametrize("form", ["jsonl", "csv"])
async def test_an_export_carries_its_proof(door: Door, form: str) -> None:
    for number in range(3):
        await door.call("operator", "POST", "/v1/admin/tenants", 201, json={"id": f"t{number}"})
    await door.call("operator", "POST", "/v1/admin/keys", 201, json={"tenant": "t0", "name": '=cmd|"x"\',é'})
    await door.told("t0", "keys.create", "done")
    text = await door.call("operator", "GET", f"/v1/admin/audit/export?tenant=t0&format={form}", 200)
    chain, *rest = list(read_lines(text.splitlines(keepends=True)))
    records = [one for one in rest if isinstance(one, a.AuditRecord)]
    check = ChainCheck("t0", chain.after_seq, chain.after_hash)
    assert [check.take(record) for record in records] == [None] * 2
    assert [record.action for record in records] == ["tenants.create", "keys.create"]
    head = next(one for one in rest if isinstance(one, a.Signed) and one.kind == "head")
    assert check.end(head) is None
    assert "\n=" not in text
    assert ",=" not in text
    [exported] = await door.told("operator", "audit.export", "done")
    assert exported["object"] == "t0"


async def test_an_act_that_cannot_be_recorded_is_not_done(door: Door) -> None:
    info = msgspec.json.decode(await door.platform.connection.api(f"STREAM.INFO.{s.AUDIT}"))
    shut = {**info["config"], "sealed": False, "max_msgs": 1, "discard": "new"}
    await door.platform.app("billing").audit.sealer.stop()
    await door.platform.publisher.publish(s.audit("filler"), b"x", message_id="")
    await door.platform.connection.api(f"STREAM.UPDATE.{s.AUDIT}", msgspec.json.encode(shut))
    refused = await door.call("operator", "POST", "/v1/admin/tenants", 503, json={"id": "late"})
    assert refused["error"]["code"] == "audit_unavailable"
    assert all(one["id"] != "late" for one in (await door.call("operator", "GET", "/v1/admin/tenants", 200))["data"])
    # Work goes on; what would have been recorded of it waits.
    await door.call("user", "GET", "/v1/models", 200)
    recorder = door.platform.app("gateway")._audit
    assert recorder.waiting > 0
    await door.platform.connection.api(f"STREAM.UPDATE.{s.AUDIT}", msgspec.json.encode(info["config"]))
    await eventually(lambda: recorder.waiting == 0)


async def test_a_keyed_act_is_done_and_recorded_once(door: Door) -> None:
    keyed = {"Idempotency-Key": "k1"}
    for _ in range(2):
        await door.call("operator", "POST", "/v1/admin/tenants", 201, json={"id": "once"}, headers=keyed)
    await door.told("once", "tenants.create", "done")
    assert len(await door.told("operator", "tenants.create", "begun")) == 1


def test_names_and_mergers_of_domains_are_told_in_the_chain_of_whose_they_are():
    rename, merger = act_of("PATCH", "/v1/admin/domains/topic-1"), act_of("POST", "/v1/admin/domains/topic-1/merge")
    assert rename == Act("domains.change", "topic-1")
    assert merger == Act("domains.merge", "topic-1")
    assert told(b'{"name": "lost cards"}') == {"name": "lost cards"}
    assert told(b'{"into": "topic-2"}') == {"into": "topic-2"}
    reply = reply_of(b'{"id": "topic-1", "tenant": "acme", "into": "topic-2"}')
    assert [concerned(act, reply) for act in (rename, merger)] == ["acme", "acme"]
