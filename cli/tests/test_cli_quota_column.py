"""The quota column of `model ls`: what is used of what, in which time."""

from typing import Any

import pytest
from collegium_cli.money.quotas import quota_text


@pytest.mark.parametrize(
    ("limits", "shown"),
    [
        ({"tokens": None, "requests": None}, "-"),
        ({"tokens": {"limit": 1000, "used": 640, "window_seconds": 18_000}, "requests": None}, "640/1000 tokens in 5h"),
        (
            {
                "tokens": {"limit": 9, "used": None, "window_seconds": 90},
                "requests": {"limit": 60, "used": 3, "window_seconds": 60},
            },
            "?/9 tokens in 90s, 3/60 calls in 1m",
        ),
    ],
)
def test_a_quota_is_shown_with_what_is_used_of_it(limits: dict[str, Any], shown: str):
    assert quota_text(limits) == shown
