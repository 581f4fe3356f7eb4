"""Where memory is kept within a tenant: a path of names, by convention ``project/user/agent/conversation``.

The tenant itself is ``/``. A name that does not apply is left out or written ``-``. One rule: a path that was parsed
here has one spelling, and names nothing outside its tenant.
"""

from __future__ import annotations

import re

from collegium_contracts.errors import ContractError

Path = tuple[str, ...]

DEPTH_MAX = 8
OFF = "off"
ROOT = "/"
_NAME = re.compile(r"[A-Za-z0-9._:@-]{1,64}\Z")


class PathError(ContractError):
    """The text is no path of memory."""

    code = "invalid_value"


def parse_path(text: str) -> Path:
    """Reads a path; slashes at its ends do not count. Raises PathError."""
    names = tuple(text.strip("/").split("/")) if text.strip("/") else ()
    if not text:
        raise PathError("a path of memory is names with slashes between, or / for the whole tenant")
    if names == (OFF,):
        raise PathError("'off' is no path: it says that memory is not used")
    if len(names) > DEPTH_MAX:
        raise PathError(f"a path of memory has at most {DEPTH_MAX} names")
    for name in names:
        if _NAME.match(name) is None or not name.strip("."):
            raise PathError("a name in a path of memory is 1 to 64 of letters, digits and . _ : @ -")
    return names


def path_text(path: Path) -> str:
    """Writes a path in its one spelling."""
    return "/".join(path) or ROOT


def is_within(path: Path, above: Path) -> bool:
    """Whether a path is another one or lies below it."""
    return path[: len(above)] == above
