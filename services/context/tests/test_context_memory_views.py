"""Paths and what is seen from them."""

from __future__ import annotations

import pytest
from collegium_context.memory.indexing import marks_of, seen_marks
from collegium_context.memory.views import Grant, PathSetting, view_of
from collegium_contracts.memory_paths import DEPTH_MAX, PathError, parse_path, path_text
from hypothesis import given
from hypothesis import strategies as st

NAMES = st.sampled_from(["a", "b", "c"])
PATHS = st.lists(NAMES, max_size=4).map(tuple)
SETTINGS = st.lists(st.builds(PathSetting, PATHS, off=st.booleans(), inherits=st.booleans()), max_size=3)
GRANTS = st.lists(st.builds(Grant, st.just("grt"), PATHS, PATHS), max_size=3)


@pytest.mark.parametrize(
    ("text", "path"),
    [
        ("/", ()),
        ("web", ("web",)),
        ("/web/ada/", ("web", "ada")),
        ("web/-/helper/c.1:2@x", ("web", "-", "helper", "c.1:2@x")),
    ],
)
def test_a_path_has_one_spelling(text: str, path: tuple[str, ...]):
    assert parse_path(text) == path
    assert parse_path(path_text(path)) == path


@pytest.mark.parametrize(
    "text", ["", "a//b", "a/../b", "a/./b", "a b", "off", "é", "a/" * DEPTH_MAX + "a", "a" * 65, "a\x00", "%", "a\n"]
)
def test_what_is_no_path_is_refused(text: str):
    with pytest.raises(PathError):
        parse_path(text)


def test_a_path_sees_itself_and_what_is_above_it():
    view = view_of(("web", "ada", "helper"), [], [])
    assert [view.distance(path) for path in (("web", "ada", "helper"), ("web", "ada"), ("web",), ())] == [0, 1, 2, 3]
    for unseen in (("web", "bob"), ("web", "ada", "helper", "c1"), ("web", "ada", "other"), ("webs",)):
        assert view.distance(unseen) is None


def test_a_path_that_does_not_inherit_sees_nothing_above_it():
    settings = [PathSetting(("web", "ada"), inherits=False)]
    below = view_of(("web", "ada", "helper"), settings, [])
    assert below.exact == (("web", "ada", "helper"), ("web", "ada"))
    assert view_of(("web", "bob"), settings, []).exact == (("web", "bob"), ("web",), ())


def test_a_grant_shows_the_source_and_what_is_below_it_and_only_one_way():
    grants = [Grant("grt", ("web", "ada"), ("shop", "stock"))]
    view = view_of(("web", "ada", "helper"), [], grants)
    assert view.distance(("shop", "stock")) == view.distance(("shop", "stock", "today")) == 1
    assert view.distance(("shop",)) is None
    assert view_of(("shop", "stock"), [], grants).distance(("web", "ada")) is None
    assert view_of(("web", "bob"), [], grants).distance(("shop", "stock")) is None


def test_what_is_off_is_seen_from_nowhere():
    settings = [PathSetting(("web", "ada"), off=True)]
    grants = [Grant("grt", ("shop",), ("web",))]
    assert view_of(("web", "ada", "helper"), settings, []).is_off
    view = view_of(("shop",), settings, grants)
    assert view.distance(("web", "bob")) == 1
    assert view.distance(("web", "ada", "helper")) is None


@given(PATHS, SETTINGS, GRANTS, PATHS)
def test_marks_find_what_a_view_shows_and_nothing_else(path, settings, grants, memory):
    view = view_of(path, settings, grants)
    found = bool(set(marks_of("acme", memory)) & set(seen_marks("acme", view)))
    # What is switched off is left out by the view, not by its marks.
    dark = view.is_off or any(memory[: len(one)] == one for one in view.dark)
    assert (view.distance(memory) is not None) == (found and not dark)


@given(PATHS, SETTINGS, GRANTS)
def test_a_view_without_inheritance_shows_no_more(path, settings, grants):
    alone, whole = view_of(path, settings, grants, inherits=False), view_of(path, settings, grants)
    assert set(alone.exact) <= set(whole.exact)
    assert set(alone.below) <= set(whole.below)


def test_marks_of_two_tenants_have_nothing_in_common():
    assert not set(marks_of("acme", ("a", "b"))) & set(marks_of("globex", ("a", "b")))
