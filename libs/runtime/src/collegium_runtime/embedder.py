"""The embedder as the roster knows it: a model of the kind ``embedding``, priced and limited like any other."""

from __future__ import annotations

from collegium_contracts.state import ModelRecord
from collegium_settings.embeddings import BUNDLED_DIMENSIONS, BUNDLED_TEXT_TOKENS, EmbeddingsSettings


def embedder_record(settings: EmbeddingsSettings) -> ModelRecord:
    """Returns the roster record of the configured embedder."""
    is_bundled = settings.base_url is None
    tokens = settings.limits.tokens
    return ModelRecord(
        name=settings.name,
        kind="embedding",
        rank="student",
        pool="general",
        price=settings.price_picos(),
        charge=settings.charge_picos(),
        max_output_tokens=0,
        context_tokens=BUNDLED_TEXT_TOKENS if is_bundled else settings.text_tokens,
        dimensions=BUNDLED_DIMENSIONS if is_bundled else settings.dimensions or 0,
        has_fixed_dimensions=is_bundled,
        concurrency=settings.limits.concurrency,
        requests_per_minute=settings.limits.requests_per_minute,
        tokens_per_window=tokens.max if tokens is not None else None,
        token_window_seconds=tokens.window_seconds if tokens is not None else 0,
    )
