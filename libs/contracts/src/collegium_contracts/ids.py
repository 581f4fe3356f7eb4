"""Identifiers: how they are made and what they may look like.

Every id that becomes a subject token is checked against a pattern here, at the door; a tenant's once more where the
subject is made (``tenant_token``), whoever let it in. One rule: an id that
passed its pattern can stand in a subject, a URL, a log line and an SQL parameter without further thought.
"""

from __future__ import annotations

import hashlib
import re

from collegium_contracts.errors import InvalidIdError

TENANT_ID = re.compile(r"[a-z0-9-]{1,40}\Z")
TASK_ID = re.compile(r"tsk_[0-9a-z]{26}\Z")
SCHEDULE_ID = re.compile(r"sch_[0-9a-z]{26}\Z")
CONVERSATION_ID = re.compile(r"[A-Za-z0-9._:-]{1,128}\Z")
DOCUMENT_ID = re.compile(r"[A-Za-z0-9._:-]{1,128}\Z")
USER_ID = re.compile(r"[A-Za-z0-9._:@-]{1,128}\Z")
PROJECT_ID = re.compile(r"[a-z0-9-]{1,40}\Z")
KEY_ID = re.compile(r"[a-z0-9]{8,16}\Z")
BUDGET_ID = re.compile(r"[a-z0-9-]{1,64}\Z")
MEMORY_ID = re.compile(r"mem_[0-9a-f]{32}\Z")
GRANT_ID = re.compile(r"grt_[0-9a-f]{32}\Z")
API_KEY = re.compile(r"sk-clg-([a-z0-9]{8,16})-([a-z0-9]{48})\Z")

# An id at fault is named in errors and logs up to here.
_SHOWN_CHARS = 60

_CROCKFORD = "0123456789abcdefghjkmnpqrstvwxyz"
_SHARDS = 8


def _base32(number: int, length: int) -> str:
    digits: list[str] = []
    for _ in range(length):
        number, digit = divmod(number, 32)
        digits.append(_CROCKFORD[digit])
    return "".join(reversed(digits))


def tenant_token(tenant: str) -> str:
    """Returns a tenant's id to be put into a subject, filter or key (0.2 µs); raises InvalidIdError for what is none.

    A filter made with ``*`` would be everybody's, a subject made with a line break a command to the broker.
    """
    if TENANT_ID.match(tenant) is None:
        raise InvalidIdError(f"{tenant[:_SHOWN_CHARS]!r} is no tenant's id: 1 to 40 characters of a-z, 0-9 and -")
    return tenant


def task_id(now_ms: int, entropy: bytes) -> str:
    """Makes a task id that sorts by creation time: 48 bits of milliseconds, then 80 bits of ``entropy`` (10 bytes)."""
    return "tsk_" + _base32((now_ms << 80) | int.from_bytes(entropy[:10], "big"), 26)


def task_id_from_key(tenant: str, idempotency_key: str, claimed_at_ms: int) -> str:
    """Derives the task id of an idempotent request from tenant, key and the time at which the key was claimed.

    It sorts by that time as every task id does, and a key that is claimed again after its day gives a new task.
    """
    return task_id(claimed_at_ms, hashlib.sha256(f"{tenant}\x00{idempotency_key}".encode()).digest())


def retry_id(tenant: str, task_id: str) -> str:
    """Derives the id of the one task that runs a failed task again, equal on every replica and at every try.

    It has the failed task's time, so that the two stand together.
    """
    # A client's idempotency key holds no NUL, so the two derivations never meet.
    return task_id_from_key(tenant, f"\x00retry\x00{task_id}", created_ms(task_id))


def probe_id(tenant: str, task_id: str, kind: str) -> str:
    """Derives the id of the one probe of a kind that asks a task again; it has the task's time, as a retry has."""
    return task_id_from_key(tenant, f"\x00probe\x00{kind}\x00{task_id}", created_ms(task_id))


def created_ms(task_id: str) -> int:
    """Returns the time (Unix ms) that a task id was made with; the id must be one."""
    number = 0
    for digit in task_id.removeprefix("tsk_"):
        number = number * 32 + _CROCKFORD.index(digit)
    return number >> 80


def audit_id(now_ms: int, entropy: bytes) -> str:
    """Makes the id of an audit entry, as :func:`task_id` makes a task's."""
    return "aud_" + task_id(now_ms, entropy)[4:]


def schedule_id(now_ms: int, entropy: bytes) -> str:
    """Makes the id of a cron schedule, as :func:`task_id` makes a task's."""
    return "sch_" + _base32((now_ms << 80) | int.from_bytes(entropy[:10], "big"), 26)


def feedback_id(now_ms: int, entropy: bytes) -> str:
    """Makes the id of a word of feedback, as :func:`task_id` makes a task's."""
    return "fbk_" + task_id(now_ms, entropy)[4:]


def rank_change_id(cycle: str, model: str, domain: str | None, tenant: str) -> str:
    """Derives the id of a change of rank from the round that decided it: equal on every replica, in every try."""
    place = f"{cycle}\x00{model}\x00{'*' if domain is None else '=' + domain}\x00{tenant}"
    return "rch_" + hashlib.sha256(place.encode()).hexdigest()[:26]


def cycle_id(now_ms: int, entropy: bytes) -> str:
    """Makes the id of a round of learning, as :func:`task_id` makes a task's."""
    return "cyc_" + task_id(now_ms, entropy)[4:]


def task_id_of_firing(tenant: str, schedule: str, at_ms: int) -> str:
    """Derives the id of the task that a schedule's firing submits: equal on every replica, in every try."""
    return task_id(at_ms, hashlib.sha256(f"{tenant}\x00{schedule}\x00{at_ms}".encode()).digest())


def shard_of(tenant: str) -> int:
    """Returns the INGRESS shard (0..7) that all tasks of a tenant go through, so that one owner sees them all."""
    return hashlib.blake2s(tenant.encode(), digest_size=2).digest()[0] % _SHARDS


SHARDS = tuple(range(_SHARDS))
