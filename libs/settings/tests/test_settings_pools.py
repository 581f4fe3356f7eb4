"""Worker pools: which there are, which are served, and what a configuration may not say of them."""

from __future__ import annotations

from pathlib import Path

import pytest
from collegium_settings import SettingsError, load
from collegium_settings.pools import all_pools, served_pools

MODEL = "models: [{name: m, base_url: https://models.test/v1, price: {}, pool: fast}]\n"


def settings(tmp_path: Path, text: str):
    path = tmp_path / "collegium.yaml"
    path.write_text(MODEL + text)
    return load(path, {})


def test_dedicated_pools_stand_beside_those_of_models_and_all_are_served_unless_it_is_said(tmp_path: Path):
    plain = settings(tmp_path, "")
    assert all_pools(plain) == served_pools(plain) == ["fast", "general"]
    both = settings(tmp_path, "workers: {dedicated_pools: [acme]}")
    assert all_pools(both) == served_pools(both) == ["acme", "fast", "general"]
    one = settings(tmp_path, "workers: {dedicated_pools: [acme], serve: [acme]}")
    assert (all_pools(one), served_pools(one)) == (["acme", "fast", "general"], ["acme"])
    own = settings(tmp_path, "workers: {dedicated_pools: [p]}\ntenants: [{id: a, tier: enterprise, pool: p}]")
    assert own.tenants[0].pool == "p"


@pytest.mark.parametrize(
    ("text", "path"),
    [
        ("workers: {dedicated_pools: [fast]}", "workers.dedicated_pools[0]"),
        ("workers: {dedicated_pools: [a, a]}", "workers.dedicated_pools[1]"),
        ("workers: {serve: [nobodys]}", "workers.serve[0]"),
        ("tenants: [{id: a, tier: enterprise, pool: p}]", "tenants[0].pool"),
        ("workers: {dedicated_pools: [p]}\ntenants: [{id: a, tier: pro, pool: p}]", "tenants[0].pool"),
    ],
)
def test_what_cannot_be_is_named(tmp_path: Path, text: str, path: str):
    with pytest.raises(SettingsError) as refused:
        settings(tmp_path, text)
    assert [problem.path for problem in refused.value.problems] == [path]
