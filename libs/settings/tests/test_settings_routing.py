"""The section of routing: what answers novel questions, and what a configuration may not say of it."""

from __future__ import annotations

from pathlib import Path

import pytest
from collegium_settings import SettingsError, load

MODEL = "models: [{name: m, base_url: https://models.test/v1, price: {}}]\n"


def settings(tmp_path: Path, text: str):
    path = tmp_path / "collegium.yaml"
    path.write_text(MODEL + text)
    return load(path, {}).routing


def test_novel_questions_are_for_one_model_unless_it_is_said_of_all_or_of_one_tenant(tmp_path: Path):
    plain = settings(tmp_path, "")
    assert (plain.novel_of("acme"), plain.novel_members) == ("single", 3)
    both = settings(tmp_path, "routing: {novel: panel, novel_members: 5, novel_tenants: {globex: single}}")
    assert (both.novel_of("acme"), both.novel_of("globex"), both.novel_members) == ("panel", "single", 5)


@pytest.mark.parametrize(
    ("text", "path"),
    [
        ("novel: crowd", "routing.novel"),
        ("novel_members: 1", "routing.novel_members"),
        ("novel_members: 10", "routing.novel_members"),
        ("novel_tenants: {acme: crowd}", "routing.novel_tenants.acme"),
        ("novel_tenants: {Acme Corp: panel}", "routing.novel_tenants.Acme Corp"),
    ],
)
def test_what_no_panel_can_be_is_refused_with_its_place(tmp_path: Path, text: str, path: str):
    with pytest.raises(SettingsError) as refused:
        settings(tmp_path, f"routing: {{{text}}}")
    assert path in str(refused.value)
