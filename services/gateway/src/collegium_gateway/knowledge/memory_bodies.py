"""What clients send to the doors of memory, and what the document says about them. Pure."""

from __future__ import annotations

from typing import Any

import msgspec
from collegium_contracts.memory_requests import MemoryContent, MemorySource

from collegium_gateway.errors import ApiError
from collegium_gateway.operating.identity_requests import moment_ms


class SourceBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Where a memory comes from, as its writer says."""

    task_id: str = ""
    conversation: str = ""
    user: str = ""


class MemoryBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """``POST /v1/memories``; without a path at that of the key's project."""

    text: str
    path: str | None = None
    kind: str = ""
    valid_from: str | None = None
    valid_to: str | None = None
    source: SourceBody = SourceBody()


class CorrectionBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """``POST /v1/memories/{id}/correct``."""

    text: str
    valid_from: str | None = None
    valid_to: str | None = None
    source: SourceBody = SourceBody()


class RecallBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """``POST /v1/memories/recall``."""

    question: str
    path: str | None = None
    limit: int = 10
    max_tokens: int = 2_000
    kinds: list[str] = []
    as_of: str | None = None
    known_at: str | None = None
    inherits: bool = True


class PathBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """``PUT /v1/memories/paths``: what holds at a path and below it; what is left out stays."""

    path: str
    off: bool | None = None
    inherits: bool | None = None


class GrantBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """``POST /v1/memories/grants``: ``reader`` may read what is at ``source`` and below it."""

    reader: str
    source: str


class SharedBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """``PUT`` and ``PATCH /v1/contexts/{id}``; with ``expected_version`` only where that one stands (0: none does)."""

    fields: dict[str, Any]
    expected_version: int | None = None


decode_memory = msgspec.json.Decoder(MemoryBody)
decode_correction = msgspec.json.Decoder(CorrectionBody)
decode_recall = msgspec.json.Decoder(RecallBody)
decode_path = msgspec.json.Decoder(PathBody)
decode_grant = msgspec.json.Decoder(GrantBody)
decode_shared = msgspec.json.Decoder(SharedBody)
_encode = msgspec.json.Encoder().encode


def content_of(text: str, source: SourceBody, key_id: str) -> bytes:
    """Writes what is sealed of a memory."""
    told = MemorySource(task_id=source.task_id, conversation=source.conversation, user=source.user, key_id=key_id)
    return _encode(MemoryContent(text=text, source=told))


def moment_of(text: str | None, param: str) -> int | None:
    """Reads a time as Unix ms, none as none; raises ApiError."""
    return None if text is None else moment_ms(text, param)


def number_of(text: str | None, default: int, param: str) -> int:
    """Reads a number of the query; raises ApiError."""
    if not text:
        return default
    if not text.isascii() or not text.isdigit() or len(text) > 18:
        raise ApiError("invalid_value", f"{param} must be a whole number", param=param)
    return int(text)


Operation = tuple[str, str, str, str, type | None]
OPERATIONS: tuple[Operation, ...] = (
    ("post", "/v1/memories", "memory", "Remembers a text at a path; what is known already is refreshed.", MemoryBody),
    ("get", "/v1/memories", "memory", "Lists memories at a path and below it, newest first.", None),
    ("delete", "/v1/memories", "memory", "Forgets all that lies at a path and below it.", None),
    ("post", "/v1/memories/recall", "memory", "Recalls what answers a question, best first.", RecallBody),
    ("get", "/v1/memories/paths", "memory", "Lists what is set for paths.", None),
    ("put", "/v1/memories/paths", "memory", "Switches memory off at a path, or what it inherits.", PathBody),
    ("get", "/v1/memories/grants", "memory", "Lists which paths may read which others.", None),
    ("post", "/v1/memories/grants", "memory", "Lets a path read another.", GrantBody),
    ("delete", "/v1/memories/grants/{id}", "memory", "Takes a grant back.", None),
    ("get", "/v1/memories/{id}", "memory", "Shows a memory with all its versions.", None),
    ("delete", "/v1/memories/{id}", "memory", "Forgets a memory: the content of all its versions.", None),
    ("post", "/v1/memories/{id}/correct", "memory", "Corrects a memory from a time on.", CorrectionBody),
    ("get", "/v1/memories/{id}/explain", "memory", "Tells why a question, or a task, recalls a memory.", None),
    ("get", "/v1/contexts", "memory", "Lists shared contexts.", None),
    ("get", "/v1/contexts/{id}", "memory", "Returns a shared context, as it stands or in a version.", None),
    ("put", "/v1/contexts/{id}", "memory", "Stores a shared context, where the expected version stands.", SharedBody),
    ("patch", "/v1/contexts/{id}", "memory", "Puts fields over those of a shared context.", SharedBody),
    ("delete", "/v1/contexts/{id}", "memory", "Deletes a shared context and its versions.", None),
    ("get", "/v1/contexts/{id}/versions", "memory", "Lists the versions of a shared context.", None),
    ("get", "/v1/conversations", "memory", "Lists conversations.", None),
    ("get", "/v1/conversations/{id}", "memory", "Returns the turns of a conversation, newest first.", None),
    ("delete", "/v1/conversations/{id}", "memory", "Deletes a conversation.", None),
    ("delete", "/v1/conversations/{id}/turns/{task}", "memory", "Deletes one turn of a conversation.", None),
)
STATUSES: dict[tuple[str, str], tuple[str, ...]] = {
    ("post", "/v1/memories"): ("200", "201"),
    ("post", "/v1/memories/grants"): ("200", "201"),
    ("put", "/v1/contexts/{id}"): ("200", "201"),
    ("patch", "/v1/contexts/{id}"): ("200", "201"),
}
QUERY: dict[tuple[str, str], tuple[str, ...]] = {
    ("get", "/v1/memories"): ("path", "limit", "cursor", "forgotten"),
    ("delete", "/v1/memories"): ("path",),
    ("get", "/v1/memories/{id}/explain"): ("question", "path", "task"),
    ("get", "/v1/contexts"): ("limit", "cursor", "project"),
    ("get", "/v1/contexts/{id}"): ("version", "project"),
    ("put", "/v1/contexts/{id}"): ("project",),
    ("patch", "/v1/contexts/{id}"): ("project",),
    ("delete", "/v1/contexts/{id}"): ("expected_version", "project"),
    ("get", "/v1/contexts/{id}/versions"): ("project",),
    ("get", "/v1/conversations"): ("limit", "cursor", "project"),
    ("get", "/v1/conversations/{id}"): ("limit", "cursor", "project"),
    ("delete", "/v1/conversations/{id}"): ("project",),
    ("delete", "/v1/conversations/{id}/turns/{task}"): ("project",),
}
