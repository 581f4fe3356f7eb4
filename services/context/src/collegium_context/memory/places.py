"""Where a shared context or a conversation stands among its tenant's: by its project and its own id. Pure.

What is of no project (``default``) stands by its id alone. One rule: neither id can hold the sign between them, so no
two places are written alike, and a place of one project is never found by the ids of another.
"""

from __future__ import annotations

from typing import NamedTuple

from collegium_bus.errors import RequestRefusedError
from collegium_contracts.ids import CONVERSATION_ID, PROJECT_ID
from collegium_contracts.memory_paths import DEFAULT_PROJECT

_BETWEEN = "/"
# The sign after it: what begins with "red/" lies below "red0".
_BEYOND = chr(ord(_BETWEEN) + 1)


class Span(NamedTuple):
    """Places of a project: those that begin with ``prefix`` (empty: those without the sign), after one, before one."""

    prefix: str
    after: str
    before: str


def place(project: str, own_id: str) -> str:
    """Returns the place of an id; raises RequestRefusedError where one of the two is none."""
    if CONVERSATION_ID.match(own_id) is None:
        raise RequestRefusedError("invalid_value", "1 to 128 of letters, digits and . _ : -", "id")
    return _prefix(project) + own_id


def own_id(place: str) -> str:
    """Returns the id that a place ends with."""
    return place.rpartition(_BETWEEN)[2]


def span(project: str, after_id: str) -> Span:
    """Returns the places of a project after an id of it; raises RequestRefusedError where that is no project's id."""
    prefix = _prefix(project)
    return Span(prefix, prefix + after_id, prefix[:-1] + _BEYOND if prefix else "")


def _prefix(project: str) -> str:
    if project == DEFAULT_PROJECT:
        return ""
    if PROJECT_ID.match(project) is None:
        raise RequestRefusedError("invalid_value", "not the id of a project", "project")
    return project + _BETWEEN
