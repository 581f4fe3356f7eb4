"""A provider's usage against the books: exact, by model and day, on either side only."""

from decimal import Decimal

import pytest
from collegium_cli.money.compare import Columns, Sums, UsageFileError, booked_sums, compare, read_file
from hypothesis import given
from hypothesis import strategies as st

HEAD = "model,date,input_tokens,output_tokens,cost_usd"
SUMS = st.builds(Sums, st.integers(0, 10**9), st.integers(0, 10**9), st.decimals(0, 10**6, places=12))
KEYS = st.tuples(st.sampled_from("abc"), st.dates().map(str))


def test_lines_of_one_model_and_day_are_summed_and_models_renamed():
    lines = [HEAD, "x-1,2026-01-02,10,3,0.1", 'x-1,2026-01-02T23:00:00Z,"1,000",1,$0.2']
    found = read_file(lines, Columns(), {"x-1": "ours"})
    assert found == {("ours", "2026-01-02"): Sums(1010, 4, Decimal("0.3"))}


@pytest.mark.parametrize(
    "line", ["m,yesterday,1,1,1", "m,2026-01-01,-1,1,1", "m,2026-01-01,1.5,1,1", "m,2026-01-01,1,1,NaN", "m,2026-01-01"]
)
def test_what_is_no_usage_is_refused_with_its_line(line: str):
    with pytest.raises(UsageFileError, match="line 2"):
        read_file([HEAD, line], Columns(), {})


def test_an_absent_column_is_named():
    with pytest.raises(UsageFileError, match="'cost'"):
        read_file([HEAD], Columns(cost="cost"), {})


def test_what_is_not_compared_differs_in_nothing():
    columns = Columns(cost="")
    provider = read_file(["model,date,input_tokens,output_tokens", "m,2026-01-01,5,6"], columns, {})
    row = {"model": "m", "day": "2026-01-01", "input_tokens": 5, "output_tokens": 6, "cost_usd": "9.5"}
    assert [one.is_none for one in compare(provider, booked_sums([row], columns))] == [True]


@given(st.dictionaries(KEYS, SUMS), st.dictionaries(KEYS, SUMS))
def test_differences_are_what_must_be_added_to_the_books(provider: dict, booked: dict):
    for one in compare(provider, booked):
        row = one.row()
        assert one.booked.input_tokens + row["input_tokens_more"] == one.provider.input_tokens
        assert one.booked.cost_usd + Decimal(row["cost_usd_more"]) == one.provider.cost_usd
        assert one.is_none == (provider.get((one.model, one.day), Sums()) == booked.get((one.model, one.day), Sums()))
    assert {(one.model, one.day) for one in compare(provider, booked)} == {*provider, *booked}
