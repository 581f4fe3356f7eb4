"""Ended attempts of tasks with tests in; what became of their answers out, create-once.

The events are those that verdicts are made from, by a consumer of their own: an answer may take seconds to run, and no
other plan waits for it. What does not say of itself that it is to be tested is not read; what finds no place is given
back and comes again, until its task's time is over. Killed anywhere, the event comes again, and what stands already
stays. One rule: every answer of a task with tests gets a result, if only that it could not be run.
"""

from __future__ import annotations

import contextlib
import random
import time

import msgspec
import structlog
from collegium_bus.delivery import Delivery
from collegium_bus.errors import AlreadyStandsError
from collegium_bus.work import WorkLoop
from collegium_contracts import codec, consumers
from collegium_contracts import subjects as s
from collegium_contracts.code_tests import CodeTest, decode_tests
from collegium_contracts.content import decode_answer
from collegium_contracts.envelope import UnknownKeyError, held
from collegium_contracts.errors import ContractError
from collegium_contracts.messages import AttemptAnswered, AttemptTested, TaskRef
from collegium_contracts.testsnote import read_until
from collegium_runtime.failpoints import failpoint
from collegium_runtime.platform import Platform
from collegium_runtime.spans import about, received

from collegium_consensus.inputs import begun
from collegium_consensus.telemetry import DESTINATION, SPAN_TEST
from collegium_consensus.testing.child import Checked
from collegium_consensus.testing.pool import PLACES, Pool, Turn

log = structlog.get_logger(__name__)

# Some are left by those that wait for their turn: for ends that have nothing to test or are too late for it.
SLOTS = PLACES + 16
# How long an answer is away that found no place.
AGAIN_SECONDS_MIN = 0.1
AGAIN_SECONDS_MAX = 5.0
DRAIN_SECONDS = 1.0
_NOT_RUN = Checked(0, "not_run", "crashed", 0)
_LATE = Checked(0, "not_run", "late", 0)


class Testers:
    """Runs answers against the tests of their tasks."""

    def __init__(self, platform: Platform) -> None:
        self._platform = platform
        self._pool = Pool()
        self._loop = WorkLoop(
            platform.connection, consumers.consumer("testers"), self._on_event, platform.dead_letters, slots=SLOTS
        )

    def start(self) -> None:
        """Begins to take ended attempts."""
        self._loop.start()

    async def stop(self) -> None:
        """Takes no more; what was not tested comes again to the next who asks."""
        await self._loop.drain(timeout_seconds=DRAIN_SECONDS)
        await self._pool.close()

    async def _on_event(self, delivery: Delivery) -> None:
        until_ms = read_until(delivery.header(s.H_TESTS_UNTIL))
        if until_ms is None:
            delivery.ack()
            return
        left_seconds = (until_ms - self._platform.now_ms()) / 1000
        with self._pool.place(delivery.header(s.H_TENANT)) as turn:
            if turn is None and left_seconds > 0:
                delivery.nak(_again_seconds(delivery.delivered, left_seconds))
                return
            await self._read(delivery, turn)

    async def _read(self, delivery: Delivery, turn: Turn | None) -> None:
        claim = delivery.header(s.H_CLAIM)
        payload = await self._platform.claims.get(claim) if claim else delivery.payload
        try:
            message = codec.journey.decode(payload)
        except ContractError:
            # Whoever makes verdicts of it buries it, and gets it again.
            delivery.ack()
            return
        if isinstance(message, AttemptAnswered) and message.task.tests and not message.attempt.judges:
            with self._platform.tracing.hop(SPAN_TEST, "consumer", delivery.header(s.TRACEPARENT)) as hop:
                if hop.sampled:
                    hop.describe(received(DESTINATION, delivery) | about(message))
                await self._test(message, hop.traceparent, turn)
        delivery.ack()

    async def _test(self, answered: AttemptAnswered, traceparent: str, turn: Turn | None) -> None:
        task, number = answered.task, answered.attempt.number
        subject = s.attempt_tested(task.tenant, task.id, number)
        if await self._platform.direct.last(s.EVENTS, subject) is not None:
            return
        began = time.monotonic()
        checked = await self._checked(answered, turn)
        failpoint("consensus.before-tested")
        told = AttemptTested(
            task=task,
            attempt=answered.attempt,
            state=checked.state,
            passed=checked.passed,
            of=task.tests,
            at_ms=self._platform.now_ms(),
            note=checked.note,
            duration_ms=int((time.monotonic() - began) * 1000),
            behaviour=self._platform.keyring.seal(task.tenant, checked.behaviour) if checked.behaviour else None,
        )
        with contextlib.suppress(AlreadyStandsError):
            await self._platform.publisher.publish(
                subject,
                codec.encode(told),
                message_id=f"{task.id}.{number}.tested",
                headers={s.TRACEPARENT: traceparent, s.H_TENANT: task.tenant},
                create_once=True,
            )
        failpoint("consensus.after-tested")

    async def _checked(self, answered: AttemptAnswered, turn: Turn | None) -> Checked:
        task, keyring = answered.task, self._platform.keyring

        def is_late() -> bool:
            return self._platform.now_ms() >= task.deadline_ms

        if turn is None or is_late():
            return _LATE
        try:
            await held(keyring, task.tenant, answered.answer)
            answer = decode_answer(keyring.open(task.tenant, answered.answer))
            tests = await self._tests(task)
        except (ContractError, UnknownKeyError, msgspec.DecodeError, ValueError, RecursionError) as error:
            log.warning("answer or tests cannot be read", task=task.id, error=type(error).__name__)
            return _NOT_RUN
        text = (answer.choices[0].text or "") if answer.choices else ""
        return await self._pool.check(turn, text, tests, task.created_at_ms, is_late)

    async def _tests(self, task: TaskRef) -> list[CodeTest]:
        beginning = await begun(self._platform, task)
        submitted = beginning[0].submitted if beginning is not None else None
        if submitted is None or submitted.tests is None:
            raise ValueError("its tests are gone")
        await held(self._platform.keyring, task.tenant, submitted.tests)
        return decode_tests(self._platform.keyring.open(task.tenant, submitted.tests))


def _again_seconds(delivered: int, left_seconds: float) -> float:
    """Returns a time with full jitter, longer with every delivery, and no longer than a task has."""
    longest = min(AGAIN_SECONDS_MAX, AGAIN_SECONDS_MIN * 2 ** min(delivered, 8))
    return min(left_seconds, random.uniform(AGAIN_SECONDS_MIN, longest))  # noqa: S311 - jitter
