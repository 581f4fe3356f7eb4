"""What is wrong with a document, by code of the catalogue. One rule: a message quotes nothing of the document."""

from __future__ import annotations

from collegium_context.errors import ContextError


class DocumentError(ContextError):
    """A document that cannot be taken in; ``code`` says why, and trying again does not help."""

    code = "invalid_document"


class EmptyDocumentError(DocumentError):
    """There is no text in it."""

    code = "document_empty"


class UndecodableDocumentError(DocumentError):
    """The bytes are not what the type says: not UTF-8, binary, no PDF, or damaged."""

    code = "document_undecodable"


class DocumentTooLargeError(DocumentError):
    """It is over a limit: bytes, pages, extracted text, chunks."""

    code = "document_too_large"


class DocumentTooDeepError(DocumentError):
    """It is nested deeper than is read."""

    code = "document_too_deep"


class DocumentTooCostlyError(DocumentError):
    """Reading it took more time or memory than a document gets."""

    code = "document_too_costly"


BY_CODE: dict[str, type[DocumentError]] = {
    error.code: error
    for error in (
        DocumentError,
        EmptyDocumentError,
        UndecodableDocumentError,
        DocumentTooLargeError,
        DocumentTooDeepError,
        DocumentTooCostlyError,
    )
}
