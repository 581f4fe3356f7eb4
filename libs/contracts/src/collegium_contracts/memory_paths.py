"""Where memory is kept within a tenant: a path of names, by convention ``project/user/agent/conversation``.

The tenant itself is ``/``. A name that does not apply is left out or written ``-``. Who asks with a key of a project
reaches that project's paths (:class:`PathReach`). One rule: a path that was parsed here has one spelling, and names
nothing outside its tenant.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

import msgspec

from collegium_contracts.errors import ContractError

Path = tuple[str, ...]

DEPTH_MAX = 8
# The project of keys that were made without one: what is no other project's is its.
DEFAULT_PROJECT = "default"
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


class PathReach(msgspec.Struct, frozen=True, omit_defaults=True):
    """Which paths of its tenant a key may name: those below ``project`` (empty: any), and none of ``others``.

    A path is a project's where its first name is the project's id.
    """

    project: str = ""
    others: tuple[str, ...] = ()

    def holds(self, path: Path) -> bool:
        """Whether a path may be written at, and all that is below it but for ``others``."""
        if self.project:
            return path[:1] == (self.project,)
        return not path or path[0] not in self.others

    def holds_all_below(self, path: Path) -> bool:
        """Whether nothing at a path or below it is another project's."""
        return self.holds(path) and (bool(path) or not self.others)

    def reads(self, path: Path) -> bool:
        """Whether what is at a path may be read without a grant: what is the tenant's itself is everybody's."""
        return not path or self.holds(path)


EVERYWHERE = PathReach()


def reach_of(project: str, projects: Iterable[str], *, is_admin: bool) -> PathReach:
    """Returns what a key of a project reaches in a tenant with these projects; who administrates reaches all."""
    if is_admin:
        return EVERYWHERE
    if project != DEFAULT_PROJECT:
        return PathReach(project=project)
    return PathReach(others=tuple(sorted({*projects} - {DEFAULT_PROJECT})))
