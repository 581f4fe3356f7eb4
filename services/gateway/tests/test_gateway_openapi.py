"""The document and the door say the same."""

import re
from types import SimpleNamespace
from typing import Any

import pytest
from collegium_gateway.admission.requests import Options
from collegium_gateway.chat.door import ChatDoor
from collegium_gateway.chat.embeddings import PATH, EmbeddingDoor
from collegium_gateway.http import openapi
from collegium_gateway.http.server import HttpDoor
from collegium_gateway.knowledge.index_door import IndexDoor
from collegium_gateway.knowledge.search_door import SearchDoor
from collegium_gateway.operating.admin import AdminDoor
from collegium_gateway.operating.audit_door import AuditDoor
from collegium_gateway.operating.dead_letters import DeadLetterDoor
from collegium_gateway.operating.domains_door import DomainsDoor
from collegium_gateway.operating.experiments_door import ExperimentsDoor
from collegium_gateway.operating.gates_door import GatesDoor
from collegium_gateway.operating.privacy_door import PrivacyDoor
from collegium_gateway.operating.students_door import StudentsDoor
from collegium_gateway.people.door import ApprovalDoor
from collegium_gateway.reuse.door import CacheDoor
from collegium_gateway.tasks.door import TaskDoor
from collegium_gateway.tasks.ladder_door import LadderDoor
from collegium_gateway.tasks.schedules_door import ScheduleDoor
from collegium_gateway.tasks.submitting import SubmitDoor
from collegium_gateway.webhooks.door import WebhookDoor
from collegium_settings import Settings
from starlette.routing import Route

# Where the document and its page are is not part of the document.
ASIDE = {"/openapi.json", "/docs"}
JSON_TYPES = {"object", "array", "string", "integer", "number", "boolean", "null"}


def served() -> set[tuple[str, str]]:
    platform: Any = SimpleNamespace(settings=Settings(), connection=None)
    nobody: Any = None
    door = HttpDoor(
        platform,
        nobody,
        ChatDoor(platform, nobody, nobody, nobody),
        SubmitDoor(platform, nobody, nobody, nobody),
        TaskDoor(platform, nobody, nobody),
        AdminDoor(platform, nobody),
        WebhookDoor(platform, nobody, nobody),
        dict,
        nobody,
        [
            *LadderDoor(platform).routes(),
            *DeadLetterDoor(platform, nobody, nobody, nobody).routes(),
            *SearchDoor(platform, nobody, nobody).routes(),
            *IndexDoor(platform, nobody).routes(),
            *CacheDoor(platform, nobody, nobody).routes(),
            *AuditDoor(platform, nobody, nobody).routes(),
            *PrivacyDoor(nobody, nobody, nobody).routes(),
            *ScheduleDoor(platform, nobody, nobody).routes(),
            *GatesDoor(platform, nobody, nobody).routes(),
            *StudentsDoor(platform, nobody, nobody).routes(),
            *DomainsDoor(platform, nobody).routes(),
            *ExperimentsDoor(platform, nobody).routes(),
            *ApprovalDoor(platform, nobody, nobody, nobody, nobody).routes(),
        ],
        more_hot={PATH: EmbeddingDoor(platform, nobody, nobody, nobody)},
    )
    routes = [route for route in door._routes.routes if isinstance(route, Route) and route.path not in ASIDE]
    return {
        (method.lower(), route.path.replace(":path}", "}"))
        for route in routes
        for method in (route.methods or {"GET"}) - {"HEAD"}
    }


def operations() -> dict[tuple[str, str], dict[str, Any]]:
    return {
        (method, path): operation
        for path, methods in openapi.document()["paths"].items()
        for method, operation in methods.items()
    }


def test_every_route_is_in_the_document_and_nothing_else():
    assert set(operations()) == served()


def test_the_document_is_openapi_3_1():
    document = openapi.document()
    assert re.fullmatch(r"3\.1\.\d+", document["openapi"])
    assert {"title", "version"} <= document["info"].keys()
    assert set(document) <= {"openapi", "info", "paths", "components", "security", "servers", "tags"}
    for scheme in document["security"]:
        assert set(scheme) <= document["components"]["securitySchemes"].keys()
    for key, scheme in document["components"]["securitySchemes"].items():
        assert re.fullmatch(r"[A-Za-z0-9._-]+", key)
        assert (scheme["type"], scheme["scheme"]) == ("http", "bearer")


def test_operations_have_an_id_a_summary_and_responses():
    ids = [operation["operationId"] for operation in operations().values()]
    assert len(set(ids)) == len(ids)
    for operation in operations().values():
        assert operation["summary"].endswith(".")
        assert operation["tags"]
        for status, response in operation["responses"].items():
            assert re.fullmatch(r"[1-5]\d\d|default", status)
            assert response["description"]
        error = operation["responses"]["default"]["content"]["application/json"]["schema"]
        assert error == {"$ref": "#/components/schemas/Error"}


def test_parameters_of_a_path_are_declared_and_required():
    for (_, path), operation in operations().items():
        declared = {one["name"] for one in operation.get("parameters", ()) if one["in"] == "path"}
        assert declared == set(re.findall(r"{(\w+)}", path))
        names = [(one["name"], one["in"]) for one in operation.get("parameters", ())]
        assert len(set(names)) == len(names)
        for parameter in operation.get("parameters", ()):
            assert parameter["required"] is (parameter["in"] == "path")
            assert parameter["schema"]["type"] in JSON_TYPES


def test_bodies_are_asked_for_where_they_are_read():
    with_body = {key for key, operation in operations().items() if "requestBody" in operation}
    assert with_body == {
        ("post", "/v1/chat/completions"),
        ("post", "/v1/embeddings"),
        ("post", "/v1/admin/gates/test"),
        ("put", "/v1/admin/tenants/{id}/gates"),
        ("post", "/v1/admin/experiments"),
        ("post", "/v1/admin/experiments/holdout"),
        ("post", "/v1/admin/experiments/{id}/start"),
        ("post", "/v1/admin/experiments/{id}/ramp"),
        ("post", "/v1/admin/experiments/{id}/stop"),
        ("post", "/v1/admin/experiments/{id}/conclude"),
        ("post", "/v1/admin/flags/kill"),
        ("post", "/v1/admin/flags/revive"),
        ("put", "/v1/admin/flags/{name}"),
        ("post", "/v1/admin/flags/{name}/kill"),
        ("post", "/v1/admin/flags/{name}/revive"),
        ("post", "/v1/admin/students"),
        ("post", "/v1/admin/distill"),
        ("patch", "/v1/admin/domains/{id}"),
        ("post", "/v1/admin/domains/{id}/merge"),
        ("post", "/v1/tasks"),
        ("post", "/v1/tasks/{id}/feedback"),
        ("post", "/v1/tasks/{id}/input"),
        ("post", "/v1/admin/approvals/claim"),
        ("post", "/v1/admin/approvals/{id}/answer"),
        ("post", "/v1/admin/approvals/{id}/move"),
        ("post", "/v1/schedules"),
        ("post", "/v1/admin/tenants"),
        ("post", "/v1/admin/keys"),
        ("post", "/v1/admin/invoices"),
        ("post", "/v1/admin/keys/{id}/rotate"),
        ("put", "/v1/admin/keys/{id}/limits"),
        ("patch", "/v1/admin/tenants/{id}"),
        ("put", "/v1/admin/tenants/{id}/limits"),
        ("post", "/v1/admin/projects"),
        ("put", "/v1/admin/budgets/{tenant}/{id}"),
        ("post", "/v1/admin/ledger/corrections"),
        ("post", "/v1/admin/models"),
        ("post", "/v1/admin/students/register"),
        ("patch", "/v1/admin/models/{name}"),
        ("post", "/v1/admin/models/{name}/price"),
        ("post", "/v1/admin/models/{name}/rank"),
        ("post", "/v1/admin/policies/{tenant}/rollback"),
        ("post", "/v1/admin/models/{name}/rank/rollback"),
        ("post", "/v1/webhooks/secret/rotate"),
        ("post", "/v1/admin/dead-letters/requeue"),
        ("post", "/v1/admin/dead-letters/discard"),
        ("post", "/v1/admin/tenants/{id}/erasure"),
        ("post", "/v1/admin/encryption/rewrap"),
        ("post", "/v1/documents"),
        ("put", "/v1/documents/{id}"),
        ("post", "/v1/search"),
        ("put", "/v1/search/profiles/{user}"),
        ("post", "/v1/memories"),
        ("post", "/v1/memories/recall"),
        ("post", "/v1/memories/grants"),
        ("post", "/v1/memories/{id}/correct"),
        ("put", "/v1/memories/paths"),
        ("put", "/v1/contexts/{id}"),
        ("patch", "/v1/contexts/{id}"),
    }


def test_only_probes_are_open():
    opened = {path for (_, path), operation in operations().items() if operation.get("security") == []}
    assert opened == {"/health/live", "/health/ready", "/metrics"}


@pytest.mark.parametrize(
    ("key", "statuses"),
    [
        (("post", "/v1/tasks"), {"200", "202"}),
        (("post", "/v1/schedules"), {"201"}),
        (("post", "/v1/admin/keys"), {"201"}),
        (("post", "/v1/admin/tenants"), {"201"}),
        (("post", "/v1/tasks/{id}/retry"), {"200", "202"}),
        (("get", "/v1/tasks/{id}"), {"200"}),
    ],
)
def test_the_statuses_of_success_are_the_doors(key, statuses):
    assert operations()[key]["responses"].keys() == statuses | {"default"}


def check_schema(schema: Any, names: set[str], where: str) -> None:
    """A JSON Schema by structure: known types, lists of alternatives, references that exist, required that is there."""
    assert isinstance(schema, dict), where
    if "$ref" in schema:
        prefix, _, name = schema["$ref"].rpartition("/")
        assert (prefix, name in names) == ("#/components/schemas", True), where
    types = schema.get("type", [])
    assert set([types] if isinstance(types, str) else types) <= JSON_TYPES, where
    assert set(schema.get("required", ())) <= schema.get("properties", {}).keys(), where
    assert "enum" not in schema or len(set(schema["enum"])) == len(schema["enum"]) > 0, where
    for keyword in ("anyOf", "oneOf", "allOf"):
        assert schema.get(keyword) != [], where
        for number, inner in enumerate(schema.get(keyword, ())):
            check_schema(inner, names, f"{where}.{keyword}[{number}]")
    for name, inner in schema.get("properties", {}).items():
        check_schema(inner, names, f"{where}.{name}")
    for keyword in ("items", "additionalProperties"):
        if not isinstance(schema.get(keyword, True), bool):
            check_schema(schema[keyword], names, f"{where}.{keyword}")


def test_every_schema_is_valid_and_used():
    schemas = openapi.document()["components"]["schemas"]
    for name, schema in schemas.items():
        check_schema(schema, set(schemas), name)
    shown = str(openapi.document())
    assert set(re.findall(r"'#/components/schemas/(\w+)'", shown)) <= set(schemas)
    unused = {name for name in schemas if f"'#/components/schemas/{name}'" not in shown}
    assert unused == set()


def test_the_schemas_are_those_of_the_structs_that_decode():
    schemas = openapi.document()["components"]["schemas"]
    assert set(schemas["Options"]["properties"]) == set(Options.__struct_fields__)
    assert set(Options.__struct_fields__) <= set(schemas["TaskRequest"]["properties"])
    assert schemas["ChatRequest"]["required"] == ["model", "messages"]
    assert schemas["TaskRequest"]["required"] == ["input"]
    assert schemas["Options"]["additionalProperties"] is False


def test_the_page_needs_nothing_from_elsewhere():
    assert "http://" not in openapi.PAGE
    assert "https://" not in openapi.PAGE
    assert "/openapi.json" in openapi.PAGE


def test_a_chats_answer_says_whether_it_is_a_new_one():
    headers = openapi.document()["paths"]["/v1/chat/completions"]["post"]["responses"]["200"]["headers"]
    assert headers["x-collegium-cache"]["schema"]["enum"] == ["off", "miss", "hit_exact", "hit_semantic"]
    assert "x-collegium-cache-stale" in headers
