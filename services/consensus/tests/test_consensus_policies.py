"""What was learned, as consensus takes it: a tenant's own first, garbage refused, the last good one kept."""

from __future__ import annotations

from typing import Any

from collegium_bus.connection import connect
from collegium_bus.kv import Bucket, Entry
from collegium_consensus.course import Seen, Settle, Terms, close, follow, judge
from collegium_consensus.policies import Policies
from collegium_contracts import subjects as s
from collegium_contracts.codec import encode
from collegium_contracts.state import Breaker, ConfidenceRecord
from collegium_learning.confidence.calibration import Calibration, Curve
from collegium_learning.confidence.policy import ConfidencePolicy, Promise, encode_policy
from collegium_testing import eventually


def policy(bias: float = 0.0, **fields: Any) -> ConfidencePolicy:
    return ConfidencePolicy(Calibration(Curve(bias=bias)), **fields)


def record(version: int, payload: bytes) -> bytes:
    return encode(ConfidenceRecord(version=version, made_at_ms=1, labels=40, policy=payload))


async def test_a_policy_is_taken_and_garbage_leaves_the_last_good_one(platforms: Any):
    platform = await platforms()
    policies = Policies(platform)
    good, own = policy(-1.0), policy(1.0)
    policies.use(Entry(s.CONFIDENCE_KEY, record(1, encode_policy(good)), 1))
    assert policies.of("acme") == (good, "all/1")
    policies.use(Entry(s.confidence_key("acme"), record(7, encode_policy(own)), 2))
    assert policies.of("acme") == (own, "tenant/7")
    assert policies.of("globex") == (good, "all/1")
    nan = record(2, encode_policy(policy(float("nan"))))
    for revision, garbage in enumerate((b"", b"\xc1", nan, record(3, b"x" * 99), encode(Breaker(model="m"))), 3):
        policies.use(Entry(s.CONFIDENCE_KEY, garbage, revision))
    assert policies.of("globex") == (good, "all/1")
    assert b'collegium_policy_refused_total{policy="confidence"} 5.0' in platform.metrics.render()
    policies.use(Entry("scoreboard", b"\xc1", 99))
    policies.use(Entry(s.CONFIDENCE_KEY, record(4, encode_policy(own)), 2))
    assert policies.of("globex") == (good, "all/1"), "an older value, read again"


async def test_a_policy_is_followed(platforms: Any, clean_nats_url: str):
    platform = await platforms()
    policies = Policies(platform)
    await policies.start()
    assert policies.of("acme").policy is None
    operator = await connect(clean_nats_url, "operator")
    await Bucket(operator, s.KV_POLICY).put(s.CONFIDENCE_KEY, record(1, encode_policy(policy())))
    await eventually(lambda: policies.of("acme").version == "all/1")
    bucket, key = Bucket(operator, s.KV_POLICY), s.confidence_key("acme")
    own = await bucket.put(key, record(7, encode_policy(policy())))
    await eventually(lambda: policies.of("acme").version == "tenant/7")
    await bucket.delete(key, expected_revision=own)
    await eventually(lambda: policies.of("acme").version == "all/1")
    assert key not in policies._revisions
    await bucket.put(key, record(8, encode_policy(policy())))
    await eventually(lambda: policies.of("acme").version == "tenant/8")
    policies.forget(Entry(key, b"", own, deleted=True))
    assert policies.of("acme").version == "tenant/8", "an older mark, read again"
    await policies.stop()
    await operator.close()


def seen(number: int, key: str, **fields: Any) -> Seen:
    return Seen(number, f"m{number}", key, 0, **fields)


def test_what_was_learned_decides_how_sure_a_verdict_is_and_whether_a_cascade_asks_on():
    ends = [seen(1, "a"), seen(2, "a")]
    sure = Terms("cascade", 3, 1_000, threshold=0.7, learned=policy(3.0), policy="all/2")
    doubtful = sure._replace(learned=policy(-3.0))
    settled = follow(ends, sure)
    assert isinstance(settled, Settle)
    assert settled.judgement is not None
    assert settled.judgement.confidence > 0.9
    evidence = settled.judgement.evidence
    assert evidence is not None
    assert (evidence.policy, evidence.camp, [one.camp for one in evidence.said]) == ("all/2", 1, [1, 1])
    assert not isinstance(follow(ends, doubtful), Settle)


def test_members_that_are_known_to_err_are_outvoted_by_one_that_does_not():
    ends = [seen(1, "a"), seen(2, "a"), seen(3, "b")]
    terms = Terms("panel", 3, 1_000, kind="choice")
    told = judge(ends, terms)
    assert told is not None
    assert told.winner == 1
    known = policy(right={"": {"m1": 0.26, "m2": 0.26, "m3": 0.97}})
    told = close(ends, terms._replace(learned=known)).judgement
    assert told is not None
    assert told.winner == 3


def test_a_threshold_is_a_domains_own_or_everybodys():
    promised = policy(promises={"": Promise(0.8, 0.02, 0.05), "law": Promise(None, 0.02, 0.05)})
    assert promised.threshold("sums") == 0.8
    assert promised.threshold("law") is None
