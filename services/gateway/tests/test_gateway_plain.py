"""What no request may hold: in its address, and in the names and numbers of its body."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from collegium_gateway.admission.requests import decode_chat, decode_task, parse
from collegium_gateway.errors import ApiError
from collegium_gateway.http.sheltered import Sheltered, check_names, fault_of
from collegium_gateway.knowledge.document_bodies import sent
from collegium_gateway.knowledge.memory_bodies import decode_memory, decode_shared
from collegium_gateway.operating.roster_door import _decode_fields as decode_model

NUL = "a\0b"


def refused(decoder: Any, body: Any) -> str | None:
    with pytest.raises(ApiError) as raised:
        parse(decoder, msgspec.json.encode(body))
    assert raised.value.code == "invalid_value"
    return raised.value.param


@pytest.mark.parametrize(
    ("decoder", "body", "param"),
    [
        (decode_memory, {"text": "x", "kind": NUL}, "kind"),
        (decode_memory, {"text": "x", "source": {"task_id": NUL}}, "source.task_id"),
        (decode_shared, {"fields": {"a": {"b": [1, 2**63]}}}, "fields.a.b[1]"),
        (decode_shared, {"fields": {"a": -(2**63) - 1}}, "fields.a"),
        (decode_shared, {"fields": {}, "expected_version": 2**64}, "expected_version"),
        (decode_model, {"name": "m", "labels": ["a", NUL]}, "labels[1]"),
        (decode_model, {NUL: "m"}, None),
        (decode_chat, {"model": NUL, "messages": []}, "model"),
        (decode_chat, {"model": "m", "messages": [], "collegium": {"tags": {"a": NUL}}}, "collegium.tags.a"),
        (decode_task, {"input": "x", "labels": ["a", NUL]}, "labels[1]"),
    ],
)
def test_names_with_nul_and_numbers_beyond_a_message_are_refused(decoder: Any, body: Any, param: str | None):
    assert refused(decoder, body) == param


@pytest.mark.parametrize(
    ("decoder", "body"),
    [
        (decode_memory, {"text": NUL, "kind": "a\\u0000"}),
        (decode_shared, {"fields": {"a": NUL, "b": 2**63 - 1, "c": -(2**63), "d": 1e300}, "expected_version": 2**63}),
        (decode_chat, {"model": "m", "messages": [{"role": "user", "content": NUL}], "stop": [NUL]}),
        (decode_task, {"input": NUL}),
    ],
)
def test_texts_and_numbers_that_a_message_carries_pass(decoder: Any, body: Any):
    parse(decoder, msgspec.json.encode(body))


def test_a_documents_number_beyond_its_index_is_refused():
    body = {"content": "x y", "fields": {"k": 10**300}}
    with pytest.raises(ApiError) as raised:
        sent("application/json", b'{"content": "x", "fields": {"k": 1%s}}' % (b"0" * 300))
    assert (raised.value.code, raised.value.param) == ("invalid_value", "fields.k")
    assert sent("application/json", msgspec.json.encode(body | {"fields": {"k": 2**63 - 1}})).meta.fields == {
        "k": 2**63 - 1
    }


def scope(path: str, query: bytes = b"") -> dict[str, Any]:
    return {"type": "http", "method": "GET", "path": path, "query_string": query, "headers": []}


@pytest.mark.parametrize(
    ("query", "param"),
    [(b"state=x&cursor=%00", "cursor"), (b"cursor=a%1Bb&state=%00", "cursor"), (b"x=%7F", "x"), (b"%00=a", None)],
)
def test_a_query_with_control_characters_is_refused(query: bytes, param: str | None):
    error = fault_of(scope("/v1/tasks", query))
    assert error is not None
    assert (error.code, error.param) == ("invalid_value", param)


@pytest.mark.parametrize("query", [b"", b"q=%C3%A9&x=%25", b"question=a%0D%0A%09b", b"a%20b=%"])
def test_every_other_query_passes(query: bytes):
    assert fault_of(scope("/v1/x", query)) is None


@pytest.mark.parametrize("name", ["\0", "a\nb", "\x7f", "a\x1b"])
def test_what_cannot_exist_is_not_found_and_nothing_is_done_to_it(name: str):
    for method, code in (("GET", "not_found"), ("PUT", "invalid_value"), ("DELETE", "invalid_value")):
        with pytest.raises(ApiError) as refused:
            check_names(method, {"tenant": "acme", "id": name})
        assert (refused.value.code, refused.value.param) == (code, "id")
    check_names("PUT", {"tenant": "acme", "id": "a b/é"})


@pytest.mark.parametrize("is_answered", [True, False])
async def test_a_defect_that_was_answered_costs_no_connection(is_answered: bool):
    sent_on: list[dict[str, Any]] = []

    async def routes(_scope: Any, _receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 500, "headers": []})
        await send({"type": "http.response.body", "body": b"{}", "more_body": not is_answered})
        raise ValueError("a defect")

    async def send(message: Any) -> None:
        sent_on.append(message)

    async def receive() -> dict[str, Any]:
        return {}

    serving = Sheltered(routes)(scope("/v1/tasks"), receive, send)
    if is_answered:
        await serving
    else:
        with pytest.raises(ValueError, match="a defect"):
            await serving
    assert len(sent_on) == 2
