"""Models added, changed and removed while the platform runs: probed by a worker, kept, then shown to all.

Where a model is stands in a bucket of its own, which workers read; the roster says the rest. The bucket is written
before the roster and cleaned after it, so that no model is in the roster whose place nobody knows. One rule: nothing of
this router calls an endpoint or holds a key; a worker of the model's pool is asked to.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Final

import msgspec
import structlog
from collegium_bus.ask import ask
from collegium_bus.connection import Connection
from collegium_bus.errors import AlreadyStandsError, NoAnswerError, RequestRefusedError, TooLargeError
from collegium_bus.kv import Bucket, Entry
from collegium_contracts import codec, ids
from collegium_contracts import subjects as s
from collegium_contracts.errors import ContractError
from collegium_contracts.messages import Message
from collegium_contracts.modelstate import RegisteredModel
from collegium_contracts.roster_requests import (
    EndpointProbe,
    EndpointProbed,
    ModelAdd,
    ModelChange,
    ModelRemove,
    ModelShow,
    RegistrationReply,
    failing,
    told,
)
from collegium_contracts.state import ModelRecord, Roster
from collegium_settings import Settings, SettingsError
from collegium_settings.roster import AddedModel, read_added, record

from collegium_router.roster.bases import with_bases
from collegium_router.roster.prices import repriced
from collegium_router.roster.roster_answers import RosterAnswers
from collegium_router.roster.students import too_many

log = structlog.get_logger(__name__)

# Longer than a worker's probes take.
PROBE_SECONDS: Final = 75.0
# Longer than an addition takes from its first write to its last.
LEFT_MS: Final = 600_000
# Of what is said of a model only these change how its endpoint is called.
PROBED: Final = frozenset((
    "base_url", "endpoints", "key", "upstream_model", "pool", "capabilities", "context_tokens", "timeout_seconds",
))  # fmt: skip
Asked = ModelAdd | ModelChange | ModelRemove | ModelShow


class RegistrationAnswers(RosterAnswers):
    """Answers ``svc.router.roster``: ModelAdd, ModelChange, ModelRemove and ModelShow."""

    def __init__(
        self, connection: Connection, models: Bucket, now_ms: Callable[[], int], settings: Callable[[], Settings]
    ) -> None:
        super().__init__(connection, models, now_ms, s.SVC_ROUTER_ROSTER)
        self._endpoints = Bucket(connection, s.KV_ENDPOINTS)
        self._settings = settings

    async def sweep(self) -> int:
        """Removes the places of models that left the roster while a router died; returns how many those were.

        What was written of late may be of a model that is being added. Raises BusError.
        """
        entry = await self._models.get(s.ROSTER_KEY)
        roster = codec.state.decode(entry.value) if entry is not None else None
        if not isinstance(roster, Roster):
            return 0
        known = {s.state_key(model.name) for model in roster.models if model.registered}
        before_ms, gone = self._now_ms() - LEFT_MS, 0
        standing = [one async for one in self._endpoints.entries() if not one.deleted and one.key not in known]
        for one in standing:
            kept, _ = _decoded(one)
            if kept is not None and kept.at_ms < before_ms:
                with suppress(AlreadyStandsError):
                    await self._endpoints.delete(one.key, expected_revision=one.revision)
                    gone += 1
                    log.info("place of a removed model removed", model=kept.model)
        return gone

    def check(self, asked: Any) -> str:
        """Returns the model's name, of one to add none; raises RequestRefusedError for any other question."""
        if not isinstance(asked, Asked):
            raise RequestRefusedError("invalid_value", f"ModelAdd is asked here, not {type(asked).__name__}")
        return "" if isinstance(asked, ModelAdd) else asked.model

    def change(self, asked: Any, standing: ModelRecord, now_ms: int) -> ModelRecord:
        """Returns the standing model as it is: what changes is the roster."""
        return standing

    def reply(self, asked: Any, before: ModelRecord, after: ModelRecord, version: int, now_ms: int) -> Message:
        """Returns the roster's version."""
        return RegistrationReply(model=after.name, version=version, rank=after.rank)

    async def _set(self, asked: Any) -> Message:
        self.check(asked)
        match asked:
            case ModelAdd():
                return await self._add(asked)
            case ModelChange():
                return await self._change(asked)
            case ModelRemove():
                return await self._remove(asked)
            case _:
                roster, _ = await self._roster()
                model = _named(roster, asked.model)
                kept, _ = await self._kept(asked.model)
                return _reply(model, roster.version, kept)

    async def _add(self, asked: ModelAdd) -> Message:
        fields = _fields(asked.spec)
        model = _read(fields)
        roster, _ = await self._roster()
        _addable(roster, model, asked, self._settings().roster.models_max)
        _fallbacks(roster, model)
        kept = await self._probed(fields, model, asked.by, forced=asked.forced)

        def anew(standing: Roster, now_ms: int) -> Roster:
            _addable(standing, model, asked, self._settings().roster.models_max)
            before = next((one for one in standing.models if one.name == model.name), None)
            made = msgspec.structs.replace(
                repriced(before, record(model), now_ms), registered=True, student=asked.student
            )
            return _with(standing, [*(one for one in standing.models if one is not before), made])

        return await self._stored(model.name, kept, anew)

    async def _change(self, asked: ModelChange) -> Message:
        roster, _ = await self._roster()
        standing = _named(roster, asked.model)
        before, _ = await self._kept(asked.model)
        if not standing.registered or before is None:
            raise _configured(asked.model)
        said, changes = _fields(before.spec), _fields(asked.changes)
        for name in ("name", "rank", "price", "charge"):
            if name in changes and changes[name] != said.get(name):
                raise RequestRefusedError(
                    "invalid_value", f"{name} is not changed here; it has a verb of its own", name
                )
        merged = {name: value for name, value in (said | changes).items() if value is not None}
        model = _read(merged)
        _fallbacks(roster, model)
        if any(merged.get(name) != said.get(name) for name in PROBED):
            kept = await self._probed(merged, model, asked.by, forced=asked.forced)
        else:
            kept = msgspec.structs.replace(before, spec=_encode(merged), at_ms=self._now_ms(), by=asked.by)

        def anew(roster: Roster, now_ms: int) -> Roster:
            standing = _named(roster, asked.model)
            made = msgspec.structs.replace(
                record(model), rank=standing.rank, earned=standing.earned, drained=standing.drained,
                price=standing.price, charge=standing.charge, price_version=standing.price_version,
                configured=standing.configured,
                upcoming=standing.upcoming, student=standing.student, registered=True,
            )  # fmt: skip
            return _with(roster, [made if one is standing else one for one in roster.models])

        return await self._stored(model.name, kept, anew)

    async def _remove(self, asked: ModelRemove) -> Message:
        name = asked.model

        def anew(roster: Roster, _now_ms: int) -> Roster:
            standing = _named(roster, name)
            if asked.owner and not _is_of(standing, asked.owner):
                raise _unknown()
            # What the file no longer names is kept for its history, and may go.
            if not standing.registered and standing.enabled:
                raise _configured(name)
            return _with(roster, [one for one in roster.models if one is not standing])

        # Read before: what is kept anew once the roster names it no more is of a model that was added since.
        _, revision = await self._kept(name)
        roster, standing = await self._put(anew, name)
        if revision:
            with suppress(AlreadyStandsError):
                await self._endpoints.delete(s.state_key(name), expected_revision=revision)
        log.info("model removed", model=name, by=asked.by)
        return RegistrationReply(model=name, version=roster.version, is_new=True, rank=standing.rank)

    async def _probed(self, fields: dict[str, Any], model: AddedModel, by: str, *, forced: bool) -> RegisteredModel:
        """Returns what is kept of a model, with what a worker found; raises RequestRefusedError ``probe_failed``."""
        spec, now_ms = _encode(fields), self._now_ms()
        question = EndpointProbe(id=ids.task_id(now_ms, os.urandom(10)), spec=spec)
        try:
            probed = await ask(
                self._connection,
                s.svc_workers_probe(model.pool),
                question,
                EndpointProbed,
                timeout_seconds=PROBE_SECONDS,
            )
        except NoAnswerError:
            text = f"no worker of the pool {model.pool!r} answers; a new pool needs workers that were started with it"
            raise RequestRefusedError("no_worker", text, "pool") from None
        if (bad := failing(probed.found)) and not forced:
            text = f"model {model.name!r} was not added: {told(bad)}"
            raise RequestRefusedError("probe_failed", f"{text}; add it by force where that is known", "model")
        return RegisteredModel(
            model=model.name, spec=spec, at_ms=now_ms, by=by, forced=bool(bad), found=probed.found,
            probe_usd_picos=probed.cost_usd_picos,
        )  # fmt: skip

    async def _stored(self, name: str, kept: RegisteredModel, anew: Callable[[Roster, int], Roster]) -> Message:
        before, revision = await self._kept(name)
        key = s.state_key(name)
        try:
            now = await self._endpoints.put(key, codec.encode(kept), expected_revision=revision)
        except AlreadyStandsError:
            raise RequestRefusedError(
                "version_conflict", "somebody else changes this model; ask again", "model"
            ) from None
        try:
            roster, _ = await self._put(anew, name)
        except Exception:
            # The roster does not show it, so neither may the workers.
            if before is not None:
                await self._endpoints.put(key, codec.encode(before), expected_revision=now)
            else:
                await self._endpoints.delete(key, expected_revision=now)
            raise
        log.info("model added", model=name, by=kept.by, forced=kept.forced)
        return _reply(_named(roster, name), roster.version, kept, is_new=True)

    async def _put(self, anew: Callable[[Roster, int], Roster], name: str) -> tuple[Roster, ModelRecord]:
        """Changes the roster by compare-and-set; returns it and the model as it was, or is where it was not."""
        while True:
            roster, revision = await self._roster()
            changed = anew(roster, self._now_ms())
            changed = msgspec.structs.replace(changed, models=with_bases(changed.models))
            try:
                await self._models.put(s.ROSTER_KEY, codec.encode(changed), expected_revision=revision)
            except AlreadyStandsError:
                continue
            except TooLargeError as error:
                log.error("roster not changed", error=str(error))
                text = "the roster would be larger than the broker takes; remove a model first"
                raise RequestRefusedError("roster_too_large", text, "model") from None
            known = [one for one in (*roster.models, *changed.models) if one.name == name]
            return changed, known[0]

    async def _roster(self) -> tuple[Roster, int]:
        entry = await self._models.get(s.ROSTER_KEY)
        roster = codec.state.decode(entry.value) if entry is not None else None
        if entry is None or not isinstance(roster, Roster):
            raise RequestRefusedError("not_found", "there is no roster yet", "model")
        return roster, entry.revision

    async def _kept(self, name: str) -> tuple[RegisteredModel | None, int]:
        """Returns what is kept of an added model, and its revision; the key's last one (0: none) where nothing is."""
        entry = await self._newest(s.state_key(name))
        return _decoded(entry) if entry is not None else (None, 0)

    async def _newest(self, key: str) -> Entry | None:
        async for entry in self._endpoints.entries(key):
            return entry
        return None


def _decoded(entry: Entry) -> tuple[RegisteredModel | None, int]:
    if entry.deleted:
        return None, entry.revision
    try:
        value = codec.state.decode(entry.value)
    except ContractError as error:
        log.error("an added model is unreadable", key=entry.key, error=str(error))
        return None, entry.revision
    return (value if isinstance(value, RegisteredModel) else None), entry.revision


def _encode(fields: dict[str, Any]) -> bytes:
    return msgspec.json.encode(fields, order="sorted")


def _fields(spec: bytes) -> dict[str, Any]:
    try:
        return msgspec.json.decode(spec, type=dict[str, Any])
    except (msgspec.DecodeError, ValueError, RecursionError):
        raise RequestRefusedError("invalid_value", "a model is said as a JSON object") from None


def _read(fields: dict[str, Any]) -> AddedModel:
    try:
        return read_added(fields)
    except SettingsError as error:
        first = error.problems[0]
        text = "; ".join(map(str, error.problems))
        raise RequestRefusedError("invalid_value", text, first.path or None) from None


def _addable(roster: Roster, model: AddedModel, asked: ModelAdd, models_max: int) -> None:
    """Raises RequestRefusedError where a model of this name, or one more, is not to be added."""
    standing = next((one for one in roster.models if one.name == model.name), None)
    if standing is not None and (standing.enabled or standing.student is not None):
        raise RequestRefusedError("already_exists", f"a model {model.name!r} stands in the roster", "name")
    if sum(one.registered for one in roster.models) >= models_max:
        text = f"{models_max} models were added already; remove one, or raise roster.models_max"
        raise RequestRefusedError("roster_too_large", text, "name")
    if asked.student is not None:
        domain = model.domains[0] if model.domains else ""
        if too_many(roster, asked.student.tenants[0], domain, asked.models_max, asked.domain_max, None):
            text = f"a tenant of this tier has at most {asked.models_max} students, {asked.domain_max} in a domain"
            raise RequestRefusedError("too_many_students", f"{text}; retire one first", "domain")


def _fallbacks(roster: Roster, model: AddedModel) -> None:
    known = {one.name for one in roster.models if one.student is None} - {model.name}
    for place, fallback in enumerate(model.fallbacks):
        if fallback not in known:
            raise RequestRefusedError("invalid_value", f"{fallback!r} is no other model", f"fallbacks[{place}]")


def _named(roster: Roster, name: str) -> ModelRecord:
    found = next((one for one in roster.models if one.name == name), None)
    if found is None:
        raise _unknown()
    return found


def _is_of(model: ModelRecord, tenant: str) -> bool:
    """Tells whether a model was added as a tenant's student, and the configuration file has not taken its name."""
    return model.registered and model.student is not None and model.student.tenants[:1] == [tenant]


def _unknown() -> RequestRefusedError:
    return RequestRefusedError("not_found", "there is no model of this name", "model")


def _configured(name: str) -> RequestRefusedError:
    text = f"model {name!r} is the configuration file's; change or remove it there, or drain it"
    return RequestRefusedError("model_configured", text, "model")


def _reply(
    model: ModelRecord, version: int, kept: RegisteredModel | None, *, is_new: bool = False
) -> RegistrationReply:
    registered = kept if model.registered else None
    return RegistrationReply(model=model.name, version=version, is_new=is_new, registered=registered, rank=model.rank)


def _with(roster: Roster, models: list[ModelRecord]) -> Roster:
    return msgspec.structs.replace(roster, version=roster.version + 1, models=models)
