"""What the gateway asks context about documents and searches.

What a person wrote (content, titles, tags, questions, found text) travels sealed; ids, counts and states do not. One
rule: content over a message's size travels as a claim, and the claim's object is sealed too.
"""

from __future__ import annotations

from typing import Literal

import msgspec

from collegium_contracts.envelope import Envelope
from collegium_contracts.errors import TaskError
from collegium_contracts.messages import Message

DocumentKind = Literal["text", "markdown", "html", "pdf"]
DocumentState = Literal["accepted", "indexed", "failed"]
FieldValue = str | int | float | bool


class DocumentMeta(msgspec.Struct, frozen=True, omit_defaults=True):
    """What a client says of a document beside its content; sealed as JSON."""

    title: str = ""
    tags: list[str] = []
    fields: dict[str, FieldValue] = {}


class DocumentAdd(Message, frozen=True, kw_only=True):
    """Asks context to take a document in: it is durable when answered, and searchable some time later.

    ``document`` empty: named by its content. ``content`` seals the bytes as they came, or ``claim`` names an object
    that holds the envelope. ``replaces``: whether another content under this id is replaced or refused.
    """

    tenant: str
    document: str = ""
    project: str = "default"
    kind: DocumentKind = "text"
    content: Envelope | None = None
    claim: str = ""
    meta: Envelope
    replaces: bool = False


class DocumentGet(Message, frozen=True, kw_only=True):
    """Asks context for one document."""

    tenant: str
    document: str


class DocumentDelete(Message, frozen=True, kw_only=True):
    """Asks context to remove a document; when answered, no search finds it any more."""

    tenant: str
    document: str


class DocumentList(Message, frozen=True, kw_only=True):
    """Asks context for a tenant's documents by id, from the one after ``after``."""

    tenant: str
    after: str = ""
    state: DocumentState | None = None
    limit: int = 50


class DocumentRow(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One document. ``is_served``: a version of it is found, be it an older one than the newest accepted.

    ``done`` of ``total`` chunks are embedded of what is being taken in; ``error`` is why that failed.
    """

    id: str
    project: str
    kind: DocumentKind
    state: DocumentState
    meta: Envelope
    bytes: int
    chunks: int
    tokens: int
    stored_bytes: int
    is_served: bool
    created_at_ms: int
    updated_at_ms: int
    indexed_at_ms: int | None = None
    done: int = 0
    total: int = 0
    error: TaskError | None = None


class DocumentReply(Message, frozen=True, kw_only=True):
    """A document as it stands; ``is_new`` is false where the same was there before."""

    document: DocumentRow
    is_new: bool = False


class DocumentsReply(Message, frozen=True, kw_only=True):
    """A page of documents; ``next_after`` is empty at the end."""

    documents: list[DocumentRow]
    next_after: str = ""


SearchMode = Literal["hybrid", "dense", "words"]


class FieldTest(msgspec.Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True, rename={"not_": "not"}):
    """What a field must be: within bounds that are numbers or dates (RFC 3339, or a day), and none of ``not``.

    A field that is neither a number nor a date lies within no bounds; one that is not there is none of anything.
    """

    gt: float | str | None = None
    gte: float | str | None = None
    lt: float | str | None = None
    lte: float | str | None = None
    not_: FieldValue | list[FieldValue] | None = None


class SearchFilters(
    msgspec.Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True, rename={"any_": "any", "not_": "not"}
):
    """What a result must be: one of ``documents``, with all ``tags`` and none of ``not_tags``, and its fields as named.

    A field's value may be a list: any of them; or a :class:`FieldTest`. Times are Unix ms: when the document was first
    added. At least one of ``any`` must hold too, where there are some, and ``not`` must not.
    """

    documents: list[str] = []
    tags: list[str] = []
    not_tags: list[str] = []
    fields: dict[str, FieldValue | list[FieldValue] | FieldTest] = {}
    project: str | None = None
    from_ms: int | None = None
    to_ms: int | None = None
    any_: list[SearchFilters] = []
    not_: SearchFilters | None = None


class SearchAsked(msgspec.Struct, frozen=True, omit_defaults=True):
    """What is searched for; sealed as JSON.

    ``threshold`` (0 to 1) leaves out what is scored lower; ``diversity`` (0 to 1) trades score for difference;
    ``budget_tokens`` bounds the text of all results; ``user`` names the profile that ranks; ``weight`` (0 to 1) is
    the dense side's, none the one that is tuned by how far both sides agree. ``queries`` are further wordings of the
    question, all of which are searched and fused by rank; ``rerank``: whether the first are ranked again.
    """

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
    queries: list[str] = []
    rerank: bool = False


class SearchRequest(Message, frozen=True, kw_only=True):
    """Asks context to search a tenant's documents; ``asked`` seals a :class:`SearchAsked`."""

    tenant: str
    asked: Envelope


class SearchSignal(msgspec.Struct, frozen=True, omit_defaults=True):
    """How one side saw a result: its rank from 1, and its own score."""

    rank: int
    score: float


class SearchRerank(msgspec.Struct, frozen=True, omit_defaults=True):
    """What a reranker made of a result: its own score, and the rank from 1 before it and after it."""

    model: str
    score: float
    before: int
    after: int


class SearchExplain(msgspec.Struct, frozen=True, omit_defaults=True):
    """Why a result stands where it does: each signal, and each step's score in turn."""

    dense: SearchSignal | None
    words: SearchSignal | None
    weight: float
    fused: float
    profile: float = 1.0
    diversity: float | None = None
    queries: list[int | None] = []
    """By rank, where the question's wordings found it, the plain one first; empty where there is one alone."""
    rerank: SearchRerank | None = None


class SearchResult(msgspec.Struct, frozen=True, omit_defaults=True):
    """One chunk that was found."""

    document: str
    chunk: int
    score: float
    text: str
    title: str = ""
    headings: tuple[str, ...] = ()
    tags: list[str] = []
    fields: dict[str, FieldValue] = {}
    explain: SearchExplain | None = None


class SearchReply(Message, frozen=True, kw_only=True):
    """What was found, best first: ``results`` seals a JSON list of :class:`SearchResult`.

    ``mode`` is what was done, ``degraded`` why it is less than was asked for (empty: it is not).
    """

    results: Envelope
    found: int
    mode: SearchMode
    degraded: str = ""
    weight: float = 0.0
    knowledge_version: int = 0
    tokens: int = 0
    is_cached: bool = False
    reranked: str = ""
    """``done``, or why the order is the one before, where it was asked for."""


class ProfileSet(Message, frozen=True, kw_only=True):
    """Asks context to keep what a user prefers: ``weights`` seals a :class:`ProfileWeights`; none forgets it."""

    tenant: str
    user: str
    weights: Envelope | None


class ProfileGet(Message, frozen=True, kw_only=True):
    """Asks context for a user's profile."""

    tenant: str
    user: str


class ProfileWeights(msgspec.Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True):
    """Factors from 0.1 to 10 by tag, and by field and value; what is not named is 1."""

    tags: dict[str, float] = {}
    fields: dict[str, dict[str, float]] = {}


class ProfileReply(Message, frozen=True, kw_only=True):
    """A user's profile; none where there is none."""

    user: str
    weights: Envelope | None


class KnowledgeVersionGet(Message, frozen=True, kw_only=True):
    """Asks context for the number that changes whenever what a tenant's searches find may change."""

    tenant: str


class KnowledgeVersionReply(Message, frozen=True, kw_only=True):
    """A tenant's knowledge version; 0 where it never had a document."""

    version: int


class GenerationsGet(Message, frozen=True, kw_only=True):
    """Asks context how the index of documents stands."""


class GenerationRow(msgspec.Struct, frozen=True, kw_only=True):
    """One generation of the index, and how many of how many documents stand in it."""

    collection: str
    model: str
    dimensions: int
    state: Literal["serving", "building"]
    done: int
    total: int
    began_at_ms: int


class GenerationsReply(Message, frozen=True, kw_only=True):
    """The generation that answers, then the one that is being built; empty before there was an embedder."""

    generations: list[GenerationRow]


KnowledgeRequest = (
    DocumentAdd
    | DocumentGet
    | DocumentDelete
    | DocumentList
    | SearchRequest
    | ProfileSet
    | ProfileGet
    | KnowledgeVersionGet
    | GenerationsGet
)
KnowledgeReply = DocumentReply | DocumentsReply | SearchReply | ProfileReply | KnowledgeVersionReply | GenerationsReply
