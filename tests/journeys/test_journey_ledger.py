"""The ledger of a whole platform: laws hold over real work, prices change for later calls only, corrections once."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

from collegium_testing import eventually

from tests.conftest import Stage

CHAT = "/v1/chat/completions"
GOOD = {"model": "sim", "messages": [{"role": "user", "content": "hi there"}]}
PRICES = "/v1/admin/models/sim/prices"
PRICE = "/v1/admin/models/sim/price"


async def asked(stage: Stage) -> None:
    async with stage.session() as session, session.post(CHAT, json=GOOD) as response:
        assert response.status == 200


async def versions(operator: Any) -> list[dict[str, Any]]:
    async with operator.get(PRICES) as response:
        assert response.status == 200
        return (await response.json())["data"]


def run_cli(stage: Stage, *words: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "COLLEGIUM_URL": stage.http, "COLLEGIUM_API_KEY": stage.platform.admin_key}
    command = [sys.executable, "-m", "collegium_cli", *words]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)


async def test_a_changed_price_is_a_version_for_later_calls_and_the_laws_hold(stage: Stage):
    await asked(stage)
    async with stage.session(stage.platform.admin_key) as operator:
        first = (await eventually(lambda: versions(operator)))[0]
        cost = {**first["cost"], "input_usd_per_mtok": "7.000001"}
        async with operator.post(PRICE, json={"cost": cost, "charge": {"markup": "2"}}) as response:
            assert response.status == 201, await response.text()
            made = await response.json()
        async with operator.post(PRICE, json={"cost": cost, "charge": {"markup": "2"}}) as response:
            assert response.status == 200
            assert (await response.json())["version"] == made["version"]

        async def used() -> dict[str, Any] | None:
            await asked(stage)
            return next((one for one in await versions(operator) if one["version"] == made["version"]), None)

        second = await eventually(used)
        assert first["version"] < second["version"]
        assert second["cost"]["input_usd_per_mtok"] == "7.000001"
        assert second["charge"]["input_usd_per_mtok"] == "14.000002"

        async def kept() -> bool:
            return {**first, "state": "past"} in await versions(operator)

        assert await eventually(kept)
        back = {"cost": first["cost"], "charge": first["charge"]}
        async with operator.post(PRICE, json=back) as response:
            assert response.status == 201

        async def laws() -> list[dict[str, Any]]:
            async with operator.get("/v1/admin/ledger/audit") as response:
                assert response.status == 200, await response.text()
                return (await response.json())["data"]

        async def all_hold() -> None:
            assert [law for law in await laws() if law["violations"]] == []

        await eventually(all_hold)
    audit = run_cli(stage, "billing", "audit")
    assert audit.returncode == 0, audit.stdout + audit.stderr
    assert len(audit.stdout.splitlines()) >= 10


async def test_prices_at_fault_are_refused_and_change_nothing(stage: Stage):
    good = {"input_usd_per_mtok": "1"}
    cases = [
        ({"cost": {"input_usd_per_mtok": "0.0000001"}}, 400, "invalid_price"),
        ({"cost": {"input_usd_per_mtok": "-1"}}, 400, "invalid_price"),
        ({"cost": {"input_usd_per_mtok": "1e3"}}, 400, "invalid_price"),
        ({"cost": {"input_usd_per_mtok": "99999999"}}, 400, "invalid_price"),
        ({"cost": {"input_usd_per_mtok": 1.5}}, 400, "invalid_value"),
        ({"cost": good, "charge": {"markup": "2", "input_usd_per_mtok": "1"}}, 400, "invalid_price"),
        ({"cost": good, "valid_from": "2020-01-01"}, 409, "price_overlap"),
        ({"cost": good, "valid_from": "2999-01-01"}, 400, "invalid_price"),
    ]
    async with stage.session(stage.platform.admin_key) as operator:
        async with operator.get("/v1/admin/models") as response:
            before = [model["price"] for model in (await response.json())["data"]]
        for body, status, code in cases:
            async with operator.post(PRICE, json=body) as response:
                assert (response.status, (await response.json())["error"]["code"]) == (status, code), body
        async with operator.post("/v1/admin/models/none/price", json={"cost": good}) as response:
            assert response.status == 404
        async with operator.get("/v1/admin/models") as response:
            assert [model["price"] for model in (await response.json())["data"]] == before
    async with stage.session() as tenant, tenant.post(PRICE, json={"cost": good}) as response:
        assert response.status == 403


async def test_a_scheduled_version_begins_at_its_time_on_all_replicas_and_is_listed_before(stage: Stage):
    cheap = {"input_usd_per_mtok": "1", "output_usd_per_mtok": "1"}
    dear = {"input_usd_per_mtok": "3", "output_usd_per_mtok": "3"}
    async with stage.session(stage.platform.admin_key) as operator, stage.session() as tenant:

        async def price(cost: dict[str, str], at: float | None = None) -> tuple[int, dict[str, Any]]:
            body: dict[str, Any] = {"cost": cost}
            if at is not None:
                body["valid_from"] = datetime.fromtimestamp(at, UTC).isoformat(timespec="milliseconds")
            async with operator.post(PRICE, json=body) as response:
                return response.status, await response.json()

        async def charged() -> Decimal:
            body = {"model": "sim", "messages": [{"role": "user", "content": f"say {time.time_ns()}"}]}
            async with tenant.post(CHAT, json=body) as response:
                assert response.status == 200, await response.text()
                answer = await response.json()
            tokens = answer["usage"]["prompt_tokens"] + answer["usage"]["completion_tokens"]
            return Decimal(answer["collegium"]["cost_usd"]) / tokens * 1_000_000

        async def is_dear() -> bool:
            return await charged() == 3

        async def is_as_before() -> bool:
            return 1 < await charged() < 2

        assert (await price(cheap))[0] in (200, 201)
        begins = time.time() + 3
        status, made = await price(dear, begins)
        assert status == 201, made
        assert (await price(dear, begins))[0] == 200
        assert (await price(cheap, begins))[1]["error"]["code"] == "price_overlap"
        assert (await price(cheap, begins - 1))[1]["error"]["code"] == "price_overlap"
        assert [one["state"] for one in await versions(operator)][:2] == ["scheduled", "in_force"]
        other = (await price(cheap, begins + 3_600))[1]["version"]
        for status in (200, 404):
            async with operator.delete(f"{PRICES}/{other}") as response:
                assert response.status == status, await response.text()
        assert other not in [one["version"] for one in await versions(operator)]
        async with operator.delete(f"{PRICES}/{made['version']}") as response:
            assert (await response.json())["error"]["code"] == "price_overlap"
        early = await charged()
        assert early == 1 or time.time() >= begins
        assert await eventually(is_dear)
        assert time.time() >= begins - 1
        listed = await versions(operator)
        assert (listed[0]["version"], listed[0]["state"]) == (made["version"], "in_force")
        # Other journeys count with the price that was configured.
        assert (await price({"input_usd_per_mtok": "1", "output_usd_per_mtok": "2"}))[0] == 201
        assert await eventually(is_as_before)


async def test_a_correction_is_made_once_and_says_one_thing(stage: Stage):
    wanted = {"id": f"c-{time.time_ns()}", "tenant": "acme", "usd": "-0.000000000001", "reason": "goodwill"}
    path = "/v1/admin/ledger/corrections"
    async with stage.session(stage.platform.admin_key) as operator:
        for status in (201, 200):
            async with operator.post(path, json=wanted) as response:
                assert response.status == status, await response.text()
                assert (await response.json())["usd"] == wanted["usd"]
        for change, status in (
            ({"usd": "5"}, 409),
            ({"usd": "0"}, 400),
            ({"usd": "1e3"}, 400),
            ({"usd": "99999999999"}, 400),
            ({"tenant": "nobody"}, 404),
            ({"id": "../x"}, 400),
            ({"reason": ""}, 400),
        ):
            async with operator.post(path, json={**wanted, **change}) as response:
                assert response.status == status, change
    async with stage.session() as tenant, tenant.post(path, json=wanted) as response:
        assert response.status == 403
    made = run_cli(stage, "billing", "correct", "--id", wanted["id"], "--tenant", "acme", f"--usd={wanted['usd']}",
                   "--reason", "goodwill", "--json")  # fmt: skip
    assert made.returncode == 0, made.stderr
