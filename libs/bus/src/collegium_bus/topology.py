"""Declaring streams, consumers and buckets from the journey, as a migration.

``plan`` compares what stands with what is declared; ``apply`` creates what is missing and changes what differs. Run
by ``collegium up`` and ``collegium migrate`` with an operator's rights; services only verify. One rule: nothing is
deleted, and nothing is changed at run time.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import msgspec
from collegium_contracts import subjects as s
from collegium_contracts.consumers import CONSUMERS, Consumer, work_consumer
from collegium_contracts.journey import BUCKETS, DAY_SECONDS, STREAMS, Bucket, Stream

from collegium_bus.connection import Connection
from collegium_bus.errors import TopologyError

_SECOND_NS = 1_000_000_000


class Change(msgspec.Struct, frozen=True):
    """One thing to create or to update: its kind, name, what differs, and the JetStream request that does it."""

    kind: str
    name: str
    action: str
    differs: tuple[str, ...]
    subject: str
    body: bytes


def stream_config(stream: Stream, *, replicas: int) -> dict[str, Any]:
    """Returns a stream's declaration as JetStream's API takes it."""
    return {
        "name": stream.name,
        "subjects": list(stream.subjects),
        "retention": stream.retention,
        "discard": stream.discard,
        "discard_new_per_subject": stream.discard_new_per_subject,
        "max_bytes": stream.max_bytes,
        "max_age": stream.max_age_seconds * _SECOND_NS,
        "max_msgs_per_subject": stream.max_messages_per_subject,
        "duplicate_window": stream.duplicate_window_seconds * _SECOND_NS,
        "storage": "file",
        "num_replicas": replicas,
        "allow_direct": True,
        "allow_msg_schedules": stream.schedules,
    }


def bucket_config(bucket: Bucket, *, replicas: int) -> dict[str, Any]:
    """Returns a key–value bucket as the stream it is (ADR-8 of the NATS architecture)."""
    return {
        "name": f"KV_{bucket.name}",
        "subjects": [f"$KV.{bucket.name}.>"],
        "retention": "limits",
        "discard": bucket.discard,
        "max_bytes": bucket.max_bytes,
        "max_age": int(bucket.ttl_seconds * _SECOND_NS),
        "max_msgs_per_subject": bucket.history,
        "duplicate_window": 120 * _SECOND_NS
        if not bucket.ttl_seconds
        else int(min(120, bucket.ttl_seconds) * _SECOND_NS),
        "storage": "file",
        "num_replicas": replicas,
        "allow_direct": True,
        "allow_rollup_hdrs": True,
        "deny_delete": not bucket.is_erasable,
    }


UPLOAD_SECONDS = 3_600


def object_stores(*, replicas: int) -> list[dict[str, Any]]:
    """Returns the object stores' streams (ADR-20).

    Claims expire a day after the events that name them; uploads are read once, moments after they were stored, and lie
    apart, so that no tenant's files take the room of everybody's claims. Students stay until evolution removes them.
    """
    return [
        _object_store(s.CLAIMS_BUCKET, 2 * 1024**3, 4 * DAY_SECONDS, replicas),
        _object_store(s.UPLOADS_BUCKET, 1024**3, UPLOAD_SECONDS, replicas),
        _object_store(s.STUDENTS_BUCKET, 2 * 1024**3, 0, replicas),
    ]


def _object_store(bucket: str, max_bytes: int, seconds: int, replicas: int) -> dict[str, Any]:
    return {
        "name": f"OBJ_{bucket}",
        "subjects": [f"$O.{bucket}.C.>", f"$O.{bucket}.M.>"],
        "retention": "limits",
        "discard": "new",
        "max_bytes": max_bytes,
        "max_age": seconds * _SECOND_NS,
        "storage": "file",
        "num_replicas": replicas,
        "allow_direct": True,
        "allow_rollup_hdrs": True,
    }


def consumer_config(consumer: Consumer) -> dict[str, Any]:
    """Returns a durable consumer's declaration as JetStream's API takes it."""
    return {
        "durable_name": consumer.durable,
        "name": consumer.durable,
        "ack_policy": "explicit",
        "deliver_policy": consumer.begins,
        "replay_policy": "instant",
        "ack_wait": int(consumer.ack_wait_seconds * _SECOND_NS),
        "max_ack_pending": consumer.max_ack_pending,
        "max_deliver": consumer.max_deliver,
        "max_waiting": 512,
        "filter_subjects": list(consumer.filters),
    }


def consumers(pools: Iterable[str]) -> list[Consumer]:
    """Returns all declared consumers, those of the worker pools included."""
    return [*CONSUMERS, *(work_consumer(pool) for pool in sorted(set(pools)))]


async def plan(connection: Connection, *, pools: Iterable[str], replicas: int = 1) -> list[Change]:
    """Compares what stands with what is declared; an empty list means that nothing is to be done."""
    changes: list[Change] = []
    configs = [stream_config(stream, replicas=replicas) for stream in STREAMS]
    configs += [bucket_config(bucket, replicas=replicas) for bucket in BUCKETS]
    configs += object_stores(replicas=replicas)
    for config in configs:
        name: str = config["name"]
        standing = await _info(connection, f"STREAM.INFO.{name}")
        if standing is None:
            changes.append(Change("stream", name, "create", (), f"STREAM.CREATE.{name}", msgspec.json.encode(config)))
            continue
        # Who made a stream safer than this declaration asks for meant it; a start must not undo it.
        config["num_replicas"] = max(replicas, standing.get("num_replicas", 1))
        if differs := _differences(config, standing):
            merged = {**standing, **config}
            changes.append(
                Change("stream", name, "update", differs, f"STREAM.UPDATE.{name}", msgspec.json.encode(merged))
            )
    for consumer in consumers(pools):
        changes.extend(await _plan_consumer(connection, consumer))
    return changes


async def _plan_consumer(connection: Connection, consumer: Consumer) -> list[Change]:
    config = consumer_config(consumer)
    standing = await _info(connection, f"CONSUMER.INFO.{consumer.stream}.{consumer.durable}")
    action = "create" if standing is None else "update"
    if standing is not None:
        # Where it began is over, and nothing that can be changed.
        config["deliver_policy"] = standing["deliver_policy"]
    differs = () if standing is None else _differences(config, standing)
    if standing is not None and not differs:
        return []
    body = msgspec.json.encode({"stream_name": consumer.stream, "config": config, "action": action})
    subject = f"CONSUMER.CREATE.{consumer.stream}.{consumer.durable}"
    return [Change("consumer", f"{consumer.stream}/{consumer.durable}", action, differs, subject, body)]


async def apply(connection: Connection, changes: Iterable[Change]) -> None:
    """Carries out planned changes in order; raises TopologyError with the broker's words at the first refusal."""
    for change in changes:
        reply = msgspec.json.decode(await connection.api(change.subject, change.body, timeout_seconds=15))
        if error := reply.get("error"):
            raise TopologyError(f"{change.action} {change.kind} {change.name}: {error.get('description')}")


async def verify(connection: Connection, service: str, *, pools: Iterable[str] = ()) -> None:
    """Raises TopologyError unless every consumer that a service pulls stands (services may not make them)."""
    for consumer in consumers(pools):
        if consumer.service != service:
            continue
        if await _info(connection, f"CONSUMER.INFO.{consumer.stream}.{consumer.durable}") is None:
            raise TopologyError(
                f"consumer {consumer.stream}/{consumer.durable} does not stand; run `collegium migrate` first"
            )


async def _info(connection: Connection, subject: str) -> dict[str, Any] | None:
    reply = msgspec.json.decode(await connection.api(subject))
    error = reply.get("error")
    if error is None:
        config: dict[str, Any] = reply["config"]
        return config
    if error.get("code") == 404:
        return None
    raise TopologyError(f"{subject}: {error.get('description')}")


def _differences(declared: dict[str, Any], standing: dict[str, Any]) -> tuple[str, ...]:
    """Names the fields that differ; a field that the broker leaves out stands at its zero value."""
    differing: list[str] = []
    for name, value in declared.items():
        found = standing.get(name)
        if name == "filter_subjects" and found is None and "filter_subject" in standing:
            found = [standing["filter_subject"]]
        if isinstance(value, list) and isinstance(found, list):
            if sorted(map(str, value)) != sorted(map(str, found)):  # pyright: ignore[reportUnknownArgumentType]
                differing.append(name)
        elif (found or 0) != (value or 0):
            differing.append(name)
    return tuple(differing)
