"""A model's limits as operators see them."""

from collegium_contracts.money import Price
from collegium_contracts.state import ModelRecord
from collegium_contracts.windows import QuotaWindow, WindowState
from collegium_gateway.operating.quota_views import limits_view


def model(**limits: int) -> ModelRecord:
    price = Price()
    return ModelRecord(
        name="m",
        rank="ta",
        pool="general",
        price=price,
        charge=price,
        max_output_tokens=1,
        context_tokens=1,
        **limits,
    )


def test_limits_stand_beside_what_is_used_of_them():
    window = QuotaWindow(
        model="m", tokens=WindowState(window_ms=18_000_000, limit=1_000, used=640, newest=1, slots=[640])
    )
    limited = model(tokens_per_window=1_000, token_window_seconds=18_000, requests_per_minute=60, concurrency=4)
    assert limits_view(limited, window) == {
        "concurrency": 4,
        "requests": {"limit": 60, "used": None, "window_seconds": 60},
        "tokens": {"limit": 1_000, "used": 640, "window_seconds": 18_000},
    }


def test_what_is_not_limited_and_what_is_not_known_is_null():
    assert limits_view(model(), None) == {"concurrency": None, "requests": None, "tokens": None}
    unknown = limits_view(model(tokens_per_window=7, token_window_seconds=60), None)["tokens"]
    assert unknown == {"limit": 7, "used": None, "window_seconds": 60}
