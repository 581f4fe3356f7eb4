"""Fine-tuned models are asked what the export they were made of held out, on a running platform.

No shadows are asked here: one of them might ask a new model the very question, and what was compared once is not asked
again. Audits are on, so that the budget of learning is earned from the first answer on; they have nobody to ask, as no
model is dearer than the teacher.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from collegium_testing import ModelSimulator, eventually

from tests.conftest import LoopThread
from tests.journeys.school import School, school_of

pytestmark = pytest.mark.timeout(240)

PROBES = {"audit_share": 1, "shadow_share": 0, "budget_share": 1, "tenants": ["watched"]}


@pytest.fixture(scope="module")
def school(
    tmp_path_factory: pytest.TempPathFactory, simulator: ModelSimulator, loop_thread: LoopThread
) -> Iterator[School]:
    folder = tmp_path_factory.mktemp("held-out")
    with school_of(folder, simulator, ["watched"], evolution={"probes": PROBES}) as found:
        yield found


async def test_a_fine_tuned_model_is_asked_what_its_export_held_out(school: School):
    school.says(large="shipping", tuned="Shipping.")
    await school.done("PATCH", "/v1/admin/tenants/watched", {"learning_collect": True})
    # What it may cost to ask it is earned first.
    await school.ask("watched", ["long " * 8_000], "large", domain="earning")
    asked = 0

    async def held_out() -> bool:
        nonlocal asked
        numbers = range(asked, asked + 4)
        asked += 4
        questions = [f"where is parcel {number} of {number * 7919}" for number in numbers]
        await school.judge("watched", await school.ask("watched", questions, "large", domain="desk"), 1)
        rows = (await school.done("GET", "/v1/admin/samples?tenant=watched"))["data"]
        return any(row["held_out"] >= 1 and row["verified"] > row["held_out"] for row in rows)

    await eventually(held_out, deadline_seconds=120)
    export = {"tenant": "watched", "domain": "desk", "format": "openai"}
    made = await school.done("POST", "/v1/admin/distill", export)
    held = made["held_out"]
    assert held >= 1
    price = {"input_usd_per_mtok": "0.1", "output_usd_per_mtok": "0.1"}
    model = {"name": "tuned", "base_url": school.simulator.base_url, "key": "sim", "price": price}
    body = {"export": made["export"], "model": model, "tenant": "watched"}
    await school.done("POST", "/v1/admin/students/register", body)

    async def examined() -> dict[str, Any] | None:
        row = await school.done("GET", "/v1/admin/students/tuned")
        return row if row["held_out_asked"] >= held else None

    row = await eventually(examined, deadline_seconds=150)
    assert (row["held_out_asked"], row["held_out_right"]) == (held, held)
    lines = [line for step in (await school.round()).values() for line in step]
    [line] = [line for line in lines if "held out compared" in line]
    assert line.startswith(f"tuned for watched: {held} of {held} held out compared")

    async def booked() -> dict[str, Any] | None:
        told = await school.done("GET", "/v1/usage?group_by=tag", tenant="watched")
        return next((one for one in told["data"] if one["tag"] == "collegium-probe=held_out"), None)

    assert (await eventually(booked))["charged_usd"] == "0"
