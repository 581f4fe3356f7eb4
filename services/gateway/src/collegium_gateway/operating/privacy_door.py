"""The door to tenants' privacy: data keys, the envelope key, erasure.

One rule: no key leaves by this door, only its id, its age and what it is wrapped under.
"""

from __future__ import annotations

from typing import Any

import msgspec
from collegium_bus.errors import BusError
from collegium_contracts.envelope import UnknownKeyError
from collegium_contracts.ids import TENANT_ID
from collegium_contracts.state import DataKeysRecord, Erasure
from collegium_runtime.datakeys import DataKeys, KeysExhaustedError
from collegium_runtime.erasing import Erasing, left_of
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from collegium_gateway.admission.requests import parse
from collegium_gateway.errors import ApiError, from_bus
from collegium_gateway.http import asgi
from collegium_gateway.http.replies import json_reply
from collegium_gateway.identity.directory import Directory
from collegium_gateway.identity.principal import Principal
from collegium_gateway.tasks.views import rfc3339

MAX_BODY_BYTES = 4 * 1024
# The operator's own tenant holds the keys that everything else is administered with.
_PROTECTED = frozenset({"operator"})


class ErasureRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """``POST /v1/admin/tenants/{id}/erasure``: the tenant's id once more, because nothing brings its data back."""

    confirm: str = ""
    dry_run: bool = False


class RewrapRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """``POST /v1/admin/encryption/rewrap``."""

    dry_run: bool = False


_decode_erasure = msgspec.json.Decoder(ErasureRequest)
_decode_rewrap = msgspec.json.Decoder(RewrapRequest)


class PrivacyDoor:
    """Data keys and erasure over HTTP, for operators."""

    def __init__(self, directory: Directory, data_keys: DataKeys, erasing: Erasing) -> None:
        self._directory = directory
        self._data_keys = data_keys
        self._erasing = erasing

    def routes(self) -> list[Route]:
        """The routes of this door."""
        return [
            Route("/v1/admin/tenants/{id}/erasure", self._erasure, methods=["GET"]),
            Route("/v1/admin/tenants/{id}/erasure", self._erase, methods=["POST"]),
            Route("/v1/admin/tenants/{id}/data-keys", self._keys, methods=["GET"]),
            Route("/v1/admin/tenants/{id}/data-keys/rotate", self._rotate, methods=["POST"]),
            Route("/v1/admin/encryption", self._encryption, methods=["GET"]),
            Route("/v1/admin/encryption/rewrap", self._rewrap, methods=["POST"]),
        ]

    def _operator(self, request: Request) -> Principal:
        principal = self._directory.keys.authenticate(request.headers.get("authorization"))
        principal.need("admin")
        return principal

    def _tenant(self, request: Request) -> str:
        tenant: str = request.path_params["id"]
        known = TENANT_ID.match(tenant) and (
            tenant in self._directory.keys.tenants() or self._data_keys.of(tenant) is not None
        )
        if not known:
            raise ApiError("not_found", "there is no such tenant", param="id")
        return tenant

    async def _erasure(self, request: Request) -> Response:
        self._operator(request)
        tenant = self._tenant(request)
        try:
            erasure = await self._erasing.of(tenant)
        except BusError as error:
            raise from_bus(error, f"the erasure of tenant {tenant}") from error
        if erasure is None:
            raise ApiError("not_found", f"tenant {tenant} is not being erased", param="id")
        return json_reply(erasure_view(erasure))

    async def _erase(self, request: Request) -> Response:
        principal, tenant = self._operator(request), self._tenant(request)
        body = parse(_decode_erasure, await asgi.read_body(request.scope, request.receive, MAX_BODY_BYTES))
        if tenant in _PROTECTED:
            raise ApiError("invalid_value", f"tenant {tenant} administers the platform and is not erased", param="id")
        if body.dry_run:
            record = self._data_keys.of(tenant)
            return json_reply({"tenant": tenant, "dry_run": True, "data_keys": len(record.keys) if record else 0})
        if body.confirm != tenant:
            raise ApiError("invalid_value", f"confirm must be {tenant!r}: nothing brings it back", param="confirm")
        try:
            erasure = await self._erasing.request(tenant, principal.key_id)
        except BusError as error:
            raise from_bus(error, f"the erasure of tenant {tenant}") from error
        self._directory.letting_in.shut(tenant)
        return json_reply(erasure_view(erasure), 202)

    async def _keys(self, request: Request) -> Response:
        self._operator(request)
        tenant = self._tenant(request)
        return json_reply(keys_view(self._data_keys.of(tenant) or DataKeysRecord(tenant=tenant)))

    async def _rotate(self, request: Request) -> Response:
        self._operator(request)
        tenant = self._tenant(request)
        try:
            record = await self._data_keys.rotate(tenant)
        except UnknownKeyError as error:
            raise ApiError("not_found", str(error), param="id") from error
        except KeysExhaustedError as error:
            raise ApiError("invalid_value", str(error), param="id") from error
        except BusError as error:
            raise from_bus(error, f"the data key of tenant {tenant}") from error
        return json_reply(keys_view(record), 201)

    async def _encryption(self, request: Request) -> Response:
        self._operator(request)
        return json_reply(self._state())

    async def _rewrap(self, request: Request) -> Response:
        self._operator(request)
        raw = await asgi.read_body(request.scope, request.receive, MAX_BODY_BYTES)
        body = parse(_decode_rewrap, raw or b"{}")
        try:
            count = await self._data_keys.rewrap(is_dry_run=body.dry_run)
        except BusError as error:
            raise from_bus(error, "the data keys") from error
        return json_reply({"rewrapped": count, "dry_run": body.dry_run, **self._state()})

    def _state(self) -> dict[str, Any]:
        return {"envelope_key": self._data_keys.envelope.newest.id, "wrapped_by": self._data_keys.wrapped_by()}


def keys_view(record: DataKeysRecord) -> dict[str, Any]:
    """Shows a tenant's data keys without the keys."""
    return {
        "tenant": record.tenant,
        "erased_at": rfc3339(record.erased_at_ms) if record.erased_at_ms else None,
        "keys": [
            {"id": key.id, "created_at": rfc3339(key.created_at_ms), "wrapped_by": key.wrapped_by}
            for key in record.keys
        ],
    }


def erasure_view(erasure: Erasure) -> dict[str, Any]:
    """Shows how far an erasure is: what is done, and what is left."""
    left = left_of(erasure)
    return {
        "tenant": erasure.tenant,
        "requested_at": rfc3339(erasure.requested_at_ms),
        "requested_by": erasure.requested_by,
        "state": "erasing" if left else "erased",
        "left": left,
        "done": {part: rfc3339(at_ms) for part, at_ms in erasure.done.items()},
        "removed": erasure.removed,
    }
