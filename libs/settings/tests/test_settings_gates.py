"""Gates of the configuration: what is wrong stops the start, with its path."""

from __future__ import annotations

from pathlib import Path

import pytest
from collegium_settings import SettingsError, load
from collegium_settings.gates import BUNDLED, KINDS, rules_of


def read(tmp_path: Path, text: str):
    file = tmp_path / "collegium.yaml"
    file.write_text(text)
    return load(file, {})


@pytest.mark.parametrize(
    ("text", "path"),
    [
        ("gates: {mine: {}}", "gates.mine.kind"),
        ("gates: {Mine: {kind: pii}}", "gates.Mine"),
        ("gates: {mine: {kind: nothing}}", "gates.mine.kind"),
        ("gates: {mine: {kind: pii, at: [nowhere]}}", "gates.mine.at[0]"),
        ("gates: {mine: {kind: age, at: [answer]}}", "gates.mine.at"),
        ("gates: {mine: {kind: pii, at: []}}", "gates.mine.at"),
        ("gates: {mine: {kind: citations, action: redact}}", "gates.mine.action"),
        ("gates: {mine: {kind: pii, action: tokenise}}", "gates.mine.at"),
        ("gates: {mine: {kind: pii, threshold: 0.5}}", "gates.mine.threshold"),
        ("gates: {mine: {kind: pii, entities: [NAME]}}", "gates.mine.entities[0]"),
        ("gates: {mine: {kind: topics}}", "gates.mine.deny"),
        ("gates: {mine: {kind: topics, deny: ['…']}}", "gates.mine.deny[0]"),
        ("gates: {mine: {kind: regex, patterns: ['(?=a)']}}", "gates.mine.patterns[0]"),
        ("gates: {mine: {kind: regex, patterns: ['a*']}}", "gates.mine.patterns[0]"),
        ("gates: {mine: {kind: schema, schema: {type: nothing}}}", "gates.mine.schema"),
        ("gates: {mine: {kind: http}}", "gates.mine.url"),
        ("gates: {mine: {kind: http, url: 'ftp://x'}}", "gates.mine.url"),
        ("gates: {mine: {kind: age, minimum: 200}}", "gates.mine.minimum"),
        ("gates: {mine: {kind: age, trust: []}}", "gates.mine.trust"),
        ("gates: {mine: {kind: pii, timeout_seconds: 0}}", "gates.mine.timeout_seconds"),
        ("tenants: [{id: acme, gates: [mine]}]", "tenants[0].gates[0]"),
    ],
)
def test_what_is_wrong_is_named_by_its_path(tmp_path: Path, text: str, path: str) -> None:
    with pytest.raises(SettingsError) as raised:
        read(tmp_path, text)
    assert [problem.path for problem in raised.value.problems] == [path]


def test_a_key_of_an_endpoint_is_never_shown(tmp_path: Path) -> None:
    settings = read(tmp_path, "gates: {ask: {kind: http, url: 'https://x.example/', api_key: hidden-thing}}")
    assert "hidden-thing" not in repr(settings)
    assert settings.gates["ask"].api_key is not None


def test_bundled_rules_are_there_and_may_be_changed(tmp_path: Path) -> None:
    settings = read(tmp_path, "gates: {toxicity: {threshold: 0.5}}\ntenants: [{id: acme, gates: [age_21]}]")
    rules = rules_of(settings.gates)
    assert next(iter(rules)) == "toxicity"
    assert (rules["toxicity"].kind, rules["toxicity"].threshold) == ("toxicity", 0.5)
    assert set(BUNDLED) <= set(rules)
    assert all(set(rule.at or KINDS[rule.kind or ""].default_at) for rule in rules.values())
