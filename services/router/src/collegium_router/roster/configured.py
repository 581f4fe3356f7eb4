"""The configuration's models as roster records.

One rule: no endpoint and no key leaves the configuration; workers read those from their own.
"""

from __future__ import annotations

from collegium_contracts.state import ModelRecord
from collegium_runtime.embedded import embedded_record
from collegium_runtime.embedder import embedder_record
from collegium_runtime.runtime_file import EmbeddedModel
from collegium_settings import Settings
from collegium_settings.roster import record


def records(settings: Settings, embedded: EmbeddedModel | None) -> list[ModelRecord]:
    """Returns the records of all configured models, the embedded one and the embedder included."""
    configured = [record(model) for model in settings.models]
    if embedded is not None and all(model.name != embedded.name for model in configured):
        configured.append(embedded_record(embedded.name))
    configured.append(embedder_record(settings.embeddings))
    return configured
