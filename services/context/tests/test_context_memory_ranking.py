"""What is recalled first, what is said in how many bytes, and what is kept in mind of old turns."""

from __future__ import annotations

import msgspec
from collegium_context.memory.gist import Sentence, decode_gist, encode_gist, gist_of, summary_of
from collegium_context.memory.ranking import join, signals_of, tokens_of, within_budget
from collegium_context.memory.words import rank_by_words, words_of
from collegium_contracts.content import ChatMessage
from hypothesis import given
from hypothesis import strategies as st

DAY_MS = 86_400_000


def score(meaning: int | None, words: int | None, *, age_days: float = 0, distance: int = 0) -> float:
    found = join(
        [(f"m{n}", 0.9 - n / 1000) for n in range(1, meaning)] + [("x", 0.5)] if meaning else [],
        [(f"w{n}", 9.0 - n / 1000) for n in range(1, words)] + [("x", 1.0)] if words else [],
    )
    (one,) = (found_one for found_one in found if found_one.id == "x")
    return signals_of(one, age_ms=int(age_days * DAY_MS), distance=distance).score


def test_what_both_signals_find_is_before_what_one_finds():
    assert score(1, 1) > score(1, None) == score(None, 1)
    assert score(3, 3) > score(1, None)
    assert score(1, 1) == 1.0


def test_the_newer_and_the_nearer_are_first():
    assert score(1, 1) > score(1, 1, age_days=10) > score(1, 1, age_days=300) > 0.74
    assert score(1, 1) > score(1, 1, distance=1) > score(1, 1, distance=3)


def test_meaning_too_weak_to_count_is_not_found():
    assert join([("x", 0.2)], []) == []
    assert join([], [("x", 0.0)]) == []


@given(st.lists(st.integers(0, 50), max_size=20), st.integers(1, 10), st.integers(0, 200))
def test_a_budget_is_never_passed(sizes: list[int], limit: int, budget: int):
    places = within_budget(sizes, limit=limit, budget=budget)
    assert len(places) <= limit
    assert sum(sizes[place] for place in places) <= budget
    assert places == sorted(set(places))


@given(st.text(max_size=200))
def test_tokens_are_counted_rather_too_high(text: str):
    assert 3 * tokens_of(text) >= len(text.encode())


def test_words_find_what_shares_a_word_that_counts():
    texts = ["Ada lives in Paris.", "Bob lives in Rome.", "the a an of in"]
    assert [place for place, _ in rank_by_words("Where does Ada live, and in what?", texts)] == [0]
    assert rank_by_words("the of an", texts) == []
    assert rank_by_words("", texts) == rank_by_words("x", []) == []


@given(st.text(max_size=100), st.lists(st.text(max_size=60), max_size=8))
def test_words_rank_without_failing_and_best_first(question: str, texts: list[str]):
    ranked = rank_by_words(question, texts)
    assert [one for _, one in ranked] == sorted((one for _, one in ranked), reverse=True)
    for place, _ in ranked:
        assert set(words_of(question)) & set(words_of(texts[place]))


def test_a_gist_keeps_facts_before_phrases():
    said = ChatMessage(
        role="user",
        content="Hello there. My name is Ada. Thanks! I was born in 1815 in London. So. Well. Hm. Fine. Yes. Ok. Sure.",
    )
    texts = [one.text for one in gist_of([said])]
    assert "My name is Ada." in texts
    assert "I was born in 1815 in London." in texts
    assert len(texts) <= 6


def test_a_gist_reads_the_text_of_parts_and_leaves_tools_out():
    parts = [msgspec.Raw(b'{"type":"text","text":"Look at Berlin."}'), msgspec.Raw(b'{"type":"image_url"}')]
    tool = ChatMessage(role="tool", content="secret internals of 42 tools")
    assert [one.text for one in gist_of([ChatMessage(role="user", content=parts), tool])] == ["Look at Berlin."]


@given(st.lists(st.lists(st.text(max_size=80), max_size=4), max_size=6), st.integers(0, 600))
def test_a_summary_fits_and_holds_only_what_was_said(turns: list[list[str]], max_bytes: int):
    gists = [gist_of([ChatMessage(role="user", content=text) for text in texts]) for texts in turns]
    summary = summary_of(gists, max_bytes=max_bytes)
    assert len(summary.encode()) <= max_bytes or summary == ""
    said = {f"- user: {sentence.text}" for gist in gists for sentence in gist}
    assert {line for line in summary.split("\n")[1:] if line} <= said


def test_a_summary_says_nothing_twice_and_keeps_the_order():
    gists = [
        [Sentence("user", "My cat is called Tom.", 2.0)],
        [Sentence("user", "My cat is called Tom.", 2.0), Sentence("assistant", "Tom is a fine name.", 0.5)],
    ]
    lines = summary_of(gists, max_bytes=1_000).split("\n")
    assert lines[1:] == ["- user: My cat is called Tom.", "- assistant: Tom is a fine name."]
    assert "incomplete" in lines[0]


def test_a_gist_is_read_as_it_was_written():
    gist = gist_of([ChatMessage(role="user", content="My name is Ada.")])
    assert decode_gist(encode_gist(gist)) == gist
