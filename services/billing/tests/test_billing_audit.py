"""The audit trail on a real broker and a real database: sealed in order, once, and whoever touches it is found."""

from __future__ import annotations

from typing import Any

import asyncpg
import msgspec
import pytest
from collegium_billing.audit.store import AuditStore
from collegium_billing.errors import FencedError
from collegium_bus.errors import RequestRefusedError
from collegium_bus.publisher import Publisher
from collegium_contracts import audit as a
from collegium_contracts import codec
from collegium_contracts import subjects as s
from collegium_contracts.audit_chain import ChainCheck, hash_of
from collegium_contracts.audit_requests import (
    AuditProof,
    AuditProofRequest,
    AuditRead,
    AuditRecordsReply,
    AuditVerdict,
    AuditVerify,
)
from collegium_runtime.audit import Audit
from collegium_testing.eventually import eventually

GUARDED = ("audit", "audit_heads", "audit_anchors", "audit_checkpoints")


class Trail:
    """A billing that seals, and hands to record, read, check and tamper with."""

    def __init__(self, world: Any, recorder: Audit) -> None:
        self.world = world
        self.recorder = recorder
        self.app: Any = None

    @property
    def sealer(self) -> Any:
        return self.app.audit.sealer

    async def record(self, tenant: str, *actions: str, **fields: Any) -> None:
        for action in actions:
            await self.recorder.record_now(self.recorder.entry(tenant, "k1", action, **fields))

    async def records(self, tenant: str | None = None) -> list[Any]:
        reply = await self.world.ask(
            s.SVC_BILLING_AUDIT_READ, AuditRead(tenant=tenant, ascending=True, limit=500), AuditRecordsReply
        )
        return reply.records

    async def actions(self, tenant: str) -> list[str]:
        return [record.action for record in await self.records(tenant)]

    async def sealed(self, tenant: str, *actions: str) -> None:
        async def stand() -> bool:
            return await self.actions(tenant) == list(actions)

        await eventually(stand)

    async def verify(self, tenant: str | None = None) -> dict[str, Any]:
        verdict = await self.world.ask(s.SVC_BILLING_AUDIT_VERIFY, AuditVerify(tenant=tenant), AuditVerdict)
        assert verdict.cursor == ""
        return {one.tenant: one for one in verdict.chains}

    async def problem(self, tenant: str | None = "acme") -> tuple[int, str] | None:
        verdicts = await self.verify(tenant)
        found = [one.problem for one in verdicts.values() if one.problem is not None]
        return (found[0].seq, found[0].kind) if found else None

    async def tamper(self, *statements: str) -> None:
        """Does what a superuser can: switches the guards off, changes rows, and leaves no trace of it."""
        async with self.world.pool.acquire() as connection:
            for table in GUARDED:
                await connection.execute(f"ALTER TABLE billing.{table} DISABLE TRIGGER USER")
            for statement in statements:
                await connection.execute(statement)
            for table in GUARDED:
                await connection.execute(f"ALTER TABLE billing.{table} ENABLE TRIGGER USER")


@pytest.fixture
async def trail(world: Any) -> Trail:
    gateway = Publisher(await world.connect("gateway"))
    trail = Trail(world, Audit(gateway, "gateway"))
    trail.app = await world.billing()
    await eventually(lambda: trail.sealer._ends is not None and trail.sealer._reader is not None)
    return trail


async def test_entries_are_sealed_by_tenant_in_the_order_of_the_stream(trail: Trail) -> None:
    await trail.record("acme", "keys.create", "keys.revoke", details={"name": "é\u2028\x00"}, reason="r" * 900)
    await trail.record("globex", "tenants.create")
    await trail.record("acme", "budgets.set")
    await trail.sealed("acme", "keys.create", "keys.revoke", "budgets.set")
    await trail.sealed("globex", "tenants.create")
    records = await trail.records("acme")
    assert [record.seq for record in records] == [1, 2, 3]
    assert [record.stream_sequence for record in records] == [1, 2, 4]
    assert records[0].details == {"name": "é\ufffd\ufffd"}
    assert len(records[0].reason) == a.MAX_TEXT_CHARS
    check = ChainCheck("acme")
    assert [check.take(record) for record in records] == [None, None, None]
    assert [one.tenant for one in await trail.records() if one.tenant != a.PLATFORM] == [
        "acme",
        "acme",
        "globex",
        "acme",
    ]
    assert await trail.problem(None) is None
    # What is sealed leaves the stream.
    await eventually(lambda: _standing(trail, 0))


async def _standing(trail: Trail, count: int) -> bool:
    info = msgspec.json.decode(await trail.world.gateway.api(f"STREAM.INFO.{s.AUDIT}"))
    return info["state"]["messages"] == count


async def test_an_entry_that_is_published_again_is_sealed_once(trail: Trail) -> None:
    entry = trail.recorder.entry("acme", "k1", "keys.create")
    await trail.recorder.record_now(entry)
    await trail.sealed("acme", "keys.create")
    # Past the broker's own window for duplicates: under another message id.
    publisher = Publisher(trail.world.gateway)
    await publisher.publish(s.audit("acme"), codec.encode(entry), message_id="again")
    await trail.record("acme", "keys.revoke")
    await trail.sealed("acme", "keys.create", "keys.revoke")


async def test_a_takeover_seals_everything_once_and_fences_the_one_before(trail: Trail) -> None:
    second = await trail.world.billing()
    for round_ in range(10):
        await trail.record("acme", f"act.{round_}")
        if round_ == 4:
            await trail.app.audit.sealer.stop()
    await trail.sealed("acme", *(f"act.{round_}" for round_ in range(10)))
    assert await trail.problem() is None
    assert second.audit.sealer.faults == 0
    # Somebody who was paused inside a term finds its epoch gone.
    store = AuditStore(trail.world.pool)
    stale = await store.claim()
    later = await store.claim()
    assert later.epoch == stale.epoch + 1
    with pytest.raises(FencedError):
        async with store.sealing(stale.epoch):
            pass


TAMPERINGS: dict[str, tuple[tuple[str, ...], tuple[int, str]]] = {
    "change": (("UPDATE billing.audit SET actor = 'nobody' WHERE tenant = 'acme' AND seq = 2",), (2, "altered")),
    "change with a new hash": (
        ("UPDATE billing.audit SET actor = 'nobody' WHERE tenant = 'acme' AND seq = 2",), (3, "unlinked"),
    ),
    "change of details": (
        ("""UPDATE billing.audit SET details = '{"n": "2"}' WHERE tenant = 'acme' AND seq = 3""",), (3, "altered"),
    ),
    "change of time": (
        ("UPDATE billing.audit SET at_ms = at_ms - 1 WHERE tenant = 'acme' AND seq = 1",), (1, "altered"),
    ),
    "delete": (("DELETE FROM billing.audit WHERE tenant = 'acme' AND seq = 2",), (2, "missing")),
    "delete the first": (("DELETE FROM billing.audit WHERE tenant = 'acme' AND seq = 1",), (1, "missing")),
    "delete the last": (("DELETE FROM billing.audit WHERE tenant = 'acme' AND seq = 4",), (4, "missing")),
    "delete and close the gap": (
        ("DELETE FROM billing.audit WHERE tenant = 'acme' AND seq = 2",
         "UPDATE billing.audit SET seq = 2 WHERE tenant = 'acme' AND seq = 3"), (2, "altered"),
    ),
    "reorder": (
        ("UPDATE billing.audit SET seq = 90 WHERE tenant = 'acme' AND seq = 2",
         "UPDATE billing.audit SET seq = 2 WHERE tenant = 'acme' AND seq = 3",
         "UPDATE billing.audit SET seq = 3 WHERE tenant = 'acme' AND seq = 90"), (2, "altered"),
    ),
    "insert at the end": ((), (5, "head")),
    "another tenant's record": (
        ("UPDATE billing.audit SET tenant = 'acme', seq = 5 WHERE tenant = 'globex' AND seq = 1",), (5, "altered"),
    ),
    "a head moved back": (
        ("DELETE FROM billing.audit WHERE tenant = 'acme' AND seq = 4",
         "UPDATE billing.audit_heads SET seq = 3, hash = (SELECT hash FROM billing.audit"
         " WHERE tenant = 'acme' AND seq = 3) WHERE tenant = 'acme'"), (3, "signature"),
    ),
    "a head removed": (("DELETE FROM billing.audit_heads WHERE tenant = 'acme'",), (4, "head")),
    "a checkpoint made up": (
        ("INSERT INTO billing.audit_checkpoints SELECT tenant, 2, hash, 0, 0, key_id, signature"
         " FROM billing.audit_heads WHERE tenant = 'acme'",
         "DELETE FROM billing.audit WHERE tenant = 'acme' AND seq <= 2"), (2, "signature"),
    ),
}  # fmt: skip


@pytest.mark.parametrize("what", TAMPERINGS)
async def test_what_a_superuser_does_to_the_rows_is_found(trail: Trail, what: str) -> None:
    await trail.record("acme", "one", "two", "three", "four", details={"n": "1"})
    await trail.record("globex", "other")
    await trail.sealed("acme", "one", "two", "three", "four")
    await trail.sealed("globex", "other")
    assert await trail.problem() is None
    statements, expected = TAMPERINGS[what]
    await trail.tamper(*statements)
    if what == "change with a new hash":
        changed = (await trail.records("acme"))[1]
        await trail.tamper(f"UPDATE billing.audit SET hash = '{hash_of(changed)}' WHERE tenant = 'acme' AND seq = 2")
    if what == "insert at the end":
        await forge(trail)
    assert await trail.problem() == expected


async def forge(trail: Trail) -> None:
    """Appends a record whose hash and link are right, and moves the end of the chain to it."""
    last = (await trail.records("acme"))[-1]
    forged = msgspec.structs.replace(last, seq=last.seq + 1, id="aud_forged", prev_hash=last.hash, stream_sequence=0)
    digest = hash_of(forged)
    await trail.tamper(
        "INSERT INTO billing.audit (tenant, seq, id, at_ms, sealed_at_ms, service, actor, action, object, outcome,"
        " reason, details, trace, count, stream, stream_sequence, prev_hash, hash)"
        " SELECT tenant, seq + 1, 'aud_forged', at_ms, sealed_at_ms, service, actor, action, object, outcome, reason,"
        " details, trace, count, stream, 0, hash,"
        f" '{digest}' FROM billing.audit WHERE tenant = 'acme' AND seq = {last.seq}"
    )


async def test_the_sealer_does_not_cover_for_what_was_forged(trail: Trail) -> None:
    await trail.record("acme", "one")
    await trail.sealed("acme", "one")
    await forge(trail)
    await trail.record("acme", "two")
    await trail.sealed("acme", "one", "one", a.HEAD_MISMATCH, "two")
    assert trail.sealer.faults == 1
    verdict = (await trail.verify("acme"))["acme"]
    assert (verdict.problem, verdict.findings) == (None, 1)


async def test_a_chain_that_vanished_as_a_whole_is_missed(trail: Trail) -> None:
    await trail.record("acme", "one")
    await trail.record("globex", "other")
    await trail.sealed("globex", "other")
    await anchor(trail)
    assert await trail.problem(None) is None
    await trail.tamper(*(f"DELETE FROM billing.{table} WHERE tenant = 'globex'" for table in GUARDED))
    assert (await trail.verify("acme"))["acme"].problem is None
    assert (await trail.verify())[a.PLATFORM].problem.kind == "digest"


async def anchor(trail: Trail) -> int:
    """Makes a round of anchors now, as the sealer does every hour."""
    row = await trail.world.pool.fetchrow("SELECT epoch, stream FROM billing.audit_cursor")
    return await trail.sealer._upkeep.anchor(row["epoch"], row["stream"])


async def test_anchors_are_made_of_what_moved_and_hold_what_was(trail: Trail) -> None:
    await trail.record("acme", "one", "two")
    await trail.sealed("acme", "one", "two")
    first = await anchor(trail)
    assert first > 0
    assert await anchor(trail) == 0
    await trail.record("acme", "three")
    await trail.sealed("acme", "one", "two", "three")
    assert await anchor(trail) == first + 1
    proof = await trail.world.ask(s.SVC_BILLING_AUDIT_PROOF, AuditProofRequest(tenant="acme"), AuditProof)
    assert [one.seq for one in proof.anchors][-2:] == [2, 3]
    assert (proof.first, proof.last, proof.head.seq) == (1, 3, 3)
    # A chain made anew with right hashes and a stolen end meets its anchor.
    await trail.tamper(f"UPDATE billing.audit_anchors SET hash = '{'0' * 64}' WHERE tenant = 'acme' AND seq = 3")
    assert await trail.problem() == (3, "signature")


async def test_the_guards_refuse_what_is_no_pruning(trail: Trail) -> None:
    await trail.record("acme", "one", "two")
    await trail.sealed("acme", "one", "two")
    for statement in (
        "UPDATE billing.audit SET actor = 'x'", "DELETE FROM billing.audit WHERE seq = 1", "TRUNCATE billing.audit",
        "UPDATE billing.audit_heads SET seq = seq - 1", "DELETE FROM billing.audit_heads",
        "DELETE FROM billing.audit_cursor",
    ):  # fmt: skip
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await trail.world.pool.execute(statement)
    assert await trail.problem() is None


async def test_a_pruned_chain_is_verified_from_its_checkpoint(trail: Trail) -> None:
    await trail.record("acme", *(f"act.{number}" for number in range(5)))
    await trail.sealed("acme", *(f"act.{number}" for number in range(5)))
    await anchor(trail)
    row = await trail.world.pool.fetchrow("SELECT epoch, stream FROM billing.audit_cursor")
    upkeep = trail.sealer._upkeep
    assert await upkeep.prune(row["epoch"], row["stream"], 0) == 0
    newest = (await trail.records("acme"))[-1].sealed_at_ms
    assert await upkeep.prune(row["epoch"], row["stream"], newest + 1) >= 4
    assert (await trail.actions("acme"))[0] == "act.4"
    assert (await trail.actions("acme"))[-1] == a.PRUNED
    assert await trail.problem(None) is None
    # Again: the record before the last one goes too, and the checkpoint moves on.
    await upkeep.prune(row["epoch"], row["stream"], newest + 60_000)
    assert await trail.problem(None) is None
    await trail.tamper("UPDATE billing.audit_checkpoints SET hash = 'x' WHERE tenant = 'acme'")
    assert (await trail.problem())[1] == "signature"


async def test_what_is_no_entry_leaves_a_record_and_holds_up_nothing(trail: Trail) -> None:
    publisher = Publisher(trail.world.gateway)
    await publisher.publish(s.audit("acme"), b"\xff no message", message_id="")
    stray = trail.recorder.entry("globex", "k1", "keys.create")
    await publisher.publish(s.audit("acme"), codec.encode(stray), message_id="")
    huge = msgspec.structs.replace(trail.recorder.entry("acme", "k1", "huge"), count=2**63)
    await publisher.publish(s.audit("acme"), codec.encode(huge), message_id="")
    await trail.record("acme", "after")
    await trail.sealed("acme", "after")
    told = [one for one in await trail.records(a.PLATFORM) if one.action == a.UNREADABLE]
    assert [one.reason for one in told][:2] == ["undecodable_message", "another_message"]
    assert len(told) == 3
    assert await trail.records("globex") == []


@pytest.mark.parametrize("removed", [1, 2])
async def test_entries_removed_from_the_stream_are_told_of(trail: Trail, removed: int) -> None:
    await trail.sealer.stop()
    await trail.record("acme", "one", "two", "three")
    await trail.world.gateway.api(f"STREAM.MSG.DELETE.{s.AUDIT}", b'{"seq":%d}' % removed)
    await trail.world.billing()
    await trail.sealed("acme", *(["two", "three"] if removed == 1 else ["one", "three"]))
    gap = next(one for one in await trail.records(a.PLATFORM) if one.action == a.GAP)
    assert gap.details == {"first": str(removed), "last": str(removed)}


async def test_a_stream_emptied_before_it_was_sealed_is_told_of(trail: Trail) -> None:
    await trail.sealer.stop()
    await trail.record("acme", "one", "two")
    await trail.world.gateway.api(f"STREAM.PURGE.{s.AUDIT}")
    await trail.world.billing()

    async def told() -> bool:
        gaps = [one.details for one in await trail.records(a.PLATFORM) if one.action == a.GAP]
        return gaps == [{"first": "1", "last": "2"}]

    await eventually(told)


async def test_a_stream_made_anew_is_sealed_from_its_begin(trail: Trail) -> None:
    await trail.record("acme", "one", "two")
    await trail.sealed("acme", "one", "two")
    await trail.sealer.stop()
    gateway = trail.world.gateway
    config = msgspec.json.decode(await gateway.api(f"STREAM.INFO.{s.AUDIT}"))["config"]
    await gateway.api(f"STREAM.DELETE.{s.AUDIT}")
    await gateway.api(f"STREAM.CREATE.{s.AUDIT}", msgspec.json.encode(config))
    await trail.record("acme", "three")
    await trail.world.billing()
    await trail.sealed("acme", "one", "two", "three")
    assert a.STREAM_REPLACED in await trail.actions(a.PLATFORM)
    assert await trail.problem(None) is None


async def test_a_long_check_goes_on_where_it_stopped(trail: Trail) -> None:
    for tenant in ("t1", "t2", "t3"):
        await trail.record(tenant, "one", "two")
    await trail.sealed("t3", "one", "two")
    verifier = trail.app.audit._questions._verifier
    cursor, seen = "", []
    while True:
        verdict = await verifier.verify(AuditVerify(cursor=cursor), budget_seconds=-1.0)
        seen += [one.tenant for one in verdict.chains]
        cursor = verdict.cursor
        if not cursor:
            break
    assert seen == ["t1", "t2", "t3"]


async def test_records_are_filtered_and_paged(trail: Trail) -> None:
    await trail.record("acme", "keys.create", "keys.revoke", "budgets.set")
    await trail.sealed("acme", "keys.create", "keys.revoke", "budgets.set")

    async def page(**fields: Any) -> AuditRecordsReply:
        return await trail.world.ask(s.SVC_BILLING_AUDIT_READ, AuditRead(**fields), AuditRecordsReply)

    first = await page(tenant="acme", limit=2)
    assert [one.action for one in first.records] == ["budgets.set", "keys.revoke"]
    rest = await page(tenant="acme", limit=2, cursor=first.next_cursor)
    assert ([one.action for one in rest.records], rest.next_cursor) == (["keys.create"], 0)
    assert len((await page(tenant="acme", action="keys")).records) == 2
    assert (await page(tenant="acme", action="key")).records == []
    assert (await page(tenant="acme", outcome="refused")).records == []
    times = [one.at_ms for one in await trail.records("acme")]
    assert len((await page(tenant="acme", from_ms=times[0], to_ms=times[-1] + 1)).records) == 3
    assert (await page(tenant="acme", from_ms=times[-1] + 1)).records == []
    assert (await page(to_ms=times[0])).records == []
    with pytest.raises(RequestRefusedError, match="NUL") as refused:
        await page(actor="a\0")
    assert refused.value.code == "invalid_value"


async def test_what_waits_in_the_recorder_is_stored_at_its_end(trail: Trail) -> None:
    for number in range(200):
        trail.recorder.record(trail.recorder.entry("acme", "k1", f"act.{number}"))
    await trail.recorder.stop()
    await trail.sealed("acme", *(f"act.{number}" for number in range(200)))
