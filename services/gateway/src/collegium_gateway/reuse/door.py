"""``/v1/cache``: how a tenant's kept answers fare, and forgetting all of them, exact and alike.

Tenants' administrators for their own, operators for any by ``?tenant=``. One rule: when the answer is here, what was
forgotten stands nowhere but in other gateways' memory, and there for as long as the broker needs to tell them.
"""

from __future__ import annotations

from typing import Final

from collegium_bus.errors import BusError
from collegium_bus.kv import Bucket
from collegium_bus.purging import purge
from collegium_contracts import belongings
from collegium_contracts import subjects as s
from collegium_contracts.ids import TENANT_ID
from collegium_contracts.likeness import LikenessForget, LikenessForgotten, LikenessStats, LikenessStatsReply
from collegium_runtime.platform import Platform
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from collegium_gateway.asking import ask_context
from collegium_gateway.chat.chats import Chats
from collegium_gateway.errors import from_bus
from collegium_gateway.http.replies import json_reply
from collegium_gateway.identity.directory import Directory
from collegium_gateway.identity.principal import no_tenant_id
from collegium_gateway.identity.roles import Permission

PATH: Final = "/v1/cache"
FORGET_SECONDS: Final = 30.0


class CacheDoor:
    """The routes about kept answers."""

    def __init__(self, platform: Platform, directory: Directory, chats: Chats) -> None:
        self._platform = platform
        self._directory = directory
        self._chats = chats
        self._bucket = Bucket(platform.connection, s.KV_CACHE)

    def routes(self) -> list[Route]:
        """The routes of this door."""
        return [Route(PATH, self._show, methods=["GET"]), Route(PATH, self._clear, methods=["DELETE"])]

    def _tenant(self, request: Request, permission: Permission) -> str:
        principal = self._directory.keys.authenticate(request.headers.get("authorization"))
        principal.need_permission(permission)
        asked = request.query_params.get("tenant")
        if asked is not None and TENANT_ID.match(asked) is None:
            raise no_tenant_id("tenant")
        return principal.within(asked) or principal.tenant

    async def _show(self, request: Request) -> Response:
        tenant = self._tenant(request, "cache.read")
        stats = await ask_context(
            self._platform, s.SVC_LIKENESS_STATS, LikenessStats(tenant=tenant), LikenessStatsReply
        )
        rate = stats.explored_wrong / stats.explored if stats.explored else 0.0
        semantic = {
            "entries": stats.entries,
            "served": stats.served,
            "explored": stats.explored,
            "explored_wrong": stats.explored_wrong,
            "said_wrong": stats.said_wrong,
            "wrong_hits": {"value": round(rate, 6), "low": stats.wrong_low, "high": stats.wrong_high},
        }
        return json_reply({"tenant": tenant, "semantic": semantic})

    async def _clear(self, request: Request) -> Response:
        tenant = self._directory.keys.known(self._tenant(request, "cache.write"))
        forgotten = await ask_context(
            self._platform,
            s.SVC_LIKENESS_FORGET,
            LikenessForget(tenant=tenant),
            LikenessForgotten,
            timeout_seconds=FORGET_SECONDS,
        )
        try:
            exact = await purge(self._platform.connection, *belongings.bucket_of(s.KV_CACHE, tenant))
            # Every gateway follows the bucket, and forgets what it has in memory when this comes by.
            await self._bucket.put(s.cache_cleared(tenant), b"")
        except BusError as error:
            raise from_bus(error, f"the cache of tenant {tenant}") from error
        self._chats.memory.drop_tenant(tenant)
        return json_reply({"tenant": tenant, "exact": exact, "semantic": forgotten.entries})
