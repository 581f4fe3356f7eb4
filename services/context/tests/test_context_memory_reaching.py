"""What a key of a project reaches, in all combinations. Pure."""

from __future__ import annotations

import pytest
from collegium_bus.errors import RequestRefusedError
from collegium_context.memory import reaching
from collegium_context.memory.views import Grant
from collegium_contracts.memory_paths import EVERYWHERE, PathReach, parse_path, reach_of

RED = reach_of("red", ("blue", "red"), is_admin=False)
FREE = reach_of("default", ("blue", "default", "red"), is_admin=False)
ALONE = reach_of("default", (), is_admin=False)
ALL = reach_of("red", ("blue", "red"), is_admin=True)


@pytest.mark.parametrize(
    ("path", "writers", "readers"),
    [
        ("/", {"free", "alone", "all"}, {"red", "free", "alone", "all"}),
        ("red", {"red", "alone", "all"}, {"red", "alone", "all"}),
        ("red/ada/helper", {"red", "alone", "all"}, {"red", "alone", "all"}),
        ("redder/ada", {"free", "alone", "all"}, {"free", "alone", "all"}),
        ("blue/red", {"alone", "all"}, {"alone", "all"}),
        ("web/red", {"free", "alone", "all"}, {"free", "alone", "all"}),
        ("default", {"free", "alone", "all"}, {"free", "alone", "all"}),
        ("-/ada", {"free", "alone", "all"}, {"free", "alone", "all"}),
    ],
)
def test_who_reaches_a_path(path: str, writers: set[str], readers: set[str]):
    reaches = {"red": RED, "free": FREE, "alone": ALONE, "all": ALL}
    assert {name for name, one in reaches.items() if one.holds(parse_path(path))} == writers
    assert {name for name, one in reaches.items() if one.reads(parse_path(path))} == readers


def test_who_reaches_all_reaches_what_a_message_without_a_reach_does():
    assert ALL == EVERYWHERE == PathReach()


def test_all_below_the_root_is_whole_only_where_no_project_stands():
    assert [one.holds_all_below(()) for one in (RED, FREE, ALONE, ALL)] == [False, False, True, True]
    assert RED.holds_all_below(("red",))
    assert not FREE.holds_all_below(("red",))


def test_a_memory_of_another_project_is_seen_by_a_grant_to_a_path_within_reach_alone():
    secret = parse_path("blue/stock/boilers")
    assert not reaching.sees(RED, secret, [])
    for reader, source, seen in (
        ("red", "blue/stock", True),
        ("red/ada", "blue", True),
        ("red", "blue/stock/boilers", True),
        ("red", "blue/other", False),
        ("blue/red", "blue/stock", False),
        ("web", "blue/stock", False),
    ):
        grant = Grant("g", parse_path(reader), parse_path(source))
        assert reaching.sees(RED, secret, [grant]) is seen, (reader, source)
        assert reaching.sees(FREE, secret, [grant]) is (reader == "web"), (reader, source)


@pytest.mark.parametrize("refuse", [reaching.refuse_writing, reaching.refuse_reading, reaching.refuse_all_below])
def test_a_refusal_names_what_is_wrong_and_what_helps(refuse):
    with pytest.raises(RequestRefusedError, match=r"project red.*'admin'") as error:
        refuse(RED, ("blue",), "source")
    assert (error.value.code, error.value.param) == ("insufficient_scope", "source")
    refuse(RED, ("red", "ada"))
