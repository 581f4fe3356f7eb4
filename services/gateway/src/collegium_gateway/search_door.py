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

from collegium_gateway import asgi
from collegium_gateway.asking import ask_context
from collegium_gateway.directory import Directory
from collegium_gateway.document_bodies import decode_search
from collegium_gateway.errors import ApiError
from collegium_gateway.principal import Principal
from collegium_gateway.replies import json_reply
from collegium_gateway.requests import parse

SCOPE = "knowledge"
MAX_BODY_BYTES = 64 * 1024
SEARCH_SECONDS = 15.0
_encode = msgspec.json.Encoder().encode
decode_weights = msgspec.json.Decoder(k.ProfileWeights)


class SearchDoor:
    """The routes about searches."""

    def __init__(self, platform: Platform, directory: Directory) -> None:
        self._platform = platform
        self._directory = directory

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
        asked = k.SearchAsked(**{name: getattr(body, name) for name in body.__struct_fields__})
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
            }
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
