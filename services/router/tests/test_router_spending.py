"""What was spent outlives the router that counted it: debts against targets, and what learning may still cost."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from collegium_bus import topology
from collegium_bus.connection import connect
from collegium_bus.errors import BrokerUnavailableError, NoAnswerError
from collegium_bus.kv import VALUE_BYTES_MAX, Bucket
from collegium_contracts import codec, ids
from collegium_contracts import subjects as s
from collegium_contracts.spending import SpendingKept
from collegium_learning.probing.allowance import OUT_MAX, Allowance
from collegium_learning.routing.spending import Target
from collegium_router.choosing.policies import Aims, Policies
from collegium_router.dispatching.probes import Probes
from collegium_router.limits.spending_kept import SpendingKeeper
from collegium_settings import Settings
from collegium_settings.probes import ProbeSettings
from collegium_settings.settings import EvolutionSettings

DAY_MS = 86_400_000
SHARD = ids.shard_of("acme")
TARGET = Target(1_000, DAY_MS)
FAR_MS = 1_767_225_600_000 + DAY_MS


class Router:
    """The parts of a router that count what is spent."""

    def __init__(self, connection: Any, clock: SimpleNamespace, targets: dict[str, Target]) -> None:
        probing = ProbeSettings(audit_share=1.0, budget_share=0.5, all_tenants=True)
        platform: Any = SimpleNamespace(
            connection=connection, publisher=None, now_ms=lambda: clock.now,
            settings=Settings(evolution=EvolutionSettings(probes=probing)),
        )  # fmt: skip
        self.probes = Probes(platform, SimpleNamespace(models={}))  # pyright: ignore[reportArgumentType]
        self.policies = Policies(Aims(spend=targets))
        self.leases_stand = True
        self.keeper = SpendingKeeper(platform, self.probes, self.policies, lambda _shard: self.leases_stand)

    async def owns(self, *shards: int) -> None:
        self.keeper.own(frozenset(shards))
        await self.keeper.look()

    def earned(self, picos: int) -> None:
        """Earns so much for the probes of ``acme``."""
        self.probes.allowance("acme").earn(2 * picos)

    def pressure(self, name: str, now_ms: int) -> float:
        return self.policies._spending.pressure(name, now_ms)


class Faulty:
    """A bucket, of which ``on_put`` is told before a value is stored; acknowledgements are lost, or keys unreadable."""

    def __init__(self, bucket: Any, *, loses: bool = False, unreadable: str = "", on_put: Any = None) -> None:
        self._bucket, self._loses, self._unreadable, self._on_put = bucket, loses, unreadable, on_put

    async def put(self, *args: Any, **fields: Any) -> int:
        if self._on_put is not None:
            self._on_put()
        revision = await self._bucket.put(*args, **fields)
        if self._loses:
            raise BrokerUnavailableError("no acknowledgement")
        return revision

    def entries(self, key: str) -> Any:
        if key == self._unreadable:
            raise NoAnswerError("away")
        return self._bucket.entries(key)


async def standing(town: Any, shard: int = SHARD) -> SpendingKept:
    value = codec.state.decode((await town.bucket.get(str(shard))).value)
    assert isinstance(value, SpendingKept)
    return value


@pytest.fixture
async def town(clean_nats_url: str) -> Any:
    connection = await connect(clean_nats_url, "operator")
    await topology.apply(connection, await topology.plan(connection, pools=[]))
    clock = SimpleNamespace(now=1_767_225_600_000)
    yield SimpleNamespace(
        clock=clock,
        router=lambda targets=None: Router(connection, clock, {"acme": TARGET} if targets is None else targets),
        bucket=Bucket(connection, s.KV_SPENDING),
    )
    await connection.close()


async def test_who_takes_over_knows_what_was_spent_and_what_learning_may_still_cost(town: Any) -> None:
    first = town.router()
    await first.owns(SHARD)
    first.policies.spent("acme", "web", 1_100, town.clock.now)
    first.probes.allowance("acme").earn(200)
    assert first.probes.allowance("acme").spend("out", 60, FAR_MS)
    pressure = first.pressure("acme", town.clock.now)
    assert pressure > 0
    await first.keeper.look()
    # It is killed: nothing more of it is heard. Meanwhile time pays back.
    second = town.router()
    await second.owns(SHARD)
    assert second.pressure("acme", town.clock.now) == pressure
    assert second.pressure("acme", town.clock.now + DAY_MS) == 0
    allowance = second.probes.allowance("acme")
    assert not allowance.spend("more", 41, FAR_MS)
    assert allowance.spend("more", 40, FAR_MS)
    allowance.ended("out", 10)
    assert allowance.spend("again", 50, FAR_MS)
    assert not allowance.spend("beyond", 1, FAR_MS)


async def test_what_was_counted_before_it_was_read_is_added_and_nothing_is_written_twice(town: Any) -> None:
    first = town.router()
    await first.owns(SHARD)
    first.probes.allowance("acme").earn(200)
    await first.keeper.look()
    second = town.router()
    second.probes.allowance("acme").earn(20)
    await second.owns(SHARD)
    assert second.probes.kept(SHARD)[0] == 110
    await second.keeper.look()
    entry = await town.bucket.get(str(SHARD))
    await second.keeper.look()
    assert (await town.bucket.get(str(SHARD))).revision == entry.revision, "what has not changed is not written"
    # The first one's lease is over, and it was not told yet.
    first.leases_stand = False
    first.probes.allowance("acme").earn(2)
    await first.keeper.look()
    standing = codec.state.decode((await town.bucket.get(str(SHARD))).value)
    assert isinstance(standing, SpendingKept)
    assert standing.earned_picos == 110
    second.keeper.own(frozenset())
    assert second.probes.kept(SHARD) == (0.0, 0, {}), "another counts it now"


async def test_a_debt_against_another_target_and_what_cannot_be_read_count_no_more(town: Any) -> None:
    first = town.router()
    await first.owns(SHARD)
    first.policies.spent("acme", "web", 1_100, town.clock.now)
    await first.keeper.stop()
    other = town.router({"acme": Target(1_000_000, DAY_MS)})
    await other.owns(SHARD)
    assert other.pressure("acme", town.clock.now) == 0
    entry = await town.bucket.get(str(SHARD))
    await town.bucket.put(str(SHARD), b"\xc1", expected_revision=entry.revision)
    last = town.router()
    await last.owns(SHARD)
    last.probes.allowance("acme").earn(2)
    await last.keeper.look()
    standing = codec.state.decode((await town.bucket.get(str(SHARD))).value)
    assert isinstance(standing, SpendingKept)
    assert standing.earned_picos == 1


async def test_a_write_whose_acknowledgement_was_lost_is_written_over(town: Any) -> None:
    first = town.router()
    await first.owns(SHARD)
    first.earned(100)
    bucket = first.keeper._bucket
    first.keeper._bucket = Faulty(bucket, loses=True)
    await first.keeper.look()
    assert (await standing(town)).earned_picos == 100
    first.keeper._bucket = bucket
    first.earned(10)
    await first.keeper.stop()
    assert (await standing(town)).earned_picos == first.probes.kept(SHARD)[0] == 110, "counted once, and kept"


async def test_a_former_owners_late_write_and_a_deletion_are_written_over(town: Any) -> None:
    first, second = town.router(), town.router()
    await first.owns(SHARD)
    first.earned(100)
    await first.keeper.look()
    await second.owns(SHARD)
    first.earned(1)
    await first.keeper.look()
    first.leases_stand = False
    for _ in range(2):
        second.earned(5)
        await second.keeper.look()
        await first.keeper.look()
    assert (await standing(town)).earned_picos == second.probes.kept(SHARD)[0] == 110
    for router in (second, town.router()):
        entry = await town.bucket.get(str(SHARD))
        await town.bucket.delete(str(SHARD), expected_revision=entry.revision)
        await router.owns(SHARD)
        router.earned(7)
        await router.keeper.stop()
        assert (await standing(town)).earned_picos == router.probes.kept(SHARD)[0]


async def test_what_was_lost_and_taken_again_while_it_was_written_is_read_again(town: Any) -> None:
    router = town.router()
    await router.owns(SHARD)

    def lapse() -> None:
        router.keeper.own(frozenset())
        router.keeper.own(frozenset((SHARD,)))

    bucket = router.keeper._bucket
    router.keeper._bucket = Faulty(bucket, on_put=lapse)
    router.earned(100)
    await router.keeper.look()
    router.keeper._bucket = bucket
    router.earned(10)
    await router.keeper.stop()
    assert (await standing(town)).earned_picos == 110


async def test_a_shard_that_cannot_be_read_keeps_no_other_from_being_kept(town: Any) -> None:
    router = town.router()
    other = ids.shard_of("globex")
    assert other > SHARD, "they are looked at in this order"
    router.keeper._bucket = Faulty(town.bucket, unreadable=str(SHARD))
    await router.owns(SHARD, other)
    router.probes.allowance("globex").earn(20)
    await router.keeper.look()
    assert (await standing(town, other)).earned_picos == 10


async def test_probes_that_have_surely_ended_are_kept_no_longer(town: Any) -> None:
    first = town.router()
    await first.owns(SHARD)
    first.earned(100)
    assert first.probes.allowance("acme").spend("out", 60, town.clock.now + 5)
    await first.keeper.look()
    assert list((await standing(town)).out) == ["out"]
    town.clock.now += 5
    await first.keeper.look()
    kept = await standing(town)
    assert (kept.spent_picos, kept.out) == (60, {})


def test_however_many_probes_are_out_what_is_kept_of_them_fits_one_value():
    allowance, before = Allowance(1.0), Allowance(1.0)
    for number in range(OUT_MAX + 1):
        for one, seed in ((allowance, number), (before, number + 2 * OUT_MAX)):
            one.earn(10**12)
            assert one.spend(ids.task_id(FAR_MS, seed.to_bytes(10, "big")), 10**12, FAR_MS)
    allowance.load(*before.kept())
    earned, spent, out = allowance.kept()
    assert (spent, len(out)) == (2 * (OUT_MAX + 1) * 10**12, OUT_MAX)
    kept = SpendingKept(shard=0, at_ms=FAR_MS, earned_picos=earned, spent_picos=spent, out=out)
    assert len(codec.encode(kept)) < 0.75 * VALUE_BYTES_MAX
