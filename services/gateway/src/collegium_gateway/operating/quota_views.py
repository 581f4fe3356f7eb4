"""How a model's limits are shown: each limit beside what is used of it. Pure.

One rule: what is not known is null and never zero.
"""

from __future__ import annotations

from typing import Any

from collegium_contracts.state import ModelRecord
from collegium_contracts.windows import QuotaWindow, WindowState


def limits_view(model: ModelRecord, window: QuotaWindow | None) -> dict[str, Any]:
    """Returns a model's limits; what is used of a quota is as the routers last kept it, a few seconds ago."""
    tokens = calls = None
    if model.tokens_per_window is not None:
        used = _used(window.tokens if window is not None else None)
        tokens = {"limit": model.tokens_per_window, "used": used, "window_seconds": model.token_window_seconds}
    if model.requests_per_minute is not None:
        used = _used(window.calls if window is not None else None)
        calls = {"limit": model.requests_per_minute, "used": used, "window_seconds": 60}
    return {"concurrency": model.concurrency, "requests": calls, "tokens": tokens}


def _used(state: WindowState | None) -> int | None:
    return state.used if state is not None else None
