"""Ids that are none, wherever an operator may name one: a typed refusal, told, nothing written, and nobody cut off.

Every route of administration is here, in one of the tables below: one that is added is added there too.
"""

from __future__ import annotations

import re
import secrets
from typing import Any, NamedTuple
from urllib.parse import quote

import aiohttp
import pytest
from collegium_contracts.audit import PLATFORM
from collegium_gateway.identity.roles import ADMIN_ROUTES
from collegium_testing import eventually
from collegium_testing.platforms import PlatformProcess
from yarl import URL

from tests.journeys.town import KEYS

pytestmark = pytest.mark.timeout(180)

INJECTED = "zz 12 12\r\nNATS/1.0\r\n\r\n\r\nPUB audit.globex 5\r\nhello\r\nPUB audit.zz"
# Each could be one.
UNKNOWN = ("nosuchtenant", "-5", "1e999", "sk-clg-x")
NO_IDS = ("*", ">", "a.b", "../../etc/passwd", "x y", "x\ty", "\x00", "A", "x" * 41, "acme\n", INJECTED)

ADMIN = "/v1/admin"
CHANGE = {"kind": "model", "change": {"model": "sim"}}
SPEC = {"name": "taken-in", "base_url": "http://127.0.0.1:9/v1"}
# Where a tenant is named in a body, and what else is said there.
BODIES: dict[tuple[str, str], dict[str, Any]] = {
    ("POST", "/v1/admin/models/{name}/rank"): {"rank": "ta", "domain": "d", "reason": "x"},
    ("POST", "/v1/admin/models/{name}/rank/rollback"): {"domain": "d", "reason": "x"},
    ("POST", "/v1/admin/experiments"): {"name": "e", "kind": "model", "candidate": {"model": "sim"}},
    ("POST", "/v1/admin/experiments/holdout"): {"share": 0.1},
    ("POST", "/v1/admin/flags/kill"): {},
    ("POST", "/v1/admin/flags/revive"): {},
    ("PUT", "/v1/admin/flags/{name}"): CHANGE,
    ("POST", "/v1/admin/flags/{name}/kill"): {},
    ("POST", "/v1/admin/flags/{name}/revive"): {},
    ("POST", "/v1/admin/students"): {"domain": "d"},
    ("POST", "/v1/admin/students/register"): {"export": "x", "model": SPEC},
    ("POST", "/v1/admin/distill"): {"domain": "d"},
    ("POST", "/v1/admin/keys"): {},
    ("POST", "/v1/admin/projects"): {"id": "p"},
    ("POST", "/v1/admin/invoices"): {"month": "2026-01"},
    ("POST", "/v1/admin/ledger/corrections"): {"id": "c1", "usd": "1", "reason": "x"},
}
# Where a tenant is named in the query of what changes something.
QUERIED = (("DELETE", "/v1/admin/flags/{name}"), ("DELETE", "/v1/cache"))
# Where a path names one, and what the body says.
PATHS: dict[tuple[str, str], Any] = {
    ("PATCH", "/v1/admin/tenants/{id}"): {"tier": "free"},
    ("DELETE", "/v1/admin/tenants/{id}"): None,
    ("POST", "/v1/admin/tenants/{id}/suspend"): None,
    ("POST", "/v1/admin/tenants/{id}/resume"): None,
    ("PUT", "/v1/admin/tenants/{id}/limits"): {"concurrency": 1},
    ("DELETE", "/v1/admin/tenants/{id}/limits"): None,
    ("POST", "/v1/admin/tenants/{id}/erasure"): {"dry_run": True},
    ("POST", "/v1/admin/tenants/{id}/data-keys/rotate"): None,
    ("PUT", "/v1/admin/tenants/{id}/gates"): {"gates": []},
    ("DELETE", "/v1/admin/tenants/{id}/gates"): None,
    ("POST", "/v1/admin/projects/{tenant}/{id}/archive"): None,
    ("POST", "/v1/admin/projects/{tenant}/{id}/restore"): None,
    ("PUT", "/v1/admin/budgets/{tenant}/{id}"): {"usd": "1"},
    ("DELETE", "/v1/admin/budgets/{tenant}/{id}"): None,
    ("POST", "/v1/admin/policies/{tenant}/rollback"): {},
    ("POST", "/v1/admin/policies/{tenant}/release"): None,
}
PATHS_READ = (
    "tenants/{id}", "tenants/{id}/storage", "tenants/{id}/limits", "tenants/{id}/erasure", "tenants/{id}/data-keys",
    "tenants/{id}/gates", "budgets/{tenant}/{id}", "policies/{tenant}",
)  # fmt: skip
READ = (
    *("projects", "keys", "budgets", "scoreboard", "ranks", "gaps", "policies", "experiments", "flags", "students"),
    *("samples", "domains", "distill/{id}", "possible-spend", "approvals", "audit", "audit/verify", "audit/export"),
    *("gates/report", "dead-letters"),
)
# What is named there is no tenant; each is asked for with what can be no name.
OTHERS: dict[tuple[str, str], Any] = {
    ("GET", "/v1/admin/models/{name}"): None,
    ("PATCH", "/v1/admin/models/{name}"): {},
    ("DELETE", "/v1/admin/models/{name}"): None,
    ("GET", "/v1/admin/keys/{id}"): None,
    ("POST", "/v1/admin/keys/{id}/revoke"): None,
    ("POST", "/v1/admin/keys/{id}/rotate"): None,
    ("GET", "/v1/admin/keys/{id}/limits"): None,
    ("PUT", "/v1/admin/keys/{id}/limits"): {"concurrency": 1},
    ("DELETE", "/v1/admin/keys/{id}/limits"): None,
    ("GET", "/v1/admin/dead-letters/{id}"): None,
    ("POST", "/v1/admin/models/{name}/price"): {"cost": {"input_usd_per_mtok": "1"}},
    ("POST", "/v1/admin/models/{name}/rank"): {"rank": "ta", "domain": "d"},
    ("POST", "/v1/admin/models/{name}/rank/rollback"): {"domain": "d"},
    ("POST", "/v1/admin/models/{name}/drain"): None,
    ("POST", "/v1/admin/models/{name}/resume"): None,
    ("DELETE", "/v1/admin/models/{name}/prices/{version}"): None,
    ("GET", "/v1/admin/evolution/{id}"): None,
    ("GET", "/v1/admin/approvals/{id}"): None,
    ("POST", "/v1/admin/approvals/{id}/claim"): None,
    ("POST", "/v1/admin/approvals/{id}/return"): None,
    ("POST", "/v1/admin/approvals/{id}/move"): {"queue": "q"},
    ("POST", "/v1/admin/approvals/{id}/answer"): {"decision": "approve"},
    ("GET", "/v1/admin/experiments/{id}"): None,
    ("POST", "/v1/admin/experiments/{id}/start"): None,
    ("POST", "/v1/admin/experiments/{id}/ramp"): {"share": 0.5},
    ("POST", "/v1/admin/experiments/{id}/stop"): None,
    ("POST", "/v1/admin/experiments/{id}/conclude"): {"winner": "control"},
    ("PUT", "/v1/admin/flags/{name}"): CHANGE,
    ("DELETE", "/v1/admin/flags/{name}"): None,
    ("POST", "/v1/admin/flags/{name}/kill"): None,
    ("POST", "/v1/admin/flags/{name}/revive"): None,
    ("GET", "/v1/admin/students/{name}"): None,
    ("POST", "/v1/admin/students/{name}/retire"): None,
    ("GET", "/v1/admin/domains/{id}"): None,
    ("PATCH", "/v1/admin/domains/{id}"): {"name": "n"},
    ("POST", "/v1/admin/domains/{id}/merge"): {"into": "x"},
    ("GET", "/v1/admin/distill/{id}"): None,
    ("GET", "/v1/admin/tasks/{id}/ladder"): None,
}
# Nothing of a tenant's is named there, or what is named is made there, or means none where it is nobody's.
ELSEWHERE = {
    ("GET", "/v1/admin/models"), ("POST", "/v1/admin/models"), ("GET", "/v1/admin/models/{name}/prices"),
    ("GET", "/v1/admin/tenants"), ("POST", "/v1/admin/tenants"), ("POST", "/v1/admin/dead-letters/requeue"),
    ("POST", "/v1/admin/dead-letters/discard"), ("GET", "/v1/admin/encryption"),
    ("POST", "/v1/admin/encryption/rewrap"), ("GET", "/v1/admin/ledger/audit"), ("GET", "/v1/admin/ledger/calls"),
    ("GET", "/v1/admin/evolution"), ("POST", "/v1/admin/evolution/run"), ("GET", "/v1/admin/gates"),
    ("POST", "/v1/admin/gates/test"), ("POST", "/v1/admin/approvals/claim"), ("GET", "/v1/admin/search-index"),
}  # fmt: skip
IN_PATHS = tuple(f"{ADMIN}/{one}/" for one in ("tenants", "projects", "budgets", "policies"))
GOOD = {"name": "sim", "id": "none", "tenant": "acme", "version": "1"}


class Asked(NamedTuple):
    method: str
    path: str
    body: Any = None


def filled(path: str, slot: str = "", value: str = "") -> str:
    """Returns a route's path, encoded, with a value in one place and good ones in the others."""
    return re.sub(r"\{(\w+)\}", lambda m: quote(value if m[1] == slot else GOOD[m[1]], safe=""), path)


def slot_of(path: str) -> str:
    return "tenant" if "{tenant}" in path else "id"


def acts(tenant: str) -> list[Asked]:
    """Everything that changes something of a tenant."""
    query = f"?tenant={quote(tenant, safe='')}"
    return [
        *(Asked(method, filled(path), {**body, "tenant": tenant}) for (method, path), body in BODIES.items()),
        *(Asked(method, filled(path) + query) for method, path in QUERIED),
        *(Asked(method, filled(path, slot_of(path), tenant), body) for (method, path), body in PATHS.items()),
    ]


def looks(tenant: str) -> list[Asked]:
    query = f"?tenant={quote(tenant, safe='')}"
    outside = [Asked("GET", f"/v1/{path}{query}") for path in ("usage", "requests", "invoices", "cache")]
    by_path = [Asked("GET", f"{ADMIN}/{filled(path, slot_of(path), tenant)}") for path in PATHS_READ]
    return [*outside, *by_path, *(Asked("GET", f"{ADMIN}/{filled(path)}{query}") for path in READ)]


def test_no_route_of_administration_is_forgotten() -> None:
    read = {("GET", f"{ADMIN}/{path}") for path in (*PATHS_READ, *READ)}
    known = {*BODIES, *QUERIED, *PATHS, *OTHERS, *read, *ELSEWHERE} - {("DELETE", "/v1/cache")}
    assert known == set(ADMIN_ROUTES)


def session(platform: PlatformProcess) -> aiohttp.ClientSession:
    return aiohttp.ClientSession(headers={"Authorization": f"Bearer {platform.admin_key}"})


async def answer(platform: PlatformProcess, asking: aiohttp.ClientSession, asked: Asked, trace: str = "") -> Any:
    headers = {"traceparent": f"00-{trace or secrets.token_hex(16)}-{secrets.token_hex(8)}-00"}
    url = URL(platform.http + asked.path, encoded=True)
    async with asking.request(asked.method, url, headers=headers, json=asked.body) as response:
        text = await response.text()
        content = await response.json() if response.content_type == "application/json" else text
        return response.status, content


async def standing(platform: PlatformProcess, asking: aiohttp.ClientSession) -> dict[str, Any]:
    """Everything that an act on a tenant could have written, and whose chains there are."""
    found: dict[str, Any] = {}
    for what in ("tenants", "keys", "projects", "ranks", "flags", "experiments", "students", "policies", "domains"):
        status, content = await answer(platform, asking, Asked("GET", f"{ADMIN}/{what}"))
        assert status == 200, content
        rows = content.pop("data")
        found[what] = [{name: value for name, value in row.items() if name != "last_used_at"} for row in rows], content
    return found


async def chains(platform: PlatformProcess, asking: aiohttp.ClientSession) -> set[str]:
    found: set[str] = set()
    cursor = ""
    while True:
        status, content = await answer(platform, asking, Asked("GET", f"{ADMIN}/audit/verify?cursor={quote(cursor)}"))
        assert status == 200, content
        assert content["holds"], content
        found |= {chain["tenant"] for chain in content["data"]}
        if not (cursor := content["next_cursor"] or ""):
            return found


async def told(platform: PlatformProcess, asking: aiohttp.ClientSession, traces: set[str]) -> None:
    """Waits until the operator's trail holds a refusal for each of these."""

    async def all_of_them() -> bool:
        path = f"{ADMIN}/audit?tenant=operator&outcome=refused&limit=500"
        _, content = await answer(platform, asking, Asked("GET", path))
        return traces <= {record["trace"] for record in content["data"]}

    await eventually(all_of_them, every_seconds=0.1)


async def exported(platform: PlatformProcess, asking: aiohttp.ClientSession, tenant: str) -> None:
    """Waits until it is recorded that a chain was looked for: what would be recorded of its tenant is then, too."""

    async def there() -> bool:
        path = f"{ADMIN}/audit?tenant=operator&action=audit.export&limit=100"
        _, content = await answer(platform, asking, Asked("GET", path))
        return any(record["object"] == tenant for record in content["data"])

    await eventually(there, every_seconds=0.1)


@pytest.mark.parametrize("tenant", [*NO_IDS, *UNKNOWN], ids=ascii)
async def test_a_tenant_that_is_none_is_refused_told_and_writes_nothing(town: PlatformProcess, tenant: str) -> None:
    async with session(town) as asking:
        before = await standing(town, asking)
        traces: set[str] = set()
        for asked in acts(tenant):
            trace = secrets.token_hex(16)
            traces.add(trace)
            status, content = await answer(town, asking, asked, trace)
            code = content["error"]["code"] if status >= 400 else content
            if tenant in UNKNOWN:
                assert (status, code) == (404, "not_found"), (asked, content)
            else:
                assert (status, code) in ((400, "invalid_value"), (404, "not_found")), (asked, content)
                # In a path it may be no route at all.
                in_path = asked.path.startswith(IN_PATHS)
                assert in_path or (status, content["error"]["param"]) == (400, "tenant"), (asked, content)
        await told(town, asking, traces)
        for asked in looks(tenant):
            status, content = await answer(town, asking, asked)
            if tenant in UNKNOWN:
                assert status in (200, 400, 404), (asked, content)
            else:
                assert status in (400, 404), (asked, content)
        if tenant in UNKNOWN:
            await exported(town, asking, tenant)
        assert await standing(town, asking) == before
        tenants = {row["id"] for row in before["tenants"][0]}
        assert await chains(town, asking) <= {*tenants, PLATFORM}


@pytest.mark.parametrize("name", [one for one in NO_IDS if one not in ("A", "acme\n", "x" * 41)], ids=ascii)
async def test_a_name_that_is_nobodys_is_refused_and_writes_nothing(town: PlatformProcess, name: str) -> None:
    async with session(town) as asking:
        before = await standing(town, asking)
        for (method, path), body in OTHERS.items():
            for slot in re.findall(r"\{(\w+)\}", path):
                asked = Asked(method, filled(path, slot, name), body)
                status, content = await answer(town, asking, asked)
                assert 400 <= status < 500, (asked, content)
                assert content["error"]["code"] != "internal_error", (asked, content)
        assert await standing(town, asking) == before


@pytest.mark.parametrize("domain", ["a\r\nb", "a\x00", "a\tb", "d" * 65], ids=ascii)
async def test_a_domain_that_is_none_is_refused_and_writes_nothing(town: PlatformProcess, domain: str) -> None:
    async with session(town) as asking:
        before = await standing(town, asking)
        for (method, path), body in BODIES.items():
            if "domain" not in body and not path.startswith((f"{ADMIN}/experiments", f"{ADMIN}/flags/{{name}}")):
                continue
            if path.endswith(("/holdout", "/kill", "/revive")):
                continue
            asked = Asked(method, filled(path), {**body, "tenant": "acme", "domain": domain})
            status, content = await answer(town, asking, asked)
            assert (status, content["error"]["code"]) == (400, "invalid_value"), (asked, content)
            assert content["error"]["param"] == "domain", (asked, content)
        assert await standing(town, asking) == before


async def test_a_rank_of_a_tenant_is_given_and_taken_back_after_all_this(town: PlatformProcess) -> None:
    """What is refused above is refused for its ids, and left every service with its connection."""
    assert "acme" in KEYS
    about = {"domain": "ids", "tenant": "acme", "reason": "a test"}
    async with session(town) as asking:
        path = f"{ADMIN}/models/sim/rank"
        status, content = await answer(town, asking, Asked("POST", path, {**about, "rank": "ta"}))
        assert (status, content.get("tenant"), content.get("after")) == (200, "acme", "ta"), content
        status, content = await answer(town, asking, Asked("POST", f"{path}/rollback", about))
        assert (status, content.get("ground")) == (200, "rollback"), content

        async def recorded() -> bool:
            _, trail = await answer(town, asking, Asked("GET", f"{ADMIN}/audit?tenant=acme&action=models.rank"))
            return any(one["details"].get("domain") == "ids" for one in trail["data"])

        await eventually(recorded, every_seconds=0.1)
