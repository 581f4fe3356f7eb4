"""The table agrees with itself: subjects, streams, consumers and rights are one story."""

import os
import re

import pytest
from collegium_contracts import ids, permissions
from collegium_contracts import subjects as s
from collegium_contracts.consumers import CONSUMERS, work_consumer
from collegium_contracts.journey import BUCKETS, HOPS, SERVICES, STREAMS, template

TASK = "tsk_" + "0" * 26
BUILT = [
    s.task_submitted("high", 3, "acme"),
    s.task_more("high", 3, "acme"),
    s.capacity("general", "w1"),
    s.attempt_retried("acme", TASK, 1, 2),
    s.work("general", "low"),
    s.attempt_started("acme", TASK, 1, 2),
    s.attempt_ended("acme", TASK, 1),
    s.attempt_discarded("acme", TASK, 1, 2),
    s.attempt_asked("acme", TASK, 1),
    s.attempt_tested("acme", TASK, 1),
    s.attempt_checkpoint("acme", TASK, 1),
    s.task_settled("acme", TASK),
    s.task_changed("acme", TASK),
    s.task_paused("acme", TASK, "answer"),
    s.task_input("acme", TASK, "answer-1"),
    s.cancel("acme", TASK),
    s.feedback("acme", TASK),
    s.probe("acme", TASK),
    s.reused("gw1"),
    s.done("gw1", TASK),
    s.token("acme", TASK),
    s.schedule_task("acme", TASK),
    s.schedule_cron("acme", "sch_" + "0" * 26),
    s.schedule_due(3),
    s.ledger_journal(3),
    s.ledger_snapshot(3),
    s.dead("billing", "acme"),
    s.audit("acme"),
    *(s.again(one.durable, 7, s.task_settled("acme", TASK)) for one in CONSUMERS if one.stream == s.EVENTS),
]


def matches(pattern: str, subject: str) -> bool:
    regex = re.escape(pattern).replace(r"\*", "[^.]+").replace(">", ".+")
    return re.fullmatch(regex, subject) is not None


@pytest.mark.parametrize("subject", BUILT)
def test_a_subject_belongs_to_one_hop_and_to_that_hops_stream(subject):
    hops = [hop for hop in HOPS if matches(hop.filter, subject)]
    assert len(hops) == 1
    streams = [stream.name for stream in STREAMS if any(matches(one, subject) for one in stream.subjects)]
    assert streams == ([hops[0].stream] if hops[0].stream else [])


def test_every_hop_is_built_by_a_builder():
    for hop in HOPS:
        assert any(matches(hop.filter, subject) for subject in BUILT), hop.subject


@pytest.mark.parametrize("consumer", [*CONSUMERS, work_consumer("general")], ids=lambda one: one.durable)
def test_a_consumer_reads_what_its_stream_holds_and_its_service_receives(consumer):
    stream = next(stream for stream in STREAMS if stream.name == consumer.stream)
    for pattern in consumer.filters:
        probes = [subject for subject in BUILT if matches(pattern, subject)]
        assert probes or pattern in ("attempt.>", s.MAX_DELIVERIES_ALL)
        for subject in probes:
            assert any(matches(one, subject) for one in stream.subjects)


def test_who_receives_a_stored_hop_has_a_way_to_read_it():
    ordered = {"router": {s.INGRESS, s.EVENTS}, "worker-pool": {s.EVENTS}, "gateway": {s.EVENTS}, "billing": {s.AUDIT}}
    for hop in HOPS:
        if hop.stream is None:
            continue
        for receiver in hop.receivers:
            durable = any(
                consumer.service == receiver and consumer.stream == hop.stream
                for consumer in [*CONSUMERS, work_consumer("general")]
            )
            assert durable or hop.stream in ordered.get(receiver, set()), (hop.subject, receiver)


def test_event_subjects_read_back():
    assert s.parse_event(s.attempt_started("acme", TASK, 4, 2)) == ("started", "acme", TASK, 4, 2)
    assert s.parse_event(s.task_settled("acme", TASK)) == ("settled", "acme", TASK, 0, 0)
    assert s.parse_event(s.cancel("acme", TASK)) == ("cancel", "acme", TASK, 0, 0)
    assert s.parse_event("task.nonsense") is None


def test_templates_name_the_stored_and_the_core_hop():
    assert template("TaskCompleted") == "task.settled.<tenant>.<task>"
    assert template("TaskCompleted", stored=False) == "done.<replica>.<task>"
    with pytest.raises(KeyError):
        template("Nonsense")


@pytest.mark.parametrize("service", SERVICES)
def test_a_service_may_publish_its_hops_and_no_others(service):
    rights = permissions.permissions(service)
    for hop in HOPS:
        may = hop.filter in rights.publish or (hop.filter == s.DEAD_ALL and s.dead_of(service) in rights.publish)
        assert may == (service in hop.senders), hop.subject
    assert not any(
        subject.startswith(("$JS.API.STREAM.CREATE", "$JS.API.STREAM.UPDATE", "$JS.API.STREAM.DELETE"))
        for subject in rights.publish
    )
    for bucket in BUCKETS:
        assert (f"$KV.{bucket.name}.>" in rights.publish) == (service in bucket.writers)


@pytest.mark.parametrize("service", SERVICES)
def test_a_service_reads_its_own_inbox_and_no_others(service):
    inboxes = [subject for subject in permissions.permissions(service).subscribe if subject.startswith("_INBOX")]
    assert inboxes == [f"_INBOX.{service}.>"]


def test_task_ids_sort_by_time_and_fit_their_pattern():
    made = [ids.task_id(now, os.urandom(10)) for now in range(1_700_000_000_000, 1_700_000_000_050)]
    assert made == sorted(made)
    assert all(ids.TASK_ID.match(one) for one in made)
    assert ids.TASK_ID.match(ids.task_id_from_key("acme", "k", 1))
    assert ids.task_id_from_key("acme", "k", 1) != ids.task_id_from_key("globex", "k", 1)


def test_a_tenant_has_one_shard_and_tenants_spread_over_all():
    shards = {ids.shard_of(f"tenant-{number}") for number in range(200)}
    assert shards == set(ids.SHARDS)
    assert ids.shard_of("acme") == ids.shard_of("acme")


@pytest.mark.parametrize("bad", ["", "a b", "a.b", "A", "a" * 41, "a\n", "*", ">"])
def test_what_would_break_a_subject_is_no_tenant_id(bad):
    assert ids.TENANT_ID.match(bad) is None
