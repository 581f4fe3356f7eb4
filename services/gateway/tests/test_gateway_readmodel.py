"""Events folded into rows, in whatever order and number they come."""

import pytest
from collegium_contracts import codec
from collegium_contracts.messages import CancelRequested, TaskAccepted, TaskDispatched
from collegium_gateway.readmodel.rows import ORDER, STATES, TERMINAL, WAITS_WITH_ANSWER, TaskRow, fold, row_of, state_of
from hypothesis import given
from hypothesis import strategies as st


def event(message):
    return message, codec.encode(message), "ab" * 16


@pytest.fixture(scope="session")
def story(task, settled):
    def story(number: int, ending: str | None):
        ref = task(id=f"tsk_{number:026d}")
        told = [
            TaskAccepted(task=ref, at_ms=1),
            TaskDispatched(task=ref, plan="single", models=["m"], at_ms=2),
            CancelRequested(task_id=ref.id, tenant="acme", at_ms=3),
        ]
        return [event(one) for one in (*told, *([settled(ending, ref)] if ending else []))]

    return story


def folded(events) -> list[TaskRow]:
    rows: dict[str, TaskRow] = {}
    fold(rows, events)
    return list(rows.values())


@given(
    endings=st.lists(st.sampled_from([None, "completed", "failed", "canceled"]), min_size=1, max_size=3),
    data=st.data(),
)
def test_any_order_and_any_doubling_fold_to_the_same_rows(story, endings, data):
    events = [one for number, ending in enumerate(endings) for one in story(number, ending)]
    wanted = {row.task_id: row for row in folded(events)}
    doubled = data.draw(st.lists(st.sampled_from(events), max_size=10))
    shuffled = data.draw(st.permutations(events + doubled))
    assert {row.task_id: row for row in folded(shuffled)} == wanted
    assert [row.state for row in wanted.values()] == [ending or "working" for ending in endings]


@given(endings=st.lists(st.sampled_from([None, "completed"]), min_size=1, max_size=3), cut=st.integers(0, 12))
def test_batches_fold_like_one(story, endings, cut):
    """The table keeps the row that is furthest on, as its upsert does."""
    events = [one for number, ending in enumerate(endings) for one in story(number, ending)]
    table = {}
    for batch in (events[:cut], events[cut:]):
        for row in folded(batch):
            known = table.get(row.task_id)
            if known is None or ORDER[row.state] > ORDER[known.state]:
                table[row.task_id] = row
    assert table == {row.task_id: row for row in folded(events)}


def test_a_settled_row_keeps_the_message_whole(task, settled):
    message = settled("completed")
    (row,) = folded([event(message)])
    assert row.settled is not None
    assert codec.settled.decode(row.settled) == message
    assert row.trace_id == "ab" * 16
    assert (row.tenant, row.created_at_ms, row.settled_at_ms) == (
        "acme",
        task().created_at_ms,
        message.settled_at_ms,
    )


def test_an_open_row_has_nothing_of_an_end(task):
    row = row_of(*event(TaskAccepted(task=task(), at_ms=5)))
    assert row is not None
    assert (row.state, row.settled, row.settled_at_ms) == ("submitted", None, None)


def test_what_changes_no_state_makes_no_row(task):
    cancel = CancelRequested(task_id="tsk_1", tenant="acme", at_ms=1)
    assert state_of(cancel) is None
    assert row_of(*event(cancel)) is None
    assert folded([event(cancel)]) == []


def test_the_states_only_move_forward():
    assert ORDER["submitted"] < ORDER["input_required"] < ORDER["working"] < WAITS_WITH_ANSWER
    assert {state for state in STATES if ORDER[state] > WAITS_WITH_ANSWER} == TERMINAL
