"""Every `./collegium` command that the pages show is one that the command line accepts."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
from collegium_cli.arguments import parser

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
SHOWN = sorted(
    {
        match.strip()
        for page in PAGES
        for match in re.findall(r"^ {4}\./collegium ([^#\n]+)", page.read_text(), re.MULTILINE)
    }
)


def test_the_readme_shows_the_two_commands():
    text = (ROOT / "README.md").read_text()
    assert "    ./collegium demo\n    ./collegium test\n" in text


@pytest.mark.parametrize("command", SHOWN)
def test_a_shown_command_is_accepted(command):
    words = shlex.split(command)
    if words[0] == "test":
        return  # the launcher's own verb: this run is it
    assert callable(parser().parse_args(words).run)


def test_links_between_pages_lead_somewhere():
    broken = [
        f"{page.relative_to(ROOT)}: {target}"
        for page in PAGES
        for target in re.findall(r"\]\((?!http)([^)#]+)", page.read_text())
        if not (page.parent / target).exists()
    ]
    assert broken == []
