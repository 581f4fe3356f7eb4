"""What the benchmark of swaps counts, and that swaps drop nothing."""

from __future__ import annotations

import pytest
from collegium_cli.bench import swaps
from collegium_cli.bench.swaps import Call, Options, Swap

SWAPS = [Swap(10.0, 10.1, "large"), Swap(11.0, 11.1, "small")]


def test_calls_on_their_way_over_a_swap_are_told_from_those_of_undisturbed_slices() -> None:
    calls = [
        Call(9.0, 9.5, "small", 0),
        Call(9.9, 10.2, "small", 1),
        Call(10.05, 10.06, "large", 1),
        Call(10.3, 10.5, "large", 1),
        Call(12.0, 12.1, "", 2),
        Call(13.0, 13.7, "small", 2),
    ]
    found = swaps.told(calls, SWAPS)
    assert (found["calls"], found["failed"], found["swaps"]) == (6, 1, 2)
    assert found["answered_by"] == {"small": 3, "large": 2}
    assert (found["undisturbed"]["count"], found["undisturbed"]["max_ms"]) == (2, 700.0)
    assert (found["over_a_swap"]["count"], found["over_a_swap"]["max_ms"]) == (2, 300.0)


def test_a_swap_is_followed_by_the_first_call_that_its_model_answers() -> None:
    calls = [Call(10.05, 10.2, "small", 1), Call(10.3, 10.4, "large", 1), Call(11.05, 11.2, "small", 1)]
    assert swaps.followed(calls, SWAPS) == [pytest.approx(200.0), 0.0]
    assert swaps.followed(calls[:1], SWAPS) == []


@pytest.mark.long
@pytest.mark.timeout(300)
def test_swaps_under_load_drop_nothing_and_are_followed() -> None:
    found = swaps.run(Options(seconds=12.0, clients=4))
    assert found["failed"] == 0
    assert found["swaps"] > 1
    assert set(found["answered_by"]) == {"small", "large"}
    assert found["followed"]["count"] > 1
