"""Places: ids of different projects never meet, and a page of one project holds its own alone."""

from __future__ import annotations

import string

import pytest
from collegium_bus.errors import RequestRefusedError
from collegium_context.memory.places import own_id, place, span
from hypothesis import given
from hypothesis import strategies as st

PROJECTS = st.one_of(st.just("default"), st.text(string.ascii_lowercase + string.digits + "-", min_size=1, max_size=40))
IDS = st.text(string.ascii_letters + string.digits + "._:-", min_size=1, max_size=128)


@given(PROJECTS, IDS, PROJECTS, IDS)
def test_no_two_places_are_written_alike(project: str, name: str, other: str, other_name: str) -> None:
    assert (place(project, name) == place(other, other_name)) == ((project, name) == (other, other_name))
    assert own_id(place(project, name)) == name


@given(PROJECTS, IDS, PROJECTS, IDS, IDS)
def test_a_page_holds_what_is_of_its_project_and_comes_after(
    project: str, name: str, other: str, other_name: str, after: str
) -> None:
    page = span(project, after)
    for where, what, is_own in ((project, name, True), (other, other_name, project == other)):
        found = place(where, what)
        # As the statements of the stores have it.
        is_in = found.startswith(page.prefix) and found < page.before if page.prefix else "/" not in found
        assert (is_in and found > page.after) == (is_own and what > after)


@pytest.mark.parametrize(("project", "name"), [("red/x", "a"), ("", "a"), ("RED", "a"), ("red", "a/b"), ("red", "")])
def test_what_is_no_id_is_refused(project: str, name: str) -> None:
    with pytest.raises(RequestRefusedError):
        place(project, name)
