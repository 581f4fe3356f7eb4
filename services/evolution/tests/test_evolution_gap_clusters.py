"""Gaps within discovered domains: counted by what was asked, ranked with the others, and one tenant's alone."""

from __future__ import annotations

from collegium_evolution.gaps.clusters import Question, by_windows, known_of
from collegium_evolution.gaps.finding import Known, gap_of, over_all, ranked

CARDS, LOANS = "topic-0a0a0a0a", "topic-0b0b0b0b"


def asked(domain: str, rows: int, score: float | None, cost: int = 10) -> list[Question]:
    return [Question(domain, cost, score)] * rows


def test_what_named_no_domain_is_counted_by_what_it_is_and_parts_of_named_ones_beside():
    questions = [*asked("", 30, 0.2), *asked(CARDS, 10, None), *asked("law", 5, 1.0), *asked("law", 4, 1.0)]
    topics = [CARDS] * 40 + [LOANS] * 5 + [""] * 4
    known = known_of("acme", questions, topics)
    assert [(one.domain, one.cluster, one.settled) for one in known] == [("law", LOANS, 5), (CARDS, "", 40)]
    _, judged, total = known[1].signals[0]
    assert (judged, round(total, 6), known[1].cost_picos) == (30, 6.0, 400)


def test_a_question_keeps_the_discovered_domain_that_it_was_given_where_it_is_of_none_now():
    (known,) = known_of("acme", asked(CARDS, 3, None), [""] * 3)
    assert known.domain == CARDS
    assert known_of("acme", asked("", 3, None), [""] * 3) == []


def test_windows_do_not_count_again_what_was_counted_by_questions():
    told = (("feedback", 30, 3.0),)
    windows = [Known("acme", CARDS, 9, 9, told), Known("acme", "law", 9, 9, told), Known("other", LOANS, 9, 9, told)]
    assert by_windows(windows, ["acme"]) == windows[1:]


def test_a_part_is_a_gap_where_its_whole_is_none_and_has_an_id_of_its_own():
    good, bad = asked("law", 900, 1.0), asked("law", 60, 0.1)
    (part,) = known_of("acme", bad, [CARDS] * 60)
    whole = Known("acme", "law", 960, 9_600, (("feedback", 960, 900 + 6.0),))
    assert len(good) + len(bad) == whole.settled
    found = ranked(gap_of(one, 0.8, 14) for one in (whole, part))
    assert [(one.id, one.domain, one.cluster) for one in found] == [(f"acme/law/{CARDS}", "law", CARDS)]


def test_the_worst_is_first_by_size_shortfall_and_value():
    small, dear = asked("", 40, 0.1), asked("", 40, 0.1, cost=10**9)
    large = asked("", 400, 0.1)
    questions = [*small, *dear, *large]
    topics = ["topic-1"] * 40 + ["topic-2"] * 40 + ["topic-3"] * 400
    found = ranked(gap_of(one, 0.8, 14) for one in known_of("acme", questions, topics))
    assert [one.domain for one in found] == ["topic-3", "topic-2", "topic-1"]


def test_no_tenants_discovered_domain_is_one_of_all():
    told = (("feedback", 30, 3.0),)
    known = [
        Known("acme", CARDS, 9, 9, told),
        Known("acme", "law", 9, 9, told, CARDS),
        Known("acme", "law", 9, 9, told),
    ]
    assert [(one.domain, one.settled) for one in over_all(known)] == [("law", 9)]


def sure(rows: int, confidence: float | None, score: float | None = None) -> list[Question]:
    return [Question("", 10, score, confidence)] * rows


def test_where_too_few_were_judged_verdicts_that_were_not_sure_make_a_gap():
    topics = [CARDS] * 110
    (unsure,) = known_of("acme", [*sure(100, 0.3), *sure(10, 0.3, 0.5)], topics)
    found = gap_of(unsure, 0.8, 14)
    assert found is not None
    assert (found.signal, found.judged, found.accuracy) == ("confidence", 110, round((100 * 0.3 + 10 * 0.5) / 110, 4))
    (confident,) = known_of("acme", [*sure(100, 0.95), *sure(10, 0.95, 0.5)], topics)
    assert gap_of(confident, 0.8, 14) is None
    (untold,) = known_of("acme", [*sure(100, None), *sure(10, None, 0.1)], topics)
    assert gap_of(untold, 0.8, 14) is None, "ten words say nothing"


def test_what_became_of_answers_goes_before_how_sure_their_verdicts_were():
    (right,) = known_of("acme", [*sure(100, 0.1), *sure(60, 0.1, 1.0)], [CARDS] * 160)
    assert gap_of(right, 0.8, 14) is None
    (wrong,) = known_of("acme", [*sure(100, 0.99), *sure(60, 0.99, 0.1)], [CARDS] * 160)
    found = gap_of(wrong, 0.8, 14)
    assert found is not None
    assert (found.signal, found.judged) == ("feedback", 60)


def test_gaps_by_confidence_are_ranked_with_the_others():
    questions = [*sure(40, 0.1), *sure(400, 0.1), *sure(60, None, 0.1)]
    topics = ["topic-1"] * 40 + ["topic-2"] * 400 + ["topic-3"] * 60
    found = ranked(gap_of(one, 0.8, 14) for one in known_of("acme", questions, topics))
    assert [one.domain for one in found] == ["topic-2", "topic-3", "topic-1"]
