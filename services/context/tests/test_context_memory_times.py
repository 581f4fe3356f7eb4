"""Both times of a memory, against a model that keeps every moment by itself."""

from __future__ import annotations

from typing import NamedTuple

from collegium_context.memory.times import FOREVER, Span, end_of_correction, supersede
from hypothesis import given
from hypothesis import strategies as st

MOMENTS = 12
END = MOMENTS


class Version(NamedTuple):
    text: int
    valid: Span
    recorded: Span


class Correction(NamedTuple):
    start: int
    end: int | None
    text: int


CORRECTIONS = st.lists(
    st.builds(
        Correction,
        st.integers(0, MOMENTS - 1),
        st.one_of(st.none(), st.integers(1, MOMENTS)),
        st.integers(1, 99),
    ).filter(lambda one: one.end is None or one.end > one.start),
    max_size=6,
)
FIRST = st.tuples(st.integers(0, MOMENTS - 1), st.integers(1, MOMENTS)).filter(lambda pair: pair[0] < pair[1])


def line_of(first: Span, corrections: list[Correction]) -> list[Version]:
    """What a table holds: each step is recorded at its number."""
    line = [Version(0, first, Span(0))]
    for at, one in enumerate(corrections, start=1):
        standing = [place for place, version in enumerate(line) if version.recorded.end == FOREVER]
        spans = [line[place].valid for place in standing]
        end = min(end_of_correction(spans, one.start), END) if one.end is None else one.end
        done = supersede(spans, Span(one.start, end))
        kept = [Version(line[standing[place]].text, part, Span(at)) for place, part in done.kept]
        for place in done.closed:
            old = line[standing[place]]
            line[standing[place]] = old._replace(recorded=Span(old.recorded.start, at))
        line += [*kept, Version(one.text, Span(one.start, end), Span(at))]
    return line


def days_of(first: Span, corrections: list[Correction]) -> list[dict[int, int]]:
    """The model: after each step, what is true at each moment."""
    days = [dict.fromkeys(range(first.start, first.end), 0)]
    for one in corrections:
        day = dict(days[-1])
        end = one.end
        if end is None:
            # As long as what is corrected holds: the run of moments that came from one version.
            held = runs(line_of(first, corrections[: len(days) - 1]))
            holding = [span for span in held if span.holds(one.start)]
            later = [span.start for span in held if span.start > one.start]
            end = holding[0].end if holding else min(later, default=END)
        for moment in range(one.start, end):
            day[moment] = one.text
        days.append(day)
    return days


def runs(line: list[Version]) -> list[Span]:
    return [version.valid for version in line if version.recorded.end == FOREVER]


@given(FIRST, CORRECTIONS)
def test_what_was_true_when_as_known_when(first: tuple[int, int], corrections: list[Correction]):
    span = Span(*first)
    line, days = line_of(span, corrections), days_of(span, corrections)
    for known, day in enumerate(days):
        for moment in range(MOMENTS):
            found = [one.text for one in line if one.valid.holds(moment) and one.recorded.holds(known)]
            assert len(found) <= 1, "no two versions hold at the same two times"
            assert found == ([day[moment]] if moment in day else [])


@given(FIRST, CORRECTIONS)
def test_nothing_that_was_known_is_ever_changed(first: tuple[int, int], corrections: list[Correction]):
    span = Span(*first)
    line = line_of(span, corrections)
    for steps in range(len(corrections)):
        before = line_of(span, corrections[:steps])
        for known in range(steps + 1):
            for moment in range(MOMENTS):
                then = [one.text for one in before if one.valid.holds(moment) and one.recorded.holds(known)]
                now = [one.text for one in line if one.valid.holds(moment) and one.recorded.holds(known)]
                assert then == now


@given(FIRST, FIRST)
def test_what_is_left_and_what_is_taken_make_the_whole(one: tuple[int, int], other: tuple[int, int]):
    left, taken = Span(*one), Span(*other)
    parts = left.without(taken)
    for moment in range(MOMENTS):
        assert sum(part.holds(moment) for part in parts) == (left.holds(moment) and not taken.holds(moment))
    assert left.meets(taken) == (parts != [left])
    assert left.covers(taken) == all(left.holds(moment) for moment in range(taken.start, taken.end))


def test_a_correction_from_now_keeps_what_was_true_before():
    done = supersede([Span(10)], Span(50))
    assert (done.closed, done.kept) == ([0], [(0, Span(10, 50))])


def test_a_correction_from_the_start_keeps_nothing():
    assert supersede([Span(10)], Span(10)).kept == []


def test_a_correction_of_a_time_between_keeps_both_ends():
    assert supersede([Span(10, 90)], Span(30, 40)).kept == [(0, Span(10, 30)), (0, Span(40, 90))]


def test_a_correction_holds_as_long_as_what_it_corrects():
    spans = [Span(0, 10), Span(20, 30)]
    assert end_of_correction(spans, 5) == 10
    assert end_of_correction(spans, 12) == 20
    assert end_of_correction(spans, 40) == FOREVER
