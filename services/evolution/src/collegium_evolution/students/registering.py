"""Models that a provider fine-tuned on an export, taken in as students of the export's tenant.

The router adds the model as it adds any, with its endpoint probed; until it has earned a rank nobody is given it who
does not name it. What counts for its promotion is what it cannot have been trained on: what its export held out, which
it is asked once it serves, and what was asked after it was made. One rule: a student of one tenant's work comes from an
export of that tenant.
"""

from __future__ import annotations

from typing import Any, Final

import asyncpg
import msgspec
from collegium_bus.ask import ask
from collegium_bus.errors import RequestRefusedError
from collegium_contracts import subjects as s
from collegium_contracts.roster_requests import ModelAdd, ModelRemove, RegistrationReply
from collegium_contracts.students import StudentOf, StudentRegister, StudentRow
from collegium_runtime.platform import Platform
from collegium_settings import SettingsError
from collegium_settings.roster import read_spec

from collegium_evolution.ranks import pair_store
from collegium_evolution.students import held_out_store
from collegium_evolution.students.export_store import ExportStore
from collegium_evolution.students.student_store import StudentStore

# What a tier has to have to have students.
FEATURE: Final = "custom_students"
ASK_SECONDS: Final = 15.0
# Longer than a worker's probes take.
ADD_SECONDS: Final = 85.0


class Registering:
    """Takes fine-tuned models in."""

    def __init__(self, platform: Platform, pool: asyncpg.Pool, kept: StudentStore, exports: ExportStore) -> None:
        self._platform = platform
        self._pool = pool
        self._kept = kept
        self._exports = exports

    async def register(self, asked: StudentRegister) -> StudentRow:
        """Returns the student's row; raises RequestRefusedError: ``not_found`` where the tenant has no such export,
        ``feature_not_in_tier``, and what the router refuses."""
        manifest = await self._exports.manifest(asked.export, asked.tenant)
        if manifest is None:
            raise RequestRefusedError("not_found", "this tenant has no export of this id", "export")
        settings = self._platform.settings
        tier = settings.tiers.get(asked.tier)
        if tier is None or FEATURE not in tier.features:
            text = f"the tier {asked.tier!r} has no students of its own ({FEATURE})"
            raise RequestRefusedError("feature_not_in_tier", text, "tenant")
        now_ms = self._platform.now_ms()
        spec = spec_of(asked.spec, manifest)
        row = StudentRow(
            model=_name(spec), tenant=asked.tenant, domain=manifest["domain"], kind="endpoint", state="training",
            made_at_ms=now_ms, samples=manifest["rows"], held_out=manifest["held_out"]["rows"],
            digest=manifest["sha256"], by=asked.by, reason=f"from export {asked.export}",
        )  # fmt: skip
        found = await self._kept.rows(None, row.model)
        before = found[0] if found else None
        # No student stands in the roster without a row, by which its tenant's erasure finds it.
        begins = before is None or before.row.state in ("retired", "failed")
        is_own = before is None or before.row.tenant == asked.tenant
        if not is_own or (begins and not await self._kept.put(row, "")):
            raise RequestRefusedError("already_exists", f"the name {row.model!r} is taken", "name")
        student = StudentOf(kind="endpoint", tenants=[asked.tenant, *asked.grants], made_at_ms=now_ms)
        question = ModelAdd(
            spec=spec, by=asked.by, forced=asked.forced, student=student, models_max=tier.models_max,
            domain_max=settings.evolution.max_models_per_domain,
        )  # fmt: skip
        try:
            await ask(
                self._platform.connection, s.SVC_ROUTER_ROSTER, question, RegistrationReply, timeout_seconds=ADD_SECONDS
            )
        except RequestRefusedError:
            if begins:
                await self._kept.undo(row, before)
            raise
        # Another model of this name may have stood before: what was said of it says nothing of this one.
        await pair_store.forget(self._pool, row.model, asked.tenant, now_ms)
        await held_out_store.drop(self._pool, row.model)
        tasks = await self._exports.held(asked.export, asked.tenant)
        await held_out_store.begin(self._pool, row.model, asked.tenant, tasks, now_ms)
        row = msgspec.structs.replace(row, state="serving")
        await self._kept.put(row, "")
        return row

    async def leave(self, model: str, tenant: str) -> None:
        """Takes a tenant's fine-tuned model out of the roster; where the name is none of its, it is gone already."""
        await held_out_store.drop(self._pool, model)
        try:
            await ask(
                self._platform.connection,
                s.SVC_ROUTER_ROSTER,
                ModelRemove(model=model, owner=tenant),
                RegistrationReply,
                timeout_seconds=ASK_SECONDS,
            )
        except RequestRefusedError as error:
            if error.code != "not_found":
                raise
            return
        await pair_store.forget(self._pool, model, tenant, self._platform.now_ms() + 1)


def _name(spec: bytes) -> str:
    """Returns the name in a spec; raises RequestRefusedError where the spec is none of a model."""
    try:
        return read_spec(spec).name
    except SettingsError as error:
        first = error.problems[0]
        text = "; ".join(map(str, error.problems))
        raise RequestRefusedError("invalid_value", text, first.path or None) from None


def spec_of(spec: bytes, manifest: dict[str, Any]) -> bytes:
    """Returns the spec of a student made of an export: its domain is the export's, and it begins as a student.

    Raises RequestRefusedError where it says otherwise, or is none.
    """
    try:
        fields = msgspec.json.decode(spec, type=dict[str, Any])
    except (msgspec.DecodeError, ValueError, RecursionError):
        raise RequestRefusedError("invalid_value", "a model is said as a JSON object") from None
    if fields.get("rank", "student") != "student":
        raise RequestRefusedError("invalid_value", "a student begins as one; its rank is earned", "rank")
    domains = [manifest["domain"]] if manifest["domain"] else []
    if fields.get("domains", domains) != domains:
        raise RequestRefusedError("invalid_value", f"the export is of the domain {manifest['domain']!r}", "domains")
    return msgspec.json.encode(fields | {"rank": "student", "domains": domains})
