"""The tables cover each other without a gap or an overlap, and no id or subject can break another."""

from __future__ import annotations

import contextlib
import inspect
import itertools
import string

import msgspec
import pytest
from collegium_contracts import (
    audit,
    audit_requests,
    belongings,
    codec,
    content,
    domain_requests,
    domains,
    embedding,
    envelope,
    evolution,
    experiment_requests,
    experiments,
    gate_requests,
    gates,
    identity,
    ids,
    knowledge,
    ledger,
    likeness,
    memory_requests,
    messages,
    modelstate,
    permissions,
    policies,
    policy_requests,
    reports,
    requests,
    roster_requests,
    service_messages,
    spending,
    state,
    students,
    windows,
)
from collegium_contracts import subjects as s
from collegium_contracts.consumers import CONSUMERS, consumer, work_consumer
from collegium_contracts.errors import ERRORS, InvalidIdError, UndecodableMessageError, UnknownVersionError, kind_of
from collegium_contracts.journey import ASKS, BUCKETS, HOPS, SERVICES, STREAMS, hops_between
from collegium_contracts.people import STAGES
from hypothesis import given
from hypothesis import strategies as st

TOKEN = st.text(string.ascii_lowercase + string.digits + "-", min_size=1, max_size=40)
TASK = st.builds(ids.task_id, st.integers(0, 2**47), st.binary(min_size=10, max_size=10))
SCHEDULE = st.builds(ids.schedule_id, st.integers(0, 2**47), st.binary(min_size=10, max_size=10))
SMALL = st.integers(1, 10_000)
PRIORITY = st.sampled_from(["high", "normal", "low"])
# Each builder with what it takes, the hop that its subjects belong to, and what reading them back must tell.
BUILDERS = {
    "task.submitted.<priority>.<shard>.<tenant>": (s.task_submitted, PRIORITY, st.sampled_from(ids.SHARDS), TOKEN),
    "task.more.<priority>.<shard>.<tenant>": (s.task_more, PRIORITY, st.sampled_from(ids.SHARDS), TOKEN),
    "capacity.<pool>.<worker>": (s.capacity, TOKEN, TOKEN),
    "attempt.<tenant>.<task>.<n>.retried.<try>": (s.attempt_retried, TOKEN, TASK, SMALL, SMALL),
    "work.<pool>.<priority>": (s.work, TOKEN, PRIORITY),
    "attempt.<tenant>.<task>.<n>.started.<delivery>": (s.attempt_started, TOKEN, TASK, SMALL, SMALL),
    "attempt.<tenant>.<task>.<n>.ended": (s.attempt_ended, TOKEN, TASK, SMALL),
    "attempt.<tenant>.<task>.<n>.discarded.<delivery>": (s.attempt_discarded, TOKEN, TASK, SMALL, SMALL),
    "attempt.<tenant>.<task>.<n>.asked": (s.attempt_asked, TOKEN, TASK, SMALL),
    "attempt.<tenant>.<task>.<n>.tested": (s.attempt_tested, TOKEN, TASK, SMALL),
    "attempt.<tenant>.<task>.<n>.checkpoint": (s.attempt_checkpoint, TOKEN, TASK, SMALL),
    "task.settled.<tenant>.<task>": (s.task_settled, TOKEN, TASK),
    "task.changed.<tenant>.<task>": (s.task_changed, TOKEN, TASK),
    "task.changed.<tenant>.<task>.<stage>": (s.task_paused, TOKEN, TASK, st.sampled_from(STAGES)),
    "task.input.<tenant>.<task>.<question>": (s.task_input, TOKEN, TASK, TOKEN),
    "ctl.cancel.<tenant>.<task>": (s.cancel, TOKEN, TASK),
    "feedback.<tenant>.<task>": (s.feedback, TOKEN, TASK),
    "probe.<tenant>.<task>": (s.probe, TOKEN, TASK),
    "reused.<replica>": (s.reused, TOKEN),
    "done.<replica>.<task>": (s.done, TOKEN, TASK),
    "token.<tenant>.<task>": (s.token, TOKEN, TASK),
    "schedule.task.<tenant>.<task>": (s.schedule_task, TOKEN, TASK),
    "schedule.cron.<tenant>.<schedule>": (s.schedule_cron, TOKEN, SCHEDULE),
    "ledger.journal.<shard>": (s.ledger_journal, st.sampled_from(ids.SHARDS)),
    "ledger.snapshot.<shard>": (s.ledger_snapshot, st.sampled_from(ids.SHARDS)),
    "schedule.due.<shard>": (s.schedule_due, st.sampled_from(ids.SHARDS)),
    "dead.<service>.<tenant>": (s.dead, st.sampled_from(SERVICES), st.one_of(st.just(""), TOKEN)),
    "again.<durable>.<letter>.<subject>": (s.again, TOKEN, SMALL, TOKEN),
    "audit.<tenant>": (s.audit, st.one_of(st.just(audit.PLATFORM), TOKEN)),
}
OVERLAPPING_PARTS = ["task", "submitted", "work", "attempt", "ended", "x", "1", "started", "settled", "dead"]


def matches(pattern: str, subject: str) -> bool:
    """The broker's own rule: ``*`` is one token, a last ``>`` one or more."""
    wanted, given_tokens = pattern.split("."), subject.split(".")
    for index, token in enumerate(wanted):
        if token == ">":
            return len(given_tokens) > index
        if index >= len(given_tokens) or token not in ("*", given_tokens[index]):
            return False
    return len(wanted) == len(given_tokens)


def overlap(first: str, second: str) -> bool:
    """Whether some subject matches both patterns."""
    for one, other in itertools.zip_longest(first.split("."), second.split(".")):
        if one is None or other is None:
            return False
        if ">" in (one, other):
            return True
        if one != other and "*" not in (one, other):
            return False
    return True


def test_every_hop_has_a_builder_and_every_builder_a_hop():
    assert sorted(BUILDERS) == sorted(hop.subject for hop in HOPS)


@given(st.data())
def test_what_a_builder_makes_belongs_to_its_hop_and_its_stream_alone(data):
    for hop in HOPS:
        builder, *arguments = BUILDERS[hop.subject]
        subject = builder(*(data.draw(argument) for argument in arguments))
        assert [one.subject for one in HOPS if matches(one.filter, subject)] == [hop.subject]
        kept = [one.name for one in STREAMS if any(matches(pattern, subject) for pattern in one.subjects)]
        assert kept == ([hop.stream] if hop.stream else [])
        assert not any(subject.startswith(prefix) for prefix in s.INTERNAL_PREFIXES)
        assert len(subject.split(".")) == len(hop.subject.split("."))


NO_IDS = (
    "", "*", ">", "a.b", "x y", "A", "_acme", "x" * 41, "../../etc/passwd", "a\n", "zz 12 12\r\nPUB audit.globex 5",
)  # fmt: skip
OF_TENANTS = (
    *(builder for subject, (builder, *_) in BUILDERS.items() if "<tenant>" in subject and builder is not s.dead),
    *(s.attempt_starts, s.attempts_of, s.settled_of_tenant, s.task_told, s.inputs_of, s.pauses_of, s.schedule_key),
    *(s.cache_key, s.embedding_key, s.cache_cleared, s.confidence_key, belongings.bucket_of, belongings.ingress_of),
    *(belongings.events_of, belongings.crons_of, belongings.scheduled_of, policies.routing_key, experiments.set_key),
    *(experiments.arm_key, s.dead_of),
)
# For them it means: of no tenant.
WITHOUT = (s.confidence_key, experiments.set_key, s.dead_of)


@pytest.mark.parametrize("builder", OF_TENANTS, ids=lambda one: one.__name__)
@pytest.mark.parametrize("tenant", NO_IDS)
def test_nothing_is_named_with_a_tenant_that_is_no_id(builder, tenant):
    if not tenant and builder in WITHOUT:
        return
    names = list(inspect.signature(builder).parameters)
    arguments = {name: tenant if name == "tenant" else b"1" if name == "digest" else "1" for name in names}
    with pytest.raises(InvalidIdError, match="is no tenant's id"):
        builder(**arguments)
    builder(**arguments | {"tenant": "acme"})


@pytest.mark.parametrize("tenant", NO_IDS)
def test_a_letter_of_no_tenant_that_is_one_stands_under_nobodys_name(tenant):
    assert s.dead("billing", tenant) == "dead.billing.-"


def test_all_of_one_task_is_found_under_its_tenant_and_under_nobodys_name():
    task, stage = "tsk_1", STAGES[0]
    one_each = [
        s.task_changed("acme", task), s.task_paused("acme", task, stage), s.task_input("acme", task, f"{stage}-1"),
        s.attempt_ended("acme", task, 1), s.attempt_started("acme", task, 1, 1), s.task_settled("acme", task),
        s.cancel("acme", task), s.feedback("acme", task), s.probe("acme", task),
    ]  # fmt: skip
    for filters in (s.events_of_task(task), s.events_of_task(task, "acme")):
        assert all(sum(matches(one, subject) for one in filters) == 1 for subject in one_each)
        assert not any(matches(one, s.task_settled("acme", "tsk_2")) for one in filters)
    assert not any(matches(one, s.task_settled("globex", task)) for one in s.events_of_task(task, "acme"))
    for tenant in NO_IDS:
        with pytest.raises(InvalidIdError) if tenant else contextlib.nullcontext():
            s.events_of_task(task, tenant)


def test_the_platforms_own_chain_and_policy_are_no_tenants():
    assert s.audit(audit.PLATFORM) == "audit._platform"
    assert policies.routing_key(policies.OPERATOR) == "routing._operator"
    with pytest.raises(InvalidIdError):
        s.audit(policies.OPERATOR)


@given(TOKEN, TASK, SMALL, SMALL)
def test_a_subject_of_events_reads_back(tenant, task, number, delivery):
    about = (tenant, task, number)
    assert s.parse_event(s.attempt_started(tenant, task, number, delivery)) == ("started", *about, delivery)
    assert s.parse_event(s.attempt_ended(tenant, task, number)) == ("ended", *about, 0)
    assert s.parse_event(s.attempt_retried(tenant, task, number, delivery)) == ("retried", *about, delivery)
    assert s.parse_event(s.attempt_discarded(tenant, task, number, delivery)) == ("discarded", *about, delivery)
    assert s.parse_event(s.attempt_asked(tenant, task, number)) == ("asked", *about, 0)
    assert s.parse_event(s.attempt_tested(tenant, task, number)) == ("tested", *about, 0)
    assert s.parse_event(s.attempt_checkpoint(tenant, task, number)) == ("checkpoint", *about, 0)
    assert s.parse_event(s.task_settled(tenant, task)) == ("settled", tenant, task, 0, 0)
    assert s.parse_event(s.task_changed(tenant, task)) == ("changed", tenant, task, 0, 0)
    assert s.parse_event(s.cancel(tenant, task)) == ("cancel", tenant, task, 0, 0)


@given(st.one_of(st.text(), st.lists(st.sampled_from([*OVERLAPPING_PARTS, "²", "", "*"])).map(".".join)))
def test_no_subject_breaks_the_reader_of_subjects(subject):
    assert s.parse_event(subject) is None or subject.startswith(("task.", "ctl.", "attempt."))


@given(TOKEN, SMALL, TOKEN, TASK)
def test_what_one_consumer_gets_again_reads_as_it_first_did(durable, letter, tenant, task):
    first = s.task_settled(tenant, task)
    again = s.again(durable, letter, first)
    assert s.original(again) == s.original(first) == first
    assert matches(s.again_of(durable), again)
    assert not matches(s.again_of("x" + durable), again)
    assert not any(matches(one, again) for one in (s.TASK_SETTLED_ALL, s.ATTEMPT_ALL, s.CANCEL_ALL))


def test_every_consumer_of_events_gets_its_own_again_and_no_others():
    for declared in CONSUMERS:
        again = [pattern for pattern in declared.filters if overlap(pattern, s.AGAIN_ALL)]
        assert again == ([s.again_of(declared.durable)] if declared.stream == s.EVENTS else [])


def test_a_digit_that_is_no_number_is_no_attempt():
    assert s.parse_event("attempt.acme.tsk_1.².ended") is None


def test_narrow_filters_lie_within_their_hop():
    assert matches(s.ingress_shard(3), s.task_submitted("low", 3, "acme"))
    assert not matches(s.ingress_shard(3), s.task_submitted("low", 2, "acme"))
    assert matches(s.ingress_shard(3), s.task_more("low", 3, "acme"))
    assert matches(s.attempt_starts("acme", "t", 1), s.attempt_started("acme", "t", 1, 7))
    assert matches(s.work_pool("general"), s.work("general", "low"))
    assert matches(s.done_replica("gw1"), s.done("gw1", "t"))
    assert not matches(s.done_replica("gw1"), s.done("gw2", "t"))
    assert matches(s.attempts_of("acme", "t"), s.attempt_ended("acme", "t", 1))
    assert not matches(s.attempts_of("acme", "t"), s.attempt_ended("globex", "t", 1))
    assert matches(s.settled_of_tenant("acme"), s.task_settled("acme", "t"))
    assert not matches(s.settled_of_tenant("acme"), s.task_settled("globex", "t"))


def test_no_two_streams_and_no_two_hops_share_a_subject():
    kept = [(stream.name, pattern) for stream in STREAMS for pattern in stream.subjects]
    assert [pair for pair in itertools.combinations(kept, 2) if overlap(pair[0][1], pair[1][1])] == []
    hops = [hop.filter for hop in HOPS] + [asked.subject for asked in ASKS]
    assert [pair for pair in itertools.combinations(hops, 2) if overlap(*pair)] == []


def test_a_stored_hop_lies_in_its_stream_and_a_core_hop_in_none():
    for hop in HOPS:
        homes = [stream.name for stream in STREAMS if any(overlap(pattern, hop.filter) for pattern in stream.subjects)]
        assert homes == ([hop.stream] if hop.stream else []), hop.subject


def test_every_stream_carries_a_hop_and_has_limits_and_a_reason():
    # What the broker itself says is no hop.
    assert {hop.stream for hop in HOPS if hop.stream} == {stream.name for stream in STREAMS} - {s.ADVISORIES}
    for stream in STREAMS:
        assert stream.max_bytes > 0, stream.name
        assert stream.note, stream.name
        assert stream.duplicate_window_seconds >= 60, "longer than any publish is tried again"
        assert stream.discard == "new" or stream.max_age_seconds > 0, stream.name
        assert not stream.discard_new_per_subject or stream.max_messages_per_subject > 0, stream.name


def test_messages_that_stand_once_are_kept_in_events():
    """A publisher looks there whether its own first try stands."""
    assert {hop.stream for hop in HOPS if hop.create_once} == {s.EVENTS}


def test_every_message_class_travels_or_is_a_base():
    bases = {messages.Message, messages.Settled}
    classes = {
        value
        for value in vars(messages).values()
        if isinstance(value, type) and issubclass(value, messages.Message) and value not in bases
    }
    assert {one.__name__ for one in classes} == {name for hop in HOPS for name in hop.messages}
    assert classes == set(messages.JourneyMessage.__args__)
    for union in (messages.SettledMessage, messages.AttemptEnded):
        assert set(union.__args__) <= classes


def test_every_question_and_state_value_is_in_its_union():
    questions = (service_messages.ServiceRequest, service_messages.ServiceReply)
    asked = (
        requests,
        identity,
        audit_requests,
        knowledge,
        ledger,
        likeness,
        reports,
        memory_requests,
        embedding,
        evolution,
        policy_requests,
        students,
        roster_requests,
        domain_requests,
        gate_requests,
        experiment_requests,
    )
    stated = (state, gates, policies, domains, windows, spending, modelstate, experiments)
    for modules, unions in ((asked, questions), (stated, (state.StateValue,))):
        members = {member for union in unions for member in union.__args__}
        declared = {
            value
            for module in modules
            for value in vars(module).values()
            if isinstance(value, type) and issubclass(value, messages.Message) and value.__module__ == module.__name__
        }
        assert declared == members


def test_senders_and_receivers_are_services():
    names = set(SERVICES)
    for hop in HOPS:
        assert hop.senders or hop.stream == s.SCHEDULE, hop.subject
        assert {*hop.senders, *hop.receivers} <= names
        assert hop.messages
        assert hop.note
    for asked in ASKS:
        assert {*asked.asker, asked.answerer} <= names
    for bucket in BUCKETS:
        assert {*bucket.readers, *bucket.writers} <= names
        assert bucket.writers
    assert {one.service for one in CONSUMERS} <= names
    assert {*permissions.ORDERED_READERS, *permissions.DIRECT_READERS} <= names


def test_every_question_is_asked_of_somebody():
    subjects = {value for name, value in vars(s).items() if name.startswith("SVC_") and not name.endswith("_ALL")}
    for subject in subjects:
        assert len([asked for asked in ASKS if matches(asked.subject, subject)]) == 1, subject


@pytest.mark.parametrize("declared", [*CONSUMERS, work_consumer("general")], ids=lambda one: one.durable)
def test_a_durable_reads_what_its_stream_keeps_for_its_service(declared):
    stream = next(one for one in STREAMS if one.name == declared.stream)
    for pattern in declared.filters:
        assert any(overlap(pattern, kept) for kept in stream.subjects), pattern
        if declared.stream == s.ADVISORIES:
            continue
        hops = [hop for hop in HOPS if overlap(hop.filter, pattern)]
        assert hops
        assert {hop.stream for hop in hops} == {declared.stream}
    filters = itertools.combinations(declared.filters, 2)
    assert [pair for pair in filters if overlap(*pair)] == [], "the broker refuses overlapping filters"
    assert declared.ack_wait_seconds > 0


def test_lookups_name_what_is_not_there():
    assert consumer("billing").service == "billing"
    with pytest.raises(KeyError, match="nosuch"):
        consumer("nosuch")
    assert [hop.subject for hop in hops_between("router", "worker-pool")] == ["work.<pool>.<priority>"]
    assert hops_between("billing", "router") == ()


RIGHTS = {service: permissions.permissions(service) for service in SERVICES}


@pytest.mark.parametrize(
    ("subject", "services"),
    [
        ("task.submitted.normal.1.acme", {"gateway", "router"}),
        ("schedule.task.acme.t", {"gateway", "router", "consensus"}),
        ("schedule.cron.acme.c", {"gateway", "router"}),
        ("schedule.due.1", set()),
        ("$KV.schedules.acme.c", {"gateway", "router"}),
        ("$JS.API.STREAM.PURGE.SCHEDULE", {"router"}),
        ("$JS.API.STREAM.PURGE.KV_schedules", {"router"}),
        ("work.general.high", {"router", "gateway"}),
        ("again.billing.7.task.settled.acme.t", {"gateway"}),
        ("attempt.acme.t.1.started.1", {"worker-pool"}),
        ("attempt.acme.t.1.ended", {"worker-pool", "router"}),
        ("attempt.acme.t.1.discarded.1", {"worker-pool"}),
        ("attempt.acme.t.1.checkpoint", {"worker-pool"}),
        ("attempt.acme.t.1.invented", set()),
        ("task.settled.acme.t", {"worker-pool", "consensus", "router"}),
        ("task.changed.acme.t", {"gateway", "router", "worker-pool"}),
        ("task.changed.acme.t.answer", {"gateway", "consensus"}),
        ("task.input.acme.t.answer-1", {"gateway"}),
        ("feedback.acme.t", {"gateway", "consensus"}),
        ("done.gw1.t", {"worker-pool", "consensus", "router"}),
        ("token.acme.t", {"worker-pool"}),
        ("ctl.cancel.acme.t", {"gateway"}),
        ("dead.billing.acme", {"billing"}),
        ("dead.gateway.acme", {"gateway"}),
        ("svc.context.turns", {"router"}),
        ("svc.memory.add", {"gateway"}),
        ("svc.likeness.look", {"gateway"}),
        ("svc.billing.usage", {"gateway"}),
        ("$KV.tenants.acme", {"billing"}),
        ("$KV.models.roster", {"router"}),
        ("$KV.policy.scoreboard", {"evolution"}),
        ("$KV.owners.0", {"router"}),
        ("$KV.holders.0", {"billing"}),
        ("ledger.journal.1", {"billing"}),
        ("ledger.snapshot.1", {"billing"}),
        ("svc.holds.1", {"gateway", "router", "billing"}),
        ("svc.billing.key.create", {"gateway"}),
        ("audit.acme", set(SERVICES)),
        ("$JS.API.STREAM.PURGE.AUDIT", {"billing"}),
        ("$JS.API.STREAM.MSG.DELETE.AUDIT", set()),
        ("$KV.idempotency.acme.0", {"gateway"}),
        ("$JS.API.STREAM.PURGE.INGRESS", {"router"}),
        ("$JS.API.STREAM.MSG.DELETE.INGRESS", {"router"}),
        ("$KV.breakers.x", {"worker-pool"}),
        ("$KV.permits.x", {"router"}),
        ("task.more.normal.1.acme", {"worker-pool", "consensus"}),
        ("attempt.acme.t.1.asked", {"consensus"}),
        ("attempt.acme.t.1.retried.1", {"worker-pool"}),
        ("capacity.general.w1", {"worker-pool"}),
        ("svc.router.queue.1", {"gateway", "billing"}),
        ("svc.router.price", {"gateway"}),
        ("svc.router.model", {"gateway", "evolution"}),
        ("svc.evolution.ranks", {"gateway"}),
        ("svc.evolution.students", {"gateway"}),
        ("svc.router.student", {"evolution"}),
        ("svc.router.roster", {"gateway", "evolution"}),
        ("svc.workers.probe.general", {"router"}),
        ("$KV.endpoints.x", {"router"}),
        ("svc.gateway.judge", {"worker-pool"}),
        ("svc.embed.texts", {"worker-pool", "consensus", "evolution"}),
        ("$O.students.C.any", {"evolution"}),
        ("$JS.API.STREAM.MSG.GET.OBJ_students", {"evolution", "worker-pool"}),
        ("$JS.API.STREAM.PURGE.OBJ_students", {"evolution"}),
        ("$JS.API.STREAM.PURGE.EVENTS", {"billing"}),
        ("$JS.API.STREAM.DELETE.EVENTS", set()),
        ("$JS.API.STREAM.UPDATE.WORK", set()),
        ("$JS.API.STREAM.MSG.DELETE.EVENTS", set()),
        ("$JS.API.STREAM.MSG.DELETE.DEAD", {"gateway"}),
        ("$JS.API.STREAM.MSG.DELETE.WORK", {"worker-pool", "router"}),
        ("$JS.API.DIRECT.GET.DEAD", {"gateway"}),
        ("$JS.API.DIRECT.GET.WORK", {"worker-pool", "router"}),
        ("$JS.API.STREAM.PURGE.OBJ_claims", set()),
        ("$O.uploads.C.any", {"gateway", "context"}),
        ("$JS.API.STREAM.MSG.GET.OBJ_uploads", {"gateway", "context"}),
        ("$JS.API.CONSUMER.MSG.NEXT.ADVISORIES.sweeper", {"worker-pool"}),
        ("$JS.API.CONSUMER.DELETE.EVENTS.billing", set()),
        ("$JS.API.CONSUMER.CREATE.WORK.mine", set()),
        ("$JS.API.CONSUMER.MSG.NEXT.WORK.pool-general", {"worker-pool"}),
        ("$JS.ACK.WORK.pool-general.1.1.1.1.0", {"worker-pool"}),
        ("$JS.ACK.EVENTS.billing.1.1.1.1.0", {"billing"}),
        ("$JS.API.CONSUMER.INFO.EVENTS.verdicts", {"consensus", "billing"}),
        ("_INBOX.gateway.x.r.1", {"billing", "context", "router", "evolution"}),
        ("_INBOX.evolution.x.r.1", {"router", "context"}),
        ("_INBOX.router.x.r.1", {"billing", "context", "worker-pool"}),
        ("_INBOX.worker-pool.x.r.1", {"context", "gateway"}),
        ("$SYS.REQ.SERVER.PING", set()),
    ],
)
def test_who_may_publish_what(subject, services):
    assert {name for name, rights in RIGHTS.items() if any(matches(one, subject) for one in rights.publish)} == services


@pytest.mark.parametrize("service", SERVICES)
def test_rights_are_sorted_and_none_is_a_wildcard_over_everything(service):
    rights = RIGHTS[service]
    for subjects in (rights.publish, rights.subscribe):
        assert list(subjects) == sorted(set(subjects))
    tops = {one.split(".")[0] for one in (*rights.publish, *rights.subscribe)}
    assert not tops & {"*", ">"}
    assert not {"$JS.>", "$JS.API.>", "$JS.ACK.>", "$KV.>", "_INBOX.>"} & {*rights.publish, *rights.subscribe}


@pytest.mark.parametrize("service", SERVICES)
def test_what_an_ordered_readers_wildcard_reaches_of_durables_is_denied(service):
    rights = RIGHTS[service]

    def may(subject: str) -> bool:
        allowed = any(matches(one, subject) for one in rights.publish)
        return allowed and not any(matches(one, subject) for one in rights.deny_publish)

    for one in CONSUMERS:
        name = f"{one.stream}.{one.durable}"
        assert not may(f"$JS.API.CONSUMER.CREATE.{name}")
        assert not may(f"$JS.API.CONSUMER.CREATE.{name}.task.settled.>")
        assert may(f"$JS.API.CONSUMER.MSG.NEXT.{name}") == (one.service == service)
    for stream in permissions.ORDERED_READERS.get(service, ()):
        assert may(f"$JS.API.CONSUMER.CREATE.{stream}.task-events-0a1b2c")
        assert may(f"$JS.API.CONSUMER.MSG.NEXT.{stream}.task-events-0a1b2c")


@given(TOKEN, TOKEN, TASK)
def test_the_retry_of_a_task_is_its_tenants_alone_and_no_idempotency_key_meets_it(tenant, key, task):
    assert ids.TASK_ID.match(ids.retry_id(tenant, task))
    assert ids.retry_id(tenant, task) == ids.retry_id(tenant, task)
    assert (
        len(
            {
                ids.retry_id(tenant, task),
                ids.task_id_from_key(tenant, key, ids.created_ms(task)),
                ids.retry_id(tenant + "x", task),
            }
        )
        == 3
    )


@given(st.lists(st.tuples(st.integers(0, 2**47), st.binary(min_size=10, max_size=10)), min_size=2, max_size=30))
def test_task_ids_sort_as_their_times(made):
    by_id = sorted((ids.task_id(now, entropy), now) for now, entropy in made)
    assert [now for _, now in by_id] == sorted(now for now, _ in made)
    assert all(ids.TASK_ID.match(one) for one, _ in by_id)


FIRING = st.tuples(TOKEN, SCHEDULE, st.integers(0, 2**47))


@given(FIRING, FIRING)
def test_a_firings_task_id_is_its_tenants_its_schedules_and_its_times_alone(first, second):
    assert ids.TASK_ID.match(ids.task_id_of_firing(*first))
    assert (ids.task_id_of_firing(*first) == ids.task_id_of_firing(*second)) == (first == second)


@given(st.text(), st.text(), st.text(), st.text())
def test_a_derived_task_id_is_its_tenants_and_its_keys_alone(tenant, key, other_tenant, other_key):
    derived = ids.task_id_from_key(tenant.replace("\0", ""), key, 1)
    assert ids.TASK_ID.match(derived)
    same = (tenant.replace("\0", ""), key) == (other_tenant.replace("\0", ""), other_key)
    assert (derived == ids.task_id_from_key(other_tenant.replace("\0", ""), other_key, 1)) == same
    assert derived < ids.task_id_from_key(tenant.replace("\0", ""), key, 2)


@given(st.text())
def test_a_shard_is_one_of_the_shards(tenant):
    assert ids.shard_of(tenant) in ids.SHARDS


@given(st.text(alphabet=st.characters(codec="utf-8")))
def test_an_id_that_passes_its_pattern_is_one_token(text):
    for pattern in (ids.TENANT_ID, ids.TASK_ID, ids.SCHEDULE_ID):
        if pattern.match(text):
            assert not set(text) & set(" .*>\r\n\t\0/?#%'\"")


@given(st.binary(max_size=120))
def test_no_bytes_break_another_codec(payload):
    for one in (codec.settled, codec.request, codec.reply, codec.state):
        with contextlib.suppress(UndecodableMessageError, UnknownVersionError):
            one.decode(payload)


@pytest.mark.parametrize("decoder", ["settled", "request", "reply", "state"])
def test_a_message_of_another_family_is_refused(decoder):
    foreign = codec.encode(messages.CancelRequested(task_id="t", tenant="acme", at_ms=1))
    with pytest.raises(UndecodableMessageError, match="CancelRequested"):
        getattr(codec, decoder).decode(foreign)
    with pytest.raises(UndecodableMessageError):
        getattr(codec, decoder).decode(msgspec.msgpack.encode({"id": "acme", "tier": "pro"}))


def test_deeply_nested_bytes_are_undecodable():
    with pytest.raises(UndecodableMessageError):
        codec.journey.decode(b"\x91" * 100_000)


def test_content_passes_through_byte_for_byte():
    plain = b'[{"role":"assistant","content":null,"tool_calls":[{"id":"1",  "function":{"arguments":"{\\"a\\": 1}"}}]}]'
    calls = content.decode_messages(plain)[0].tool_calls
    assert calls is not None
    assert bytes(calls[0]) == b'{"id":"1",  "function":{"arguments":"{\\"a\\": 1}"}}'
    answer = content.Answer([content.Choice(text="hi", finish_reason="length")])
    assert content.decode_answer(content.encode_content(answer)) == answer
    with pytest.raises(msgspec.DecodeError):
        content.decode_answer(b"[]")


def test_an_envelope_opens_with_its_own_key_only():
    keyring = envelope.IdentityKeyring()
    assert keyring.open("acme", keyring.seal("acme", b"hi")) == b"hi"
    with pytest.raises(envelope.UnknownKeyError, match=r"acme.*'k2'"):
        keyring.open("acme", envelope.Envelope("k2", b"n", b"sealed"))


def test_every_error_code_is_shown_consistently():
    for code, kind in ERRORS.items():
        assert 400 <= kind.http_status < 600, code
        assert kind.grpc_status.isupper(), code
        assert not kind.retryable or kind.http_status in (429, 502, 503), code
    assert kind_of("no such code") == ERRORS["internal_error"]
