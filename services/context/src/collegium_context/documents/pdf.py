"""PDF to blocks by pypdf: only ever run in a process of its own (``child``). One rule: pages and text are bounded."""

from __future__ import annotations

import io
import re

from pypdf import PdfReader
from pypdf.errors import DependencyError, FileNotDecryptedError, LimitReachedError, PyPdfError

from collegium_context.documents.blocks import Block, Extracted
from collegium_context.documents.errors import DocumentTooCostlyError, DocumentTooLargeError, UndecodableDocumentError

PAGES_MAX = 2_000
_PARAGRAPH = re.compile(r"\n\s*\n")
_HYPHEN = re.compile(r"(\w)-\n(\w)")


def pdf_blocks(content: bytes, *, text_chars_max: int) -> Extracted:
    """Reads a PDF's text, page by page; images are not looked at."""
    if not content.startswith(b"%PDF-"):
        raise UndecodableDocumentError("it does not begin as a PDF does")
    try:
        reader = PdfReader(io.BytesIO(content), strict=False)
        if len(reader.pages) > PAGES_MAX:
            raise DocumentTooLargeError(f"it has over {PAGES_MAX} pages")
        title = (reader.metadata.title if reader.metadata is not None else "") or ""
        blocks: list[Block] = []
        chars = 0
        for page in reader.pages:
            text = _HYPHEN.sub(r"\1\2", page.extract_text() or "")
            chars += len(text)
            if chars > text_chars_max:
                raise DocumentTooLargeError(f"it has over {text_chars_max} characters of text")
            blocks += [Block(" ".join(part.split())) for part in _PARAGRAPH.split(text) if part.strip()]
    except LimitReachedError as error:
        raise DocumentTooCostlyError("a part of it grows beyond all measure when it is decompressed") from error
    except (FileNotDecryptedError, DependencyError) as error:
        raise UndecodableDocumentError("it is encrypted") from error
    except (PyPdfError, ValueError, KeyError, TypeError, IndexError, AttributeError, OverflowError) as error:
        # Whatever a damaged file makes the library trip over.
        raise UndecodableDocumentError("it is damaged, or no PDF") from error
    except RecursionError as error:
        raise UndecodableDocumentError("it refers to itself") from error
    return Extracted(blocks, str(title))
