"""What of the configuration may change while services run. Pure.

One rule: a change that would need another connection, port, stream or process is refused as a whole, and the last good
configuration stays.
"""

from __future__ import annotations

from typing import Final

from collegium_settings.pools import all_pools
from collegium_settings.settings import Settings

# Sections that are read once, at the start.
NEED_A_RESTART: Final = (
    "data_dir",
    "http",
    "grpc",
    "nats",
    "database",
    "qdrant",
    "durability",
    "telemetry",
    "embedded_model",
    "embeddings",
    "search",
    "jwt",
    "encryption",
    "workers",
)


def refusals(standing: Settings, changed: Settings) -> list[str]:
    """Names what of a changed configuration needs a restart: sections, and pools that have no consumer yet."""
    found = [name for name in NEED_A_RESTART if getattr(standing, name) != getattr(changed, name)]
    pools = set(all_pools(standing))
    found += [
        f"models[{index}].pool (a new pool {model.pool!r})"
        for index, model in enumerate(changed.models)
        if model.pool not in pools
    ]
    return found
