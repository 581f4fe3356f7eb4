"""How the suite is spread over worker processes: what shares a platform runs together, what takes long first.

Starting a platform costs several seconds of a core, and one that stands idle a twentieth of one. One rule: this moves
tests, nothing else; a module that it knows nothing of runs as well, alone and later.
"""

from __future__ import annotations

import functools
import re
from pathlib import Path
from typing import Any, Final

import pytest
from xdist.scheduler import LoadFileScheduling

# The platforms that modules share, by the name of their fixture (tests/conftest.py, tests/journeys/conftest.py).
PLATFORMS: Final = ("town", "knowing", "stage")
# What takes a worker longest begins first; then come other journeys, then whatever starts no platform.
FIRST: Final = (
    "stage",
    "cli/tests/test_cli_up.py",
    "tests/chaos/test_chaos_matrix.py",
    "town",
    "tests/journeys/test_journey_erasure.py",
    "tests/journeys/test_journey_paid_embeddings.py",
    "knowing",
    "tests/e2e/test_demo.py",
)
_JOURNEYS: Final = "tests/journeys/"
_PLATFORMS_OF_THEIR_OWN: Final = "tests/"


@functools.cache
def group_of(file: Path, name: str) -> str:
    """Returns what a test module runs together with: the platform that its tests ask for, or itself (its ``name``)."""
    if name.startswith(_JOURNEYS):
        text = file.read_text()
        for platform in PLATFORMS:
            if re.search(rf"\b_?{platform}: ", text):
                return platform
    return name


def together(items: list[pytest.Item], root: Path) -> list[pytest.Item]:
    """Returns tests in the order they run in, those of a group side by side and otherwise as they stand."""
    places: dict[str, tuple[int, int]] = {}

    def place(item: pytest.Item) -> tuple[int, int]:
        group = group_of(item.path, item.path.relative_to(root).as_posix())
        if group not in places:
            listed = (
                FIRST.index(group) if group in FIRST else len(FIRST) + (not group.startswith(_PLATFORMS_OF_THEIR_OWN))
            )
            places[group] = (listed, len(places))
        return places[group]

    return sorted(items, key=place)


class Spreading(LoadFileScheduling):
    """Gives each worker whole groups, in the order in which they stand."""

    def __init__(self, config: pytest.Config, log: Any = None) -> None:
        super().__init__(config, log)
        config.option.loadscopereorder = False

    def _split_scope(self, nodeid: str) -> str:
        name = nodeid.partition("::")[0]
        return group_of(self.config.rootpath / name, name)
