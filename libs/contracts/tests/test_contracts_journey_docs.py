"""The journey's page is what the table says."""

import re
from pathlib import Path

import pytest
from collegium_contracts import journey_docs
from collegium_contracts.consumers import CONSUMERS
from collegium_contracts.journey import ASKS, BUCKETS, HOPS, SERVICES, STREAMS
from collegium_contracts.journey_docs import main, page

PAGE = Path(__file__).parents[3] / "docs" / "journey.md"


def test_the_page_is_up_to_date():
    assert PAGE.read_text() == page(), "run `just journey-docs`"


def test_the_page_names_everything_in_the_tables():
    text = page()
    for hop in HOPS:
        assert f"`{hop.subject}`" in text
        assert hop.note in text
    for message in {message for hop in HOPS for message in hop.messages}:
        assert message in text
    named = [*(one.name for one in STREAMS), *(f"`{one.name}`" for one in BUCKETS)]
    named += [*(f"`{one.durable}`" for one in CONSUMERS), *(f"`{one.subject}`" for one in ASKS), *SERVICES]
    assert [name for name in named if name not in text] == []
    assert all(stream.note in text for stream in STREAMS)


def test_every_row_of_a_table_has_its_columns():
    for block in re.findall(r"(?:^\|.*\n)+", page(), re.MULTILINE):
        rows = block.splitlines()
        assert len({len(re.findall(r"(?<!\\)\|", row)) for row in rows}) == 1, rows[0]


def test_an_arrow_that_the_table_does_not_have_is_refused(monkeypatch):
    monkeypatch.setattr(journey_docs, "_STEPS", (("B", "G", "TaskSubmitted", True),))
    with pytest.raises(KeyError, match="no hop takes TaskSubmitted"):
        page()


def test_the_check_tells_an_old_page_and_writes_nothing(tmp_path, capsys):
    path = tmp_path / "journey.md"
    assert main(["--check", str(path)]) == 1
    assert not path.exists()
    assert main([str(path)]) == 0
    assert main([str(path), "--check"]) == 0
    path.write_text(page() + "x")
    assert main(["--check", str(path)]) == 1
    assert "just journey-docs" in capsys.readouterr().err
    assert path.read_text().endswith("x")
    with pytest.raises(SystemExit):
        main([])
