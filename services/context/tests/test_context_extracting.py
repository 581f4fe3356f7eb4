"""Reading documents: what comes through, what is refused, and that nothing a document does hurts who reads it."""

from __future__ import annotations

import io
import time
import zlib
from itertools import pairwise

import pytest
from collegium_context.documents import child
from collegium_context.documents.blocks import Block, tokens_of
from collegium_context.documents.chunking import chunked
from collegium_context.documents.errors import DocumentError, DocumentTooDeepError, DocumentTooLargeError
from collegium_context.documents.extracting import Kind, extracted
from collegium_context.documents.naming import facet, fingerprint, named_chunks
from collegium_contracts.knowledge import DocumentMeta
from hypothesis import given
from hypothesis import strategies as st

HTML = """<html><head><title>Harbour &amp; sea</title><style>p{color:red}</style></head><body>
<h1>Tides</h1><p>The <b>moon</b> pulls<script>steal()</script> water.</p><pre>keep
 this</pre><div hidden>secret</div><p style="display: none">hidden</p><ul><li>one<li>two</ul><!-- no -->
</body></html>"""
MARKDOWN = "# Tides\n\nThe **moon** pulls `water`.\n\n<script>steal()</script>\n\n| a | b |\n|---|---|\n| 1 | 2 |\n"


def texts(content: bytes, kind: Kind) -> list[str]:
    return [block.text for block in extracted(content, kind).blocks]


def pdf(*streams: bytes) -> bytes:
    """A PDF with one page for each content stream."""
    count = len(streams)
    objects = [b"<< /Type /Catalog /Pages 2 0 R >>"]
    kids = b" ".join(b"%d 0 R" % (4 + 2 * n) for n in range(count))
    objects.append(b"<< /Type /Pages /Kids [%b] /Count %d >>" % (kids, count))
    objects.append(b"<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica >>")
    for number, stream in enumerate(streams):
        resources = b"<< /Font << /F1 3 0 R >> >>"
        objects.append(
            b"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 600 800] /Resources %b /Contents %d 0 R >>"
            % (resources, 5 + 2 * number)
        )
        packed = zlib.compress(stream, 9)
        objects.append(b"<< /Length %d /Filter /FlateDecode >>\nstream\n%b\nendstream" % (len(packed), packed))
    out = io.BytesIO(b"%PDF-1.4\n")
    out.seek(0, io.SEEK_END)
    places: list[int] = []
    for number, body in enumerate(objects, 1):
        places.append(out.tell())
        out.write(b"%d 0 obj\n%b\nendobj\n" % (number, body))
    start = out.tell()
    out.write(b"xref\n0 %d\n0000000000 65535 f \n" % (len(objects) + 1))
    out.write(b"".join(b"%010d 00000 n \n" % place for place in places))
    out.write(b"trailer << /Size %d /Root 1 0 R >>\nstartxref\n%d\n%%%%EOF" % (len(objects) + 1, start))
    return out.getvalue()


def test_html_says_what_a_reader_sees() -> None:
    found = extracted(HTML.encode(), "html")
    assert found.title == "Harbour & sea"
    assert [block.text for block in found.blocks] == ["Tides", "The moon pulls water.", "keep\n this", "one", "two"]
    assert found.blocks[0].level == 1


def test_markdown_keeps_its_structure_and_drops_scripts() -> None:
    found = extracted(MARKDOWN.encode(), "markdown")
    assert [(block.level, block.text) for block in found.blocks] == [
        (1, "Tides"),
        (0, "The moon pulls water."),
        (0, "a | b"),
        (0, "1 | 2"),
    ]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "cp1252"])
def test_encodings_that_can_be_told_are_read(encoding: str) -> None:
    text = "Über den Fluß gehen viele schöne Brücken, und jede führt nach Süden. " * 8
    assert texts(text.encode(encoding), "text") == [text.strip()]


@pytest.mark.parametrize(
    ("content", "kind", "code"),
    [
        (b"", "text", "document_empty"),
        (b"\x00\x01\x02\x03" * 50, "text", "document_undecodable"),
        (b"\xef\xbb\xbf\xff\xfe broken", "text", "document_undecodable"),
        (b'<meta charset="utf-99"><p>caf\xe9</p>', "html", "document_undecodable"),
        (b'<meta charset="undefined"><p>caf\xe9</p>', "html", "document_undecodable"),
        (b'<meta charset="idna"><p>caf\xe9</p>', "html", "document_undecodable"),
        (b"<p></p><script>only</script>", "html", "document_empty"),
        (b"<b>" * 3_000 + b"x", "html", "document_too_deep"),
        (b"<div>" * 500 + b"x", "html", "document_too_deep"),
        (b"\x89PNG", "pdf", "document_undecodable"),
        (b"%PDF-1.4\nnothing", "pdf", "document_undecodable"),
    ],
)
def test_what_cannot_be_read_is_refused(content: bytes, kind: Kind, code: str) -> None:
    with pytest.raises(DocumentError) as refused:
        extracted(content, kind)
    assert refused.value.code == code


def test_deep_html_is_refused_at_once() -> None:
    began = time.thread_time()
    with pytest.raises(DocumentTooDeepError):
        extracted(b"<div>" * 200_000, "html")
    assert time.thread_time() - began < 2


async def test_a_pdf_is_read_in_a_process_of_its_own() -> None:
    pages = [b"BT /F1 12 Tf 72 700 Td (Page %d speaks of whales.) Tj ET" % n for n in range(3)]
    found = await child.read(pdf(*pages), "pdf")
    assert [chunk.text for chunk in found.chunks] == ["\n\n".join(f"Page {n} speaks of whales." for n in range(3))]


async def test_a_compression_bomb_ends_in_a_refusal() -> None:
    bomb = pdf(b"BT /F1 12 Tf (" + b" " * 200_000_000 + b") Tj ET")
    assert len(bomb) < 1_000_000
    with pytest.raises(DocumentError) as refused:
        await child.read(bomb, "pdf")
    assert refused.value.code in {"document_too_costly", "document_undecodable"}


async def test_reading_that_takes_too_long_is_ended() -> None:
    with pytest.raises(DocumentError) as refused:
        await child.read(b"[" * 60_000, "markdown", seconds=2)
    assert refused.value.code == "document_too_costly"


async def test_a_document_is_cut_where_it_is_read_so_that_cutting_is_bounded_too() -> None:
    with pytest.raises(DocumentTooLargeError, match="chunks"):
        await child.read(b"<" * 4_100_000, "text")


def test_chunks_follow_headings_and_overlap_within_a_section() -> None:
    sentences = " ".join(f"Sentence {n} is about tides." for n in range(60))
    chunks = chunked([Block("Sea", 1), Block(sentences), Block("Land", 2), Block("Short.")])
    assert all(chunk.tokens <= 200 for chunk in chunks)
    assert len(chunks) > 2
    for before, after in pairwise(chunks[:-1]):
        assert after.text.split(".")[0] in before.text
    assert chunks[-1].headings == ("Sea", "Land")


_BLOCKS = st.lists(st.builds(Block, st.text(min_size=1, max_size=400), st.integers(0, 3), st.booleans()), max_size=12)


@given(_BLOCKS, st.integers(8, 60))
def test_no_word_is_lost_and_no_chunk_is_too_large(blocks: list[Block], size: int) -> None:
    chunks = chunked(blocks, size_tokens=size, overlap_tokens=size // 4)
    letters = sorted(set("".join("".join(block.text.split()) for block in blocks)))
    assert set(letters) <= set("".join(chunk.text for chunk in chunks))
    assert all(sum(map(tokens_of, chunk.text.split())) <= size for chunk in chunks)


def test_names_follow_from_content_and_stay_with_what_did_not_change() -> None:
    old = chunked([Block("One", 1), Block("a " * 80), Block("Two", 1), Block("b " * 80)])
    new = chunked(
        [Block("Zero", 1), Block("z " * 80), Block("One", 1), Block("a " * 80), Block("Two", 1), Block("b " * 80)]
    )
    of_old = {chunk.id for chunk in named_chunks("acme", "d", old, "", ["f"])}
    of_new = {chunk.id for chunk in named_chunks("acme", "d", new, "", ["f"])}
    assert of_old < of_new
    assert not of_old & {chunk.id for chunk in named_chunks("other", "d", old, "", ["f"])}
    assert not of_old & {chunk.id for chunk in named_chunks("acme", "d", old, "", ["g"])}


def test_facets_tell_values_apart_and_hide_them() -> None:
    assert facet("acme", "tag", "red") != facet("other", "tag", "red")
    assert facet("acme", "field:n", 2) == facet("acme", "field:n", 2.0)
    assert len({facet("acme", "field:n", value) for value in (1, "1", True, "true")}) == 4
    assert "red" not in facet("acme", "tag", "red")
    of_a = fingerprint("a", "default", "text", b"x", DocumentMeta())
    assert of_a != fingerprint("b", "default", "text", b"x", DocumentMeta())
    assert of_a != fingerprint("a", "web", "text", b"x", DocumentMeta())
