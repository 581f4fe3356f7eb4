"""What a key of one project may do to the paths of its tenant. Pure.

A path is a project's where its first name is the project's id. A key of a project writes below its own, reads what is
the tenant's itself (``/``) as well, and of other projects what was granted; who may grant across projects reaches both.
One rule: a memory out of reach is answered as if it did not exist, a path that is named is refused with its reason.
"""

from __future__ import annotations

from collections.abc import Iterable

from collegium_bus.errors import RequestRefusedError
from collegium_contracts.memory_paths import Path, PathReach, is_within, path_text

from collegium_context.memory.views import Grant, PathSetting


def refuse_writing(reach: PathReach, path: Path, param: str = "path") -> None:
    """Raises RequestRefusedError unless something may be stored at a path."""
    if not reach.holds(path):
        raise beyond(reach, path, param)


def refuse_reading(reach: PathReach, path: Path, param: str = "path") -> None:
    """Raises RequestRefusedError unless a reader may stand at a path."""
    if not reach.reads(path):
        raise beyond(reach, path, param)


def refuse_all_below(reach: PathReach, path: Path, param: str = "path") -> None:
    """Raises RequestRefusedError unless all at a path and below it is within reach."""
    if not reach.holds_all_below(path):
        raise beyond(reach, path, param)


def sees(reach: PathReach, path: Path, grants: Iterable[Grant]) -> bool:
    """Whether one memory may be shown: what is within reach, the tenant's itself, or granted to a path within reach."""
    return reach.reads(path) or any(reach.holds(one.reader) and is_within(path, one.source) for one in grants)


def is_settled_by(reach: PathReach, setting: PathSetting) -> bool:
    """Whether a setting of a path is shown."""
    return reach.reads(setting.path)


def concerns(reach: PathReach, grant: Grant) -> bool:
    """Whether a grant is shown, and may be taken back: whoever gives and whoever is given to may end it."""
    return reach.holds(grant.reader) or reach.holds(grant.source)


def beyond(reach: PathReach, path: Path, param: str) -> RequestRefusedError:
    """Returns the refusal of a path that is out of reach."""
    said = path_text(path)
    if reach.project:
        text = (
            f"this key is of project {reach.project}: {said} is not its own; begin with {reach.project}, or ask with a"
        )
    else:
        text = (
            f"{said} is of a project that this key is not of, or holds one that is; ask with that project's key, or a"
        )
    return RequestRefusedError("insufficient_scope", f"{text} key that has the scope 'admin' as well", param)
