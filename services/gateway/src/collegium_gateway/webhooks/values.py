"""Webhooks as values: what is sent, by which keys it is signed, and who comes next. Pure.

A callback waits until its task settles; then it is due, is tried until a receiver takes it (delivered) or wants no more
(gone), and is given up after a day (failed). Requests follow Standard Webhooks (standardwebhooks.com): the id is the
same at every try, and the signature covers id, time and body. One rule: a receiver may get a message twice, and knows
it by its id; it never gets two that differ.
"""

from __future__ import annotations

import base64
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal

import msgspec
from collegium_contracts.codec import encode
from collegium_contracts.envelope import Keyring
from collegium_contracts.messages import InputRequired, Message, Settled, TaskAccepted
from collegium_contracts.webhooks import SECRET_PREFIX, signature

from collegium_gateway.readmodel.rows import TaskRow
from collegium_gateway.tasks.views import open_view, rfc3339, task_view

WebhookState = Literal["waiting", "due", "delivered", "failed", "gone"]

SECRET_BYTES = 32
# Those that are still accepted beside the newest; each adds a signature to every request.
MAX_EARLIER_SECRETS = 3
DEFAULT_GRACE_SECONDS = 86_400
MAX_GRACE_SECONDS = 7 * 86_400

# Requests of one gateway at a time: in all, to one tenant's receivers, and to one receiver. A receiver that does not
# answer holds its own places for the length of a request, and no others.
MAX_IN_FLIGHT = 64
MAX_PER_TENANT = 16
MAX_PER_RECEIVER = 8

_encode_json = msgspec.json.Encoder().encode


class Opened(msgspec.Struct, frozen=True):
    """A callback that was asked for; ``callback`` is its sealed URL, as msgpack of an Envelope.

    ``asks_people``: its task may wait for people.
    """

    task_id: str
    tenant: str
    receiver: str
    callback: bytes
    asks_people: bool = False


class Changes(msgspec.Struct, frozen=True):
    """What a batch of events changes: callbacks that were asked for, and tasks with a callback that settled or that
    wait for people (task and stage)."""

    opened: list[Opened]
    settled: list[str]
    paused: list[tuple[str, str]] = []


class Candidate(msgspec.Struct, frozen=True):
    """A callback that is due."""

    task_id: str
    tenant: str
    receiver: str


class Secret(msgspec.Struct, frozen=True):
    """A key of a tenant; without an end it is the newest."""

    key: bytes
    made_at_ms: int
    expires_at_ms: int | None = None


class Secrets(msgspec.Struct, frozen=True):
    """A tenant's keys, newest first."""

    keys: list[Secret]


def changes_of(messages: Iterable[Message]) -> Changes | None:
    """Returns what a batch changes; none where no task of it has a callback."""
    opened: list[Opened] = []
    settled: list[str] = []
    paused: list[tuple[str, str]] = []
    for message in messages:
        if isinstance(message, Settled):
            if message.task.callback:
                settled.append(message.task.id)
        elif isinstance(message, InputRequired):
            if message.task.callback:
                paused.append((message.task.id, message.stage))
        elif isinstance(message, TaskAccepted) and message.callback is not None:
            task = message.task
            sealed = encode(message.callback)
            opened.append(
                Opened(task.id, task.tenant, message.callback_receiver, sealed, asks_people=task.people is not None)
            )
    return Changes(opened, settled, paused) if opened or settled or paused else None


def message_id(task_id: str) -> str:
    """Returns the ``webhook-id`` of a task's message, the same at every try; it holds no full stop."""
    return f"msg_{task_id.removeprefix('tsk_').replace('.', '_')}"


def body_of(row: TaskRow, keyring: Keyring) -> bytes:
    """Returns the JSON that is sent for a settled task; ``data`` is what ``GET /v1/tasks/{id}`` shows."""
    view = task_view(row, keyring)
    return _encode_json({"type": f"task.{view.state}", "timestamp": view.settled_at, "data": view})


def pause_name(task_id: str, stage: str) -> str:
    """Returns under which name a callback about a pause stands, beside that of the task's end."""
    return f"{task_id}.{stage}"


def pause_body(pause: InputRequired) -> bytes:
    """Returns the JSON that is sent for a task that waits for people: whom it waits for, and no content."""
    view = open_view(pause.task, "input_required")
    questions = [
        {"id": one.id, "kind": one.kind, "of": one.of, "queue": one.queue or None, "reason": one.reason}
        for one in pause.questions
    ]
    shown = {"stage": pause.stage, "expires_at": rfc3339(pause.expires_at_ms), "questions": questions}
    view = msgspec.structs.replace(view, input_required=shown)
    return _encode_json({"type": f"task.{view.state}", "timestamp": rfc3339(pause.at_ms), "data": view})


def is_export(name: str) -> bool:
    """Tells whether a callback is about an export, and no task."""
    return name.startswith("exp_")


def export_body(manifest: dict[str, Any], content: str) -> bytes:
    """Returns the JSON that is sent for an export that can be fetched: its manifest, and no line of it."""
    at = rfc3339(manifest["made_ms"])
    return _encode_json({"type": "distill.ready", "timestamp": at, "data": {"id": content, "manifest": manifest}})


def headers_of(secrets: Secrets, message: str, body: bytes, now_ms: int) -> dict[str, str]:
    """Returns a request's headers, with one signature for every key that is in force."""
    seconds = now_ms // 1000
    signatures = [signature(secret.key, message, seconds, body) for secret in in_force(secrets, now_ms)]
    return {
        "content-type": "application/json",
        "webhook-id": message,
        "webhook-timestamp": str(seconds),
        "webhook-signature": " ".join(signatures),
    }


def shown(secret: Secret) -> str:
    """Writes a key as receivers are given it."""
    return SECRET_PREFIX + base64.b64encode(secret.key).decode()


def in_force(secrets: Secrets, now_ms: int) -> list[Secret]:
    """Returns the keys that sign now, newest first."""
    return [one for one in secrets.keys if one.expires_at_ms is None or one.expires_at_ms > now_ms]


def rotate(secrets: Secrets, key: bytes, now_ms: int, grace_seconds: int) -> Secrets:
    """Puts a new key first; earlier ones sign for ``grace_seconds`` more at most, and only the newest few of them."""
    ends = now_ms + grace_seconds * 1000
    earlier = [
        msgspec.structs.replace(one, expires_at_ms=ends if one.expires_at_ms is None else min(ends, one.expires_at_ms))
        for one in in_force(secrets, now_ms)[:MAX_EARLIER_SECRETS]
    ]
    kept = [one for one in earlier if one.expires_at_ms is not None and one.expires_at_ms > now_ms]
    return Secrets([Secret(key, now_ms), *kept])


def choose(
    candidates: Sequence[Candidate], tenants: Mapping[str, int], receivers: Mapping[str, int], in_flight: int
) -> list[Candidate]:
    """Returns those that may be sent now, in order; the mappings count what is in flight."""
    of_tenant, of_receiver = Counter(tenants), Counter(receivers)
    chosen: list[Candidate] = []
    for one in candidates:
        if in_flight + len(chosen) >= MAX_IN_FLIGHT:
            break
        if of_tenant[one.tenant] < MAX_PER_TENANT and of_receiver[one.receiver] < MAX_PER_RECEIVER:
            of_tenant[one.tenant] += 1
            of_receiver[one.receiver] += 1
            chosen.append(one)
    return chosen


def full(counts: Mapping[str, int], limit: int) -> list[str]:
    """Returns the names that have reached their limit."""
    return [name for name, count in counts.items() if count >= limit]
