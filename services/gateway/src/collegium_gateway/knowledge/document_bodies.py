"""What clients send of documents and searches, and what they get of them. Pure, apart from opening envelopes.

One rule: what a person wrote is opened for the tenant that it is of, and for nobody else.
"""

from __future__ import annotations

import base64
import binascii
from typing import Any, NamedTuple

import msgspec
from collegium_contracts.envelope import Keyring
from collegium_contracts.knowledge import (
    DocumentKind,
    DocumentMeta,
    DocumentRow,
    FieldValue,
    SearchFilters,
    SearchMode,
)

from collegium_gateway.admission.requests import parse
from collegium_gateway.errors import ApiError
from collegium_gateway.tasks.views import rfc3339

# What a raw body is, by its content type.
KINDS: dict[str, DocumentKind] = {
    "text/plain": "text",
    "text/markdown": "markdown",
    "text/html": "html",
    "application/pdf": "pdf",
}


class DocumentRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """``POST /v1/documents`` and ``PUT /v1/documents/{id}``: ``content`` is text, or ``content_base64`` any bytes."""

    content: str | None = None
    content_base64: str | None = None
    type: DocumentKind = "text"
    id: str = ""
    title: str = ""
    tags: list[str] = []
    fields: dict[str, FieldValue] = {}


class SearchBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """``POST /v1/search``."""

    query: str
    limit: int = 10
    mode: SearchMode = "hybrid"
    filters: SearchFilters = SearchFilters()
    threshold: float = 0.0
    diversity: float = 0.0
    budget_tokens: int | None = None
    user: str = ""
    weight: float | None = None
    explain: bool = False
    rerank: bool = False
    rewrite: bool = False
    expand: int = 0
    model: str = ""
    """The model that puts the question in other words; empty: the configured one."""


# What of a search's body is the gateway's to do, and not for context.
REWORDING = ("rewrite", "expand", "model")


class Sent(NamedTuple):
    """A document as it was sent."""

    id: str
    kind: DocumentKind
    content: bytes
    meta: DocumentMeta


_decode_document = msgspec.json.Decoder(DocumentRequest)
decode_search = msgspec.json.Decoder(SearchBody)
_decode_meta = msgspec.json.Decoder(DocumentMeta).decode


def sent(media: str, body: bytes) -> Sent:
    """Reads a document that is sent as JSON; raises ApiError."""
    if media not in ("application/json", ""):
        known = ", ".join(("application/json", "multipart/form-data", *KINDS))
        raise ApiError("invalid_value", f"a document of type {media!r} is not read; send {known}", param="content-type")
    asked = parse(_decode_document, body)
    return Sent(asked.id, asked.type, _content_of(asked), DocumentMeta(asked.title, asked.tags, asked.fields))


def _content_of(asked: DocumentRequest) -> bytes:
    if (asked.content is None) == (asked.content_base64 is None):
        raise ApiError("invalid_value", "give either content or content_base64", param="content")
    if asked.content is not None:
        return asked.content.encode()
    try:
        return base64.b64decode(asked.content_base64 or "", validate=True)
    except (binascii.Error, ValueError):
        raise ApiError("invalid_value", "content_base64 is not base64", param="content_base64") from None


def document_view(row: DocumentRow, tenant: str, keyring: Keyring) -> dict[str, Any]:
    """Returns a document as its tenant sees it."""
    meta = _decode_meta(keyring.open(tenant, row.meta))
    error = {"code": row.error.code, "message": row.error.message} if row.error is not None else None
    return {
        "id": row.id,
        "object": "document",
        "type": row.kind,
        "state": row.state,
        "project": row.project,
        "title": meta.title,
        "tags": meta.tags,
        "fields": meta.fields,
        "bytes": row.bytes,
        "chunks": row.chunks,
        "tokens": row.tokens,
        "stored_bytes": row.stored_bytes,
        "is_served": row.is_served,
        "progress": {"done": row.done, "total": row.total},
        "created_at": rfc3339(row.created_at_ms),
        "updated_at": rfc3339(row.updated_at_ms),
        "indexed_at": rfc3339(row.indexed_at_ms) if row.indexed_at_ms is not None else None,
        "error": error,
    }
