"""What a turn is, and what a model gets to see of earlier ones."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from collegium_context.turn import make_history, make_turn
from collegium_contracts.content import Answer, Choice, encode_content
from hypothesis import given
from hypothesis import strategies as st


def listed(*messages: dict[str, Any]) -> bytes:
    return msgspec.json.encode(list(messages))


def said(role: str, text: str = "x") -> dict[str, Any]:
    return {"role": role, "content": text}


def roles(body: bytes) -> list[str]:
    return [message["role"] for message in msgspec.json.decode(body)]


def test_a_turn_is_what_the_client_sent_and_the_first_choice() -> None:
    output = encode_content(Answer([Choice(text="Paris"), Choice(text="Rome")]))
    client = b'[{"role":"system","content":"s"},{"role":"user","content":[{"type":"text", "text":"which?"}]}]'
    turn = make_turn(client, output)
    assert turn.messages == 3
    # The client's messages are passed through byte for byte.
    assert turn.body == client[:-1] + b',{"role":"assistant","content":"Paris"}]'


def test_tool_calls_are_kept() -> None:
    call = msgspec.Raw(b'{"id":"c1","type":"function","function":{"name":"find","arguments":"{}"}}')
    output = encode_content(Answer([Choice(finish_reason="tool_calls", tool_calls=[call])]))
    turn = make_turn(listed(said("user")), output)
    assert msgspec.json.decode(turn.body)[1] == {"role": "assistant", "tool_calls": [msgspec.json.decode(call)]}


@pytest.mark.parametrize(("client", "output"), [(b"{}", b'{"choices":[]}'), (b"[", b'{"choices":[]}'), (b"[]", b"[]")])
def test_content_of_another_shape_is_refused(client: bytes, output: bytes) -> None:
    with pytest.raises(msgspec.DecodeError):
        make_turn(client, output)


def test_an_answer_without_a_choice_leaves_the_clients_messages() -> None:
    assert make_turn(listed(said("user")), b'{"choices":[]}').messages == 1


def test_a_new_conversation_has_no_history() -> None:
    assert make_history([], max_messages=5, is_cut=False) is None


def test_a_whole_history_stays_as_it_is_even_where_the_assistant_began() -> None:
    history = make_history([listed(said("assistant"), said("user"), said("assistant"))], max_messages=3, is_cut=False)
    assert history is not None
    assert (roles(history.body), history.messages) == (["assistant", "user", "assistant"], 3)


@pytest.mark.parametrize(
    ("turns", "limit", "expected"),
    [
        # The limit falls inside the first turn: what is left of it without its question goes too.
        ([["user", "assistant"], ["user", "assistant"]], 3, ["user", "assistant"]),
        ([["user", "assistant"], ["tool", "assistant"], ["user", "assistant"]], 4, ["user", "assistant"]),
        ([["system", "user", "assistant"], ["user", "assistant"]], 4, ["user", "assistant", "user", "assistant"]),
        # Nothing of the client's is left: not the answer to a call that was cut off.
        ([["user", "assistant"], ["tool", "tool", "assistant"]], 3, ["assistant"]),
        ([["user", "assistant"], ["tool", "tool"]], 1, None),
    ],
)
def test_a_cut_history_begins_with_an_opening(turns: list[list[str]], limit: int, expected: list[str] | None) -> None:
    history = make_history([listed(*map(said, turn)) for turn in turns], max_messages=limit, is_cut=False)
    assert (roles(history.body) if history is not None else None) == expected


def test_older_turns_that_were_left_out_count_as_a_cut() -> None:
    turns = [listed(said("tool"), said("assistant")), listed(said("user"), said("assistant"))]
    history = make_history(turns, max_messages=9, is_cut=True)
    assert history is not None
    assert roles(history.body) == ["user", "assistant"]


_TURNS = st.lists(
    st.lists(st.sampled_from(["user", "system", "assistant", "tool"]), min_size=1, max_size=4), max_size=6
)


@given(_TURNS, st.integers(1, 12), st.booleans())
def test_a_history_is_the_end_of_the_conversation(turns: list[list[str]], limit: int, is_cut: bool) -> None:
    numbered = [
        [(role, f"{turn}.{place}") for place, role in enumerate(turn_roles)] for turn, turn_roles in enumerate(turns)
    ]
    history = make_history(
        [listed(*(said(*message) for message in turn)) for turn in numbered], max_messages=limit, is_cut=is_cut
    )
    whole = [said(*message) for turn in numbered for message in turn]
    shown = msgspec.json.decode(history.body) if history is not None else []
    assert len(shown) <= limit
    assert shown == whole[len(whole) - len(shown) :]
    if len(whole) > limit or is_cut:
        assert not shown or shown[0]["role"] != "tool"
    else:
        assert shown == whole
