"""Models earn ranks on a running platform, lose them, and get work by them, without a restart."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from collections.abc import Iterator
from typing import Any, NamedTuple

import aiohttp
import pytest
from collegium_contracts.ids import shard_of
from collegium_testing import Behaviour, ModelSimulator, Rule, eventually
from collegium_testing.platforms import PlatformProcess, close_breakers, configuration, make_key, running_platform

from tests.conftest import LoopThread

pytestmark = pytest.mark.timeout(240)

SCHOOL = (("small", "student", "1"), ("large", "teacher", "10"))
TENANTS = ("north", "south")
# As bold as settings allow, so that a few tasks are enough.
RANKS = {"odds": 20, "margin": 0.3, "false_share": 0.5}
PROBES = {"shadow_share": 1, "budget_share": 1, "tenants": list(TENANTS), "delay": "1s"}
# Whose work earns what the probes of the others may cost: each tenant's is of its shard.
RICH = ("rich36", "rich4")
# What two tenants together have to show for a step up.
EACH = 17


class School(NamedTuple):
    """The platform, the simulator behind its models, and the keys of its tenants."""

    platform: PlatformProcess
    simulator: ModelSimulator
    keys: dict[str, str]

    def says(self, **by_model: str) -> None:
        """Scripts what each model answers."""
        self.simulator.script(*(Rule(Behaviour(answer=text), model=name) for name, text in by_model.items()))

    async def call(self, method: str, path: str, body: Any = None) -> tuple[int, Any]:
        headers = {"Authorization": f"Bearer {self.platform.admin_key}"}
        async with (
            aiohttp.ClientSession(self.platform.http, headers=headers) as session,
            session.request(method, path, json=body) as response,
        ):
            return response.status, await response.json()

    async def ask(self, tenant: str, domain: str, count: int = 1, words: int = 1) -> list[tuple[str, str]]:
        """Asks so many different questions at once; returns who answered each, and at which rank."""
        headers = {"Authorization": f"Bearer {self.keys[tenant]}"}
        async with aiohttp.ClientSession(self.platform.http, headers=headers) as session:

            async def one(number: int) -> tuple[str, str]:
                body = {
                    "model": "auto",
                    "max_tokens": 8,
                    "messages": [{"role": "user", "content": f"{'Which ' * words}is number {number}?"}],
                    "collegium": {"domain": domain},
                }
                async with session.post("/v1/chat/completions", json=body) as response:
                    answer = await response.json()
                    assert response.status == 200, answer
                    return answer["collegium"]["model"], answer["collegium"]["rank"]

            return await asyncio.gather(*(one(number) for number in range(count)))

    async def round(self) -> Any:
        """Has a round of learning done and returns its report."""
        status, begun = await self.call("POST", "/v1/admin/evolution/run")
        assert status in (202, 409), begun

        async def is_over() -> Any:
            _, found = await self.call("GET", "/v1/admin/evolution?limit=1")
            return found["data"][0] if found["data"][0]["state"] != "running" else None

        ended: Any = await eventually(is_over)
        return (await self.call("GET", f"/v1/admin/evolution/{ended['id']}"))[1]

    async def changes(self, domain: str, ground: str) -> list[Any]:
        _, found = await self.call("GET", "/v1/admin/ranks?model=small")
        return [one for one in found["data"] if (one["domain"], one["ground"]) == (domain, ground)]

    async def learns(self, domain: str, ground: str) -> Any:
        """Does rounds until a change of the small model's rank stands; returns the newest."""

        async def changed() -> Any:
            report = await self.round()
            found = await self.changes(domain, ground)
            assert found, report["steps"]
            return found[0]

        return await eventually(changed)

    async def compared(self, count: int) -> None:
        """Waits until so many pairs were counted, by rounds' reports."""

        async def enough() -> bool:
            [shadow] = [step for step in (await self.round())["steps"] if step["name"] == "shadow"]
            return any(f"small: {number} pairs by shadow" in shadow["lines"][0] for number in range(count, count + 99))

        await eventually(enough, deadline_seconds=90)

    def cli(self, *words: str) -> str:
        command = [sys.executable, "-m", "collegium_cli", *words, "--data", str(self.platform.folder)]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout


@pytest.fixture(scope="module")
def _school(
    tmp_path_factory: pytest.TempPathFactory, simulator: ModelSimulator, loop_thread: LoopThread
) -> Iterator[School]:
    keys = {name: make_key(name) for name in (*TENANTS, *RICH)}
    config = configuration(simulator.base_url, tenants=keys, evolution={"probes": PROBES, "ranks": RANKS})
    # Who answers is to follow from ranks alone.
    config["routing"] = {"exploration": 0.0, "trial_share": 0.0}
    config["models"] = [
        {
            "name": name,
            "base_url": simulator.base_url,
            "rank": rank,
            "price": {"input_usd_per_mtok": usd, "output_usd_per_mtok": usd},
        }
        for name, rank, usd in SCHOOL
    ]
    with running_platform(tmp_path_factory.mktemp("ranks") / "data", config) as platform:
        yield School(platform, simulator, keys)


@pytest.fixture
async def school(_school: School) -> School:
    _school.simulator.script()
    _school.simulator.reset()
    await close_breakers(_school.platform)
    return _school


async def test_an_equal_student_is_promoted_a_worse_one_is_not_and_a_fall_takes_the_rank_away(school: School) -> None:
    school.says(small="seven", large="seven")
    assert list(map(shard_of, RICH)) == list(map(shard_of, TENANTS))
    for rich in RICH:
        await school.ask(rich, "", count=8, words=8_000)
    for tenant in TENANTS:
        assert set(await school.ask(tenant, "maths", EACH)) == {("large", "teacher")}
    change = await school.learns("maths", "as_good_and_cheaper")
    told = change["evidence"]
    assert (change["before"], change["after"], change["state"], change["tenant"]) == (None, "ta", "applied", None)
    assert (told["wins"], told["losses"], told["tenants"]) == (0, 0, 2)
    assert told["ties"] >= 30
    assert told["odds"] >= told["needed"]
    assert told["price_ratio"] == pytest.approx(0.1)
    assert "as good as those above it at 0.1 of their price" in change["reason"]
    assert "as good as those above it" in school.cli("model", "rank", "small")

    school.says(small="six", large="seven")
    for tenant in TENANTS:
        await school.ask(tenant, "law", EACH)
    await school.compared(4 * EACH)
    assert await school.changes("law", "as_good_and_cheaper") == []

    for tenant in TENANTS:
        await school.ask(tenant, "maths", EACH)
    fallen = await school.learns("maths", "worse")
    assert (fallen["before"], fallen["after"]) == ("ta", "student")
    assert fallen["evidence"]["losses"] > 0
    report = school.cli("evolution", "show")
    assert "promotion: done" in report
    assert "students: done" in report


async def test_work_follows_a_rank_and_its_rollback_while_it_goes_on(school: School) -> None:
    path = "/v1/admin/models/small/rank"
    status, change = await school.call("POST", path, {"rank": "teacher", "domain": "art", "reason": "a try"})
    assert (status, change["before"], change["after"], change["ground"]) == (200, None, "teacher", "operator")

    async def answered_by(model: str, domain: str) -> bool:
        return set(await school.ask("north", domain, 4)) == {(model, "teacher")}

    await eventually(lambda: answered_by("small", "art"))
    assert await answered_by("large", "music")
    _, [row] = 0, [one for one in (await school.call("GET", "/v1/admin/models"))[1]["data"] if one["name"] == "small"]
    assert {"domain": "art", "rank": "teacher", "tenant": None} in row["earned"]
    asking = asyncio.create_task(school.ask("south", "art", 40))
    shown = json.loads(school.cli("model", "rank", "small", "--domain", "art", "--rollback", "--json"))
    assert (shown["before"], shown["after"], shown["ground"]) == ("teacher", None, "rollback")
    assert {rank for _, rank in await asking} == {"teacher"}, "whoever answers, nobody is dropped"
    await eventually(lambda: answered_by("large", "art"))
    status, refused = await school.call("POST", f"{path}/rollback", {"domain": "art"})
    assert (status, refused["error"]["code"]) == (409, "nothing_to_roll_back")
    assert (await school.call("POST", "/v1/admin/models/none/rank", {"rank": "ta"}))[0] == 404
    assert (await school.call("POST", path, {"rank": "ta", "tenant": "north"}))[0] == 400
    assert (await school.call("POST", path, {"rank": "king"}))[0] == 400


async def test_a_drained_model_gets_no_work_until_it_is_resumed(school: School) -> None:
    assert "gets no more work" in school.cli("model", "drain", "large")

    async def answered_by(model: str) -> bool:
        return {name for name, _ in await school.ask("north", "art", 4)} == {model}

    await eventually(lambda: answered_by("small"))
    assert "large (drained)" in school.cli("model", "ls")
    assert "gets work" in school.cli("model", "resume", "large")
    await eventually(lambda: answered_by("large"))


async def test_endpoints_are_looked_at_before_anybody_waits_for_them(school: School) -> None:
    async def looked() -> bool:
        _, found = await school.call("GET", "/v1/admin/models")
        seen = {one["name"]: one["endpoint"] for one in found["data"] if one["name"] in ("small", "large")}
        return all(one is not None and one["state"] in ("ok", "unlisted") for one in seen.values())

    await eventually(looked)
    assert "closed" in school.cli("model", "health", "small")


async def test_scoreboards_and_gaps_are_a_tenants_own(school: School) -> None:
    _, board = await school.call("GET", "/v1/admin/scoreboard?tenant=north&model=large&domain=maths")
    [row] = board["data"]
    assert row["calls"] == pytest.approx(2 * EACH, rel=0.01)
    _, both = await school.call("GET", "/v1/admin/scoreboard?model=large&domain=maths&half_life_days=3")
    assert both["data"][0]["calls"] == pytest.approx(4 * EACH, rel=0.01)
    assert (await school.call("GET", "/v1/admin/scoreboard?half_life_days=x"))[0] == 400
    assert (await school.call("GET", "/v1/admin/gaps"))[1]["data"] == []
    assert (await school.call("GET", "/v1/admin/evolution/cyc_none"))[0] == 404
    assert "large" in school.cli("scoreboard", "--tenant", "south")
    assert school.cli("gap", "ls").startswith("id")
