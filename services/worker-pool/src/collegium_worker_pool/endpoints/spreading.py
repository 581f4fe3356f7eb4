"""Calls of a model that has several endpoints: each goes to the endpoint that its beginning belongs to.

Every endpoint has a breaker of its own, beside the model's, which learns of a failure only where no endpoint is well.
An endpoint to which no request could even be sent costs nothing, so the next one is asked at once; what failed later is
tried again by the router. One rule: models with one endpoint do not come here.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Final

from collegium_worker_pool.endpoints.affinity import order, preferred
from collegium_worker_pool.endpoints.breakers import Breakers
from collegium_worker_pool.upstream.endpoints import Endpoint
from collegium_worker_pool.upstream.failures import CallFailed
from collegium_worker_pool.upstream.upstream import CallResult
from collegium_worker_pool.upstream.wire import StreamedAnswer

# An endpoint that failed so lately is asked after the others.
LATELY_MS: Final = 10_000
UNREACHABLE: Final = "upstream_unreachable"
TIMED_OUT: Final = "upstream_timeout"
Do = Callable[[Endpoint], Awaitable[CallResult]]


class Spreader:
    """Spreads the calls of this worker; loads are its own, as every worker spreads alike."""

    def __init__(self, breakers: Breakers) -> None:
        self._breakers = breakers
        self._loads: Counter[str] = Counter()

    async def call(self, model: str, endpoint: Endpoint, beginning: bytes, into: StreamedAnswer, do: Do) -> CallResult:
        """Makes one call with ``do`` at the endpoint it belongs to, or the next; raises CallFailed of the last."""
        replicas = endpoint.replicas
        names = [replica_name(model, one) for one in replicas]
        unwell = [self._breakers.failed_lately(name, LATELY_MS) for name in names]
        places = preferred(order(beginning, names), [self._loads[name] for name in names], unwell)
        last: CallFailed | None = None
        for place in places:
            if await self._breakers.admit(names[place], endpoint.timeout_seconds):
                continue
            try:
                return await self._at(names[place], replicas[place], do)
            except CallFailed as failed:
                last = failed
                if failed.error.code != UNREACHABLE or into.is_sent:
                    raise
        if last is not None:
            raise last
        # All are left alone for a while; the one it belongs to says why.
        return await self._at(names[places[0]], replicas[places[0]], do)

    def any_well(self, model: str, endpoint: Endpoint) -> bool:
        """Tells whether an endpoint of a model has not failed lately."""
        return not all(self._breakers.failed_lately(replica_name(model, one), LATELY_MS) for one in endpoint.replicas)

    def health(self, model: str, endpoint: Endpoint) -> float:
        """Returns how well a model answers, from 0 to 1: of several endpoints the mean, unless its own breaker says
        worse."""
        own, replicas = self._breakers.health(model), endpoint.replicas
        if not replicas:
            return own
        return min(own, sum(self._breakers.health(replica_name(model, one)) for one in replicas) / len(replicas))

    async def _at(self, name: str, replica: Endpoint, do: Do) -> CallResult:
        self._loads[name] += 1
        began = asyncio.get_running_loop().time()
        try:
            result = await do(replica)
        except CallFailed as failed:
            self._breakers.ended(name, failed.error.code)
            raise
        except asyncio.CancelledError:
            if asyncio.get_running_loop().time() - began >= replica.timeout_seconds:
                self._breakers.ended(name, TIMED_OUT)
            raise
        finally:
            self._loads[name] -= 1
            if not self._loads[name]:
                del self._loads[name]
        self._breakers.ended(name, "")
        return result


def replica_name(model: str, endpoint: Endpoint) -> str:
    """Names one endpoint of a model among the breakers; no model's name holds a blank."""
    return f"{model} {hashlib.blake2b(endpoint.url.encode(), digest_size=6).hexdigest()}"
