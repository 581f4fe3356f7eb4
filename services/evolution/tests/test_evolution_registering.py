"""A fine-tuned model is said as any model, but for what its export says."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from collegium_bus.errors import RequestRefusedError
from collegium_evolution.students.registering import spec_of

MANIFEST = {"domain": "desk", "rows": 3}


def said(**fields: Any) -> bytes:
    return msgspec.json.encode({"name": "tuned", "base_url": "https://x.example/v1"} | fields)


def test_its_domain_is_its_exports_and_it_begins_as_a_student():
    fields = msgspec.json.decode(spec_of(said(), MANIFEST))
    assert (fields["rank"], fields["domains"], fields["name"]) == ("student", ["desk"], "tuned")
    assert msgspec.json.decode(spec_of(said(), MANIFEST | {"domain": ""}))["domains"] == []


@pytest.mark.parametrize(
    ("spec", "param"),
    [(said(rank="teacher"), "rank"), (said(domains=["law"]), "domains"), (b"[1]", None), (b"{", None)],
)
def test_what_says_otherwise_is_refused(spec: bytes, param: str | None):
    with pytest.raises(RequestRefusedError) as refused:
        spec_of(spec, MANIFEST)
    assert (refused.value.code, refused.value.param) == ("invalid_value", param)
