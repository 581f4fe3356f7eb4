"""Reports of what ran: the request log, usage as CSV, an invoice refused before its month is over, stored bytes."""

from __future__ import annotations

import csv
import io
import time

from collegium_testing import eventually

from tests.conftest import Stage

CHAT = "/v1/chat/completions"
GOOD = {"model": "sim", "messages": [{"role": "user", "content": "tell me no secrets"}]}


async def test_a_request_is_in_the_log_with_its_figures_and_without_its_content(stage: Stage):
    tags = {"formula": "=1+1", "run": str(time.time_ns())}
    async with stage.session() as session:
        async with session.post(CHAT, json={**GOOD, "collegium": {"tags": tags}}) as response:
            assert response.status == 200
            task_id = response.headers["x-collegium-task-id"]

        async def logged() -> dict | None:
            async with session.get("/v1/requests", params={"state": "completed", "limit": "1000"}) as response:
                assert response.status == 200
                rows = (await response.json())["data"]
            return next((row for row in rows if row["task_id"] == task_id), None)

        row = await eventually(logged)
        assert (row["model"], row["state"], row["calls"], row["tags"]) == ("sim", "completed", 1, tags)
        assert row["charged_usd"] == row["cost_usd"] != "0"
        assert "secrets" not in str(row)

        async with session.get("/v1/requests", params={"format": "csv"}) as response:
            assert response.content_type == "text/csv"
            lines = list(csv.DictReader(io.StringIO(await response.text())))
        found = next(line for line in lines if line["task_id"] == task_id)
        assert {name: found[name] for name in ("state", "charged_usd", "calls")} == {
            "state": "completed", "charged_usd": row["charged_usd"], "calls": "1",
        }  # fmt: skip

        async with session.get("/v1/usage", params={"format": "csv", "group_by": "tag"}) as response:
            lines = list(csv.DictReader(io.StringIO(await response.text())))
        assert {"formula==1+1", f"run={tags['run']}"} <= {line["tag"] for line in lines}
        [line] = [line for line in lines if line["tag"] == f"run={tags['run']}"]
        assert (line["requests"], line["margin_usd"], line["saved_usd"]) == ("1", "0", "0")


async def test_pages_follow_each_other(stage: Stage):
    async with stage.session() as session:
        for _ in range(3):
            async with session.post(CHAT, json=GOOD) as response:
                assert response.status == 200

        async def pages() -> list[str] | None:
            ids: list[str] = []
            cursor = ""
            while cursor is not None and len(ids) < 3:
                async with session.get("/v1/requests", params={"limit": "1", "cursor": cursor}) as response:
                    body = await response.json()
                ids += [row["task_id"] for row in body["data"]]
                cursor = body["next_cursor"]
            return ids if len(ids) == 3 else None

        assert len(set(await eventually(pages))) == 3


async def test_reports_keep_tenants_apart_and_refuse_what_is_wrong(stage: Stage):
    async with stage.session() as session:
        for path, status in (
            ("/v1/requests?tenant=operator", 403),
            ("/v1/usage?tenant=operator", 403),
            ("/v1/invoices?tenant=operator", 403),
            ("/v1/admin/tenants/acme/storage", 403),
            ("/v1/requests?format=xml", 400),
            ("/v1/requests?cursor=%00", 400),
            ("/v1/requests?limit=0", 400),
            ("/v1/requests?state=open", 400),
            ("/v1/invoices/inv-acme-1999-01", 404),
            ("/v1/invoices/%27%3B--", 404),
        ):
            async with session.get(path) as response:
                assert (path, response.status) == (path, status)


async def test_an_operator_makes_invoices_of_months_that_are_over(stage: Stage):
    async with stage.session(stage.platform.admin_key) as operator:
        body = {"tenant": "acme", "month": "2024-02"}
        made = []
        for _ in range(2):
            async with operator.post("/v1/admin/invoices", json=body) as response:
                assert response.status == 201
                made.append(await response.read())
        assert made[0] == made[1]
        async with operator.post("/v1/admin/invoices", json={**body, "month": "2099-01"}) as response:
            assert (response.status, (await response.json())["error"]["param"]) == (400, "month")
        async with operator.post("/v1/admin/invoices", json={**body, "tenant": "absent"}) as response:
            assert response.status == 404
    async with stage.session() as session:
        async with session.get("/v1/invoices") as response:
            [row] = (await response.json())["data"]
        assert (row["id"], row["total_usd"]) == ("inv-acme-2024-02", "0.00")
        async with session.get("/v1/invoices/inv-acme-2024-02?format=html") as response:
            assert response.content_type == "text/html"
            assert "Invoice inv-acme-2024-02" in await response.text()


async def test_stored_bytes_are_counted(stage: Stage):
    async with stage.session() as session, session.post("/v1/tasks", json={"input": "x"}) as response:
        assert response.status == 202
    async with stage.session(stage.platform.admin_key) as operator:

        async def counted() -> bool:
            async with operator.get("/v1/admin/tenants/acme/storage") as response:
                assert response.status == 200
                stored = await response.json()
            return stored["tasks"] > 0 and stored["stored_bytes"] > 0

        await eventually(counted)
