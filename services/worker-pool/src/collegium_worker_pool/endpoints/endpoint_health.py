"""Looking after endpoints: whether each answers, takes the key, and knows its model.

Every configured endpoint is looked at when it is new and every LOOK_SECONDS after that, by one worker of all, with a
question that costs nothing (``GET /models``). One rule: nothing is decided by it; breakers open by calls alone. What it
finds is shown to operators, so that a model that was added is known to work before somebody waits for it.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Mapping
from typing import Final

import aiohttp
import msgspec
import structlog
from collegium_bus.errors import BusError
from collegium_bus.kv import Bucket
from collegium_contracts import codec
from collegium_contracts import subjects as s
from collegium_contracts.errors import ContractError
from collegium_contracts.modelstate import EndpointHealth, HealthState
from collegium_runtime.platform import Platform
from collegium_telemetry import names

from collegium_worker_pool.upstream.endpoints import Endpoint
from collegium_worker_pool.upstream.upstream import Upstream

log = structlog.get_logger(__name__)

LOOK_SECONDS: Final = 60.0
ASK_SECONDS: Final = 10.0
# A listing of some thousand models.
BODY_BYTES_MAX: Final = 4 * 1024 * 1024
_CHAT: Final = "/chat/completions"

# From the best to the worst: a model is as well as the best of its endpoints.
ORDER: Final[tuple[HealthState, ...]] = ("ok", "unlisted", "unauthorized", "unreachable")
_TIMEOUT: Final = aiohttp.ClientTimeout(total=ASK_SECONDS)


class _Meta(msgspec.Struct, frozen=True):
    n_ctx: int = 0


class _Listed(msgspec.Struct, frozen=True):
    id: str = ""
    context_length: int | None = None
    max_model_len: int | None = None
    meta: _Meta | None = None


class _Listing(msgspec.Struct, frozen=True):
    data: list[_Listed] = []


_decode = msgspec.json.Decoder(_Listing, strict=False).decode


class EndpointWatch:
    """Looks after endpoints; ``start`` and ``stop`` bracket its life."""

    def __init__(self, platform: Platform, upstream: Upstream, endpoints: Mapping[str, Endpoint]) -> None:
        self._platform = platform
        self._upstream = upstream
        self._bucket = Bucket(platform.connection, s.KV_BREAKERS)
        self._found = platform.metrics.gauges(
            names.METRIC_ENDPOINT_OK, "1 where a model's endpoint answers, takes the key and knows it", ("model",)
        )
        self._endpoints = dict(endpoints)
        self._changed = asyncio.Event()
        self._new = set(endpoints)
        self._task: asyncio.Task[None] | None = None

    def use(self, endpoints: Mapping[str, Endpoint]) -> None:
        """Takes a changed configuration; what is new or changed is looked at now."""
        for gone in self._endpoints.keys() - endpoints.keys():
            self._found[gone].set(0.0)
        self._new |= {name for name, one in endpoints.items() if self._endpoints.get(name) != one}
        self._endpoints = dict(endpoints)
        self._changed.set()

    def start(self) -> None:
        """Begins to look."""
        self._task = asyncio.create_task(self._run(), name="endpoints")

    async def stop(self) -> None:
        """Looks no more."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _run(self) -> None:
        while True:
            self._changed.clear()
            for name, endpoint in list(self._endpoints.items()):
                try:
                    await self._look(name, endpoint)
                except Exception as error:  # one endpoint must not keep the others from being looked at
                    log.info("endpoint not looked at", model=name, error=type(error).__name__)
            wait = LOOK_SECONDS * random.uniform(0.9, 1.1)  # noqa: S311 - jitter
            try:
                await asyncio.wait_for(self._changed.wait(), wait)
            except TimeoutError:
                continue

    async def _look(self, name: str, endpoint: Endpoint) -> None:
        if not endpoint.url.endswith(_CHAT):
            return
        standing = await self._standing(name)
        now_ms = self._platform.now_ms()
        if standing is not None and name not in self._new and now_ms - standing.at_ms < LOOK_SECONDS * 750:
            # Another worker has looked.
            self._found[name].set(float(standing.state == "ok"))
            return
        began = time.monotonic()
        found = await asyncio.gather(
            *(asked(self._upstream.pool_of(one), one) for one in endpoint.replicas or (endpoint,))
        )
        state, context_tokens = min(found, key=lambda one: ORDER.index(one[0]))
        health = EndpointHealth(
            model=name,
            state=state,
            at_ms=now_ms,
            since_ms=standing.since_ms if standing is not None and standing.state == state else now_ms,
            duration_ms=int((time.monotonic() - began) * 1000),
            context_tokens=context_tokens,
            endpoints=[one for one, _ in found] if endpoint.replicas else [],
        )
        self._found[name].set(float(state == "ok"))
        if state != "ok" and (standing is None or standing.state != state):
            log.warning("endpoint is not well", model=name, state=state)
        try:
            await self._bucket.put(_key(name), codec.encode(health))
        except BusError as error:
            log.info("endpoint's health not written", model=name, error=str(error))
            return
        self._new.discard(name)

    async def _standing(self, name: str) -> EndpointHealth | None:
        entry = await self._bucket.get(_key(name))
        if entry is None:
            return None
        try:
            value = codec.state.decode(entry.value)
        except ContractError:
            return None
        return value if isinstance(value, EndpointHealth) else None


def _key(model: str) -> str:
    # No model's name holds a NUL, so this is no breaker's key.
    return s.state_key(f"endpoint\x00{model}")


async def asked(session: aiohttp.ClientSession, endpoint: Endpoint) -> tuple[HealthState, int]:
    """Returns how an endpoint is, and the context length that it says its model has (0: it does not say).

    One that has no listing, or a listing that cannot be read, is well as far as it can be told.
    """
    url = endpoint.url.removesuffix(_CHAT) + "/models"
    try:
        async with session.get(url, headers=endpoint.headers, allow_redirects=False, timeout=_TIMEOUT) as response:
            if response.status in (401, 403):
                return "unauthorized", 0
            if response.status >= 500:
                return "unreachable", 0
            body = await whole(response.content) if response.status == 200 else b""
    except (aiohttp.ClientError, TimeoutError, OSError):
        return "unreachable", 0
    return listed(body, endpoint.upstream_model)


async def whole(content: aiohttp.StreamReader) -> bytes:
    """Returns a body to its end, or as much of it as is taken; one read returns what has come so far."""
    body = bytearray()
    while len(body) < BODY_BYTES_MAX and (part := await content.read(BODY_BYTES_MAX - len(body))):
        body += part
    return bytes(body)


def listed(body: bytes, model: str) -> tuple[HealthState, int]:
    """Returns what a listing of models says of one."""
    try:
        listing = _decode(body)
    except (msgspec.DecodeError, ValueError, RecursionError):
        return "ok", 0
    for one in listing.data:
        if one.id == model:
            said = one.context_length or one.max_model_len or (one.meta.n_ctx if one.meta is not None else 0)
            return "ok", max(0, said)
    return ("unlisted" if listing.data else "ok"), 0
