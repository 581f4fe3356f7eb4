"""Search over HTTP, and the profiles of who searches. One rule: what was degraded is told in every answer."""

from __future__ import annotations

import msgspec
from collegium_contracts import knowledge as k
from collegium_contracts import subjects as s
from collegium_contracts.envelope import Envelope
from collegium_contracts.ids import USER_ID
from collegium_runtime.platform import Platform
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from collegium_gateway.admission.requests import parse
from collegium_gateway.asking import ask_context
from collegium_gateway.errors import ApiError
from collegium_gateway.http import asgi
from collegium_gateway.http.replies import json_reply
from collegium_gateway.identity.directory import Directory
from collegium_gateway.identity.principal import Principal
from collegium_gateway.knowledge.document_bodies import REWORDING, SearchBody, decode_search
from collegium_gateway.knowledge.rewording import EXPAND_MAX
from collegium_gateway.knowledge.rewriter import Rewriter, Rewritten

SCOPE = "knowledge"
MAX_BODY_BYTES = 64 * 1024
SEARCH_SECONDS = 15.0
QUERY_CHARS_MAX = 4_000
_encode = msgspec.json.Encoder().encode
decode_weights = msgspec.json.Decoder(k.ProfileWeights)


class SearchDoor:
    """The routes about searches."""

    def __init__(self, platform: Platform, directory: Directory, rewriter: Rewriter) -> None:
        self._platform = platform
        self._directory = directory
        self._rewriter = rewriter

    def routes(self) -> list[Route]:
        """The routes of this door."""
        profile = "/v1/search/profiles/{user}"
        return [
            Route("/v1/search", self._search, methods=["POST"]),
            Route(profile, self._get_profile, methods=["GET"]),
            Route(profile, self._set_profile, methods=["PUT"]),
            Route(profile, self._forget_profile, methods=["DELETE"]),
        ]

    def _principal(self, request: Request) -> Principal:
        principal = self._directory.keys.authenticate(request.headers.get("authorization"))
        principal.need(SCOPE)
        return principal

    async def _search(self, request: Request) -> Response:
        principal = self._principal(request)
        body = parse(decode_search, await asgi.read_body(request.scope, request.receive, MAX_BODY_BYTES))
        rewritten = await self._rewritten(request, principal, body)
        asked = k.SearchAsked(
            **{name: getattr(body, name) for name in body.__struct_fields__ if name not in REWORDING},
            queries=rewritten.queries if rewritten is not None else [],
        )
        question = k.SearchRequest(tenant=principal.tenant, asked=self._seal(principal, asked))
        reply = await ask_context(
            self._platform, s.SVC_KNOWLEDGE_SEARCH, question, k.SearchReply, timeout_seconds=SEARCH_SECONDS
        )
        results = msgspec.Raw(self._platform.keyring.open(principal.tenant, reply.results))
        return json_reply(
            {
                "object": "search",
                "data": results,
                "mode": reply.mode,
                "degraded": reply.degraded or None,
                "weight": reply.weight,
                "tokens": reply.tokens,
                "knowledge_version": reply.knowledge_version,
                "cached": reply.is_cached,
                **({"reranked": reply.reranked} if reply.reranked else {}),
                **({"rewriting": rewritten} if rewritten is not None else {}),
            }
        )

    async def _rewritten(self, request: Request, principal: Principal, body: SearchBody) -> Rewritten | None:
        """Returns further wordings where they are asked for; a body that is refused anyway costs nothing."""
        if not 0 <= body.expand <= EXPAND_MAX:
            raise ApiError("invalid_value", f"from 0 to {EXPAND_MAX}", param="expand")
        if not body.rewrite and not body.expand:
            if body.model:
                raise ApiError("invalid_value", "a model has nothing to do without rewrite or expand", param="model")
            return None
        if not body.query.strip() or len(body.query) > QUERY_CHARS_MAX:
            raise ApiError("invalid_value", f"from 1 to {QUERY_CHARS_MAX} characters", param="query")
        return await self._rewriter.rewritten(
            principal,
            body.query,
            rewrite=body.rewrite,
            expand=body.expand,
            model=body.model,
            traceparent=request.headers.get("traceparent"),
        )

    async def _get_profile(self, request: Request) -> Response:
        principal, user = self._principal(request), _user_of(request)
        question = k.ProfileGet(tenant=principal.tenant, user=user)
        reply = await ask_context(self._platform, s.SVC_KNOWLEDGE_PROFILE_GET, question, k.ProfileReply)
        if reply.weights is None:
            raise ApiError("not_found", f"there is no profile of user {user!r}", param="user")
        weights = msgspec.Raw(self._platform.keyring.open(principal.tenant, reply.weights))
        return json_reply({"user": user, "weights": weights})

    async def _set_profile(self, request: Request) -> Response:
        principal, user = self._principal(request), _user_of(request)
        weights = parse(decode_weights, await asgi.read_body(request.scope, request.receive, MAX_BODY_BYTES))
        question = k.ProfileSet(tenant=principal.tenant, user=user, weights=self._seal(principal, weights))
        await ask_context(self._platform, s.SVC_KNOWLEDGE_PROFILE_SET, question, k.ProfileReply)
        return json_reply({"user": user, "weights": weights})

    async def _forget_profile(self, request: Request) -> Response:
        principal, user = self._principal(request), _user_of(request)
        question = k.ProfileSet(tenant=principal.tenant, user=user, weights=None)
        await ask_context(self._platform, s.SVC_KNOWLEDGE_PROFILE_SET, question, k.ProfileReply)
        return json_reply({"user": user, "deleted": True})

    def _seal(self, principal: Principal, value: object) -> Envelope:
        return self._platform.keyring.seal(principal.tenant, _encode(value))


def _user_of(request: Request) -> str:
    user: str = request.path_params["user"]
    if USER_ID.match(user) is None:
        raise ApiError("not_found", f"there is no profile of user {user!r}", param="user")
    return user
