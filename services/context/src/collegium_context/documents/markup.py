"""Markdown and HTML to blocks, by the libraries that know them. Pure.

What is not said to a reader does not come through: scripts, styles, comments, hidden elements. One rule: depth is
bounded before anything walks it.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from markdown_it import MarkdownIt
from markdown_it.token import Token
from selectolax.lexbor import LexborHTMLParser, LexborNode

from collegium_context.documents.blocks import Block, Extracted
from collegium_context.documents.errors import DocumentTooDeepError

DEPTH_MAX = 200
_DROPPED = frozenset({
    "script", "style", "noscript", "template", "svg", "math", "iframe", "object", "embed", "title", "textarea",
    "select", "button", "-comment",
})  # fmt: skip
_BLOCKS = frozenset({
    "address", "article", "aside", "blockquote", "body", "dd", "details", "div", "dl", "dt", "figcaption", "figure",
    "footer", "header", "hr", "html", "li", "main", "nav", "ol", "p", "section", "summary", "table", "tbody", "td",
    "tfoot", "th", "thead", "tr", "ul",
})  # fmt: skip
_HEADINGS = {f"h{level}": level for level in range(1, 7)}
# Elements that have no content, or whose end tag may be left out.
_UNNESTED = frozenset({
    "area", "base", "br", "col", "colgroup", "dd", "dt", "hr", "img", "input", "li", "link", "meta", "optgroup",
    "option", "p", "path", "source", "tbody", "td", "tfoot", "th", "thead", "tr", "track", "wbr",
})  # fmt: skip
RAW_DEPTH_MAX = 1_000
_TAG = re.compile(r"<(/?)([A-Za-z][A-Za-z0-9-]{0,40})")
_SPACE = re.compile(r"\s+")
_TEXT = "-text"

_markdown = MarkdownIt("commonmark", {"maxNesting": DEPTH_MAX}).enable("table")


def markdown_blocks(text: str) -> Extracted:
    """Reads Markdown; HTML within it is read as HTML is."""
    blocks: list[Block] = []
    level = 0
    row: list[str] = []
    in_row = False
    for token in _markdown.parse(text):
        if token.level >= DEPTH_MAX:
            raise DocumentTooDeepError(f"it is nested over {DEPTH_MAX} deep")
        if token.type == "heading_open":
            level = int(token.tag[1])
        elif token.type == "heading_close":
            level = 0
        elif token.type == "tr_open":
            row, in_row = [], True
        elif token.type == "tr_close":
            blocks.append(Block(" | ".join(row)))
            in_row = False
        elif token.type == "inline":
            said = _inline(token.children or [])
            if in_row:
                row.append(said)
            elif said:
                blocks.append(Block(said, level))
        elif token.type in ("fence", "code_block") and token.content.strip():
            blocks.append(Block(token.content.rstrip("\n"), keep=True))
        elif token.type == "html_block":
            blocks.extend(html_blocks(token.content).blocks)
    title = next((block.text for block in blocks if block.level == 1), "")
    return Extracted(blocks, title)


def _inline(tokens: Sequence[Token]) -> str:
    parts: list[str] = []
    for token in tokens:
        if token.type in ("text", "code_inline", "image"):
            parts.append(token.content)
        elif token.type in ("softbreak", "hardbreak"):
            parts.append(" ")
    return "".join(parts).strip()


def html_blocks(text: str) -> Extracted:
    """Reads HTML, whatever state it is in; raises :class:`DocumentTooDeepError`."""
    _check_nesting(text)
    tree = LexborHTMLParser(text)
    walk = _Walk()
    if tree.root is not None:
        walk.through(tree.root)
    return Extracted(walk.blocks, walk.title)


class _Walk:
    """Goes through a tree without recursion, so that its depth is ours to bound: selectors are slow on deep ones."""

    def __init__(self) -> None:
        self.blocks: list[Block] = []
        self.title = ""
        self._said: list[str] = []

    def through(self, root: LexborNode) -> None:
        """Collects the blocks below a node."""
        stack: list[tuple[LexborNode, int, bool]] = [(root, 0, False)]
        while stack:
            node, depth, is_end = stack.pop()
            if is_end:
                self._flush(_HEADINGS.get(node.tag or "", 0))
                continue
            if depth > DEPTH_MAX:
                raise DocumentTooDeepError(f"it is nested over {DEPTH_MAX} deep")
            if self._open(node):
                if node.tag in _BLOCKS or node.tag in _HEADINGS:
                    stack.append((node, depth, True))
                children: list[LexborNode] = list(node.iter(include_text=True))
                stack.extend((child, depth + 1, False) for child in reversed(children))

    def _open(self, node: LexborNode) -> bool:
        """Takes what a node says by itself; whether its children say more."""
        tag = node.tag or ""
        if tag == _TEXT:
            self._said.append(node.text(deep=False) or "")
            return False
        if tag == "title" and not self.title:
            self.title = _SPACE.sub(" ", node.text() or "").strip()
        if tag in _DROPPED or _is_hidden(node):
            return False
        if tag in _BLOCKS or tag in _HEADINGS or tag == "pre":
            self._flush(0)
        if tag == "pre":
            self._keep(node)
        elif tag == "br":
            self._said.append("\n")
        return tag != "pre"

    def _keep(self, node: LexborNode) -> None:
        if text := (node.text() or "").strip("\n"):
            self.blocks.append(Block(text, keep=True))

    def _flush(self, level: int) -> None:
        text = _SPACE.sub(" ", "".join(self._said)).strip()
        self._said.clear()
        if text:
            self.blocks.append(Block(text, level))


def _check_nesting(text: str) -> None:
    """Refuses what the parser itself would take too long for: its time grows with the square of the depth."""
    depth = 0
    for match in _TAG.finditer(text):
        if match[2].lower() in _UNNESTED:
            continue
        depth = max(0, depth - 1) if match[1] else depth + 1
        if depth > RAW_DEPTH_MAX:
            raise DocumentTooDeepError(f"it opens over {RAW_DEPTH_MAX} elements without closing them")


def _is_hidden(node: LexborNode) -> bool:
    attributes = node.attributes
    style = (attributes.get("style") or "").replace(" ", "").lower()
    return "hidden" in attributes or attributes.get("aria-hidden") == "true" or "display:none" in style
