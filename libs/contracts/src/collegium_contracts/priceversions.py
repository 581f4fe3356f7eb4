"""Which prices of a model apply at a time. Pure.

The roster holds a model's prices and the versions that begin later; nobody has to write it at the moment a version
begins. One rule: whoever prices something asks here with a time, so that all replicas turn at the same moment.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import msgspec

from collegium_contracts.money import Price
from collegium_contracts.state import ModelRecord, PricePair


def in_force(model: ModelRecord, at_ms: int) -> ModelRecord:
    """Returns a model with the prices of a time; the same model where no later version has begun by then."""
    begun = [one for one in model.upcoming if one.version <= at_ms]
    if not begun:
        return model
    said = model.configured or PricePair(price=model.price, charge=model.charge)
    newest = begun[-1]
    return msgspec.structs.replace(
        model,
        price=newest.prices.price,
        charge=newest.prices.charge,
        price_version=newest.version,
        configured=said if said != newest.prices else None,
        upcoming=model.upcoming[len(begun) :],
    )


def next_turn_ms(models: Iterable[ModelRecord]) -> int:
    """Returns when the first later version of any model begins (Unix ms), 0 where none waits."""
    return min((model.upcoming[0].version for model in models if model.upcoming), default=0)


def charges_until(model: ModelRecord, until_ms: int) -> Iterator[Price]:
    """Yields what tenants may be charged between now and a time, for a model whose prices are those of now."""
    yield model.charge
    for later in model.upcoming:
        if later.version <= until_ms:
            yield later.prices.charge


class PriceClock:
    """A roster whose prices turn in time: asked often, it compares two numbers."""

    __slots__ = ("_models", "_turn_ms")

    def __init__(self, models: Iterable[ModelRecord] = ()) -> None:
        self._models = list(models)
        self._turn_ms = next_turn_ms(self._models)

    def turns(self, now_ms: int) -> bool:
        """Whether a version began since the models were last asked for."""
        return 0 < self._turn_ms <= now_ms

    def models(self, now_ms: int) -> list[ModelRecord]:
        """Returns the models with the prices of now; the same list as long as none turns."""
        if self.turns(now_ms):
            self._models = [in_force(model, now_ms) for model in self._models]
            self._turn_ms = next_turn_ms(self._models)
        return self._models
