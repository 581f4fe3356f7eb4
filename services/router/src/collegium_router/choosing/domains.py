"""Domains that were discovered, as the router applies them: a task that names none is given that of its question.

What cannot be read is counted and told, and the last good map stays. One rule: a domain that a client named is never
changed, and a task whose question was not looked at has none.
"""

from __future__ import annotations

import msgspec
import structlog
from collegium_contracts import codec
from collegium_contracts.domains import MAP_PREFIX, DomainMap
from collegium_contracts.errors import ContractError
from collegium_contracts.messages import TaskSubmitted
from collegium_learning.domains.mapping import MapError, Mapper

from collegium_router.choosing.seen import Seen

log = structlog.get_logger(__name__)


class Domains:
    """The maps that stand, by tenant; ``refused`` counts values that could not be read."""

    def __init__(self) -> None:
        self._mappers: dict[str, Mapper] = {}
        # By which revision of a key; a watch tells of what stands again and again.
        self._revisions: dict[str, int] = {}
        self.refused = 0

    def use(self, key: str, value: bytes, revision: int = 0) -> None:
        """Learns the value of a key of the bucket; anything but a map that can be applied changes nothing."""
        if not key.startswith(MAP_PREFIX) or (revision and self._revisions.get(key) == revision):
            return
        self._revisions[key] = revision
        tenant = key.removeprefix(MAP_PREFIX)
        try:
            found = codec.state.decode(value)
            if not isinstance(found, DomainMap) or found.tenant != tenant:
                raise MapError(f"{type(found).__name__} is no map of {tenant}")
            self._mappers[tenant] = Mapper(found)
        except (ContractError, ValueError, ArithmeticError) as error:
            self.refused += 1
            log.error("map of domains unreadable, keeping the last good one", tenant=tenant, error=str(error))

    def forget(self, key: str) -> None:
        """Forgets the map of a key of the bucket that was deleted."""
        if key.startswith(MAP_PREFIX):
            self._mappers.pop(key.removeprefix(MAP_PREFIX), None)
            self._revisions.pop(key, None)

    def wants(self, tenant: str) -> bool:
        """Whether the questions of a tenant are to be looked at for their domains."""
        return tenant in self._mappers

    def given(self, submitted: TaskSubmitted, seen: Seen) -> TaskSubmitted:
        """Returns a task with the domain of its question, as it is where it names one or its question is of none."""
        task = submitted.task
        mapper = self._mappers.get(task.tenant)
        if task.domain or mapper is None:
            return submitted
        domain = mapper.of(seen.embedder, seen.row)
        if not domain:
            return submitted
        return msgspec.structs.replace(submitted, task=msgspec.structs.replace(task, domain=domain))
