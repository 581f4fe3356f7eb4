"""Added models as endpoints: the bucket followed, each spec read with this worker's own keys.

One rule: what cannot be read, or may not be called from here, is logged and has no endpoint; the others go on.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import structlog
from collegium_bus.errors import RequestRefusedError
from collegium_bus.kv import Bucket, Entry
from collegium_contracts import codec
from collegium_contracts import subjects as s
from collegium_contracts.addresses import is_local
from collegium_contracts.errors import ContractError
from collegium_contracts.modelstate import RegisteredModel
from collegium_runtime.platform import Platform
from collegium_settings import SettingsError
from collegium_settings.roster import AddedModel, RosterSettings, allows, host_of, read_spec

from collegium_worker_pool.upstream.endpoints import LOGPROBS, Endpoint, chat_url

log = structlog.get_logger(__name__)

# How long the endpoint of a removed model is kept for what was dispatched before; no attempt waits longer.
KEPT_MS: Final = 15 * 60_000
PROVIDER: Final = "openai-compatible"


class AddedBook:
    """The endpoints of added models; ``on_change`` is called when they are others."""

    def __init__(self, platform: Platform, on_change: Callable[[], None]) -> None:
        self._platform = platform
        self._on_change = on_change
        self._bucket = Bucket(platform.connection, s.KV_ENDPOINTS)
        self._watch = self._bucket.watch(self._learn, self._forget)
        self._specs: dict[str, tuple[int, AddedModel]] = {}
        self._gone_ms: dict[str, int] = {}

    async def start(self) -> None:
        """Reads what stands, then follows."""
        await self._watch.start()

    async def stop(self) -> None:
        """Stops."""
        await self._watch.stop()

    def endpoints(self) -> dict[str, Endpoint]:
        """Returns the endpoints by model, with the keys of the configuration as it is now."""
        roster = self._platform.settings.roster
        found: dict[str, Endpoint] = {}
        for _, model in self._specs.values():
            try:
                found[model.name] = endpoint_of(model, roster)
            except RequestRefusedError as error:
                log.error("an added model cannot be called from here", model=model.name, error=error.message)
        return found

    def _learn(self, entry: Entry) -> None:
        known = self._specs.get(entry.key)
        if known is not None and known[0] == entry.revision and entry.key not in self._gone_ms:
            return
        try:
            value = codec.state.decode(entry.value)
            if not isinstance(value, RegisteredModel):
                return
            self._specs[entry.key] = (entry.revision, read_spec(value.spec))
        except (ContractError, SettingsError) as error:
            log.error("an added model is unreadable, keeping the last good one", key=entry.key, error=str(error))
            return
        self._gone_ms.pop(entry.key, None)
        self._changed()

    def _forget(self, entry: Entry) -> None:
        known = self._specs.get(entry.key)
        if known is not None and known[0] < entry.revision:
            self._gone_ms.setdefault(entry.key, self._platform.now_ms())
        self._changed()

    def _changed(self) -> None:
        oldest = self._platform.now_ms() - KEPT_MS
        for key in [key for key, gone_ms in self._gone_ms.items() if gone_ms < oldest]:
            del self._gone_ms[key]
            self._specs.pop(key, None)
        self._on_change()


def endpoint_of(model: AddedModel, roster: RosterSettings) -> Endpoint:
    """Returns where an added model is, its replicas beside it.

    Raises RequestRefusedError ``model_address_refused`` for an address that may not be called, ``invalid_value`` for a
    key that is not here, or may not be sent there.
    """
    first = _endpoint(model, model.base_url, model.key, model.upstream_model, roster, "")
    replicas = tuple(
        _endpoint(model, one.base_url, one.key, one.upstream_model or model.upstream_model, roster, f"endpoints[{at}].")
        for at, one in enumerate(model.endpoints)
    )
    return first.among(replicas)


def _endpoint(
    model: AddedModel, base_url: str, key: str | None, upstream: str | None, roster: RosterSettings, path: str
) -> Endpoint:
    try:
        refused = is_local(host_of(base_url)) and not roster.allow_private_addresses
    except ValueError:
        refused = True
    if refused:
        text = "that address is not public; an operator may allow such addresses (roster.allow_private_addresses)"
        raise RequestRefusedError("model_address_refused", text, f"{path}base_url")
    headers = {"Content-Type": "application/json"}
    if key is not None:
        held = roster.keys.get(key)
        if held is None:
            text = "no key of this name stands in roster.keys of the workers' configuration"
            raise RequestRefusedError("invalid_value", text, f"{path}key")
        if not allows(held, base_url):
            text = f"the key {key!r} may not be sent to this place; its hosts stand in roster.keys.{key}.hosts"
            raise RequestRefusedError("invalid_value", text, f"{path}key")
        headers["Authorization"] = f"Bearer {held.api_key.reveal()}"
    return Endpoint(
        url=chat_url(base_url),
        headers=headers,
        upstream_model=upstream or model.name,
        provider=PROVIDER,
        timeout_seconds=model.timeout_seconds,
        concurrency=model.limits.concurrency,
        tells_logprobs=LOGPROBS in model.capabilities,
        is_guarded=True,
    )
