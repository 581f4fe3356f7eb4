"""What events mean in the books: which rows a batch of messages adds.

Here: messages in, rows out. Not here: SQL, the archive, money's arithmetic (the workers computed it with pinned
prices). One rule: the rows of a set of events do not depend on their order or on how often each came.

Several messages may tell of the same upstream call: the attempt's end with its own time, and the settled message with
the verdict. They agree on everything but two fields, and both merge in any order: ``at_ms`` is the earliest that was
told, and ``wasted`` is true once anybody said so. The statements in ``store`` merge by the same two laws.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final, NamedTuple

import msgspec
from collegium_contracts.messages import (
    AnswersReused,
    AttemptAnswered,
    AttemptDiscarded,
    AttemptFailed,
    AttemptRef,
    AttemptRetried,
    AttemptStarted,
    AttemptUsage,
    JourneyMessage,
    TaskCanceled,
    TaskCompleted,
    TaskFailed,
    TaskRef,
)
from collegium_contracts.money import Price, cost_usd_picos
from collegium_contracts.people import PERSON

from collegium_billing.books.pricing import PriceRow, price_row

_STATES: dict[type, str] = {TaskCompleted: "completed", TaskFailed: "failed", TaskCanceled: "canceled"}
_NO_TAGS = "{}"
AUTO: Final = "auto"
TEACHER: Final = "teacher"
# Of answers that no cheaper model gave: reused ones, a teacher's, and a person's.
_NO_CHEAPER: Final = ("", TEACHER, PERSON)
_encode_tags = msgspec.json.Encoder(order="sorted").encode


class CallKey(NamedTuple):
    """Names one upstream call: the task, the attempt's number, and which delivery of it made the call."""

    task_id: str
    attempt: int
    delivery: int


class StartRow(NamedTuple):
    """A call that was about to be made. Fields are the columns of ``billing.starts``, in order."""

    task_id: str
    attempt: int
    delivery: int
    tenant: str
    model: str
    at_ms: int


class AttemptRow(NamedTuple):
    """A finished upstream call. Fields are the columns of ``billing.attempts``, in order.

    ``tags`` is a JSON object. ``cost_picos`` is a decimal string of pico-dollars: a wire integer may exceed 63 bits.
    """

    task_id: str
    attempt: int
    delivery: int
    tenant: str
    project: str
    key_id: str
    model: str
    rank: str
    plan: str
    tags: str
    at_ms: int
    input_tokens: int
    cached_input_tokens: int
    output_tokens: int
    reasoning_tokens: int
    estimated: bool
    cost_picos: str
    wasted: bool
    succeeded: bool
    error_code: str
    duration_ms: int
    price_version: int
    cache_write_tokens: int


class TaskRow(NamedTuple):
    """A settled task. Fields are the columns of ``billing.tasks``, in order; ``tags`` and money as in AttemptRow.

    ``cache`` says whether its answer is a reused one, and ``saved_picos`` what the original was charged.
    ``reference_model`` is the teacher that the task was not sent to (empty: routing chose nothing cheaper), and
    ``reference_picos`` what it would have been charged for the tokens of the answer.
    ``price_version`` is that of the answer's call.
    """

    task_id: str
    tenant: str
    project: str
    key_id: str
    model: str
    rank: str
    plan: str
    tags: str
    settled_at_ms: int
    state: str
    stop_reason: str
    input_tokens: int
    cached_input_tokens: int
    output_tokens: int
    reasoning_tokens: int
    estimated: bool
    charge_picos: str
    cache: str
    saved_picos: str
    created_at_ms: int
    error_code: str
    reference_model: str
    reference_picos: str
    cache_write_tokens: int = 0
    price_version: int = 0


class Teacher(NamedTuple):
    """A model of the highest rank, and what tenants are charged for it."""

    name: str
    charge: Price


class Books(NamedTuple):
    """The rows of a batch, each key once; ``prices`` are the versions that its calls were pinned to."""

    starts: list[StartRow]
    attempts: list[AttemptRow]
    tasks: list[TaskRow]
    prices: Sequence[PriceRow] = ()


class Booking:
    """The rows of a batch as they are collected, some messages at a time.

    ``teachers`` are those of the roster now: what a cheaper answer is compared with is pinned when it is booked.
    """

    def __init__(self, teachers: Sequence[Teacher] = ()) -> None:
        self._teachers = teachers
        self._starts: dict[CallKey, StartRow] = {}
        self._attempts: dict[CallKey, AttemptRow] = {}
        self._tasks: dict[str, TaskRow] = {}
        self._prices: dict[tuple[str, int], AttemptRef] = {}

    def add(self, messages: Iterable[JourneyMessage]) -> None:
        """Adds the rows of messages; those that no book speaks of add none."""
        attempts = self._attempts
        for message in messages:
            match message:
                case AttemptStarted():
                    if message.attempt.price_version:
                        self._prices[message.attempt.model, message.attempt.price_version] = message.attempt
                    row = _start(message)
                    self._starts[CallKey(*row[:3])] = row
                case AttemptAnswered() | AttemptFailed():
                    for call in (*message.earlier, message.call):
                        _add(attempts, _attempt(message.task, message.attempt.plan, call, message.at_ms))
                case AttemptRetried():
                    if message.call is not None:
                        _add(attempts, _attempt(message.task, message.attempt.plan, message.call, message.at_ms))
                case AttemptDiscarded():
                    call = _attempt(message.task, message.attempt.plan, message.call, message.at_ms)
                    _add(attempts, call._replace(wasted=True))
                case TaskCompleted() | TaskFailed() | TaskCanceled():
                    self._tasks[message.task.id] = _task(message, self._teachers)
                    for call in message.attempts:
                        _add(attempts, _attempt(message.task, message.plan, call, message.settled_at_ms))
                case AnswersReused():
                    for answer in message.answers:
                        self._tasks[answer.task.id] = _task(answer, ())
                case _:
                    pass

    def books(self) -> Books:
        """Returns the rows, sorted by key: replicas that write the same rows in different orders would deadlock."""
        prices = self._prices
        return Books(
            [self._starts[key] for key in sorted(self._starts)],
            [self._attempts[key] for key in sorted(self._attempts)],
            [self._tasks[key] for key in sorted(self._tasks)],
            [price_row(*key, prices[key].price, prices[key].charge) for key in sorted(prices)],
        )


def book(messages: Iterable[JourneyMessage], teachers: Sequence[Teacher] = ()) -> Books:
    """Returns the rows that a batch adds."""
    booking = Booking(teachers)
    booking.add(messages)
    return booking.books()


def merge(first: AttemptRow, second: AttemptRow) -> AttemptRow:
    """Returns what two tellings of the same call say together; commutative, associative and idempotent."""
    return first._replace(at_ms=min(first.at_ms, second.at_ms), wasted=first.wasted or second.wasted)


def _add(attempts: dict[CallKey, AttemptRow], row: AttemptRow) -> None:
    if row.delivery == 0:
        # An attempt that ended without a call.
        return
    key = CallKey(row.task_id, row.attempt, row.delivery)
    standing = attempts.get(key)
    attempts[key] = row if standing is None else merge(standing, row)


def _start(started: AttemptStarted) -> StartRow:
    return StartRow(
        started.task.id,
        started.attempt.number,
        started.delivery,
        started.task.tenant,
        _text(started.attempt.model),
        started.at_ms,
    )


def _attempt(task: TaskRef, plan: str, call: AttemptUsage, at_ms: int) -> AttemptRow:
    usage = call.usage
    return AttemptRow(
        task.id,
        call.number,
        call.delivery,
        task.tenant,
        _text(task.project),
        _text(task.key_id),
        _text(call.model),
        call.rank,
        plan,
        _tags(task.tags),
        at_ms,
        usage.input_tokens,
        usage.cached_input_tokens,
        usage.output_tokens,
        usage.reasoning_tokens,
        usage.estimated,
        str(usage.cost_usd_picos),
        call.wasted,
        call.succeeded,
        _text(call.error_code),
        call.duration_ms,
        call.price_version,
        usage.cache_write_tokens,
    )


def _task(settled: TaskCompleted | TaskFailed | TaskCanceled, teachers: Sequence[Teacher]) -> TaskRow:
    task, usage = settled.task, settled.usage
    reference = _reference(settled, teachers)
    return TaskRow(
        task.id,
        task.tenant,
        _text(task.project),
        _text(task.key_id),
        _text(settled.model),
        _text(settled.rank),
        settled.plan,
        _tags(task.tags),
        settled.settled_at_ms,
        _STATES[type(settled)],
        settled.stop_reason,
        usage.input_tokens,
        usage.cached_input_tokens,
        usage.output_tokens,
        usage.reasoning_tokens,
        usage.estimated,
        str(usage.charge_usd_picos),
        task.cache,
        str(task.reused.saved_usd_picos if task.reused is not None else 0),
        task.created_at_ms,
        _text(settled.error.code) if isinstance(settled, TaskFailed) else "",
        _text(reference[0]),
        str(reference[1]),
        usage.cache_write_tokens,
        _version(settled),
    )


def _version(settled: TaskCompleted | TaskFailed | TaskCanceled) -> int:
    """Returns the version of prices that its answer was made with; 0 where no call of its model is told of."""
    calls = [call for call in settled.attempts if call.model == settled.model]
    answers = [call for call in calls if call.succeeded and not call.wasted] or calls
    return answers[-1].price_version if answers else 0


def _reference(settled: TaskCompleted | TaskFailed | TaskCanceled, teachers: Sequence[Teacher]) -> tuple[str, int]:
    """Returns the cheapest teacher for the tokens of the answer and its charge; none but for a routed, cheaper one."""
    if not teachers or settled.task.reused is not None or settled.task.model != AUTO or settled.rank in _NO_CHEAPER:
        return "", 0
    if not isinstance(settled, TaskCompleted) or settled.task.kind != "chat":
        # No teacher embeds.
        return "", 0
    answers = [call for call in settled.attempts if call.model == settled.model and call.succeeded and not call.wasted]
    usage = answers[-1].usage if answers else settled.usage
    picos, name = min((cost_usd_picos(teacher.charge, usage), teacher.name) for teacher in teachers)
    return name, picos


def _text(value: str) -> str:
    # PostgreSQL stores no NUL; a client that sends one must not escape its bill.
    return value.replace("\x00", "\ufffd") if "\x00" in value else value


def _tags(tags: dict[str, str]) -> str:
    if not tags:
        return _NO_TAGS
    return _encode_tags({_text(key): _text(value) for key, value in tags.items()}).decode()
