"""The roster's models as plans look for them: by name, and by who may be given them. Pure.

One rule: what one tenant's task looks through does not grow with the students of others.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import chain

import msgspec
from collegium_contracts.state import ModelRecord


class Models(dict[str, ModelRecord]):
    """The models by name; made anew where the roster or a price changes, never changed."""

    def __init__(self, models: Iterable[ModelRecord] = ()) -> None:
        super().__init__({model.name: model for model in models})
        # A student's own draining is told apart from its base's, which may end without it.
        for model in [one for one in self.values() if one.student is not None and one.student.base]:
            base = self.get(model.student.base) if model.student is not None else None
            if base is not None and base.drained and not model.drained:
                self[model.name] = msgspec.structs.replace(model, drained=True)
        self._everybodys = [model for model in self.values() if model.student is None]
        self._students: dict[str, list[ModelRecord]] = {}
        for model in self.values():
            for tenant in dict.fromkeys(model.student.tenants) if model.student is not None else ():
                self._students.setdefault(tenant, []).append(model)

    def offered(self, tenant: str) -> Iterator[ModelRecord]:
        """Yields the models that a tenant's tasks may be given to: everybody's, then its students."""
        return chain(self._everybodys, self._students.get(tenant, ()))
