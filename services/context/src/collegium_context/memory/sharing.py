"""Questions about shared contexts in, answers out: documents of fields that agents hand to each other by id.

One rule: a write that expected another version changes nothing and shows what stands.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec
from collegium_bus.errors import RequestRefusedError
from collegium_contracts import memory_requests as q
from collegium_contracts.envelope import Envelope
from collegium_contracts.messages import Message
from collegium_contracts.scope import Scope

from collegium_context.memory.places import own_id, place, span
from collegium_context.memory.sealing import Sealing, checked
from collegium_context.memory.shared_store import Document, SharedStore
from collegium_context.memory.showing import document_view

FIELDS_BYTES_MAX = 256 * 1024
PAGE_MAX = 200
PURPOSE = "shared"

Fields = dict[str, Any]
_decode = msgspec.json.Decoder(Fields).decode
_encode = msgspec.json.Encoder().encode


class Sharing:
    """Answers about shared contexts."""

    def __init__(self, store: SharedStore, sealing: Sealing, now_ms: Callable[[], int]) -> None:
        self._store = store
        self._sealing = sealing
        self._now_ms = now_ms

    async def put(self, question: Message, _traceparent: str) -> Message:
        """Stores, merges into or deletes a document."""
        asked = checked(question, q.SharedPut)
        scope = Scope(asked.tenant).at(place(asked.project, asked.id))
        given = await self._given(asked) if asked.fields is not None else None
        stored_fields: Fields = {}

        async def make(standing: Document | None) -> Envelope | None:
            nonlocal stored_fields
            if given is None:
                return None
            before = await self._fields(asked.tenant, standing) if asked.merge and standing is not None else {}
            stored_fields = merged(before, given) if asked.merge else given
            plain = _encode(stored_fields)
            if len(plain) > FIELDS_BYTES_MAX:
                raise RequestRefusedError(
                    "body_too_large", f"a shared context has at most {FIELDS_BYTES_MAX} bytes", "fields"
                )
            return self._sealing.seal(asked.tenant, plain, PURPOSE)

        stored = await self._store.put(scope, make, expected=asked.expected_version, by=asked.by, now_ms=self._now_ms())
        document = stored.document
        if not stored.is_stored:
            if given is None and document is None and asked.expected_version in (None, 0):
                raise RequestRefusedError("not_found", f"there is no context {asked.id}", "id")
            current = await self._view(asked.tenant, document) if document is not None else None
            return self._sealing.shown(asked.tenant, current, "conflict")
        assert document is not None, "what was stored stands"
        if document.body is None:
            body = {"id": asked.id, "object": "context", "deleted": True, "version": document.version}
            return self._sealing.shown(asked.tenant, body, "changed")
        outcome = "created" if document.version == 1 else "changed"
        return self._sealing.shown(asked.tenant, document_view(document, stored_fields), outcome)

    async def get(self, question: Message, _traceparent: str) -> Message:
        """Shows a document, as it stands or in a version."""
        asked = checked(question, q.SharedGet)
        document = await self._store.get(Scope(asked.tenant).at(place(asked.project, asked.id)), asked.version)
        if document is None:
            what = f"context {asked.id}" if asked.version is None else f"version {asked.version} of context {asked.id}"
            raise RequestRefusedError("not_found", f"there is no {what}", "id")
        return self._sealing.shown(asked.tenant, await self._view(asked.tenant, document))

    async def versions(self, question: Message, _traceparent: str) -> Message:
        """Lists the versions of a document."""
        asked = checked(question, q.SharedVersions)
        found = await self._store.versions(Scope(asked.tenant).at(place(asked.project, asked.id)))
        if not found:
            raise RequestRefusedError("not_found", f"there is no context {asked.id}", "id")
        return self._sealing.shown(asked.tenant, _list([document_view(one, None) for one in found], None))

    async def page(self, question: Message, _traceparent: str) -> Message:
        """Lists documents by id."""
        asked = checked(question, q.SharedList)
        if not 1 <= asked.limit <= PAGE_MAX:
            raise RequestRefusedError("invalid_value", f"from 1 to {PAGE_MAX}", "limit")
        found = await self._store.page(Scope(asked.tenant), span(asked.project, asked.after_id), limit=asked.limit)
        cursor = own_id(found[-1].place) if len(found) == asked.limit else None
        return self._sealing.shown(asked.tenant, _list([document_view(one, None) for one in found], cursor))

    async def _given(self, asked: q.SharedPut) -> Fields:
        assert asked.fields is not None, "checked before"
        try:
            return _decode(await self._sealing.open(asked.tenant, asked.fields))
        except (msgspec.DecodeError, RecursionError) as error:
            raise RequestRefusedError("invalid_value", "a shared context is a JSON object", "fields") from error

    async def _fields(self, tenant: str, document: Document) -> Fields:
        assert document.body is not None, "only what has a body stands"
        return _decode(await self._sealing.open(tenant, document.body, PURPOSE))

    async def _view(self, tenant: str, document: Document) -> dict[str, Any]:
        return document_view(document, await self._fields(tenant, document))


def merged(before: Fields, given: Fields) -> Fields:
    """Returns the fields with those given over them; null removes one."""
    return {name: value for name, value in {**before, **given}.items() if value is not None}


def _list(data: list[dict[str, Any]], cursor: str | None) -> dict[str, Any]:
    return {"object": "list", "data": data, "next_cursor": cursor}
