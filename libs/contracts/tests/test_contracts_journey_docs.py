"""The journey's page is what the table says."""

from pathlib import Path

from collegium_contracts.journey_docs import page

PAGE = Path(__file__).parents[3] / "docs" / "journey.md"


def test_the_page_is_up_to_date():
    assert PAGE.read_text() == page(), "run `just journey-docs`"
