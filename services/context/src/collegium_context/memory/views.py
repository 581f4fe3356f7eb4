"""Which paths a reader at a path sees. Pure.

A path sees itself and what lies above it, up to the first that is set not to inherit, and what was granted to one of
these, with all below it. Views are for reading: nothing is ever written at another path than the one that was named.
One rule: what is switched off is seen by nobody, from wherever.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import msgspec
from collegium_contracts.memory_paths import Path, is_within


class PathSetting(msgspec.Struct, frozen=True):
    """What holds at a path: ``off`` also for all below it; without ``inherits`` nothing above it is seen from here."""

    path: Path
    off: bool = False
    inherits: bool = True


class Grant(msgspec.Struct, frozen=True):
    """Leave for a path, and what inherits from it, to read another one and all below that."""

    id: str
    reader: Path
    source: Path
    at_ms: int = 0


class View(msgspec.Struct, frozen=True):
    """What is seen from a path: paths one by one, nearest first, and paths with all below them."""

    path: Path
    exact: tuple[Path, ...]
    below: tuple[Path, ...] = ()
    dark: tuple[Path, ...] = ()

    @property
    def is_off(self) -> bool:
        """Whether memory is switched off where the reader stands."""
        return is_dark(self.path, self.dark)

    def distance(self, path: Path) -> int | None:
        """How far a path is from the reader's, in steps up; one step more than the way there for what was granted.

        None where it is not seen.
        """
        if self.is_off or is_dark(path, self.dark):
            return None
        if path in self.exact:
            return self.exact.index(path)
        if any(is_within(path, source) for source in self.below):
            return 1
        return None


def is_dark(path: Path, dark: Iterable[Path]) -> bool:
    """Whether a path is one of those that are switched off, or below one."""
    return any(is_within(path, one) for one in dark)


def view_of(path: Path, settings: Sequence[PathSetting], grants: Sequence[Grant], *, inherits: bool = True) -> View:
    """Returns what is seen from a path; without ``inherits`` nothing above it, and no grant to what is above it."""
    closed = {setting.path for setting in settings if not setting.inherits}
    exact = [path]
    while inherits and exact[-1] and exact[-1] not in closed:
        exact.append(exact[-1][:-1])
    return View(
        path=path,
        exact=tuple(exact),
        below=tuple(sorted({grant.source for grant in grants if grant.reader in exact})),
        dark=tuple(sorted(setting.path for setting in settings if setting.off)),
    )
