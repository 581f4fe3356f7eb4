"""The OpenAPI document, made from the request structs, and a page that shows it.

One rule: schemas of bodies come from the structs that decode them, so that the document cannot disagree with the door.
"""

from __future__ import annotations

import re
from functools import cache
from typing import Any, get_args

import msgspec
from collegium_contracts.errors import ERRORS
from collegium_contracts.knowledge import ProfileWeights
from collegium_contracts.parts import CacheResult

from collegium_gateway.admission.embedding import EmbeddingRequest
from collegium_gateway.admission.idempotency import MAX_KEY_CHARS, PARAM
from collegium_gateway.admission.requests import ChatRequest, ScheduleRequest, TaskRequest, TenantRequest
from collegium_gateway.knowledge import memory_bodies
from collegium_gateway.knowledge.document_bodies import DocumentRequest, SearchBody
from collegium_gateway.operating import domains_door, experiments_door, roster_door, students_door
from collegium_gateway.operating.budget_views import BudgetView
from collegium_gateway.operating.dead_letters import LettersRequest
from collegium_gateway.operating.evolution_door import RankRequest, RollbackRequest
from collegium_gateway.operating.gate_report import GatesRequest, GateTest
from collegium_gateway.operating.identity_requests import (
    BudgetRequest,
    KeyRequest,
    LimitsRequest,
    ProjectRequest,
    RotateKeyRequest,
    TenantPatch,
)
from collegium_gateway.operating.ledger_door import CorrectionRequest, PriceRequest
from collegium_gateway.operating.policy_door import PolicyRollbackRequest
from collegium_gateway.operating.privacy_door import ErasureRequest, RewrapRequest
from collegium_gateway.operating.reports import InvoiceBody
from collegium_gateway.people.answering import InputRequest
from collegium_gateway.people.door import MoveRequest, NextRequest
from collegium_gateway.tasks.feedback import FeedbackRequest
from collegium_gateway.tasks.views import TaskView
from collegium_gateway.webhooks.door import RotateRequest, WebhookView

_OPERATIONS: tuple[tuple[str, str, str, str, type | None], ...] = (
    ("post", "/v1/chat/completions", "chat", "Answers a chat, plain or streamed.", ChatRequest),
    ("post", "/v1/embeddings", "chat", "Embeds texts, billed as a task.", EmbeddingRequest),
    ("get", "/v1/models", "chat", "Lists the models that may be asked.", None),
    ("post", "/v1/tasks", "tasks", "Submits a task for later.", TaskRequest),
    ("get", "/v1/tasks", "tasks", "Lists the tenant's tasks, newest first.", None),
    ("get", "/v1/tasks/{id}", "tasks", "Returns one task.", None),
    ("post", "/v1/tasks/{id}/cancel", "tasks", "Cancels a task.", None),
    ("post", "/v1/tasks/{id}/retry", "tasks", "Runs a failed task again as a new one; asked again, the same.", None),
    (
        "post",
        "/v1/tasks/{id}/feedback",
        "tasks",
        "Says what became of a task's answer; the last word of a source counts.",
        FeedbackRequest,
    ),
    ("post", "/v1/tasks/{id}/input", "tasks", "Answers what a task waits for its client for.", InputRequest),
    ("get", "/v1/tasks/{id}/events", "tasks", "Follows a task by server-sent events.", None),
    ("get", "/v1/tasks/{id}/webhook", "webhooks", "Shows how a task's callback stands.", None),
    ("get", "/v1/webhooks/secret", "webhooks", "Shows the key that signs the tenant's webhooks.", None),
    ("post", "/v1/webhooks/secret/rotate", "webhooks", "Makes a new key; earlier ones sign on a while.", RotateRequest),
    ("post", "/v1/schedules", "schedules", "Makes a schedule that submits a task by cron.", ScheduleRequest),
    ("get", "/v1/schedules", "schedules", "Lists the tenant's schedules.", None),
    ("get", "/v1/schedules/{id}", "schedules", "Returns one schedule.", None),
    ("delete", "/v1/schedules/{id}", "schedules", "Deletes a schedule.", None),
    ("post", "/v1/schedules/{id}/pause", "schedules", "Pauses a schedule.", None),
    ("post", "/v1/schedules/{id}/resume", "schedules", "Resumes a schedule, from now on.", None),
    (
        "post",
        "/v1/documents",
        "documents",
        "Takes a document in; searches find it once it is indexed.",
        DocumentRequest,
    ),
    ("get", "/v1/documents", "documents", "Lists the tenant's documents by id.", None),
    ("get", "/v1/documents/{id}", "documents", "Returns one document, without its content.", None),
    ("put", "/v1/documents/{id}", "documents", "Replaces a document, or takes it in.", DocumentRequest),
    ("delete", "/v1/documents/{id}", "documents", "Removes a document; no search finds it any more.", None),
    ("get", "/v1/documents/{id}/events", "documents", "Follows how a document is taken in, by events.", None),
    ("post", "/v1/search", "search", "Searches the tenant's documents by words and by sense.", SearchBody),
    ("get", "/v1/search/profiles/{user}", "search", "Shows what a user's searches prefer.", None),
    ("put", "/v1/search/profiles/{user}", "search", "Sets what a user's searches prefer.", ProfileWeights),
    ("delete", "/v1/search/profiles/{user}", "search", "Forgets what a user's searches prefer.", None),
    ("get", "/v1/cache", "cache", "Tells how a tenant's answers to questions alike fare.", None),
    ("delete", "/v1/cache", "cache", "Forgets all kept answers of a tenant.", None),
    *memory_bodies.OPERATIONS,
    *students_door.OPERATIONS,
    *roster_door.OPERATIONS,
    *domains_door.OPERATIONS,
    *experiments_door.OPERATIONS,
    ("get", "/v1/usage", "usage", "Reports usage, grouped, as JSON or CSV.", None),
    ("get", "/v1/requests", "usage", "Lists settled requests without their content, newest first.", None),
    ("get", "/v1/invoices", "usage", "Lists invoices.", None),
    ("get", "/v1/invoices/{id}", "usage", "Shows one invoice as JSON or HTML.", None),
    ("post", "/v1/admin/invoices", "admin", "Makes a month's invoice; asked again, the same.", InvoiceBody),
    ("get", "/v1/admin/tenants/{id}/storage", "admin", "Counts what is stored of a tenant.", None),
    (
        "get",
        "/v1/admin/models",
        "admin",
        "Lists the roster with its scoreboard, limits and what is used of them.",
        None,
    ),
    ("get", "/v1/admin/possible-spend", "admin", "Lists calls that started and of whose end nothing is booked.", None),
    ("get", "/v1/admin/tenants", "admin", "Lists tenants.", None),
    ("post", "/v1/admin/tenants", "admin", "Creates a tenant.", TenantRequest),
    ("get", "/v1/admin/tenants/{id}", "admin", "Shows a tenant with its tier's quotas and features.", None),
    ("patch", "/v1/admin/tenants/{id}", "admin", "Changes a tenant's tier.", TenantPatch),
    ("delete", "/v1/admin/tenants/{id}", "admin", "Marks a tenant as deleted and revokes its keys.", None),
    ("post", "/v1/admin/tenants/{id}/suspend", "admin", "Suspends a tenant: its keys are refused.", None),
    ("post", "/v1/admin/tenants/{id}/resume", "admin", "Resumes a suspended tenant.", None),
    ("get", "/v1/admin/tenants/{id}/limits", "admin", "Shows a tenant's rate limits.", None),
    ("put", "/v1/admin/tenants/{id}/limits", "admin", "Sets a tenant's rate limits.", LimitsRequest),
    ("delete", "/v1/admin/tenants/{id}/limits", "admin", "Removes a tenant's rate limits.", None),
    ("get", "/v1/admin/projects", "admin", "Lists projects.", None),
    ("post", "/v1/admin/projects", "admin", "Creates a project.", ProjectRequest),
    ("post", "/v1/admin/projects/{tenant}/{id}/archive", "admin", "Archives a project: it takes no new keys.", None),
    ("post", "/v1/admin/projects/{tenant}/{id}/restore", "admin", "Takes an archived project up again.", None),
    ("get", "/v1/admin/budgets", "admin", "Lists budgets and how each stands.", None),
    ("get", "/v1/admin/budgets/{tenant}/{id}", "admin", "Shows a budget and how it stands.", None),
    ("put", "/v1/admin/budgets/{tenant}/{id}", "admin", "Sets a budget, new or standing.", BudgetRequest),
    ("delete", "/v1/admin/budgets/{tenant}/{id}", "admin", "Deletes a budget.", None),
    ("get", "/v1/admin/keys", "admin", "Lists keys, without their secrets.", None),
    ("post", "/v1/admin/keys", "admin", "Creates a key; the answer shows it once.", KeyRequest),
    ("get", "/v1/admin/keys/{id}", "admin", "Shows a key, without its secret.", None),
    ("post", "/v1/admin/keys/{id}/revoke", "admin", "Revokes a key.", None),
    ("post", "/v1/admin/keys/{id}/rotate", "admin", "Makes a key's successor, shown once.", RotateKeyRequest),
    ("get", "/v1/admin/keys/{id}/limits", "admin", "Shows a key's rate limits.", None),
    ("put", "/v1/admin/keys/{id}/limits", "admin", "Sets a key's rate limits.", LimitsRequest),
    ("delete", "/v1/admin/keys/{id}/limits", "admin", "Removes a key's rate limits.", None),
    ("get", "/v1/admin/ledger/audit", "admin", "Checks the money laws over a time (default: a day).", None),
    ("get", "/v1/admin/ledger/calls", "admin", "Sums up booked calls by model and day, as providers count.", None),
    ("post", "/v1/admin/ledger/corrections", "admin", "Corrects what a tenant owes, once an id.", CorrectionRequest),
    ("get", "/v1/admin/models/{name}/prices", "admin", "Lists the versions of a model's prices.", None),
    ("post", "/v1/admin/models/{name}/price", "admin", "Prices a model from now or a later time on.", PriceRequest),
    ("post", "/v1/admin/models/{name}/rank", "admin", "Gives a model a rank, overall or in a domain.", RankRequest),
    ("post", "/v1/admin/models/{name}/rank/rollback", "admin", "Takes the newest change back.", RollbackRequest),
    ("post", "/v1/admin/models/{name}/drain", "admin", "Gives a model no more work.", None),
    ("post", "/v1/admin/models/{name}/resume", "admin", "Gives a drained model work again.", None),
    ("get", "/v1/admin/scoreboard", "admin", "Shows what models did, with decay and drift.", None),
    ("get", "/v1/admin/ranks", "admin", "Lists changes of ranks with their numbers, newest first.", None),
    ("get", "/v1/admin/gaps", "admin", "Lists domains whose answers are not good enough, worst first.", None),
    ("get", "/v1/admin/policies", "admin", "Shows the policies that choose models.", None),
    ("get", "/v1/admin/policies/{tenant}", "admin", "Lists a tenant's policies, newest first.", None),
    ("post", "/v1/admin/policies/{tenant}/rollback", "admin", "Takes a policy back.", PolicyRollbackRequest),
    ("post", "/v1/admin/policies/{tenant}/release", "admin", "Lets newer policies take its place again.", None),
    ("get", "/v1/admin/evolution", "admin", "Lists rounds of learning, newest first.", None),
    ("get", "/v1/admin/evolution/{id}", "admin", "Shows a round of learning with its report.", None),
    ("post", "/v1/admin/evolution/run", "admin", "Begins a round of learning now.", None),
    ("delete", "/v1/admin/models/{name}/prices/{version}", "admin", "Takes a scheduled version of prices back.", None),
    ("get", "/v1/admin/tasks/{id}/ladder", "admin", "Shows a task's journey, a rung a message, for operators.", None),
    ("get", "/v1/admin/dead-letters", "admin", "Lists dead letters, oldest first.", None),
    ("get", "/v1/admin/dead-letters/{id}", "admin", "Shows one dead letter with its original bytes.", None),
    ("post", "/v1/admin/dead-letters/requeue", "admin", "Requeues letters, by id or filter.", LettersRequest),
    ("post", "/v1/admin/dead-letters/discard", "admin", "Discards letters, by id or filter.", LettersRequest),
    ("get", "/v1/admin/gates", "admin", "Lists the rules of gates.", None),
    ("post", "/v1/admin/gates/test", "admin", "Tries rules on a text; nothing is sent.", GateTest),
    ("get", "/v1/admin/gates/report", "admin", "Reports what gates did, as JSON or CSV.", None),
    ("get", "/v1/admin/tenants/{id}/gates", "admin", "Shows the gates of a tenant.", None),
    ("put", "/v1/admin/tenants/{id}/gates", "admin", "Sets the gates of a tenant.", GatesRequest),
    ("delete", "/v1/admin/tenants/{id}/gates", "admin", "Leaves a tenant the gates for everyone.", None),
    ("get", "/v1/admin/approvals", "admin", "Lists questions to people, oldest first, without content.", None),
    ("post", "/v1/admin/approvals/claim", "admin", "Takes the oldest question that nobody works on.", NextRequest),
    ("get", "/v1/admin/approvals/{id}", "admin", "Shows a question with what is to be judged.", None),
    ("post", "/v1/admin/approvals/{id}/claim", "admin", "Takes a question, or keeps it longer.", None),
    ("post", "/v1/admin/approvals/{id}/return", "admin", "Gives a question back to its queue.", None),
    ("post", "/v1/admin/approvals/{id}/move", "admin", "Puts a question into another queue.", MoveRequest),
    ("post", "/v1/admin/approvals/{id}/answer", "admin", "Answers a question, once.", InputRequest),
    ("get", "/v1/admin/search-index", "admin", "Shows how far documents are embedded, by generation.", None),
    ("get", "/v1/admin/audit", "admin", "Lists audit records, newest first.", None),
    ("get", "/v1/admin/audit/verify", "admin", "Checks audit chains; says where to go on.", None),
    ("get", "/v1/admin/audit/export", "admin", "Exports a tenant's chain with what proves it.", None),
    ("get", "/v1/admin/tenants/{id}/erasure", "admin", "Shows how far a tenant's erasure is.", None),
    ("post", "/v1/admin/tenants/{id}/erasure", "admin", "Erases a tenant's data for good.", ErasureRequest),
    ("get", "/v1/admin/tenants/{id}/data-keys", "admin", "Lists a tenant's data keys, without the keys.", None),
    ("post", "/v1/admin/tenants/{id}/data-keys/rotate", "admin", "Makes a new data key for a tenant.", None),
    ("get", "/v1/admin/encryption", "admin", "Shows under which envelope keys the data keys stand.", None),
    ("post", "/v1/admin/encryption/rewrap", "admin", "Wraps all data keys under the newest one.", RewrapRequest),
    ("get", "/health/live", "health", "Whether the process answers.", None),
    ("get", "/health/ready", "health", "Whether the gateway can do its work.", None),
    ("get", "/metrics", "health", "Prometheus metrics.", None),
)
# What answers otherwise than 200 (a task that was waited for is answered by 200 too).
_STATUSES: dict[tuple[str, str], tuple[str, ...]] = {
    ("post", "/v1/tasks"): ("200", "202"),
    ("post", "/v1/tasks/{id}/retry"): ("200", "202"),
    ("post", "/v1/schedules"): ("201",),
    ("post", "/v1/documents"): ("200", "202"),
    ("put", "/v1/documents/{id}"): ("200", "202"),
    ("post", "/v1/admin/tenants"): ("201",),
    ("post", "/v1/admin/keys"): ("201",),
    ("post", "/v1/admin/invoices"): ("201",),
    ("post", "/v1/admin/keys/{id}/rotate"): ("201",),
    ("post", "/v1/admin/projects"): ("201",),
    ("post", "/v1/admin/tenants/{id}/erasure"): ("200", "202"),
    ("post", "/v1/admin/tenants/{id}/data-keys/rotate"): ("201",),
    ("post", "/v1/admin/ledger/corrections"): ("200", "201"),
    ("post", "/v1/admin/models/{name}/price"): ("200", "201"),
    ("post", "/v1/admin/evolution/run"): ("202",),
    **memory_bodies.STATUSES,
    **students_door.STATUSES,
    **roster_door.STATUSES,
    **experiments_door.STATUSES,
}
_QUERY: dict[str, tuple[str, ...]] = {
    **students_door.QUERY,
    **domains_door.QUERY,
    **experiments_door.QUERY,
    "/v1/tasks": ("state", "since", "cursor", "limit"),
    "/v1/cache": ("tenant",),
    "/v1/documents": ("state", "cursor", "limit"),
    "/v1/usage": ("from", "to", "group_by", "tenant", "format"),
    "/v1/requests": ("from", "to", "state", "model", "key", "tenant", "cursor", "limit", "format"),
    "/v1/invoices": ("tenant",),
    "/v1/invoices/{id}": ("format",),
    "/v1/admin/possible-spend": ("from", "to", "tenant"),
    "/v1/admin/keys": ("tenant",),
    "/v1/admin/projects": ("tenant",),
    "/v1/admin/budgets": ("tenant",),
    "/v1/admin/gates/report": ("tenant", "from", "to", "details", "format"),
    "/v1/admin/approvals": ("state", "queue", "label", "tenant", "cursor", "limit"),
    "/v1/admin/audit": ("tenant", "from", "to", "action", "actor", "outcome", "cursor", "limit"),
    "/v1/admin/audit/verify": ("tenant", "cursor"),
    "/v1/admin/audit/export": ("tenant", "from", "to", "format"),
    "/v1/admin/scoreboard": ("tenant", "model", "domain", "half_life_days"),
    "/v1/admin/ranks": ("tenant", "model", "limit"),
    "/v1/admin/gaps": ("tenant", "limit"),
    "/v1/admin/policies": ("tenant",),
    "/v1/admin/policies/{tenant}": ("limit",),
    "/v1/admin/evolution": ("limit",),
    "/v1/admin/ledger/audit": ("from", "to"),
    "/v1/admin/ledger/calls": ("from", "to"),
    "/v1/admin/dead-letters": ("service", "tenant", "cause", "task", "since", "cursor", "limit"),
}
_IDEMPOTENCY_KEY: dict[str, Any] = {
    "name": PARAM,
    "in": "header",
    "required": False,
    "description": "The same key and body give the same answer and one charge for a day; another body gives 409.",
    "schema": {"type": "string", "minLength": 1, "maxLength": MAX_KEY_CHARS, "pattern": "^[ -~]+$"},
}
# Parts that pass through as they came have no schema of their own in the structs.
_RAW_SCHEMAS: dict[str, Any] = {
    "messages": {"type": "array", "minItems": 1, "items": {"type": "object"}},
    "input": {"oneOf": [{"type": "string"}, {"type": "array", "items": {"type": "object"}}]},
}


_CACHE_HEADERS: dict[str, Any] = {
    "x-collegium-cache": {
        "description": "Whether the answer is one of before; off: the cache had no part in it.",
        "schema": {"type": "string", "enum": list(get_args(CacheResult))},
    },
    "x-collegium-cache-stale": {
        "description": "Only on an answer that is too old otherwise, shown because no model could be asked: its age.",
        "schema": {"type": "integer", "minimum": 0},
    },
}


@cache
def document() -> dict[str, Any]:
    """Returns the OpenAPI 3.1 document."""
    bodies = [operation[4] for operation in _OPERATIONS if operation[4] is not None]
    _, schemas = msgspec.json.schema_components(
        [*bodies, TaskView, WebhookView, BudgetView], schema_hook=_schema_of, ref_template="#/components/schemas/{name}"
    )
    for schema in schemas.values():
        for name, replacement in _RAW_SCHEMAS.items():
            if name in schema.get("properties", {}):
                schema["properties"][name] = replacement
    schemas["Error"] = _error_schema()
    paths: dict[str, dict[str, Any]] = {}
    for method, path, tag, summary, body in _OPERATIONS:
        paths.setdefault(path, {})[method] = _operation(method, path, tag, summary, body)
    return {
        "openapi": "3.1.0",
        "info": {"title": "Collegium", "version": "0.1.0", "license": {"name": "Apache-2.0"}},
        "paths": paths,
        "components": {
            "schemas": schemas,
            "securitySchemes": {"key": {"type": "http", "scheme": "bearer", "bearerFormat": "sk-clg-…"}},
        },
        "security": [{"key": []}],
    }


def _schema_of(_type: type) -> dict[str, Any]:
    """JSON that passes through as it came has no schema."""
    return {}


def _error_schema() -> dict[str, Any]:
    return {
        "type": "object",
        "properties": {
            "error": {
                "type": "object",
                "properties": {
                    "message": {"type": "string"},
                    "type": {"type": "string", "enum": sorted({kind.type for kind in ERRORS.values()})},
                    "param": {"type": ["string", "null"]},
                    "code": {"type": "string", "enum": sorted(ERRORS)},
                },
                "required": ["message", "type", "param", "code"],
            }
        },
        "required": ["error"],
    }


def _operation(method: str, path: str, tag: str, summary: str, body: type | None) -> dict[str, Any]:
    operation: dict[str, Any] = {
        "tags": [tag],
        "summary": summary,
        "operationId": f"{method}_{path.strip('/').replace('/', '_').replace('{', '').replace('}', '')}",
        "responses": {
            **{status: {"description": "The answer."} for status in _STATUSES.get((method, path), ("200",))},
            "default": {
                "description": "What went wrong and what to do.",
                "content": {"application/json": {"schema": {"$ref": "#/components/schemas/Error"}}},
            },
        },
    }
    if path in ("/v1/tasks/{id}", "/v1/tasks/{id}/retry") or (method, path) == ("post", "/v1/tasks"):
        shown = {"content": {"application/json": {"schema": {"$ref": "#/components/schemas/TaskView"}}}}
        for status in _STATUSES.get((method, path), ("200",)):
            operation["responses"][status].update(shown)
    if tag == "chat" and method == "post":
        operation["responses"]["200"]["headers"] = _CACHE_HEADERS
    if path == "/v1/tasks/{id}/webhook":
        shown = {"application/json": {"schema": {"$ref": "#/components/schemas/WebhookView"}}}
        operation["responses"]["200"]["content"] = shown
    if path.startswith("/v1/admin/budgets"):
        one = {"$ref": "#/components/schemas/BudgetView"}
        many = {"type": "object", "properties": {"data": {"type": "array", "items": one}}, "required": ["data"]}
        shown = {"application/json": {"schema": one if path.endswith("{id}") else many}}
        operation["responses"]["200"]["content"] = shown
    if tag == "health":
        operation["security"] = []
    parameters = [
        {"name": name, "in": "query", "required": False, "schema": {"type": "string"}}
        for name in (_QUERY.get(path, ()) if method == "get" else ()) or memory_bodies.QUERY.get((method, path), ())
    ]
    for name in re.findall(r"{(\w+)}", path):
        parameters.append({"name": name, "in": "path", "required": True, "schema": {"type": "string"}})
    if method == "post":
        parameters.append(_IDEMPOTENCY_KEY)
    if parameters:
        operation["parameters"] = parameters
    if body is not None:
        schema = {"$ref": f"#/components/schemas/{body.__name__}"}
        operation["requestBody"] = {
            "required": body not in (RotateRequest, RotateKeyRequest, RewrapRequest, NextRequest),
            "content": {"application/json": {"schema": schema}},
        }
    return operation


# A page without anything from elsewhere: it draws the document in place, so that it works without a network.
PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>Collegium API</title>
<style>
 body{font:16px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem;color:#1b1b1f}
 details{border:1px solid #d6d6de;border-radius:6px;margin:.5rem 0;padding:.4rem .8rem}
 summary{cursor:pointer}
 code,pre{font:14px/1.4 ui-monospace,monospace}pre{overflow:auto;background:#f5f5f8;padding:.6rem}
 .m{display:inline-block;width:4rem;font-weight:600;text-transform:uppercase}.s{color:#55555f}
</style></head><body>
<h1>Collegium API</h1><p>The document itself is at <a href="/openapi.json">/openapi.json</a>.</p><main id="list"></main>
<script>
fetch('/openapi.json').then(r=>r.json()).then(d=>{
 const list=document.getElementById('list');let tag='';
 const resolve=s=>s&&s.$ref?d.components.schemas[s.$ref.split('/').pop()]:s;
 for(const [path,ops] of Object.entries(d.paths))for(const [method,op] of Object.entries(ops)){
  if(op.tags[0]!==tag){tag=op.tags[0];const h=document.createElement('h2');h.textContent=tag;list.append(h)}
  const box=document.createElement('details'),head=document.createElement('summary');
  for(const [cls,text] of [['m',method],['',path+'  '],['s',op.summary]]){
   const s=document.createElement(cls===''?'code':'span');s.className=cls;s.textContent=text;head.append(s)}
  box.append(head);
  const show=(title,value)=>{const p=document.createElement('p');p.textContent=title;
   const pre=document.createElement('pre');pre.textContent=JSON.stringify(value,null,1);box.append(p,pre)};
  if(op.parameters)show('Parameters',op.parameters.map(p=>p.name+' ('+p.in+')'));
  if(op.requestBody)show('Body',resolve(op.requestBody.content['application/json'].schema));
  list.append(box)}
});
</script></body></html>
"""
