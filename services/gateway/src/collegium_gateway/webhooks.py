"""Webhooks as values: what is sent, how it is signed, when it is tried again, and who comes next. Pure.

A callback waits until its task settles; then it is due, is tried until a receiver takes it (delivered) or wants no more
(gone), and is given up after a day (failed). Requests follow Standard Webhooks (standardwebhooks.com): the id is the
same at every try, and the signature covers id, time and body. One rule: a receiver may get a message twice, and knows
it by its id; it never gets two that differ.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Literal

import msgspec
from collegium_contracts.codec import encode
from collegium_contracts.envelope import Keyring
from collegium_contracts.messages import Message, Settled, TaskAccepted

from collegium_gateway.readmodel import TaskRow
from collegium_gateway.views import task_view

WebhookState = Literal["waiting", "due", "delivered", "failed", "gone"]
Outcome = Literal["delivered", "gone", "refused"]

SECRET_PREFIX = "whsec_"  # noqa: S105 - what secrets begin with
SECRET_BYTES = 32
# Those that are still accepted beside the newest; each adds a signature to every request.
MAX_EARLIER_SECRETS = 3
DEFAULT_GRACE_SECONDS = 86_400
MAX_GRACE_SECONDS = 7 * 86_400

# A restart is over in seconds, a bad deployment in an hour, an outage in a day; the last step repeats.
DELAYS_SECONDS = (5, 30, 120, 600, 1800, 3600, 7200)
GIVE_UP_SECONDS = 86_400
# A receiver may ask for more time, but not for so much that the day is over.
MAX_ASKED_SECONDS = 3600
_JITTER = 0.5

# Requests of one gateway at a time: in all, to one tenant's receivers, and to one receiver. A receiver that does not
# answer holds its own places for the length of a request, and no others.
MAX_IN_FLIGHT = 64
MAX_PER_TENANT = 16
MAX_PER_RECEIVER = 8

_encode_json = msgspec.json.Encoder().encode


class Opened(msgspec.Struct, frozen=True):
    """A callback that was asked for; ``callback`` is its sealed URL, as msgpack of an Envelope."""

    task_id: str
    tenant: str
    receiver: str
    callback: bytes


class Changes(msgspec.Struct, frozen=True):
    """What a batch of events changes: callbacks that were asked for, and tasks with a callback that settled."""

    opened: list[Opened]
    settled: list[str]


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
    for message in messages:
        if isinstance(message, Settled):
            if message.task.callback:
                settled.append(message.task.id)
        elif isinstance(message, TaskAccepted) and message.callback is not None:
            task = message.task
            opened.append(Opened(task.id, task.tenant, message.callback_receiver, encode(message.callback)))
    return Changes(opened, settled) if opened or settled else None


def message_id(task_id: str) -> str:
    """Returns the ``webhook-id`` of a task's message, the same at every try; it holds no full stop."""
    return f"msg_{task_id.removeprefix('tsk_')}"


def body_of(row: TaskRow, keyring: Keyring) -> bytes:
    """Returns the JSON that is sent for a settled task; ``data`` is what ``GET /v1/tasks/{id}`` shows."""
    view = task_view(row, keyring)
    return _encode_json({"type": f"task.{view.state}", "timestamp": view.settled_at, "data": view})


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


def signature(key: bytes, message: str, timestamp_seconds: int, body: bytes) -> str:
    """Signs one message: HMAC-SHA256 of ``id.timestamp.body``, version 1 of the standard."""
    digest = hmac.new(key, b"%b.%d.%b" % (message.encode(), timestamp_seconds, body), hashlib.sha256).digest()
    return "v1," + base64.b64encode(digest).decode()


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


def outcome_of(status: int) -> Outcome:
    """Returns what a receiver's status means: any 2xx takes the message, 410 wants no more of it."""
    if 200 <= status < 300:
        return "delivered"
    return "gone" if status == 410 else "refused"


def retry_after_ms(tries: int, tried_for_ms: int, jitter: float, *, asked_seconds: int = 0) -> int | None:
    """Returns how long to wait after the ``tries``-th try (from 1); none when the message is given up.

    ``tried_for_ms`` is the time since the first try, ``jitter`` is from 0 to 1, and ``asked_seconds`` what the receiver
    asked for.
    """
    step = DELAYS_SECONDS[min(max(tries, 1), len(DELAYS_SECONDS)) - 1]
    wait_seconds = max(step * (1 + _JITTER * (jitter - 0.5)), min(asked_seconds, MAX_ASKED_SECONDS))
    wait_ms = int(wait_seconds * 1000)
    return wait_ms if tried_for_ms + wait_ms <= GIVE_UP_SECONDS * 1000 else None


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
