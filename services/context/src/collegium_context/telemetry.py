"""Names of context's spans."""

from __future__ import annotations

from typing import Final

SPAN_FOLD: Final = "context fold turn"
SPAN_TURNS: Final = "context turns"
SPAN_SEARCH: Final = "context search"
SPAN_RECALL: Final = "context recall"
SPAN_EMBED: Final = "context embed"
