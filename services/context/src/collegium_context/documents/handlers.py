"""Questions about documents: taken in, shown, listed, removed.

One rule: what is answered as accepted is durable, and what is wrong with a document is said with its id.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

import msgspec
import structlog
from collegium_bus.claims import ClaimStore
from collegium_bus.errors import BrokerUnavailableError, RequestRefusedError
from collegium_contracts.envelope import Envelope, Keyring, UnknownKeyError, held
from collegium_contracts.errors import UndecodableMessageError
from collegium_contracts.ids import DOCUMENT_ID, PROJECT_ID, TENANT_ID
from collegium_contracts.knowledge import (
    DocumentAdd,
    DocumentDelete,
    DocumentGet,
    DocumentList,
    DocumentMeta,
    DocumentReply,
    DocumentsReply,
    GenerationsGet,
    GenerationsReply,
    KnowledgeVersionGet,
    KnowledgeVersionReply,
)
from collegium_contracts.messages import Message
from collegium_contracts.scope import Scope
from collegium_store import is_transient

from collegium_context.documents.errors import DocumentError
from collegium_context.documents.extracting import check_begin, extracted
from collegium_context.documents.generations import GenerationStore
from collegium_context.documents.indexing_store import is_heavy
from collegium_context.documents.ingesting import Ingesting
from collegium_context.documents.naming import document_id, fingerprint
from collegium_context.documents.store import Accepting, DocumentStore

log = structlog.get_logger(__name__)

PAGE_MAX = 200
# What lies between bounds is compared as a float.
NUMBER_MAX = 10**300
ASIDE_BYTES = 1024 * 1024
TAGS_MAX, FIELDS_MAX, TAG_CHARS, VALUE_CHARS, TITLE_CHARS = 64, 64, 128, 512, 500

_decode_meta = msgspec.json.Decoder(DocumentMeta).decode
_decode_envelope = msgspec.msgpack.Decoder(Envelope).decode
Q = TypeVar("Q", bound=Message)
A = TypeVar("A")


class DocumentQuestions:
    """Answers what the gateway asks about documents."""

    def __init__(
        self,
        store: DocumentStore,
        keyring: Keyring,
        claims: ClaimStore,
        ingesting: Ingesting,
        generations: GenerationStore,
        now_ms: Callable[[], int],
    ) -> None:
        self._store = store
        self._keyring = keyring
        self._claims = claims
        self._ingesting = ingesting
        self._generations = generations
        self._now_ms = now_ms

    async def add(self, question: Message, _traceparent: str) -> Message:
        """Takes a document in; the same again changes nothing."""
        asked = _expected(question, DocumentAdd)
        if asked.document and not DOCUMENT_ID.match(asked.document):
            raise RequestRefusedError("invalid_value", "not the id of a document", "id")
        if not PROJECT_ID.match(asked.project):
            raise RequestRefusedError("invalid_value", "not the id of a project", "project")
        sealed, content, meta = await self._opened(asked)
        mark = await _aside(len(content), fingerprint, asked.tenant, asked.project, asked.kind, content, meta)
        document = asked.document or document_id(mark)
        scope = Scope(asked.tenant)
        standing = await self._from_database(self._store.standing(scope, document))
        if standing is not None and standing.fingerprint == mark and standing.row.state != "failed":
            return DocumentReply(document=standing.row)
        if standing is not None and not asked.replaces and (standing.row.is_served or standing.row.state != "failed"):
            raise _stands(document)
        await self._check(document, asked, content)
        new = Accepting(document, asked.project, asked.kind, mark, asked.meta, sealed, len(content))
        accepted = await self._from_database(
            self._store.accept(scope, new, replaces=asked.replaces, now_ms=self._now_ms())
        )
        if accepted is None:
            raise _stands(document)
        self._ingesting.wake()
        return DocumentReply(document=accepted.row, is_new=True)

    async def get(self, question: Message, _traceparent: str) -> Message:
        """Shows a document."""
        asked = _expected(question, DocumentGet)
        standing = await self._from_database(self._store.standing(Scope(asked.tenant), asked.document))
        if standing is None:
            raise _missing(asked.document)
        return DocumentReply(document=standing.row)

    async def page(self, question: Message, _traceparent: str) -> Message:
        """Lists documents by id."""
        asked = _expected(question, DocumentList)
        limit = min(max(asked.limit, 1), PAGE_MAX)
        rows = await self._from_database(
            self._store.page(Scope(asked.tenant), after=asked.after, state=asked.state, limit=limit + 1)
        )
        return DocumentsReply(documents=rows[:limit], next_after=rows[limit - 1].id if len(rows) > limit else "")

    async def delete(self, question: Message, _traceparent: str) -> Message:
        """Removes a document; searches stop finding it before this answers."""
        asked = _expected(question, DocumentDelete)
        scope = Scope(asked.tenant)
        standing = await self._from_database(self._store.standing(scope, asked.document))
        points = await self._from_database(self._store.delete(scope, asked.document))
        if standing is None or points is None:
            raise _missing(asked.document)
        self._ingesting.wake_sweep()
        return DocumentReply(document=standing.row)

    async def version(self, question: Message, _traceparent: str) -> Message:
        """Tells a tenant's knowledge version."""
        asked = _expected(question, KnowledgeVersionGet)
        version = await self._from_database(self._store.knowledge_version(Scope(asked.tenant)))
        return KnowledgeVersionReply(version=version)

    async def generations(self, question: Message, _traceparent: str) -> Message:
        """Tells how the index stands."""
        if not isinstance(question, GenerationsGet):
            raise RequestRefusedError("invalid_value", f"{type(question).__name__} is not asked here")
        return GenerationsReply(generations=await self._from_database(self._generations.told()))

    async def _opened(self, asked: DocumentAdd) -> tuple[Envelope, bytes, DocumentMeta]:
        try:
            sealed = asked.content
            if sealed is None:
                claimed = await self._claims.get(asked.claim)
                sealed = await _aside(len(claimed), _decode_envelope, claimed)
            await held(self._keyring, asked.tenant, sealed, asked.meta)
            meta = _decode_meta(self._keyring.open(asked.tenant, asked.meta))
            content = await _aside(len(sealed.body), self._keyring.open, asked.tenant, sealed)
        except BrokerUnavailableError as error:
            raise RequestRefusedError("broker_unavailable", "the upload cannot be read now; send it again") from error
        except (UnknownKeyError, UndecodableMessageError, msgspec.DecodeError, ValueError) as error:
            raise RequestRefusedError("invalid_value", "the document's content cannot be opened", "content") from error
        _check_meta(meta)
        return sealed, content, meta

    async def _check(self, document: str, asked: DocumentAdd, content: bytes) -> None:
        """Refuses at the door what is plainly wrong; heavy documents are told of by their state."""
        try:
            await _aside(len(content), check_begin, content, asked.kind)
            if not is_heavy(asked.kind, len(content)):
                await asyncio.to_thread(extracted, content, asked.kind)
        except DocumentError as error:
            raise RequestRefusedError(error.code, f"document {document}: {error}", "content") from error

    async def _from_database(self, reading: Awaitable[A]) -> A:
        try:
            return await reading
        except Exception as error:
            if not is_transient(error):
                raise
            raise RequestRefusedError("context_unavailable", "the documents' database is away; ask again") from error


async def _aside(size: int, work: Callable[..., A], *arguments: Any) -> A:
    """Does work on so many bytes; beside the loop where it would hold everybody up."""
    return await asyncio.to_thread(work, *arguments) if size > ASIDE_BYTES else work(*arguments)


def _expected(question: Message, kind: type[Q]) -> Q:
    if not isinstance(question, kind):
        raise RequestRefusedError("invalid_value", f"{type(question).__name__} is not asked here")
    if not TENANT_ID.match(getattr(question, "tenant", "")):
        raise RequestRefusedError("invalid_value", "not the id of a tenant", "tenant")
    return question


def _stands(document: str) -> RequestRefusedError:
    return RequestRefusedError(
        "already_exists", f"document {document} stands with another content; replace it with PUT", "id"
    )


def _missing(document: str) -> RequestRefusedError:
    return RequestRefusedError("not_found", f"there is no document {document!r}", "id")


def _check_meta(meta: DocumentMeta) -> None:
    if len(meta.title) > TITLE_CHARS:
        raise RequestRefusedError("invalid_value", f"a title has at most {TITLE_CHARS} characters", "title")
    if len(meta.tags) > TAGS_MAX or any(not tag or len(tag) > TAG_CHARS for tag in meta.tags):
        raise RequestRefusedError("invalid_value", f"at most {TAGS_MAX} tags of 1 to {TAG_CHARS} characters", "tags")
    long = any(len(name) > TAG_CHARS or len(str(value)) > VALUE_CHARS for name, value in meta.fields.items())
    if len(meta.fields) > FIELDS_MAX or long:
        raise RequestRefusedError(
            "invalid_value",
            f"at most {FIELDS_MAX} fields, names to {TAG_CHARS} and values to {VALUE_CHARS} characters",
            "fields",
        )
    if any(isinstance(value, int) and abs(value) > NUMBER_MAX for value in meta.fields.values()):
        raise RequestRefusedError("invalid_value", "a field's number is larger than 1e300", "fields")
