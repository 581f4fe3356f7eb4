"""What is kept and given again, within which limits, and when old answers may be shown."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec
import pytest
from collegium_contracts import codec
from collegium_contracts.content import Answer, Choice, encode_content
from collegium_contracts.envelope import Envelope, IdentityKeyring
from collegium_contracts.messages import AnswersReused
from collegium_contracts.state import Breaker, CachedAnswer
from collegium_gateway.chat.flights import Flights
from collegium_gateway.readmodel.rows import TaskRow, fold
from collegium_gateway.reuse.answermemory import ENTRY_BYTES, AnswerMemory
from collegium_gateway.reuse.reusing import (
    MAX_ANSWER_BYTES,
    MAX_PIECES,
    NO_OUTPUT,
    answer_of,
    given_again,
    is_whole,
    nobody_can_answer,
    original_of,
    pieces,
    with_output,
)
from collegium_gateway.tasks.views import collegium_of, result_headers, settled_view
from hypothesis import given
from hypothesis import strategies as st

KEYRING = IdentityKeyring()
KEY = b"k" * 32
NOW_MS = 1_767_225_700_000


@pytest.fixture(scope="session")
def kept(settled: Any) -> Any:
    def kept(digest: bytes = KEY, **fields: Any) -> CachedAnswer:
        found = answer_of(digest, settled(**fields), NOW_MS)
        assert found is not None
        return found

    return kept


@pytest.mark.parametrize(
    ("fields", "whole"),
    [
        ({}, True),
        ({"stop_reason": "tool_calls"}, True),
        ({"stop_reason": "length"}, False),
        ({"stop_reason": "content_filter"}, False),
        ({"output": Envelope("identity", b"", encode_content(Answer([Choice("a"), Choice("b", "length")])))}, False),
        ({"output": Envelope("identity", b"", encode_content(Answer([Choice("x" * MAX_ANSWER_BYTES)])))}, False),
    ],
)
def test_only_what_is_whole_and_small_is_kept(kept, fields, whole):
    assert is_whole(kept(**fields), KEYRING) is whole


@pytest.mark.parametrize("kind", ["failed", "canceled"])
def test_what_did_not_complete_has_no_answer(settled, kind):
    assert answer_of(KEY, settled(kind), NOW_MS) is None


def test_given_again_it_costs_nothing_and_says_whose_it_was(kept, task, settled):
    original, asked = kept(), task(id="tsk_" + "7" * 26, tags={"team": "x"})
    given_back = given_again(asked, original, NOW_MS + 90_500)
    assert (given_back.task.id, given_back.task.tags, given_back.attempts) == (asked.id, {"team": "x"}, [])
    assert (given_back.usage.input_tokens, given_back.usage.output_tokens) == (10, 4)
    assert (given_back.usage.cost_usd_picos, given_back.usage.charge_usd_picos) == (0, 0)
    assert given_back.task.reused is not None
    assert given_back.task.reused.saved_usd_picos == settled().usage.charge_usd_picos
    assert (given_back.task.reused.original, given_back.task.reused.age_seconds) == (original.task_id, 90)
    assert "stale" not in collegium_of(given_back, "")
    assert dict(result_headers(given_back))[b"x-collegium-cache"] == b"hit_exact"


def test_a_stale_answer_says_how_old_it_is(kept, task):
    given_back = given_again(task(), kept(), NOW_MS + 7_200_999, is_stale=True)
    about = collegium_of(given_back, "t")
    assert (about["cache"], about["stale"], about["age_seconds"]) == ("hit_exact", True, 7_200)
    assert dict(result_headers(given_back))[b"x-collegium-cache-stale"] == b"7200"


@given(st.text(max_size=20_000))
def test_a_stream_of_it_is_the_same_text_in_several_pieces(kept, task, sealed, text):
    *texts, last = pieces(given_again(task(), kept(output=sealed(text)), NOW_MS), KEYRING)
    assert "".join(piece.text for piece in texts) == text
    assert last.settled is not None
    assert len(texts) <= MAX_PIECES + 1
    assert len(texts) >= min(2, len(text))


def test_a_row_without_an_output_is_shown_with_its_originals(kept, task, settled):
    told = msgspec.structs.replace(given_again(task(id="tsk_" + "7" * 26), kept(), NOW_MS), output=NO_OUTPUT)
    assert original_of(told) == settled().task.id
    assert settled_view(told, KEYRING, "").output is None
    filled = with_output(told, settled().output)
    assert (settled_view(filled, KEYRING, "").output, original_of(filled)) == ("the answer", "")
    assert with_output(told, None) == told
    assert original_of(settled()) == original_of(settled("failed")) == ""


def test_every_reused_answer_has_a_row_of_its_own(kept, task):
    answers = [given_again(task(id=f"tsk_{number:026d}"), kept(), NOW_MS) for number in range(3)]
    message = AnswersReused(answers=answers)
    folded: dict[str, TaskRow] = {}
    fold(folded, [(message, codec.encode(message), "")] * 2)
    rows = list(folded.values())
    assert [(row.task_id, row.state) for row in rows] == [(answer.task.id, "completed") for answer in answers]
    assert [codec.settled.decode(row.settled or b"") for row in rows] == answers


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 3_000), st.booleans()), max_size=60))
def test_memory_keeps_its_limits_and_the_last_used(kept, sealed, steps):
    memory, used = AnswerMemory(), []
    for number, size, reads in steps:
        digest = bytes([number]) * 32
        if reads:
            if memory.get(digest) is not None:
                used = [one for one in used if one != digest] + [digest]
            continue
        memory.put(kept(digest, output=sealed("x" * size)), max_bytes=12_000, max_entries=4)
        used = [one for one in used if one != digest] + [digest]
        used = used[len(used) - len(memory) :]
        assert all(memory.get(one) is not None for one in used), "in the order of use, so it stays"
        assert len(memory) <= 4
        assert len(memory) * ENTRY_BYTES <= memory.size_bytes <= 12_000
    for digest in list(used):
        memory.drop(digest)
    assert (len(memory), memory.size_bytes) == (0, 0)


def opened(*names: str) -> dict[str, Breaker]:
    return {name: Breaker(model=name, open_until_ms=NOW_MS + 1) for name in names}


@pytest.mark.parametrize(
    ("asked", "open_models", "nobody"),
    [
        ({"model": "first"}, ("first",), False),
        ({"model": "first"}, ("first", "second"), True),
        ({"model": "first"}, ("second",), False),
        ({"model": "second"}, ("second",), True),
        ({"model": "off"}, ("off",), False),
        ({"model": "auto"}, ("first", "second"), True),
        ({"model": "auto"}, ("first",), False),
        ({"model": "auto", "domain": "law"}, ("first", "second"), False),
        ({"model": "auto", "domain": "law"}, ("first", "second", "lawyer"), True),
    ],
)
def test_nobody_can_answer_where_every_breaker_concerned_is_open(model, task, asked, open_models, nobody):
    models = [
        model("first", fallbacks=["second", "off", "gone"]),
        model("second"),
        model("lawyer", domains=["law"]),
        model("off", enabled=False),
    ]
    assert nobody_can_answer(task(**asked), 10, models, opened(*open_models), NOW_MS) is nobody


def test_a_breaker_whose_time_is_over_lets_somebody_ask(model, task):
    half_open = {"first": Breaker(model="first", open_until_ms=NOW_MS)}
    assert not nobody_can_answer(task(model="first"), 10, [model("first")], half_open, NOW_MS)


def test_a_model_too_small_for_the_prompt_could_not_answer_anyway(model, task):
    models = [model("first", fallbacks=["small"]), model("small", context_tokens=10)]
    breakers = opened("first")
    assert nobody_can_answer(task(model="first"), 600, models, breakers, NOW_MS)
    assert not nobody_can_answer(task(model="first"), 50, models, breakers, NOW_MS)


async def test_followers_get_what_the_leader_brings_and_each_may_leave(kept):
    flights, answer = Flights(), kept()
    assert flights.lead(KEY)
    assert not flights.lead(KEY)
    followers = [asyncio.create_task(flights.follow(KEY, 5)) for _ in range(3)]
    await asyncio.sleep(0)
    assert flights.followers == 3
    followers[0].cancel()
    with pytest.raises(asyncio.CancelledError):
        await followers[0]
    with pytest.raises(TimeoutError):
        await flights.follow(KEY, 0.001)
    flights.land(KEY, answer)
    assert await asyncio.gather(*followers[1:]) == [answer, answer]
    assert flights.followers == 0
    assert flights.lead(KEY)


async def test_beyond_the_limit_nobody_follows(monkeypatch):
    monkeypatch.setattr("collegium_gateway.chat.flights.MAX_FOLLOWERS", 0)
    flights = Flights()
    flights.lead(KEY)
    assert await flights.follow(KEY, 5) is None
    assert await flights.follow(b"another", 5) is None
