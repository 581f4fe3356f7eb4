"""Queues of people and the rules that ask them."""

import pytest
from collegium_settings import SettingsError, load
from collegium_settings.people import price_picos

FILE = """
people:
  expires: 2h
  queues:
    experts: {labels: [law], claim: 5m, usd: "0.50", tenants: [acme]}
    own-staff: {staff: tenant}
  rules:
    - {when: unsure, ask: experts, tenants: [acme], below: 0.7}
    - {when: before, ask: client}
gates:
  code-names: {kind: topics, deny: ["operation nightfall"], action: ask, ask: experts}
"""


def read(tmp_path, text):
    path = tmp_path / "collegium.yaml"
    path.write_text(text)
    return load(path, {})


def test_queues_and_rules_are_read(tmp_path):
    people = read(tmp_path, FILE).people
    assert people.expires_seconds == 7200
    assert people.on_expiry is None
    assert people.queues["experts"].claim_seconds == 300
    assert people.queues["own-staff"].staff == "tenant"
    assert price_picos(people.queues["experts"]) == 500_000_000_000
    assert price_picos(people.queues["own-staff"]) == 0
    assert people.rules[0].below == 0.7
    assert people.rules[1].ask == "client"


@pytest.mark.parametrize(
    ("text", "path"),
    [
        ("people: {expires: 3d}", "people.expires"),
        ("people: {queues: {client: {}}}", "people.queues.client"),
        ("people: {queues: {Experts: {}}}", "people.queues.Experts"),
        ("people: {queues: {experts: {claim: 2d}}}", "people.queues.experts.claim"),
        ("people: {rules: [{when: after, ask: nobody}]}", "people.rules[0].ask"),
        ("people: {rules: [{when: after, ask: client, below: 0.5}]}", "people.rules[0].below"),
        ("gates: {a: {kind: regex, patterns: [x], action: ask, ask: nobody}}", "gates.a.ask"),
        ("gates: {a: {kind: regex, patterns: [x], ask: client}}", "gates.a.ask"),
        ("gates: {a: {kind: age, action: ask}}", "gates.a.action"),
    ],
)
def test_what_could_never_be_answered_stops_the_start(tmp_path, text, path):
    with pytest.raises(SettingsError) as caught:
        read(tmp_path, text)
    assert path in str(caught.value)
