"""Questions about memories in, answers out: add, correct, recall, forget, explain, list; paths and grants.

One rule: a write touches the path that was named and no other; what it says is checked before anything is stored.
"""

from __future__ import annotations

import hashlib
import os
import unicodedata
from collections.abc import Callable
from typing import Any

import msgspec
from collegium_bus.errors import RequestRefusedError
from collegium_contracts import memory_requests as q
from collegium_contracts.ids import GRANT_ID, MEMORY_ID, TASK_ID
from collegium_contracts.memory_paths import Path, PathError, PathReach, parse_path, path_text
from collegium_contracts.messages import Message
from collegium_contracts.scope import Scope

from collegium_context.memory import reaching
from collegium_context.memory.indexing import Indexing
from collegium_context.memory.memory_store import Memory, MemoryStore, NewMemory, UnknownMemoryError
from collegium_context.memory.recalling import Question, Recalling
from collegium_context.memory.sealing import Sealing, checked
from collegium_context.memory.showing import (
    EARLIEST_MS,
    LATEST_MS,
    grant_view,
    memory_view,
    path_view,
    signals_view,
    when,
)
from collegium_context.memory.times import FOREVER, Span
from collegium_context.memory.view_store import UnknownGrantError, ViewStore
from collegium_context.memory.views import Grant, is_dark

TEXT_BYTES_MAX = 8 * 1024
SOURCE_CHARS_MAX = 256
KIND_CHARS_MAX = 64
# Versions with content at one path; a question that has no vectors reads the newest of them.
PER_PATH_MAX = 10_000
LIMIT_MAX = 50
TOKENS_MAX = 16_000
QUESTION_BYTES_MAX = 16 * 1024
PAGE_MAX = 200
# Versions of a line do not overlap, so a correction leaves at most one before it and one after it.
_KEPT_IDS = 2
_decode_content = msgspec.json.Decoder(q.MemoryContent).decode


def new_id(prefix: str, now_ms: int) -> str:
    """Makes an id that sorts by time: 48 bits of milliseconds and 80 random ones, in hex."""
    return f"{prefix}_{now_ms & (2**48 - 1):012x}{os.urandom(10).hex()}"


class Remembering:
    """Answers about memories."""

    def __init__(
        self,
        store: MemoryStore,
        views: ViewStore,
        recalling: Recalling,
        indexing: Indexing,
        sealing: Sealing,
        now_ms: Callable[[], int],
    ) -> None:
        self._store = store
        self._views = views
        self._recalling = recalling
        self._indexing = indexing
        self._sealing = sealing
        self._now_ms = now_ms

    async def add(self, question: Message, _traceparent: str) -> Message:
        """Remembers; the same text at the same path, still true, is refreshed."""
        asked = checked(question, q.MemoryAdd)
        path, now = path_of(asked.path), self._now_ms()
        reaching.refuse_writing(asked.reach, path)
        scope = Scope(asked.tenant).at(*path)
        content = await self._content(asked.tenant, asked.content)
        valid = span_of(now if asked.valid_from_ms is None else asked.valid_from_ms, asked.valid_to_ms)
        await self._refuse_off(scope)
        new = self._new(asked.tenant, _kind(asked.kind), content, now)
        memory, is_new = await self._store.add(scope, new, valid, now, PER_PATH_MAX)
        if is_new:
            await self._indexing.tell_soon(Scope(asked.tenant), memory, content.text)
            memory = await self._store.get(Scope(asked.tenant), memory.id)
        standing = content if is_new else await self._sealing.content(asked.tenant, memory)
        view = memory_view(memory, standing, now)
        return self._sealing.shown(asked.tenant, view, "created" if is_new else "unchanged")

    async def correct(self, question: Message, _traceparent: str) -> Message:
        """Supersedes a memory from a time on."""
        asked = checked(question, q.MemoryCorrect)
        scope, now = Scope(asked.tenant), self._now_ms()
        _id(asked.id)
        start = now if asked.valid_from_ms is None else asked.valid_from_ms
        span_of(start, asked.valid_to_ms)
        before = await self._owned(scope, asked.id, asked.reach)
        await self._refuse_off(scope.at(*before.path))
        content = await self._content(asked.tenant, asked.content)
        new = self._new(asked.tenant, before.kind, content, now)
        kept = [new_id("mem", now) for _ in range(_KEPT_IDS)]
        memory = await self._store.correct(scope, asked.id, new, start, asked.valid_to_ms, now, kept)
        await self._indexing.tell_soon(scope, memory, content.text)
        self._indexing.wake()
        return self._sealing.shown(asked.tenant, memory_view(memory, content, now), "changed")

    async def recall(self, question: Message, _traceparent: str) -> Message:
        """Finds what is known under a path."""
        asked = checked(question, q.MemoryRecall)
        text = (await self._sealing.open(asked.tenant, asked.question)).decode()
        if not text.strip() or len(text.encode()) > QUESTION_BYTES_MAX:
            raise RequestRefusedError("invalid_value", f"1 to {QUESTION_BYTES_MAX} bytes", "question")
        if not 1 <= asked.limit <= LIMIT_MAX:
            raise RequestRefusedError("invalid_value", f"from 1 to {LIMIT_MAX}", "limit")
        if not 1 <= asked.max_tokens <= TOKENS_MAX:
            raise RequestRefusedError("invalid_value", f"from 1 to {TOKENS_MAX}", "max_tokens")
        now = self._now_ms()
        wanted = Question(
            text,
            now if asked.as_of_ms is None else _moment(asked.as_of_ms, "as_of"),
            now if asked.known_at_ms is None else _moment(asked.known_at_ms, "known_at"),
            asked.limit,
            asked.max_tokens,
            frozenset(asked.kinds),
            is_now=asked.as_of_ms is None and asked.known_at_ms is None,
        )
        scope, path = Scope(asked.tenant), path_of(asked.path)
        reaching.refuse_reading(asked.reach, path)
        view = await self._recalling.view(scope, path, inherits=asked.inherits)
        done = await self._recalling.recall(scope, view, wanted)
        body = {
            "object": "list",
            "path": path_text(view.path),
            "as_of": when(wanted.as_of_ms),
            "known_at": when(wanted.known_at_ms),
            "off": view.is_off,
            "degraded": done.degraded,
            "data": [
                {**memory_view(one.memory, one.content, now), "signals": signals_view(one.signals)}
                for one in done.found
            ],
        }
        return self._sealing.shown(asked.tenant, body)

    async def forget(self, question: Message, _traceparent: str) -> Message:
        """Destroys the content of one memory's line, or of all at a path and below it."""
        asked = checked(question, q.MemoryForget)
        scope, now = Scope(asked.tenant), self._now_ms()
        body: dict[str, Any]
        if asked.id:
            await self._owned(scope, _id(asked.id), asked.reach)
            forgotten = await self._store.forget(scope, asked.id, now)
            body = {"id": asked.id, "deleted": True, "versions": forgotten}
        else:
            path = path_of(asked.path or "")
            reaching.refuse_writing(asked.reach, path)
            forgotten = await self._store.forget_below(scope.at(*path), now, but=asked.reach.others)
            body = {"path": path_text(path), "deleted": True, "versions": forgotten}
        self._indexing.wake()
        return self._sealing.shown(asked.tenant, body, "changed" if forgotten else "unchanged")

    async def explain(self, question: Message, _traceparent: str) -> Message:
        """Tells all about one memory, and why it is, or is not, recalled."""
        asked = checked(question, q.MemoryExplain)
        scope, now = Scope(asked.tenant), self._now_ms()
        memory = await self._store.get(scope, _id(asked.id))
        if not reaching.sees(asked.reach, memory.path, await self._grants(scope)):
            raise UnknownMemoryError(f"there is no memory {asked.id}")
        line = await self._store.line(scope, memory.line)
        body = {
            **memory_view(memory, await self._sealing.content(asked.tenant, memory), now),
            "versions": [memory_view(one, await self._sealing.content(asked.tenant, one), now) for one in line],
        }
        if asked.question is not None:
            text = (await self._sealing.open(asked.tenant, asked.question)).decode()[:QUESTION_BYTES_MAX]
            reader = path_of(asked.path) if asked.path is not None else memory.path
            if asked.path is not None:
                reaching.refuse_reading(asked.reach, reader)
            body["recall"] = await self._why(scope, memory, reader, text, now)
        if asked.task:
            if TASK_ID.match(asked.task) is None:
                raise RequestRefusedError("invalid_value", "not the id of a task", "task")
            told = await self._views.told(scope, asked.task, memory.id)
            body["task"] = {
                "id": asked.task,
                "told": told is not None,
                "rank": told.rank if told is not None else None,
                "at": when(told.at_ms) if told is not None else None,
                "signals": msgspec.json.decode(told.signals) if told is not None else None,
            }
        return self._sealing.shown(asked.tenant, body)

    async def _why(self, scope: Scope, memory: Memory, reader: Path, text: str, now: int) -> dict[str, Any]:
        view = await self._recalling.view(scope, reader)
        wanted = Question(text, now, now, LIMIT_MAX, TOKENS_MAX)
        done = await self._recalling.recall(scope, view, wanted)
        for rank, one in enumerate(done.found, start=1):
            if one.memory.id == memory.id:
                return {
                    "path": path_text(reader),
                    "recalled": True,
                    "rank": rank,
                    "signals": signals_view(one.signals),
                    "degraded": done.degraded,
                }
        reason = "neither its meaning nor its words are near enough, or others are nearer"
        if memory.forgotten_ms is not None:
            reason = "it was forgotten"
        elif view.distance(memory.path) is None:
            reason = "memory is switched off there" if view.is_off else "its path is not seen from there"
        elif not memory.is_newest:
            reason = "it was superseded"
        elif not memory.valid.holds(now):
            reason = "it is not true now"
        return {"path": path_text(reader), "recalled": False, "reason": reason, "degraded": done.degraded}

    async def page(self, question: Message, _traceparent: str) -> Message:
        """Lists what is at a path and below it, newest first."""
        asked = checked(question, q.MemoryList)
        if not 1 <= asked.limit <= PAGE_MAX:
            raise RequestRefusedError("invalid_value", f"from 1 to {PAGE_MAX}", "limit")
        if asked.before_id:
            _id(asked.before_id)
        path, now = path_of(asked.path), self._now_ms()
        reaching.refuse_writing(asked.reach, path)
        memories = await self._store.page(
            Scope(asked.tenant).at(*path),
            limit=asked.limit,
            before_id=asked.before_id,
            forgotten=asked.forgotten,
            but=asked.reach.others,
        )
        data = [memory_view(one, await self._sealing.content(asked.tenant, one), now) for one in memories]
        cursor = memories[-1].id if len(memories) == asked.limit else None
        return self._sealing.shown(asked.tenant, {"object": "list", "data": data, "next_cursor": cursor})

    async def set_path(self, question: Message, _traceparent: str) -> Message:
        """Sets what holds at a path."""
        asked = checked(question, q.MemoryPathSet)
        path = path_of(asked.path)
        reaching.refuse_all_below(asked.reach, path)
        scope = Scope(asked.tenant).at(*path)
        setting = await self._views.set_path(scope, off=asked.off, inherits=asked.inherits)
        return self._sealing.shown(asked.tenant, path_view(setting), "changed")

    async def paths(self, question: Message, _traceparent: str) -> Message:
        """Lists what is set for paths."""
        asked = checked(question, q.MemoryPathList)
        policy = await self._views.policy(Scope(asked.tenant))
        data = [path_view(one) for one in policy.settings if reaching.is_settled_by(asked.reach, one)]
        return self._sealing.shown(asked.tenant, {"object": "list", "data": data})

    async def grant(self, question: Message, _traceparent: str) -> Message:
        """Lets one path read another."""
        asked = checked(question, q.MemoryGrantAdd)
        now = self._now_ms()
        new = Grant(new_id("grt", now), path_of(asked.reader, "reader"), path_of(asked.source, "source"), now)
        reaching.refuse_writing(asked.reach, new.reader, "reader")
        reaching.refuse_all_below(asked.reach, new.source, "source")
        grant = await self._views.grant(Scope(asked.tenant), new)
        outcome = "created" if grant.id == new.id else "unchanged"
        return self._sealing.shown(asked.tenant, grant_view(grant), outcome)

    async def grants(self, question: Message, _traceparent: str) -> Message:
        """Lists grants."""
        asked = checked(question, q.MemoryGrantList)
        policy = await self._views.policy(Scope(asked.tenant))
        data = [grant_view(one) for one in policy.grants if reaching.concerns(asked.reach, one)]
        return self._sealing.shown(asked.tenant, {"object": "list", "data": data})

    async def revoke(self, question: Message, _traceparent: str) -> Message:
        """Takes a grant back."""
        asked = checked(question, q.MemoryGrantRevoke)
        if GRANT_ID.match(asked.id) is None:
            raise RequestRefusedError("invalid_value", "not the id of a grant", "id")
        scope = Scope(asked.tenant)
        if not any(one.id == asked.id and reaching.concerns(asked.reach, one) for one in await self._grants(scope)):
            raise UnknownGrantError(f"there is no grant {asked.id}")
        grant = await self._views.revoke(scope, asked.id)
        return self._sealing.shown(asked.tenant, {**grant_view(grant), "deleted": True}, "changed")

    async def _owned(self, scope: Scope, memory_id: str, reach: PathReach) -> Memory:
        """Returns a memory that may be changed; raises UnknownMemoryError."""
        memory = await self._store.get(scope, memory_id)
        if not reach.holds(memory.path):
            raise UnknownMemoryError(f"there is no memory {memory_id}")
        return memory

    async def _grants(self, scope: Scope) -> list[Grant]:
        return (await self._views.policy(scope)).grants

    async def _refuse_off(self, scope: Scope) -> None:
        policy = await self._views.policy(scope)
        dark = [setting.path for setting in policy.settings if setting.off]
        if is_dark(scope.path, dark):
            raise RequestRefusedError(
                "memory_off", f"memory is switched off at {path_text(scope.path)}; nothing is stored there", "path"
            )

    async def _content(self, tenant: str, sealed: Any) -> q.MemoryContent:
        try:
            content = _decode_content(await self._sealing.open(tenant, sealed))
        except msgspec.DecodeError as error:
            raise RequestRefusedError("invalid_value", "not the content of a memory") from error
        text = unicodedata.normalize("NFC", content.text).strip()
        if not text or len(text.encode()) > TEXT_BYTES_MAX:
            raise RequestRefusedError("invalid_value", f"a memory has 1 to {TEXT_BYTES_MAX} bytes of text", "text")
        source = content.source
        if max(map(len, (source.task_id, source.conversation, source.user))) > SOURCE_CHARS_MAX:
            raise RequestRefusedError("invalid_value", f"at most {SOURCE_CHARS_MAX} characters each", "source")
        return msgspec.structs.replace(content, text=text)

    def _new(self, tenant: str, kind: str, content: q.MemoryContent, now: int) -> NewMemory:
        said = f"{tenant}\x00{kind}\x00{' '.join(content.text.split())}"
        digest = hashlib.sha256(said.encode()).digest()
        return NewMemory(new_id("mem", now), kind, self._sealing.seal_content(tenant, content), digest)


def path_of(text: str, param: str = "path") -> Path:
    """Reads a path; refuses what is none."""
    try:
        return parse_path(text)
    except PathError as error:
        raise RequestRefusedError("invalid_value", str(error), param) from error


def span_of(start_ms: int, end_ms: int | None) -> Span:
    """Returns the time that something is true; refuses one that ends before it begins."""
    _moment(start_ms, "valid_from")
    if end_ms is not None and _moment(end_ms, "valid_to") <= start_ms:
        raise RequestRefusedError("invalid_value", "valid_to must be after valid_from", "valid_to")
    return Span(start_ms, FOREVER if end_ms is None else end_ms)


def _moment(unix_ms: int, param: str) -> int:
    if not EARLIEST_MS <= unix_ms <= LATEST_MS:
        raise RequestRefusedError("invalid_value", "a time in the years 1 to 9999", param)
    return unix_ms


def _kind(kind: str) -> str:
    if len(kind) > KIND_CHARS_MAX:
        raise RequestRefusedError("invalid_value", f"at most {KIND_CHARS_MAX} characters", "kind")
    return kind


def _id(memory: str) -> str:
    if MEMORY_ID.match(memory) is None:
        raise RequestRefusedError("not_found", f"there is no memory {memory[:64]!r}", "id")
    return memory
