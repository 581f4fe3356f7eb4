"""Documents that are sent as a file: ``multipart/form-data``, or the document itself as the body, piece by piece.

A form has one part ``file`` and, each at most once but for ``tags``, ``id``, ``type``, ``title``, ``tags`` and
``fields`` (a JSON object). One rule: what is too large is refused as soon as that is known, and no part is passed over.
"""

from __future__ import annotations

import asyncio
import codecs
from collections.abc import AsyncIterator
from pathlib import PurePath
from typing import TYPE_CHECKING, Final, NamedTuple, cast, get_args

import msgspec
from collegium_contracts.knowledge import DocumentKind, DocumentMeta, FieldValue

from collegium_gateway.admission import plain
from collegium_gateway.errors import ApiError
from collegium_gateway.http import asgi
from collegium_gateway.http.asgi import Receive, Scope
from collegium_gateway.knowledge.document_bodies import KINDS
from collegium_gateway.knowledge.spool import Spool

if TYPE_CHECKING:
    from python_multipart.multipart import MultipartCallbacks

FORM: Final = "multipart/form-data"
TEXT_BYTES_MAX: Final = 16 * 1024
PARTS_MAX: Final = 80
# Boundaries, headers and the other parts beside a file.
FORM_BYTES_MAX: Final = 256 * 1024
# Between two pieces; who sends nothing for so long holds a connection for nothing.
PIECE_SECONDS: Final = 30.0
_TEXTS: Final = ("id", "type", "title", "tags", "fields")
_BY_ENDING: Final[dict[str, DocumentKind]] = {
    ".txt": "text",
    ".md": "markdown",
    ".markdown": "markdown",
    ".html": "html",
    ".htm": "html",
    ".pdf": "pdf",
}
_decode_fields = msgspec.json.Decoder(dict[str, FieldValue]).decode


# Python's own, which no document is in.
_NO_CHARSETS: Final = frozenset({"idna", "punycode", "undefined", "unicode-escape", "raw-unicode-escape"})


class Upload(NamedTuple):
    """A document that was sent as a file: what is said of it beside its content."""

    id: str
    kind: DocumentKind
    meta: DocumentMeta


def said_in_query(media: str, query: dict[str, str]) -> Upload:
    """Returns what the query says of a document that is the body itself."""
    tags = [tag for tag in query.get("tags", "").split(",") if tag]
    return Upload(query.get("id", ""), KINDS[media], DocumentMeta(title=query.get("title", ""), tags=tags))


def check_charset(content_type: str) -> None:
    """Refuses a document in an encoding that there is not; raises ApiError ``document_undecodable``."""
    from python_multipart.multipart import parse_options_header  # noqa: PLC0415 - only who uploads files needs it

    _, options = parse_options_header(content_type)
    named = options.get(b"charset", b"").decode("latin-1").strip()
    if not named:
        return
    try:
        known = codecs.lookup(named).name
        "a".encode(known)  # what turns bytes into bytes is no encoding of texts
    except (LookupError, ValueError):
        known = ""
    if known.replace("_", "-") in ("", *_NO_CHARSETS):
        raise ApiError(
            "document_undecodable", f"the encoding {named[:64]!r} is not known; send UTF-8", param="content-type"
        )


async def pieces(scope: Scope, receive: Receive, max_bytes: int) -> AsyncIterator[bytes]:
    """Yields a body as it comes; raises ApiError ``body_too_large``, or ``invalid_value`` where it stops coming."""
    declared = asgi.header(scope, b"content-length")
    if declared is not None and declared.isdigit() and int(declared) > max_bytes:
        raise _too_large(max_bytes)
    size = 0
    while True:
        try:
            async with asyncio.timeout(PIECE_SECONDS):
                message = await receive()
        except TimeoutError:
            raise ApiError("invalid_value", "the upload stopped before its end", param="file") from None
        if message["type"] == "http.disconnect":
            raise ApiError("invalid_value", "the upload was broken off", param="file")
        piece: bytes = message.get("body", b"")
        size += len(piece)
        if size > max_bytes:
            raise _too_large(max_bytes)
        yield piece
        if not message.get("more_body", False):
            return


async def read_body(scope: Scope, receive: Receive, max_bytes: int, into: Spool) -> None:
    """Reads a body that is a document."""
    async for piece in pieces(scope, receive, max_bytes):
        await _write(into, piece)


async def read_form(scope: Scope, receive: Receive, max_bytes: int, into: Spool) -> Upload:
    """Reads a form, its file into ``into``; raises ApiError with the part at fault."""
    form = _Form(_boundary(asgi.header(scope, b"content-type") or ""))
    async for piece in pieces(scope, receive, max_bytes + FORM_BYTES_MAX):
        for data in form.fed(piece):
            if into.size + len(data) > max_bytes:
                raise _too_large(max_bytes)
            await _write(into, data)
    return form.ended()


async def _write(spool: Spool, data: bytes) -> None:
    spool.write(data)
    if spool.is_on_disk:
        # Writing a file takes some time from everybody else.
        await asyncio.sleep(0)


def _boundary(content_type: str) -> bytes:
    from python_multipart.multipart import parse_options_header  # noqa: PLC0415 - only who uploads files needs it

    _, options = parse_options_header(content_type)
    boundary = options.get(b"boundary", b"")
    if not 1 <= len(boundary) <= 200:
        raise ApiError("invalid_value", "the form's content type names no boundary", param="content-type")
    return boundary


class _Form:
    """Takes a form apart as it comes."""

    def __init__(self, boundary: bytes) -> None:
        from python_multipart.multipart import MultipartParser  # noqa: PLC0415 - only who uploads files needs it

        callbacks = {
            "on_part_begin": self._begin,
            "on_header_field": self._header_field,
            "on_header_value": self._header_value,
            "on_header_end": self._header_end,
            "on_headers_finished": self._headers_finished,
            "on_part_data": self._data,
            "on_part_end": self._end,
            "on_end": self._done,
        }
        self._parser = MultipartParser(boundary, cast("MultipartCallbacks", callbacks))
        self._headers: dict[bytes, bytes] = {}
        self._name, self._value = b"", b""
        self._part = ""
        self._parts = 0
        self._texts: dict[str, list[bytes]] = {}
        self._file: tuple[str, str] | None = None
        self._out: list[bytes] = []
        self._is_whole = False

    def fed(self, piece: bytes) -> list[bytes]:
        """Takes a piece of the body, and returns what of it is the file's."""
        from python_multipart.exceptions import FormParserError  # noqa: PLC0415 - only who uploads files needs it

        try:
            self._parser.write(piece)
        except FormParserError as error:
            raise ApiError("invalid_value", f"the form is malformed: {error}", param="file") from None
        out, self._out = self._out, []
        return out

    def ended(self) -> Upload:
        """Returns what was said of the file; raises ApiError where the form is not whole."""
        if not self._is_whole:
            raise ApiError("invalid_value", "the form ends before its last boundary", param="file")
        if self._file is None:
            raise ApiError("invalid_value", "the form has no part named file", param="file")
        tags = [tag for text in self._texts.get("tags", []) for tag in self._text("tags", text).split(",") if tag]
        meta = DocumentMeta(title=self._one("title"), tags=tags, fields=self._fields())
        plain.check(meta)
        return Upload(self._one("id"), self._kind(*self._file), meta)

    def _kind(self, filename: str, media: str) -> DocumentKind:
        """Returns what the file is: as is said, by its type, or by its name's ending."""
        named = self._one("type")
        if named:
            if named not in get_args(DocumentKind):
                known = ", ".join(get_args(DocumentKind))
                raise ApiError("invalid_value", f"type is one of {known}", param="type")
            return cast("DocumentKind", named)
        ending = _BY_ENDING.get(PurePath(filename).suffix.lower())
        # Programs send what they do not know as one of these.
        if media not in ("", "application/octet-stream", "text/plain") or ending is None:
            kind = KINDS.get(media)
            if kind is None:
                raise ApiError("invalid_value", f"a file of type {media!r} is not read; name its type", param="file")
            return kind
        return ending

    def _fields(self) -> dict[str, FieldValue]:
        text = self._one("fields")
        try:
            return _decode_fields(text) if text else {}
        except msgspec.DecodeError:
            raise ApiError("invalid_value", "fields is a JSON object of texts and numbers", param="fields") from None

    def _one(self, name: str) -> str:
        texts = self._texts.get(name, [b""])
        if len(texts) > 1:
            raise ApiError("invalid_value", f"the part {name} comes {len(texts)} times", param=name)
        return self._text(name, texts[0])

    def _text(self, name: str, raw: bytes) -> str:
        try:
            return raw.decode()
        except UnicodeDecodeError:
            raise ApiError("invalid_value", f"the part {name} is not UTF-8", param=name) from None

    def _begin(self) -> None:
        self._headers.clear()
        self._parts += 1
        if self._parts > PARTS_MAX:
            raise ApiError("invalid_value", f"a form has at most {PARTS_MAX} parts", param="file")

    def _header_field(self, data: bytes, start: int, end: int) -> None:
        self._name += data[start:end]

    def _header_value(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]

    def _header_end(self) -> None:
        self._headers[self._name.lower()] = self._value
        self._name, self._value = b"", b""

    def _headers_finished(self) -> None:
        from python_multipart.multipart import parse_options_header  # noqa: PLC0415 - only who uploads files needs it

        _, options = parse_options_header(self._headers.get(b"content-disposition", b""))
        self._part = options.get(b"name", b"").decode("utf-8", "replace")
        if self._part == "file":
            if self._file is not None:
                raise ApiError("invalid_value", "one file at a time: the part file comes twice", param="file")
            content_type = self._headers.get(b"content-type", b"")
            check_charset(content_type.decode("latin-1"))
            media, _ = parse_options_header(content_type)
            self._file = (options.get(b"filename", b"").decode("utf-8", "replace"), media.decode("latin-1").lower())
        elif self._part in _TEXTS:
            self._texts.setdefault(self._part, []).append(b"")
        else:
            known = ", ".join(("file", *_TEXTS))
            raise ApiError(
                "invalid_value", f"the part {self._part[:64]!r} is not read; there are {known}", param="file"
            )

    def _data(self, data: bytes, start: int, end: int) -> None:
        if self._part == "file":
            self._out.append(data[start:end])
            return
        texts = self._texts[self._part]
        texts[-1] += data[start:end]
        if len(texts[-1]) > TEXT_BYTES_MAX:
            raise ApiError("invalid_value", f"the part {self._part} is over {TEXT_BYTES_MAX} bytes", param=self._part)

    def _end(self) -> None:
        self._part = ""

    def _done(self) -> None:
        self._is_whole = True


def _too_large(max_bytes: int) -> ApiError:
    return ApiError("body_too_large", f"an uploaded document has at most {max_bytes} bytes (http.max_upload_bytes)")
