"""A recorded pool as the simulator's answers: texts, tokens that cost what was recorded; who is right says the same."""

import json

import pytest
from collegium_testing.simulator import ModelSimulator, ScriptError, pool
from collegium_testing.simulator.pool import Prices

ROWS = [
    {
        "id": str(number),
        "input": f"question {number}",
        "domain": "law",
        "outcomes": {
            "big": {"score": 1, "cost_usd": 0.002},
            "mid": {"score": 1, "cost_usd": 0.0004 + number * 0.0001},
            "tiny": {"score": 0, "cost_usd": 0.0001},
        },
    }
    for number in range(3)
]


def test_recorded_costs_come_back_as_tokens():
    prices = pool.stated_prices(ROWS, pool.models_of(ROWS))
    rows = pool.rows_of(ROWS, prices)
    for row, recorded in zip(rows, ROWS, strict=True):
        for model, outcome in row.outcomes.items():
            booked = pool.cost_usd(outcome, prices[model])
            assert booked == pytest.approx(recorded["outcomes"][model]["cost_usd"], rel=0.01)


def test_who_is_right_says_the_same_and_who_is_wrong_something_else():
    (row, *_) = pool.rows_of(ROWS, pool.stated_prices(ROWS, ["big", "mid", "tiny"]))
    assert row.outcomes["big"].answer == row.outcomes["mid"].answer != row.outcomes["tiny"].answer
    graded = {"input": "q", "answers": {"a": "17", "b": "18"}, "correct": {"a": 1, "b": 0}}
    (row,) = pool.rows_of([graded], {"a": Prices(call_usd=0.1), "b": Prices(call_usd=0.1)})
    assert [(one.answer, one.score) for one in row.outcomes.values()] == [("17", 1.0), ("18", 0.0)]


def test_models_without_costs_are_priced_by_size_or_not_at_all():
    rows = [{"input": "q", "outcomes": {"m-8b-instruct": {"score": 1}, "m-70B": {"score": 1}}}]
    prices = pool.stated_prices(rows, ["m-8b-instruct", "m-70B"])
    assert [one.output_usd_per_mtok for one in prices.values()] == [0.08, 0.7]
    with pytest.raises(ScriptError, match="nothing tells what 'other' costs"):
        pool.stated_prices(rows, ["other"])


def test_rows_are_read_once_and_broken_ones_refused(tmp_path):
    path = tmp_path / "pool.jsonl"
    path.write_text("\n".join(json.dumps(row) for row in [*ROWS, ROWS[0]]))
    assert len(pool.read_pool(path)) == 3
    path.write_text('{"input": ""}')
    with pytest.raises(ScriptError, match=r"pool\.jsonl:1"):
        pool.read_pool(path)
    path.write_text('{"big": {"output_usd_per_mtok": 1, "rank": "teacher"}}')
    assert pool.read_prices(path)["big"].rank == "teacher"
    path.write_text('{"big": {"price": 1}}')
    with pytest.raises(ScriptError):
        pool.read_prices(path)


async def test_the_simulator_answers_as_recorded():
    prices = pool.stated_prices(ROWS, pool.models_of(ROWS))
    rows = pool.rows_of(ROWS, prices)
    simulator = ModelSimulator()
    simulator.record(*pool.recordings_of(rows))
    script = simulator._script
    replay = script.replay("mid", "question 1")
    assert replay is not None
    assert replay.answer == rows[1].outcomes["mid"].answer
    assert replay.usage.completion_tokens == rows[1].outcomes["mid"].completion_tokens
