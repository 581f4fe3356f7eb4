"""Which endpoint a prompt goes to: by its beginning, evenly, within bounds, past those that are not well."""

import json
from collections import Counter

import pytest
from collegium_worker_pool.endpoints.affinity import LOAD_FACTOR, beginning_of, bound, order, preferred

LONG = "You are a careful clerk of a large library. " * 40
NAMES = ["a", "b", "c", "d"]


def prompt(*told: tuple[str, str]) -> bytes:
    return json.dumps([{"role": role, "content": text} for role, text in told]).encode()


def test_tasks_with_the_same_long_instructions_begin_alike():
    one = beginning_of(prompt(("system", LONG), ("user", "what is open today?")), None)
    assert one == beginning_of(prompt(("system", LONG), ("user", "something else")), None)
    assert one != beginning_of(prompt(("system", LONG + "!"), ("user", "what is open today?")), None)
    assert one != beginning_of(prompt(("system", LONG), ("user", "what is open today?")), b'[{"type":"function"}]')


def test_turns_of_a_conversation_begin_alike_and_other_conversations_do_not():
    first = prompt(("system", "be brief"), ("user", "hello"))
    later = prompt(("system", "be brief"), ("user", "hello"), ("assistant", "yes?"), ("user", "more"))
    assert beginning_of(first, None) == beginning_of(later, None)
    assert beginning_of(first, None) != beginning_of(prompt(("system", "be brief"), ("user", "goodbye")), None)


def test_what_is_no_text_has_a_beginning_too():
    parts = json.dumps([{"role": "user", "content": [{"type": "text", "text": "x"}]}]).encode()
    assert len(beginning_of(parts, None)) == len(beginning_of(b"[]", None)) == 16


def test_beginnings_spread_evenly_and_only_those_of_a_lost_endpoint_move():
    before = {number: order(number.to_bytes(16, "big"), NAMES)[0] for number in range(2_000)}
    assert all(400 < count < 600 for count in Counter(before.values()).values())
    for number, place in before.items():
        after = NAMES[:3][order(number.to_bytes(16, "big"), NAMES[:3])[0]]
        assert place == 3 or after == NAMES[place]


def test_a_favoured_beginning_fills_its_endpoint_to_the_bound_and_no_further():
    loads, places = [0, 0, 0, 0], order(b"0" * 16, NAMES)
    for _ in range(100):
        loads[preferred(places, loads, [False] * 4)[0]] += 1
    assert max(loads) <= LOAD_FACTOR * 101 / 4 + 1
    assert loads[places[0]] == max(loads)
    assert bound([0, 0, 0, 0]) == 4, "and a few at a time crowd nobody"


@pytest.mark.parametrize("place", range(4))
def test_one_that_failed_lately_is_asked_last(place: int):
    unwell = [at == place for at in range(4)]
    assert preferred(order(b"1" * 16, NAMES), [0, 0, 0, 0], unwell)[-1] == place
