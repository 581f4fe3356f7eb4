"""How a model's quota is shown in a table. Pure. One rule: what is not known is a question mark, never a zero."""

from __future__ import annotations

from typing import Any


def quota_text(limits: dict[str, Any]) -> str:
    """Says what is used of an endpoint's quota: "640/1000 tokens in 5h, 3/60 calls in 1m"; a dash where it has none."""
    shown = [
        f"{'?' if limit['used'] is None else limit['used']}/{limit['limit']} {what} in {_span(limit['window_seconds'])}"
        for what, limit in (("tokens", limits["tokens"]), ("calls", limits["requests"]))
        if limit is not None
    ]
    return ", ".join(shown) or "-"


def _span(seconds: int) -> str:
    for size, unit in ((86_400, "d"), (3_600, "h"), (60, "m")):
        if seconds % size == 0:
            return f"{seconds // size}{unit}"
    return f"{seconds}s"
