"""No subject, stream or header is written outside the contracts and what speaks JetStream (bus, servers, tests)."""

from __future__ import annotations

import ast
import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
SUBJECT = re.compile(
    r"^(task|work|attempt|token|done|dead|ctl|svc|schedule)\.[a-z<*>{]|^\$(JS|KV|O)\.|^Collegium-|^Nats-"
)
OURS = ("cli", "libs", "services")  # not ROOT's every folder: an environment may lie there
SPEAK_JETSTREAM = ("libs/contracts", "libs/bus", "libs/servers", "libs/testing")


def sources() -> list[Path]:
    return sorted(path for folder in OURS for path in (ROOT / folder).glob("**/src/**/*.py"))


def literals(path: Path) -> list[tuple[int, str]]:
    tree = ast.parse(path.read_text())
    docstrings = {
        id(node.body[0].value)
        for node in ast.walk(tree)
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef)
        and node.body
        and isinstance(node.body[0], ast.Expr)
    }
    return [
        (node.lineno, node.value)
        for node in ast.walk(tree)
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in docstrings
    ]


def test_subjects_are_built_by_the_contracts():
    found = [
        f"{path.relative_to(ROOT)}:{line} {text}"
        for path in sources()
        if not str(path.relative_to(ROOT)).startswith(SPEAK_JETSTREAM)
        for line, text in literals(path)
        if SUBJECT.match(text)
    ]
    assert found == []


def test_no_source_file_is_longer_than_400_lines():
    long = [
        f"{path.relative_to(ROOT)} {count}"
        for path in sources()
        if "/v1/" not in str(path) and (count := len(path.read_text().splitlines())) > 400
    ]
    assert long == []
