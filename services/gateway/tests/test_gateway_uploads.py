"""Forms with a file: what is read of them however they come in pieces, and what is refused."""

from __future__ import annotations

import json
import tempfile
from typing import Any

import pytest
from collegium_gateway.errors import ApiError
from collegium_gateway.knowledge import uploads
from collegium_gateway.knowledge.spool import MEMORY_BYTES, Spool
from collegium_gateway.knowledge.uploads import Upload, check_charset, read_form
from hypothesis import given
from hypothesis import strategies as st

BOUNDARY = "frontier"
CONTENT = bytes(range(256)) * 40 + b"\r\n--frontie\r\n--frontier-no\r\n"


def part(name: str, value: bytes | str, *, filename: str | None = None, media: str = "") -> bytes:
    head = f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="{name}"'
    head += f'; filename="{filename}"' if filename is not None else ""
    head += f"\r\nContent-Type: {media}" if media else ""
    return head.encode() + b"\r\n\r\n" + (value.encode() if isinstance(value, str) else value) + b"\r\n"


def form(*parts: bytes) -> bytes:
    return b"".join(parts) + f"--{BOUNDARY}--\r\n".encode()


async def read(body: bytes, *, step: int = 10_000, max_bytes: int = 100_000, **scope: Any) -> tuple[Upload, bytes]:
    pieces = [body[at : at + step] for at in range(0, len(body), step)] or [b""]

    async def receive() -> Any:
        return {"type": "http.request", "body": pieces.pop(0), "more_body": bool(pieces)}

    media = f"multipart/form-data; boundary={BOUNDARY}".encode()
    about: dict[str, Any] = {"headers": [(b"content-type", media)], **scope}
    with Spool() as spool:
        upload = await read_form(about, receive, max_bytes, spool)
        return upload, spool.read()


WHOLE = form(
    part("id", "manual-1"),
    part("tags", "a,b"),
    part("file", CONTENT, filename="Manual.PDF", media="application/octet-stream"),
    part("tags", "c"),
    part("title", "Ünder water"),
    part("fields", json.dumps({"page": 7, "day": "2026-05-01"})),
)


@pytest.mark.parametrize("step", [1, 7, 64, 1_000_000])
async def test_a_form_is_the_same_however_it_comes(step: int):
    upload, content = await read(WHOLE, step=step)
    assert content == CONTENT
    assert (upload.id, upload.kind, upload.meta.title) == ("manual-1", "pdf", "Ünder water")
    assert (upload.meta.tags, upload.meta.fields) == (["a", "b", "c"], {"page": 7, "day": "2026-05-01"})


@pytest.mark.parametrize(
    ("filename", "media", "said", "kind"),
    [
        ("a.md", "", "", "markdown"),
        ("a.md", "text/plain", "", "markdown"),
        ("a.unknown", "text/html", "", "html"),
        ("a.txt", "application/pdf", "", "pdf"),
        ("a.pdf", "application/pdf", "text", "text"),
        ("", "text/plain", "", "text"),
    ],
)
async def test_what_a_file_is(filename: str, media: str, said: str, kind: str):
    parts = [part("file", b"x", filename=filename, media=media), *([part("type", said)] if said else [])]
    assert (await read(form(*parts)))[0].kind == kind


FILE = part("file", b"x", filename="a.md")


@pytest.mark.parametrize(
    ("body", "code", "param"),
    [
        (form(), "invalid_value", "file"),
        (form(part("title", "no file")), "invalid_value", "file"),
        (form(FILE, FILE), "invalid_value", "file"),
        (form(FILE, part("surprise", "x")), "invalid_value", "file"),
        (form(FILE, part("title", "x" * (uploads.TEXT_BYTES_MAX + 1))), "invalid_value", "title"),
        (form(FILE, part("title", "a"), part("title", "b")), "invalid_value", "title"),
        (form(FILE, part("title", b"\xff\xfe")), "invalid_value", "title"),
        (form(FILE, part("type", "docx")), "invalid_value", "type"),
        (form(FILE, part("fields", "[1]")), "invalid_value", "fields"),
        (form(FILE, part("fields", '{"a": {"b": 1}}')), "invalid_value", "fields"),
        (form(part("file", b"x", filename="a.docx", media="application/msword")), "invalid_value", "file"),
        (form(part("file", b"x", filename="a.docx")), "invalid_value", "file"),
        (form(FILE, *[part("tags", "x")] * uploads.PARTS_MAX), "invalid_value", "file"),
        (form(FILE)[:-8], "invalid_value", "file"),
        (b"no form at all, and long enough to be looked at", "invalid_value", "file"),
        (b"", "invalid_value", "file"),
        (form(part("file", b"x" * 100_001, filename="a.md")), "body_too_large", None),
    ],
)
async def test_a_wrong_form_is_refused_by_the_part_at_fault(body: bytes, code: str, param: str | None):
    with pytest.raises(ApiError) as refused:
        await read(body)
    assert (refused.value.code, refused.value.param) == (code, param)


async def test_what_is_too_large_is_not_read_to_its_end():
    taken: list[int] = []

    async def receive() -> Any:
        taken.append(1)
        body = part("file", b"x" * 50_000, filename="a.md")[:-2] if len(taken) == 1 else b"x" * 50_000
        return {"type": "http.request", "body": body, "more_body": True}

    media = f"multipart/form-data; boundary={BOUNDARY}".encode()
    with Spool() as spool, pytest.raises(ApiError) as refused:
        await read_form({"headers": [(b"content-type", media)]}, receive, 120_000, spool)
    assert (refused.value.code, len(taken)) == ("body_too_large", 3)
    declared = [(b"content-type", media), (b"content-length", b"999999999")]
    with Spool() as spool, pytest.raises(ApiError) as refused:
        await read_form({"headers": declared}, receive, 120_000, spool)
    assert (refused.value.code, len(taken)) == ("body_too_large", 3)


@pytest.mark.parametrize(
    "charset", ["utf-8", '"UTF-8"', "latin-1", "iso-8859-15", "windows-1252", "Shift_JIS", "ascii", ""]
)
def test_a_document_may_name_any_encoding_that_there_is(charset: str):
    check_charset(f"text/plain; charset={charset}")
    check_charset("text/plain")


@pytest.mark.parametrize("charset", ["utf-99", "undefined", "idna", "punycode", "hex", "rot13", "x" * 300, "\0"])
def test_an_encoding_that_there_is_not_is_refused(charset: str):
    with pytest.raises(ApiError) as refused:
        check_charset(f"text/plain; charset={charset}")
    assert (refused.value.code, refused.value.kind.http_status) == ("document_undecodable", 422)


async def test_without_a_boundary_and_broken_off_forms_are_refused():
    with pytest.raises(ApiError) as refused:
        await read(WHOLE, headers=[(b"content-type", b"multipart/form-data")])
    assert refused.value.param == "content-type"

    async def gone() -> Any:
        return {"type": "http.disconnect"}

    media = f"multipart/form-data; boundary={BOUNDARY}".encode()
    with Spool() as spool, pytest.raises(ApiError) as refused:
        await read_form({"headers": [(b"content-type", media)]}, gone, 1_000, spool)
    assert refused.value.code == "invalid_value"


@given(st.lists(st.binary(max_size=200)), st.integers(0, 300))
def test_a_spool_gives_back_what_it_was_given(parts: list[bytes], memory_bytes: int):
    with Spool(memory_bytes) as spool:
        for one in parts:
            spool.write(one)
        whole = b"".join(parts)
        assert (spool.read(), spool.size, spool.is_on_disk) == (whole, len(whole), len(whole) > memory_bytes)


def test_a_large_upload_lies_on_no_disk_in_the_clear(monkeypatch: pytest.MonkeyPatch):
    files: list[Any] = []
    real = tempfile.TemporaryFile
    monkeypatch.setattr(tempfile, "TemporaryFile", lambda: files.append(real()) or files[-1])
    secret = b"a secret of a tenant " * 8
    with Spool() as spool:
        for _ in range(MEMORY_BYTES // len(secret) + 1):
            spool.write(secret)
        files[0].seek(0)
        assert b"secret" not in files[0].read()
        assert spool.read().startswith(secret)
    assert files[0].closed
