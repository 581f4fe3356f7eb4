"""Ids and filters that follow from what they stand for. Pure.

One rule: the same content gives the same id on every replica and at every try, and an id or a facet tells nothing of
what it was made of to who does not know it already.
"""

from __future__ import annotations

import hashlib
import re
import uuid
from collections import Counter
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import NamedTuple

import msgspec
from collegium_contracts.knowledge import DocumentKind, DocumentMeta, FieldValue

from collegium_context.documents.chunking import Chunk

_ZONE = r"(?:[Zz]|[+-][0-9]{2}:[0-9]{2})?"
_TIME = r"[0-9]{2}:[0-9]{2}(?::[0-9]{2}(?:\.[0-9]{1,9})?)?"
_DATE = re.compile(rf"[0-9]{{4}}-[0-9]{{2}}-[0-9]{{2}}(?:[Tt ]{_TIME}{_ZONE})?\Z")
_ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"
_json = msgspec.json.Encoder(order="deterministic")


class NamedChunk(NamedTuple):
    """A chunk with its id; ``indexed`` is the text that both signals see."""

    id: str
    ordinal: int
    chunk: Chunk
    indexed: str


def fingerprint(tenant: str, project: str, kind: DocumentKind, content: bytes, meta: DocumentMeta) -> bytes:
    """Returns what tells one version of a document from another (32 bytes); no two tenants have it in common.

    Nor have two projects: what one of them added is not found in the other.
    """
    digest = hashlib.sha256()
    of_project = () if project == "default" else (project.encode(),)
    for part in (tenant.encode(), *of_project, kind.encode(), _json.encode(meta), content):
        digest.update(len(part).to_bytes(8, "big") + part)
    return digest.digest()


def document_id(print_of_content: bytes) -> str:
    """Names a document by its content."""
    number = int.from_bytes(print_of_content[:16], "big")
    return "doc_" + "".join(_ALPHABET[number >> shift & 31] for shift in range(125, -1, -5))


def indexed_text(title: str, chunk: Chunk) -> str:
    """Returns what is embedded and looked up by words: where the chunk stands, then the chunk."""
    above = [part for part in dict.fromkeys((title, *chunk.headings)) if part and not chunk.text.startswith(part)]
    return "\n".join((*above, chunk.text))


def named_chunks(
    tenant: str, document: str, chunks: Sequence[Chunk], title: str, facets: Sequence[str]
) -> list[NamedChunk]:
    """Names the chunks of a document: one that did not change keeps its id, whatever moved around it.

    The facets are part of the name, so that a point is never changed while an older version of it is found.
    """
    seen: Counter[str] = Counter()
    named: list[NamedChunk] = []
    around = "\0".join((tenant, document, *sorted(facets)))
    for ordinal, chunk in enumerate(chunks):
        indexed = indexed_text(title, chunk)
        digest = hashlib.sha256(f"{around}\0\0{seen[indexed]}\0{indexed}".encode("utf-8", "replace")).digest()
        seen[indexed] += 1
        named.append(NamedChunk(str(uuid.UUID(bytes=digest[:16], version=5)), ordinal, chunk, indexed))
    return named


def facet(tenant: str, name: str, value: FieldValue) -> str:
    """Returns the word that stands for a tag, a field's value or a project in filters."""
    text = _json.encode([name, float(value) if _is_number(value) else value])
    return hashlib.blake2s(text, key=hashlib.blake2s(tenant.encode()).digest(), digest_size=12).hexdigest()


def facets_of(tenant: str, document: str, project: str, meta: DocumentMeta) -> list[str]:
    """Returns all facets of a document."""
    return [
        facet(tenant, "document", document),
        facet(tenant, "project", project),
        *(facet(tenant, "tag", tag) for tag in meta.tags),
        *(facet(tenant, f"field:{name}", value) for name, value in meta.fields.items()),
    ]


def measures_of(tenant: str, meta: DocumentMeta) -> dict[str, float]:
    """Returns what of a document's fields lies between bounds: numbers, and dates as Unix seconds.

    The fields' names are hashed, as in facets; the numbers stand as they are.
    """
    measures: dict[str, float] = {}
    for name, value in meta.fields.items():
        if _is_number(value):
            measures[number_field(tenant, name)] = float(value)
        elif isinstance(value, str) and (seconds := date_seconds(value)) is not None:
            measures[date_field(tenant, name)] = seconds
    return measures


def number_field(tenant: str, name: str) -> str:
    """Returns under what name a point has a field that is a number."""
    return "number-" + facet(tenant, "number", name)


def date_field(tenant: str, name: str) -> str:
    """Returns under what name a point has a field that is a date."""
    return "date-" + facet(tenant, "date", name)


def date_seconds(text: str) -> float | None:
    """Returns a day or a time as Unix seconds; none for what is no date. Without a zone UTC is meant."""
    if _DATE.match(text) is None:
        return None
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        return None
    return (moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)).timestamp()


def _is_number(value: FieldValue) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
