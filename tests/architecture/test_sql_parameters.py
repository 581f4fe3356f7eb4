"""PostgreSQL takes a bare ``$1 = 0`` for int4, and refuses every larger number: such a parameter says its type."""

from __future__ import annotations

import re

from tests.architecture.test_subject_literals import ROOT, sources

UNTYPED = re.compile(r"\$\d+ *(=|<>|!=|<=?|>=?) *-?\d|\b\d+ *(=|<>|!=|<=?|>=?) *\$\d+(?!\d|::)")


def test_a_parameter_compared_with_a_number_says_its_type():
    found = [
        f"{path.relative_to(ROOT)}:{number} {line.strip()}"
        for path in sources()
        for number, line in enumerate(path.read_text().splitlines(), 1)
        if UNTYPED.search(line)
    ]
    assert found == []
