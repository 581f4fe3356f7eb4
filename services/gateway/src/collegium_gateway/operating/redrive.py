"""What requeuing a dead letter means, decided from the letter alone. Pure.

    undecodable or failed INGRESS message   → published again where it stood, unless its task has ended
    event that one consumer could not fold  → to that consumer only
    undecodable or failed WORK message      → published again, unless its task has ended or its deadline has passed
    failed task, or a task that has ended   → one new task from the same input

An attempt holds its prompt, but neither what its plan's answers have to pass nor who judges them: a plan of several
begins again with what it began with.
A letter's content was written by a service and may ask for anything; the gateway would do it with its own rights. So
what is published again goes only to where the letter's writer reads, and the writer is told by the letter's subject.
One rule: nothing goes where the writer of its letter could not have taken it from.
"""

from __future__ import annotations

import msgspec
from collegium_bus.dead import TASK_FAILED
from collegium_bus.letters import Letter
from collegium_contracts import codec, ids
from collegium_contracts import subjects as s
from collegium_contracts.consumers import CONSUMERS
from collegium_contracts.errors import ContractError
from collegium_contracts.ids import TENANT_ID
from collegium_contracts.journey import HOPS
from collegium_contracts.messages import DeadLetter, RunAttempt, TaskRef, TaskSubmitted

RETRY_TAG = "retry_of"
_SETTLERS = frozenset(
    service for hop in HOPS if hop.filter == s.TASK_SETTLED_ALL and hop.stream for service in hop.senders
)
_READERS_OF = {"router": s.INGRESS, "worker-pool": s.WORK}
_SUBJECT_TOKENS = {s.INGRESS: ("task", "submitted", 5), s.WORK: ("work", "", 3)}


class Republish(msgspec.Struct, frozen=True):
    """The message goes into its stream again, verbatim; ``consumer`` names the only one that gets it, if it is one."""

    subject: str
    payload: bytes
    headers: dict[str, str]
    message_id: str
    create_once: bool = False
    consumer: str = ""


class RunAnew(msgspec.Struct, frozen=True):
    """A new task is made from the same input."""

    submitted: TaskSubmitted
    retry_of: str


class Impossible(msgspec.Struct, frozen=True):
    """Nothing can be made of this letter but to discard it; ``reason`` says why."""

    reason: str


Redrive = Republish | RunAnew | Impossible


def task_of(letter: Letter, original: bytes) -> TaskRef | None:
    """Returns the task that a letter's original names, where it can be read and the letter may speak for it."""
    message = _input_of(original)
    if message is None:
        return None
    task = message.task
    speaks = letter.service in _SETTLERS and letter.tenant in ("", task.tenant)
    return task if speaks and TENANT_ID.match(task.tenant) and ids.TASK_ID.match(task.id) else None


def plan_of(letter: Letter, original: bytes) -> TaskRef | None:
    """Returns the task whose plan's beginning says what its attempt, the letter's original, does not hold."""
    task = task_of(letter, original)
    message = _input_of(original)
    if task is None or not isinstance(message, RunAttempt):
        return None
    return task if task.tests or message.attempt.of > 1 or message.attempt.plan != "single" else None


def decide(
    letter: Letter, original: bytes, *, settled: bool, now_ms: int, begun: TaskSubmitted | None = None
) -> Redrive:
    """Returns what requeuing a letter does.

    ``original`` is the letter's payload with its claim redeemed; ``settled`` tells whether the task that
    :func:`task_of` names has ended; ``begun`` is what the plan of the task that :func:`plan_of` names began with, none
    where that is not kept.
    """
    content = letter.content
    if content is None:
        return Impossible(f"the letter cannot be read: {letter.unreadable}")
    task = task_of(letter, original)
    ended = task is not None and (settled or now_ms >= task.deadline_ms)
    if content.cause == TASK_FAILED or ended:
        return _anew(letter, original, begun, now_ms)
    if content.stream == s.EVENTS:
        return _to_consumer(letter, content)
    if content.stream in _SUBJECT_TOKENS and _READERS_OF.get(letter.service) == content.stream:
        return _back(letter, content)
    return Impossible(f"what {letter.service} buried from {content.stream or 'nowhere'} is not requeued")


def _anew(letter: Letter, original: bytes, begun: TaskSubmitted | None, now_ms: int) -> Redrive:
    message, task = _input_of(original), task_of(letter, original)
    if message is None or task is None:
        kind = letter.content.known.kind if letter.content is not None else ""
        return Impossible(f"no task can be made from {kind or 'what the letter holds'}; submit it again")
    if begun is not None and (begun.task.tenant, begun.task.id) == (task.tenant, task.id):
        message = begun
    if isinstance(message, RunAttempt) and message.attempt.judges:
        return Impossible("what its answers were made from is no longer kept; submit it again")
    if task.tests and not (isinstance(message, TaskSubmitted) and message.tests):
        return Impossible("what its answers have to pass is no longer kept; submit it again with its tests")
    # Its time counted from when it could begin, which for one that people approved is when they did.
    length_ms = task.deadline_ms - max(task.created_at_ms, task.not_before_ms)
    again = msgspec.structs.replace(
        task,
        id=ids.retry_id(task.tenant, task.id),
        created_at_ms=now_ms,
        deadline_ms=now_ms + max(1_000, length_ms),
        not_before_ms=0,
        reply="",
        surface="tasks",
        cache="off",
        tags={**task.tags, RETRY_TAG: task.id},
    )
    if isinstance(message, TaskSubmitted):
        return RunAnew(msgspec.structs.replace(message, task=again), task.id)
    # The attempt's count of bytes holds the conversation's, which is read again.
    submitted = TaskSubmitted(
        task=again,
        prompt=message.prompt,
        sampling=message.sampling,
        prompt_bytes=len(message.prompt.body),
        panel_size=message.attempt.of if task.plan == "panel" else 3,
    )
    return RunAnew(submitted, task.id)


def _back(letter: Letter, content: DeadLetter) -> Redrive:
    first, second, length = _SUBJECT_TOKENS[content.stream]
    tokens = content.subject.split(".")
    if len(tokens) != length or tokens[0] != first or second not in ("", tokens[1]) or not _is_concrete(tokens):
        return Impossible(f"subject {content.subject!r} is none of {content.stream}")
    return Republish(content.subject, content.payload, _headers(content), f"requeue.{letter.sequence}")


def _to_consumer(letter: Letter, content: DeadLetter) -> Redrive:
    # Letters of earlier versions do not name their consumer; a service has one on EVENTS.
    durables = [one.durable for one in CONSUMERS if one.stream == s.EVENTS and one.service == letter.service]
    wanted = content.known.consumer or "".join(durables[:1])
    if wanted not in durables:
        return Impossible(f"{letter.service} has no consumer {wanted!r} of {s.EVENTS}")
    if s.parse_event(content.subject) is None or not _is_concrete(content.subject.split(".")):
        return Impossible(f"subject {content.subject!r} is none of {s.EVENTS}")
    subject = s.again(wanted, letter.sequence, content.subject)
    message_id = f"requeue.{letter.sequence}"
    return Republish(subject, content.payload, _headers(content), message_id, create_once=True, consumer=wanted)


def _headers(content: DeadLetter) -> dict[str, str]:
    return {name: value for name, value in content.headers.items() if not name.startswith(s.BROKER_HEADERS)}


def _is_concrete(tokens: list[str]) -> bool:
    return all(token and token not in ("*", ">") and not set(token) & set(" \t\r\n") for token in tokens)


def _input_of(original: bytes) -> RunAttempt | TaskSubmitted | None:
    try:
        message = codec.journey.decode(original)
    except ContractError:
        return None
    return message if isinstance(message, RunAttempt | TaskSubmitted) else None
