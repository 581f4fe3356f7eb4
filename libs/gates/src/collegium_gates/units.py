"""Which texts of a request or an answer rules read, and how changed texts are put back. Pure.

A unit is what a model reads as one: the parts of a message's content are one text, each further text of the request
(a tool's description, an argument, a key of an object) is one of its own. Pictures and sound are no text. One rule:
every character that a model gets and that is text stands in a unit.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Final, NamedTuple

import msgspec

_PICTURE_KEYS: Final = frozenset({"url", "data", "file_data"})
_PICTURE_PARENTS: Final = frozenset({"image_url", "input_audio", "file"})

Path = tuple[str | int, ...]


class Segment(NamedTuple):
    """Where a part of a unit's text stands, and at which of its characters it begins."""

    path: Path
    start: int
    end: int


class Unit(msgspec.Struct, frozen=True):
    """One text. ``role`` is its message's, or ``parameters``. Without ``segments`` it cannot be changed."""

    text: str
    role: str = ""
    segments: tuple[Segment, ...] = ()


class Change(NamedTuple):
    """A place of a unit's text, and what is to stand there."""

    start: int
    end: int
    text: str


def of_messages(messages: Any) -> list[Unit]:
    """Returns the units of a JSON list of chat messages, or of texts to embed."""
    found: list[Unit] = []
    for number, message in enumerate(messages if isinstance(messages, list) else [messages]):
        if isinstance(message, str):
            found.append(_whole(message, "user", (number,)))
            continue
        if not isinstance(message, dict):
            continue
        role = str(message.get("role", ""))
        for key, value in message.items():
            if key == "content":
                found += _content(value, role, (number, key))
            elif key != "role":
                found += _leaves(value, role, (number, key))
    return [unit for unit in found if unit.text]


def of_tool_calls(calls: Any) -> list[Unit]:
    """Returns the units of a decoded JSON list of an answer's tool calls."""
    return [unit for unit in _leaves(calls, "assistant", ()) if unit.text]


def of_parameters(parameters: Sequence[Any]) -> list[Unit]:
    """Returns the units of what is sent beside the messages: tools, formats, stop words. They cannot be changed."""
    return [
        Unit(unit.text, "parameters") for value in parameters for unit in _leaves(value, "parameters", ()) if unit.text
    ]


def changed(messages: Any, unit: Unit, changes: Sequence[Change]) -> None:
    """Writes changes (in order, not overlapping) of a unit into the messages that it was read from."""
    for segment in reversed(unit.segments):
        text = unit.text[segment.start : segment.end]
        for change in reversed(changes):
            start, end = max(change.start, segment.start), min(change.end, segment.end)
            if start >= end:
                continue
            # A place that reaches over several parts is written into the first of them.
            written = change.text if start == change.start else ""
            text = text[: start - segment.start] + written + text[end - segment.start :]
        _put(messages, segment.path, text)


def _content(value: Any, role: str, path: Path) -> Iterator[Unit]:
    if isinstance(value, str):
        yield _whole(value, role, path)
        return
    if not isinstance(value, list):
        return
    texts: list[str] = []
    segments: list[Segment] = []
    length = 0
    for number, part in enumerate(value):
        if isinstance(part, dict) and isinstance(text := part.get("text"), str):
            texts.append(text)
            segments.append(Segment((*path, number, "text"), length, length + len(text)))
            length += len(text)
            rest = {key: one for key, one in part.items() if key not in ("text", "type")}
        else:
            rest = part
        yield from _leaves(rest, role, (*path, number))
    yield Unit("".join(texts), role, tuple(segments))


def _leaves(value: Any, role: str, path: Path) -> Iterator[Unit]:
    if isinstance(value, str):
        yield _whole(value, role, path)
    elif isinstance(value, list):
        for number, one in enumerate(value):
            yield from _leaves(one, role, (*path, number))
    elif isinstance(value, dict):
        for key, one in value.items():
            if _is_picture(path, key, one):
                continue
            yield Unit(str(key), role)
            yield from _leaves(one, role, (*path, key))


def _is_picture(path: Path, key: str, value: Any) -> bool:
    if key not in _PICTURE_KEYS or not isinstance(value, str) or not path or path[-1] not in _PICTURE_PARENTS:
        return False
    return key == "data" or value.startswith("data:")


def _whole(text: str, role: str, path: Path) -> Unit:
    return Unit(text, role, (Segment(path, 0, len(text)),))


def _put(tree: Any, path: Path, text: str) -> None:
    for step in path[:-1]:
        tree = tree[step]
    tree[path[-1]] = text
