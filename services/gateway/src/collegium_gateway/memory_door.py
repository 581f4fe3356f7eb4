"""Memory over HTTP: memories, paths and grants, shared contexts, conversations.

What is asked and answered passes sealed: context shows what its client is to see. One rule: the tenant is the key's,
and no request can name another.
"""

from __future__ import annotations

import msgspec
from collegium_bus.ask import ask
from collegium_bus.errors import BusError, RequestRefusedError
from collegium_contracts import memory_requests as q
from collegium_contracts import subjects as s
from collegium_contracts.envelope import Envelope
from collegium_contracts.messages import Message
from collegium_runtime.platform import Platform
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from collegium_gateway import asgi
from collegium_gateway import memory_bodies as bodies
from collegium_gateway.directory import Directory
from collegium_gateway.errors import ApiError
from collegium_gateway.principal import Principal
from collegium_gateway.replies import json_reply
from collegium_gateway.requests import parse

SCOPE = "knowledge"
ASK_SECONDS = 5.0
MAX_BODY_BYTES = 64 * 1024
# A shared context in JSON may be written with more bytes than it is kept with.
MAX_SHARED_BYTES = 600 * 1024
_encode = msgspec.json.Encoder().encode


class MemoryDoor:
    """The routes about what is remembered."""

    def __init__(self, platform: Platform, directory: Directory) -> None:
        self._platform = platform
        self._directory = directory

    def routes(self) -> list[Route]:
        """The routes of this door."""
        memories, contexts, talks = "/v1/memories", "/v1/contexts", "/v1/conversations"
        return [
            Route(memories, self._add, methods=["POST"]),
            Route(memories, self._list, methods=["GET"]),
            Route(memories, self._forget_path, methods=["DELETE"]),
            Route(f"{memories}/recall", self._recall, methods=["POST"]),
            Route(f"{memories}/paths", self._paths, methods=["GET"]),
            Route(f"{memories}/paths", self._set_path, methods=["PUT"]),
            Route(f"{memories}/grants", self._grants, methods=["GET"]),
            Route(f"{memories}/grants", self._grant, methods=["POST"]),
            Route(f"{memories}/grants/{{id}}", self._revoke, methods=["DELETE"]),
            Route(f"{memories}/{{id}}", self._get, methods=["GET"]),
            Route(f"{memories}/{{id}}", self._forget, methods=["DELETE"]),
            Route(f"{memories}/{{id}}/correct", self._correct, methods=["POST"]),
            Route(f"{memories}/{{id}}/explain", self._explain, methods=["GET"]),
            Route(contexts, self._shared_list, methods=["GET"]),
            Route(f"{contexts}/{{id}}", self._shared, methods=["GET"]),
            Route(f"{contexts}/{{id}}", self._put_shared, methods=["PUT", "PATCH"]),
            Route(f"{contexts}/{{id}}", self._delete_shared, methods=["DELETE"]),
            Route(f"{contexts}/{{id}}/versions", self._versions, methods=["GET"]),
            Route(talks, self._talks, methods=["GET"]),
            Route(f"{talks}/{{id}}", self._talk, methods=["GET"]),
            Route(f"{talks}/{{id}}", self._forget_talk, methods=["DELETE"]),
            Route(f"{talks}/{{id}}/turns/{{task}}", self._forget_talk, methods=["DELETE"]),
        ]

    def _principal(self, request: Request) -> Principal:
        principal = self._directory.keys.authenticate(request.headers.get("authorization"))
        principal.need(SCOPE)
        return principal

    async def _body(self, request: Request, max_bytes: int = MAX_BODY_BYTES) -> bytes:
        return await asgi.read_body(request.scope, request.receive, max_bytes)

    def _seal(self, tenant: str, plain: bytes) -> Envelope:
        return self._platform.keyring.seal(tenant, plain)

    async def _ask(self, tenant: str, subject: str, question: Message) -> Response:
        return self._reply(tenant, await self._answer(subject, question))

    async def _answer(self, subject: str, question: Message) -> q.MemoryShown:
        connection = self._platform.connection
        try:
            return await ask(connection, subject, question, q.MemoryShown, timeout_seconds=ASK_SECONDS)
        except RequestRefusedError as error:
            raise ApiError(error.code, error.message, param=error.param) from error
        except BusError as error:
            raise ApiError(
                "context_unavailable", "memory does not answer; try again later", retry_after_seconds=2
            ) from error

    def _reply(self, tenant: str, shown: q.MemoryShown) -> Response:
        plain = self._platform.keyring.open(tenant, shown.content)
        status = 201 if shown.outcome == "created" else 200
        return Response(plain, status_code=status, media_type="application/json")

    def _writer(self, request: Request) -> Principal:
        principal = self._principal(request)
        self._directory.need_storage(principal.tenant, principal.tier)
        return principal

    async def _add(self, request: Request) -> Response:
        who = self._writer(request)
        body = parse(bodies.decode_memory, await self._body(request))
        question = q.MemoryAdd(
            tenant=who.tenant,
            path=body.path,
            content=self._seal(who.tenant, bodies.content_of(body.text, body.source, who.key_id)),
            kind=body.kind,
            valid_from_ms=bodies.moment_of(body.valid_from, "valid_from"),
            valid_to_ms=bodies.moment_of(body.valid_to, "valid_to"),
        )
        return await self._ask(who.tenant, s.SVC_MEMORY_ADD, question)

    async def _correct(self, request: Request) -> Response:
        who = self._writer(request)
        body = parse(bodies.decode_correction, await self._body(request))
        question = q.MemoryCorrect(
            tenant=who.tenant,
            id=request.path_params["id"],
            content=self._seal(who.tenant, bodies.content_of(body.text, body.source, who.key_id)),
            valid_from_ms=bodies.moment_of(body.valid_from, "valid_from"),
            valid_to_ms=bodies.moment_of(body.valid_to, "valid_to"),
        )
        return await self._ask(who.tenant, s.SVC_MEMORY_CORRECT, question)

    async def _recall(self, request: Request) -> Response:
        who = self._principal(request)
        body = parse(bodies.decode_recall, await self._body(request))
        question = q.MemoryRecall(
            tenant=who.tenant,
            path=body.path,
            question=self._seal(who.tenant, body.question.encode()),
            limit=body.limit,
            max_tokens=body.max_tokens,
            kinds=body.kinds,
            as_of_ms=bodies.moment_of(body.as_of, "as_of"),
            known_at_ms=bodies.moment_of(body.known_at, "known_at"),
            inherits=body.inherits,
        )
        return await self._ask(who.tenant, s.SVC_MEMORY_RECALL, question)

    async def _list(self, request: Request) -> Response:
        who, query = self._principal(request), request.query_params
        question = q.MemoryList(
            tenant=who.tenant,
            path=query.get("path") or "/",
            limit=bodies.number_of(query.get("limit"), 50, "limit"),
            before_id=query.get("cursor") or "",
            forgotten=query.get("forgotten") == "true",
        )
        return await self._ask(who.tenant, s.SVC_MEMORY_LIST, question)

    async def _forget_path(self, request: Request) -> Response:
        who, path = self._principal(request), request.query_params.get("path")
        if not path:
            raise ApiError("invalid_value", "say which path is to be forgotten; / is all of the tenant", param="path")
        return await self._ask(who.tenant, s.SVC_MEMORY_FORGET, q.MemoryForget(tenant=who.tenant, path=path))

    async def _forget(self, request: Request) -> Response:
        who = self._principal(request)
        question = q.MemoryForget(tenant=who.tenant, id=request.path_params["id"])
        return await self._ask(who.tenant, s.SVC_MEMORY_FORGET, question)

    async def _get(self, request: Request) -> Response:
        who = self._principal(request)
        question = q.MemoryExplain(tenant=who.tenant, id=request.path_params["id"])
        return await self._ask(who.tenant, s.SVC_MEMORY_EXPLAIN, question)

    async def _explain(self, request: Request) -> Response:
        who, query = self._principal(request), request.query_params
        asked = query.get("question")
        question = q.MemoryExplain(
            tenant=who.tenant,
            id=request.path_params["id"],
            path=query.get("path"),
            question=self._seal(who.tenant, asked.encode()) if asked else None,
            task=query.get("task") or "",
        )
        return await self._ask(who.tenant, s.SVC_MEMORY_EXPLAIN, question)

    async def _paths(self, request: Request) -> Response:
        who = self._principal(request)
        return await self._ask(who.tenant, s.SVC_MEMORY_PATH_LIST, q.MemoryPathList(tenant=who.tenant))

    async def _set_path(self, request: Request) -> Response:
        who = self._principal(request)
        body = parse(bodies.decode_path, await self._body(request))
        question = q.MemoryPathSet(tenant=who.tenant, path=body.path, off=body.off, inherits=body.inherits)
        return await self._ask(who.tenant, s.SVC_MEMORY_PATH_SET, question)

    async def _grants(self, request: Request) -> Response:
        who = self._principal(request)
        return await self._ask(who.tenant, s.SVC_MEMORY_GRANT_LIST, q.MemoryGrantList(tenant=who.tenant))

    async def _grant(self, request: Request) -> Response:
        who = self._principal(request)
        body = parse(bodies.decode_grant, await self._body(request))
        question = q.MemoryGrantAdd(tenant=who.tenant, reader=body.reader, source=body.source)
        return await self._ask(who.tenant, s.SVC_MEMORY_GRANT_ADD, question)

    async def _revoke(self, request: Request) -> Response:
        who = self._principal(request)
        question = q.MemoryGrantRevoke(tenant=who.tenant, id=request.path_params["id"])
        return await self._ask(who.tenant, s.SVC_MEMORY_GRANT_REVOKE, question)

    async def _shared_list(self, request: Request) -> Response:
        who, query = self._principal(request), request.query_params
        question = q.SharedList(
            tenant=who.tenant,
            limit=bodies.number_of(query.get("limit"), 100, "limit"),
            after_id=query.get("cursor") or "",
        )
        return await self._ask(who.tenant, s.SVC_MEMORY_SHARED_LIST, question)

    async def _shared(self, request: Request) -> Response:
        who, version = self._principal(request), request.query_params.get("version")
        question = q.SharedGet(
            tenant=who.tenant,
            id=request.path_params["id"],
            version=bodies.number_of(version, 0, "version") if version else None,
        )
        return await self._ask(who.tenant, s.SVC_MEMORY_SHARED_GET, question)

    async def _versions(self, request: Request) -> Response:
        who = self._principal(request)
        question = q.SharedVersions(tenant=who.tenant, id=request.path_params["id"])
        return await self._ask(who.tenant, s.SVC_MEMORY_SHARED_VERSIONS, question)

    async def _put_shared(self, request: Request) -> Response:
        who = self._writer(request)
        body = parse(bodies.decode_shared, await self._body(request, MAX_SHARED_BYTES))
        question = q.SharedPut(
            tenant=who.tenant,
            id=request.path_params["id"],
            fields=self._seal(who.tenant, _encode(body.fields)),
            expected_version=body.expected_version,
            merge=request.method == "PATCH",
            by=who.key_id,
        )
        return await self._store_shared(question)

    async def _delete_shared(self, request: Request) -> Response:
        who, expected = self._principal(request), request.query_params.get("expected_version")
        question = q.SharedPut(
            tenant=who.tenant,
            id=request.path_params["id"],
            fields=None,
            expected_version=bodies.number_of(expected, 0, "expected_version") if expected else None,
            by=who.key_id,
        )
        return await self._store_shared(question)

    async def _store_shared(self, question: q.SharedPut) -> Response:
        shown = await self._answer(s.SVC_MEMORY_SHARED_PUT, question)
        if shown.outcome != "conflict":
            return self._reply(question.tenant, shown)
        current = msgspec.json.decode(self._platform.keyring.open(question.tenant, shown.content))
        stands = f"version {current['version']} stands" if current is not None else "it does not stand"
        error = ApiError(
            "version_conflict",
            f"context {question.id}: version {question.expected_version} was expected, {stands}; read it and try again",
            param="expected_version",
        )
        return json_reply({**asgi.error_body(error), "current": current}, error.kind.http_status)

    async def _talks(self, request: Request) -> Response:
        who, query = self._principal(request), request.query_params
        question = q.ConversationList(
            tenant=who.tenant,
            limit=bodies.number_of(query.get("limit"), 100, "limit"),
            after_id=query.get("cursor") or "",
        )
        return await self._ask(who.tenant, s.SVC_MEMORY_CONVERSATION_LIST, question)

    async def _talk(self, request: Request) -> Response:
        who, query = self._principal(request), request.query_params
        question = q.ConversationGet(
            tenant=who.tenant,
            id=request.path_params["id"],
            limit=bodies.number_of(query.get("limit"), 20, "limit"),
            before_sequence=bodies.number_of(query.get("cursor"), 0, "cursor"),
        )
        return await self._ask(who.tenant, s.SVC_MEMORY_CONVERSATION_GET, question)

    async def _forget_talk(self, request: Request) -> Response:
        who, task = self._principal(request), request.path_params.get("task", "")
        question = q.ConversationForget(tenant=who.tenant, id=request.path_params["id"], task=task)
        return await self._ask(who.tenant, s.SVC_MEMORY_CONVERSATION_FORGET, question)
