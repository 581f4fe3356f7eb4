"""Models that were added leave the roster: a tenant's own at its word, and nobody else's."""

from __future__ import annotations

from typing import Any

import pytest
from collegium_bus.errors import RequestRefusedError
from collegium_bus.kv import Entry
from collegium_contracts import codec
from collegium_contracts.roster_requests import ModelRemove
from collegium_contracts.state import Roster
from collegium_contracts.students import StudentOf
from collegium_router.roster.registering import RegistrationAnswers


class Shelf:
    """A bucket of one value."""

    def __init__(self, value: bytes) -> None:
        self.value = value

    async def get(self, key: str) -> Entry | None:
        return Entry(key, self.value, 1)

    async def put(self, _key: str, value: bytes, **_fields: Any) -> int:
        self.value = value
        return 2


class Removing(RegistrationAnswers):
    """Registrations over a shelf, with no place kept of any model."""

    async def _newest(self, key: str) -> Entry | None:
        return None


def students(*tenants: str) -> StudentOf:
    return StudentOf(kind="endpoint", tenants=list(tenants))


@pytest.mark.parametrize(
    "about",
    [
        {"registered": True},
        {"registered": True, "student": students("globex", "acme")},
        {"registered": False, "student": students("acme")},
    ],
    ids=["the platform's", "another tenant's", "the configuration's"],
)
async def test_what_is_no_student_of_a_tenant_is_gone_to_it(model: Any, about: dict[str, Any]):
    standing = Roster(version=3, models=[model("ft", **about)])
    shelf: Any = Shelf(codec.encode(standing))
    unused: Any = None
    answers = Removing(unused, shelf, lambda: 1, unused)
    with pytest.raises(RequestRefusedError) as refused:
        await answers._set(ModelRemove(model="ft", owner="acme"))
    assert refused.value.code == "not_found"
    assert codec.state.decode(shelf.value) == standing


@pytest.mark.parametrize("owner", ["acme", ""])
async def test_a_tenants_student_leaves_at_its_word_and_at_an_operators(model: Any, owner: str):
    standing = Roster(version=3, models=[model("ft", registered=True, student=students("acme", "globex")), model("x")])
    shelf: Any = Shelf(codec.encode(standing))
    unused: Any = None
    await Removing(unused, shelf, lambda: 1, unused)._set(ModelRemove(model="ft", owner=owner))
    left = codec.state.decode(shelf.value)
    assert isinstance(left, Roster)
    assert [one.name for one in left.models] == ["x"]
