"""Memory over HTTP: memories, paths and grants, shared contexts, conversations.

What is asked and answered passes sealed: context shows what its client is to see. One rule: the tenant is the key's,
and no request can name another; the project is the key's too, unless it administrates.
"""

from __future__ import annotations

import msgspec
from collegium_contracts import memory_requests as q
from collegium_contracts import subjects as s
from collegium_contracts.messages import Message
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from collegium_gateway.admission.requests import parse
from collegium_gateway.errors import ApiError
from collegium_gateway.http import asgi
from collegium_gateway.http.replies import json_reply
from collegium_gateway.identity.directory import Directory
from collegium_gateway.identity.principal import Principal
from collegium_gateway.knowledge import memory_bodies as bodies
from collegium_gateway.knowledge.memories import SCOPE, Memories

MAX_BODY_BYTES = 64 * 1024
# A shared context in JSON may be written with more bytes than it is kept with.
MAX_SHARED_BYTES = 600 * 1024
_encode = msgspec.json.Encoder().encode


class MemoryDoor:
    """The routes about what is remembered."""

    def __init__(self, directory: Directory, memories: Memories) -> None:
        self._directory = directory
        self._memories = memories

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

    def _project(self, request: Request, who: Principal) -> str:
        """Returns whose shared contexts and conversations are meant: the key's project's, or who administrates says."""
        named = request.query_params.get("project")
        if named is None or named == who.project:
            return who.project
        if "admin" not in who.scopes:
            raise ApiError(
                "insufficient_scope",
                f"key {who.key_id} is of project {who.project}; another one's needs a key with the scope admin",
                param="project",
            )
        return named

    async def _body(self, request: Request, max_bytes: int = MAX_BODY_BYTES) -> bytes:
        return await asgi.read_body(request.scope, request.receive, max_bytes)

    async def _ask(self, tenant: str, subject: str, question: Message) -> Response:
        return self._reply(tenant, await self._memories.ask(subject, question))

    def _reply(self, tenant: str, shown: q.MemoryShown) -> Response:
        plain = self._memories.open(tenant, shown)
        status = 201 if shown.outcome == "created" else 200
        return Response(plain, status_code=status, media_type="application/json")

    async def _add(self, request: Request) -> Response:
        who = self._principal(request)
        body = parse(bodies.decode_memory, await self._body(request))
        return self._reply(who.tenant, await self._memories.add(who, body))

    async def _correct(self, request: Request) -> Response:
        who = self._principal(request)
        body = parse(bodies.decode_correction, await self._body(request))
        return self._reply(who.tenant, await self._memories.correct(who, request.path_params["id"], body))

    async def _recall(self, request: Request) -> Response:
        who = self._principal(request)
        body = parse(bodies.decode_recall, await self._body(request))
        return self._reply(who.tenant, await self._memories.recall(who, body))

    async def _list(self, request: Request) -> Response:
        who, query = self._principal(request), request.query_params
        page = await self._memories.page(
            who,
            path=query.get("path"),
            limit=bodies.number_of(query.get("limit"), 50, "limit"),
            cursor=query.get("cursor") or "",
            forgotten=query.get("forgotten") == "true",
        )
        return self._reply(who.tenant, page)

    async def _forget_path(self, request: Request) -> Response:
        who = self._principal(request)
        return self._reply(who.tenant, await self._memories.forget(who, path=request.query_params.get("path")))

    async def _forget(self, request: Request) -> Response:
        who = self._principal(request)
        return self._reply(who.tenant, await self._memories.forget(who, memory=request.path_params["id"]))

    async def _get(self, request: Request) -> Response:
        who = self._principal(request)
        return self._reply(who.tenant, await self._memories.explain(who, request.path_params["id"]))

    async def _explain(self, request: Request) -> Response:
        who, query = self._principal(request), request.query_params
        shown = await self._memories.explain(
            who,
            request.path_params["id"],
            question=query.get("question") or "",
            path=query.get("path"),
            task=query.get("task") or "",
        )
        return self._reply(who.tenant, shown)

    async def _paths(self, request: Request) -> Response:
        who = self._principal(request)
        return await self._ask(
            who.tenant, s.SVC_MEMORY_PATH_LIST, q.MemoryPathList(tenant=who.tenant, reach=who.memory_reach)
        )

    async def _set_path(self, request: Request) -> Response:
        who = self._principal(request)
        body = parse(bodies.decode_path, await self._body(request))
        question = q.MemoryPathSet(
            tenant=who.tenant, path=body.path, off=body.off, inherits=body.inherits, reach=who.memory_reach
        )
        return await self._ask(who.tenant, s.SVC_MEMORY_PATH_SET, question)

    async def _grants(self, request: Request) -> Response:
        who = self._principal(request)
        return await self._ask(
            who.tenant, s.SVC_MEMORY_GRANT_LIST, q.MemoryGrantList(tenant=who.tenant, reach=who.memory_reach)
        )

    async def _grant(self, request: Request) -> Response:
        who = self._principal(request)
        body = parse(bodies.decode_grant, await self._body(request))
        question = q.MemoryGrantAdd(tenant=who.tenant, reader=body.reader, source=body.source, reach=who.memory_reach)
        return await self._ask(who.tenant, s.SVC_MEMORY_GRANT_ADD, question)

    async def _revoke(self, request: Request) -> Response:
        who = self._principal(request)
        question = q.MemoryGrantRevoke(tenant=who.tenant, id=request.path_params["id"], reach=who.memory_reach)
        return await self._ask(who.tenant, s.SVC_MEMORY_GRANT_REVOKE, question)

    async def _shared_list(self, request: Request) -> Response:
        who, query = self._principal(request), request.query_params
        question = q.SharedList(
            tenant=who.tenant,
            project=self._project(request, who),
            limit=bodies.number_of(query.get("limit"), 100, "limit"),
            after_id=query.get("cursor") or "",
        )
        return await self._ask(who.tenant, s.SVC_MEMORY_SHARED_LIST, question)

    async def _shared(self, request: Request) -> Response:
        who, version = self._principal(request), request.query_params.get("version")
        question = q.SharedGet(
            tenant=who.tenant,
            project=self._project(request, who),
            id=request.path_params["id"],
            version=bodies.number_of(version, 0, "version") if version else None,
        )
        return await self._ask(who.tenant, s.SVC_MEMORY_SHARED_GET, question)

    async def _versions(self, request: Request) -> Response:
        who = self._principal(request)
        question = q.SharedVersions(
            tenant=who.tenant, project=self._project(request, who), id=request.path_params["id"]
        )
        return await self._ask(who.tenant, s.SVC_MEMORY_SHARED_VERSIONS, question)

    async def _put_shared(self, request: Request) -> Response:
        who = self._principal(request)
        self._memories.need_storage(who)
        body = parse(bodies.decode_shared, await self._body(request, MAX_SHARED_BYTES))
        question = q.SharedPut(
            tenant=who.tenant,
            project=self._project(request, who),
            id=request.path_params["id"],
            fields=self._memories.seal(who.tenant, _encode(body.fields)),
            expected_version=body.expected_version,
            merge=request.method == "PATCH",
            by=who.key_id,
        )
        return await self._store_shared(question)

    async def _delete_shared(self, request: Request) -> Response:
        who, expected = self._principal(request), request.query_params.get("expected_version")
        question = q.SharedPut(
            tenant=who.tenant,
            project=self._project(request, who),
            id=request.path_params["id"],
            fields=None,
            expected_version=bodies.number_of(expected, 0, "expected_version") if expected else None,
            by=who.key_id,
        )
        return await self._store_shared(question)

    async def _store_shared(self, question: q.SharedPut) -> Response:
        shown = await self._memories.ask(s.SVC_MEMORY_SHARED_PUT, question)
        if shown.outcome != "conflict":
            return self._reply(question.tenant, shown)
        current = msgspec.json.decode(self._memories.open(question.tenant, shown))
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
            project=self._project(request, who),
            limit=bodies.number_of(query.get("limit"), 100, "limit"),
            after_id=query.get("cursor") or "",
        )
        return await self._ask(who.tenant, s.SVC_MEMORY_CONVERSATION_LIST, question)

    async def _talk(self, request: Request) -> Response:
        who, query = self._principal(request), request.query_params
        question = q.ConversationGet(
            tenant=who.tenant,
            project=self._project(request, who),
            id=request.path_params["id"],
            limit=bodies.number_of(query.get("limit"), 20, "limit"),
            before_sequence=bodies.number_of(query.get("cursor"), 0, "cursor"),
        )
        return await self._ask(who.tenant, s.SVC_MEMORY_CONVERSATION_GET, question)

    async def _forget_talk(self, request: Request) -> Response:
        who, task = self._principal(request), request.path_params.get("task", "")
        question = q.ConversationForget(
            tenant=who.tenant, project=self._project(request, who), id=request.path_params["id"], task=task
        )
        return await self._ask(who.tenant, s.SVC_MEMORY_CONVERSATION_FORGET, question)
