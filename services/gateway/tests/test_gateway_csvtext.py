"""CSV that no spreadsheet runs, and that reads back."""

from __future__ import annotations

import csv
import io

import pytest
from collegium_gateway.operating import csvtext
from hypothesis import given
from hypothesis import strategies as st


@pytest.mark.parametrize("text", ["=1+1", "+1+1", "-2+3", "@SUM(A1)", "\t=1", "\r=1", "\n=1", " =1", "＝1", "-", "+1"])
def test_a_formula_is_text(text: str) -> None:
    assert csvtext.cell(text) == f"'{text}"


@pytest.mark.parametrize("text", ["-0.25", "-1", "0", "12.5", "a=b", "plain", ""])
def test_numbers_and_names_stay_as_they_are(text: str) -> None:
    assert csvtext.cell(text) == text


def test_other_values() -> None:
    values = {"none": None, "flag": True, "tags": {"b": "=1", "a": "x"}, "empty": {}, "count": -3}
    assert [csvtext.cell(value) for value in values.values()] == ["", "true", '{"a":"x","b":"=1"}', "", "-3"]


@given(st.lists(st.fixed_dictionaries({"a": st.text(), "b": st.text()}), max_size=5))
def test_what_is_written_reads_back_cell_by_cell(records: list[dict[str, str]]) -> None:
    written = csvtext.header(("a", "b")) + csvtext.lines(("a", "b"), records)
    read = list(csv.reader(io.StringIO(written.decode(), newline="")))
    assert read == [["a", "b"], *([csvtext.cell(record["a"]), csvtext.cell(record["b"])] for record in records)]
