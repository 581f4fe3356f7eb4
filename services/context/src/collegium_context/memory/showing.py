"""What clients see of memory: JSON, with times as RFC 3339 in UTC. Pure.

One rule: a memory is shown with both its times, and a forgotten one without its text.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import msgspec
from collegium_contracts.memory_paths import path_text
from collegium_contracts.memory_requests import MemoryContent

from collegium_context.memory.memory_store import Memory
from collegium_context.memory.places import own_id
from collegium_context.memory.ranking import Signals
from collegium_context.memory.shared_store import Document
from collegium_context.memory.times import FOREVER
from collegium_context.memory.views import Grant, PathSetting

# The years 1 to 9999, which is what RFC 3339 can write.
EARLIEST_MS = -62_135_596_800_000
LATEST_MS = 253_402_300_799_999


def when(unix_ms: int | None) -> str | None:
    """Writes Unix ms; none for no end."""
    if unix_ms is None or unix_ms >= FOREVER:
        return None
    return datetime.fromtimestamp(unix_ms / 1000, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def memory_view(memory: Memory, content: MemoryContent | None, now_ms: int) -> dict[str, Any]:
    """Shows one version."""
    similar = None
    if memory.similar_to is not None:
        similar = {"id": memory.similar_to, "similarity": round(memory.similarity or 0.0, 4)}
    return {
        "id": memory.id,
        "object": "memory",
        "path": path_text(memory.path),
        "kind": memory.kind,
        "state": _state(memory, now_ms),
        "text": content.text if content is not None else None,
        "source": msgspec.to_builtins(content.source) if content is not None else {},
        "valid_from": when(memory.valid.start),
        "valid_to": when(memory.valid.end),
        "recorded_at": when(memory.recorded.start),
        "superseded_at": None if memory.forgotten_ms is not None else when(memory.recorded.end),
        "forgotten_at": when(memory.forgotten_ms),
        "line": memory.line,
        "cause": memory.cause,
        "supersedes": memory.supersedes,
        "refreshed_at": when(memory.refreshed_ms),
        "refreshes": memory.refreshes,
        "similar_to": similar,
        "indexed": not memory.is_pending,
    }


def _state(memory: Memory, now_ms: int) -> str:
    if memory.forgotten_ms is not None:
        return "forgotten"
    if not memory.is_newest:
        return "superseded"
    return "current" if memory.valid.holds(now_ms) else "not_now"


def signals_view(signals: Signals) -> dict[str, Any]:
    """Shows why a memory was recalled."""
    return msgspec.to_builtins(signals)


def document_view(document: Document, fields: dict[str, Any] | None) -> dict[str, Any]:
    """Shows a shared context; without fields, its version alone."""
    shown = {
        "id": own_id(document.place),
        "object": "context",
        "version": document.version,
        "updated_at": when(document.at_ms),
        "updated_by": document.by or None,
        "bytes": document.bytes,
    }
    return shown if fields is None else {**shown, "fields": fields}


def path_view(setting: PathSetting) -> dict[str, Any]:
    """Shows what is set for a path."""
    return {"path": path_text(setting.path), "off": setting.off, "inherits": setting.inherits}


def grant_view(grant: Grant) -> dict[str, Any]:
    """Shows a grant."""
    return {
        "id": grant.id,
        "object": "memory.grant",
        "reader": path_text(grant.reader),
        "source": path_text(grant.source),
        "created_at": when(grant.at_ms),
    }
