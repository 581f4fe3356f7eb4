"""Bad input: a typed error that says what to do, nothing half accepted."""

from __future__ import annotations

import io
import json

import pytest

from tests.conftest import Stage

CHAT = "/v1/chat/completions"
GOOD = {"model": "sim", "messages": [{"role": "user", "content": "hi"}]}


@pytest.mark.parametrize(
    ("path", "body", "status", "code", "param"),
    [
        (CHAT, "{", 400, "malformed_json", None),
        (CHAT, "[]", 400, "invalid_value", None),
        (CHAT, {"model": "sim"}, 400, "invalid_value", "messages"),
        (CHAT, {**GOOD, "model": 3}, 400, "invalid_value", "model"),
        (CHAT, {**GOOD, "model": "nope"}, 400, "unknown_model", "model"),
        (CHAT, {**GOOD, "messages": []}, 400, "invalid_value", "messages"),
        (CHAT, {**GOOD, "messages": [{"role": "pope", "content": "x"}]}, 400, "invalid_value", "messages[0].role"),
        (CHAT, {**GOOD, "temperature": 9}, 400, "invalid_value", "temperature"),
        (CHAT, {**GOOD, "collegium": {"plann": "x"}}, 400, "invalid_value", "collegium"),
        (CHAT, {**GOOD, "collegium": {"plan": "cascade"}}, 400, "unsupported_plan", "plan"),
        (CHAT, {**GOOD, "collegium": {"panel_size": "3"}}, 400, "invalid_value", "panel_size"),
        (CHAT, {**GOOD, "collegium": {"panel_size": 10}}, 400, "invalid_value", "panel_size"),
        (CHAT, {**GOOD, "collegium": {"gates": ["no_such"]}}, 400, "unknown_gate", "gates"),
        (CHAT, {**GOOD, "collegium": {"deadline_seconds": -1}}, 400, "deadline_in_past", "deadline_seconds"),
        (CHAT, {**GOOD, "collegium": {"deadline_seconds": 0}}, 400, "deadline_in_past", "deadline_seconds"),
        ("/v1/tasks", {}, 400, "invalid_value", "input"),
        ("/v1/tasks", {"input": 3}, 400, "invalid_value", "input"),
        ("/v1/tasks", {"input": "x", "unknown": 1}, 400, "invalid_value", None),
        ("/v1/nowhere", {}, 404, "not_found", None),
    ],
)
async def test_bad_input_is_refused_with_its_path(stage: Stage, path, body, status, code, param):
    sent = {"data": body} if isinstance(body, str) else {"json": body}
    async with stage.session() as session, session.post(path, **sent) as response:
        error = (await response.json())["error"]
    assert (response.status, error["code"]) == (status, code)
    assert error["param"] == param
    assert error["message"]
    assert stage.simulator.counts().totals.started == 0


@pytest.mark.parametrize(
    ("authorization", "code"),
    [
        (None, "missing_api_key"),
        ("Bearer nonsense", "invalid_api_key"),
        ("Bearer sk-clg-ghostghost-" + "g" * 48, "invalid_api_key"),
        ("Basic abc", "invalid_api_key"),
    ],
)
async def test_a_missing_or_wrong_key_is_refused(stage: Stage, authorization, code):
    async with stage.session() as session:
        headers = {"Authorization": authorization} if authorization else {}
        session.headers.clear()
        async with session.post(CHAT, json=GOOD, headers=headers) as response:
            assert response.status == 401
            assert (await response.json())["error"]["code"] == code


async def test_a_right_id_with_a_wrong_secret_is_refused(stage: Stage):
    wrong = stage.key[:-1] + ("a" if stage.key[-1] != "a" else "b")
    async with stage.session(wrong) as session, session.post(CHAT, json=GOOD) as response:
        assert response.status == 401


async def test_a_body_over_the_limit_is_refused(stage: Stage):
    body = json.dumps({**GOOD, "messages": [{"role": "user", "content": "x" * 1_100_000}]})
    async with stage.session() as session, session.post(CHAT, data=io.BytesIO(body.encode())) as response:
        assert response.status == 413
        assert (await response.json())["error"]["code"] == "body_too_large"


async def test_a_tenants_key_may_not_administrate(stage: Stage):
    async with stage.session() as session, session.get("/v1/admin/tenants") as response:
        assert response.status == 403
        assert (await response.json())["error"]["code"] == "insufficient_scope"


async def test_no_secret_is_in_the_logs(stage: Stage):
    async with stage.session() as session, session.post(CHAT, json=GOOD) as response:
        assert response.status == 200
    logs = "".join(path.read_text(errors="replace") for path in (stage.platform.folder / "logs").glob("*.log"))
    assert logs
    for key in (stage.key, stage.other_key, stage.platform.admin_key):
        assert key.rpartition("-")[2] not in logs
