"""The audit trail between two times: listed, exported and reported, over HTTP and by the commands."""

from __future__ import annotations

import json
import secrets
from collections.abc import Callable
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from collegium_cli.arguments import parser
from collegium_testing import eventually
from collegium_testing.platforms import PlatformProcess

pytestmark = pytest.mark.timeout(180)

TENANT = "timed"
COMMAND = Callable[..., tuple[int, str]]


@pytest.fixture
def collegium(town: PlatformProcess, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> COMMAND:
    monkeypatch.setenv("COLLEGIUM_URL", town.http)
    monkeypatch.setenv("COLLEGIUM_API_KEY", town.admin_key)

    def run(*words: str) -> tuple[int, str]:
        options = parser().parse_args(list(words))
        return options.run(options), capsys.readouterr().out

    return run


@pytest.fixture
async def acts(town: PlatformProcess) -> list[dict[str, Any]]:
    """Three acts done to a tenant one after another, as its chain tells of them."""
    names = [f"p-{secrets.token_hex(6)}" for _ in range(3)]
    async with operator(town) as http:
        for name in names:
            async with http.post("/v1/admin/projects", json={"tenant": TENANT, "id": name}) as response:
                assert response.status == 201, await response.text()

        async def sealed() -> list[dict[str, Any]]:
            page = (await got(http, f"/v1/admin/audit?tenant={TENANT}&limit=500"))["data"]
            found = [one for one in page if one["object"] in names]
            return found if len(found) == len(names) else []

        found = sorted(await eventually(sealed), key=lambda one: one["seq"])
    assert len({one["at"] for one in found}) == len(names)
    return found


def operator(platform: PlatformProcess) -> aiohttp.ClientSession:
    return aiohttp.ClientSession(platform.http, headers={"Authorization": f"Bearer {platform.admin_key}"})


async def got(http: aiohttp.ClientSession, path: str) -> dict[str, Any]:
    async with http.get(path) as response:
        assert response.status == 200, await response.text()
        return await response.json()


def numbers(records: list[dict[str, Any]]) -> list[int]:
    return sorted(one["seq"] for one in records)


async def test_a_chain_is_read_and_exported_between_two_times(town: PlatformProcess, acts: list[dict[str, Any]]):
    first, middle, last = acts
    async with operator(town) as http:
        for path in ("/v1/admin/audit", "/v1/admin/audit?action=projects"):
            and_ = "&" if "?" in path else "?"

            async def between(since: str, until: str, path: str = f"{path}{and_}") -> list[int]:
                found = await got(http, f"{path}tenant={TENANT}&limit=500{since}{until}")
                return numbers(found["data"])

            assert await between(f"&from={first['at']}", f"&to={last['at']}") == numbers([first, middle])
            assert (await between(f"&from={middle['at']}", ""))[:2] == numbers([middle, last])
            assert (await between("", f"&to={last['at']}"))[-2:] == numbers([first, middle])
            assert await between("&from=2999-01-01", "") == []
            assert await between("", "&to=2026-01-01") == []
        for since, until in ((first, None), (None, last), (first, last)):
            query = f"tenant={TENANT}&format=jsonl"
            query += f"&from={since['at']}" if since else ""
            query += f"&to={until['at']}" if until else ""
            async with http.get(f"/v1/admin/audit/export?{query}") as response:
                assert response.status == 200, await response.text()
                lines = [json.loads(line) for line in (await response.text()).splitlines()]
            kept = [one["seq"] for one in lines if "prev_hash" in one]
            assert kept[0] == (first["seq"] if since else 1)
            # On to the next signed place, so that it can be checked.
            assert kept[-1] >= middle["seq"]
        for query in (f"from={first['at']}", f"to={last['at']}", f"from={first['at']}&to={last['at']}"):
            for form in ("json", "csv"):
                async with http.get(f"/v1/admin/gates/report?{query}&format={form}") as response:
                    assert response.status == 200, await response.text()


def test_the_commands_take_two_times(acts: list[dict[str, Any]], collegium: COMMAND, tmp_path: Path):
    first, middle, last = acts
    code, listed = collegium(*("audit", "ls", "--json", "--tenant", TENANT, "--from", first["at"], "--to", last["at"]))
    assert (code, numbers([json.loads(line) for line in listed.splitlines()])) == (0, numbers([first, middle]))
    times: list[tuple[str, ...]] = [
        ("--from", "2026-01-01"), ("--to", last["at"]), ("--from", first["at"], "--to", last["at"])
    ]  # fmt: skip
    for given in times:
        assert collegium("audit", "ls", "--tenant", TENANT, *given)[0] == 0
        assert collegium("audit", "verify", "--tenant", TENANT, *given)[0] == 0
        for form in ("csv", "jsonl"):
            file = tmp_path / f"chain.{form}"
            asked = ("audit", "export", "--tenant", TENANT, "--format", form, "--out", str(file), *given)
            assert collegium(*asked)[0] == 0, "what was written holds"
            assert f"{middle['object']}" in file.read_text()
        for form in ((), ("--csv",), ("--json",), ("--details", "--csv")):
            assert collegium("gate", "report", *given, *form)[0] == 0
