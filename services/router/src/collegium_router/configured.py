"""The configuration's models as roster records.

One rule: no endpoint and no key leaves the configuration; workers read those from their own.
"""

from __future__ import annotations

from collegium_contracts.state import ModelRecord
from collegium_runtime.embedded import embedded_record
from collegium_runtime.embedder import embedder_record
from collegium_runtime.runtime_file import EmbeddedModel
from collegium_settings import Settings
from collegium_settings.models import ModelSettings


def records(settings: Settings, embedded: EmbeddedModel | None) -> list[ModelRecord]:
    """Returns the records of all configured models, the embedded one and the embedder included."""
    configured = [record(model) for model in settings.models]
    if embedded is not None and all(model.name != embedded.name for model in configured):
        configured.append(embedded_record(embedded.name))
    configured.append(embedder_record(settings.embeddings))
    return configured


def record(model: ModelSettings) -> ModelRecord:
    """Returns one model's record, prices in pico-dollars per token."""
    return ModelRecord(
        name=model.name,
        rank=model.rank,
        pool=model.pool,
        price=model.price_picos(),
        charge=model.charge_picos(),
        max_output_tokens=model.max_output_tokens,
        context_tokens=model.context_tokens,
        domains=list(model.domains),
        capabilities=list(model.capabilities),
        fallbacks=list(model.fallbacks),
        labels=dict(model.labels),
        concurrency=model.limits.concurrency,
        requests_per_minute=model.limits.requests_per_minute,
        tokens_per_window=model.limits.tokens.max if model.limits.tokens is not None else None,
        token_window_seconds=model.limits.tokens.window_seconds if model.limits.tokens is not None else 0,
    )
