"""Reports of gates are sums of what the trail tells; rules are part of what an answer is kept under."""

from __future__ import annotations

import msgspec
from collegium_contracts.audit import AuditRecord
from collegium_gateway.admission.admission import asked_by_chat
from collegium_gateway.admission.requests import decode_chat, parse
from collegium_gateway.operating.gate_report import DECISIONS, SUMS, Report
from collegium_gateway.reuse import cachekey


def record(seq: int, action: str, rule: str, **more) -> AuditRecord:
    details = {"rule": rule, "version": "v1", "kind": "pii", "point": "request", "project": "blue", "places": "2"}
    values = {
        "tenant": "acme", "seq": seq, "id": str(seq), "at_ms": 1_000 * seq, "sealed_at_ms": 0, "service": "gateway",
        "actor": "key1", "action": action, "object": f"tsk_{seq}", "outcome": "refused", "reason": "why",
        "details": details, "trace": "", "count": 1, "stream": "", "stream_sequence": 0, "prev_hash": "", "hash": "",
    }  # fmt: skip
    return AuditRecord(**values | more)


def test_decisions_are_summed_by_who_rule_and_result() -> None:
    report = Report()
    report.feed([record(1, "gate.blocked", "a"), record(3, "gate.blocked", "a")], details=True)
    report.feed([record(2, "gate.flagged", "a"), record(4, "gate.blocked", "b", tenant="globex")], details=True)
    sums = report.sums()
    assert [(row["tenant"], row["rule"], row["result"], row["count"]) for row in sums] == [
        ("acme", "a", "blocked", 2),
        ("acme", "a", "flagged", 1),
        ("globex", "b", "blocked", 1),
    ]
    assert (sums[0]["first_at"], sums[0]["last_at"]) == ("1970-01-01T00:00:01.000Z", "1970-01-01T00:00:03.000Z")
    assert all(tuple(row) == SUMS for row in sums)
    assert report.totals == {"blocked": 3, "flagged": 1}
    assert [tuple(row) for row in report.decisions] == [DECISIONS] * 4
    assert report.decisions[0]["task"] == "tsk_1"


def test_without_details_no_decision_is_kept() -> None:
    report = Report()
    report.feed([record(1, "gate.blocked", "a")], details=False)
    assert report.decisions == []


def test_rules_and_their_versions_are_part_of_a_key() -> None:
    body = msgspec.json.encode({"model": "sim", "messages": [{"role": "user", "content": "hi"}]})
    asked = asked_by_chat(parse(decode_chat, body))
    keys = [cachekey.digest("acme", asked, gates=gates) for gates in ((), ("a@1",), ("a@2",), ("a@1", "b@1"))]
    assert len(set(keys)) == 4
    assert cachekey.digest("acme", asked) == keys[0]
    settings = [cachekey.setting("acme", asked, (), gates) for gates in ((), ("a@1",), ("a@2",))]
    assert len(set(settings)) == 3
