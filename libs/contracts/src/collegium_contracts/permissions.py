"""What each service may publish and subscribe to on the broker, derived from the journey.

The right to make a consumer is given only for the streams that a service reads in order (ephemeral readers and
key–value watches); no service may create, change or delete a stream, or delete a consumer that is not its own.
A deny list takes back what the wildcard of an ordered reader's own consumers would reach: the durables that stand on
the same stream. One rule: a right that no row of the journey needs does not exist.
"""

from __future__ import annotations

import msgspec

from collegium_contracts import subjects as s
from collegium_contracts.consumers import CONSUMERS
from collegium_contracts.journey import ASKS, BUCKETS, HOPS, Service

# Streams that a service reads by an ephemeral, ordered consumer.
ORDERED_READERS: dict[Service, tuple[str, ...]] = {
    "gateway": (s.EVENTS,),
    "router": (s.INGRESS, s.EVENTS),
    "worker-pool": (s.EVENTS,),
    "billing": (s.EVENTS, s.LEDGER, s.AUDIT),
}
# Streams from which a service reads single messages by subject or sequence.
DIRECT_READERS: dict[Service, tuple[str, ...]] = {
    "gateway": (s.EVENTS, s.DEAD),
    "router": (s.EVENTS, s.WORK, s.SCHEDULE),
    "worker-pool": (s.EVENTS, s.WORK),
    "consensus": (s.EVENTS,),
    "context": (s.EVENTS,),
    "billing": (s.EVENTS, s.LEDGER),
}
# Streams from which the router removes: what it dispatched, what was canceled, what is left of deleted schedules.
ROUTER_PURGES = (s.INGRESS, s.SCHEDULE, f"KV_{s.KV_SCHEDULES}")
# Streams from which billing removes: what is sealed in the database.
BILLING_PURGES = (s.AUDIT,)
# Streams from which billing removes what stands of an erased tenant, once everybody has read it.
BILLING_ERASES = (s.EVENTS,)
# Who asks how full SCHEDULE is, and what time the broker has.
_SCHEDULERS: tuple[Service, ...] = ("gateway", "router")
# Streams from which a gateway removes what stands of an erased tenant.
GATEWAY_PURGES = (s.DEAD, f"KV_{s.KV_IDEMPOTENCY}", f"KV_{s.KV_CACHE}")
# Streams from which context removes what stands of an erased tenant.
CONTEXT_PURGES = (f"KV_{s.KV_EMBEDDINGS}",)
# Streams from which evolution removes what stands of an erased tenant.
EVOLUTION_PURGES = (f"KV_{s.KV_POLICY}",)
_WORK_TTL_READERS: tuple[Service, ...] = ("worker-pool",)
# Streams whose state a service reads, beside those it reads in order.
STATE_READERS: dict[Service, tuple[str, ...]] = {
    "gateway": (s.DEAD,),
    "router": (s.DEAD,),
    "consensus": (s.DEAD,),
    "worker-pool": (s.WORK, s.DEAD),
}
# Streams from which a service removes single messages: requeued or discarded letters, work that is delivered no more,
# work of erased tenants.
REMOVERS: dict[Service, str] = {"gateway": s.DEAD, "worker-pool": s.WORK, "router": s.WORK}


class Permissions(msgspec.Struct, frozen=True):
    """Allow lists of one broker user, and what it may not publish although an allowed wildcard covers it."""

    publish: tuple[str, ...]
    subscribe: tuple[str, ...]
    deny_publish: tuple[str, ...] = ()


def inbox_prefix(service: str) -> str:
    """Returns the private inbox prefix of a service: nobody else may read its replies."""
    return f"_INBOX.{service}"


def permissions(service: Service) -> Permissions:
    """Returns what a service's broker user may do."""
    publish: set[str] = {"$JS.API.INFO"}
    subscribe: set[str] = {f"{inbox_prefix(service)}.>"}
    for hop in HOPS:
        if service in hop.senders:
            publish.add(s.dead_of(service) if hop.filter == s.DEAD_ALL else hop.filter)
        if service in hop.receivers and hop.stream is None:
            subscribe.add(hop.filter)
    for ask in ASKS:
        if service in ask.asker:
            publish.add(ask.subject)
        if service == ask.answerer:
            subscribe.add(ask.subject)
            publish.update(f"{inbox_prefix(asker)}.>" for asker in ask.asker)
    for stream in DIRECT_READERS.get(service, ()):
        publish.update((f"$JS.API.DIRECT.GET.{stream}", f"$JS.API.DIRECT.GET.{stream}.>"))
    for stream in ORDERED_READERS.get(service, ()):
        publish.update(_ordered_reader(stream))
    for stream in STATE_READERS.get(service, ()):
        publish.add(f"$JS.API.STREAM.INFO.{stream}")
    if service in REMOVERS:
        publish.add(f"$JS.API.STREAM.MSG.DELETE.{REMOVERS[service]}")
    for consumer in CONSUMERS:
        if consumer.service == service:
            publish.update(_durable(consumer.stream, consumer.durable))
    if service in _WORK_TTL_READERS:
        publish.update(_durable(s.WORK, "*"))
    if service == "router":
        publish.update((f"$JS.API.STREAM.MSG.DELETE.{s.INGRESS}", f"$JS.API.STREAM.INFO.{s.INGRESS}"))
        publish.update(f"$JS.API.STREAM.PURGE.{stream}" for stream in ROUTER_PURGES)
    if service == "billing":
        publish.update(f"$JS.API.STREAM.PURGE.{stream}" for stream in (*BILLING_PURGES, *BILLING_ERASES))
        publish.update(f"$JS.API.CONSUMER.INFO.{stream}.*" for stream in BILLING_ERASES)
    if service == "gateway":
        publish.update(f"$JS.API.STREAM.PURGE.{stream}" for stream in GATEWAY_PURGES)
    if service == "context":
        publish.update(f"$JS.API.STREAM.PURGE.{stream}" for stream in CONTEXT_PURGES)
    if service == "evolution":
        publish.update(f"$JS.API.STREAM.PURGE.{stream}" for stream in EVOLUTION_PURGES)
    if service in _SCHEDULERS:
        publish.add(f"$JS.API.STREAM.INFO.{s.SCHEDULE}")
    for bucket in BUCKETS:
        stream = f"KV_{bucket.name}"
        if service in bucket.writers:
            publish.add(f"$KV.{bucket.name}.>")
            if bucket.is_erasable:
                publish.add(f"$JS.API.STREAM.MSG.DELETE.{stream}")
        if service in bucket.readers or service in bucket.writers:
            publish.update((f"$JS.API.DIRECT.GET.{stream}", f"$JS.API.DIRECT.GET.{stream}.>"))
            publish.update(_ordered_reader(stream))
    publish.update(_objects(s.CLAIMS_BUCKET))
    if service in _UPLOADING:
        publish.update(_objects(s.UPLOADS_BUCKET))
    if service in _STUDYING:
        publish.update(_objects(s.STUDENTS_BUCKET, writes=service == "evolution"))
    if service == "evolution":
        publish.add(f"$JS.API.STREAM.PURGE.OBJ_{s.STUDENTS_BUCKET}")
    return Permissions(tuple(sorted(publish)), tuple(sorted(subscribe)), _denied(service))


# Who stores an uploaded document, and who reads it.
_UPLOADING = ("gateway", "context")
# Who stores students, and who runs them; all of them are sealed.
_STUDYING = ("evolution", "worker-pool")


def _denied(service: Service) -> tuple[str, ...]:
    """Of the durables on streams that a service reads in order: making any anew, and pulling those of others."""
    denied: set[str] = set()
    for consumer in CONSUMERS:
        if consumer.stream not in ORDERED_READERS.get(service, ()):
            continue
        made = f"$JS.API.CONSUMER.CREATE.{consumer.stream}.{consumer.durable}"
        denied.update((made, f"{made}.>"))
        if consumer.service != service:
            denied.add(f"$JS.API.CONSUMER.MSG.NEXT.{consumer.stream}.{consumer.durable}")
    return tuple(sorted(denied))


def _durable(stream: str, durable: str) -> tuple[str, ...]:
    return (
        f"$JS.API.CONSUMER.INFO.{stream}.{durable}",
        f"$JS.API.CONSUMER.MSG.NEXT.{stream}.{durable}",
        f"$JS.ACK.{stream}.{durable}.>",
    )


def _ordered_reader(stream: str) -> tuple[str, ...]:
    """Without the right to delete: ephemeral consumers expire, and the right would reach the durables of others."""
    return (
        f"$JS.API.STREAM.INFO.{stream}",
        f"$JS.API.CONSUMER.CREATE.{stream}.>",
        f"$JS.API.CONSUMER.MSG.NEXT.{stream}.>",
    )


def _objects(bucket: str, *, writes: bool = True) -> tuple[str, ...]:
    """Large payloads go through an object store: of claims every service's, as a dead letter may be large."""
    stream = f"OBJ_{bucket}"
    return (
        f"$JS.API.DIRECT.GET.{stream}",
        f"$JS.API.DIRECT.GET.{stream}.>",
        f"$JS.API.STREAM.MSG.GET.{stream}",
        # nats-py reads an object's chunks with an ordered push consumer: it looks up the stream by subject, makes a
        # consumer without a name, and answers flow control.
        "$JS.API.STREAM.NAMES",
        f"$JS.API.CONSUMER.CREATE.{stream}",
        f"$JS.FC.{stream}.>",
        f"$JS.API.CONSUMER.DELETE.{stream}.>",
        *_ordered_reader(stream),
        *((f"$O.{bucket}.>",) if writes else ()),
    )
