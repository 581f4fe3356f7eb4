import pytest
from collegium_testing import VirtualClock
from hypothesis import given
from hypothesis import strategies as st


def test_stands_still_until_advanced() -> None:
    clock = VirtualClock(100.0)
    assert (clock.now(), clock.now_ns(), clock.monotonic()) == (100.0, 100_000_000_000, 0.0)
    assert clock.advance(1.5) == 101.5
    assert (clock.now(), clock.now_ns(), clock.monotonic()) == (101.5, 101_500_000_000, 1.5)


@given(st.integers(min_value=0, max_value=1000))
def test_small_steps_add_up_exactly(steps: int) -> None:
    clock = VirtualClock()
    begin = clock.now_ns()
    for _ in range(steps):
        clock.advance(0.1)
    assert clock.now_ns() - begin == steps * 100_000_000


def test_does_not_go_backwards() -> None:
    with pytest.raises(ValueError, match="does not go backwards"):
        VirtualClock().advance(-1)
