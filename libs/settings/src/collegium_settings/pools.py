"""Which worker pools there are, and which of them the workers of a configuration serve.

One rule: a pool has a queue as soon as it is named, whoever serves it.
"""

from __future__ import annotations

from collegium_settings.settings import Settings

GENERAL = "general"


def all_pools(settings: Settings) -> list[str]:
    """Returns the pools of all models, the general one, and the dedicated ones."""
    return sorted({model.pool for model in settings.models} | {GENERAL, *settings.workers.dedicated_pools})


def served_pools(settings: Settings) -> list[str]:
    """Returns the pools that the workers here take attempts of."""
    serve = settings.workers.serve
    return all_pools(settings) if serve is None else sorted(set(serve))
