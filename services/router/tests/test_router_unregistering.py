"""Removing an added model: what is kept of it goes, and what was kept anew meanwhile stays."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest
from collegium_bus.errors import AlreadyStandsError
from collegium_bus.kv import Entry
from collegium_contracts import codec
from collegium_contracts import subjects as s
from collegium_contracts.modelstate import RegisteredModel
from collegium_contracts.roster_requests import ModelRemove
from collegium_contracts.state import Roster
from collegium_router.roster.registering import LEFT_MS, RegistrationAnswers


class Shelf:
    """A bucket of one value, changed by compare-and-set; ``before_put`` runs before a value is stored."""

    def __init__(self, value: bytes) -> None:
        self.value, self.revision = value, 1
        self.before_put = lambda: None

    async def get(self, key: str) -> Entry:
        return Entry(key, self.value, self.revision)

    async def entries(self, key: str) -> AsyncIterator[Entry]:
        yield Entry(key, self.value, self.revision)

    async def put(self, _key: str, value: bytes, *, expected_revision: int) -> int:
        self.before_put()
        return self._change(value, expected_revision)

    async def delete(self, _key: str, *, expected_revision: int) -> None:
        self._change(b"", expected_revision)

    def _change(self, value: bytes, expected_revision: int) -> int:
        if expected_revision != self.revision:
            raise AlreadyStandsError("another revision stands")
        self.value, self.revision = value, self.revision + 1
        return self.revision


@pytest.mark.parametrize("is_added_again", [False, True])
async def test_removing_a_model_leaves_alone_what_was_added_meanwhile(model: Any, is_added_again: bool):
    roster, kept = Shelf(codec.encode(Roster(version=1, models=[model("a", registered=True)]))), Shelf(b"the old")

    def added_again() -> None:
        kept.value, kept.revision = b"the new", kept.revision + 1

    if is_added_again:
        roster.before_put = added_again
    models, connection = roster, object()
    answers = RegistrationAnswers(connection, models, lambda: 1, lambda: None)  # pyright: ignore[reportArgumentType]
    answers._endpoints = kept  # pyright: ignore[reportAttributeAccessIssue]
    reply: Any = await answers._set(ModelRemove(model="a", by="op"))
    assert (reply.model, reply.is_new) == ("a", True)
    assert kept.value == (b"the new" if is_added_again else b"")


class Places:
    """A bucket of places."""

    def __init__(self, *entries: Entry) -> None:
        self.standing = list(entries)
        self.deleted: list[str] = []

    async def entries(self) -> AsyncIterator[Entry]:
        for entry in self.standing:
            yield entry

    async def delete(self, key: str, *, expected_revision: int) -> None:
        assert expected_revision == 3
        self.deleted.append(key)


async def test_places_that_were_left_when_a_router_died_are_removed_and_those_being_added_are_not(model: Any):
    def place(name: str, at_ms: int) -> Entry:
        kept = RegisteredModel(model=name, spec=b"{}", at_ms=at_ms, by="op")
        return Entry(s.state_key(name), codec.encode(kept), 3)

    models = [model("stands", registered=True), model("file")]
    roster = Shelf(codec.encode(Roster(version=1, models=models)))
    now_ms = 10 * LEFT_MS
    answers = RegistrationAnswers(object(), roster, lambda: now_ms, lambda: None)  # pyright: ignore[reportArgumentType]
    places = Places(
        place("stands", 1), place("left", 1), place("file", 1), place("comes", now_ms - 1),
        Entry(s.state_key("torn"), b"\xc1", 3),
    )  # fmt: skip
    answers._endpoints = places  # pyright: ignore[reportAttributeAccessIssue]
    assert await answers.sweep() == 2
    assert places.deleted == [s.state_key("left"), s.state_key("file")]
