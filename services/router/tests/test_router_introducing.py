"""A roster that is larger than one message: nobody is stopped by it, and the last good one stands."""

from collections.abc import AsyncIterator
from typing import Any

import msgspec
import pytest
from collegium_bus.kv import Entry
from collegium_contracts import codec
from collegium_contracts.state import Roster
from collegium_contracts.windows import QuotaWindows
from collegium_router.roster import introducing
from collegium_router.roster.introducing import Introduced, introduce
from collegium_router.roster.roster import fitting, merge


class Shelf:
    """A bucket of one value."""

    def __init__(self, value: bytes | None = None) -> None:
        self.value = value
        self.puts = 0

    async def entries(self, key: str) -> AsyncIterator[Entry]:
        if self.value is not None:
            yield Entry(key, self.value, 1, deleted=not self.value)

    async def put(self, _key: str, value: bytes, *, expected_revision: int) -> int:
        assert expected_revision == (1 if self.value is not None else 0)
        self.value, self.puts = value, self.puts + 1
        return 2


@pytest.fixture
def small_messages(monkeypatch: pytest.MonkeyPatch) -> int:
    monkeypatch.setattr(introducing, "VALUE_BYTES_MAX", 2_000)
    return 2_000


async def test_the_last_good_roster_stands_where_the_new_one_is_too_large(model: Any, small_messages: int):
    standing = Roster(version=3, models=[model("a")])
    shelf: Any = Shelf(codec.encode(standing))
    over = await introduce(shelf, [model(f"m{number}") for number in range(200)], lambda: 1)
    assert over.over_bytes > 0
    assert (shelf.puts, codec.state.decode(shelf.value)) == (0, standing)
    assert await introduce(shelf, [model("a")], lambda: 1) == Introduced(), "and the alarm ends with its cause"


async def test_the_first_start_takes_the_models_that_fit(model: Any, small_messages: int):
    shelf: Any = Shelf()
    assert await introduce(shelf, [model(f"m{number}") for number in range(200)], lambda: 1) != Introduced()
    roster = codec.state.decode(shelf.value)
    assert isinstance(roster, Roster)
    assert [one.name for one in roster.models] == [f"m{number}" for number in range(len(roster.models))]
    assert 0 < len(roster.models) < 200
    assert len(shelf.value) <= small_messages


NEWER = msgspec.msgpack.encode({"type": "Roster", "schema": 999, "models": "in another way"})


@pytest.mark.parametrize(
    "value", [b"\xc1 no roster", NEWER, codec.encode(QuotaWindows(at_ms=1, models=[], sequence=1))]
)
async def test_a_roster_that_cannot_be_read_is_kept_and_told(model: Any, value: bytes):
    shelf: Any = Shelf(value)
    assert await introduce(shelf, [model("a")], lambda: 1) == Introduced(unreadable=True)
    assert (shelf.value, shelf.puts) == (value, 0), "what was added and earned stands nowhere else"


async def test_a_roster_that_was_deleted_is_written_anew(model: Any):
    shelf: Any = Shelf(b"")
    assert await introduce(shelf, [model("a")], lambda: 1) == Introduced()
    assert codec.state.decode(shelf.value) == merge(None, [model("a")], 1)


def test_what_fits_fits_whole(model: Any):
    roster = Roster(version=1, models=[model("a"), model("b")])
    assert fitting(roster, 1_000_000) == roster


def test_an_added_model_outlives_restarts_that_do_not_name_it(model: Any):
    standing = Roster(version=1, models=[model("filed"), model("added", registered=True)])
    assert merge(standing, [model("filed")], 1) is standing
    taken = merge(standing, [model("filed"), model("added")], 1)
    assert not next(one for one in taken.models if one.name == "added").registered, "unless the file names it now"
